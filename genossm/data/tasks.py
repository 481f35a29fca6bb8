"""Labelled sequences from a table that a user gives."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from genossm import vocab
from genossm.data.tables import read_csv
from genossm.errors import GenoSSMError

SEQUENCE_NAMES = ("sequence", "seq", "dna", "dna_sequence", "sequences")
MISSING = ("nan", "na", "n/a", "<na>", "null")
"""What tables write for a label that is not there; as a class of its own it would spoil every metric."""

LABEL_NAMES = ("label", "labels", "class", "target", "y")
_LETTERS = bytes(byte for byte in range(256) if vocab.LETTER_TO_ID[byte] != vocab.INVALID)


@dataclass(frozen=True)
class LabelledSequences:
    """Sequences (upper-case nucleotide letters) and their labels, row by row, with the line of each in the file."""

    sequences: list[str]
    labels: list[str]
    path: str
    lines: list[int]

    def __len__(self) -> int:
        return len(self.sequences)


def read_table(
    path: str | os.PathLike[str], sequence_column: str | None = None, label_column: str | None = None
) -> LabelledSequences:
    """Labelled sequences from a CSV or TSV with a header line.

    The columns are found by name (``sequence``/``seq``/``dna``, ``label``/``class``/``target`` ..., in any case)
    unless they are named. Letters of either case, N and IUPAC codes are accepted; labels are text.

    Raises:
        GenoSSMError: an empty file, a missing column, an empty label or sequence, a letter that is no nucleotide,
            fewer than two labels; with FILE:LINE wherever there is a line.
    """
    table = read_csv(path)
    sequence_at = table.column(SEQUENCE_NAMES, sequence_column, "sequences")
    label_at = table.column(LABEL_NAMES, label_column, "labels")
    if sequence_at == label_at:
        raise GenoSSMError("sequences and labels are asked of the same column", path=table.path, line=1)
    sequences, labels = [], []
    for line, row in zip(table.lines, table.rows, strict=True):
        sequence, label = row[sequence_at].strip(), row[label_at].strip()
        if not label:
            raise GenoSSMError("the label is empty", path=table.path, line=line)
        if label.lower() in MISSING:
            raise GenoSSMError(
                f"the label {label!r} stands for a missing value; remove the row, or give the class another name",
                path=table.path,
                line=line,
            )
        _check_sequence(sequence, table.path, line)
        sequences.append(sequence.upper())
        labels.append(label)
    if len(set(labels)) < 2:
        raise GenoSSMError(f"all rows have the label {labels[0]!r}; two are needed at least", path=table.path)
    counts = Counter(labels)
    if len(counts) > 2 and len(counts) > len(labels) // 2:
        raise GenoSSMError(
            f"{len(counts)} labels in {len(labels)} rows; is {table.header[label_at]!r} the column of labels?",
            path=table.path,
        )
    return LabelledSequences(sequences, labels, table.path, table.lines)


def _check_sequence(sequence: str, path: str, line: int) -> None:
    if not sequence:
        raise GenoSSMError("the sequence is empty", path=path, line=line)
    if sequence.encode().translate(None, _LETTERS):
        place, letter = next((i, c) for i, c in enumerate(sequence) if c.encode() not in _LETTERS)
        code, hint = ("E_RNA", "; write T for U") if letter in "Uu" else ("E_BAD_CHAR", "")
        raise GenoSSMError(
            f"{letter!r} in the sequence is no nucleotide letter{hint}", code=code, path=path, line=line, col=place + 1
        )
