"""Optimisers: torch's fused AdamW, and Ranger-AdaBelief, which the published sense distillation uses."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from distill.sharding import full_tensor

OPTIMIZERS = ("adamw", "ranger_adabelief")
# Numbers that Ranger-AdaBelief updates at a time, and needs memory for: on a GPU each line of its formula is a launch, whose time
# small tensors do not fill; on a processor what has left its cache between two lines is read again.
TOGETHER = {"cuda": 2 ** 24, "cpu": 2 ** 20}


class RangerAdaBelief(torch.optim.Optimizer):
    """AdaBelief with rectification, gradient centralisation and look-ahead, as the published code of
    arXiv 2504.06036 steps.

    For each parameter p with gradient g, step t:
        g   <- g - mean of g over all dimensions but the first          (matrices and higher)
        m   = b1 m + (1 - b1) g;      v = b2 v + (1 - b2) (g - m)^2
        rho = 2/(1-b2) - 1 - 2 t b2^t / (1 - b2^t)
        rho > 5:  v <- v + eps,  u = m / (sqrt(v) + eps), scaled by the rectification r / (1 - b1^t)
        else      u = m / (1 - b1^t)
        p  <- p - lr s (u + weight_decay p), s the factor above;   every `lookahead_steps`: slow += 0.5 (p - slow), p = slow
    The eps that accumulates in v gives it a floor of eps / (1 - b2): with small gradients the update is momentum SGD.
    That is why its learning rates (1e-3 and above) do not carry over to AdamW.
    """

    def __init__(self, params, lr: float, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 lookahead_steps: int = 6, lookahead_alpha: float = 0.5):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "lookahead_steps": lookahead_steps, "lookahead_alpha": lookahead_alpha})

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_step = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_step[self._begun(parameter)["step"]].append(parameter)
            for step, parameters in by_step.items():
                for together in buckets(parameters):
                    self._update(together, step + 1, group)

    def _begun(self, parameter) -> dict:
        """The state of a parameter, with zero moments before its first step."""
        state = self.state[parameter]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), belief=torch.zeros_like(parameter), slow=parameter.clone())
        return state

    def _update(self, parameters: list, step: int, group: dict) -> None:
        """Step number `step` of `parameters`, in one launch for each line of the formula."""
        states = [self.state[parameter] for parameter in parameters]
        mean, belief, slow = ([state[name] for state in states] for name in ("mean", "belief", "slow"))
        (beta1, beta2), eps = group["betas"], group["eps"]

        gradient = [centralised(parameter.grad) for parameter in parameters]
        torch._foreach_lerp_(mean, gradient, 1 - beta1)
        residual = torch._foreach_sub(gradient, mean)
        torch._foreach_mul_(belief, beta2)
        torch._foreach_addcmul_(belief, residual, residual, value=1 - beta2)
        del gradient, residual

        decayed = beta2 ** step
        rho_limit = 2 / (1 - beta2) - 1
        rho = rho_limit - 2 * step * decayed / (1 - decayed)
        scale = 1 / (1 - beta1 ** step)
        update = mean
        if rho > 5:
            torch._foreach_add_(belief, eps)
            scale *= math.sqrt((1 - decayed) * (rho - 4) * (rho - 2) * rho_limit
                               / ((rho_limit - 4) * (rho_limit - 2) * rho))
            update = torch._foreach_div(mean, torch._foreach_add(torch._foreach_sqrt(belief), eps))
        update = torch._foreach_add(update, parameters, alpha=group["weight_decay"])
        torch._foreach_add_(parameters, update, alpha=-group["lr"] * scale)

        if step % group["lookahead_steps"] == 0:
            torch._foreach_lerp_(slow, parameters, group["lookahead_alpha"])
            for parameter, kept in zip(parameters, slow, strict=True):
                parameter.copy_(kept)
        for state in states:
            state["step"] = step


def centralised(gradient: Tensor) -> Tensor:
    """The gradient less its mean over all dimensions but the first; of a vector, itself."""
    return gradient if gradient.dim() < 2 else gradient - gradient.mean(dim=tuple(range(1, gradient.dim())), keepdim=True)


def buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """`parameters` in their order, as many together as have TOGETHER numbers, or one alone."""
    found, size = [], 0
    for parameter in parameters:
        if found and size + parameter.numel() > TOGETHER.get(parameter.device.type, TOGETHER["cpu"]):
            yield found
            found, size = [], 0
        found.append(parameter)
        size += parameter.numel()
    if found:
        yield found


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their norm together is `limit` at most (0: never); returns what it was.

    A gradient of nothing but zeros is taken off, so that the optimiser leaves its parameter alone: no term of this step has read it
    (ranks exchange gradients all the same). To Adam, zeros are steps that let the second moment fade: the first gradients after them
    would be strides of several learning rates.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norms = full_tensor(torch.stack(torch._foreach_norm([parameter.grad for parameter in held])))
    total = torch.linalg.vector_norm(norms)
    nn.utils.clip_grads_with_norm_(held, limit or math.inf, total)
    for parameter, norm in zip(held, norms.tolist(), strict=True):
        if norm == 0:
            parameter.grad = None
    return total


def build_optimizer(name: str, module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimiser of all trainable parameters of `module`.

    AdamW decays matrices only, not biases and LayerNorm; Ranger-AdaBelief decays every tensor, as published.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("nothing to train: every parameter is frozen")
    if name == "ranger_adabelief":
        return RangerAdaBelief(trainable, lr=lr, weight_decay=weight_decay)
    if name == "adamw":
        groups = [{"params": [p for p in trainable if p.dim() > 1], "weight_decay": weight_decay},
                  {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0}]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=True)
    raise ValueError(f"unknown optimizer {name!r}: choose one of {', '.join(OPTIMIZERS)}")
