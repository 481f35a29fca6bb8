"""Leakage: what is planted is found, on both strands, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from genossm import vocab
from genossm.data.leakage import K, identical, shared_words


def sequences(count: int, length: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(vocab.A, vocab.T + 1, length).astype(np.uint8) for _ in range(count)]


def test_random_sequences_share_nothing() -> None:
    train, test = sequences(300, 500, 0), sequences(100, 500, 1)
    assert not shared_words(train, test).any()
    assert not identical(train, test).any()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("length", [K - 1, K, K + 9])
def test_a_shared_stretch_is_found_from_k_bases_on(flip: bool, length: int) -> None:
    train, test = sequences(20, 200, 2), sequences(10, 150, 3)
    stretch = train[7][50 : 50 + length]
    test[4][30 : 30 + length] = vocab.reverse_complement(stretch) if flip else stretch
    test[4][[29, 30 + length]] = vocab.N  # or the stretch might go on by chance
    found = np.flatnonzero(shared_words(train, test))
    assert found.tolist() == ([4] if length >= K else [])


def test_n_and_borders_of_sequences_hide_a_stretch() -> None:
    train, test = sequences(5, 100, 4), sequences(2, 64, 5)
    test[0] = train[1][:64].copy()
    test[0][[20, 45]] = vocab.N
    test[1] = np.concatenate([train[2][-20:], train[3][:20]])  # a stretch only across two neighbours
    assert not shared_words(train, test).any()
    assert shared_words(train, [train[1][:64]]).tolist() == [True]


def test_short_and_absent_sequences() -> None:
    train = sequences(3, 10, 6)
    assert shared_words(train, [train[0]]).tolist() == [False]
    assert shared_words([], sequences(2, 50, 7)).tolist() == [False, False]
    assert shared_words(train, []).shape == (0,)


def test_identical_on_either_strand() -> None:
    train = sequences(4, 40, 8)
    test = [train[2], vocab.reverse_complement(train[1]), train[0][:-1], sequences(1, 40, 9)[0]]
    assert identical(train, test).tolist() == [True, True, False, False]
