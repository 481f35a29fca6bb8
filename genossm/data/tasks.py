"""Labelled sequences from a user's table: which columns, what kind of labels, and what is wrong with them."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from genossm import vocab
from genossm.data.tables import Table, read_csv
from genossm.errors import GenoSSMError

Kind = Literal["classes", "multilabel", "regression", "tokens"]
"""One class a row; any number of labels a row; one number or several a row; one class a base."""

SEQUENCE_NAMES = ("sequence", "seq", "dna", "dna_sequence", "sequences")
LABEL_NAMES = ("label", "labels", "class", "target", "y")
MISSING = ("nan", "na", "n/a", "<na>", "null")
"""What tables write for a label that is not there; as a class of its own it would spoil every metric."""
NO_LABEL = "."
"""A base without a label, where every base has one."""
TRUE, FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
PROTEIN = "EFILPQefilpq*"
"""Amino acids, and their stop, that are no nucleotide letters."""
SEPARATORS = ";|"
"""Between the labels of a row, where one column holds them all."""

GUESS_ROWS = 50
"""Rows that a guess is made by."""
SHORTEST_GUESS = 10
"""A column is guessed to hold sequences where they have so many bp."""
MANY_VALUES = 20
"""More values than these, with fractions among them, are numbers and not classes."""

_LETTERS = bytes(byte for byte in range(256) if vocab.LETTER_TO_ID[byte] != vocab.INVALID)


@dataclass(frozen=True)
class LabelledSequences:
    """Sequences (upper-case nucleotide letters) and their labels, row by row, with the line of each in the file.

    Attributes:
        labels: the class of each row; of tokens, a letter a base.
        values: the labels (0, 1) or the numbers of each row (multilabel, regression).
        columns: their names.
    """

    sequences: list[str]
    labels: list[str]
    path: str
    lines: list[int]
    kind: Kind = "classes"
    values: list[tuple[float, ...]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def names(self) -> list[str]:
        """The classes, labels or numbers, in the order of the outputs: classes by name, columns as they stand."""
        if self.kind == "tokens":
            return sorted(set().union(*self.labels) - {NO_LABEL})
        return sorted(set(self.labels)) if self.kind == "classes" else self.columns


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read."""

    sequence: int
    labels: list[int]
    guessed: bool = False


def looks_like_dna(text: str) -> bool:
    """Whether a field holds a sequence, and no word that happens to be spelt with its letters."""
    text = text.strip()
    return len(text) >= SHORTEST_GUESS and not text.encode().translate(None, _LETTERS)


def with_header(table: Table) -> Table:
    """The table itself; or, where its first line holds a sequence and so no names, with names column_1, column_2 ..."""
    if not any(looks_like_dna(name) for name in table.header):
        return table
    names = [f"column_{i}" for i in range(1, len(table.header) + 1)]
    return Table(table.path, names, [table.header, *table.rows], [1, *table.lines])


def find_columns(table: Table, sequence: str | None, labels: Sequence[str]) -> Columns:
    """The columns of a table: those that are named, else by their usual names, else by what is in them.

    Raises:
        GenoSSMError: a column that is not there, or none that could be meant.
    """
    guessed = False
    rows = table.rows[:GUESS_ROWS]
    dna = [i for i in range(len(table.header)) if all(looks_like_dna(row[i]) for row in rows)]
    known = {name.lower() for name in table.header}
    if sequence is None and not known & set(SEQUENCE_NAMES) and len(dna) == 1:
        sequence_at, guessed = dna[0], True
    else:
        sequence_at = table.column(SEQUENCE_NAMES, sequence, "sequences")
    if labels:
        return Columns(sequence_at, [table.column((), name, "labels") for name in labels], guessed)
    if known & set(LABEL_NAMES):
        return Columns(sequence_at, [table.column(LABEL_NAMES, None, "labels")], guessed)
    rest = [i for i in range(len(table.header)) if i != sequence_at and _could_be_label(table, i)]
    if len(rest) == 1 and len(table) >= MANY_VALUES:
        return Columns(sequence_at, rest, True)
    return Columns(sequence_at, [table.column(LABEL_NAMES, None, "labels")], guessed)


def _could_be_label(table: Table, column: int) -> bool:
    """Few different values for many rows, and none of them as long as a sentence."""
    values = {row[column].strip() for row in table.rows}
    return 2 <= len(values) <= max(2, len(table) // 10) and all(len(value) <= 40 for value in values)


def read_table(
    path: str | os.PathLike[str],
    sequence_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    *,
    kind: Kind | None = None,
    training: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> LabelledSequences:
    """Labelled sequences from a CSV or TSV with a header line; see :func:`from_table`."""
    names = [label_column] if isinstance(label_column, str) else list(label_column or ())
    return from_table(read_csv(path), sequence_column, names, kind=kind, training=training, say=say)


def from_table(
    table: Table,
    sequence_column: str | None = None,
    label_columns: Sequence[str] = (),
    *,
    kind: Kind | None = None,
    training: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> LabelledSequences:
    """Labelled sequences of a table.

    A first line that holds a sequence is a row, and the columns are numbered: ``column_1`` ... Otherwise they are found
    by name (``sequence``/``seq``/``dna``, ``label``/``class``/``target`` ..., in any case), or by what is in them,
    unless they are named. Letters of either case, N and IUPAC codes are accepted.

    Args:
        kind: what the labels are; None: guessed. Several columns are labels where all are 0 or 1, else numbers; one
            column is classes, unless it holds more than 20 different numbers with fractions, or as many letters as
            the sequence in every row.
        training: whether classes are learnt from this table: then there must be two.
        say: is told what was guessed.

    Raises:
        GenoSSMError: an empty file, a missing column, an empty label or sequence, a letter that is no nucleotide,
            fewer than two labels; with FILE:LINE wherever there is a line.
    """
    table = with_header(table)
    columns = find_columns(table, sequence_column, label_columns)
    if columns.sequence in columns.labels:
        raise GenoSSMError("sequences and labels are asked of the same column", path=table.path, line=1)
    sequences = []
    for line, row in zip(table.lines, table.rows, strict=True):
        sequence = row[columns.sequence].strip()
        check_sequence(sequence, table.path, line)
        sequences.append(sequence.upper())
    fields = [[row[i].strip() for i in columns.labels] for row in table.rows]
    names = [table.header[i] for i in columns.labels]
    found = kind or guess_kind(sequences, fields)
    if columns.guessed or (kind is None and found != "classes"):
        say(f"{table.path}: sequences of column {table.header[columns.sequence]!r}, {found} of {', '.join(names)}")
    return label(sequences, fields, names, found, table.path, table.lines, training=training)


def guess_kind(sequences: Sequence[str], fields: Sequence[Sequence[str]]) -> Kind:
    """What the labels of rows are, see :func:`from_table`."""
    values = {value.lower() for row in fields for value in row} - {""}
    if len(fields[0]) > 1:
        return "multilabel" if values <= {*TRUE, *FALSE} else "regression"
    if all(len(row[0]) == len(s) > 1 for s, row in zip(sequences, fields, strict=True)):
        return "tokens"
    numbers = [_number(value) for value in values]
    if len(values) > MANY_VALUES and all(n is not None for n in numbers) and any(n and n % 1 for n in numbers):
        return "regression"
    return "classes"


def label(
    sequences: list[str],
    fields: Sequence[Sequence[str]],
    names: list[str],
    kind: Kind,
    path: str,
    lines: list[int],
    *,
    training: bool,
) -> LabelledSequences:
    """Rows with their labels checked; ``fields``: the texts of the label columns ``names``, row by row."""
    for line, row in zip(lines, fields, strict=True):
        for value in row:
            if kind == "multilabel" and len(names) == 1 and not value:
                continue  # a row without any of the labels
            _check_label(value, path, line)
    if kind == "regression":
        values = [tuple(_finite(value, path, line) for value in row) for line, row in zip(lines, fields, strict=True)]
        if training and any(len(set(column)) == 1 for column in zip(*values, strict=True)):
            raise GenoSSMError("a column of numbers is constant: there is nothing to learn", path=path)
        return LabelledSequences(sequences, [], path, lines, kind, values, names)
    if kind == "multilabel":
        return _multilabel(sequences, fields, names, path, lines)
    if len(names) > 1:
        raise GenoSSMError(f"{kind} are in one column, and {len(names)} are named: {', '.join(names)}", path=path)
    labels = [row[0] for row in fields]
    if kind == "tokens":
        for line, sequence, text in zip(lines, sequences, labels, strict=True):
            if len(text) != len(sequence):
                raise GenoSSMError(
                    f"{len(text)} labels for {len(sequence)} bases; give one a base, {NO_LABEL!r} where there is none",
                    path=path,
                    line=line,
                )
    elif training:
        _check_classes(labels, names[0], path)
    return LabelledSequences(sequences, labels, path, lines, kind)


def _check_label(value: str, path: str, line: int) -> None:
    if not value:
        raise GenoSSMError("the label is empty; fill it in, or remove the row", path=path, line=line)
    if value.lower() in MISSING:
        raise GenoSSMError(
            f"the label {value!r} stands for a missing value; remove the row, or give the class another name",
            path=path,
            line=line,
        )


def _check_classes(labels: Sequence[str], column: str, path: str) -> None:
    counts = Counter(labels)
    if len(counts) < 2:
        raise GenoSSMError(f"all rows have the label {labels[0]!r}; two are needed at least", path=path)
    if len(counts) > 2 and len(counts) > len(labels) // 2:
        raise GenoSSMError(
            f"{len(counts)} labels in {len(labels)} rows; is {column!r} the column of labels? Numbers are learnt with "
            "--task regression",
            path=path,
        )


def _multilabel(
    sequences: list[str], fields: Sequence[Sequence[str]], names: list[str], path: str, lines: list[int]
) -> LabelledSequences:
    """Columns of 0 and 1; or one column with the names of the labels that hold, separated by ';' or '|'."""
    values: list[tuple[float, ...]] = []
    if len(names) == 1:
        marks = [set(_words(row[0])) for row in fields]
        names = sorted(set().union(*marks))
        if len(names) < 2:
            raise GenoSSMError(f"one label in all, {', '.join(names)}; two are needed at least", path=path)
        values = [tuple(float(name in mark) for name in names) for mark in marks]
        return LabelledSequences(sequences, [], path, lines, "multilabel", values, names)
    for line, row in zip(lines, fields, strict=True):
        for value in row:
            if value.lower() not in (*TRUE, *FALSE):
                raise GenoSSMError(f"the label {value!r} is neither 0 nor 1", path=path, line=line)
        values.append(tuple(float(value.lower() in TRUE) for value in row))
    return LabelledSequences(sequences, [], path, lines, "multilabel", values, names)


def _words(text: str) -> list[str]:
    for separator in SEPARATORS[1:]:
        text = text.replace(separator, SEPARATORS[0])
    return [word.strip() for word in text.split(SEPARATORS[0]) if word.strip()]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _finite(text: str, path: str, line: int) -> float:
    value = _number(text)
    if value is None or not math.isfinite(value):
        hint = "; write a point for the decimal comma" if _number(text.replace(",", ".")) is not None else ""
        raise GenoSSMError(f"the label {text!r} is no number{hint}", path=path, line=line)
    return value


def check_sequence(sequence: str, path: str, line: int) -> None:
    """Refuse an empty sequence, and the first letter that is no nucleotide.

    Raises:
        GenoSSMError: E_RNA, E_BAD_CHAR, or empty; with the place.
    """
    if not sequence:
        raise GenoSSMError("the sequence is empty; fill it in, or remove the row", path=path, line=line)
    if sequence.encode("utf-8", "surrogatepass").translate(None, _LETTERS):
        place, letter = next(
            (i, c) for i, c in enumerate(sequence) if c.encode("utf-8", "surrogatepass") not in _LETTERS
        )
        raise GenoSSMError(
            f"{letter!r} in the sequence is no nucleotide letter; {_mend(letter)}",
            code="E_RNA" if letter in "Uu" else "E_BAD_CHAR", path=path, line=line, col=place + 1,
        )  # fmt: skip


def _mend(letter: str) -> str:
    """What to do about a letter that is no nucleotide."""
    if letter in "Uu":
        return "write T for U"
    if letter.isspace():
        return "remove the blanks and line breaks within it"
    if letter == "-":
        return "remove the gaps of an alignment"
    if letter in "Xx":
        return "write N for an unknown base"
    if letter in PROTEIN:
        return "is it a protein? DNA is needed"
    return "DNA has A, C, G, T, N and the IUPAC codes"
