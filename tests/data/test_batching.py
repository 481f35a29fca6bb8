"""Batching: every row once, bounded, little padding, and a pure function of (seed, epoch)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm import vocab
from genossm.data import batching
from genossm.data.batching import cut_ends, fold_rows, mutated


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=300), st.integers(1, 17), st.integers(0, 2**63 - 1))
def test_an_epoch_has_every_row_once(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = batching.epoch_batches(np.array(lengths), batch_size, seed=seed, epoch=3)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert max(map(len, batches)) <= batch_size


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 200)

    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(batching.epoch_batches(lengths, 8, seed=seed, epoch=epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_rows_of_like_length_share_a_batch() -> None:
    lengths = np.random.default_rng(1).integers(1, 1000, 3200)

    def padded(batches: list[np.ndarray]) -> int:
        return sum(len(rows) * int(lengths[rows].max()) for rows in batches)

    ours = padded(batching.epoch_batches(lengths, 32, seed=0, epoch=0))
    assert ours < 1.06 * lengths.sum()
    assert padded([np.arange(i, i + 32) for i in range(0, 3200, 32)]) > 1.8 * lengths.sum()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 2000))
def test_parts_are_bounded_and_complete(lengths: list[int], max_rows: int, max_tokens: int) -> None:
    sizes = np.array(lengths)
    parts = batching.bounded_parts(np.arange(len(sizes)), sizes, max_rows=max_rows, max_tokens=max_tokens)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sizes)))
    for part in parts:
        assert 1 <= len(part) <= max_rows
        assert len(part) == 1 or len(part) * sizes[part].max() <= max_tokens
    for before, after in pairwise(parts):
        fits = len(before) < max_rows and (len(before) + 1) * sizes[after[0]] <= max_tokens
        assert not fits, "a part was closed too early"


def test_padding_is_on_the_right_and_masked() -> None:
    input_ids, mask = batching.pad([vocab.encode("ACG"), vocab.encode("T"), vocab.encode("")])
    assert input_ids.tolist() == [
        [vocab.A, vocab.C, vocab.G],
        [vocab.T, vocab.PAD, vocab.PAD],
        [vocab.PAD] * 3,
    ]
    assert mask.tolist() == [[True, True, True], [True, False, False], [False] * 3]
    assert (input_ids.dtype, mask.dtype) == (np.int64, bool)
    assert batching.pad([vocab.encode("")])[0].shape == (1, 1)


def test_the_held_out_share_is_stratified() -> None:
    labels = np.array([0] * 100 + [1] * 10 + [2] * 2 + [3])
    kept, held = batching.stratified_split(labels, 0.1, seed=4)
    assert sorted([*kept, *held]) == list(range(113))
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 1, 1, 0]
    again = batching.stratified_split(labels, 0.1, seed=4)[1]
    assert held.tolist() == again.tolist()
    assert held.tolist() != batching.stratified_split(labels, 0.1, seed=5)[1].tolist()


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_both_sides_of_a_split_have_every_class(fraction: float) -> None:
    labels = np.array([0, 1] * 6)
    kept, held = batching.stratified_split(labels, fraction, seed=0)
    assert set(labels[kept]) == set(labels[held]) == {0, 1}


def test_half_the_rows_are_flipped_and_others_next_time() -> None:
    first, second = (batching.flipped_rows(4000, seed=1, epoch=epoch) for epoch in (0, 1))
    assert abs(first.mean() - 0.5) < 0.03
    assert abs((first == second).mean() - 0.5) < 0.03
    assert (first == batching.flipped_rows(4000, seed=1, epoch=0)).all()


def test_mutations_are_as_many_as_asked_and_follow_from_the_key() -> None:
    sequences = [np.full(4000, 7, dtype=np.uint8), np.full(10, 9, dtype=np.uint8)]
    changed = mutated(sequences, 0.4, (1, 2))
    assert [len(s) for s in changed] == [4000, 10]
    assert (changed[0] != 7).mean() == pytest.approx(0.3, abs=0.03)  # a quarter of the new bases is the old one
    assert set(changed[0].tolist()) == {7, 8, 9, 10}
    assert all(np.array_equal(a, b) for a, b in zip(changed, mutated(sequences, 0.4, (1, 2)), strict=True))
    assert not np.array_equal(changed[0], mutated(sequences, 0.4, (1, 3))[0])
    assert (sequences[0] == 7).all()


def test_cut_ends_are_within_bounds() -> None:
    cuts = [cut_ends(5, (0, i)) for i in range(200)]
    assert {left for left, _ in cuts} == {right for _, right in cuts} == set(range(6))
    assert cut_ends(0, (1,)) == (0, 0)


def test_folds_hold_every_row_once_and_the_classes_evenly() -> None:
    labels = np.array([0] * 23 + [1] * 7)
    folds = fold_rows(labels, 3, seed=4)
    assert sorted(np.concatenate(folds).tolist()) == list(range(30))
    assert all(2 <= (labels[rows] == 1).sum() <= 3 for rows in folds)
    assert [len(rows) for rows in folds] == [10, 10, 10]
    assert not np.array_equal(folds[0], fold_rows(labels, 3, seed=5)[0])
