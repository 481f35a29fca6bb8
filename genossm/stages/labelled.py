"""Labelled tables as the classifiers see them: token arrays, class indices, and what the report says of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.data.batching import bounded_parts, epoch_batches, flipped_rows, pad, stratified_split
from genossm.data.tasks import LabelledSequences, read_table
from genossm.errors import GenoSSMError
from genossm.files import sha256_of
from genossm.train.classification import Batch

Rows = npt.NDArray[np.int64]

TRAIN_TOKENS = 1 << 15
"""Tokens, padding included, of one forward and backward pass; a batch of more goes through in parts."""
PREDICT_TOKENS = 1 << 16
PREDICT_ROWS = 128


@dataclass(frozen=True)
class Split:
    """Labelled sequences.

    Attributes:
        sequences: token ids, uint8, each of shape (length,).
        labels: class indices, int64, shape (rows,).
        lines: the line of each row in its table.
        names: the classes, in the order of the indices.
        sha256: of the table.
    """

    sequences: list[npt.NDArray[np.uint8]]
    labels: npt.NDArray[np.int64]
    lines: list[int]
    names: list[str]
    sha256: str

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """bp of each row."""
        return np.array([len(s) for s in self.sequences], dtype=np.int64)

    def take(self, rows: Rows) -> Split:
        """Some of the rows."""
        chosen = [self.sequences[i] for i in rows]
        return Split(chosen, self.labels[rows], [self.lines[i] for i in rows], self.names, self.sha256)

    def describe(self) -> dict[str, Any]:
        """Rows, rows by class, shortest and longest, and the checksum of the table; JSON."""
        counts = np.bincount(self.labels, minlength=len(self.names)).tolist()
        return {
            "rows": len(self.sequences),
            "classes": dict(zip(self.names, counts, strict=True)),
            "min_length": int(self.lengths.min()),
            "max_length": int(self.lengths.max()),
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class Splits:
    """The task: ``test`` is None where no table was given."""

    train: Split
    valid: Split
    test: Split | None


@dataclass(frozen=True)
class Tables:
    """Where a task lies.

    Attributes:
        train, valid, test: CSV or TSV, see :func:`genossm.data.tasks.read_table`.
        valid_fraction: the share of every class of ``train`` that is held out where ``valid`` is None.
        sequence_column, label_column: found by their names where None.
    """

    train: Path
    valid: Path | None = None
    test: Path | None = None
    valid_fraction: float = 0.1
    sequence_column: str | None = None
    label_column: str | None = None

    def read(self, seed: int) -> Splits:
        """The rows; the classes are the labels of ``train``, sorted by name.

        Raises:
            GenoSSMError: a fault of a table; a label that ``train`` does not have; a class of one row, of which
                nothing can be held out.
        """
        table = read_table(self.train, self.sequence_column, self.label_column)
        names = sorted(set(table.labels))
        train = _split(table, self.train, names)
        valid, test = (
            None if path is None else _split(read_table(path, self.sequence_column, self.label_column), path, names)
            for path in (self.valid, self.test)
        )
        if valid is not None:
            return Splits(train, valid, test)
        single = np.flatnonzero(np.bincount(train.labels) == 1)
        if single.size:
            name = names[single[0]]
            raise GenoSSMError(
                f"class {name!r} has one row, so none can be held out for validation: give --valid", path=self.train
            )
        kept, held = stratified_split(train.labels, self.valid_fraction, seed=seed)
        return Splits(train.take(kept), train.take(held), test)


def _split(table: LabelledSequences, path: Path, names: list[str]) -> Split:
    index = {name: i for i, name in enumerate(names)}
    for line, label in zip(table.lines, table.labels, strict=True):
        if label not in index:
            raise GenoSSMError(
                f"the label {label!r} is not in the training table, which has {', '.join(names)}", path=path, line=line
            )
    sequences = [vocab.encode(sequence) for sequence in table.sequences]
    ambiguous = sum(
        int((tokens == vocab.N).sum()) - letters.count("N")
        for tokens, letters in zip(sequences, table.sequences, strict=True)
    )
    if ambiguous:
        print(f"warning: {path}: W_IUPAC {ambiguous:,} ambiguity codes read as N", file=sys.stderr)
    labels = np.array([index[label] for label in table.labels], dtype=np.int64)
    return Split(sequences, labels, list(table.lines), names, sha256_of(path))


def _tensors(sequences: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """input_ids and mask; no mask where nothing is padded."""
    input_ids, mask = pad(sequences)
    return torch.from_numpy(input_ids).to(device), None if mask.all() else torch.from_numpy(mask).to(device)


def training_steps(
    split: Split, batch_size: int, *, seed: int, epoch: int, flip: bool, device: torch.device
) -> Iterator[list[Batch]]:
    """The steps of an epoch, each the parts of one batch; with ``flip``, a random half is read on the other strand."""
    lengths = split.lengths
    flipped = flipped_rows(len(lengths), seed=seed, epoch=epoch) & flip
    for rows in epoch_batches(lengths, batch_size, seed=seed, epoch=epoch):
        parts: list[Batch] = []
        for part in bounded_parts(rows, lengths, max_rows=batch_size, max_tokens=TRAIN_TOKENS):
            read = [
                vocab.reverse_complement(s) if flipped[i] else s for i, s in ((i, split.sequences[i]) for i in part)
            ]
            parts.append((*_tensors(read, device), torch.from_numpy(split.labels[part]).to(device)))
        yield parts


def prediction_batches(split: Split) -> list[Rows]:
    """Every row once, in parts of like length that fit in memory."""
    rows = np.arange(len(split.sequences))
    return bounded_parts(rows, split.lengths, max_rows=PREDICT_ROWS, max_tokens=PREDICT_TOKENS)


def read_batches(
    split: Split, parts: Sequence[Rows], *, other_strand: bool, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """input_ids and mask of each part, read from the given strand or from the other."""
    for part in parts:
        chosen = [split.sequences[i] for i in part]
        yield _tensors([vocab.reverse_complement(s) for s in chosen] if other_strand else chosen, device)
