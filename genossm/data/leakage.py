"""Whether test sequences were seen in training: shared stretches, on either strand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genossm import vocab

Tokens = npt.NDArray[np.uint8]

K = 32
"""bp of a shared stretch: two bits a base fill a 64-bit word, and chance gives none between two genomes' worth."""


def _words(tokens: Tokens) -> npt.NDArray[np.uint64]:
    """The K-mers of a token array, each as the smaller of its two strands' words; those with other letters left out."""
    n = len(tokens) - K + 1
    if n < 1:
        return np.empty(0, dtype=np.uint64)
    digits = (tokens - np.uint8(vocab.FIRST_BASE)).astype(np.uint64)
    other = digits > 3
    bad = np.cumsum(np.concatenate([[0], other]))
    forward, reverse = np.zeros(n, dtype=np.uint64), np.zeros(n, dtype=np.uint64)
    two, three = np.uint64(2), np.uint64(3)
    for i in range(K):
        digit = digits[i : i + n] & three
        forward = (forward << two) | digit
        reverse |= (three - digit) << np.uint64(2 * i)
    return np.minimum(forward, reverse)[bad[K:] == bad[:-K]]


def _joined(sequences: Sequence[Tokens]) -> Tokens:
    """All sequences in a row, one N between neighbours, so no word spans two."""
    return np.concatenate([np.empty(0, dtype=np.uint8), *(np.append(s, np.uint8(vocab.N)) for s in sequences)])


def shared_words(train: Sequence[Tokens], test: Sequence[Tokens]) -> npt.NDArray[np.bool_]:
    """Which test sequences share a stretch of :data:`K` bases, on either strand, with a training sequence.

    Args:
        train, test: token ids, uint8, each of shape (length,); sequences shorter than K share none.

    Returns:
        bool, shape (len(test),).
    """
    known = np.unique(_words(_joined(train)))
    found = np.zeros(len(test), dtype=bool)
    if len(known):
        for i, tokens in enumerate(test):
            words = _words(tokens)
            at = np.searchsorted(known, words)
            found[i] = (known[np.minimum(at, len(known) - 1)] == words).any()
    return found


def identical(train: Sequence[Tokens], test: Sequence[Tokens]) -> npt.NDArray[np.bool_]:
    """Which test sequences are, on either strand, a whole training sequence; bool, shape (len(test),)."""
    known = {tokens.tobytes() for tokens in train}
    return np.array([s.tobytes() in known or vocab.reverse_complement(s).tobytes() in known for s in test], dtype=bool)
