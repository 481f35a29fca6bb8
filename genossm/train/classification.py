"""Training of a classifier: epochs over labelled batches, early stopping, the best weights kept.

Knows nothing of files or tables: batches come from a function of the epoch, and a function judges the model, so a
fit is a pure function of the weights, these two and the options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genossm.errors import GenoSSMError
from genossm.train.loop import autocast
from genossm.train.optim import learning_rate

Batch = tuple[Tensor, Tensor | None, Tensor]
"""input_ids int64 (batch, seqlen), mask bool (batch, seqlen) or None (no padding), labels int64 (batch,)."""


@dataclass(frozen=True)
class FitOptions:
    """How to train; rates are those at the end of the warm-up, from where they fall by a cosine."""

    epochs: int
    lr: float
    backbone_lr_scale: float = 1.0
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    grad_clip: float = 1.0
    patience: int = 3


@dataclass(frozen=True)
class Judgement:
    """How good a model is on the validation split."""

    mcc: float
    loss: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave. ``train_loss`` is the mean over the epoch, while the weights moved."""

    epoch: int
    train_loss: float
    valid_loss: float
    valid_mcc: float


@dataclass(frozen=True)
class Fit:
    """The course of a fit; the model itself holds the weights of ``best_epoch``."""

    history: list[Epoch]
    best_epoch: int

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.history[self.best_epoch - 1]


def _build_optimizer(
    model: nn.Module, options: FitOptions, no_decay: Callable[[str, nn.Parameter], bool]
) -> torch.optim.AdamW:
    """AdamW; each group carries the ``scale`` of its rate: 1 for the head, ``backbone_lr_scale`` for ``backbone.*``."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = options.backbone_lr_scale if name.startswith("backbone.") else 1.0
            decay = 0.0 if no_decay(name, parameter) else options.weight_decay
            groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()], lr=0.0
    )


def _train_step(model: nn.Module, parts: Sequence[Batch], grad_clip: float) -> float:
    """Gradients of the mean loss over all rows of ``parts``, clipped; returns that loss."""
    rows = sum(len(labels) for _, _, labels in parts)
    total = 0.0
    for input_ids, mask, labels in parts:
        with autocast(labels.device):
            logits = model(input_ids, mask=mask).logits
        loss = F.cross_entropy(logits.float(), labels, reduction="sum") / rows
        loss.backward()
        total += float(loss.detach())
    norm = nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    if not math.isfinite(total) or not math.isfinite(float(norm)):
        raise GenoSSMError(f"the loss is {total:g} and its gradient {float(norm):g}: use a smaller --lr")
    return total


def fit_classifier(
    model: nn.Module,
    steps: Callable[[int], Iterable[Sequence[Batch]]],
    steps_per_epoch: int,
    judge: Callable[[nn.Module], Judgement],
    options: FitOptions,
    *,
    no_decay: Callable[[str, nn.Parameter], bool],
    on_step: Callable[[int, float], None] = lambda epoch, loss: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Fit:
    """Train ``model`` in place and leave it, in eval mode, with the weights of its best epoch.

    Args:
        model: its output has ``.logits`` (batch, num_labels); parameters under ``backbone.`` learn at their own rate.
        steps: the steps of an epoch (from 0), each as the parts of one batch; gradients of the parts are summed.
        steps_per_epoch: how many steps that gives.
        judge: the validation figures of the model in eval mode. The best epoch has the highest MCC; of equals, the
            lowest loss; of these, the first.
        options: see :class:`FitOptions`; training stops after ``patience`` epochs without a better one.
        no_decay: which parameters get no weight decay.
        on_step, on_epoch: called after each, to show progress.

    Raises:
        GenoSSMError: a loss or gradient that is not finite; the weights are those before that step.
    """
    optimizer = _build_optimizer(model, options, no_decay)
    planned = options.epochs * steps_per_epoch
    warmup = round(options.warmup_fraction * planned)
    history: list[Epoch] = []
    best, best_weights = 0, {name: value.clone() for name, value in model.state_dict().items()}
    for epoch in range(options.epochs):
        model.train()
        losses = []
        for index, parts in enumerate(steps(epoch)):
            rate = learning_rate(epoch * steps_per_epoch + index, peak=options.lr, warmup_steps=warmup, steps=planned)
            model.zero_grad(set_to_none=True)
            losses.append(_train_step(model, parts, options.grad_clip))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            optimizer.step()
            on_step(epoch, losses[-1])
        model.eval()
        verdict = judge(model)
        history.append(Epoch(epoch + 1, sum(losses) / max(1, len(losses)), verdict.loss, verdict.mcc))
        on_epoch(history[-1])
        if best == 0 or _better(history[-1], history[best - 1]):
            best = epoch + 1
            best_weights = {name: value.clone() for name, value in model.state_dict().items()}
        if epoch + 1 - best >= options.patience:
            break
    model.load_state_dict(best_weights)
    model.eval()
    return Fit(history, best)


def _better(new: Epoch, old: Epoch) -> bool:
    return (new.valid_mcc, -new.valid_loss) > (old.valid_mcc, -old.valid_loss)


@torch.inference_mode()
def predict_logits(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]) -> list[Tensor]:
    """Logits float32 (batch, num_labels) on the CPU, one tensor a batch of (input_ids, mask); in eval mode."""
    was_training = model.training
    model.eval()
    try:
        return [model(input_ids, mask=mask).logits.float().cpu() for input_ids, mask in batches]
    finally:
        model.train(was_training)
