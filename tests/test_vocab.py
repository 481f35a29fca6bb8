"""Token ids are those of the published checkpoints; the complement and the codec agree with Biopython."""

from __future__ import annotations

import numpy as np
import pytest
from Bio.Seq import Seq
from hypothesis import given
from hypothesis import strategies as st

from genossm import vocab


def test_ids_are_those_of_caduceus_and_hyenadna():
    published = ["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N"]
    assert list(vocab.TOKENS) == published
    assert (vocab.CLS, vocab.SEP, vocab.BOS, vocab.MASK, vocab.PAD, vocab.UNK) == (0, 1, 2, 3, 4, 6)
    assert vocab.encode("ACGTN").tolist() == [7, 8, 9, 10, 11]


def test_every_byte_is_a_base_an_n_or_invalid():
    for byte in range(256):
        letter = chr(byte).upper() if byte < 128 else ""
        expected = vocab.INVALID
        if letter and letter in "ACGT":
            expected = vocab.TOKENS.index(letter)
        elif letter and letter in "NRYSWKMBDHV":
            expected = vocab.N
        assert vocab.LETTER_TO_ID[byte] == expected, chr(byte)


@given(st.text(alphabet="ACGTN", max_size=200))
def test_decode_undoes_encode(sequence):
    assert vocab.decode(vocab.encode(sequence)) == sequence
    assert vocab.decode(vocab.encode(sequence.lower())) == sequence


@given(st.text(alphabet="ACGTN", max_size=200))
def test_reverse_complement_is_that_of_biopython(sequence):
    expected = str(Seq(sequence).reverse_complement())
    assert vocab.decode(vocab.reverse_complement(vocab.encode(sequence))) == expected


def test_reverse_complement_works_along_the_last_axis_and_leaves_specials():
    ids = np.array([[vocab.A, vocab.PAD], [vocab.MASK, vocab.C]], dtype=np.uint8)
    assert vocab.reverse_complement(ids).tolist() == [[vocab.PAD, vocab.T], [vocab.G, vocab.MASK]]


def test_complement_is_its_own_inverse():
    assert np.array_equal(vocab.COMPLEMENT[vocab.COMPLEMENT], np.arange(vocab.VOCAB_SIZE))


@pytest.mark.parametrize(("sequence", "shown", "position"), [("ACGU", "'U'", 3), ("-A", "'-'", 0), ("A C", "' '", 1)])
def test_encode_names_the_first_bad_letter_and_its_position(sequence, shown, position):
    with pytest.raises(ValueError, match=f"{shown} at position {position}"):
        vocab.encode(sequence)


def test_encode_takes_bytes_of_any_value():
    with pytest.raises(ValueError, match="position 1"):
        vocab.encode(b"A\xff")
