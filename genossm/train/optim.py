"""The optimizer: AdamW in two groups, and a learning rate that is a pure function of the step.

There is no scheduler object: nothing that must be built, saved and restored in the right order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

FLOOR = 0.1
"""The learning rate ends at this share of its peak."""

_BUFFERS = ("step", "exp_avg", "exp_avg_sq")


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """The rate of step ``step`` (from 0): linear to ``peak`` over the warm-up, then cosine to ``FLOOR * peak``.

    The first step has ``peak / warmup_steps``, not zero; the last of ``steps`` ends the cosine.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def one_cycle(step: int, *, peak: float, warmup_steps: int, steps: int, start: float = 0.04) -> float:
    """The rate of step ``step`` (from 0): by a cosine from ``start * peak`` to ``peak``, then by a cosine to zero.

    Smith and Topin, arXiv:1708.07120, without its cycle of the momentum.
    """
    if step < warmup_steps:
        return peak * (start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / warmup_steps)))
    progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def build_optimizer(
    model: nn.Module,
    *,
    weight_decay: float,
    no_decay: Callable[[str, nn.Parameter], bool],
    betas: tuple[float, float] = (0.9, 0.95),
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; those that ``no_decay(name, parameter)`` picks get no weight decay.

    The rate is set at every step by :func:`set_learning_rate`.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if not no_decay(name, p)]
    exempt = [p for name, p in named if no_decay(name, p)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as ``{parameter name / buffer: tensor}``; empty before the first step."""
    return {
        f"{name}/{buffer}": optimizer.state[parameter][buffer]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for buffer in _BUFFERS
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave, on the devices of the parameters.

    Raises:
        ValueError: the names or shapes are not those of this model.
    """
    names = {name.rpartition("/")[0] for name in tensors}
    parameters = {name: p for name, p in model.named_parameters() if name in names}
    if {f"{name}/{buffer}" for name in parameters for buffer in _BUFFERS} != set(tensors):
        raise ValueError("the optimizer state is of another model")
    for name, parameter in parameters.items():
        state = {buffer: tensors[f"{name}/{buffer}"].clone() for buffer in _BUFFERS}
        for buffer in ("exp_avg", "exp_avg_sq"):
            if state[buffer].shape != parameter.shape:
                raise ValueError(f"the optimizer state of {name} has another shape")
            state[buffer] = state[buffer].to(parameter.device)
        optimizer.state[parameter] = state
