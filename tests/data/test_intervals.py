"""Intervals: every base once, on hand-made cases and on random ones against sets of positions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genossm.data.intervals import Interval, hold_out, merge_windows, pieces, spread_tiles, total_length


def _positions(intervals: list[Interval]) -> list[tuple[int, int]]:
    return [(contig, p) for contig, start, end in intervals for p in range(start, end)]


def test_merging() -> None:
    windows = np.array([[1, 5], [0, 0], [0, 10], [0, 25], [0, 22]])
    assert merge_windows(windows, 10) == [(0, 0, 20), (0, 22, 35), (1, 5, 15)]
    assert merge_windows(np.empty((0, 2), dtype=np.int64), 10) == []


def test_tiles_are_spread_evenly() -> None:
    assert spread_tiles([(0, 0, 25), (1, 3, 14)], 10, 9) == [(0, 0, 10), (0, 10, 20), (1, 3, 13)]
    assert spread_tiles([(0, 0, 100)], 10, 2) == [(0, 20, 30), (0, 70, 80)]
    assert spread_tiles([(0, 0, 9)], 10, 2) == []


def test_four_blocks_are_held_out() -> None:
    kept, held = hold_out([(0, 0, 3_200), (2, 100, 3_300)])
    assert held == [(0, 800, 900), (0, 2_400, 2_500), (2, 900, 1_000), (2, 2_500, 2_600)]
    assert total_length(kept) == 6_000


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50)), max_size=12), st.integers(1, 30), st.integers(1, 9))
def test_no_base_is_lost_or_doubled(rows: list[tuple[int, int]], window: int, length: int) -> None:
    merged = merge_windows(np.array(rows, dtype=np.int64).reshape(-1, 2), window)
    covered = sorted({(contig, p) for contig, start in rows for p in range(start, start + window)})
    assert _positions(merged) == covered
    kept, held = hold_out(merged)
    assert sorted(_positions(kept) + _positions(held)) == covered
    cut = list(pieces(merged, length))
    assert _positions(cut) == covered
    assert all(0 < end - start <= length for _, start, end in cut)
    tiles = spread_tiles(merged, length, 5)
    assert len(tiles) <= 5
    assert len(set(_positions(tiles))) == len(tiles) * length
    assert set(_positions(tiles)) <= set(covered)
