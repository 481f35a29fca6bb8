"""Logistic regressions on little: the share of G and C, and the bases place by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression, Ridge

from genossm import vocab
from genossm.baselines.gapped_kmer import Kind, Targets, score

Tokens = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Features = Literal["gc", "onehot"]

MAX_PLACES = 1_000
"""Bases of a sequence that the one-hot regression reads, from its start."""
C_GRID = (0.01, 0.1, 1.0)


def gc_features(sequences: Sequence[Tokens]) -> Floats:
    """(rows, 2): the share of G and C among the bases, and its square."""
    gc = np.array([_gc(s) for s in sequences])
    return np.stack([gc, gc**2], axis=1)


def _gc(tokens: Tokens) -> float:
    bases = int(((tokens >= vocab.A) & (tokens <= vocab.T)).sum())
    return int(((tokens == vocab.C) | (tokens == vocab.G)).sum()) / bases if bases else 0.5


def onehot_features(sequences: Sequence[Tokens], length: int) -> csr_matrix:
    """(rows, 4 * length): which base stands at each place; nothing where there is none."""
    tokens = np.full((len(sequences), length), vocab.N, dtype=np.uint8)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = sequence[:length]
    digits = tokens - np.uint8(vocab.FIRST_BASE)
    kept = digits < 4
    columns = (digits + 4 * np.arange(length))[kept]
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return csr_matrix((np.ones(len(columns)), columns, indptr), shape=(len(sequences), 4 * length))


@dataclass(frozen=True)
class LinearBaseline:
    """A fitted regression; made by :func:`fit_linear`."""

    features: Features
    kind: Kind
    length: int
    C: float
    valid_score: float
    models: list[Any]
    outputs: int

    def predict(self, sequences: Sequence[Tokens]) -> Floats:
        """(rows, outputs): probabilities of classes or labels, or numbers."""
        return _predict(self.models, self.kind, _matrix(self.features, sequences, self.length), self.outputs)


def _matrix(features: Features, sequences: Sequence[Tokens], length: int) -> Any:
    return gc_features(sequences) if features == "gc" else onehot_features(sequences, length)


def _predict(models: list[Any], kind: Kind, matrix: Any, outputs: int) -> Floats:
    if kind == "classes":
        return np.asarray(models[0].predict_proba(matrix), dtype=np.float64)
    if kind == "regression":
        return np.asarray(models[0].predict(matrix), dtype=np.float64).reshape(-1, outputs)
    columns = [
        m.predict_proba(matrix)[:, 1] if hasattr(m, "predict_proba") else np.full(matrix.shape[0], m) for m in models
    ]
    return np.stack(columns, axis=1)


def _fit(kind: Kind, matrix: Any, targets: Targets, C: float) -> list[Any]:
    if kind == "regression":
        return [Ridge(alpha=1 / C).fit(matrix, targets)]
    if kind == "classes":
        return [LogisticRegression(C=C, max_iter=1000).fit(matrix, targets)]
    labels = np.asarray(targets) > 0.5
    return [
        LogisticRegression(C=C, max_iter=1000).fit(matrix, column)
        if column.any() and not column.all()
        else float(column[0])
        for column in labels.T
    ]


def fit_linear(
    features: Features,
    kind: Kind,
    train: Sequence[Tokens],
    targets: Targets,
    valid: Sequence[Tokens],
    valid_targets: Targets,
    outputs: int,
) -> LinearBaseline:
    """The regression whose penalty ranks the validation rows best; the strongest of equals."""
    length = min(MAX_PLACES, max(len(s) for s in train))
    matrix, held_out = _matrix(features, train, length), _matrix(features, valid, length)
    best: LinearBaseline | None = None
    for C in C_GRID if features == "onehot" else (1.0,):
        models = _fit(kind, matrix, targets, C)
        reached = score(kind, valid_targets, _predict(models, kind, held_out, outputs))
        if best is None or reached > best.valid_score:
            best = LinearBaseline(features, kind, length, C, reached, models, outputs)
    assert best is not None
    return best
