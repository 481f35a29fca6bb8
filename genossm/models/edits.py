"""What a small change of a sequence changes in what a language model says of it.

A window of the reference is read once, with the states of every layer kept at a few places. An edited copy of it is
then read only around the edit: at the borders of that region the layers are given the states of the unedited window.
That is exact where the states that *leave* the region are those of the unedited window too, for then everything outside
is as it was, layer by layer. So the region is widened (``REACHES``) until the leaving states differ by less than a
tolerance, relative to their norm; at the last it is the whole window. What only the edited place itself is asked for
needs less: a difference must leave the region and come back, so there the tolerance is the square root.

Scores of an edit that replaces k bases by m others, natural logarithms, N never scored:

* ``site``: log P(new bases) - log P(old bases). Causal models: each base given those before it. Masked models: each
  base given the window with all k (or m) bases hidden.
* ``window``: the same over the whole window. Causal models: the difference of the two windows' log-likelihoods.
  Masked models: ``site``, plus the change of log P(base) of every other base, with nothing hidden.
* ``distance``: Euclidean distance of the hidden states of the two windows, over all bases that both have (the
  replaced ones too where k = m).
* ``typical``: the mean log P of a base of the unedited window; masked models: of every eighth base, those hidden.
  A longer allele has more bases to pay for, whatever they are: subtracting ``(m - k) * typical`` from ``site`` or
  ``window`` takes that out.

Both strands: means of the two. An equivariant model reads both at once and has one value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.models.heads import LanguageModel, base_log_probs
from genossm.models.likelihood import is_base
from genossm.models.mixers.base import State
from genossm.models.streaming import Reading, join_strands, read_window, stack_of, strand_backbone

Tokens = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

REACHES = (192, 960, 3904)
"""bp read again on either side of an edit, in turn; then the whole window."""
GRID = 64
"""Regions begin and end at multiples of this, so that neighbours share states."""
ROW_TOKENS = 1 << 14
"""Tokens read at a time."""
TYPICAL_EVERY = 8


@dataclass(frozen=True)
class Edit:
    """Bases [start, end) of a window replaced by ``tokens``, uint8."""

    start: int
    end: int
    tokens: Tokens


@dataclass(frozen=True)
class Effect:
    """The scores of an edit; see the module."""

    site: float
    window: float
    distance: float


@dataclass(frozen=True, slots=True)
class _Row:
    """Inputs [start, end) of a strand's window read again, with [at, at + k) replaced by ``tokens``."""

    strand: int
    start: int
    end: int
    at: int
    k: int
    tokens: Tokens

    @property
    def length(self) -> int:
        return self.end - self.start + len(self.tokens) - self.k


@dataclass(frozen=True)
class _Result:
    """What was read in a row: log_probs float64 (length, 4), hidden (length, width), and how much leaves the region."""

    row: _Row
    log_probs: Floats
    hidden: Tensor
    leaving: float


class EditedWindow:
    """A window, read once, whose edits are then read as far as they matter.

    Args:
        model: in eval mode; masked or causal.
        tokens: uint8, shape (length,).
        edits: those that :meth:`effects` will be asked for.
        both_strands: the mean of both; an equivariant model has one value all the same.
        tolerance: of the states that leave a region, relative; 0 reads whole windows.
    """

    def __init__(
        self, model: LanguageModel, tokens: Tokens, edits: Iterable[Edit], *, both_strands: bool, tolerance: float
    ) -> None:
        self._model, self._tokens, self._tolerance = model, tokens, tolerance
        self._causal = model.config.objective == "causal"
        self._offset = int(self._causal and model.bos)
        self._equivariant = bool(model.config.rc_equivariant)
        self._device = next(model.parameters()).device
        strands = [tokens, vocab.reverse_complement(tokens)][: 2 if both_strands or self._equivariant else 1]
        head = np.full(self._offset, vocab.BOS, dtype=np.uint8)
        self._inputs = [np.concatenate([head, strand]) for strand in strands]
        self._scored = 1 if self._equivariant else len(strands)
        stack = stack_of(model) if tolerance > 0 else None
        self._levels = len(REACHES) if stack is not None else 0
        places = {
            place
            for edit in edits
            for strand in range(self._scored)
            for level in range(self._levels)
            for place in self._mirrored(self._region(self._placed(edit, strand), strand, level))
        }
        ids = torch.from_numpy(np.stack(self._inputs).astype(np.int64)).to(self._device)
        with torch.inference_mode():
            if stack is not None:
                self._reading = read_window(stack, model.translate(ids), sorted(places - {0, self._length}))
            else:
                self._reading = Reading(strand_backbone(model)(model.translate(ids))[0], [])
            hidden = self._joined(self._reading.hidden)
            self._hidden = hidden
            self._log_probs = base_log_probs(model.read_out(hidden)).double().cpu().numpy()
        self._own = [self._of_targets(self._log_probs[s], self._targets(s)) for s in range(self._scored)]

    @property
    def _length(self) -> int:
        return len(self._inputs[0])

    def typical(self) -> float:
        """See the module; NaN for a window without bases."""
        values = [self._typical(strand) for strand in range(self._scored)]
        return float(np.mean(values))

    def _typical(self, strand: int) -> float:
        tokens = self._inputs[strand]
        if self._causal:
            own = self._own[strand][is_base(self._targets(strand))]
            return float(own.mean()) if own.size else math.nan
        hidden = is_base(tokens) & (np.arange(len(tokens)) % TYPICAL_EVERY == 0)
        if not hidden.any():
            return math.nan
        ids = torch.from_numpy(np.where(hidden, vocab.MASK, tokens).astype(np.int64))[None].to(self._device)
        with torch.inference_mode():
            log_probs = base_log_probs(self._model(ids).logits[0]).double().cpu().numpy()
        return float(self._of_targets(log_probs, tokens)[hidden].mean())

    def effects(self, edits: Sequence[Edit]) -> list[Effect]:
        """The scores of each edit."""
        rows = [self._placed(edit, s) for edit in edits for s in range(self._scored)]
        changed = self._settled(rows, self._tolerance)
        site = self._sites(rows, changed) if self._causal else self._hidden_sites(rows)
        effects = []
        for i in range(len(edits)):
            parts = range(i * self._scored, (i + 1) * self._scored)
            whole = [site[j] + self._flanks(changed[j]) for j in parts]
            distances = [self._distance(changed[j]) for j in parts]
            effects.append(
                Effect(float(np.mean([site[j] for j in parts])), float(np.mean(whole)), float(np.mean(distances)))
            )
        return effects

    # ---- where

    def _placed(self, edit: Edit, strand: int) -> _Row:
        """An edit among the inputs of a strand; the region is still to be chosen."""
        start, tokens = edit.start, edit.tokens
        if strand:
            start, tokens = len(self._tokens) - edit.end, vocab.reverse_complement(edit.tokens)
        return _Row(strand, 0, self._length, start + self._offset, edit.end - edit.start, tokens)

    def _region(self, row: _Row, strand: int, level: int) -> _Row:
        """The row, cut to the region of a level."""
        if level >= self._levels:
            return row
        reach = REACHES[level]
        before = 1 if self._causal else reach
        start = max(0, (row.at - before) // GRID * GRID)
        end = start + (row.at - start) // GRID * GRID + GRID + reach + -(-row.k // GRID) * GRID
        return _Row(strand, start, min(end, self._length), row.at, row.k, row.tokens)

    def _mirrored(self, row: _Row) -> list[int]:
        """Where states are needed for a row, on either strand."""
        ends = [row.start, row.end]
        return ends if not self._equivariant else [*ends, *(self._length - end for end in ends)]

    # ---- reading

    def _settled(self, rows: Sequence[_Row], tolerance: float) -> list[_Result]:
        """Each row read in a region so wide that what leaves it is within the tolerance."""
        found: dict[int, _Result] = {}
        pending = range(len(rows))
        for level in range(self._levels + 1):
            placed = {i: self._region(rows[i], rows[i].strand, level) for i in pending}
            for i, result in self._read(placed).items():
                if level == self._levels or result.leaving <= tolerance:
                    found[i] = result
            pending = [i for i in pending if i not in found]  # type: ignore[assignment]
        return [found[i] for i in range(len(rows))]

    def _read(self, rows: dict[int, _Row]) -> dict[int, _Result]:
        """Rows of equal length go together; no result depends on which."""
        groups: dict[tuple[int, bool], list[int]] = {}
        for i, row in rows.items():
            groups.setdefault((row.length, row.end - row.start == self._length), []).append(i)
        found: dict[int, _Result] = {}
        for (length, _), members in groups.items():
            size = max(1, ROW_TOKENS // length // (2 if self._equivariant else 1))
            for at in range(0, len(members), size):
                part = members[at : at + size]
                found.update(zip(part, self._read_together([rows[i] for i in part]), strict=True))
        return found

    @torch.inference_mode()
    def _read_together(self, rows: list[_Row]) -> list[_Result]:
        tracks = [*rows, *(self._other_strand(row) for row in rows)] if self._equivariant else rows
        texts = np.stack([self._text(row) for row in tracks]).astype(np.int64)
        ids = self._model.translate(torch.from_numpy(texts).to(self._device))
        whole = rows[0].end - rows[0].start == self._length
        state = None if whole or not self._levels else self._entering(tracks)
        backbone = strand_backbone(self._model)
        hidden, states = backbone(ids, state=state)
        leaving = [0.0] * len(tracks) if state is None else self._leaving(tracks, states)
        if self._equivariant:
            leaving = [max(pair) for pair in zip(leaving[: len(rows)], leaving[len(rows) :], strict=True)]
            hidden = torch.cat([self._joined(hidden[i :: len(rows)]) for i in range(len(rows))])
        log_probs = base_log_probs(self._model.read_out(hidden)).double().cpu().numpy()
        return [_Result(*parts) for parts in zip(rows, log_probs, hidden, leaving, strict=True)]

    def _joined(self, hidden: Tensor) -> Tensor:
        """Hidden states of the scored strands, from those of all strands (strands, n, d_model)."""
        if not self._equivariant:
            return hidden
        return join_strands(self._model, hidden[:1], hidden[1:].flip(1))

    def _text(self, row: _Row) -> Tokens:
        inputs = self._inputs[row.strand]
        return np.concatenate([inputs[row.start : row.at], row.tokens, inputs[row.at + row.k : row.end]])

    def _other_strand(self, row: _Row) -> _Row:
        n = self._length
        tokens = vocab.reverse_complement(row.tokens)
        return _Row(1, n - row.end, n - row.start, n - row.at - row.k, row.k, tokens)

    def _entering(self, rows: list[_Row]) -> list[State | tuple[State | None, State | None]]:
        """The states of the unedited window at the borders, one entry a layer."""
        return [
            (self._states(rows, layer, 0), self._states(rows, layer, 1)) if snapshots[1] else
            self._states(rows, layer, 0)
            for layer, snapshots in enumerate(self._reading.states)
        ]  # fmt: skip

    def _states(self, rows: list[_Row], layer: int, side: int, *, leaving: bool = False) -> State:
        """States of the unedited window: of the sweep forward (side 0) or backward, that enter or leave each row."""
        snapshots = self._reading.states[layer][side]
        like = next(iter(snapshots.values()))
        at_end = (side == 1) != leaving
        columns = []
        for row in rows:
            place = row.end if at_end else row.start
            known = snapshots.get(place) if 0 < place < self._length else None
            columns.append(
                tuple(part.new_zeros(1, *part.shape[1:]) for part in like)
                if known is None
                else tuple(part[row.strand, None] for part in known)
            )
        return tuple(torch.cat(parts) for parts in zip(*columns, strict=True))

    def _leaving(self, rows: list[_Row], states: list[State | tuple[State, State]]) -> list[float]:
        """How far the states that leave each region are from those of the unedited window, relative, at most."""
        worst = [0.0] * len(rows)
        for layer, (_, backward) in enumerate(self._reading.states):
            both = states[layer] if backward else (states[layer],)
            for side, got in enumerate(both):
                want = self._states(rows, layer, side, leaving=True)
                for value, known in zip(got, want, strict=True):
                    change = (value - known).flatten(1).norm(dim=1) / known.flatten(1).norm(dim=1).clamp(min=1e-6)
                    for i, (row, amount) in enumerate(zip(rows, change.tolist(), strict=True)):
                        at_edge = row.start == 0 if side else row.end == self._length
                        worst[i] = worst[i] if at_edge else max(worst[i], amount)
        return worst

    # ---- scores

    def _targets(self, strand: int) -> Tokens:
        """What every input predicts: itself, or for causal models the next token."""
        inputs = self._inputs[strand]
        return np.append(inputs[1:], np.uint8(vocab.PAD)) if self._causal else inputs

    @staticmethod
    def _of_targets(log_probs: Floats, targets: Tokens) -> Floats:
        """log P of each target, float64 (n,); zero where it is no base."""
        scored = is_base(targets)
        column = np.where(scored, targets - np.uint8(vocab.FIRST_BASE), 0)
        return np.where(scored, log_probs[np.arange(len(targets)), column], 0.0)

    def _changed_own(self, result: _Result) -> Floats:
        """log P of the targets of an edited row."""
        text = self._text(result.row)
        if self._causal:
            after = self._inputs[result.row.strand][result.row.end : result.row.end + 1]
            text = np.append(text[1:], after if after.size else np.uint8(vocab.PAD))
        return self._of_targets(result.log_probs, text)

    def _sites(self, rows: Sequence[_Row], results: list[_Result]) -> list[float]:
        """Causal models: the site's score, from the edited rows."""
        values = []
        for row, result in zip(rows, results, strict=True):
            first = row.at - 1
            new = self._changed_own(result)
            at = first - result.row.start
            value = new[max(at, 0) : max(at + len(row.tokens), 0)].sum()
            value -= self._own[row.strand][max(first, 0) : max(first + row.k, 0)].sum()
            if first < 0:  # no token stands before the first base, and each of the four is as likely
                old = self._inputs[row.strand][: row.k]
                value -= math.log(4) * (int(is_base(row.tokens[:1]).sum()) - int(is_base(old[:1]).sum()))
            values.append(float(value))
        return values

    def _hidden_sites(self, rows: Sequence[_Row]) -> list[float]:
        """Masked models: the site's score, from rows with the old and the new bases hidden."""
        asked: dict[tuple[int, int, int, int], _Row] = {}

        def ask(row: _Row, count: int) -> tuple[int, int, int, int]:
            key = (row.strand, row.at, row.k, count)
            hidden = np.full(count, vocab.MASK, dtype=np.uint8)
            asked.setdefault(key, _Row(row.strand, 0, self._length, row.at, row.k, hidden))
            return key

        queries = [
            [(ask(row, len(text)), text, sign) for text, sign in self._alleles(row) if len(text)] for row in rows
        ]
        found = dict(zip(asked, self._settled(list(asked.values()), math.sqrt(self._tolerance)), strict=True))
        values = []
        for parts in queries:
            value = 0.0
            for key, text, sign in parts:
                result = found[key]
                at = result.row.at - result.row.start
                value += sign * float(self._of_targets(result.log_probs[at : at + len(text)], text).sum())
            values.append(value)
        return values

    def _alleles(self, row: _Row) -> list[tuple[Tokens, int]]:
        return [(row.tokens, 1), (self._inputs[row.strand][row.at : row.at + row.k], -1)]

    def _flanks(self, result: _Result) -> float:
        """The change of log P of all bases but the replaced ones."""
        row = result.row
        site = row.at - int(self._causal)
        new, old = self._changed_own(result), self._own[row.strand]
        at, m = max(site - row.start, 0), len(row.tokens) + min(site, 0)
        k = row.k + min(site, 0)
        left = new[:at].sum() - old[row.start : row.start + at].sum()
        right = new[at + max(m, 0) :].sum() - old[row.start + at + max(k, 0) : row.end].sum()
        if site < 0:  # which base comes first, without a token before it, may have changed
            inputs = self._inputs[row.strand]
            first = int(is_base(inputs[row.k : row.k + 1]).sum()) if not len(row.tokens) else 0
            was_first = int(is_base(inputs[:1]).sum()) if not row.k else 0
            right -= math.log(4) * (first - was_first)
        return float(left + right)

    def _distance(self, result: _Result) -> float:
        row, m = result.row, len(result.row.tokens)
        old = self._hidden[row.strand if not self._equivariant else 0]
        new, at = result.hidden, row.at - row.start
        kept = at + m if m == row.k else at
        left = new[:kept] - old[row.start : row.start + kept]
        right = new[at + m :] - old[row.at + row.k : row.end]
        return math.sqrt(float(left.double().square().sum() + right.double().square().sum()))
