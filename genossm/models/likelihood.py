"""What a model says of one sequence: its log-likelihood, or its class.

The unit of computation is one record: the shape of every product follows from its length alone, so a result has the
same bits whatever was scored before or beside it. Results stay on the model's device, unread, so several records can
be on their way at once.

Log-likelihoods are natural, over the four bases, summed over the bases of the record; N is context, never scored.

* Causal models: log P(bases), exact. The sequence follows [BOS]; models that were trained without it (published ones)
  are given no token before the first, whose probability is then 1/4. A long record goes through in chunks with the
  state carried, which changes nothing but the memory.
* Masked models: the pseudo-log-likelihood, sum of log P(base | all unmasked bases), in ``passes`` interleaved passes:
  pass p hides the bases at i with i mod passes = p, so each base is scored once, with 1 - 1/passes of the others in
  view. A record of more than ``ONE_PASS`` bp goes through layer by layer (:mod:`genossm.models.sweeps`): exact, in
  bounded memory.
* A model that can only read whole sequences (attention, long convolutions) scores a long record in pieces; so does any
  masked model that is asked to, by ``window``. The pieces are of nearly equal length and overlap by ``overlap``; every
  base is scored in one of them, half an overlap or more from its ends.
* Both strands: the mean of the two strands' values. A reverse-complement equivariant model gives one value for
  both (its passes hide the same bases on either strand), so it reads one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.errors import GenoSSMError
from genossm.models.course import Bookmark, Course
from genossm.models.heads import LanguageModel, SequenceClassifier, base_log_probs
from genossm.models.mixers.base import State
from genossm.models.streaming import Stack, stack_of
from genossm.models.sweeps import MEMORY, Budget, Move, scaled, stream_logits

Tokens = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.integer]
Track = npt.NDArray[np.float32]

ROW_TOKENS = 1 << 16
"""Tokens of one forward pass over several rows of a record; a longer row goes alone."""
ONE_PASS = 131_072
"""bp that any model reads at once."""


@dataclass(frozen=True)
class Reading:
    """How records are read.

    Attributes:
        passes: of a masked model, at least 1; a causal model needs none.
        both_strands: the mean of both; an equivariant model reads one all the same.
        window: bp read at a time where a record is cut into pieces; None cuts only for models that must, at ONE_PASS.
        overlap: bp that neighbouring pieces share, less than ``window``.
        memory: bytes of activations kept in memory while a long record goes through a masked model.
    """

    passes: int = 8
    both_strands: bool = True
    window: int | None = None
    overlap: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse what reads nothing.

        Raises:
            GenoSSMError: it names the field.
        """
        if self.passes < 1 or (self.window is not None and self.window < 1):
            raise GenoSSMError(f"passes {self.passes}, window {self.window}: at least 1 each")
        if self.overlap < 0 or (self.overlap and (self.window is None or self.overlap >= self.window)):
            raise GenoSSMError(f"overlap {self.overlap:,}: an overlap needs a larger window")


@dataclass(frozen=True)
class _Piece:
    """A model reads [start, end) of a strand; what it says of [first, last) is taken."""

    start: int
    end: int
    first: int
    last: int

    def mirrored(self, length: int) -> _Piece:
        """The same bases on the other strand."""
        return _Piece(length - self.end, length - self.start, length - self.last, length - self.first)

    @property
    def core(self) -> npt.NDArray[np.bool_]:
        """True where a base of the piece is scored."""
        places = np.arange(self.start, self.end)
        return (places >= self.first) & (places < self.last)


def is_base(tokens: Tokens) -> npt.NDArray[np.bool_]:
    """True where a token is A, C, G or T."""
    return (tokens >= vocab.FIRST_BASE) & (tokens < vocab.FIRST_BASE + 4)


def _strands(tokens: Tokens, both: bool) -> list[Tokens]:
    return [tokens, vocab.reverse_complement(tokens)] if both else [tokens]


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


class _Sum:
    """Log-probabilities added up on the device, in float64; where a track is wanted, they are read base by base."""

    def __init__(self, model: LanguageModel, length: int, strands: int, track: Track | None) -> None:
        self.total = torch.zeros((), dtype=torch.float64, device=_device(model))
        self._length, self._strands, self._track = length, strands, track

    def add(self, logits: Tensor, at: Indices, bases: Tokens, places: Indices, strand: int) -> None:
        """The log-probabilities of ``bases``, which stand at ``places`` of a strand.

        Args:
            logits: (batch, seqlen, 16). at: flat positions in its first two dimensions.
        """
        where = torch.from_numpy(at).to(logits.device)
        target = torch.from_numpy(bases.astype(np.int64) - vocab.FIRST_BASE).to(logits.device)
        log_probs = base_log_probs(logits.flatten(0, 1)[where]).gather(1, target[:, None])
        self.total += log_probs.double().sum() / self._strands
        if self._track is not None:
            self._mark(log_probs[:, 0].float().cpu().numpy(), places, strand)

    def add_uniform(self, bases: Tokens, places: Indices, strand: int) -> None:
        """Bases of which nothing is known: each of the four is as likely."""
        places = places[is_base(bases)]
        self.total -= math.log(4) * len(places) / self._strands
        if self._track is not None:
            self._mark(np.full(len(places), -math.log(4), dtype=np.float32), places, strand)

    def _mark(self, values: Track, places: Indices, strand: int) -> None:
        assert self._track is not None
        self._track[self._length - 1 - places if strand else places] += values / self._strands


Marks = Iterator[tuple[int, list[State] | None]]
"""Places within a part that it may be gone on from: tokens done, and the state after them."""


@dataclass(frozen=True)
class _Part:
    """What is read of a record without a break: how much of the whole it is, and what reads it.

    ``read`` is given the tokens that are done already, the state after them, and what is told of every share of it.
    """

    share: float
    read: Callable[[int, list[State] | None, Move], Marks]


def _masked_piece(
    model: LanguageModel,
    strands: list[Tokens],
    passes: int,
    into: _Sum,
    piece: _Piece,
    place: int,
    state: list[State] | None,
    move: Move,
) -> Marks:
    """The pseudo-log-likelihood of a piece, all passes over all strands in few products."""
    if not is_base(strands[0][piece.first : piece.last]).any():
        return iter(())
    pieces = [piece, piece.mirrored(len(strands[0]))][: len(strands)]
    texts = np.stack([text[part.start : part.end] for text, part in zip(strands, pieces, strict=True)])
    length = texts.shape[1]
    passes = min(passes, length)  # more hide nothing
    views = np.repeat(texts, passes, axis=0)
    turn = np.tile(np.arange(passes), len(strands))[:, None]
    hidden = is_base(views) & (np.arange(length) % passes == turn)
    scored = hidden & np.repeat(np.stack([part.core for part in pieces]), passes, axis=0)
    size = max(1, ROW_TOKENS // length)
    for first in range(0, len(views), size):
        rows = views[first : first + size]
        ids = np.where(hidden[first : first + size], vocab.MASK, rows).astype(np.int64)
        logits = model(torch.from_numpy(ids).to(into.total.device)).logits
        for strand, part in enumerate(pieces):
            mine = scored[first : first + size] & (np.arange(first, first + len(rows)) // passes == strand)[:, None]
            if mine.any():
                row, column = np.nonzero(mine)
                into.add(logits, row * length + column, rows[row, column], column + part.start, strand)
        move(len(rows) / len(views))
    return iter(())


def _causal_piece(
    model: LanguageModel,
    text: Tokens,
    window: int,
    into: _Sum,
    strand: int,
    piece: _Piece,
    place: int,
    state: list[State] | None,
    move: Move,
) -> Marks:
    """The exact log-likelihood of a piece of one strand, ``window`` bases at a time."""
    tokens, core = text[piece.start : piece.end], piece.core
    places = np.arange(piece.start, piece.end)
    if model.bos:
        inputs = np.concatenate([[np.uint8(vocab.BOS)], tokens[:-1]])
    else:
        if place == 0:
            into.add_uniform(tokens[:1][core[:1]], places[:1][core[:1]], strand)
        inputs, tokens, core, places = tokens[:-1], tokens[1:], core[1:], places[1:]
    scored = is_base(tokens) & core
    move(place / max(1, len(tokens)))
    for start in range(place, len(tokens), window):
        cut = slice(start, start + window)
        output = model(torch.from_numpy(inputs[cut].astype(np.int64))[None].to(into.total.device), state=state)
        state = output.state
        at = np.flatnonzero(scored[cut])
        into.add(output.logits, at, tokens[cut][at], places[cut][at], strand)
        move(len(tokens[cut]) / len(tokens))
        yield start + window, state


def _masked_stream(
    model: LanguageModel,
    stack: Stack,
    reading: Reading,
    into: _Sum,
    text: Tokens,
    strand: int,
    turn: int,
    place: int,
    state: list[State] | None,
    move: Move,
) -> Marks:
    """One pass of the pseudo-log-likelihood of a long strand, layer by layer."""

    def hidden_here(start: int, end: int) -> npt.NDArray[np.bool_]:
        return is_base(text[start:end]) & (np.arange(start, end) % reading.passes == turn)

    def ids(start: int, end: int) -> Tensor:
        chosen = np.where(hidden_here(start, end), vocab.MASK, text[start:end]).astype(np.int64)
        return model.translate(torch.from_numpy(chosen)[None].to(into.total.device))

    for start, end, logits in stream_logits(model, stack, ids, len(text), Budget(reading.memory), move):
        at = np.flatnonzero(hidden_here(start, end))
        into.add(logits, at, text[start:end][at], at + start, strand)
    return iter(())


def pieces_of(model: LanguageModel, length: int, reading: Reading) -> int:
    """Into how many pieces that do not see one another a record of ``length`` tokens is cut."""
    if model.stateful or (reading.window is None and stack_of(model) is not None):
        return 1
    window = min(reading.window or ONE_PASS, model.max_seqlen or length)
    return 1 if length <= window else -(-length // (window - min(reading.overlap, window - 1)))


def _parts(model: LanguageModel, strands: list[Tokens], reading: Reading, into: _Sum) -> Iterator[_Part]:
    """What a record is read in, in order; the same for the same model, length and reading."""
    length, count = len(strands[0]), pieces_of(model, len(strands[0]), reading)
    masked, stack = model.config.objective == "masked", stack_of(model)
    if masked and count == 1 and length > ONE_PASS and stack is not None:
        for strand, text in enumerate(strands):
            for turn in range(reading.passes):
                share = 1 / (len(strands) * reading.passes)
                yield _Part(share, partial(_masked_stream, model, stack, reading, into, text, strand, turn))
        return
    margin = reading.overlap // 2 if count > 1 else 0
    window = min(reading.window or ONE_PASS, length) if model.stateful else length
    for i in range(count):
        first, last = length * i // count, length * (i + 1) // count
        piece = _Piece(max(0, first - margin), min(length, last + margin), first, last)
        share = (last - first) / length
        if masked:
            yield _Part(share, partial(_masked_piece, model, strands, reading.passes, into, piece))
            continue
        for strand, text in enumerate(strands):
            here = piece.mirrored(length) if strand else piece
            yield _Part(share / len(strands), partial(_causal_piece, model, text, window, into, strand, here))


@torch.inference_mode()
def log_likelihood(
    model: LanguageModel, tokens: Tokens, reading: Reading, track: Track | None = None, course: Course | None = None
) -> Tensor:
    """The (pseudo-)log-likelihood of one record in nats.

    Args:
        model: in eval mode.
        tokens: uint8, shape (length,), at least one base among them.
        reading: see there.
        track: float32 (length,) of zeros; what each base adds to the result is added to it (nothing where there is N).
            Where ``course`` was begun already, it holds what was added up to there.
        course: is told how far the reading is, and says where it goes on; the result has the same bits.

    Returns:
        float64, shape (), on the model's device.
    """
    strands = _strands(tokens, reading.both_strands and not model.config.rc_equivariant)
    into = _Sum(model, len(tokens), len(strands), track)
    course = course or Course(len(tokens), lambda _: None)
    begun = course.begun or Bookmark(0, 0, None, 0.0)
    into.total += begun.total
    for index, part in enumerate(_parts(model, strands, reading, into)):
        move = scaled(course.move, part.share)
        if index < begun.part:
            move(1.0)
            continue
        start = (begun.place, begun.state) if index == begun.part else (0, None)
        for place, state in part.read(*start, move):
            course.at(partial(_bookmark, into, index, place, state))
        course.at(partial(_bookmark, into, index + 1, 0, None))
    course.end()
    return into.total


def _bookmark(into: _Sum, part: int, place: int, state: list[State] | None) -> Bookmark:
    return Bookmark(part, place, state, float(into.total))


@torch.inference_mode()
def class_probabilities(model: SequenceClassifier, tokens: Tokens, *, both_strands: bool) -> Tensor:
    """The probability of every class, float64, shape (num_labels,), of the strands' mean logits.

    Of a task of labels, their probabilities; of numbers, the numbers.

    Args:
        model: in eval mode.
        tokens: uint8, shape (length,), not empty.
        both_strands: read both; an equivariant model reads one all the same.
    """
    views = np.stack(_strands(tokens, both_strands and not model.config.rc_equivariant))
    logits = model(torch.from_numpy(views.astype(np.int64)).to(_device(model))).logits
    return model.probabilities(logits.double().mean(0))
