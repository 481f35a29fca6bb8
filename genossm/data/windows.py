"""Windows and splits: pure functions from contig lengths to (contig, start) tables.

A genome is first divided into segments, each in one split; windows then tile every segment and never leave it, so
no base is in two splits. Coordinates are 0-based and half-open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genossm import vocab

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Segment:
    """A stretch of one contig, [start, end) in bp, that lies wholly in one split."""

    contig: int
    start: int
    end: int
    split: str


def split_by_contig(
    names: Sequence[str],
    lengths: Sequence[int],
    *,
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[Segment]:
    """One segment a contig: those of ``valid`` and ``test`` as named, those of ``exclude`` left out, the rest train.

    Raises:
        ValueError: a name that is no contig, or that stands in two of the lists.
    """
    split_of = _named(names, {"valid": valid, "test": test, "exclude": exclude})
    return [
        Segment(index, 0, length, split_of.get(name, "train"))
        for index, (name, length) in enumerate(zip(names, lengths, strict=True))
        if split_of.get(name) != "exclude"
    ]


def _named(names: Sequence[str], lists: dict[str, Sequence[str]]) -> dict[str, str]:
    """{contig: list it stands in}, checked."""
    known, split_of = set(names), dict[str, str]()
    for split, wanted in lists.items():
        for name in wanted:
            if name not in known:
                shown = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
                raise ValueError(f"{split}: there is no contig {name!r}; there are {shown}")
            if split_of.get(name, split) != split:
                raise ValueError(f"contig {name!r} is given both as {split_of[name]} and as {split}")
            split_of[name] = split
    return split_of


def split_by_block(
    names: Sequence[str],
    lengths: Sequence[int],
    *,
    block: int,
    margin: int,
    valid_fraction: float,
    test_fraction: float,
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> list[Segment]:
    """Blocks of ``block`` bp of every contig, dealt to the splits at random.

    ``round(fraction * blocks)`` of the blocks go to valid and to test; one at least where the fraction is above 0, as
    far as there are blocks enough to leave one to train (then valid comes before test).
    Neighbours of the same split become one segment; where two splits meet, ``margin`` bp are dropped on both sides.

    Raises:
        ValueError: an excluded name that is no contig.
    """
    left_out = _named(names, {"exclude": exclude})
    blocks = [
        (contig, start, min(start + block, length))
        for contig, (name, length) in enumerate(zip(names, lengths, strict=True))
        if name not in left_out
        for start in range(0, length, block)
    ]
    share = {"valid": valid_fraction, "test": test_fraction}
    wanted = {split: max(round(f * len(blocks)), 1) if f > 0 else 0 for split, f in share.items()}
    while sum(wanted.values()) > max(len(blocks) - 1, 0):
        # Too few blocks for all three: train keeps one, then valid.
        wanted["test" if wanted["test"] else "valid"] -= 1
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(blocks))
    split_of = np.full(len(blocks), "train", dtype="U5")
    split_of[order[: wanted["test"]]] = "test"
    split_of[order[wanted["test"] : wanted["test"] + wanted["valid"]]] = "valid"
    return _merge(blocks, split_of.tolist(), margin)


def _merge(blocks: list[tuple[int, int, int]], split_of: list[str], margin: int) -> list[Segment]:
    """Runs of neighbours of one split as segments, cut back by ``margin`` at each border between splits."""
    segments: list[Segment] = []
    first = 0
    for index in range(1, len(blocks) + 1):
        contig, start, _ = blocks[first]
        if index < len(blocks) and blocks[index][0] == contig and split_of[index] == split_of[first]:
            continue
        end = blocks[index - 1][2]
        begins = start if start == 0 else start + margin
        ends = end if index == len(blocks) or blocks[index][0] != contig else end - margin
        if begins < ends:
            segments.append(Segment(contig, begins, ends, split_of[first]))
        first = index
    return segments


def window_starts(segment: Segment, window: int, stride: int) -> npt.NDArray[np.int64]:
    """Starts of the windows of a segment: every ``stride`` bp, and one last window flush with the segment's end.

    The last one may overlap its neighbour by more than the others do; without it up to ``window`` bp at the end of
    every segment would never be seen. It is left out where the stride is above the window, that is, where bases are
    skipped on purpose. A segment shorter than the window has none.

    Returns:
        int64, shape (n,), increasing.
    """
    last = segment.end - window
    if last < segment.start:
        return np.empty(0, dtype=np.int64)
    starts = np.arange(segment.start, last + 1, stride, dtype=np.int64)
    if stride <= window and starts[-1] != last:
        starts = np.append(starts, last)
    return starts


def count_n(
    read: Callable[[int, int], npt.NDArray[np.uint8]],
    starts: npt.NDArray[np.int64],
    window: int,
    chunk: int = 1 << 20,
) -> npt.NDArray[np.int64]:
    """How many N each window holds.

    Args:
        read: gives the tokens [start, end) of the contig, uint8.
        starts: increasing, shape (n,). window: length in bp. chunk: bp read at a time.

    Returns:
        int64, shape (n,).
    """
    if not starts.size:
        return np.empty(0, dtype=np.int64)
    edges = np.unique(np.concatenate([starts, starts + window]))
    before = np.empty(edges.size, dtype=np.int64)
    total = 0
    for begin, end in _spans(int(edges[0]), int(edges[-1]), chunk):
        is_n = read(begin, end) == vocab.N
        here = slice(*np.searchsorted(edges, [begin, end]).tolist())
        before[here] = total
        if is_n.any():
            running = np.concatenate([[0], np.cumsum(is_n)])
            before[here] += running[edges[here] - begin]
            total += int(running[-1])
    before[-1] = total
    return before[np.searchsorted(edges, starts + window)] - before[np.searchsorted(edges, starts)]


def _spans(start: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    for begin in range(start, end, step):
        yield begin, min(begin + step, end)
