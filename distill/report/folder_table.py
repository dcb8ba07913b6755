"""The table of a folder of runs: for reading (markdown) and for computing (CSV)."""

from distill.report.kept import is_of_best
from distill.report.latency import BATCH_SIZES
from distill.report.paired import SEEDS, STANDARD_ERRORS, Difference
from distill.report.summary import Summary
from distill.report.tables import bold, cell, csv_text, markdown
from distill.scores import mean_and_error

# Columns, and the facts of a Run in them.
SIZES = {"parameters (M)": "parameters", "without embeddings (M)": "body", "on disk (MB)": "size"}
TIMES = {"ms per example": "milliseconds", "in batches": "batched_milliseconds"}
SPEED_UPS = {"times as fast": "milliseconds", "times as fast in batches": "batched_milliseconds"}


def table(summary: Summary) -> str:
    """A markdown table and the lines that say how to read it."""
    header = [""]
    for task, split, metric in summary.columns:
        header += [f"{task} {split}, {metric}", *([f"minus {summary.baseline}"] if summary.baseline else [])]
    timed = any(run.latencies for run in summary.runs)
    header += [*SIZES, *(TIMES if timed else {}), *([f"% of {summary.teacher}"] if summary.teacher else []),
               *(SPEED_UPS if timed and summary.teacher else {})]
    lines = []
    for row in summary.rows:
        line = [row]
        for column in summary.columns:
            difference = summary.differences.get((row, column))
            text = cell(list(summary.values(row, column).values()))
            line += [bold(text, difference is not None and difference.is_gain)]
            line += [_difference(difference)] if summary.baseline else []
        line += [_number(summary.typical(row, fact), 1e-6, ".1f") for fact in SIZES.values()]
        line += [_number(summary.typical(row, fact), 1, ".2f") for fact in TIMES.values()] if timed else []
        line += [_share(summary.retention(row), 100)] if summary.teacher else []
        line += [_share(summary.speed_up(row, fact), 1) for fact in SPEED_UPS.values()] if timed and summary.teacher else []
        lines.append(line)
    return "\n".join([markdown(header, lines), "", *_notes(summary, timed)])


def _number(value: float | None, factor: float, form: str) -> str:
    return "-" if value is None else format(factor * value, form)


def _difference(difference: Difference | None) -> str:
    return "-" if difference is None else f"{100 * difference.value:+.1f} ± {100 * difference.stderr:.1f} ({difference.seeds})"


def _share(found: tuple[float, int, int] | None, factor: float) -> str:
    if found is None:
        return "-"
    share, tasks, of = found
    return f"{factor * share:.{1 if factor > 1 else 2}f}" + (f" ({tasks} of {of} tasks)" if tasks < of else "")


def _notes(summary: Summary, timed: bool) -> list[str]:
    lines = ["Percent: mean ± standard error over seeds (number of seeds). On disk: the weights, and the senses that a head reads."]
    if timed:
        lines.append(f"ms per example: one example at a time, and in batches of {BATCH_SIZES[1]} padded to their longest; medians, on "
                     f"{summary.device}" + (f", mean over {', '.join(summary.timed_on)}" if len(summary.timed_on) > 1 else "") + ".")
        lines += [f"{line}." for line in (_named("Not timed there (`report latency RUN`): ", summary.lacking("milliseconds")), _named(
            "Timed while other programs ran: ", summary.disturbed())) if line]
    if summary.baseline:
        lines.append(f"minus {summary.baseline}: paired by seed and example. Bold: better by more than {STANDARD_ERRORS} standard "
                     f"errors of that difference, with at least {SEEDS} seeds.")
    if summary.teacher:
        lines.append(f"% of {summary.teacher}: mean over tasks of the score divided by that of {summary.teacher}."
                     + (f" Times as fast: mean over tasks of the time of {summary.teacher} divided by the row's, on one device." if timed else ""))
    if lacking := summary.lacking("seed"):
        lines.append(_named("Without a finished run: ", lacking) + ".")
    chosen = "; ".join(f"{task} {split} ({', '.join(rows)})" for (task, split), rows in summary.selecting().items())
    return [*lines, f"Models were selected on the reported split: {chosen}." if chosen else
            "No model was selected on a reported split."]


def _named(what: str, tasks_of: dict[str, list[str]]) -> str:
    return what + "; ".join(f"{row} ({', '.join(tasks)})" for row, tasks in tasks_of.items()) if tasks_of else ""


def csv(summary: Summary) -> str:
    """One line per system, task, split and metric; scores are fractions or correlations, one per seed in `values`."""
    lines = []
    for row in summary.rows:
        retained = summary.retention(row) if summary.teacher else None
        speed_ups = {name: found[0] if summary.teacher and (found := summary.speed_up(row, fact)) else None
                     for name, fact in (("speed_up", "milliseconds"), ("batched_speed_up", "batched_milliseconds"))}
        for column in summary.columns:
            values, difference = summary.values(row, column), summary.differences.get((row, column))
            if not values:
                continue
            task, split, metric = column
            mean, stderr = mean_and_error(list(values.values()))
            lines.append({
                "row": row, "task": task, "split": split, "metric": metric, "mean": mean, "stderr": stderr, "n": len(values),
                "seeds": " ".join(map(str, values)), "values": " ".join(map(str, values.values())),
                "selected_on": " ".join(sorted({run.scores.selected_on for run in summary.of(row, task)})),
                **{name: summary.typical(row, fact, task) if is_of_best(split) else None for name, fact in {
                    "parameters": "parameters", "without_embeddings": "body", "bytes": "size", "milliseconds": "milliseconds",
                    "batched_milliseconds": "batched_milliseconds"}.items()},
                "timed_on": summary.device if summary.typical(row, "milliseconds", task) else None,
                "teacher": summary.teacher, "retention": retained[0] if retained else None, **speed_ups,
                "baseline": summary.baseline, "difference": difference.value if difference else None,
                "difference_stderr": difference.stderr if difference else None,
                "difference_seeds": difference.seeds if difference else None,
                "gain": difference.is_gain if difference else None})
    return csv_text(lines)
