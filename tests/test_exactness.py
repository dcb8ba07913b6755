"""One optimiser step means the same whatever the micro-batches, the ranks, the evaluations and the form of the teacher."""

import dataclasses
import json
from functools import partialmethod
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

from data_utils.batching import collate
from distill import engine
from distill.engine import NonFiniteLossError
from models.checkpoint import load_encoder
from tests import formulas
from tests.training import (
    KINDS,
    METHODS,
    Parts,
    assert_same,
    free_port,
    left_behind,
    one_rank,
    settings,
    start,
)

WHOLE_STEP = {"train_batch_size": 13, "max_steps": 1, "max_grad_norm": 0.0}
pytestmark = pytest.mark.usefixtures("exact", "processes")


class Recorder(torch.optim.SGD):
    """An optimiser that keeps the gradients which it was given, and moves nothing."""

    def __init__(self, module):
        super().__init__(module.parameters(), lr=0.0)
        self.found = None

    def step(self):
        self.found = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone() for group in self.param_groups for parameter in group["params"]]


def engine_gradient(monkeypatch, path, folder, kind, **changed) -> torch.Tensor:
    """The gradient of one step through fit(), as one vector, and the number of forward passes."""
    parts, made = Parts(folder, kind, settings(**WHOLE_STEP, **changed)), []
    monkeypatch.setattr(engine, "build_optimizer", lambda name, module, lr, decay: made.append(Recorder(module)) or made[0])
    calls = []
    parts.student.register_forward_hook(lambda *_: calls.append(1))
    parts.train(path)
    return torch.cat([grad.flatten() for grad in made[0].found]), len(calls)


def gradient_by_hand(folder, kind) -> torch.Tensor:
    """The gradient of the formula in objective.py over the whole batch, the losses written out."""
    parts = Parts(folder, kind, settings(**WHOLE_STEP))
    batch, student = parts.stream().next(), parts.student.train()
    found = student(batch)
    loss = labels = formulas.cross_entropy(found, batch)
    if "sense" in kind:
        soft = formulas.soft_targets(found, parts.teacher(batch), 2.0, parts.task.is_regression)
        loss = 0.7 * senses_by_hand(parts, found, batch) + 1.3 * labels + 0.4 * soft
    elif kind in METHODS:
        teacher = parts.teacher.encoder
        target, pairs = teacher(batch), ((0, 0), (1, 2), (2, 4))
        answers = 1.3 * labels + 0.4 * formulas.soft_targets(found, target, 2.0, parts.task.is_regression)
        loss = {"logit_kd": lambda: answers,
                "pkd": lambda: answers + formulas.cls_states(found, target, pairs),
                "tinybert": lambda: formulas.hidden_states(found, target, batch, pairs, parts.objective.terms["hidden"].project)
                + 1e3 * formulas.attention_scores(student, teacher, found, target, batch, pairs[1:], 2),
                "relation_kd": lambda: answers + 1e3 * formulas.relations(student, teacher, found, target, batch, (2, 4), 8)}[kind]()
    loss.backward()
    learned = [*student.parameters(), *parts.objective.parameters()]
    return torch.cat([parameter.grad.flatten() if parameter.grad is not None else torch.zeros(parameter.numel())
                      for parameter in learned])


def senses_by_hand(parts, found, batch) -> torch.Tensor:
    """The sense loss token by token."""
    teacher, total, tokens = parts.teacher(batch), 0.0, 0
    centroids, offsets = parts.lookup.centroids, parts.lookup.offsets.tolist()
    for row, place in batch.attention_mask.nonzero().tolist():
        token = int(batch.input_ids[row, place])
        own = centroids[offsets[token]:offsets[token + 1]]
        if len(own) and token not in parts.special:
            choice = (own @ teacher.hidden[-1][row, place]).argmax()
            total = total - (own @ found.hidden[-1][row, place]).log_softmax(0)[choice]
            tokens += 1
    assert 20 < tokens < batch.tokens - 26, "types without senses, [CLS] and [SEP] must be in the batch"
    return total / tokens


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).double().norm() / other.double().norm())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_formula_however_the_step_is_cut(tiny_bert, tmp_path, monkeypatch, kind):
    expected = gradient_by_hand(tiny_bert, kind)
    assert expected.norm() > 0.01
    for max_tokens, passes in ((10_000, 1), (60, range(4, 12)), (1, 13)):
        found, calls = engine_gradient(monkeypatch, tmp_path / str(max_tokens), tiny_bert, kind, max_tokens=max_tokens)
        assert calls == passes or calls in np.atleast_1d(passes)
        assert distance(found, expected) < 3e-6, f"--max_tokens {max_tokens}"


def test_disentangled_attention_gives_the_same_gradient_however_the_step_is_cut(tiny_deberta, tmp_path, monkeypatch):
    expected = gradient_by_hand(tiny_deberta, "senses")
    for max_tokens in (10_000, 60):
        found, _ = engine_gradient(monkeypatch, tmp_path / str(max_tokens), tiny_deberta, "senses", max_tokens=max_tokens)
        assert distance(found, expected) < 1e-5


def test_evaluating_leaves_no_trace_in_training(tiny_bert, tmp_path):
    often = Parts(tiny_bert, "senses", settings(eval_steps=1), dropout=True)
    never = Parts(tiny_bert, "senses", settings(eval_steps=1), dropout=True)
    often.train(tmp_path / "often", evaluate=often.restless_score)
    never.train(tmp_path / "never")
    one, other = left_behind(tmp_path / "often"), left_behind(tmp_path / "never")
    assert sum("scores" in line for line in one["log"]) == 10
    one["log"] = [line for line in one["log"] if "terms" in line]
    traces = ("best/", "state.best", "state.latest", "last/scores")
    assert_same(*({name: value for name, value in found.items() if not name.startswith(traces)} for found in (one, other)))


def test_dropout_is_drawn_anew_at_every_step_and_by_the_seed(tiny_bert, tmp_path):
    def losses(seed, dropout, name):
        parts = Parts(tiny_bert, "labels", settings(train_batch_size=13, learning_rate=1e-30, logging_steps=1, max_steps=3,
                                                    seed=seed), dropout=dropout)
        parts.train(tmp_path / name)
        return [line["terms"]["ce"] for line in left_behind(tmp_path / name)["log"]]

    first = losses(1, True, "first")
    assert len(set(first)) == 3 and not set(first) & set(losses(2, True, "second"))
    assert losses(1, True, "again") == first
    assert max(losses(1, False, "off")) - min(losses(1, False, "off2")) < 1e-6


def test_the_best_score_is_kept_and_not_the_last(tiny_bert, tmp_path):
    kept, beaten = [], []

    def score(student, to_beat):
        beaten.append(to_beat)
        kept.append({name: tensor.clone() for name, tensor in student.state_dict().items()})
        value = [0.3, 0.9, 0.9, 0.1, 0.2][len(kept) - 1]
        return dataclasses.replace(parts.restless_score(student), selection=value)

    parts = Parts(tiny_bert, "labels", settings(eval_steps=2))
    parts.train(tmp_path, evaluate=score)
    assert beaten == [-np.inf, 0.3, 0.9, 0.9, 0.9]
    best = load_encoder(tmp_path / "best").state_dict()
    assert all(torch.equal(best[name], kept[1][name]) for name in best)
    assert json.loads((tmp_path / "best/scores.json").read_text())["selection"] == 0.9
    assert json.loads((tmp_path / "last/scores.json").read_text())["selection"] == 0.2
    last = load_encoder(tmp_path / "last").state_dict()
    assert all(torch.equal(last[name], parts.student.state_dict()[name]) for name in last)


@pytest.mark.parametrize("optimizer", ["adamw", "ranger_adabelief"])
def test_a_loss_that_is_no_number_stops_before_the_update_and_names_step_and_term(tiny_bert, tmp_path, optimizer):
    parts = Parts(tiny_bert, "scores", settings(save_steps=1, optimizer=optimizer))

    def spoil():  # what is read from now on: the second batch is made
        parts.data.target[:] = float("nan")

    with pytest.raises(NonFiniteLossError, match=r"^step 3: .*mse nan"):
        parts.train(tmp_path, parts.stream(1, spoil))
    before = load_encoder(tmp_path / "last").state_dict()
    assert torch.load(tmp_path / "last/trainer_state.pt", weights_only=True)["step"] == 2
    assert all(torch.equal(before[name], tensor) for name, tensor in parts.student.state_dict().items())


def test_a_gradient_that_is_no_number_stops_although_the_loss_is_finite(tiny_bert, tmp_path):
    parts = Parts(tiny_bert, "labels", settings())
    parts.student.head.out.weight.register_hook(lambda grad: grad * float("inf"))
    before = {name: tensor.clone() for name, tensor in parts.student.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match="gradient norm (inf|nan)"):
        parts.train(tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in parts.student.state_dict().items())


def test_a_gradient_that_no_scale_makes_finite_stops_a_run_in_half_precision():
    module = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    run = SimpleNamespace(module=module, optimizer=optimizer, step=40, scaler=torch.amp.GradScaler("cpu", init_scale=2.0 ** -12))
    module.weight.register_hook(lambda grad: grad * float("nan"))
    before = module.weight.detach().clone()
    with pytest.raises(NonFiniteLossError, match="step 41: .*not finite at any scale"):
        for _ in range(4):
            run.scaler.scale(module(torch.ones(2, 3)).sum()).backward()
            engine._update(run, {"ce": torch.tensor(1.0)}, SimpleNamespace(fp16=True, max_grad_norm=1.0))
    assert torch.equal(module.weight, before) and run.scaler.get_scale() == 2.0 ** -15


def test_the_gradient_is_clipped_over_the_whole_step(tiny_bert, tmp_path, monkeypatch):
    whole, _ = engine_gradient(monkeypatch, tmp_path / "whole", tiny_bert, "labels")
    monkeypatch.setitem(WHOLE_STEP, "max_grad_norm", 0.05)
    clipped, _ = engine_gradient(monkeypatch, tmp_path / "clipped", tiny_bert, "labels", max_tokens=60)
    assert whole.norm() > 0.1
    torch.testing.assert_close(clipped, whole * 0.05 / whole.norm(), rtol=1e-3, atol=1e-7)


def test_cross_entropy_of_the_log_is_the_mean_over_all_examples_since_the_last_line(tiny_bert, tmp_path):
    parts = Parts(tiny_bert, "labels", settings(learning_rate=1e-30, logging_steps=3, max_steps=3, train_batch_size=5))
    parts.train(tmp_path)
    batch = collate(parts.data, np.arange(13), "SST-2", 0)
    with torch.no_grad():
        expected = F.cross_entropy(parts.student.eval()(batch).logits, batch.target)
    (line,) = left_behind(tmp_path)["log"]
    assert line["terms"]["ce"] == pytest.approx(float(expected), rel=1e-5) and line["examples"] == 13


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "senses", "tinybert", "relation_kd"])
def test_a_compiled_student_learns_the_same_from_few_graphs_for_all_lengths(request, tmp_path, monkeypatch, kind):
    folder = request.getfixturevalue({"labels": "tiny_deberta"}.get(kind, "tiny_bert"))
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))  # no code generator
    eager, compiled = (Parts(folder, kind, settings(compile=compile)).train(tmp_path / str(compile)) for compile in (False, True))
    for name, tensor in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, rtol=0, atol=1e-6)
    assert 1 <= counters["stats"]["unique_graphs"] <= (6 if kind in METHODS else 4)  # layers that note what they project have graphs of their own
    torch._dynamo.reset()


def test_two_ranks_train_as_one_process_does(tiny_bert, tmp_path):
    """13 examples in steps of 6: unequal token counts, and a step with fewer examples than ranks."""
    changed = {"optimizer": "ranger_adabelief", "max_steps": 20, "max_tokens": 60, "learning_rate": 2e-3}
    port = free_port()
    ranks = [start(one_rank, rank, 2, port, tiny_bert, tmp_path, changed) for rank in range(2)]
    alone = {kind: Parts(tiny_bert, kind, settings(**changed)).train(tmp_path / "alone" / kind) for kind in KINDS}
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    for kind, student in alone.items():
        start_of = Parts(tiny_bert, kind, settings()).student.state_dict()
        expected = {name: tensor for name, tensor in student.state_dict().items() if tensor.is_floating_point()}
        first, second = (torch.load(tmp_path / kind / f"rank{rank}.pt", weights_only=True) for rank in range(2))
        saved = load_encoder(tmp_path / kind / "best").state_dict()
        assert max(float((start_of[name] - tensor).abs().max()) for name, tensor in expected.items()) > 1e-3
        for name, tensor in expected.items():
            assert torch.equal(first[name], second[name]) and torch.equal(first[name], saved[name]), name
            torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-6, msg=lambda said: f"{kind} {name}: {said}")
        if kind == "tinybert":  # what the objective learns
            weights = [torch.load(path / kind / "last/trainer_state.pt", weights_only=True)["objective"]
                       for path in (tmp_path, tmp_path / "alone")]
            torch.testing.assert_close(*weights, rtol=0, atol=1e-6)
            before = Parts(tiny_bert, kind, settings()).objective.state_dict()
            assert len(before) == 2 and all((weights[0][name] - before[name]).abs().max() > 1e-4 for name in before)
        logs = [[json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
                for path in (tmp_path / kind, tmp_path / "alone" / kind)]
        assert len(logs[0]) == len(logs[1]) == 7
        for one, other in zip(*logs, strict=True):
            assert one["terms"] == pytest.approx(other["terms"], rel=1e-4, abs=1e-7)  # kl is a difference of logs near 1
            assert (one["step"], one["examples"], one["weights"]) == (other["step"], other["examples"], other["weights"])
    for rank in range(2):
        assert "step 1:" in (tmp_path / f"nan{rank}.txt").read_text(), "a NaN of one rank must stop every rank"
