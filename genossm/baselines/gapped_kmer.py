"""A linear support vector machine on gapped k-mers: the classical classifier that is hardest to beat.

Features: all 6-mers, and all 6-mers with two gaps in a window of 8, as square roots of counts scaled to length 1,
one group each (Ghandi et al. 2014 for the gaps; the square root and the L2 norm tame frequent k-mers). Where the strand
says nothing both strands are counted; where every sequence has the same length, 1-, 2- and 3-mers by their position can
be added. Which of these views a task needs is read off the validation split by :func:`choose_view`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC, LinearSVR

from genossm import vocab

Tokens = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Kind = Literal["classes", "multilabel", "regression"]

K, WINDOW = 6, 8
PATTERNS = tuple((0, *rest) for rest in combinations(range(1, WINDOW), K - 1))
"""Offsets of the bases that count; the first is the 6-mer itself."""
GROUPS = ((PATTERNS[0],), PATTERNS)
POSITION_KS = (1, 2, 3)
C_GRID = (0.03, 0.1, 0.3, 1.0)
DEFAULT_C = 0.1
SMALL = 8_000
"""C is searched below so many training rows; above it hardly matters, and a fit takes a while."""
_CHUNK = 1 << 18
"""Bases whose k-mers are counted at a time."""
_VIEW_ROWS = 6_000
"""Training rows that :func:`choose_view` looks at."""
_TIE = 0.003
"""A view that asks for more must be better by so much."""


@dataclass(frozen=True)
class View:
    """What the features tell apart: the strand, and for ``length`` > 0 the position."""

    both_strands: bool
    length: int = 0

    @property
    def name(self) -> str:
        """In words."""
        return "both strands" if self.both_strands else "position by position" if self.length else "the given strand"


@dataclass(frozen=True)
class Machine:
    """A fitted machine: ``margins = features @ weight``; columns of classes are centred.

    Attributes:
        weight: (groups' columns, outputs). position_weight: (columns by position, outputs). bias: (outputs,).
    """

    view: View
    C: float
    valid_score: float
    weight: Floats
    position_weight: Floats
    bias: Floats

    def margins(self, sequences: Sequence[Tokens]) -> Floats:
        """(len(sequences), outputs)."""
        weight = np.concatenate([self.weight, self.position_weight])
        return np.concatenate([np.asarray(part @ weight) for part in _chunks(sequences, self.view)]) + self.bias


def features(sequences: Sequence[Tokens], view: View) -> csr_matrix:
    """The features, float64, sparse, (len(sequences), columns): the groups one after another, then the positions.

    Args:
        sequences: token ids of :mod:`genossm.vocab`; k-mers with N are not counted, short sequences may have none.
        view: with ``length``, bases beyond it have no position.
    """
    return csr_matrix(vstack(list(_chunks(sequences, view)), format="csr"))


def _chunks(sequences: Sequence[Tokens], view: View) -> Iterator[csr_matrix]:
    ends = np.cumsum([0, *(len(s) for s in sequences)])
    borders = np.searchsorted(ends[1:], np.arange(_CHUNK, ends[-1] + 1, _CHUNK), side="right")
    for start, end in pairwise(np.unique([0, *borders, len(sequences)]).tolist()):
        yield _count(sequences[start:end], view)


def _count(sequences: Sequence[Tokens], view: View) -> csr_matrix:
    """One block of rows."""
    gap = np.full(WINDOW, vocab.N, dtype=np.uint8)
    strands = [list(sequences)]
    if view.both_strands:
        strands.append([vocab.reverse_complement(s) for s in sequences])
    # every row is its strands one after another, a window of N behind each, so no k-mer spans two
    joined = np.concatenate([part for row in zip(*strands, strict=True) for s in row for part in (s, gap)])
    places = len(joined) - WINDOW
    rows = np.repeat(np.arange(len(sequences)), [len(strands) * (len(s) + WINDOW) for s in sequences])[:places]
    digits = joined - np.uint8(vocab.FIRST_BASE)
    columns, whole, start = [], [], 0
    for pattern in (pattern for group in GROUPS for pattern in group):
        code, complete = np.zeros(places, dtype=np.int32), np.ones(places, dtype=bool)
        for offset in pattern:
            digit = digits[offset : offset + places]
            code = code * 4 + (digit & 3)
            complete &= digit < 4
        columns.append(code + start)
        whole.append(complete)
        start += 4 ** len(pattern)
    counts = _ones(np.stack(columns, axis=1), np.stack(whole, axis=1), rows, len(sequences), start)
    counts.sum_duplicates()
    scaled = counts.sqrt()
    row_of = np.repeat(np.arange(len(sequences)), np.diff(scaled.indptr))
    group_of = scaled.indices >= 4 ** len(GROUPS[0][0])
    # the squares of the square roots are the counts, so a group's squared length is its number of k-mers
    lengths = np.bincount(2 * row_of + group_of, weights=counts.data, minlength=2 * len(sequences))
    scaled.data /= np.sqrt(lengths)[2 * row_of + group_of]
    return csr_matrix(hstack([scaled, _positions(sequences, view.length)], format="csr")) if view.length else scaled


def _ones(
    columns: npt.NDArray[np.int32], whole: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64], n: int, width: int
) -> csr_matrix:
    """A one in ``columns`` (places, patterns) where ``whole``, in the row of each place; rows are in rising order."""
    per_row = np.bincount(rows, weights=whole.sum(axis=1), minlength=n).astype(np.int64)
    indices = columns[whole]
    return csr_matrix((np.ones(len(indices)), indices, np.concatenate([[0], np.cumsum(per_row)])), shape=(n, width))


def _positions(sequences: Sequence[Tokens], length: int) -> csr_matrix:
    """The features by position: one for every k-mer at every place, each row scaled to length 1."""
    tokens = np.full((len(sequences), length), vocab.N, dtype=np.uint8)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: len(sequence)] = sequence[:length]
    digits = tokens - np.uint8(vocab.FIRST_BASE)
    columns, whole, start = [], [], 0
    for k in POSITION_KS:
        places = max(0, length - k + 1)
        code = np.zeros((len(sequences), places), dtype=np.int32)
        complete = np.ones(code.shape, dtype=bool)
        for i in range(k):
            digit = digits[:, i : i + places]
            code = code * 4 + (digit & 3)
            complete &= digit < 4
        columns.append(code + np.arange(places, dtype=np.int32) * 4**k + start)
        whole.append(complete)
        start += places * 4**k
    kept = np.concatenate(whole, axis=1)
    found = kept.sum(axis=1)
    data = np.repeat(1 / np.sqrt(np.maximum(found, 1)), found)
    indptr = np.concatenate([[0], np.cumsum(found)])
    return csr_matrix((data, np.concatenate(columns, axis=1)[kept], indptr), shape=(len(sequences), start))


def score(kind: Kind, targets: Targets, outputs: Floats) -> float:
    """How well outputs (rows, outputs) rank: mean AUROC, each class or label against the rest, or mean correlation.

    What is undefined, for a class is absent, is left out; 0.5, or 0, where all is.
    """
    if kind == "regression":
        pairs = [(t, o) for t, o in zip(np.asarray(targets).T, outputs.T, strict=True) if np.ptp(t) and np.ptp(o)]
        return float(np.mean([np.corrcoef(t, o)[0, 1] for t, o in pairs])) if pairs else 0.0
    positive = targets[:, None] == np.arange(outputs.shape[1]) if kind == "classes" else np.asarray(targets) > 0.5
    ranked = [(p, o) for p, o in zip(positive.T, outputs.T, strict=True) if p.any() and not p.all()]
    return float(np.mean([roc_auc_score(p, o) for p, o in ranked])) if ranked else 0.5


def _fit(
    kind: Kind, matrix: csr_matrix, targets: Targets, outputs: int, C: float, balanced: bool
) -> tuple[Floats, Floats]:
    """Weight (columns, outputs) and bias (outputs,)."""
    weight, bias = np.zeros((matrix.shape[1], outputs)), np.zeros(outputs)
    with warnings.catch_warnings():
        # 200 passes are enough for the margins; the last digits of the weights do not matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        if kind == "regression":
            for j, column in enumerate(np.asarray(targets, dtype=np.float64).T):
                line = LinearSVR(C=C, epsilon=0.0, loss="squared_epsilon_insensitive", max_iter=200, random_state=0)
                line.fit(matrix, column)
                weight[:, j], bias[j] = line.coef_, line.intercept_[0]
            return weight, bias
        options = {"C": C, "max_iter": 200, "random_state": 0, "class_weight": "balanced" if balanced else None}
        if kind == "multilabel":
            for j, column in enumerate((np.asarray(targets) > 0.5).T):
                if column.any() and not column.all():  # a label that is constant has nothing to learn
                    plane = LinearSVC(**options).fit(matrix, column)
                    weight[:, j], bias[j] = plane.coef_[0], plane.intercept_[0]
            return weight, bias
        plane = LinearSVC(**options).fit(matrix, targets)
    if outputs == 2:
        half = plane.coef_[0] / 2
        return np.stack([-half, half], axis=1), np.array([-0.5, 0.5]) * plane.intercept_[0]
    return plane.coef_.T, plane.intercept_


def choose_view(
    kind: Kind,
    train: Sequence[Tokens],
    targets: Targets,
    valid: Sequence[Tokens],
    valid_targets: Targets,
    outputs: int,
    *,
    views: Sequence[View],
    seed: int,
) -> tuple[View, dict[str, float]]:
    """The view that ranks the validation split best, and the score of each, see :func:`score`.

    Fitted to ``_VIEW_ROWS`` training rows at most. A later view, which asks for more, must be better by 0.003.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    rows = np.sort(rng.permutation(len(train))[:_VIEW_ROWS])
    if kind == "classes":  # a rare class must not get lost
        firsts = np.unique(targets, return_index=True)[1]
        rows = np.union1d(rows, firsts)
    some = [train[i] for i in rows]
    found: dict[str, float] = {}
    best = views[0]
    for view in views:
        weight, bias = _fit(kind, features(some, view), targets[rows], outputs, DEFAULT_C, False)
        found[view.name] = score(kind, valid_targets, np.asarray(features(valid, view) @ weight) + bias)
        if found[view.name] > found[best.name] + (_TIE if view is not best else 0):
            best = view
    return best, found


def fit_machine(
    kind: Kind,
    train: Sequence[Tokens],
    targets: Targets,
    valid: Sequence[Tokens],
    valid_targets: Targets,
    outputs: int,
    *,
    view: View,
    balanced: bool = False,
) -> Machine:
    """The machine whose C ranks the validation split best (below 8,000 training rows), or C = 0.1.

    Args:
        kind: classes (targets int64 (rows,)), multilabel (0 or 1, (rows, outputs)) or regression ((rows, outputs)).
        balanced: weigh classes by the inverse of how many rows they have.
    """
    matrix, held_out = features(train, view), features(valid, view)
    best: tuple[float, float, Floats, Floats] | None = None
    for C in C_GRID if len(train) < SMALL else (DEFAULT_C,):
        weight, bias = _fit(kind, matrix, targets, outputs, C, balanced)
        reached = score(kind, valid_targets, np.asarray(held_out @ weight) + bias)
        if best is None or reached > best[0]:
            best = reached, C, weight, bias
    assert best is not None
    edge = sum(4 ** len(pattern) for group in GROUPS for pattern in group)
    return Machine(view, best[1], best[0], best[2][:edge], best[2][edge:], best[3])
