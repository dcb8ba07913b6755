"""Plots of a folder of runs: what is drawn, as which files, and what cannot be."""

import sys
from pathlib import Path

import pytest

from distill.__main__ import main
from distill.report import plots
from distill.report.folder import find_runs
from distill.report.plots import comparison, curves, plot, trade_off
from distill.report.summary import Summary
from distill.rundir import SaveError
from tests.finished import write_latency, write_run


@pytest.fixture
def folder(tmp_path) -> Path:
    for row, wrong, width in (("small", 0.3, 10), ("large", 0.1, 20)):
        for seed in (1, 2):
            run = write_run(tmp_path / "runs" / row / f"seed-{seed}", "MRPC", seed, wrong, width=width)
            write_latency(run, width + seed)
    return tmp_path / "runs"


def summary(folder: Path) -> Summary:
    return Summary(find_runs(folder)[0])


def points(axis) -> dict[str, tuple[float, float]]:
    """Label -> (x, y) of what a scatter panel shows."""
    handles, labels = axis.get_legend_handles_labels()
    return {label: tuple(handle.lines[0].get_xydata()[0]) for handle, label in zip(handles, labels, strict=True)}


def test_every_term_and_every_score_has_a_panel_with_a_line_per_seed(folder):
    figure = curves(summary(folder).of("small"))
    assert [axis.get_title() for axis in figure.axes] == ["loss term ce, weight 1", "loss term hidden, weight 0.1 to 1", "dev, f1",
                                                          "dev, accuracy"]
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == ["seed 1", "seed 2"] and axis.get_xlabel() == "optimiser step"
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[step, 1 / step] for step in range(1, 11)]
    assert figure.legends and figure.axes[2].get_ylabel() == "score (%)"


@pytest.mark.parametrize("fact, factor, x", [("parameters", 1e-6, {"small": 1000, "large": 2000}),
                                             ("milliseconds", 1.0, {"small": 11.5, "large": 21.5})])
def test_scores_stand_over_parameters_and_over_latency(folder, fact, factor, x):
    found = summary(folder)
    panels = trade_off(found, fact).axes
    assert [axis.get_title() for axis in panels] == ["MRPC dev, f1", "MRPC dev, accuracy"]
    for axis, column in zip(panels, found.columns, strict=True):
        for row, place in points(axis).items():
            values = found.values(row, column).values()
            assert place == pytest.approx((factor * x[row], 100 * sum(values) / 2))
        assert "(M)" in axis.get_xlabel() or "(ms)" in axis.get_xlabel()


def test_one_figure_has_a_bar_for_every_score_size_and_time_and_says_what_is_not_known(folder):
    for file in (folder / "small").rglob("latency.json"):
        file.unlink()
    panels = {axis.get_title(): axis for axis in comparison(summary(folder)).axes}
    assert list(panels) == ["MRPC dev, f1 (%)", "MRPC dev, accuracy (%)", "parameters (M)", "without embeddings (M)", "on disk (MB)",
                            "time for one example (ms)", "the same in batches of 32 (ms)"]
    lengths = {title: [bar.get_width() for bar in axis.patches] for title, axis in panels.items()}
    assert lengths["parameters (M)"] == [0.002, 0.001] and lengths["without embeddings (M)"] == [0.0012, 0.0006]
    assert lengths["time for one example (ms)"] == [21.5, 0] and panels["time for one example (ms)"].texts[1].get_text() == " not known"
    found = summary(folder)
    assert lengths["MRPC dev, f1 (%)"] == pytest.approx([50 * sum(found.values(row, ("MRPC", "dev", "f1")).values()) for row in found.rows])
    assert [label.get_text() for label in panels["parameters (M)"].get_yticklabels()] == ["", ""]
    assert [label.get_text() for label in panels["MRPC dev, f1 (%)"].get_yticklabels()] == found.rows == ["large", "small"]


def test_the_verb_writes_png_and_svg_and_the_same_runs_give_the_same_bytes(folder, tmp_path):
    assert main(["report", "folder", str(folder), "--plots", str(tmp_path / "plots")]) == 0
    files = sorted((tmp_path / "plots").iterdir())
    assert [file.name for file in files] == sorted(
        f"{name}.{kind}" for name in ("comparison", "curves-MRPC-large", "curves-MRPC-small", "score-against-latency", "score-against-parameters")
        for kind in ("png", "svg"))
    assert {file.suffix: file.read_bytes()[:5] for file in files} == {".png": b"\x89PNG\r", ".svg": b"<?xml"}
    assert plots._write(comparison(summary(folder)), tmp_path, "comparison")[1].read_bytes() == files[1].read_bytes()
    again = plots._write(trade_off(summary(folder), "parameters"), tmp_path, "score-against-parameters")
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files if "parameters" in file.name]
    assert "matplotlib.pyplot" not in sys.modules, "it would look for a display"


def test_what_cannot_be_drawn_is_said_and_costs_nothing_else(folder, tmp_path):
    for file in folder.rglob("latency.json"):
        file.unlink()
    (folder / "small/seed-1/log.jsonl").write_text('{"step": 1, "terms"\n')
    (folder / "large/seed-1/log.jsonl").write_text(""), (folder / "large/seed-2/log.jsonl").unlink()
    files, notes = plot(summary(folder), tmp_path / "plots")
    assert {file.stem for file in files} == {"score-against-parameters", "comparison"} and len(notes) == 3
    assert any("no curves of small on MRPC: its log.jsonl is damaged" in note for note in notes)
    assert any("no curves of large on MRPC" in note and "names no term" in note for note in notes)
    assert any("report latency RUN" in note for note in notes)


def test_a_folder_that_cannot_be_made_is_an_error_of_saving(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match="cannot make the folder"):
        plot(summary(folder), tmp_path / "file" / "plots")
