"""Curves of one run while it goes on: its loss in training and on what is held out, and how fast it is."""

import io

from distill.report.plots import panels
from distill.rundir import RunDir, write_bytes


def draw_curves(run_dir: RunDir) -> None:
    """Write curves.png into the run directory: every term of the loss in training and on held-out documents, the share of masked
    words found, and tokens per second."""
    lines = run_dir.logged()
    steps, scored = [line for line in lines if "terms" in line], [line for line in lines if "heldout" in line]
    names = list(dict.fromkeys(name for line in steps for name in line["terms"]))
    figure, axes = panels(len(names) + 2, "")
    for axis, name in zip(axes, names):
        axis.plot(*_points(steps, "terms", name), linewidth=1.0, label="training")
        axis.plot(*_points(scored, "heldout", name), marker=".", label="held out")
        axis.set(title=f"loss term {name}", xlabel="optimiser step")
    axes[-2].plot(*_points(scored, "scores", "heldout/accuracy"), marker=".")
    axes[-2].set(title="masked words found, held out", xlabel="optimiser step")
    axes[-1].plot([line["step"] for line in steps], [line["tokens_per_second"] for line in steps], linewidth=1.0)
    axes[-1].set(title="tokens per second", xlabel="optimiser step", ylim=(0, None))
    if names:
        axes[0].legend(frameon=False, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_bytes(run_dir.path / "curves.png", content.getvalue())


def _points(lines: list[dict], part: str, name: str) -> tuple[list[int], list[float]]:
    found = [(line["step"], line[part][name]) for line in lines if name in line.get(part, {})]
    return [step for step, _ in found], [value for _, value in found]
