"""What a contestant would take at a length, foretold from short ones, so that nothing hangs or kills the machine.

Lengths grow fourfold; from the last two a power law gives the next. A step that would go over the limits is not taken.
Where the forecast was too kind, an address-space limit turns the rest into an ordinary allocation error.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from genossm.bench.clock import available_memory, give_back_memory, memory_of, sample
from genossm.kernels.benchmark import Entrant, Problem

FIRST, GROWTH = 64, 4
HOPELESS = 20
"""Times over the limit at which no more short lengths are tried."""
SHARE = 0.85
"""Of the memory that is there, what a contestant may take."""


class Refused(Exception):
    """A contestant does not run at a length; the text says why, for the table."""


@dataclass
class Forecast:
    """What is known of one contestant in one pass.

    Args:
        entrant: who.
        pass_: which.
        device: where.
        limit: seconds that one sample may take.
        room: bytes that one sample may take; never more than most of what is free.
    """

    entrant: Entrant
    pass_: str
    device: torch.device
    limit: float
    room: float = math.inf
    known: dict[int, tuple[float, float]] = field(default_factory=dict)
    first: dict[int, dict[str, float]] = field(default_factory=dict)
    """Seconds by pass of the first sample of each length: taken on memory that is fresh from the system."""

    def admit(self, length: int) -> Problem:
        """The problem at ``length``, if it fits the time and the memory; it has been run once then.

        Raises:
            Refused: over the time, out of memory, not installed.
        """
        probe = FIRST
        while probe < length:
            if probe not in self.known:
                self._take(probe, length, again=not self.known)
            probe *= GROWTH
        return self._take(length, length)

    def seconds(self, length: int) -> float:
        """Of one sample at a length that was admitted."""
        return self.known[length][0]

    def memory(self, length: int) -> float:
        """Bytes of a sample at a length that was admitted."""
        return self.known[length][1]

    def _take(self, length: int, wanted: int, *, again: bool = False) -> Problem:
        self._check(length, wanted)
        try:
            problem = self.entrant.prepare(length, self.device)
            if again:  # the first run of all also imports and compiles
                sample(problem, self.pass_, self.device)
            with limited_memory(self.device):
                taken: dict[str, float] = {}
                memory = memory_of(lambda: taken.update(sample(problem, self.pass_, self.device)), self.device)
        except ImportError as error:
            raise Refused(f"not installed ({error.name or error})") from error
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or "allocate" in str(error) or "out of memory" in str(error):
                give_back_memory()
                raise Refused("out of memory") from error
            raise
        self.known[length], self.first[length] = (taken[self.pass_], memory), taken
        return problem

    def _check(self, length: int, wanted: int) -> None:
        """Refuse ``wanted`` if even ``length``, on the way there, is foretold to go over the limits."""
        if len(self.known) < 2:
            return
        seconds, needed = self._foretell(length, 0), self._foretell(length, 1)
        room = min(self.room, SHARE * available_memory(self.device))
        if needed > room:
            needed = self._foretell(wanted, 1)
            raise Refused(f"out of memory (about {_round(needed / 1e9)} GB; {room / 1e9:.0f} GB may be taken)")
        at_last = self._foretell(wanted, 0)
        if seconds > self.limit or at_last > HOPELESS * self.limit:
            raise Refused(f"over {self.limit:g} s (about {_round(at_last)} s)")

    def _foretell(self, length: int, what: int) -> float:
        (a, b) = sorted(self.known)[-2:]
        low, high = max(self.known[a][what], 1e-9), max(self.known[b][what], 1e-9)
        power = min(max(math.log(high / low) / math.log(b / a), 1.0), 3.0)
        return high * (length / b) ** power


def _round(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.0f}"


@contextlib.contextmanager
def limited_memory(device: torch.device) -> Iterator[None]:
    """Inside, this process cannot take more memory than there is: an allocation fails before the system gives out."""
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    free = available_memory(device)
    if math.isinf(free):
        yield
        return
    limit = int(pages * resource.getpagesize() + 0.95 * free)
    resource.setrlimit(resource.RLIMIT_AS, (min(limit, hard) if hard != resource.RLIM_INFINITY else limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
