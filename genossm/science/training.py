"""The one way in which the trained claims train: AdamW, a warm-up, a cosine."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from genossm.models import no_decay
from genossm.train.optim import build_optimizer, learning_rate, set_learning_rate


def fit(model: nn.Module, loss_of: Callable[[int], Tensor], steps: int, lr: float) -> None:
    """Minimise ``loss_of(step)`` for a number of steps; a tenth of them warms up, gradients are clipped to norm 1."""
    optimizer = build_optimizer(model, weight_decay=0.01, no_decay=no_decay)
    for step in range(steps):
        set_learning_rate(optimizer, learning_rate(step, peak=lr, warmup_steps=steps // 10, steps=steps))
        optimizer.zero_grad()
        loss_of(step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
