"""Batches of sequences of unequal length: which rows go together, and how they are padded.

Pure functions. The order of an epoch is a function of (seed, epoch) alone; rows of like length share a batch, so
little of it is padding; and a batch is cut into parts of bounded size, so memory does not grow with the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genossm import vocab

Rows = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint8]

POOL = 32
"""Batches whose rows are sorted by length together: enough to save padding, few enough to stay shuffled."""

_ORDER, _SPLIT, _FLIP, _MUTATE, _CUT = range(5)
"""What a random stream is for; part of its key, so that no two uses share numbers."""


def _generator(use: int, seed: int, epoch: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([use, seed, epoch])))


def epoch_batches(lengths: npt.NDArray[np.integer], batch_size: int, *, seed: int, epoch: int) -> list[Rows]:
    """Every row once, in batches of ``batch_size`` rows (the last may be smaller) of like length, in random order.

    Args:
        lengths: shape (rows,).
        seed, epoch: what the order depends on.
    """
    rng = _generator(_ORDER, seed, epoch)
    order = rng.permutation(len(lengths))
    batches: list[Rows] = []
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def bounded_parts(rows: Rows, lengths: npt.NDArray[np.integer], *, max_rows: int, max_tokens: int) -> list[Rows]:
    """``rows`` by rising length, cut so that no part has more than ``max_rows`` rows or, padded, ``max_tokens`` tokens.

    A row that is longer than ``max_tokens`` is a part of its own.
    """
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    parts: list[Rows] = []
    start = 0
    for end in range(1, len(ordered) + 1):
        full = end - start == max_rows
        if end == len(ordered) or full or (end + 1 - start) * lengths[ordered[end]] > max_tokens:
            parts.append(ordered[start:end])
            start = end
    return parts


def pad(sequences: Sequence[Tokens]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Sequences as one batch, padded on the right.

    Args:
        sequences: token ids, each of shape (length,); at least one.

    Returns:
        input_ids, int64, shape (batch, longest), with [PAD] after each sequence; mask, bool, same shape, True on it.
        The longest is at least 1.
    """
    lengths = np.array([len(s) for s in sequences])
    input_ids = np.full((len(sequences), max(1, lengths.max())), vocab.PAD, dtype=np.int64)
    for row, sequence in zip(input_ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    return input_ids, np.arange(input_ids.shape[1]) < lengths[:, None]


def stratified_split(labels: npt.NDArray[np.integer], fraction: float, *, seed: int) -> tuple[Rows, Rows]:
    """Rows to keep and rows to hold out, each in rising order; ``fraction`` of every class is held out.

    A class of two rows or more has at least one row on either side; a class of one row is kept.
    """
    rng = _generator(_SPLIT, seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) > 1:
            count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
            held[rng.permutation(rows)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def flipped_rows(rows: int, *, seed: int, epoch: int) -> npt.NDArray[np.bool_]:
    """Which of ``rows`` rows are read from the other strand in an epoch: each with probability 1/2."""
    return _generator(_FLIP, seed, epoch).random(rows) < 0.5


def mutated(sequences: Sequence[Tokens], probability: float, key: tuple[int, ...]) -> list[Tokens]:
    """The sequences with every base drawn anew, evenly from ACGT, with a probability; a function of ``key``."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([_MUTATE, *key])))
    joined = np.concatenate(list(sequences))
    drawn = rng.random(len(joined)) < probability
    joined[drawn] = vocab.FIRST_BASE + rng.integers(0, 4, int(drawn.sum())).astype(np.uint8)
    return np.split(joined, np.cumsum([len(s) for s in sequences])[:-1])


def cut_ends(most: int, key: tuple[int, ...]) -> tuple[int, int]:
    """How many bases to cut off at the left and at the right end, 0 to ``most`` each; a function of ``key``."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([_CUT, *key])))
    left, right = rng.integers(0, most, size=2, endpoint=True)
    return int(left), int(right)


def fold_rows(labels: npt.NDArray[np.integer], folds: int, *, seed: int) -> list[Rows]:
    """The rows of each of ``folds`` folds, every class spread evenly over them; each in rising order."""
    rng = _generator(_SPLIT, seed, folds)
    fold = np.empty(len(labels), dtype=np.int64)
    next_fold = 0
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fold[rows] = (next_fold + np.arange(len(rows))) % folds
        next_fold = (next_fold + len(rows)) % folds
    return [np.flatnonzero(fold == i) for i in range(folds)]
