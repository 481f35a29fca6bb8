"""What training tells: metrics.jsonl and TensorBoard for later, a progress bar or lines for now.

metrics.jsonl holds only what is a function of the run's settings, so that it is the same line by line however often
the run was killed and resumed. Times and speeds go to TensorBoard and the screen.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from genossm.files import atomic_write

QUIET_SECONDS = 15.0
"""Where stderr is no terminal, a line of progress comes this often."""


class MetricsLog:
    """``metrics.jsonl`` (one JSON object a line) and TensorBoard event files of a run.

    Args:
        run_dir: where ``metrics.jsonl`` and ``tensorboard/`` are.
        lines: what the log holds at ``step``, from the checkpoint; anything later in the files is void.
        step: optimizer steps done.
    """

    def __init__(self, run_dir: Path, lines: Iterable[str], step: int) -> None:
        self.path = run_dir / "metrics.jsonl"
        self.lines = list(lines)
        atomic_write(self.path, "".join(line + "\n" for line in self.lines))
        self._handle = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()
        self._handle.close()

    def write(self, step: int, **values: float) -> None:
        """Add a line ``{"step": step, name: value ...}``, and each value to TensorBoard."""
        line = json.dumps({"step": step, **values}, allow_nan=False)
        try:
            self._handle.write(line.encode() + b"\n")
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self.path)) from None
        self.lines.append(line)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def speed(self, step: int, bases_per_second: float) -> None:
        """Note the speed, in TensorBoard only."""
        self._board.add_scalar("bases_per_second", bases_per_second, step)

    def validated(self, step: int) -> bool:
        """Whether the last line is the validation of ``step``."""
        last = json.loads(self.lines[-1]) if self.lines else {}
        return last.get("step") == step and "valid_loss" in last

    def records(self) -> list[dict[str, Any]]:
        """All lines so far, parsed."""
        return [json.loads(line) for line in self.lines]


class Display:
    """A progress bar on a terminal; elsewhere a line now and then; always on stderr.

    Args:
        steps: of the whole run. step: done already. bases_per_step: bp that one step reads.
    """

    def __init__(self, steps: int, step: int, bases_per_step: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._steps, self._first, self._bases = steps, step, bases_per_step
        self._spoken = self._began = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("pretrain", total=steps, completed=step, facts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, step: int, loss: float, speed: float) -> None:
        """Show the state after ``step`` steps: loss in nats per base, speed in bp/s."""
        facts = f"loss {loss:.4f}  {_speed(speed)}"
        self._progress.update(self._task, completed=step, facts=facts)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._spoken > QUIET_SECONDS or step == self._steps):
            self._spoken = now
            left = (now - self._began) * (self._steps - step) / max(1, step - self._first)
            self.say(f"step {step}/{self._steps}  {facts}  {left / 60:.1f} min left")


def _speed(bases_per_second: float) -> str:
    if bases_per_second >= 1e6:
        return f"{bases_per_second / 1e6:.2f} Mbp/s"
    return f"{bases_per_second / 1e3:.1f} kbp/s"


def warn(text: str) -> None:
    """One line of warning on stderr."""
    print(f"genossm: warning: {text}", file=sys.stderr)
