"""Optimisers: Ranger-AdaBelief against its formula in float64, AdamW's groups."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from distill.optim import OPTIMIZERS, TOGETHER, RangerAdaBelief, buckets, build_optimizer, clip_gradients

STEPS = 16
BETAS, EPS = (0.9, 0.999), 1e-8


def gradients(shape, scale=1.0, seed=0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [scale * generator.normal(0.5, 1.0, shape) for _ in range(STEPS)]


def run(start: np.ndarray, grads: list[np.ndarray], **options) -> list[np.ndarray]:
    """The parameter after every step of the optimiser, float64."""
    parameter = nn.Parameter(torch.tensor(start))
    optimizer = RangerAdaBelief([parameter], **options)
    path = []
    for grad in grads:
        parameter.grad = torch.tensor(grad)
        optimizer.step()
        path.append(parameter.detach().numpy().copy())
    return path


def formula(start: np.ndarray, grads: list[np.ndarray], lr, weight_decay=0.0, betas=BETAS, eps=EPS, every=6, alpha=0.5):
    """RangerAdaBelief's docstring, element by element in plain floats; yields the parameter and rho after every step."""
    b1, b2 = betas
    p, slow = start.astype(float).copy(), start.astype(float).copy()
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        if g.ndim > 1:
            g = np.stack([row - row.mean() for row in g])
        rho_inf = 2 / (1 - b2) - 1
        rho = rho_inf - 2 * t * b2 ** t / (1 - b2 ** t)
        for i in np.ndindex(p.shape):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            v[i] = b2 * v[i] + (1 - b2) * (g[i] - m[i]) ** 2
            if rho > 5:
                v[i] = v[i] + eps
                u = m[i] / (math.sqrt(v[i]) + eps)
                s = math.sqrt((1 - b2 ** t) * (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            else:
                u, s = m[i], 1.0
            p[i] -= lr * s / (1 - b1 ** t) * (u + weight_decay * p[i])
        if t % every == 0:
            slow = np.asarray(slow + alpha * (p - slow))
            p = slow.copy()
        yield p.copy(), rho


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 2, 4), ()])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_ranger_adabelief_follows_its_formula(shape, weight_decay, scale):
    start, grads = np.random.default_rng(9).normal(size=shape), gradients(shape, scale)
    found = run(start, grads, lr=0.02, weight_decay=weight_decay)
    expected, rho = zip(*formula(start, grads, 0.02, weight_decay), strict=True)
    assert rho[4] <= 5 < rho[5] and STEPS > 12, "both branches and two look-aheads must lie inside the run"
    for step, (one, other) in enumerate(zip(found, expected, strict=True), 1):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14, err_msg=f"step {step}")


def test_the_first_momentum_may_change_between_steps():
    """One cycle sets it every step; the bias correction uses the step's own value."""
    start, grads = np.ones(3), gradients((3,))
    expected = list(formula(start, grads, 0.01, betas=(0.85, 0.999)))
    parameter = nn.Parameter(torch.tensor(start))
    optimizer = RangerAdaBelief([parameter], lr=0.01)
    for grad in grads:
        optimizer.param_groups[0]["betas"] = (0.85, 0.999)
        parameter.grad = torch.tensor(grad)
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), expected[-1][0], rtol=1e-10)


def test_matrices_are_centralised_and_vectors_are_not():
    shifted = [np.full((3, 4), 2.0)] * STEPS
    np.testing.assert_array_equal(run(np.ones((3, 4)), shifted, lr=0.1)[-1], np.ones((3, 4)))
    assert (run(np.ones(4), [np.full(4, 2.0)] * STEPS, lr=0.1)[-1] < 0.9).all()


def test_look_ahead_takes_half_of_the_way_back_every_sixth_step():
    start, grads = np.zeros(2), [np.ones(2)] * STEPS
    plain = run(start, grads, lr=0.1, lookahead_steps=10_000)
    ahead = run(start, grads, lr=0.1)
    np.testing.assert_allclose(ahead[4], plain[4], rtol=0, atol=0)
    np.testing.assert_allclose(ahead[5], plain[5] / 2)


def test_a_saved_optimiser_goes_on_bit_for_bit():
    start, grads = np.random.default_rng(2).normal(size=(3, 4)), gradients((3, 4))
    whole = run(start, grads, lr=0.02, weight_decay=0.1)
    parameter = nn.Parameter(torch.tensor(start))
    optimizer = RangerAdaBelief([parameter], lr=0.02, weight_decay=0.1)
    for step, grad in enumerate(grads):
        if step == 8:
            again = nn.Parameter(parameter.detach().clone())
            fresh = RangerAdaBelief([again], lr=1.0)
            fresh.load_state_dict(optimizer.state_dict())
            parameter, optimizer = again, fresh
        parameter.grad = torch.tensor(grad)
        optimizer.step()
    np.testing.assert_array_equal(parameter.detach().numpy(), whole[-1])


def test_a_parameter_without_gradient_stays_as_it_is():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = RangerAdaBelief([used, unused], lr=0.1, weight_decay=0.5)
    used.grad = torch.ones(2)
    optimizer.step()
    assert unused.tolist() == [1.0, 1.0] and used[0] < 1


def test_gradients_are_clipped_as_torch_clips_them_and_what_nothing_read_is_left_alone():
    own, theirs = ([nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(2))] for _ in range(2))
    for parameters in (own, theirs):
        for parameter, grad in zip(parameters, (torch.full((3, 2), 2.0), torch.tensor([0.0, 0.0, 0.0, 3.0]), torch.zeros(2)), strict=True):
            parameter.grad = grad.clone()
    assert torch.equal(clip_gradients(own, 1.0), nn.utils.clip_grad_norm_(theirs, 1.0)) and own[2].grad is None
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(own[:2], theirs, strict=False))
    assert clip_gradients(own, 0.0) == pytest.approx(1.0) and own[1].grad[3] == theirs[1].grad[3], "0 never clips"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_that_do_not_read_a_parameter_do_not_enlarge_its_first_steps(name):
    grads = torch.randn(30, 6, 3, generator=torch.Generator().manual_seed(0))
    moved = []
    for idle in (0, 500):
        module = nn.ParameterDict({"read": nn.Parameter(torch.zeros(6, 3)), "other": nn.Parameter(torch.zeros(1))})
        optimizer = build_optimizer(name, module, 1e-3, 0.01)
        for step in range(idle + len(grads)):
            module["other"].grad = torch.ones(1)
            module["read"].grad = grads[step - idle].clone() if step >= idle else torch.zeros(6, 3)
            clip_gradients(module.parameters(), 0.0)
            optimizer.step()
        moved.append(module["read"].detach())
    assert torch.equal(*moved)


def test_adamw_decays_matrices_and_neither_biases_nor_layer_norms():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    optimizer = build_optimizer("adamw", module, lr=0.1, weight_decay=0.25)
    decay = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert {name: decay[id(parameter)] for name, parameter in module.named_parameters()} == {
        "0.weight": 0.25, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.25}


@pytest.mark.parametrize("together", [0, 13, 1000])
def test_parameters_that_are_updated_together_move_as_each_would_alone(together, monkeypatch):
    """Matrices, vectors, and one that has a gradient in every second step only."""
    monkeypatch.setitem(TOGETHER, "cpu", together)
    shapes, generator = [(3, 4), (4,), (2, 5), (1,), (6,)], torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    grads = [[torch.randn(shape, generator=generator) if shape != (4,) or step % 2 else None for shape in shapes] for step in range(STEPS)]
    all_of_them, alone = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizers = [RangerAdaBelief(all_of_them, lr=0.02, weight_decay=0.1), *(RangerAdaBelief([one], lr=0.02, weight_decay=0.1) for one in alone)]
    for given in grads:
        for one, other, grad in zip(all_of_them, alone, given, strict=True):
            one.grad = other.grad = grad
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(all_of_them, alone, strict=True):
        assert torch.equal(one, other)


def test_a_bucket_is_filled_in_order_and_what_is_larger_is_alone(monkeypatch):
    monkeypatch.setitem(TOGETHER, "cpu", 10)
    sizes = [4, 6, 1, 25, 3, 3]
    assert [[len(one) for one in bucket] for bucket in buckets([torch.ones(size) for size in sizes])] == [[4, 6], [1], [25], [3, 3]]
    assert list(buckets([])) == []


def test_ranger_decays_every_tensor():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    (group,) = build_optimizer("ranger_adabelief", module, lr=0.1, weight_decay=0.25).param_groups
    assert len(group["params"]) == 4 and group["weight_decay"] == 0.25 and group["lr"] == 0.1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_are_left_out(name):
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    kept = {id(p) for group in build_optimizer(name, module, 0.1, 0.1).param_groups for p in group["params"]}
    assert kept == {id(p) for p in module[1].parameters()}
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(name, module.requires_grad_(False), 0.1, 0.1)


def test_an_unknown_optimizer_is_answered_with_the_list():
    with pytest.raises(ValueError, match="'sgd'.*adamw, ranger_adabelief"):
        build_optimizer("sgd", nn.Linear(1, 1), 0.1, 0.1)
