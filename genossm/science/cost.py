"""Seconds and memory of one mixer, forward and backward, at growing lengths until it takes too long or too much."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from genossm.bench.clock import available_memory, memory_of
from genossm.config import ModelConfig
from genossm.models.mixers import build_mixer

CPU = torch.device("cpu")
SHARE = 0.7
"""Of the memory that is there, what a run may be foretold to take."""


@dataclass(frozen=True)
class Cost:
    """One layer at one length, batch 1.

    Attributes:
        forward, backward: seconds, the fastest of the repeats each. bytes: peak of a training pass beyond what was.
        refused: why it was not run, else empty.
    """

    length: int
    forward: float = float("nan")
    backward: float = float("nan")
    bytes: float = float("nan")
    refused: str = ""


def measure(config: ModelConfig, length: int, repeats: int, clock: Callable[[], float]) -> Cost:
    """Time ``config``'s mixer, causal, on noise (1, length, d_model), float32."""
    torch.manual_seed(0)
    mixer = build_mixer(config)
    x = torch.randn(1, length, config.d_model, requires_grad=True)
    leaves = [x, *(p for p in mixer.parameters() if p.requires_grad)]
    times: list[tuple[float, float]] = []

    def train() -> None:
        begin = clock()
        y, _ = mixer(x)
        there = clock()
        torch.autograd.grad(y.sum(), leaves, allow_unused=True)
        times.append((there - begin, clock() - there))

    taken = memory_of(train, CPU)
    for _ in range(repeats - 1):
        train()
    return Cost(length, min(t[0] for t in times), min(t[1] for t in times), taken)


def costs(
    config: ModelConfig,
    lengths: Sequence[int],
    *,
    limit: float,
    repeats: int = 2,
    clock: Callable[[], float] = time.process_time,
) -> list[Cost]:
    """The cost at every length, ascending; a length that is foretold to take over ``limit`` seconds is refused.

    The forecast goes on with the growth between the last two lengths, between linear and a little over quadratic.
    """
    measure(config, 256, 1, clock)  # compiles
    found: list[Cost] = []
    for length in lengths:
        last = found[-1] if found else None
        if last is not None and last.refused:
            found.append(Cost(length, refused=last.refused))
            continue
        growth = (length / last.length) ** _power(found) if last else 1.0
        if last and (last.forward + last.backward) * growth > limit:
            found.append(Cost(length, refused=f"over {limit:g} s"))
        elif last and last.bytes * growth > SHARE * available_memory(CPU):
            found.append(Cost(length, refused="over the memory"))
        else:
            found.append(measure(config, length, repeats, clock))
    return found


def _power(found: Sequence[Cost]) -> float:
    """The growth so far, between linear and quadratic: 2 where only one length is known."""
    if len(found) < 2:
        return 2.0
    a, b = found[-2:]
    ratio = (b.forward + b.backward) / max(a.forward + a.backward, 1e-9)
    return min(max(math.log(max(ratio, 1.0)) / math.log(b.length / a.length), 1.0), 2.5)
