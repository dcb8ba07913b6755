"""Terms: each is the sum that its formula gives by hand, divided by what it says, and reads of both models what it should."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from distill import terms
from distill.distillation import Distillation
from distill.schedules import since, until
from distill.teacher import LiveTeacher, Wanted
from distill.terms import AttentionScores, ClsStates, HiddenStates, Labels, Relations, Senses, SoftTargets, Term
from tests import formulas
from tests.pairs import PAIRS, Pair
from tests.training import senses, settings

@pytest.fixture(params=["bert", "deberta"])
def pair(request) -> Pair:
    return Pair(request.getfixturevalue(f"tiny_{request.param}"))


# ---- sums


@pytest.mark.parametrize("task, name", [("SST-2", "ce"), ("STS-B", "mse")])
def test_labels_and_soft_targets_are_sums_over_examples(tiny_bert, task, name):
    pair = Pair(tiny_bert, task)
    labels, soft = Labels(pair.task), SoftTargets(pair.task, 3.0)
    assert (labels.name, soft.name, labels.count(pair.batch), soft.count(pair.batch)) == (name, "kl", 5, 5)
    assert pair.sum(labels) == pytest.approx(5 * formulas.cross_entropy(pair.found, pair.batch).item(), rel=1e-5)
    expected = 5 * formulas.soft_targets(pair.found, pair.target, 3.0, task == "STS-B").item()
    assert pair.sum(soft) == pytest.approx(expected, rel=1e-3) and expected > 1e-6


def test_cls_states_are_those_of_the_formula(pair):
    term = ClsStates(PAIRS, pair.student, pair.teacher)
    found = pair.sum(term)
    assert found == pytest.approx(5 * formulas.cls_states(pair.found, pair.target, PAIRS).item(), rel=1e-5) and found > 0.01
    assert term.count(pair.batch) == 5 and term.wanted == Wanted(cls=(0, 2, 4))
    assert pair.sum(ClsStates([(0, 0), (1, 1)], pair.student, pair.teacher)) < 1e-9, "the same layer"


def test_hidden_states_are_those_of_the_formula(pair):
    term = HiddenStates(PAIRS, pair.student, pair.teacher)
    found = pair.sum(term)
    expected = formulas.hidden_states(pair.found, pair.target, pair.batch, PAIRS, lambda states, width: states)
    assert found == pytest.approx(pair.batch.tokens * expected.item(), rel=1e-5) and found > 0.01
    assert not list(term.parameters())
    assert term.count(pair.batch) == pair.batch.tokens < pair.batch.input_ids.numel()


def test_hidden_states_of_another_width_pass_a_projection_that_is_learned(tiny_bert):
    """The last ones have passed the student's adaptor."""
    pair = Pair(tiny_bert, wide=True)
    term = HiddenStates(PAIRS, pair.student, pair.teacher)
    assert {name: tuple(weight.shape) for name, weight in term.named_parameters()} == {
        "projections.32 to 48.weight": (48, 32), "projections.32 to 48.bias": (48,)}
    found = pair.sum(term)
    expected = formulas.hidden_states(pair.found, pair.target, pair.batch, PAIRS, term.project)
    assert found == pytest.approx(pair.batch.tokens * expected.item(), rel=1e-5)
    term(pair.found, pair.target, pair.batch).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in [*term.parameters(), *pair.student.adaptor.parameters()])


@pytest.mark.parametrize("wide", [False, True])
def test_attention_scores_are_those_of_the_formula(tiny_bert, tiny_deberta, wide):
    for folder, heads in ((tiny_bert, 2), (tiny_deberta, 1))[:1 if wide else 2]:
        pair = Pair(folder, wide=wide)
        term = AttentionScores(PAIRS, pair.student, pair.teacher)
        found = pair.sum(term)
        expected = formulas.attention_scores(pair.student, pair.teacher, pair.found, pair.target, pair.batch, PAIRS[1:], heads)
        assert term.count(pair.batch) == pair.batch.tokens * heads and term.wanted == Wanted(projections=(2, 4))
        assert found == pytest.approx(expected.item() * term.count(pair.batch), rel=1e-5) and found > 1e-5


@pytest.mark.parametrize("kind, wide, heads", [("bert", False, 4), ("bert", True, 8), ("deberta", False, 16)])
def test_relations_are_those_of_the_formula_whatever_the_widths_and_heads(request, kind, wide, heads):
    """Three attention heads on 48 against two on 32, where wide."""
    pair = Pair(request.getfixturevalue(f"tiny_{kind}"), wide=wide, heads=3)
    term = Relations((2, 3), heads, pair.student, pair.teacher)
    found = pair.sum(term)
    expected = formulas.relations(pair.student, pair.teacher, pair.found, pair.target, pair.batch, (2, 3), heads)
    assert term.count(pair.batch) == pair.batch.tokens * heads and term.wanted == Wanted(projections=(3,))
    assert found == pytest.approx(expected.item() * term.count(pair.batch), rel=2e-3) and found > 1e-4


@pytest.mark.parametrize("soft", [False, True])
def test_senses_are_counted_and_summed_where_a_type_has_senses(tiny_bert, soft):
    """The teacher's choice, or its whole distribution at a temperature."""
    pair = Pair(tiny_bert)
    lookup, special = senses(pair.student.config.vocab_size, pair.student.width), [0, 2, 3]
    term, found = Senses(lookup, special, 3.0, 4 if soft else 0), pair.student(pair.batch)
    assert term.wanted == (Wanted(hidden=(4,)) if soft else Wanted(senses=True))
    target = LiveTeacher(pair.teacher, settings(), term.wanted, lookup)(pair.batch)
    total, count, offsets = 0.0, 0, lookup.offsets.tolist()
    for row, place in pair.batch.attention_mask.nonzero().tolist():
        token = int(pair.batch.input_ids[row, place])
        own = lookup.centroids[offsets[token]:offsets[token + 1]]
        if len(own) and token not in special:
            count += 1
            log_q, p = ((own @ outputs.hidden[-1][row, place] / 3).log_softmax(0) for outputs in (found, target))
            total += (9 * (p.exp() * (p - log_q)).sum() if soft else -log_q[p.argmax()]).item()
    assert term.count(pair.batch) == count > 10
    assert term(found, target, pair.batch).item() == pytest.approx(total, rel=1e-4)


def test_padding_changes_no_term(pair):
    for term in (ClsStates(PAIRS, pair.student, pair.teacher), HiddenStates(PAIRS, pair.student, pair.teacher),
                 AttentionScores(PAIRS, pair.student, pair.teacher), Relations((2, 4), 8, pair.student, pair.teacher)):
        pair.student.eval()
        whole, batch = pair.sum(term), pair.batch
        parts = []
        for row in range(5):
            pair.batch = batch.select([row])
            parts.append(pair.sum(term))
        pair.batch = batch
        assert sum(parts) == pytest.approx(whole, rel=1e-3), term.name


@pytest.mark.parametrize("make", [ClsStates, HiddenStates, AttentionScores, lambda pairs, *models: Relations((2, 4), 8, *models)])
def test_what_a_term_asks_for_can_be_learned(tiny_bert, make):
    pair = Pair(tiny_bert)
    term = make(PAIRS[1:], pair.student, pair.teacher)
    optimizer, values = torch.optim.Adam(pair.student.parameters(), 3e-3), []
    for _ in range(25):
        found = term(pair.student(pair.batch), LiveTeacher(pair.teacher, settings(), term.wanted)(pair.batch), pair.batch)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        values.append(found.item())
    assert values[-1] < 0.5 * values[0], values


# ---- memory


class Largest(TorchDispatchMode):
    """Remembers the most numbers that any operation gave."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        sizes = [part.numel() for part in (found if isinstance(found, tuple | list) else [found]) if isinstance(part, torch.Tensor)]
        self.numbers = max(self.numbers, *sizes, 0)
        return found


def test_relations_are_held_a_few_examples_at_a_time_forward_and_backward(monkeypatch):
    examples, length, width, heads = 12, 24, 48, 12
    everything = torch.ones(examples, length)
    batch = SimpleNamespace(input_ids=torch.zeros(examples, length), attention_mask=everything, visible=everything)
    model = SimpleNamespace(depth=1, config=SimpleNamespace(hidden_size=width), keep_projections=lambda layers: None)
    teacher = SimpleNamespace(projections={1: tuple(torch.randn(3, examples, length, width))})
    term, seen = Relations((1, 1), heads, model, model), {}
    for bound in (1 << 25, 3 * heads * length**2 + 7, 10):
        monkeypatch.setattr(terms, "RELATION_NUMBERS", bound)
        student = SimpleNamespace(projections={1: [torch.randn(examples, length, width, requires_grad=True) for _ in range(3)]})
        kept = []
        with Largest() as largest, saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
            term(student, teacher, batch).backward()
        seen[bound] = largest.numbers, sum(kept)
    (_, whole), (some, kept), (one, least) = seen.values()
    assert seen[1 << 25][0] == examples * heads * length**2
    assert some == 3 * heads * length**2 and one == max(heads * length**2, examples * length * width), "at least one example"
    assert max(kept, least) < whole / 5


# ---- what does not fit


def test_what_does_not_fit_is_refused_with_what_is_possible(tiny_bert):
    pair, wide, three = Pair(tiny_bert), Pair(tiny_bert, wide=True), Pair(tiny_bert, wide=True, heads=3)
    both = (wide.student, wide.teacher)
    with pytest.raises(ValueError, match="pkd compares .CLS. states: the student's layer 1 is 32 wide, the teacher's layer 2 48; relation_kd"):
        ClsStates(PAIRS[1:], *both)
    assert ClsStates(PAIRS[2:], *both).pairs == ((2, 4),), "the last states have passed the adaptor"
    with pytest.raises(ValueError, match="tinybert compares attention heads: the student has 2, the teacher 3;.*relation_kd"):
        AttentionScores(PAIRS, three.student, three.teacher)
    with pytest.raises(ValueError, match="--layer_map pairs nothing but embeddings.*--attention_weight 0"):
        AttentionScores([(0, 0)], pair.student, pair.teacher)
    for layer in (0, 5):
        with pytest.raises(ValueError, match=f"the teacher has no layer {layer}, but 1 to 4"):
            Relations((2, layer), 4, pair.student, pair.teacher)
    with pytest.raises(ValueError, match="--relation_heads 3 does not divide the student's 32 hidden units.*common divisor"):
        Relations((2, 4), 3, *both)
    with pytest.raises(ValueError, match="--relation_heads 0: expected at least 1"):
        Relations((2, 4), 0, *both)


def test_a_term_asks_its_model_for_the_layers_that_it_reads(tiny_bert):
    pair = Pair(tiny_bert)
    AttentionScores([(0, 0), (1, 3)], pair.student, pair.teacher)
    assert set(pair.student(pair.batch).projections) == {1}


# ---- their sum


class Costly(Term):
    """A term with a parameter, which must not be computed while its weight is 0."""

    name, wanted = "costly", Wanted(cls=(3,))

    def __init__(self):
        super().__init__()
        self.scale, self.calls = torch.nn.Parameter(torch.ones(())), 0

    def forward(self, found, target, batch):
        self.calls += 1
        return self.scale * found.logits.sum()


def test_terms_without_weight_are_left_out_and_those_without_one_now_are_not_computed(tiny_bert):
    pair = Pair(tiny_bert)
    costly, cls = Costly(), ClsStates([(1, 2)], pair.student, pair.teacher)
    objective = Distillation(None, [(Labels(pair.task), since(0.5, 2.0)), (costly, until(0.5, 3.0)), (cls, 0.0)])
    objective.teacher = LiveTeacher(pair.teacher, settings(), objective.wanted)
    assert objective.wanted == Wanted(cls=(3,)) and objective.counts(pair.batch) == {"ce": 5, "costly": 5}
    for progress, weights, calls in ((0.0, (0.0, 3.0), 1), (0.49, (0.0, 3.0), 2), (0.5, (2.0, 0.0), 2), (1.0, (2.0, 0.0), 2)):
        sums = objective(pair.student, pair.batch, progress)
        assert tuple(objective.weights(progress).values()) == weights and costly.calls == calls
        sum(weight * sums[name] for name, weight in objective.weights(progress).items()).backward()
        assert all(parameter.grad is not None for parameter in [*pair.student.parameters(), *objective.parameters()])


def test_every_parameter_has_a_gradient_whatever_a_term_reads(tiny_bert):
    """Ranks wait for the gradient of each."""
    pair = Pair(tiny_bert)
    objective = Distillation(None, [(HiddenStates([(0, 0)], pair.student, pair.teacher), 1.0)])
    objective.teacher = LiveTeacher(pair.teacher, settings(), objective.wanted)
    objective(pair.student, pair.batch, 0.0)["hidden"].backward()
    assert all(parameter.grad is not None for parameter in pair.student.parameters())
    assert pair.student.head.out.weight.grad.abs().sum() == 0


def test_wanted_is_united():
    one, other = Wanted(cls=(1, 3), hidden=(2,)), Wanted(senses=True, cls=(3, 0), projections=(4,))
    assert one | other == Wanted(True, (0, 1, 3), (2,), (4,))
    assert not Wanted(cls=(1,)).of_tokens and all(wanted.of_tokens for wanted in (one, other, Wanted(projections=(1,)), Wanted(True)))
