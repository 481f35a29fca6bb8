"""Logistic regression on k-mer counts: the classical classifier that a network has to beat.

A sequence is the counts of its k-mers; with both strands read, a k-mer and its reverse complement are one. The square
root of the counts, scaled to length 1, takes the sequence's length out and keeps frequent k-mers from ruling the
rest. k and the strength of the penalty are picked by the MCC on the validation split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack
from sklearn.linear_model import LogisticRegression

from genossm import metrics, vocab

Tokens = npt.NDArray[np.uint8]

K_GRID = (3, 4, 5, 6)
C_GRID = (1.0, 10.0)
"""Inverse strengths of the L2 penalty that are tried."""

_CHUNK = 1 << 21
"""Bases that are counted at a time."""


def _codes(tokens: Tokens, k: int, both_strands: bool) -> npt.NDArray[np.int64]:
    """The k-mer that starts at each position, as a number in base 4; -1 where one of its letters is no base."""
    n = len(tokens) - k + 1
    if n < 1:
        return np.empty(0, dtype=np.int64)
    digits = tokens.astype(np.int64) - vocab.FIRST_BASE
    valid = (digits >= 0) & (digits < 4)
    forward, reverse = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    whole = np.ones(n, dtype=bool)
    for i in range(k):
        digit = digits[i : i + n]
        forward = forward * 4 + digit
        reverse += (3 - digit) << 2 * i
        whole &= valid[i : i + n]
    return np.where(whole, np.minimum(forward, reverse) if both_strands else forward, -1)


def _count_chunk(sequences: Sequence[Tokens], k: int, both_strands: bool) -> csr_array:
    # One break between neighbours, so no k-mer spans two sequences.
    joined = np.concatenate([part for s in sequences for part in (s, [np.uint8(vocab.N)])])
    rows = np.repeat(np.arange(len(sequences)), [len(s) + 1 for s in sequences])
    codes = _codes(joined, k, both_strands)
    kept = codes >= 0
    width = 4**k
    cells, counts = np.unique(rows[: len(codes)][kept] * width + codes[kept], return_counts=True)
    shape = (len(sequences), width)
    return csr_array((counts.astype(np.float64), (cells // width, cells % width)), shape=shape)


def kmer_counts(sequences: Sequence[Tokens], k: int, *, both_strands: bool) -> csr_array:
    """How often each k-mer occurs in each sequence.

    Args:
        sequences: token ids of :mod:`genossm.vocab`, uint8, each of shape (length,); k-mers with N are not counted.
        k: at least 1.
        both_strands: count a k-mer and its reverse complement as one (the smaller of the two).

    Returns:
        float64 counts, sparse, shape (len(sequences), 4**k); column = the k-mer read in base 4 with ACGT = 0123.
    """
    ends = np.cumsum([0, *(len(s) for s in sequences)])
    borders = np.searchsorted(ends[1:], np.arange(_CHUNK, ends[-1] + 1, _CHUNK), side="right")
    edges = np.unique([0, *borders, len(sequences)])
    chunks = [_count_chunk(sequences[a:b], k, both_strands) for a, b in pairwise(edges)]
    return csr_array(vstack(chunks, format="csr")) if chunks else csr_array((0, 4**k))


def kmer_features(sequences: Sequence[Tokens], k: int, *, both_strands: bool) -> csr_array:
    """Square roots of :func:`kmer_counts`, each row scaled to length 1 (a row without k-mers stays 0)."""
    counts = kmer_counts(sequences, k, both_strands=both_strands)
    features = counts.sqrt()
    # The squares of the square roots are the counts, so a row's squared length is its number of k-mers.
    norms = np.sqrt(counts.sum(axis=1))
    features.data /= np.repeat(norms, np.diff(features.indptr))
    return features


@dataclass(frozen=True)
class KmerRegression:
    """A fitted k-mer logistic regression; made by :func:`fit_kmer_regression`."""

    k: int
    C: float
    both_strands: bool
    valid_mcc: float
    regression: LogisticRegression

    def probabilities(self, sequences: Sequence[Tokens]) -> npt.NDArray[np.float64]:
        """Probability of every class, shape (len(sequences), classes)."""
        features = kmer_features(sequences, self.k, both_strands=self.both_strands)
        return np.asarray(self.regression.predict_proba(features), dtype=np.float64)


def fit_kmer_regression(
    train: Sequence[Tokens],
    train_labels: npt.NDArray[np.int64],
    valid: Sequence[Tokens],
    valid_labels: npt.NDArray[np.int64],
    *,
    both_strands: bool,
    ks: Sequence[int] = K_GRID,
    Cs: Sequence[float] = C_GRID,
) -> KmerRegression:
    """The regression whose k and penalty give the best MCC on the validation split; the first of equals.

    Args:
        train, valid: token ids, uint8, each of shape (length,).
        train_labels, valid_labels: class indices 0..classes-1; every class must occur in ``train_labels``.
        both_strands: see :func:`kmer_counts`.
        ks, Cs: what is tried, smallest models first.

    Raises:
        ValueError: a class without a training sequence.
    """
    classes = np.unique(train_labels)
    if not np.array_equal(classes, np.arange(len(classes))) or len(classes) < 2:
        raise ValueError(f"training labels must be 0..classes-1 with every class present, not {classes.tolist()}")
    best: KmerRegression | None = None
    for k in ks:
        features = kmer_features(train, k, both_strands=both_strands)
        held_out = kmer_features(valid, k, both_strands=both_strands)
        for C in Cs:
            regression = LogisticRegression(C=C, max_iter=2000).fit(features, train_labels)
            score = metrics.mcc(valid_labels, regression.predict_proba(held_out))
            if best is None or score > best.valid_mcc:
                best = KmerRegression(k, C, both_strands, score, regression)
    if best is None:
        raise ValueError("ks and Cs must not be empty")
    return best
