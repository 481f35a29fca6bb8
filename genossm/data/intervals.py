"""Stretches of contigs, from window tables: merged, tiled, thinned and held out. Pure functions.

An interval is (contig index, start, end), 0-based and half-open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Interval = tuple[int, int, int]

BLOCKS = 64
"""Into so many blocks :func:`hold_out` divides the sequence."""
HELD_EVERY = 16
"""One block in so many is held out."""


def merge_windows(windows: npt.NDArray[np.int64], window: int) -> list[Interval]:
    """The stretches that windows cover, sorted; windows that touch or overlap become one.

    Args:
        windows: int64, shape (n, 2), (contig index, start). window: length in bp.
    """
    merged: list[Interval] = []
    for contig, start in sorted(map(tuple, windows.tolist())):
        if merged and merged[-1][0] == contig and start <= merged[-1][2]:
            merged[-1] = (contig, merged[-1][1], start + window)
        else:
            merged.append((contig, start, start + window))
    return merged


def total_length(intervals: Iterable[Interval]) -> int:
    """bp in all."""
    return sum(end - start for _, start, end in intervals)


def spread_tiles(intervals: Iterable[Interval], length: int, wanted: int) -> list[Interval]:
    """At most ``wanted`` tiles of ``length`` bp that do not overlap, evenly spread over the intervals."""
    tiles = [
        (contig, at, at + length) for contig, start, end in intervals for at in range(start, end - length + 1, length)
    ]
    if len(tiles) <= wanted:
        return tiles
    return [tiles[(2 * i + 1) * len(tiles) // (2 * wanted)] for i in range(wanted)]


def hold_out(intervals: list[Interval]) -> tuple[list[Interval], list[Interval]]:
    """Divide the sequence into 64 blocks and hold out every 16th, about 6 % from four places.

    Returns:
        (kept, held), both sorted.
    """
    size = max(1, -(-total_length(intervals) // BLOCKS))
    kept: list[Interval] = []
    held: list[Interval] = []
    passed = 0
    for contig, start, end in intervals:
        at = start
        while at < end:
            block = (passed + at - start) // size
            stop = min(end, start + (block + 1) * size - passed)
            target = held if block % HELD_EVERY == HELD_EVERY // 2 else kept
            if target and target[-1][0] == contig and target[-1][2] == at:
                target[-1] = (contig, target[-1][1], stop)
            else:
                target.append((contig, at, stop))
            at = stop
        passed += end - start
    return kept, held


def pieces(intervals: Iterable[Interval], length: int) -> Iterator[Interval]:
    """The intervals, cut to at most ``length`` bp each."""
    for contig, start, end in intervals:
        for at in range(start, end, length):
            yield contig, at, min(at + length, end)
