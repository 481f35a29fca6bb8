"""What a small change of a sequence changes in what a language model says of it.

A window of the reference is read once, with the states of every layer kept at a few places. An edited copy of it is
then read only around the edit: at the borders of that region the layers are given the states of the unedited window.
That is exact where the states that *leave* the region are those of the unedited window too, for then everything outside
is as it was, layer by layer. Where they differ a little, what they change outside is known to the first order: the
window is read backward as well, once, for the derivatives of its log-likelihood by the states at all borders
(:mod:`genossm.models.sensitivity`). What is left are products of small changes. So a region is widened (``REACHES``)
until such a product is within a tolerance; at the last it is the whole window. With e the largest difference of a
leaving state, relative to its norm, the products are estimated

* for ``site`` of a masked model by e^2, as a difference must leave the region and come back; for ``distance``,
  relative, by e^2, as it is a sum of squares;
* for ``window`` by e times a quarter of the first-order term (measured: the error is several times smaller).

A window with a single edit is not read backward: its edited copy is read as a whole, which takes less.

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
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genossm import vocab
from genossm.models.edit_rows import Edit, Effect, Floats, Result, Row, Tokens
from genossm.models.heads import LanguageModel, base_log_probs
from genossm.models.likelihood import is_base
from genossm.models.mixers.attention import AttentionCore
from genossm.models.mixers.base import State
from genossm.models.sensitivity import first_order, read_with_derivatives
from genossm.models.streaming import Reading, Snapshots, join_strands, read_window, stack_of, strand_backbone

__all__ = ["Edit", "EditedWindow", "Effect"]

REACHES = (384, 896, 1792, 3584)
"""bp read again on either side of an edit, in turn, as long as that is less than ``WIDEST``; then the whole window."""
WIDEST = 0.75
"""The share of a window that is worth reading as a region."""
GRID = 256
"""Regions begin and end at multiples of this, so that neighbours share states and a window is read in few chunks."""
ROW_TOKENS = 1 << 14
"""Tokens read at a time."""
TOGETHER = 64
"""Edits whose hidden states are held together."""
TYPICAL_EVERY = 8


class EditedWindow:
    """A window, read once, whose edits are then read as far as they matter.

    Args:
        model: in eval mode; masked or causal.
        tokens: uint8, shape (length,).
        edits: those that :meth:`effects` will be asked for.
        both_strands: the mean of both; an equivariant model has one value all the same.
        tolerance: of a score, in nats (of ``distance``: relative), as the module estimates it; 0 reads whole windows.
        site_only: leave ``window`` and ``distance`` out (NaN), which take most of the time.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: Tokens,
        edits: Sequence[Edit],
        *,
        both_strands: bool,
        tolerance: float,
        site_only: bool = False,
    ) -> None:
        self._model, self._tokens, self._tolerance, self._site_only = model, tokens, tolerance, site_only
        self._causal = model.config.objective == "causal"
        self._offset = int(self._causal and model.bos)
        self._equivariant = bool(model.config.rc_equivariant)
        self._device = next(model.parameters()).device
        strands = [tokens, vocab.reverse_complement(tokens)][: 2 if both_strands or self._equivariant else 1]
        head = np.full(self._offset, vocab.BOS, dtype=np.uint8)
        self._inputs = [np.concatenate([head, strand]) for strand in strands]
        self._scored = 1 if self._equivariant else len(strands)
        self._derivatives: list[tuple[Snapshots, Snapshots]] = []
        stack = stack_of(model) if tolerance > 0 else None
        if stack is not None and any(isinstance(part, AttentionCore) for part in stack.backbone.modules()):
            stack = None  # keys are handed on by their place, which an indel moves
        self._levels = (
            0 if stack is None else sum(self._cells(reach) * GRID <= WIDEST * self._length for reach in REACHES)
        )
        places = {
            place
            for edit in edits
            for strand in range(self._scored)
            for level in range(self._levels)
            for place in self._mirrored(self._region(self._placed(edit, strand), strand, level))
        }
        inner = sorted(places - {0, self._length})
        ids = model.translate(torch.from_numpy(np.stack(self._inputs).astype(np.int64)).to(self._device))
        if stack is not None and inner and len(edits) > 1 and not site_only:
            self._reading, self._derivatives = read_with_derivatives(stack, ids, inner, self._total)
        else:
            with torch.inference_mode():
                self._reading = (
                    Reading(strand_backbone(model)(ids)[0], []) if stack is None else read_window(stack, ids, inner)
                )
        with torch.inference_mode():
            self._hidden = self._joined(self._reading.hidden)
            self._log_probs = base_log_probs(model.read_out(self._hidden)).double().cpu().numpy()
        self._own = [self._of_targets(self._log_probs[s], self._targets(s)) for s in range(self._scored)]

    def _total(self, hidden: Tensor) -> Tensor:
        """The sum of log P of all bases of the scored strands, to differentiate."""
        targets = np.stack([self._targets(strand) for strand in range(self._scored)])
        scored = is_base(targets)
        column = np.where(scored, targets - np.uint8(vocab.FIRST_BASE), 0).astype(np.int64)
        log_probs = base_log_probs(self._model.read_out(self._joined(hidden)))
        own = log_probs.gather(2, torch.from_numpy(column).to(hidden.device)[..., None])[..., 0]
        return (own * torch.from_numpy(scored).to(hidden.device)).sum()

    @property
    def _length(self) -> int:
        return len(self._inputs[0])

    def typical(self) -> float:
        """See the module; NaN for a window without bases."""
        return float(np.mean([self._typical(strand) for strand in range(self._scored)]))

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
        return [effect for at in range(0, len(edits), TOGETHER) for effect in self._effects(edits[at : at + TOGETHER])]

    def _effects(self, edits: Sequence[Edit]) -> list[Effect]:
        rows = [self._placed(edit, s) for edit in edits for s in range(self._scored)]
        changed = [] if self._site_only and not self._causal else self._changed(rows)
        site = self._sites(rows, changed) if self._causal else self._hidden_sites(rows)
        effects = []
        for i in range(len(edits)):
            parts = range(i * self._scored, (i + 1) * self._scored)
            mine = float(np.mean([site[j] for j in parts]))
            if self._site_only:
                effects.append(Effect(mine, math.nan, math.nan))
                continue
            whole = [site[j] + self._flanks(changed[j]) for j in parts]
            distances = [self._distance(changed[j]) for j in parts]
            effects.append(Effect(mine, float(np.mean(whole)), float(np.mean(distances))))
        return effects

    def _changed(self, rows: Sequence[Row]) -> list[Result]:
        """The edited rows, as far as the scores that are asked for need them."""
        if self._site_only:  # of a causal model: exact in any region, for nothing comes back
            return self._settled(rows, lambda result: True)
        if not self._derivatives:
            return self._settled(rows, lambda result: True, first=self._levels)
        return self._settled(rows, lambda r: max(r.leaving, abs(r.outside) / 4) * r.leaving <= self._tolerance)

    # ---- where

    def _placed(self, edit: Edit, strand: int) -> Row:
        """An edit among the inputs of a strand; the region is still to be chosen."""
        start, tokens = edit.start, edit.tokens
        if strand:
            start, tokens = len(self._tokens) - edit.end, vocab.reverse_complement(edit.tokens)
        return Row(strand, 0, self._length, start + self._offset, edit.end - edit.start, tokens)

    def _region(self, row: Row, strand: int, level: int) -> Row:
        """The row, cut to the region of a level; the last is all that an edit can change."""
        if not self._levels or (level == self._levels and not self._causal):
            return row
        reach = self._length if level == self._levels else REACHES[level]
        first = (row.at - (1 if self._causal else reach)) // GRID
        cells = self._cells(reach) - (-row.k // GRID)
        return Row(strand, max(0, first * GRID), min((first + cells) * GRID, self._length), row.at, row.k, row.tokens)

    def _cells(self, reach: int) -> int:
        """Cells of the grid that a region of an insertion takes."""
        return 1 - (-reach * (1 if self._causal else 2) // GRID)

    def _mirrored(self, row: Row) -> list[int]:
        """Where states are needed for a row, on either strand."""
        ends = [row.start, row.end]
        return ends if not self._equivariant else [*ends, *(self._length - end for end in ends)]

    # ---- reading

    def _settled(self, rows: Sequence[Row], enough: Callable[[Result], bool], first: int = 0) -> list[Result]:
        """Each row read in a region so wide that it is ``enough``, or as a whole; from level ``first`` on."""
        found: dict[int, Result] = {}
        pending = list(range(len(rows)))
        for level in range(first, self._levels + 1):
            placed = {i: self._region(rows[i], rows[i].strand, level) for i in pending}
            for i, result in self._read(placed).items():
                if level == self._levels or enough(result):
                    found[i] = result
            pending = [i for i in pending if i not in found]
        return [found[i] for i in range(len(rows))]

    def _read(self, rows: dict[int, Row]) -> dict[int, Result]:
        """Rows of equal length go together; no result depends on which."""
        groups: dict[tuple[int, bool], list[int]] = {}
        for i, row in rows.items():
            groups.setdefault((row.length, row.end - row.start == self._length), []).append(i)
        found: dict[int, Result] = {}
        for (length, _), members in groups.items():
            size = max(1, ROW_TOKENS // length // (2 if self._equivariant else 1))
            for at in range(0, len(members), size):
                part = members[at : at + size]
                found.update(zip(part, self._read_together([rows[i] for i in part]), strict=True))
        return found

    @torch.inference_mode()
    def _read_together(self, rows: list[Row]) -> list[Result]:
        tracks = [*rows, *(self._other_strand(row) for row in rows)] if self._equivariant else rows
        texts = np.stack([self._text(row) for row in tracks]).astype(np.int64)
        ids = self._model.translate(torch.from_numpy(texts).to(self._device))
        whole = rows[0].end - rows[0].start == self._length
        state = None if whole or not self._levels else self._entering(tracks)
        backbone = strand_backbone(self._model)
        hidden, states = backbone(ids, state=state)
        leaving, outside = ([0.0] * len(tracks),) * 2 if state is None else self._leaving(tracks, states)
        if self._equivariant:
            leaving = [max(pair) for pair in zip(leaving[: len(rows)], leaving[len(rows) :], strict=True)]
            outside = [sum(pair) for pair in zip(outside[: len(rows)], outside[len(rows) :], strict=True)]
            hidden = torch.cat([self._joined(hidden[i :: len(rows)]) for i in range(len(rows))])
        log_probs = base_log_probs(self._model.read_out(hidden)).double().cpu().numpy()
        return [Result(*parts) for parts in zip(rows, log_probs, hidden, leaving, outside, strict=True)]

    def _joined(self, hidden: Tensor) -> Tensor:
        """Hidden states of the scored strands, from those of all strands (strands, n, d_model)."""
        if not self._equivariant:
            return hidden
        return join_strands(self._model, hidden[:1], hidden[1:].flip(1))

    def _text(self, row: Row) -> Tokens:
        inputs = self._inputs[row.strand]
        return np.concatenate([inputs[row.start : row.at], row.tokens, inputs[row.at + row.k : row.end]])

    def _other_strand(self, row: Row) -> Row:
        n = self._length
        tokens = vocab.reverse_complement(row.tokens)
        return Row(1, n - row.end, n - row.start, n - row.at - row.k, row.k, tokens)

    def _entering(self, rows: list[Row]) -> list[State | tuple[State | None, State | None]]:
        """The states of the unedited window at the borders, one entry a layer."""
        states: list[State | tuple[State | None, State | None]] = []
        for right, left in self._reading.states:
            entering = self._of_rows(rows, right, "start")
            states.append((entering, self._of_rows(rows, left, "end")) if left else entering)
        return states

    def _of_rows(self, rows: list[Row], snapshots: Snapshots, border: Literal["start", "end"]) -> State:
        """What was kept of the unedited window at a border of each row; zero at the ends of the window."""
        like = next(iter(snapshots.values()))
        columns = []
        for row in rows:
            place = row.start if border == "start" else row.end
            known = snapshots.get(place) if 0 < place < self._length else None
            columns.append(
                tuple(part.new_zeros(1, *part.shape[1:]) for part in like)
                if known is None
                else tuple(part[row.strand, None] for part in known)
            )
        return tuple(torch.cat(parts) for parts in zip(*columns, strict=True))

    def _leaving(self, rows: list[Row], states: list[State | tuple[State, State]]) -> tuple[list[float], list[float]]:
        """Of the states that leave each region: how far they are from those of the unedited window, relative, at most;
        and what that changes outside, to the first order (0 where nobody read backward)."""
        worst, outside = np.zeros(len(rows)), np.zeros(len(rows))
        for layer, kept in enumerate(self._reading.states):
            both = states[layer] if kept[1] else (states[layer],)
            for side, got in enumerate(both):
                border: Literal["start", "end"] = "start" if side else "end"
                inside = np.array([row.start > 0 if side else row.end < self._length for row in rows])
                known = self._of_rows(rows, kept[side], border)
                change = tuple(new - old for new, old in zip(got, known, strict=True))
                for moved, old in zip(change, known, strict=True):
                    size = moved.flatten(1).norm(dim=1) / old.flatten(1).norm(dim=1).clamp(min=1e-6)
                    worst = np.where(inside, np.maximum(worst, size.cpu().numpy()), worst)
                if self._derivatives:
                    by = self._of_rows(rows, self._derivatives[layer][side], border)
                    outside += np.where(inside, first_order(by, change), 0.0)
        return worst.tolist(), outside.tolist()

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

    def _changed_own(self, result: Result) -> Floats:
        """log P of the targets of an edited row."""
        text = self._text(result.row)
        if self._causal:
            after = self._inputs[result.row.strand][result.row.end : result.row.end + 1]
            text = np.append(text[1:], after if after.size else np.uint8(vocab.PAD))
        return self._of_targets(result.log_probs, text)

    def _sites(self, rows: Sequence[Row], results: list[Result]) -> list[float]:
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

    def _hidden_sites(self, rows: Sequence[Row]) -> list[float]:
        """Masked models: the site's score, from rows with the old and the new bases hidden."""
        asked: dict[tuple[int, int, int, int], Row] = {}

        def ask(row: Row, count: int) -> tuple[int, int, int, int]:
            key = (row.strand, row.at, row.k, count)
            hidden = np.full(count, vocab.MASK, dtype=np.uint8)
            asked.setdefault(key, Row(row.strand, 0, self._length, row.at, row.k, hidden))
            return key

        queries = [
            [(ask(row, len(text)), text, sign) for text, sign in self._alleles(row) if len(text)] for row in rows
        ]
        settled = self._settled(list(asked.values()), lambda result: result.leaving**2 <= self._tolerance)
        found = dict(zip(asked, settled, strict=True))
        values = []
        for parts in queries:
            value = 0.0
            for key, text, sign in parts:
                result = found[key]
                at = result.row.at - result.row.start
                value += sign * float(self._of_targets(result.log_probs[at : at + len(text)], text).sum())
            values.append(value)
        return values

    def _alleles(self, row: Row) -> list[tuple[Tokens, int]]:
        return [(row.tokens, 1), (self._inputs[row.strand][row.at : row.at + row.k], -1)]

    def _flanks(self, result: Result) -> float:
        """The change of log P of all bases but the replaced ones, inside the region and outside it."""
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
        return float(left + right) + result.outside

    def _distance(self, result: Result) -> float:
        row, m = result.row, len(result.row.tokens)
        old = self._hidden[row.strand if not self._equivariant else 0]
        new, at = result.hidden, row.at - row.start
        kept = at + m if m == row.k else at
        left = new[:kept] - old[row.start : row.start + kept]
        right = new[at + m :] - old[row.at + row.k : row.end]
        return math.sqrt(float(left.double().square().sum() + right.double().square().sum()))
