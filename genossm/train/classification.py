"""Training for a labelled task: epochs over batches, an average of the weights, the best epoch kept on demand.

Knows nothing of files or tables: batches come from a function of the epoch, and a function judges the model, so a
fit is a pure function of the weights, these two and the options. Whatever the model draws (dropout) follows from the
seed and the step, so a fit that goes on from a saved :class:`FitState` gives the bits of one that was not interrupted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genossm.errors import GenoSSMError
from genossm.train.loop import autocast
from genossm.train.optim import one_cycle, optimizer_tensors, restore_optimizer

Batch = tuple[Tensor, Tensor | None, Tensor]
"""input_ids int64 (batch, seqlen), mask bool (batch, seqlen) or None (no padding), and targets: class indices int64
(batch,) or (batch, seqlen) with -1 where there is none; or float32 (batch, outputs) of labels or numbers."""

IGNORED = -1
"""The class of a base without a label."""


@dataclass(frozen=True)
class FitOptions:
    """How to train.

    Attributes:
        epochs: passes over the training rows.
        lr: the highest rate, after ``warmup_fraction`` of the steps; it rises and falls by a cosine (one cycle).
        scales: prefix of parameter names: their rate as a share of ``lr``; 0 freezes them. The first that fits counts.
        weight_decay: of AdamW, for the parameters that ``no_decay`` leaves.
        smoothing: of the labels of classes.
        ema: decay of the running average of weights and batch statistics that is judged and kept; 0: the last weights.
        patience: stop after so many epochs without a better one and keep the best; None: the last of all.
        kind: what the outputs are.
        class_weights: weight of every class in the loss.
        seed: of what the model draws.
    """

    epochs: int
    lr: float
    scales: tuple[tuple[str, float], ...] = ()
    weight_decay: float = 0.01
    warmup_fraction: float = 0.25
    grad_clip: float = 1.0
    smoothing: float = 0.0
    ema: float = 0.0
    patience: int | None = None
    kind: Literal["classes", "multilabel", "regression"] = "classes"
    class_weights: tuple[float, ...] | None = None
    seed: int = 1


@dataclass(frozen=True)
class Judgement:
    """How good a model is on the validation split: ``score`` is what is chosen by, more is better."""

    score: float
    loss: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave. ``train_loss`` is the mean over the epoch, while the weights moved."""

    epoch: int
    train_loss: float
    valid_loss: float
    valid_score: float


@dataclass(frozen=True)
class Fit:
    """The course of a fit; the model itself holds the weights of ``best_epoch``."""

    history: list[Epoch]
    best_epoch: int

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.history[self.best_epoch - 1]


@dataclass(frozen=True)
class FitState:
    """All that a fit needs to go on after an epoch: tensors by name, and the epochs so far."""

    tensors: dict[str, Tensor]
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0


class WeightAverage:
    """The running average of a model's floating-point state: weights and batch statistics."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's state in, with weight 1 - min(decay, (1 + n) / (10 + n)) at update n (from 0)."""
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)


def _build_optimizer(
    model: nn.Module, options: FitOptions, no_decay: Callable[[str, nn.Parameter], bool]
) -> torch.optim.AdamW:
    """AdamW; each group carries the ``scale`` of its rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = next((scale for prefix, scale in options.scales if name.startswith(prefix)), 1.0)
        if scale == 0.0:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            decay = 0.0 if no_decay(name, parameter) else options.weight_decay
            groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()], lr=0.0
    )


def task_loss(logits: Tensor, targets: Tensor, options: FitOptions) -> Tensor:
    """The summed loss of a part: cross-entropy, binary cross-entropy or squared error, the mean over outputs each."""
    logits = logits.float()
    if options.kind == "classes":
        weights = None if options.class_weights is None else logits.new_tensor(options.class_weights)
        flat, wanted = logits.flatten(0, -2), targets.flatten()
        kept = wanted != IGNORED
        each = F.cross_entropy(
            flat[kept], wanted[kept], weight=weights, label_smoothing=options.smoothing, reduction="sum"
        )
        return each if targets.dim() == 1 else each / max(1, int(kept.sum())) * len(targets)
    if options.kind == "multilabel":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1).sum()
    return (logits - targets).square().mean(-1).sum()


def _train_step(model: nn.Module, parts: Sequence[Batch], options: FitOptions) -> float:
    """Gradients of the mean loss over all rows of ``parts``, clipped; returns that loss."""
    rows = sum(len(targets) for _, _, targets in parts)
    total = 0.0
    for input_ids, mask, targets in parts:
        with autocast(targets.device):
            logits = model(input_ids, mask=mask)
        loss = task_loss(logits, targets, options) / rows
        loss.backward()
        total += float(loss.detach())
    norm = nn.utils.clip_grad_norm_(model.parameters(), options.grad_clip)
    if not math.isfinite(total) or not math.isfinite(float(norm)):
        raise GenoSSMError(f"the loss is {total:g} and its gradient {float(norm):g}: use a smaller --lr")
    return total


class _Course:
    """A fit on its way: everything that changes from epoch to epoch."""

    def __init__(self, model: nn.Module, options: FitOptions, no_decay: Callable[[str, nn.Parameter], bool]) -> None:
        self.model, self.options = model, options
        self.optimizer = _build_optimizer(model, options, no_decay)
        self.average = WeightAverage(model, options.ema) if options.ema else None
        self.history: list[Epoch] = []
        self.best = 0
        self.best_weights: dict[str, Tensor] = {}

    def state(self) -> FitState:
        tensors = {f"model/{name}": value.clone() for name, value in self.model.state_dict().items()}
        tensors |= {
            f"optimizer/{name}": value.clone() for name, value in optimizer_tensors(self.model, self.optimizer).items()
        }
        if self.average is not None:
            tensors |= {f"average/{name}": value.clone() for name, value in self.average.average.items()}
        tensors |= {f"best/{name}": value.clone() for name, value in self.best_weights.items()}
        return FitState(tensors, list(self.history), self.best)

    def restore(self, state: FitState, steps_done: int) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in state.tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = value
        self.model.load_state_dict(parts["model"])
        restore_optimizer(self.model, self.optimizer, parts.get("optimizer", {}))
        if self.average is not None:
            device = next(self.model.parameters()).device
            self.average.average = {name: value.to(device) for name, value in parts["average"].items()}
            self.average.updates = steps_done
        self.best_weights = parts.get("best", {})
        self.history, self.best = list(state.history), state.best_epoch

    def update(self, parts: Sequence[Batch], step: int, rate: float) -> float:
        """Train on the parts of one batch and return its loss; what the model draws follows from the seed and step."""
        torch.manual_seed((self.options.seed * 1_000_003 + step) % 2**63)
        self.model.zero_grad(set_to_none=True)
        loss = _train_step(self.model, parts, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        return loss

    def judged(self, judge: Callable[[nn.Module], Judgement], losses: list[float]) -> Epoch:
        """Judge the weights that would be kept, remember them if they are the best, and go back to training."""
        own = None
        if self.average is not None:
            own = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.model.load_state_dict(self.average.average)
        self.model.eval()
        verdict = judge(self.model)
        epoch = Epoch(len(self.history) + 1, sum(losses) / max(1, len(losses)), verdict.loss, verdict.score)
        self.history.append(epoch)
        if self.options.patience is None or self.best == 0 or _better(epoch, self.history[self.best - 1]):
            self.best = epoch.epoch
            self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        if own is not None:
            self.model.load_state_dict(own)
        return epoch


def updates(
    model: nn.Module, options: FitOptions, *, no_decay: Callable[[str, nn.Parameter], bool]
) -> Callable[[Sequence[Batch]], float]:
    """What :func:`fit_classifier` does with the parts of one batch after another, at its highest rate; to time it.

    The function that is returned gives the loss, and raises as :func:`fit_classifier` does.
    """
    course, numbers = _Course(model, options, no_decay), itertools.count()
    model.train()
    return lambda parts: course.update(parts, next(numbers), options.lr)


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
    resume: FitState | None = None,
    save: Callable[[FitState], None] | None = None,
) -> Fit:
    """Train ``model`` in place and leave it, in eval mode, with the weights of its best epoch.

    Args:
        model: ``model(input_ids, mask=mask)`` gives logits.
        steps: the steps of an epoch (from 0), each as the parts of one batch; gradients of the parts are summed.
        steps_per_epoch: how many steps that gives.
        judge: the validation figures of the model in eval mode. With ``patience`` the best epoch has the highest score;
            of equals, the lowest loss; of these, the first. Without, it is the last.
        options: see :class:`FitOptions`.
        no_decay: which parameters get no weight decay.
        on_step, on_epoch: called after each, to show progress.
        resume: go on after the epochs of this state. save: called after every epoch with the state to go on from.

    Raises:
        GenoSSMError: a loss or gradient that is not finite; the weights are those before that step.
    """
    course = _Course(model, options, no_decay)
    if resume is not None:
        course.restore(resume, len(resume.history) * steps_per_epoch)
    planned = options.epochs * steps_per_epoch
    warmup = round(options.warmup_fraction * planned)
    for epoch in range(len(course.history), options.epochs):
        if options.patience is not None and epoch - course.best >= options.patience:
            break
        model.train()
        losses = []
        for index, parts in enumerate(steps(epoch)):
            step = epoch * steps_per_epoch + index
            rate = one_cycle(step, peak=options.lr, warmup_steps=warmup, steps=planned)
            losses.append(course.update(parts, step, rate))
            on_step(epoch, losses[-1])
        on_epoch(course.judged(judge, losses))
        if save is not None:
            save(course.state())
    model.load_state_dict(course.best_weights)
    model.eval()
    return Fit(course.history, course.best)


def _better(new: Epoch, old: Epoch) -> bool:
    return (new.valid_score, -new.valid_loss) > (old.valid_score, -old.valid_loss)


@torch.inference_mode()
def predict(
    run: Callable[[Tensor, Tensor | None], Tensor], batches: Iterable[tuple[Tensor, Tensor | None]]
) -> list[Tensor]:
    """``run``'s outputs, float32 on the CPU, one tensor a batch of (input_ids, mask)."""
    return [run(input_ids, mask).float().cpu() for input_ids, mask in batches]
