"""Plots of a folder of runs, each as PNG and SVG: every loss term over the steps, what a curriculum's policy chose and was
rewarded with, score against size and against latency, and all of these facts side by side."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

from distill.report.folder import Run
from distill.report.kept import is_of_best
from distill.report.summary import Summary
from distill.rundir import RunDir, SaveError, write_bytes
from distill.scores import mean_and_error

PANELS = 3              # in a line
PANEL = 3.6, 2.9        # inches
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # told apart by all eyes
MARKERS = "os^Dv<P"     # one fewer than colours: pairs repeat late
FEW = 20                # points of a line that get marks
TOGETHER = 10           # episodes in a mean of what was drawn
BAR = 0.3               # inches
BARS = {"parameters": (1e-6, "parameters (M)"), "body": (1e-6, "without embeddings (M)"), "size": (1e-6, "on disk (MB)"),
        "milliseconds": (1.0, "time for one example (ms)"), "batched_milliseconds": (1.0, "the same in batches of 32 (ms)")}
AXES = {"parameters": (1e-6, "parameters with embeddings (M)"), "milliseconds": (1.0, "time for one example (ms)")}


def plot(summary: Summary, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw everything that the runs know into `folder`; returns the files, and a line for each plot that cannot be drawn."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make the folder {folder}: {error.strerror}") from error
    written, notes = [], []
    for row, task in dict.fromkeys((run.row, run.task.name) for run in summary.runs if run.path):
        runs = summary.of(row, task)
        try:
            figure = curves(runs)
        except (ValueError, LookupError, TypeError) as error:
            notes.append(f"no curves of {row} on {task}: its log.jsonl is damaged ({error!r})")
            continue
        written += _write(figure, folder, f"curves-{task}-{row}")
    for fact, name in (("parameters", "score-against-parameters"), ("milliseconds", "score-against-latency")):
        if not summary.columns:
            notes.append(f"no plot {name}: no run has a score on a split that is reported")
        elif any(summary.typical(row, fact) is not None for row in summary.rows):
            written += _write(trade_off(summary, fact), folder, name)
        else:
            notes.append(f"no plot {name}: no run knows its {fact}"
                         + (" (`python -m distill report latency RUN` measures them)" if fact == "milliseconds" else ""))
    written += _write(comparison(summary), folder, "comparison")
    return written, notes


def curves(runs: Sequence[Run]):
    """A figure of one system on one task: a panel for each term of the loss, unweighted, one for each score, with a line per seed;
    of a curriculum the policy's probabilities and what was drawn, with a line per task, and the rewards."""
    logs = {run.seed: RunDir(run.path).logged() for run in runs}
    terms = list(dict.fromkeys(name for log in logs.values() for line in log for name in line.get("terms", {})))
    scores = list(dict.fromkeys(name for log in logs.values() for line in log for name in line.get("scores", {})))
    if not terms:
        raise ValueError("it names no term of the loss")
    episodes = {seed: [line for line in log if "policy" in line] for seed, log in logs.items()}
    learns = any(episodes.values())
    figure, axes = panels(len(terms) + len(scores) + 3 * learns, f"{runs[0].row} on {runs[0].task.name}")
    if learns:
        _draw_shares(axes[-3], "policy, mean over seeds", _over_seeds(episodes, "policy"))
        _draw_shares(axes[-2], f"drawn, mean over seeds and {TOGETHER} episodes", _smoothed(_over_seeds(episodes, "actions")))
        _draw_rewards(axes[-1], episodes)
    for axis, name in zip(axes, [*terms, *scores]):
        kind, factor = ("terms", 1.0) if name in terms else ("scores", 100.0)
        for index, (seed, log) in enumerate(sorted(logs.items())):
            points = [(line["step"], factor * line[kind][name]) for line in log if name in line.get(kind, {})]
            axis.plot(*zip(*points), color=COLOURS[index % len(COLOURS)], linewidth=1.2, label=f"seed {seed}",
                      marker="." if len(points) <= FEW else None)
        title = f"loss term {name}, weight {_weights(logs, name)}" if kind == "terms" else name.replace("/", ", ")
        axis.set(title=title, xlabel="optimiser step", ylabel="mean per item" if kind == "terms" else "score (%)")
    _legend(figure, axes[0])
    return figure


def _over_seeds(episodes: dict[int, list[dict]], what: str) -> dict[str, dict[int, float]]:
    """By task and episode its share of `what`, the mean over the seeds that reached the episode."""
    found: dict[str, dict[int, list[float]]] = {}
    for line in (line for log in episodes.values() for line in log):
        for task, value in line[what].items():
            found.setdefault(task, {}).setdefault(line["episode"], []).append(value / sum(line[what].values()))
    return {task: {episode: sum(shares) / len(shares) for episode, shares in sorted(of.items())} for task, of in found.items()}


def _smoothed(shares: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """The means over each episode and those before it, TOGETHER in all."""
    means = {}
    for task, of in shares.items():
        values = list(of.values())
        windows = (values[max(0, end - TOGETHER):end] for end in range(1, len(values) + 1))
        means[task] = dict(zip(of, (sum(window) / len(window) for window in windows)))
    return means


def _draw_shares(axis, title: str, shares: dict[str, dict[int, float]]) -> None:
    """A line for each task over the episodes."""
    for index, (task, of) in enumerate(shares.items()):
        axis.plot(list(of), list(of.values()), color=COLOURS[index % len(COLOURS)], linewidth=1.2, label=task)
    axis.set(title=title, xlabel="episode", ylabel="share", ylim=(0, 1))
    axis.legend(fontsize=7, frameon=False)


def _draw_rewards(axis, episodes: dict[int, list[dict]]) -> None:
    """The sum of rewards of every episode; a line per seed."""
    for index, (seed, log) in enumerate(sorted(episodes.items())):
        axis.plot([line["episode"] for line in log], [line["reward"] for line in log], color=COLOURS[index % len(COLOURS)],
                  linewidth=1.0, label=f"seed {seed}")
    axis.set(title="rewards of an episode", xlabel="episode", ylabel="sum")


def _weights(logs: dict[int, list[dict]], term: str) -> str:
    """The weight of a term: one number, or its first and its last."""
    found = [line["weights"][term] for log in logs.values() for line in log if term in line.get("weights", {})]
    return f"{found[0]:g}" if min(found) == max(found) else f"{found[0]:g} to {found[-1]:g}"


def trade_off(summary: Summary, fact: str):
    """A figure of every system's scores (mean and standard error over seeds) against a Run's `fact`; a panel per column of models in best/."""
    factor, label = AXES[fact]
    columns = [column for column in summary.columns if is_of_best(column[1])]
    figure, axes = panels(len(columns), "")
    for axis, column in zip(axes, columns, strict=True):
        for index, row in enumerate(summary.rows):
            values, x = list(summary.values(row, column).values()), summary.typical(row, fact, column[0])
            mean, error = mean_and_error(values) if values and x is not None else (float("nan"), None)
            axis.errorbar(factor * (x or 0), 100 * mean, 100 * error if error else None, label=row, marker=MARKERS[index % len(MARKERS)],
                          color=COLOURS[index % len(COLOURS)], capsize=3, linestyle="none")
        axis.set(title=f"{column[0]} {column[1]}, {column[2]}", xlabel=label, ylabel="score (%)")
        axis.margins(0.15)
    _legend(figure, axes[0])
    return figure


def comparison(summary: Summary):
    """A figure of what every system scores (mean and standard error over seeds), holds and takes: a panel for each column of the
    table, a bar for each system; what is not known says so."""
    lengths = {f"{task} {split}, {metric} (%)": {row: tuple(100 * (part or 0) for part in mean_and_error(values)) for row in summary.rows
                                                if (values := list(summary.values(row, (task, split, metric)).values()))}
               for task, split, metric in summary.columns}
    for fact, (factor, label) in BARS.items():
        lengths[label] = {row: (factor * value, 0.0) for row in summary.rows if (value := summary.typical(row, fact)) is not None}
    figure, axes = panels(len(lengths), "", BAR * len(summary.rows) + 0.9)
    for place, (axis, (label, known)) in enumerate(zip(axes, lengths.items(), strict=True)):
        for index, row in enumerate(summary.rows):
            length, error = known.get(row, (0.0, 0.0))
            axis.barh(index, length, xerr=error or None, color=COLOURS[index % len(COLOURS)], capsize=3)
            axis.text(length + error, index, f" {length:,.{1 if length >= 10 else 2}f}" if row in known else " not known", va="center", fontsize=8)
        axis.set_yticks(range(len(summary.rows)), summary.rows if place % PANELS == 0 else [""] * len(summary.rows))
        axis.set(title=label)
        axis.invert_yaxis()
        axis.margins(x=0.2)
    return figure


def panels(count: int, title: str, height: float = PANEL[1]):
    """A figure with `count` panels, PANELS in a line, `height` inches high, and its axes."""
    from matplotlib.figure import Figure  # heavy, and of no use to whoever trains; without pyplot: no display, no global state

    width = min(count, PANELS)
    lines = -(-count // PANELS)
    figure = Figure(figsize=(max(PANEL[0] * width, 4.2), height * lines + 0.9), layout="constrained")
    axes = [figure.add_subplot(lines, width, place + 1) for place in range(count)]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10)
    figure.suptitle(title)
    return figure, axes


def _legend(figure, axis) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=PANELS, frameon=False, fontsize=9)


def _write(figure, folder: Path, name: str) -> list[Path]:
    """The figure as PNG and SVG, the same bytes for the same figure."""
    import matplotlib

    files = [folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.{kind}" for kind in ("png", "svg")]
    for file, metadata in zip(files, ({}, {"Date": None}), strict=True):
        content = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "SenseDistil"}):
            figure.savefig(content, format=file.suffix[1:], dpi=150, metadata=metadata)
        write_bytes(file, content.getvalue())
    return files
