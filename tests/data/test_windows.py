"""Windows tile their segments; splits never share a base."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm import vocab
from genossm.data.windows import Segment, count_n, split_by_block, split_by_contig, window_starts

NAMES = ["I", "II", "III", "Mito"]
LENGTHS = [1000, 550, 90, 40]


def _owner(segments: list[Segment]) -> list[np.ndarray]:
    """Which segment owns each base, -1 for none; fails where two do."""
    owner = [np.full(length, -1) for length in LENGTHS]
    for index, segment in enumerate(segments):
        span = owner[segment.contig][segment.start : segment.end]
        assert span.size == segment.end - segment.start
        assert (span == -1).all()
        span[:] = index
    return owner


def test_split_by_contig() -> None:
    segments = split_by_contig(NAMES, LENGTHS, valid=["II"], test=["III"], exclude=["Mito"])
    assert segments == [Segment(0, 0, 1000, "train"), Segment(1, 0, 550, "valid"), Segment(2, 0, 90, "test")]


@pytest.mark.parametrize(
    ("lists", "word"),
    [({"valid": ["IV"]}, "no contig 'IV'; there are I, II"), ({"valid": ["I"], "test": ["I"]}, "both")],
)
def test_wrong_contig_names_are_refused(lists: dict[str, list[str]], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        split_by_contig(NAMES, LENGTHS, **lists)


@given(
    block=st.integers(20, 400),
    margin=st.integers(0, 60),
    seed=st.integers(0, 9),
    valid_fraction=st.floats(0, 0.3),
    test_fraction=st.floats(0, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_blocks_never_share_a_base_and_keep_their_margin(
    block: int, margin: int, seed: int, valid_fraction: float, test_fraction: float
) -> None:
    segments = split_by_block(
        NAMES,
        LENGTHS,
        block=block,
        margin=margin,
        valid_fraction=valid_fraction,
        test_fraction=test_fraction,
        exclude=["Mito"],
        seed=seed,
    )
    owner = _owner(segments)
    assert (owner[3] == -1).all()
    splits = np.array([segment.split for segment in segments] + ["none"])
    for bases in owner[:3]:
        kinds = splits[bases]
        used = np.flatnonzero(bases >= 0)
        changes = [(a, b) for a, b in itertools.pairwise(used) if kinds[a] != kinds[b]]
        assert all(b - a - 1 >= 2 * margin for a, b in changes)
    if margin == 0:
        assert sum(int((bases >= 0).sum()) for bases in owner) == sum(LENGTHS[:3])


def test_the_deal_of_blocks_is_exact_and_follows_the_seed() -> None:
    def deal(seed: int) -> list[Segment]:
        return split_by_block(["x"], [100_000], block=1000, margin=0, valid_fraction=0.1, test_fraction=0.2, seed=seed)

    bases = {split: sum(s.end - s.start for s in deal(0) if s.split == split) for split in ("train", "valid", "test")}
    assert bases == {"train": 70_000, "valid": 10_000, "test": 20_000}
    assert deal(0) == deal(0) != deal(1)


@pytest.mark.parametrize(
    ("length", "splits"), [(50, ["train"]), (100, ["train", "valid"]), (170, ["test", "train", "valid"])]
)
def test_with_too_few_blocks_train_comes_first(length: int, splits: list[str]) -> None:
    segments = split_by_block(["x"], [length], block=60, margin=0, valid_fraction=0.1, test_fraction=0.1)
    assert sorted({segment.split for segment in segments}) == splits


@pytest.mark.parametrize(
    ("window", "stride", "starts"),
    [(30, 30, [10, 40, 70, 80]), (25, 50, [10, 60]), (50, 20, [10, 30, 50, 60]), (100, 100, [10]), (101, 1, [])],
)
def test_window_starts(window: int, stride: int, starts: list[int]) -> None:
    assert window_starts(Segment(0, 10, 110, "train"), window, stride).tolist() == starts


@given(
    length=st.integers(1, 300),
    window=st.integers(1, 80),
    stride=st.integers(1, 80),
    offset=st.integers(0, 50),
)
def test_windows_are_inside_and_cover(length: int, window: int, stride: int, offset: int) -> None:
    starts = window_starts(Segment(0, offset, offset + length, "train"), window, stride)
    covered = np.zeros(offset + length, dtype=bool)
    for start in starts:
        assert offset <= start <= offset + length - window
        covered[start : start + window] = True
    assert (np.diff(starts) > 0).all()
    if stride <= window <= length:
        assert covered[offset:].all()


@given(
    st.lists(st.sampled_from([vocab.A, vocab.N]), min_size=10, max_size=400),
    st.integers(1, 10),
    st.integers(1, 12),
    st.integers(1, 64),
)
def test_count_n_equals_the_plain_count(letters: list[int], window: int, stride: int, chunk: int) -> None:
    tokens = np.array(letters, dtype=np.uint8)
    starts = window_starts(Segment(0, 0, tokens.size, "train"), window, stride)
    counted = count_n(lambda a, b: tokens[a:b], starts, window, chunk)
    assert counted.tolist() == [int((tokens[s : s + window] == vocab.N).sum()) for s in starts]
