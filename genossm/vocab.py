"""The vocabulary: token ids, their complement, and the way between letters and ids.

The ids are those of the published Caduceus and HyenaDNA checkpoints: twelve tokens, padded to sixteen so
that a row of the embedding fills a cache line. Case carries no token: lower case is the soft-mask, kept beside.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TOKENS = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N")
CLS, SEP, BOS, MASK, PAD, RESERVED, UNK, A, C, G, T, N = range(12)
VOCAB_SIZE = 16
BASES = (A, C, G, T)
FIRST_BASE = A

IUPAC_AMBIGUOUS = "RYSWKMBDHV"

COMPLEMENT: npt.NDArray[np.uint8] = np.arange(VOCAB_SIZE, dtype=np.uint8)
COMPLEMENT[[A, C, G, T]] = [T, G, C, A]

INVALID = 255
"""What :data:`LETTER_TO_ID` gives for a byte that is no nucleotide letter."""

LETTER_TO_ID: npt.NDArray[np.uint8] = np.full(256, INVALID, dtype=np.uint8)
"""Byte to token id, shape (256,): ACGTN as they are, IUPAC ambiguity codes as N, in both cases."""
for _letter, _id in [*zip("ACGTN", (A, C, G, T, N), strict=True), *((x, N) for x in IUPAC_AMBIGUOUS)]:
    LETTER_TO_ID[[ord(_letter), ord(_letter.lower())]] = _id

_ID_TO_LETTER = np.frombuffer(b"NNNNNNNACGTNNNNN", dtype=np.uint8)


def encode(sequence: str | bytes) -> npt.NDArray[np.uint8]:
    """Token ids of a nucleotide sequence, uint8, shape (len(sequence),).

    Raises:
        ValueError: at the first byte that is no nucleotide letter, with its 0-based position.
    """
    raw = sequence.encode("utf-8") if isinstance(sequence, str) else sequence
    ids = LETTER_TO_ID[np.frombuffer(raw, dtype=np.uint8)]
    bad = np.flatnonzero(ids == INVALID)
    if bad.size:
        raise ValueError(f"{chr(raw[bad[0]])!r} at position {bad[0]} is not a nucleotide letter")
    return ids


def decode(ids: npt.NDArray[np.integer]) -> str:
    """Upper-case letters of token ids; every special token and N gives ``N``."""
    return _ID_TO_LETTER[np.asarray(ids)].tobytes().decode("ascii")


def reverse_complement(ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The other strand, read 5' to 3': reversed along the last axis, A<->T and C<->G; other ids stay."""
    return COMPLEMENT[np.asarray(ids)[..., ::-1]]
