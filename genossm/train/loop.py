"""The training loop: any module, any task; exact resume, a clean stop, and no step on a number that is not one.

A run is a pure function of its settings, on one machine with one number of threads: batches, masks and dropout follow
from (seed, step), the rate from the step, and weights, optimizer and log come back from the checkpoint bit for bit.

Order of a step: loss, gradient, update, log line, validation if due, checkpoint if due. A checkpoint that was taken
because of a signal may lack the validation of its step; a resumed run sees that in the log and does it first.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from genossm.errors import GenoSSMError
from genossm.train.checkpoint import TrainState, load_state, load_weights, newest_checkpoint, save_checkpoint, sweep
from genossm.train.log import Display, MetricsLog, warn
from genossm.train.optim import (
    build_optimizer,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from genossm.train.signals import StopRequest

LOG_LINES = 1_000
"""A run writes about so many training lines, whatever its steps: each checkpoint carries the log along."""


@dataclass(frozen=True)
class LoopSettings:
    """How to train; the names are those of the configuration section ``pretrain``."""

    steps: int
    lr: float
    warmup_steps: int
    weight_decay: float
    grad_clip: float
    valid_every: int
    checkpoint_every: int
    keep: int
    seed: int


class StepLoss(NamedTuple):
    """What a batch gives: a scalar to minimize, with its graph, and the scalar to show for it.

    The two differ where the objective weighs bases or asks easy questions: ``shown`` is what compares with validation.
    """

    objective: Tensor
    shown: Tensor


class Task(Protocol):
    """What is trained for. All of it must follow from (seed, step); nothing may be remembered between the calls."""

    @property
    def bases_per_step(self) -> int:
        """bp that one step reads."""

    def loss(self, model: nn.Module, step: int) -> StepLoss:
        """The loss of batch ``step`` (from 0)."""

    def validate(self, model: nn.Module, stopped: Callable[[], bool]) -> dict[str, float] | None:
        """Figures for the log, among them ``valid_loss``; None when ``stopped`` said so on the way."""

    def describe(self, step: int) -> str:
        """In words, what batch ``step`` is made of, for an error message."""


def autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """bf16 for the products where the device has it in hardware (CUDA); float32 elsewhere. Weights stay float32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


class Trainer:
    """Trains ``model`` on ``task`` in ``run_dir``; the caller holds the lock of that folder.

    Args:
        config: content of a checkpoint's config.json; a run resumes only under the same model and training settings.
        no_decay: which parameters get no weight decay, by name.
        stop: asked after every step and during validation.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        settings: LoopSettings,
        *,
        run_dir: Path,
        config: Mapping[str, Any],
        no_decay: Callable[[str, nn.Parameter], bool],
        stop: StopRequest,
    ) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.run_dir, self.config, self.stop = run_dir, config, stop
        self.device = next(model.parameters()).device
        self.optimizer = build_optimizer(model, weight_decay=settings.weight_decay, no_decay=no_decay)
        self.step, self.seconds, self.saved = 0, 0.0, -1
        self._lines: tuple[str, ...] = ()
        self._resume()

    def run(self) -> list[dict[str, Any]]:
        """Train to the last step.

        Returns:
            The records of metrics.jsonl.

        Raises:
            GenoSSMError: stopped by a signal (saved; exit code 143 or 130), or a loss or gradient that is no number
                (nothing was changed; exit code 2).
        """
        settings = self.settings
        with (
            MetricsLog(self.run_dir, self._lines, self.step) as log,
            Display(settings.steps, self.step, self.task.bases_per_step) as display,
        ):
            if self.step:
                display.say(f"resumed after step {self.step}")
            self._validate_if_due(log, display)
            while self.step < settings.steps and self.stop.received is None:
                self._train_step(log, display)
                self._validate_if_due(log, display)
                if self.step % settings.checkpoint_every == 0 or self.step == settings.steps:
                    self._save(log)
            if self.stop.received is not None:
                self._save(log)
                raise self.stop.error(f"step {self.step} is saved, and the same command goes on from there")
            return log.records()

    def _train_step(self, log: MetricsLog, display: Display) -> None:
        settings, begun = self.settings, time.monotonic()
        # Whatever the model draws (dropout) follows from the step too: no generator state has to survive.
        torch.manual_seed((settings.seed * 1_000_003 + self.step) % 2**63)
        rate = learning_rate(self.step, peak=settings.lr, warmup_steps=settings.warmup_steps, steps=settings.steps)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad()
        loss = self.task.loss(self.model, self.step)
        objective, shown = self._finite(loss.objective, "the loss"), self._finite(loss.shown, "the loss")
        loss.objective.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.grad_clip)
        norm_value = self._finite(norm, "the gradient norm")
        self.optimizer.step()
        self.step += 1
        seconds = time.monotonic() - begun
        self.seconds += seconds
        speed = self.task.bases_per_step / seconds
        if self.step % max(1, settings.steps // LOG_LINES) == 0 or self.step in (1, settings.steps):
            log.write(self.step, loss=shown, objective=objective, lr=rate, grad_norm=norm_value)
            log.speed(self.step, speed)
        display.update(self.step, shown, speed)

    def _finite(self, value: Tensor, name: str) -> float:
        number = float(value.detach())
        if math.isfinite(number):
            return number
        last = f"the last checkpoint is of step {self.saved}" if self.saved >= 0 else "there is no checkpoint yet"
        raise GenoSSMError(
            f"{name} is {number} in step {self.step + 1} ({self.task.describe(self.step)}); no weight was changed by "
            f"it, {last}; try a lower lr or grad_clip, or longer warmup_steps",
            code="E_NOT_FINITE",
        )

    def _validate_if_due(self, log: MetricsLog, display: Display) -> None:
        if self.step == 0 or not (self.step % self.settings.valid_every == 0 or self.step == self.settings.steps):
            return
        if log.validated(self.step):
            return
        self.model.eval()
        try:
            with torch.no_grad():
                figures = self.task.validate(self.model, lambda: self.stop.received is not None)
        finally:
            self.model.train()
        if figures is None:
            return
        if not math.isfinite(figures["valid_loss"]):
            raise GenoSSMError(
                f"the validation loss is {figures['valid_loss']} after step {self.step}; this step is not saved; try a "
                "lower lr or grad_clip, or longer warmup_steps",
                code="E_NOT_FINITE",
            )
        log.write(self.step, **figures)
        display.say(f"step {self.step}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))

    def _save(self, log: MetricsLog) -> None:
        if self.saved == self.step:
            return
        values = {**self._environment(), "seconds": self.seconds}
        state = TrainState(self.step, optimizer_tensors(self.model, self.optimizer), values, tuple(log.lines))
        save_checkpoint(self.run_dir, self.step, self.config, self.model.state_dict(), state, self.settings.keep)
        self.saved = self.step

    def _environment(self) -> dict[str, Any]:
        """What equal bits depend on beside the settings."""
        return {"device": str(self.device), "threads": torch.get_num_threads(), "torch": torch.__version__}

    def _resume(self) -> None:
        sweep(self.run_dir)
        newest, faults = newest_checkpoint(self.run_dir)
        for fault in faults:
            warn(f"a checkpoint is passed over: {fault}")
        if newest is None:
            return
        config, weights = load_weights(newest)
        self._require_same(config)
        state = load_state(newest)
        for name, value in self._environment().items():
            if state.values.get(name) != value:
                warn(f"{name} was {state.values.get(name)} and is {value}: the result may differ in the last bits")
        try:
            self.model.load_state_dict(weights)
            restore_optimizer(self.model, self.optimizer, state.tensors)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise GenoSSMError(f"does not fit the model: {reason}", path=newest) from None
        self.step = self.saved = state.step
        self.seconds = float(state.values.get("seconds", 0.0))
        self._lines = state.metrics

    def _require_same(self, config: Mapping[str, Any]) -> None:
        for part in ("kind", "model", "training"):
            there, here = ({part: c[part]} if part == "kind" else c[part] for c in (config, self.config))
            for key in sorted(there.keys() | here.keys()):
                if there.get(key) != here.get(key):
                    raise GenoSSMError(
                        f"holds a run with other settings: {key} is {there.get(key)!r} there and {here.get(key)!r} "
                        "here; use another output folder, or remove the checkpoints to start again",
                        path=self.run_dir / "checkpoints",
                    )
        if config["genossm_version"] != self.config["genossm_version"]:
            warn(f"the run was begun by GenoSSM {config['genossm_version']}: the result may differ in the last bits")
