"""Contestants against each other, in turns: round after round, so that what disturbs the machine disturbs all of them.

The peaks of the machine are measured in every round too: a roofline holds for the minutes it was measured in.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from genossm.bench.budget import Forecast, Refused
from genossm.bench.clock import sample
from genossm.bench.rows import OURS, Row
from genossm.kernels.benchmark import Case, Entrant, Problem, Work
from genossm.kernels.peaks import Meter, Peaks

T = TypeVar("T")

LONG = 2.0
"""Seconds of a sample from which on fewer rounds are run."""
SHORTEST = 0.02
"""Seconds: shorter calls are repeated within a sample."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        lengths: tokens.
        device: where.
        repeats: rounds, for calls that take less than LONG.
        limit: seconds that one sample may take.
        peers: whether others take part.
        threads: of the run; with more than one, ours also runs with one.
        memory: bytes that one call may take, beside the limit of what is free.
        passes: those to time; empty for all of a case.
    """

    lengths: tuple[int, ...]
    device: torch.device
    repeats: int
    limit: float
    peers: bool
    threads: int
    memory: float = math.inf
    passes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Runner:
    """A contestant that was admitted."""

    forecast: Forecast
    problem: Problem
    threads: int
    rounds: int
    inner: int


def race(case: Case, settings: Settings, meter: Meter) -> Iterator[Row]:
    """The rows of a case that has been verified: every pass, every length."""
    device = settings.device
    for pass_ in case.passes:
        if settings.passes and pass_ not in settings.passes:
            continue
        ours = Entrant(OURS, case.problem, passes=case.passes)
        others = [
            entrant
            for entrant in (case.entrants if settings.peers else ())
            if pass_ in entrant.passes and entrant.device in (None, device.type)
        ]
        forecasts = [Forecast(entrant, pass_, device, settings.limit, settings.memory) for entrant in (ours, *others)]
        for length in settings.lengths:
            yield from _point(case, pass_, length, forecasts, settings, meter)


def _point(
    case: Case, pass_: str, length: int, forecasts: Sequence[Forecast], settings: Settings, meter: Meter
) -> Iterator[Row]:
    blank = Row(case.name, "", pass_, length, settings.threads, str(settings.device))
    runners: list[_Runner] = []
    for forecast in forecasts:
        try:
            problem = forecast.admit(length)
        except Refused as refusal:
            yield replace(blank, contestant=forecast.entrant.name, note=str(refusal))
            continue
        seconds = forecast.seconds(length)
        counts = [settings.threads]
        if forecast is forecasts[0] and settings.threads > 1 and seconds < LONG:
            counts.append(1)
        # None after the first sample where that was very long: fresh memory costs it little, and a second one much.
        rounds = settings.repeats if seconds < LONG else min(settings.repeats, int(settings.limit / 4 / seconds))
        inner = max(1, round(SHORTEST / max(seconds, 1e-6)))
        runners += [_Runner(forecast, problem, count, rounds, inner) for count in counts]
    if not runners:
        return
    samples, peaks = _rounds(runners, pass_, length, settings, meter)
    works = {"forward": case.forward(length), "backward": case.backward(length)}
    works["training"] = works["step"] = works["forward"] + works["backward"]
    ours = samples[0] if runners[0].forecast is forecasts[0] else None
    for runner, taken in zip(runners, samples, strict=True):
        for name, values in taken.items():
            peak = peaks[runner.threads]
            row = replace(blank, contestant=runner.forecast.entrant.name, pass_=name, threads=runner.threads)
            memory = runner.forecast.memory(length) if name != "backward" else float("nan")
            reference = statistics.median(ours[name]) if ours is not None else float("nan")
            yield _measured(row, values, memory, works[name], peak, reference)


def _rounds(
    runners: Sequence[_Runner], pass_: str, length: int, settings: Settings, meter: Meter
) -> tuple[list[dict[str, list[float]]], dict[int, Peaks]]:
    """Samples of every contestant, and the median peaks by number of threads."""
    samples: list[dict[str, list[float]]] = [
        {} if runner.rounds else {name: [seconds] for name, seconds in runner.forecast.first[length].items()}
        for runner in runners
    ]
    measured: dict[int, list[Peaks]] = {runner.threads: [] for runner in runners}
    total = max(1, *(runner.rounds for runner in runners))
    for turn in range(total):
        for count in measured:
            measured[count].append(_with_threads(count, settings.threads, meter))
        for runner, taken in zip(runners, samples, strict=True):
            if runner.rounds == 0 or (turn and turn * runner.rounds // total == (turn - 1) * runner.rounds // total):
                continue  # fewer rounds than the others, spread over them
            for name, seconds in _with_threads(
                runner.threads,
                settings.threads,
                lambda r=runner: _sample(r, pass_, settings.device),  # type: ignore[misc]
            ).items():
                taken.setdefault(name, []).append(seconds)
    return samples, {count: _median_peaks(values) for count, values in measured.items()}


def _with_threads(count: int, usual: int, run: Callable[[], T]) -> T:
    if count == usual:
        return run()
    torch.set_num_threads(count)
    try:
        return run()
    finally:
        torch.set_num_threads(usual)


def _sample(runner: _Runner, pass_: str, device: torch.device) -> dict[str, float]:
    totals: dict[str, float] = {}
    for _ in range(runner.inner):
        for name, seconds in sample(runner.problem, pass_, device).items():
            totals[name] = totals.get(name, 0.0) + seconds / runner.inner
    return totals


def _median_peaks(values: Sequence[Peaks]) -> Peaks:
    return Peaks(
        statistics.median(v.multiply_adds for v in values),
        statistics.median(v.exponentials for v in values),
        statistics.median(v.bytes for v in values),
    )


def _measured(row: Row, values: Sequence[float], memory: float, work: Work, peak: Peaks, ours: float) -> Row:
    seconds = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [seconds] * 3
    return replace(
        row, repeats=len(values), seconds=seconds, low=low, high=high,
        ns_per_token=seconds / row.length * 1e9, memory_per_token=memory / row.length,
        multiply_adds=work.multiply_adds / row.length, exponentials=work.exponentials / row.length,
        bytes=work.bytes / row.length, peak_multiply_adds=peak.multiply_adds,
        peak_exponentials=peak.exponentials, peak_bytes=peak.bytes,
        roofline=work.floor(peak) / seconds if row.contestant == OURS else float("nan"),
        ratio=seconds / ours,
    )  # fmt: skip
