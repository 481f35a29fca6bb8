"""Count tables: the plainest language models of DNA, and what every validation loss is held against.

A table gives the probability of a base from the bases near it. :class:`MarkovBaseline` sees the k bases before it, as a
causal model does; :class:`FlankBaseline` sees the k bases on either side, as a masked model does, *in the same masked
input*: a neighbour that is hidden from the model ([MASK], N, the end of the sequence) is hidden from the table too,
and everything beyond it on that side is then left out. So a context has a shape (l, r): l bases on the left and r on
the right, l, r <= k.

Back-off is interpolated: with n counts of a context, c of them before/around the base x,

    p(x | l, r) = (c + a * p(x | back(l, r))) / (n + a),      p(x | 0, 0) = (c + a/4) / (n + a)

(the predictive rule of a hierarchical Dirichlet model, MacKay and Peto 1995), where back drops the farthest base: one
on the longer side, or one on both when the sides are equal. The strength a, for each k, and the best k are chosen on a
share of the training sequence that the tables have not seen by then, never on the bases that are scored.

Only contexts that will be asked are counted, so memory is bound by the number of questions, whatever k and the genome.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from genossm import vocab

UNIFORM = float(np.log(4))
"""Loss of a model that knows nothing, in nats per base."""
STRENGTHS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
"""What the strength of the back-off is chosen from."""

_HIDDEN = 4
_CODE: npt.NDArray[np.uint8] = np.full(256, _HIDDEN, dtype=np.uint8)
_CODE[list(vocab.BASES)] = range(4)
_COMPLEMENT = np.array([3, 2, 1, 0, _HIDDEN], dtype=np.uint8)
_CHUNK = 1 << 20
_DENSE = 8
"""Contexts of up to so many bases are all counted; longer ones only when they are asked."""
_DIRECT = 10
"""Contexts of up to so many bases are found by a table of 4^bases, longer ones by bisection."""

Tokens = npt.NDArray[np.uint8]
Shape = tuple[int, int]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Questions:
    """The bases to predict, and what is seen around them.

    Attributes:
        left, right: codes 0..3 of the neighbours, nearest first, 4 where hidden; uint8, (n, k left) and (n, k right).
        answers: the bases themselves, codes 0..3; uint8, shape (n,).
    """

    left: Codes
    right: Codes
    answers: Codes

    def __len__(self) -> int:
        return len(self.answers)

    def reach(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """How many neighbours are seen on the left and on the right before the first hidden one; int64, (n,) each."""
        return _visible(self.left), _visible(self.right)


def _visible(codes: Codes) -> npt.NDArray[np.int64]:
    return np.cumprod(codes != _HIDDEN, axis=1, dtype=np.int64).sum(axis=1)


@dataclass(frozen=True)
class BaselineLosses:
    """What the tables reach on the scored bases, in nats per base.

    Attributes:
        by_k: k to mean loss on the scored bases, for k = 0 .. max_k.
        tuning_by_k: the same on the tuning share, by which ``best_k`` was chosen.
        strength_by_k: the strength of the back-off that was chosen for each k.
        best_k: the k with the lowest tuning loss.
        targets: bases scored. tuning_targets: bases of the tuning share.
    """

    by_k: dict[int, float]
    tuning_by_k: dict[int, float]
    strength_by_k: dict[int, float]
    best_k: int
    targets: int
    tuning_targets: int

    @property
    def best(self) -> float:
        """Loss of the best k on the scored bases."""
        return self.by_k[self.best_k]


@dataclass
class _Table:
    """Counts of one context shape.

    Attributes:
        shape: (l, r). rows: the questions that ask it, increasing. slots: the counts row of each of ``rows``.
        known: sorted context codes that are counted; None when all 4^(l+r) are.
        lookup: context code to counts row, -1 where not counted; None when the code is the row, or when bisected.
        counts: int64, shape (contexts, 4); in a table with a ``margin``, only the bases that the margin cannot count.
        children: the tables of the next longer shapes.
    """

    shape: Shape
    rows: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64] | None
    lookup: npt.NDArray[np.int32] | None
    counts: npt.NDArray[np.int64]
    children: list[_Table] = field(default_factory=list)

    @property
    def margin(self) -> _Table | None:
        """A child that counts all contexts: this table is its sums, but for bases whose longer context has a gap."""
        return next((child for child in self.children if child.known is None), None)

    def totals(self) -> npt.NDArray[np.int64]:
        """Counts of every context and base: int64, shape (contexts, 4)."""
        if self.margin is None:
            return self.counts
        (l, r), (longer_l, longer_r) = self.shape, self.margin.shape
        # In a code the left neighbours are the low digits, then the right ones; the farthest digit of a side is last.
        sums = self.margin.totals().reshape(4 ** (longer_r - r), 4**r, 4 ** (longer_l - l), 4**l, 4).sum(axis=(0, 2))
        return self.counts + sums.reshape(-1, 4)

    def find(self, contexts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The counts row of each context code, -1 where it is not counted."""
        if self.known is None:
            return contexts
        if self.lookup is not None:
            return self.lookup[contexts].astype(np.int64)
        near = np.minimum(np.searchsorted(self.known, contexts), len(self.known) - 1)
        return np.where(self.known[near] == contexts, near, -1)


class CountBaseline:
    """Tables of every context shape that the questions ask for; see the module's text.

    Args:
        questions: all that will ever be asked of the tables.
    """

    left_sided, right_sided = True, True

    def __init__(self, questions: Questions) -> None:
        self.questions = questions
        self.max_k = questions.left.shape[1]
        self._reach = questions.reach()
        self._left, self._right = _prefix_codes(questions.left), _prefix_codes(questions.right)
        self._root = self._build((0, 0))

    @classmethod
    def ask(
        cls, input_ids: npt.NDArray[np.integer], tokens: Tokens, targets: npt.NDArray[np.bool_], k: int
    ) -> Questions:
        """The questions of a batch.

        Args:
            input_ids: what the model sees, shape (batch, seqlen).
            tokens: what is there, uint8, same shape.
            targets: the bases to predict, bool, same shape; N is never one of them.
            k: neighbours to look at, on each side that this baseline sees.
        """
        seen = _CODE[input_ids]
        padded = np.pad(seen, ((0, 0), (k, k)), constant_values=_HIDDEN)
        row, col = np.nonzero(targets)
        far = np.arange(1, k + 1)
        none = np.empty((len(row), 0), dtype=np.uint8)
        left = padded[row[:, None], col[:, None] + k - far] if cls.left_sided else none
        right = padded[row[:, None], col[:, None] + k + far] if cls.right_sided else none
        return Questions(left, right, _CODE[tokens[row, col]])

    def add(self, tokens: Tokens, *, both_strands: bool) -> None:
        """Count a stretch of training sequence, token ids, uint8, shape (n,); N and special tokens are gaps."""
        for codes in _strands(_CODE[tokens], both_strands):
            for start in range(0, len(codes), _CHUNK):
                self._count(codes, start, min(start + _CHUNK, len(codes)))

    def losses(self, strength: float) -> npt.NDArray[np.float64]:
        """-log p of each answer in nats, for every k: float64, shape (max_k + 1, questions)."""
        probabilities = np.full((self.max_k + 1, len(self.questions)), np.nan)
        self._fill(self._root, np.full(len(self.questions), 0.25), strength, probabilities)
        return -np.log(probabilities)

    # A table is asked by the questions whose chain of contexts passes through its shape: with equal sides, those that
    # see as much on both; else those whose shorter side ends there, at a hidden neighbour.
    def _rows(self, shape: Shape) -> npt.NDArray[np.int64]:
        (l, r), (seen_left, seen_right) = shape, self._reach
        if not self.right_sided:
            return np.flatnonzero(seen_left >= l)
        left = seen_left == l if l < r else seen_left >= l
        right = seen_right == r if r < l else seen_right >= r
        return np.flatnonzero(left & right)

    def _build(self, shape: Shape) -> _Table:
        l, r = shape
        rows = self._rows(shape)
        contexts = self._left[rows, l] | (self._right[rows, r] << (2 * l))
        known = lookup = None
        slots, size = contexts, 4 ** (l + r)
        if l + r > _DENSE:
            known, slots = np.unique(contexts, return_inverse=True)
            size = len(known)
            if l + r <= _DIRECT:
                lookup = np.full(4 ** (l + r), -1, dtype=np.int32)
                lookup[known] = np.arange(size)
        table = _Table(shape, rows, slots, known, lookup, np.zeros((size, 4), dtype=np.int64))
        longer = [(l + 1, r)] if l > r else [(l, r + 1)] if r > l else [(l + 1, l), (l, l + 1), (l + 1, l + 1)]
        for child in longer:
            allowed = max(child) <= self.max_k and (self.right_sided or child[1] == 0)
            if allowed and len(self._rows(child)):
                table.children.append(self._build(child))
        return table

    def _count(self, codes: Codes, start: int, end: int) -> None:
        """Count the bases [start, end) of a strand in every table."""
        k = self.max_k
        before, after = codes[max(0, start - k) : start], codes[end : end + k]
        gap = np.full(k, _HIDDEN, dtype=np.uint8)
        around = np.concatenate([gap[len(before) :], before, codes[start:end], after, gap[len(after) :]])
        centre = around[k : k + end - start]
        size = end - start
        sides = []
        for step in (-1, 1) if self.right_sided else (-1,):
            neighbours = [around[k + step * d : k + step * d + size] for d in range(1, k + 1)]
            sides.append(_Side(neighbours, centre == _HIDDEN))
        self._count_table(self._root, sides, centre.astype(np.int64), None)

    def _count_table(
        self, table: _Table, sides: list[_Side], centre: npt.NDArray[np.int64], hits: npt.NDArray[np.int64] | None
    ) -> None:
        """Count a table and those below it; ``hits``: the only bases whose shorter context is counted (None: all)."""
        gaps = _gaps(table.shape, sides, hits)
        if table.known is None:
            counted = ~gaps if table.margin is None else ~gaps & _gaps(table.margin.shape, sides, None)
            where = slice(None) if counted.all() else np.flatnonzero(counted)
            rows = _contexts(table.shape, sides, where)
            below, bases = None, centre[where]
        else:
            found = table.find(_contexts(table.shape, sides, slice(None) if hits is None else hits))
            found[gaps] = -1
            kept = np.flatnonzero(found >= 0)
            rows = found[kept]
            below = kept if hits is None else hits[kept]
            bases = centre[below]
        if len(rows):
            table.counts += np.bincount(rows * 4 + bases, minlength=table.counts.size).reshape(-1, 4)
        for child in table.children:
            self._count_table(child, sides, centre, below)

    def _fill(
        self, table: _Table, shorter: npt.NDArray[np.float64], strength: float, out: npt.NDArray[np.float64]
    ) -> None:
        """Put p(answer) of this table's rows into ``out`` where it is the longest context that k allows, then go on."""
        totals = table.totals()
        hit = totals[table.slots, self.questions.answers[table.rows]]
        p = (hit + strength * shorter) / (totals.sum(axis=1)[table.slots] + strength)
        l, r = table.shape
        seen_left, seen_right = (reach[table.rows] for reach in self._reach)
        for k in range(self.max_k + 1):
            final = (np.minimum(seen_left, k) == l) & (np.minimum(seen_right, k) == r)
            out[k, table.rows[final]] = p[final]
        for child in table.children:
            self._fill(child, p[np.searchsorted(table.rows, child.rows)], strength, out)


class MarkovBaseline(CountBaseline):
    """Order-k Markov: the k bases before a base, for causal models."""

    right_sided = False


class FlankBaseline(CountBaseline):
    """The k bases on either side of a base, for masked models."""


class _Side:
    """The neighbours of a chunk's bases on one side: the code of the nearest d, and whether a gap is among them."""

    def __init__(self, neighbours: list[Codes], hidden: npt.NDArray[np.bool_]) -> None:
        self.codes = [np.zeros(len(hidden), dtype=np.int32)]
        self.gaps = [hidden]
        for d, near in enumerate(neighbours):
            self.codes.append(self.codes[-1] | (near.astype(np.int32) & 3) << (2 * d))
            self.gaps.append(self.gaps[-1] | (near == _HIDDEN))


def _gaps(shape: Shape, sides: list[_Side], hits: npt.NDArray[np.int64] | None) -> npt.NDArray[np.bool_]:
    """Whether a gap is among a base and its context, for all bases of a chunk or those of ``hits``."""
    where = slice(None) if hits is None else hits
    return np.logical_or.reduce([side.gaps[length][where] for side, length in zip(sides, shape, strict=False)])


def _contexts(shape: Shape, sides: list[_Side], where: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The context codes of the bases of a chunk at ``where``: the left neighbours are the low digits."""
    contexts = sides[0].codes[shape[0]][where].astype(np.int64)
    if shape[1]:
        contexts |= sides[1].codes[shape[1]][where].astype(np.int64) << (2 * shape[0])
    return contexts


def _prefix_codes(neighbours: Codes) -> npt.NDArray[np.int64]:
    """Code of the nearest d neighbours for every d: int64, shape (n, k + 1); nonsense beyond a hidden one."""
    digits = (neighbours.astype(np.int64) & 3) << (2 * np.arange(neighbours.shape[1]))
    return np.concatenate([np.zeros((len(neighbours), 1), dtype=np.int64), np.cumsum(digits, axis=1)], axis=1)


def _strands(codes: Codes, both: bool) -> Iterator[Codes]:
    yield codes
    if both:
        yield _COMPLEMENT[codes[::-1]]


def concatenate(parts: Iterable[Questions]) -> Questions:
    """Several sets of questions as one, in order."""
    listed = list(parts)
    return Questions(*(np.concatenate([getattr(p, name) for p in listed]) for name in ("left", "right", "answers")))


def score_baseline(
    kind: type[CountBaseline],
    scored: Questions,
    tuning: Questions,
    train: Iterable[Tokens],
    tuning_stretches: Iterable[Tokens],
    *,
    both_strands: bool,
) -> BaselineLosses:
    """Fit the tables, choose strength and k on the tuning share, add that share, and score.

    Args:
        kind: MarkovBaseline or FlankBaseline.
        scored, tuning: the questions to report, and those to choose by, from the tuning share.
        train: token ids of the training sequence without the tuning share, stretch by stretch.
        tuning_stretches: token ids of the tuning share.
        both_strands: count the reverse complement too, as a model does that is trained on both strands.
    """
    tables = kind(concatenate([scored, tuning]))
    for stretch in train:
        tables.add(stretch, both_strands=both_strands)
    tried = {a: tables.losses(a)[:, len(scored) :].mean(axis=1) for a in STRENGTHS}
    chosen = {k: min(STRENGTHS, key=lambda a: tried[a][k]) for k in range(tables.max_k + 1)}
    tuning_by_k = {k: float(tried[a][k]) for k, a in chosen.items()}
    for stretch in tuning_stretches:
        tables.add(stretch, both_strands=both_strands)
    final = {a: tables.losses(a)[:, : len(scored)].mean(axis=1) for a in set(chosen.values())}
    return BaselineLosses(
        by_k={k: float(final[a][k]) for k, a in chosen.items()},
        tuning_by_k=tuning_by_k,
        strength_by_k=chosen,
        best_k=min(tuning_by_k, key=lambda k: tuning_by_k[k]),
        targets=len(scored),
        tuning_targets=len(tuning),
    )
