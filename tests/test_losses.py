"""Losses: hand-computed values, zero where student and teacher agree, and who gets the gradient."""

import math

import pytest
import torch

from distill.losses import cross_entropy, sense_cross_entropy, soft_score, soft_targets, squared_error

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
