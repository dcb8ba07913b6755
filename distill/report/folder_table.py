"""The table of a folder of runs: for reading (markdown) and for computing (CSV)."""

from distill.report.paired import SEEDS, STANDARD_ERRORS, Difference
from distill.report.summary import Summary
from distill.report.tables import bold, cell, csv_text, markdown
from distill.scores import mean_and_error


def table(summary: Summary) -> str:
    """A markdown table and the lines that say how to read it."""
    header = [""]
    for task, split, metric in summary.columns:
        header += [f"{task} {split}, {metric}", *([f"minus {summary.baseline}"] if summary.baseline else [])]
    header += ["parameters (M)"]
    timed = any(run.milliseconds is not None for run in summary.runs)
    header += ["ms per example"] * timed + [f"% of {summary.teacher}"] * bool(summary.teacher)
    lines = []
    for row in summary.rows:
        line = [row]
        for column in summary.columns:
            difference = summary.differences.get((row, column))
            text = cell(list(summary.values(row, column).values()))
            line += [bold(text, difference is not None and difference.is_gain)]
            line += [_difference(difference)] if summary.baseline else []
        line += [_number(summary.typical(row, "parameters"), 1e-6, ".1f")]
        line += [_number(summary.typical(row, "milliseconds"), 1, ".2f")] * timed
        line += [_retention(summary, row)] if summary.teacher else []
        lines.append(line)
    return "\n".join([markdown(header, lines), "", *_notes(summary, timed)])


def _number(value: float | None, factor: float, form: str) -> str:
    return "-" if value is None else format(factor * value, form)


def _difference(difference: Difference | None) -> str:
    return "-" if difference is None else f"{100 * difference.value:+.1f} ± {100 * difference.stderr:.1f} ({difference.seeds})"


def _retention(summary: Summary, row: str) -> str:
    found = summary.retention(row)
    if found is None:
        return "-"
    share, tasks, of = found
    return f"{100 * share:.1f}" + (f" ({tasks} of {of} tasks)" if tasks < of else "")


def _notes(summary: Summary, timed: bool) -> list[str]:
    lines = ["Percent: mean ± standard error over seeds (number of seeds). Parameters include the embeddings."]
    if timed:
        lines.append("ms per example: one example at a time, median.")
    if summary.baseline:
        lines.append(f"minus {summary.baseline}: paired by seed and example. Bold: better by more than {STANDARD_ERRORS} standard "
                     f"errors of that difference, with at least {SEEDS} seeds.")
    if summary.teacher:
        lines.append(f"% of {summary.teacher}: mean over tasks of the score divided by that of {summary.teacher}.")
    chosen = "; ".join(f"{task} {split} ({', '.join(rows)})" for (task, split), rows in summary.selecting().items())
    return [*lines, f"Models were selected on the reported split: {chosen}." if chosen else
            "No model was selected on a reported split."]


def csv(summary: Summary) -> str:
    """One line per system, task, split and metric; scores are fractions or correlations, one per seed in `values`."""
    lines = []
    for row in summary.rows:
        retained = summary.retention(row) if summary.teacher else None
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
                "parameters": summary.typical(row, "parameters", task), "milliseconds": summary.typical(row, "milliseconds", task),
                "teacher": summary.teacher, "retention": retained[0] if retained else None,
                "baseline": summary.baseline, "difference": difference.value if difference else None,
                "difference_stderr": difference.stderr if difference else None,
                "difference_seeds": difference.seeds if difference else None,
                "gain": difference.is_gain if difference else None})
    return csv_text(lines)
