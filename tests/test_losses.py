"""Losses: hand-computed values, zero where student and teacher agree, and who gets the gradient."""

import math

import pytest
import torch

from distill.losses import (
    attention_error,
    cross_entropy,
    mean_squared_error,
    normalised_distance,
    relation_kl,
    sense_cross_entropy,
    soft_score,
    soft_targets,
    squared_error,
    symmetric_kl,
)
from tests import formulas

LOG2, LOG3 = math.log(2), math.log(3)
MINUS_INFINITY = float("-inf")


def test_cross_entropy_has_its_hand_computed_values_unreduced():
    logits = torch.tensor([[0.0, LOG3], [0.0, LOG3], [5.0, 5.0]])
    found = cross_entropy(logits, torch.tensor([0, 1, 0]))
    assert found.tolist() == pytest.approx([math.log(4), math.log(4 / 3), LOG2])


def test_squared_error_has_its_hand_computed_values_unreduced():
    found = squared_error(torch.tensor([[1.0], [4.5], [0.0]]), torch.tensor([1.0, 2.0, -3.0]))
    assert found.tolist() == pytest.approx([0.0, 6.25, 9.0])


def test_soft_targets_are_a_kl_divergence_of_teacher_from_student_times_t_squared():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, LOG3]])
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert soft_targets(student, teacher, 1.0).tolist() == pytest.approx([kl])
    assert soft_targets(2.5 * student, 2.5 * teacher, 2.5).tolist() == pytest.approx([2.5 ** 2 * kl])
    reverse = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert soft_targets(teacher, student, 1.0).tolist() == pytest.approx([reverse])


def test_the_gradient_of_soft_targets_keeps_its_scale_when_the_temperature_rises():
    teacher = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def gradient(temperature):
        student = torch.zeros(4, 3, requires_grad=True)
        soft_targets(student, teacher, temperature).sum().backward()
        return student.grad

    limit = -(teacher - teacher.mean(1, keepdim=True)) / 3  # T -> infinity: (student - teacher) / C, both centred
    torch.testing.assert_close(gradient(1000.0), limit, atol=2e-3, rtol=0)


@pytest.mark.parametrize("loss", [lambda a, b: soft_targets(a, b, 3.0), lambda a, b: soft_score(a[:, :1], b[:, :1])])
def test_a_distillation_loss_is_zero_with_zero_gradient_at_student_equal_teacher(loss):
    teacher = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    student = teacher.clone().requires_grad_()
    found = loss(student, teacher)
    assert found.shape == (5,) and found.abs().max() < 1e-5
    found.sum().backward()
    assert student.grad.abs().max() < 1e-5
    other = loss(teacher + torch.tensor([1.0, -1.0, 0.5, 0.0]), teacher)
    assert (other > 0.05).all()


def test_soft_score_is_the_squared_difference():
    assert soft_score(torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [2.5]])).tolist() == pytest.approx([9.0, 0.25])


@pytest.mark.parametrize("loss", [lambda a, b: soft_targets(a, b, 2.0), lambda a, b: soft_score(a[:, :1], b[:, :1])])
def test_only_the_student_gets_a_gradient(loss):
    student, teacher = (torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), requires_grad=True) for seed in (0, 1))
    loss(student, teacher).sum().backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_sense_cross_entropy_has_its_hand_computed_values_and_no_temperature():
    scores = torch.tensor([[0.0, LOG3, MINUS_INFINITY], [LOG2, 0.0, 0.0]])
    assert sense_cross_entropy(scores, torch.tensor([1, 0])).tolist() == pytest.approx([math.log(4 / 3), LOG2])


def test_slots_without_a_sense_take_no_probability_and_no_gradient():
    with_slots = torch.tensor([[-7.0, -9.0, MINUS_INFINITY, MINUS_INFINITY]], requires_grad=True)
    without = torch.tensor([[-7.0, -9.0]], requires_grad=True)
    for scores in (with_slots, without):
        loss = sense_cross_entropy(scores, torch.tensor([0]))
        assert loss.item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-5)
        loss.sum().backward()
    assert torch.equal(with_slots.grad[:, :2], without.grad) and with_slots.grad[:, 2:].tolist() == [[0.0, 0.0]]
    alone = torch.tensor([[3.0, MINUS_INFINITY]])
    assert sense_cross_entropy(alone, torch.tensor([0])).item() == 0.0


@pytest.mark.parametrize("loss", [lambda logits: cross_entropy(logits, torch.tensor([1, 0])),
                                  lambda logits: soft_targets(logits, logits.flip(1), 2.0),
                                  lambda logits: sense_cross_entropy(logits, torch.tensor([1, 0]))])
def test_half_precision_logits_are_summed_in_float32(loss):
    logits = torch.tensor([[10.01, 3.0], [2.0, 2.5]]).bfloat16()
    found = loss(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(logits.float()), rtol=0, atol=0)


# ---- what is inside: states, attention, relations


def drawn(*shape, seed=0, grad=False) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_(grad)


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
STATE_LOSSES = {  # two sides [3, 5, 8] -> [3, 5]
    "normalised_distance": normalised_distance,
    "mean_squared_error": mean_squared_error,
    "attention_error": lambda a, b: attention_error((a, a.flip(-1)), (b, b.flip(-1)), MASK, 2),
    "relation_kl": lambda a, b: relation_kl(a, b, MASK, 2),
    "relation_kl, chunked": lambda a, b: relation_kl(a, b, MASK, 2, chunk=2),
}


def test_symmetric_kl_has_its_hand_computed_value_and_is_symmetric():
    one, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, LOG3]])
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3) + 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    assert symmetric_kl(one, other).tolist() == symmetric_kl(other, one).tolist() == pytest.approx([expected])
    assert symmetric_kl(other, other + 7.0).tolist() == pytest.approx([0.0])


def test_symmetric_kl_gives_both_sides_a_gradient():
    one, other = drawn(3, 4, grad=True), drawn(3, 4, seed=1, grad=True)
    symmetric_kl(one, other).sum().backward()
    assert one.grad.abs().sum() > 0.1 and other.grad.abs().sum() > 0.1


def test_normalised_distance_has_its_hand_computed_values_and_sees_no_length():
    teacher = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0]])
    student = torch.tensor([[6.0, 8.0], [-0.3, -0.4], [4.0, -3.0]])
    assert normalised_distance(student, teacher).tolist() == pytest.approx([0.0, 4.0, 2.0])


def test_mean_squared_error_has_its_hand_computed_value():
    assert mean_squared_error(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.0, -2.0]])).tolist() == pytest.approx([29 / 3])


def test_attention_error_has_its_hand_computed_value():
    """One head of width 1 and two of width 1; the third key is padding."""
    mask, ones = torch.tensor([[1, 1, 0]]), torch.ones(1, 3, 1)
    query, key = torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([[[3.0], [-1.0], [9.0]]])
    expected = [((3 - 1) ** 2 + (-1 - 1) ** 2) / 2, ((6 - 1) ** 2 + (-2 - 1) ** 2) / 2]
    assert attention_error((query, key), (ones, ones), mask, 1)[0, :2].tolist() == pytest.approx(expected)
    both = attention_error((query.expand(1, 3, 2), key.expand(1, 3, 2)), (ones.expand(1, 3, 2), ones.expand(1, 3, 2)), mask, 2)
    assert both[0, :2].tolist() == pytest.approx([2 * value for value in expected])
    wide = attention_error((query.expand(1, 3, 4), key.expand(1, 3, 4)), (ones, ones), mask, 1)  # 4 q k / sqrt(4)
    assert wide[0, :2].tolist() == pytest.approx([((6 - 1) ** 2 + (-2 - 1) ** 2) / 2, ((12 - 1) ** 2 + (-4 - 1) ** 2) / 2])


def test_relation_kl_has_its_hand_computed_value():
    """The student's vectors are 0: its relations are uniform. The teacher's first row relates to itself with log 3."""
    student, teacher = torch.zeros(1, 3, 1), torch.tensor([[[math.sqrt(LOG3)], [0.0], [5.0]]])
    found = relation_kl(student, teacher, torch.tensor([[1, 1, 0]]), 1)
    assert found[0, :2].tolist() == pytest.approx([0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2), 0.0], abs=1e-6)


@pytest.mark.parametrize("heads, widths", [(1, (4, 6)), (2, (4, 8)), (4, (4, 12))])
def test_relations_and_attention_are_those_of_every_example_and_head_by_itself(heads, widths):
    """Widths differ, so do the attention heads that they once were; for attention scores the number of heads is one."""
    (student, key), (teacher, other_key) = ([drawn(3, 5, width, seed=seed + 5) for seed in (0, 1)] for width in widths)
    relation, attention = relation_kl(student, teacher, MASK, heads), attention_error((student, key), (teacher, other_key), MASK, heads)
    for row, length in enumerate(MASK.sum(1).tolist()):
        one, other = (vectors[row, :length] for vectors in (student, teacher))
        expected = formulas.relation_kl(one, other, heads)
        assert length == 1 or expected.min() > 1e-3
        torch.testing.assert_close(relation[row, :length].double(), expected, rtol=1e-5, atol=1e-6)
        expected = formulas.attention_error((one, key[row, :length]), (other, other_key[row, :length]), heads)
        torch.testing.assert_close(attention[row, :length].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STATE_LOSSES)
def test_a_loss_of_states_is_zero_without_gradient_at_student_equal_teacher_and_only_the_student_learns(name):
    loss, teacher = STATE_LOSSES[name], drawn(3, 5, 8, grad=True)
    student = teacher.detach().clone().requires_grad_()
    found = loss(student, teacher)
    assert found.shape == (3, 5) and found.abs().max() < 1e-5
    found.sum().backward()
    assert student.grad.abs().max() < 1e-5 and teacher.grad is None
    loss(drawn(3, 5, 8, seed=1, grad=True), teacher)[MASK.bool()].sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize("name", STATE_LOSSES)
def test_the_gradient_of_a_loss_of_states_is_that_of_its_finite_differences(name):
    """The losses cast to float32: central differences of a wide step, along several directions."""
    loss, teacher, student = STATE_LOSSES[name], drawn(3, 5, 8), drawn(3, 5, 8, seed=1, grad=True)
    loss(student, teacher)[MASK.bool()].sum().backward()
    for seed in range(3):
        direction, step = drawn(3, 5, 8, seed=10 + seed) * MASK[..., None], 1e-2
        up, down = (loss(student.detach() + sign * step * direction, teacher)[MASK.bool()].double().sum() for sign in (1, -1))
        assert float((up - down) / (2 * step)) == pytest.approx(float((student.grad * direction).sum()), rel=5e-3, abs=5e-3)


@pytest.mark.parametrize("name", STATE_LOSSES)
def test_what_stands_at_padding_changes_neither_values_nor_gradients(name):
    real, found = MASK.bool(), []
    for padding in (0.0, 30.0):
        student, teacher = drawn(3, 5, 8, seed=1), drawn(3, 5, 8)
        student[~real], teacher[~real] = padding, -padding
        student.requires_grad_()
        values = STATE_LOSSES[name](student, teacher)[real]
        values.sum().backward()
        assert student.grad[~real].abs().sum() == 0
        found.append((values.detach(), student.grad[real]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7])
def test_relations_in_chunks_are_the_same_in_value_and_gradient(chunk):
    teacher, mask, found = drawn(4, 5, 12), torch.cat([MASK, MASK[:1]]), []
    for size in (0, chunk):
        student = drawn(4, 5, 8, seed=1, grad=True)
        values = relation_kl(student, teacher, mask, 4, size)
        values[mask.bool()].sum().backward()
        found.append((values.detach(), student.grad))
    assert found[0][1].abs().max() > 1e-2
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", STATE_LOSSES)
def test_autocast_takes_no_precision_from_a_loss_of_states(name):
    student, teacher = drawn(3, 5, 8, seed=1), drawn(3, 5, 8)
    expected = STATE_LOSSES[name](student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        found = STATE_LOSSES[name](student, teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
