"""The optimisers that a run file can name: Adam (the paper's) and Muon."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from def_hub.config import OptimConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Adam:
    """The optimiser for `parameters` that a run file's settings describe."""
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, betas=config.betas)
    precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return Muon(parameters, lr=config.lr, betas=config.betas, precision=precision)


class Muon(torch.optim.Adam):
    """Muon (Jordan et al. 2024) for the weights of layers, Adam for biases and other vectors.

    Muon moves the weights by their orthogonalised momentum: every singular direction of the momentum gets an equal
    step, so the weak directions are learned as soon as the strong ones. The step is scaled to the size of Adam's
    (Moonshot AI 2025: 0.2·√(longest side)).

    `torch.optim.Muon` accepts only matrices and always computes in bfloat16. On a CPU without it that is about ten
    times slower than float32, so here `precision` is a parameter.
    """

    momentum = 0.95

    def __init__(self, *arguments: Any, precision: torch.dtype = torch.float32, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As `Adam.step`."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None or parameter.ndim < 2:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                    state["step"] = torch.zeros(())  # Adam expects this count when it loads a state
                state["step"] += 1
                state["momentum"].lerp_(parameter.grad, 1 - self.momentum)
                ahead = parameter.grad.lerp(state["momentum"], self.momentum).flatten(1)  # Nesterov momentum
                alike.setdefault((ahead.shape[0], ahead.shape[1]), []).append((parameter, ahead))
                parameter.grad = None  # Adam skips parameters without a gradient
            for shape, entries in alike.items():
                directions = orthogonalized(torch.stack([ahead for _, ahead in entries]).to(self.precision)).float()
                for (parameter, _), direction in zip(entries, directions, strict=True):
                    parameter.sub_(direction.view_as(parameter), alpha=group["lr"] * 0.2 * max(shape) ** 0.5)
        super().step()
        return loss


def orthogonalized(matrices: Tensor) -> Tensor:
    """`[N, a, b]` → matrices with the same singular vectors and with singular values near one, computed by five
    Newton-Schulz steps (coefficients: Jordan et al. 2024)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x
