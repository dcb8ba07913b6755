"""Losses over a vocabulary: equal to the plain formulas, whatever the chunks; and they hold few scores at a time."""

import math

import pytest
import torch
from torch.nn import functional as F

from distill.losses import soft_targets
from distill.vocabulary_losses import best_words, soft_words, word_cross_entropy

WORDS, WIDTH = 50, 8


def parts(seed: int, positions: int = 7, width: int = WIDTH):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((positions, width), (WORDS, width), (WORDS,))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes)


def gradients(loss, inputs):
    return torch.autograd.grad(3.0 * loss, inputs)  # backward scales


@pytest.mark.parametrize("numbers", [1, 2 * WORDS, 10 ** 6])
def test_masked_words_have_the_plain_cross_entropy_and_its_gradients_in_any_chunks(numbers):
    features, weight, bias = parts(0)
    target = torch.tensor([3, 3, 49, 0, 7, 8, 9])
    found = word_cross_entropy(features, weight, bias, target, numbers)
    plain = F.cross_entropy(F.linear(features, weight, bias), target, reduction="sum")
    torch.testing.assert_close(found.double(), plain, rtol=1e-5, atol=1e-4)
    for one, other in zip(gradients(found, (features, weight, bias)), gradients(plain, (features, weight, bias)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("numbers", [1, 3 * WORDS, 10 ** 6])
def test_soft_words_are_soft_targets_over_the_vocabulary_in_any_chunks(numbers):
    features, weight, bias = parts(1)
    teacher = parts(2, width=12)
    found = soft_words(features, weight, bias, teacher, 2.0, numbers)
    plain = soft_targets(F.linear(features, weight, bias), F.linear(*teacher), 2.0).sum()
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-4)
    for one, other in zip(gradients(found, (features, weight, bias)), gradients(plain, (features, weight, bias)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padded", ["student", "teacher"])
def test_rows_that_only_pad_a_table_of_words_are_not_compared(padded):
    student, teacher = parts(1), parts(2, width=12)
    plain = soft_words(*student, teacher, 2.0)
    wide = [torch.cat([part, part[:6] + 9]) if place else part for place, part in enumerate(student if padded == "student" else teacher)]
    found = soft_words(*(wide if padded == "student" else student), wide if padded == "teacher" else teacher, 2.0)
    assert found.item() == pytest.approx(plain.item())
    for one, other in zip(gradients(found, student[:1]), gradients(plain, student[:1]), strict=True):
        torch.testing.assert_close(one, other)


def test_a_student_that_is_its_teacher_has_no_soft_loss_and_no_gradient():
    student = parts(3)
    loss = soft_words(*student, student, 2.0)
    assert abs(loss.item()) < 1e-6
    assert all(part.abs().max() < 1e-5 for part in torch.autograd.grad(loss, student))


def test_a_word_by_hand():
    features, weight, bias = torch.tensor([[1.0]]), torch.tensor([[0.0], [math.log(3.0)]]), torch.zeros(2)
    assert word_cross_entropy(features, weight, bias, torch.tensor([1])).item() == pytest.approx(-math.log(0.75))
    teacher = (features, torch.zeros(2, 1), bias)  # shares of a half each
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert soft_words(features, weight, bias, teacher, 1.0).item() == pytest.approx(expected)


def test_the_teacher_has_no_gradient_and_frozen_words_cost_none():
    features, weight, bias = parts(4)
    teacher = parts(5)
    found = torch.autograd.grad(soft_words(features, weight.detach(), bias, teacher, 1.0), (features, *teacher), allow_unused=True)
    assert found[0] is not None and found[1:] == (None, None, None)


def test_the_best_word_is_the_largest_product_in_any_chunks():
    features, weight, bias = parts(6)
    expected = F.linear(features, weight, bias).argmax(-1)
    assert best_words(features, weight, bias, 1).equal(expected) and best_words(features, weight, bias).equal(expected)


def test_no_position_gives_zero():
    features, weight, bias = parts(7, positions=0)
    assert word_cross_entropy(features, weight, bias, torch.zeros(0, dtype=torch.long)).item() == 0
    assert len(best_words(features, weight, bias)) == 0


def test_under_autocast_scores_are_multiplied_in_bfloat16_and_the_loss_stays_near():
    features, weight, bias = (part.detach().float().requires_grad_() for part in parts(8))
    target = torch.arange(7)
    exact = word_cross_entropy(features, weight, bias, target)
    with torch.autocast("cpu", torch.bfloat16):
        near = word_cross_entropy(features, weight, bias, target)
    assert near.dtype == torch.float32 and 0 < abs(near - exact) < 0.02 * exact
    assert [part.dtype for part in gradients(near, (features, weight, bias))] == 3 * [torch.float32]


def test_in_fp16_slopes_that_it_cannot_hold_reach_the_gradients():
    features, weight, bias = (part.detach().float().requires_grad_() for part in parts(9))
    with torch.no_grad():
        bias[0] += 34.0  # the shares of all other words round to 0 in fp16
    target = torch.zeros(7, dtype=torch.long)
    exact, _, _ = gradients(word_cross_entropy(features, weight, bias, target), (weight, features, bias))
    with torch.autocast("cpu", torch.float16):
        found, _, _ = gradients(word_cross_entropy(features, weight, bias, target), (weight, features, bias))
    assert 0 < exact[1:].abs().max() < 3e-8
    torch.testing.assert_close(found, exact, rtol=0.05, atol=1e-12)
