"""Optimisers: torch's fused AdamW, and Ranger-AdaBelief, which the published sense distillation uses."""

import math

import torch
from torch import nn

OPTIMIZERS = ("adamw", "ranger_adabelief")


class RangerAdaBelief(torch.optim.Optimizer):
    """AdaBelief with rectification, gradient centralisation and look-ahead (skd.md 3.3).

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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter, group):
        state = self.state[parameter]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), belief=torch.zeros_like(parameter),
                         slow=parameter.clone())
        state["step"] += 1
        step, (beta1, beta2), eps = state["step"], group["betas"], group["eps"]
        mean, belief = state["mean"], state["belief"]

        gradient = parameter.grad
        if gradient.dim() > 1:
            gradient = gradient - gradient.mean(dim=tuple(range(1, gradient.dim())), keepdim=True)
        mean.lerp_(gradient, 1 - beta1)
        residual = gradient - mean
        belief.mul_(beta2).addcmul_(residual, residual, value=1 - beta2)

        decayed = beta2 ** step
        rho_limit = 2 / (1 - beta2) - 1
        rho = rho_limit - 2 * step * decayed / (1 - decayed)
        scale = 1 / (1 - beta1 ** step)
        if rho > 5:
            belief.add_(eps)
            scale *= math.sqrt((1 - decayed) * (rho - 4) * (rho - 2) * rho_limit
                               / ((rho_limit - 4) * (rho_limit - 2) * rho))
            update = mean / (belief.sqrt() + eps)
        else:
            update = mean.clone()
        update.add_(parameter, alpha=group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * scale)

        if step % group["lookahead_steps"] == 0:
            state["slow"].lerp_(parameter, group["lookahead_alpha"])
            parameter.copy_(state["slow"])


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
