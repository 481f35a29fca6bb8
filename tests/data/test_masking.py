"""Sampling and masking are pure functions of (seed, step, slot), and obey the masked-LM rule."""

from __future__ import annotations

import numpy as np
import pytest

from genossm import vocab
from genossm.data.masking import mask_tokens, sample_batch_windows, strand_flips


def _tokens(batch: int, seqlen: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(vocab.A, vocab.N + 1, size=(batch, seqlen), dtype=np.uint8)


def test_an_epoch_visits_every_window_once() -> None:
    n, batch = 37, 5
    drawn = np.concatenate([sample_batch_windows(3, step, batch, n, 100, 100)[:, 0] for step in range(n)])
    epochs = drawn[: n * batch].reshape(batch, n)
    for epoch in epochs:
        assert sorted(epoch) == list(range(n))
    assert not np.array_equal(epochs[0], epochs[1])


def test_the_window_order_depends_on_places_alone() -> None:
    """Two ranks of half the batch, or another batch size, walk through the same permutation."""
    whole = np.concatenate([sample_batch_windows(7, step, 8, 50, 64, 16)[:, 0] for step in range(10)])
    halves = np.concatenate([sample_batch_windows(7, step, 4, 50, 64, 16)[:, 0] for step in range(20)])
    assert np.array_equal(whole, halves)


def test_crops_stay_in_the_window_and_reach_both_ends() -> None:
    crops = np.concatenate([sample_batch_windows(1, step, 8, 5, 20, 17)[:, 1] for step in range(50)])
    assert set(crops.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(("n_windows", "seqlen"), [(0, 10), (3, 11), (3, 0)])
def test_impossible_batches_are_refused(n_windows: int, seqlen: int) -> None:
    with pytest.raises(ValueError, match=r"window"):
        sample_batch_windows(1, 0, 4, n_windows, 10, seqlen)


def test_rows_do_not_depend_on_the_batch_size() -> None:
    tokens = _tokens(6, 300)
    for function in (
        lambda b: mask_tokens(tokens[:b], seed=5, step=9, mask_fraction=0.15)[0],
        lambda b: mask_tokens(tokens[:b], seed=5, step=9, mask_fraction=0.15)[1],
        lambda b: strand_flips(5, 9, b),
        lambda b: sample_batch_windows(5, 0, b, 10, 90, 30),
    ):
        assert np.array_equal(function(6)[:2], function(2))


def test_everything_changes_with_seed_step_and_slot() -> None:
    tokens = np.full((2, 400), vocab.A, dtype=np.uint8)
    shown = {
        (seed, step): mask_tokens(tokens, seed=seed, step=step, mask_fraction=0.15)[0]
        for seed in (1, 2)
        for step in (0, 1)
    }
    rows = [row.tobytes() for pair in shown.values() for row in pair]
    assert len(set(rows)) == 8
    flips = {strand_flips(seed, step, 64).tobytes() for seed in (1, 2) for step in (0, 1)}
    assert len(flips) == 4


def test_the_masked_lm_rule() -> None:
    """80 % [MASK], 10 % a uniformly random base, 10 % unchanged; within four standard deviations."""
    n = 400_000
    tokens = np.full((1, n), vocab.C, dtype=np.uint8)
    input_ids, targets = mask_tokens(tokens, seed=11, step=0, mask_fraction=0.15)

    def near(count: int, share: float, of: int) -> None:
        assert abs(count - share * of) < 4 * np.sqrt(of * share * (1 - share))

    hits = int(targets.sum())
    near(hits, 0.15, n)
    shown = input_ids[targets]
    near(int((shown == vocab.MASK).sum()), 0.8, hits)
    for base in (vocab.A, vocab.G, vocab.T):
        near(int((shown == base).sum()), 0.025, hits)
    near(int((shown == vocab.C).sum()), 0.125, hits)
    assert np.array_equal(input_ids[~targets], tokens[~targets])


def test_n_and_special_tokens_are_never_touched() -> None:
    tokens = np.resize(np.arange(12, dtype=np.uint8), (4, 3000))
    input_ids, targets = mask_tokens(tokens, seed=0, step=0, mask_fraction=0.9)
    base = np.isin(tokens, vocab.BASES)
    assert targets[base].mean() > 0.85
    assert not targets[~base].any()
    assert np.array_equal(input_ids[~base], tokens[~base])
    assert set(np.unique(input_ids[base])) == {vocab.MASK, *vocab.BASES}


def test_strand_flips_are_fair() -> None:
    flips = np.concatenate([strand_flips(1, step, 10) for step in range(400)])
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(flips.size)
