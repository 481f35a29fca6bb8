"""Progress on stderr: a bar on a terminal, else a line now and then, so that a log stays readable."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15.0


@contextlib.contextmanager
def progress(what: str, total: int | None, unit: str = "bp") -> Iterator[Callable[[int], None]]:
    """Show how far ``what`` has come; yields a function that is told how much more has been done.

    Args:
        what: a word or two, as ``tokenize yeast.fa.gz``. total: the whole amount, None where it is not known.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} {task.fields[unit]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, unit=unit)
            yield lambda n: bar.advance(task, n)
        return
    done, last = 0, time.monotonic()

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            share = f" ({100 * done / total:.0f} %)" if total else ""
            print(f"{what}: {done:,} {unit}{share}", file=sys.stderr, flush=True)

    yield advance
