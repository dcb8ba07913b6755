"""Self-teaching: its loss, its two exits, the student that it leaves, stages that build on each other and go on after any kill."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from data_utils.batching import TrainStream
from data_utils.tasks import get_task
from distill.__main__ import main
from distill.recipes import self_teaching
from distill.recipes.self_teaching import Config, SelfTeaching, default_preset, parse_schedule
from distill.rundir import RunDir
from distill.stages import APART
from models.exits import TwoExits
from tests.training import (
    Parts,
    assert_same,
    exact_arithmetic,
    left_behind,
    only,
    self_teaching_words,
    settings,
    two_exits,
)

pytestmark = pytest.mark.usefixtures("exact")


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


# ---- the loss


class Said:
    """A network that answers what it is told."""

    layer, depth = 2, 4

    def __init__(self, student: list, teacher: list):
        self.exits = {2: torch.tensor(student), 4: torch.tensor(teacher)}

    def __call__(self, batch):
        return SimpleNamespace(exits=self.exits)


def test_the_terms_of_classes_are_those_counted_by_hand():
    """Softmax of (log 3, 0) is (3/4, 1/4)."""
    objective = SelfTeaching(Config(student_ce_weight=0.25), get_task("SST-2"))
    found = objective(Said([[0.0, 0.0], [0.0, 0.0]], [[math.log(3), 0.0], [0.0, math.log(3)]]),
                      SimpleNamespace(target=torch.tensor([0, 0])), 0.0)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"ce": math.log(4 / 3) + math.log(4), "kl": 2 * 0.25 * math.log(3), "student_ce": 2 * math.log(2)})
    assert objective.weights(0.3) == {"ce": 1.0, "kl": 0.5, "student_ce": 0.25}
    assert objective.counts([0] * 5) == {"ce": 5, "kl": 5, "student_ce": 5}


def test_scores_are_compared_by_squared_errors_and_a_weight_of_zero_leaves_a_term_out():
    objective = SelfTeaching(Config(), get_task("STS-B"))
    found = objective(Said([[1.5], [0.0]], [[2.0], [1.0]]), SimpleNamespace(target=torch.tensor([3.0, 1.0])), 0.0)
    assert {name: float(value) for name, value in found.items()} == {"mse": 1.0, "kl": 0.25 + 1.0}


def gradients(network: TwoExits, batch, **changed) -> dict[str, torch.Tensor]:
    """Of the mean loss, by parameter."""
    network.zero_grad()
    objective = SelfTeaching(Config(**changed), get_task("SST-2"))
    sums, weights = objective(network, batch, 0.0), objective.weights(0.0)
    (sum(weights[name] * value for name, value in sums.items()) / len(batch)).backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


def below(name: str) -> bool:
    """Whether a parameter lies at or below the student exit, after layer 2."""
    return not name.startswith("head.") and not any(f"layer.{layer}." in name for layer in (2, 3))


def test_the_gradient_of_both_exits_is_that_of_the_formula(tiny_bert):
    network, rows = two_exits(tiny_bert)
    found = gradients(network, rows)
    network.zero_grad()
    exits = network(rows).exits
    log_s, log_t = (exits[layer] - exits[layer].exp().sum(-1, keepdim=True).log() for layer in (2, 4))
    kl = (log_s.exp() * (log_s - log_t) + log_t.exp() * (log_t - log_s)).sum(-1)
    (-log_t[torch.arange(8), rows.target].mean() + 0.5 * kl.mean()).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_detached_teacher_is_moved_by_the_labels_alone_and_the_student_still_learns(tiny_bert):
    network, rows = two_exits(tiny_bert)
    both, detached, labels = (gradients(network, rows, **changed) for changed in (
        {}, {"detach_teacher": True}, {"kl_weight": 0.0, "student_ce_weight": 1e-30}))
    for name in [name for name in both if not name.endswith("key.bias")]:  # which no softmax over the keys shows
        assert both[name].abs().max() > 0 and detached[name].abs().max() > 0, f"{name} has no gradient: ranks would wait for it"
        assert (distance(detached[name], labels[name]) > 1e-2) == below(name), name
        assert distance(both[name], labels[name]) > 1e-2, name
    assert torch.allclose(both["exit_head.out.weight"], detached["exit_head.out.weight"]), "the student is pulled alike"


# ---- schedules and stages


def test_a_schedule_names_its_stages():
    assert parse_schedule("24,20,16,12", 24) == [(24, 20), (20, 16), (16, 12)]
    assert parse_schedule("all,half", 6) == [(6, 3)] and parse_schedule("4,1", 6) == [(4, 1)]


@pytest.mark.parametrize("spec", ["3,4", "4", "4,4", "5,2", "2,0", "4;2", "4,,2", "4,-2", "", "half,all"])
def test_a_schedule_that_cannot_be_is_refused_in_one_line(spec, tiny_bert, tiny_glue, tmp_path, capsys):
    assert main(self_teaching_words(tiny_bert, "SST-2", tiny_glue, tmp_path / "run", f"--schedule={spec}")) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: --schedule {spec}: expected two exits or more, falling, from 4") and "4,3" in line
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def gradual(tiny_bert, tiny_glue, tmp_path_factory) -> dict:
    """An undisturbed run 4 -> 3 -> 1, dropout on, and the network with which each of its stages began."""
    out, begun, seeds = tmp_path_factory.mktemp("gradual"), [], []
    with pytest.MonkeyPatch.context() as monkeypatch, exact_arithmetic():
        fit = self_teaching.fit_on_task
        monkeypatch.setattr(self_teaching, "fit_on_task", lambda student, *rest: begun.append(
            {name: tensor.clone() for name, tensor in student.state_dict().items()}) or seeds.append(rest[4].seed) or fit(student, *rest))
        assert main(self_teaching_words(tiny_bert, "STS-B", tiny_glue, out, "--schedule", "4,3,1")) == 0
    return {"out": out, "stage": out / "stage-4-3", "begun": begun, "seeds": seeds}


def test_a_stage_begins_as_the_student_that_the_stage_before_it_exported_and_its_head_is_promoted(gradual):
    exported, (first, second) = load_file(gradual["stage"] / "best/model.safetensors"), gradual["begun"]
    layers = [{int(name.split(".layer.")[1].split(".")[0]) for name in state if ".layer." in name}
              for state in (first, exported, second, load_file(gradual["out"] / "best/model.safetensors"))]
    assert layers == [{0, 1, 2, 3}, {0, 1, 2}, {0, 1, 2}, {0}]
    for name in ("embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.weight", "encoder.layer.2.output.dense.weight"):
        assert torch.equal(second[f"backbone.{name}"], exported[f"bert.{name}"]) and not torch.equal(second[f"backbone.{name}"],
                                                                                                     first[f"backbone.{name}"])
    trained = load_file(gradual["stage"] / "last/model.safetensors")
    assert not torch.equal(trained["exit_head.out.weight"], trained["head.out.weight"])
    for head in ("head", "exit_head"):
        assert torch.equal(second[f"{head}.out.weight"], exported["head.out.weight"])
        assert torch.equal(second[f"{head}.dense.weight"], exported["head.dense.weight"])


def test_the_teacher_exit_is_scored_before_a_stage_and_with_every_student(gradual):
    begun, *later = [line["scores"] for line in log(gradual["out"]) if "scores" in line]
    student = json.loads((gradual["stage"] / "best/scores.json").read_text())["values"]
    assert begun["dev, teacher exit/pearson"] == student["dev/pearson"] != begun["dev/pearson"], "the student is the next teacher"
    assert [line["step"] for line in log(gradual["out"]) if "scores" in line] == [0, 3, 6]
    final = json.loads((gradual["out"] / "scores.json").read_text())
    selection = [(line["dev/pearson"] + line["dev/spearman"]) / 2 for line in later]
    assert final["values"] == later[selection.index(max(selection))] and final["selection"] == max(selection), "the student selects"
    assert final["counts"].keys() == final["errors"].keys() == begun.keys() == {
        f"dev{exit}/{metric}" for exit in ("", ", teacher exit") for metric in ("pearson", "spearman")}


def test_every_stage_is_a_run_of_its_own(gradual):
    stage, out = (json.loads((gradual[name] / "config.json").read_text()) for name in ("stage", "out"))
    assert (stage["schedule"], out["schedule"]) == ("4,3", "4,3,1") and (gradual["stage"] / "DONE").exists()
    assert {line: stage[line] for line in stage if line not in ("schedule", "output_dir")} == {
        line: out[line] for line in out if line not in ("schedule", "output_dir")}
    assert json.loads((gradual["stage"] / "origin.json").read_text())["data"].keys() == {"train", "dev"}
    assert gradual["seeds"] == [out["seed"], out["seed"] + APART], "each with an order of its own"
    seconds = [json.loads((gradual[name] / "scores.json").read_text())["seconds"] for name in ("stage", "out")]
    assert seconds[0] == pytest.approx(RunDir(gradual["stage"]).logged_seconds(), abs=0.06)
    assert RunDir(gradual["out"]).logged_seconds() > RunDir(gradual["stage"]).logged_seconds(), "the last stage's clock goes on"


@pytest.mark.parametrize("kills", [[1, 4, 5, 1], [6, 1]])
def test_a_run_killed_in_any_stage_goes_on_bit_for_bit(kills, gradual, tiny_bert, tiny_glue, tmp_path, monkeypatch):
    """Each number: the batches that a sitting gets. In the first stage before its first checkpoint and after it, in the second
    twice; between the two, in the second before its first checkpoint."""
    command = self_teaching_words(tiny_bert, "STS-B", tiny_glue, tmp_path, "--schedule", "4,3,1")
    for left in kills:
        with monkeypatch.context() as patch:
            only(TrainStream, left, patch)
            assert main(command) == 130
    assert main(command) == 0
    for folder in ("", "stage-4-3"):
        assert_same(left_behind(tmp_path / folder), left_behind(gradual["out"] / folder))
    assert (tmp_path / "DONE").exists()


def test_a_run_that_stands_in_an_early_stage_is_not_continued_with_other_settings(tiny_bert, tiny_glue, tmp_path, monkeypatch, capsys):
    command = self_teaching_words(tiny_bert, "STS-B", tiny_glue, tmp_path, "--schedule", "4,3,1")
    following = TrainStream.next
    monkeypatch.setattr(TrainStream, "next", lambda stream: following(stream) if stream.position < 4 else pytest.fail("not asked for"))
    with pytest.raises(pytest.fail.Exception):
        main(command)
    assert main([*command, "--kl_weight", "2"]) == 1
    assert "holds a run with other settings (kl_weight: 0.5 -> 2.0)" in capsys.readouterr().err


def test_an_evaluation_on_start_is_logged_leaves_no_trace_and_is_not_the_best(tiny_bert, tmp_path):
    """The scores of this one only fall."""
    for name, on_start in (("with", True), ("without", False)):
        parts = Parts(tiny_bert, "labels", settings(eval_on_start=on_start), dropout=True)
        parts.train(tmp_path / name, evaluate=parts.restless_score)
    one, other = left_behind(tmp_path / "with"), left_behind(tmp_path / "without")
    assert one["log"].pop(0) == {"step": 0, "scores": {"dev/score": 0.0}}
    assert_same(one, other)


@pytest.mark.parametrize("width, preset", [(1024, "large"), (768, "base"), (384, "small")])
def test_the_settings_follow_from_the_width_of_the_model(width, preset, monkeypatch):
    monkeypatch.setattr(self_teaching, "load_config", lambda name: SimpleNamespace(hidden_size=width))
    assert default_preset({"model": "any"}) == preset


@pytest.mark.parametrize("task", ["CoLA", "SST-2", "IMDb"])
def test_the_preset_long_has_the_steps_of_three_small_stages(task):
    short, long = ({**self_teaching.PRESET_DEFAULTS[preset], **self_teaching.PER_TASK[preset].get(task, {})} for preset in ("small", "long"))
    assert long == {**short, "num_train_epochs": 3 * short["num_train_epochs"]}
