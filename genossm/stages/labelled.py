"""Labelled tables as the classifiers see them: token arrays, class indices, and what the report says of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.data.batching import bounded_parts, cut_ends, epoch_batches, flipped_rows, mutated, pad, stratified_split
from genossm.data.readers import Source, checksum, read_labelled
from genossm.data.tasks import NO_LABEL, Kind, LabelledSequences
from genossm.errors import GenoSSMError
from genossm.train.classification import IGNORED, Batch

Rows = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64] | npt.NDArray[np.float64] | list[npt.NDArray[np.int64]]

TRAIN_TOKENS = 1 << 15
"""Tokens, padding included, of one forward and backward pass; a batch of more goes through in parts."""
PREDICT_TOKENS = 1 << 16
PREDICT_ROWS = 128


@dataclass(frozen=True)
class Split:
    """Labelled sequences.

    Attributes:
        sequences: token ids, uint8, each of shape (length,).
        targets: class indices, int64 (rows,); or labels (0, 1) or numbers, float64 (rows, outputs); or, for tokens, an
            int64 array of class indices (length,) a row, -1 where a base has no label.
        lines: the line of each row in its table.
        names: the classes, or the labels, or the numbers, in the order of the outputs.
        sha256: of the table.
        kind: what the targets are.
    """

    sequences: list[Tokens]
    targets: Targets
    lines: list[int]
    names: list[str]
    sha256: str
    kind: Kind = "classes"

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class of every row."""
        assert isinstance(self.targets, np.ndarray)
        return self.targets.astype(np.int64, copy=False)

    @property
    def flat_targets(self) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
        """The targets as one array; of tokens (bases of all rows,), -1 where there is no label."""
        return np.concatenate(self.targets) if isinstance(self.targets, list) else self.targets

    @property
    def outputs(self) -> int:
        """Classes, labels or numbers."""
        return len(self.names)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """bp of each row."""
        return np.array([len(s) for s in self.sequences], dtype=np.int64)

    @property
    def strata(self) -> npt.NDArray[np.int64]:
        """What a split keeps the shares of: the class; for labels their combination; else one stratum."""
        if self.kind == "classes":
            return self.labels
        if self.kind == "multilabel":
            return np.unique(np.asarray(self.targets), axis=0, return_inverse=True)[1].astype(np.int64)
        return np.zeros(len(self.sequences), dtype=np.int64)

    def take(self, rows: Rows) -> Split:
        """Some of the rows."""
        chosen = [self.targets[i] for i in rows] if isinstance(self.targets, list) else self.targets[rows]
        lines = [self.lines[i] for i in rows]
        return replace(self, sequences=[self.sequences[i] for i in rows], targets=chosen, lines=lines)

    def describe(self) -> dict[str, Any]:
        """Rows, what the targets are like, shortest and longest, and the checksum of the table; JSON."""
        about: dict[str, Any] = {"rows": len(self.sequences)}
        if self.kind == "classes":
            about["classes"] = dict(
                zip(self.names, np.bincount(self.labels, minlength=self.outputs).tolist(), strict=True)
            )
        elif self.kind == "tokens":
            counts = np.bincount(np.concatenate(self.targets) + 1, minlength=self.outputs + 1)[1:].tolist()
            about["classes"] = dict(zip(self.names, counts, strict=True))
        else:
            what = "positive" if self.kind == "multilabel" else "mean"
            values = np.asarray(self.targets)
            values = values.sum(axis=0) if self.kind == "multilabel" else values.mean(axis=0)
            about[what] = dict(zip(self.names, values.tolist(), strict=True))
        return about | {
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
        train, valid, test: any source of :mod:`genossm.data.readers`, or a path.
        valid_fraction: the share of every class of ``train`` that is held out where ``valid`` is None.
        sequence_column, label_columns: found by their names where None or empty.
        kind: what the labels are; None: guessed from the training table.
        reference: FASTA that intervals are cut from.
    """

    train: Source
    valid: Source | None = None
    test: Source | None = None
    valid_fraction: float = 0.1
    sequence_column: str | None = None
    label_columns: tuple[str, ...] = ()
    kind: Kind | None = None
    reference: Path | None = None

    def read(self, seed: int) -> Splits:
        """The rows; the classes are the labels of ``train``, sorted by name.

        Raises:
            GenoSSMError: a fault of a table; a label that ``train`` does not have; a class of one row, of which
                nothing can be held out.
        """
        table = self._table(self.train, self.kind)
        kind = table.kind
        names = table.names
        train = encode(table, self.train, names)
        valid, test = (
            None if path is None else encode(self._table(path, kind), path, names) for path in (self.valid, self.test)
        )
        if valid is not None:
            return Splits(train, valid, test)
        return Splits(*hold_out(train, self.valid_fraction, seed, self.train), test)

    def _table(self, path: Source, kind: Kind | None) -> LabelledSequences:
        return read_labelled(
            path,
            sequence_column=self.sequence_column,
            label_columns=self.label_columns,
            kind=kind,
            reference=self.reference,
            training=path == self.train,
            say=lambda text: print(f"note: {text}", file=sys.stderr),
        )


def hold_out(train: Split, fraction: float, seed: int, source: Source) -> tuple[Split, Split]:
    """Training rows to keep, and to choose by: ``fraction`` of every class.

    Raises:
        GenoSSMError: a class of one row.
    """
    if train.kind == "classes":
        single = np.flatnonzero(np.bincount(train.labels) == 1)
        if single.size:
            name = train.names[single[0]]
            raise GenoSSMError(
                f"class {name!r} has one row, so none can be held out for validation: give --valid", path=named(source)
            )
    kept, held = stratified_split(train.strata, fraction, seed=seed)
    if not len(held) or not len(kept):
        raise GenoSSMError("too few rows to hold some out for validation: give --valid", path=named(source))
    return train.take(kept), train.take(held)


def named(source: Source) -> str:
    """A source in a message."""
    return os.fspath(source) if isinstance(source, Path) else " ".join(f"{k}={v}" for k, v in source.items())


def encode(table: LabelledSequences, source: Source, names: list[str]) -> Split:
    """The rows of a table as arrays.

    Args:
        names: the classes, or the names of labels or numbers, of the training table.

    Raises:
        GenoSSMError: a label that is not among them.
    """
    sequences = [vocab.encode(sequence) for sequence in table.sequences]
    ambiguous = sum(
        int((tokens == vocab.N).sum()) - letters.count("N")
        for tokens, letters in zip(sequences, table.sequences, strict=True)
    )
    if ambiguous:
        print(f"warning: {table.path}: W_IUPAC {ambiguous:,} ambiguity codes read as N", file=sys.stderr)
    return Split(sequences, _targets(table, names), list(table.lines), names, checksum(source), table.kind)


def _targets(table: LabelledSequences, names: list[str]) -> Targets:
    index = {name: i for i, name in enumerate(names)}
    if table.kind in ("multilabel", "regression"):
        if table.names != names:
            raise GenoSSMError(
                f"the columns of labels are {', '.join(table.names)}; the training table has {', '.join(names)}",
                path=table.path,
            )
        return np.array(table.values, dtype=np.float64)
    for line, label in zip(table.lines, table.labels, strict=True):
        for word in label if table.kind == "tokens" else [label]:
            if word not in index and not (table.kind == "tokens" and word == NO_LABEL):
                raise GenoSSMError(
                    f"the label {word!r} is not in the training table, which has {', '.join(names)}",
                    path=table.path,
                    line=line,
                )
    if table.kind == "tokens":
        return [np.array([index.get(word, -1) for word in label], dtype=np.int64) for label in table.labels]
    return np.array([index[str(label)] for label in table.labels], dtype=np.int64)


def _tensors(sequences: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """input_ids and mask; no mask where nothing is padded."""
    input_ids, mask = pad(sequences)
    return torch.from_numpy(input_ids).to(device), None if mask.all() else torch.from_numpy(mask).to(device)


@dataclass(frozen=True)
class Augmentation:
    """What training does to sequences before it reads them.

    Attributes:
        flip: a random half is read on the other strand.
        mutation: every base is drawn anew with this probability.
        shift: up to so many bases are cut off at either end of all sequences of a batch.
    """

    flip: bool = False
    mutation: float = 0.0
    shift: int = 0


def steps_in_epoch(rows: int, batch_size: int) -> int:
    """Batches of an epoch: a last one that is smaller is left out, but where it is the only one."""
    return max(1, rows // batch_size)


def training_steps(
    split: Split, batch_size: int, *, seed: int, epoch: int, augmentation: Augmentation, device: torch.device
) -> Iterator[list[Batch]]:
    """The steps of an epoch, each the parts of one batch."""
    lengths = split.lengths
    flipped = flipped_rows(len(lengths), seed=seed, epoch=epoch) & augmentation.flip
    batches = epoch_batches(lengths, batch_size, seed=seed, epoch=epoch)
    whole = [rows for rows in batches if len(rows) == batch_size] or batches
    for number, rows in enumerate(whole):
        parts: list[Batch] = []
        left, right = cut_ends(augmentation.shift, (seed, epoch, number))
        for part in bounded_parts(rows, lengths, max_rows=batch_size, max_tokens=TRAIN_TOKENS):
            read = [
                vocab.reverse_complement(s) if flipped[i] else s for i, s in ((i, split.sequences[i]) for i in part)
            ]
            if augmentation.shift:
                read = [s[left : len(s) - right] if len(s) > 4 * augmentation.shift else s for s in read]
            if augmentation.mutation:
                key = (seed, epoch, number, int(part[0]))
                read = mutated(read, augmentation.mutation, key)
            parts.append((*_tensors(read, device), _target_tensor(split, part, flipped, device)))
        yield parts


def _target_tensor(split: Split, part: Rows, flipped: npt.NDArray[np.bool_], device: torch.device) -> Tensor:
    if isinstance(split.targets, list):
        longest = max(len(split.targets[i]) for i in part)
        padded = np.full((len(part), longest), IGNORED, dtype=np.int64)
        for row, i in zip(padded, part, strict=True):
            row[: len(split.targets[i])] = split.targets[i][::-1] if flipped[i] else split.targets[i]
        return torch.from_numpy(padded).to(device)
    chosen = split.targets[part]
    return torch.from_numpy(chosen if split.kind == "classes" else chosen.astype(np.float32)).to(device)


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
