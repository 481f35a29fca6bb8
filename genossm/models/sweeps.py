"""Whole chromosomes through a bidirectional model, exactly, in bounded memory.

A sequence goes through the layers one after the other, and through each in two sweeps over its chunks: from the right,
whose output is kept, then from the left, which completes the layer chunk by chunk. Between the layers the residual
stream is kept: d_model + d_inner numbers a base in all, in memory as far as it is allowed, else in unnamed temporary
files (where the environment's TMPDIR says). The result is that of one pass, but for rounding; the time is linear.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import BinaryIO

import torch
from torch import Tensor

from genossm.models.heads import LanguageModel
from genossm.models.mixers.base import State
from genossm.models.streaming import Stack, join_strands

CHUNK_NUMBERS = 1 << 22
"""Numbers in the widest activation of a chunk, which sets how many bases go through a layer at a time."""
SHORTEST_CHUNK = 1024
MEMORY = 2 << 30
"""Bytes of activations that are kept in memory, by default."""

Ids = Callable[[int, int], Tensor]
"""Ids int64 (1, end - start) of the backbone, of [start, end) of a sequence."""
Move = Callable[[float], None]
"""Is told of every share of the work, of 1 in all, when it is done."""


def unheard(share: float) -> None:
    """Tell nobody."""


def scaled(move: Move, factor: float) -> Move:
    """What is told of a part, which is ``factor`` of the whole."""
    return lambda share: move(share * factor)


class Budget:
    """Bytes that may still be kept in memory."""

    def __init__(self, memory: int) -> None:
        self._left = memory

    def take(self, size: int) -> bool:
        """Whether ``size`` bytes more fit; if so, they are taken."""
        fits = size <= self._left
        self._left -= size if fits else 0
        return fits

    def give_back(self, size: int) -> None:
        """Bytes that are kept no longer."""
        self._left += size


class Store:
    """Numbers a base, (length, width), in memory or in a file; written once before they are read."""

    def __init__(self, length: int, width: int, like: Tensor, budget: Budget) -> None:
        self._width, self._like = width, like
        self._memory: Tensor | None = None
        self._file: BinaryIO | None = None
        self._bytes = width * like.element_size()
        self._budget, self._held = budget, length * self._bytes
        if budget.take(self._held):
            self._memory = torch.empty(length, width, dtype=like.dtype)
        else:
            self._file = tempfile.TemporaryFile(prefix="genossm-", buffering=0)  # noqa: SIM115 - closed by close

    def write(self, start: int, values: Tensor) -> None:
        """Keep values (1, n, width) of the bases from ``start`` on."""
        rows = values[0].to("cpu").contiguous()
        if self._memory is not None:
            self._memory[start : start + len(rows)] = rows
            return
        assert self._file is not None
        view = memoryview(rows.view(torch.uint8).numpy().tobytes())
        self._file.seek(start * self._bytes)
        while view:
            view = view[self._file.write(view) :]

    def read(self, start: int, end: int) -> Tensor:
        """Values (1, end - start, width)."""
        if self._memory is not None:
            return self._memory[None, start:end].to(self._like.device)
        assert self._file is not None
        raw = bytearray((end - start) * self._bytes)
        self._file.seek(start * self._bytes)
        view, got = memoryview(raw), 0
        while got < len(raw):
            n = self._file.readinto(view[got:])  # type: ignore[attr-defined]
            if not n:
                raise EOFError("a temporary file of activations is shorter than what was written")
            got += n
        values = torch.frombuffer(raw, dtype=self._like.dtype)
        return values.view(1, end - start, self._width).to(self._like.device)

    def close(self) -> None:
        """Give the space back; once is enough."""
        if self._memory is not None:
            self._memory = None
            self._budget.give_back(self._held)
        if self._file is not None:
            self._file.close()


def chunk_length(stack: Stack) -> int:
    """Bases that go through a layer of ``stack`` at a time; a function of the model alone, so results are too."""
    width = max(parameter.shape[0] for parameter in stack.backbone.parameters() if parameter.dim() == 2)
    return max(SHORTEST_CHUNK, CHUNK_NUMBERS // width)


@torch.inference_mode()
def hidden_chunks(
    stack: Stack,
    ids: Ids,
    length: int,
    *,
    budget: Budget,
    layers: int | None = None,
    chunk: int | None = None,
    move: Move = unheard,
) -> Iterator[tuple[int, int, Tensor]]:
    """The hidden states of a long sequence, piece by piece from the left: (start, end, (1, end - start, d_model)).

    Args:
        stack: see :func:`genossm.models.streaming.stack_of`.
        ids: the sequence, a function of the place; asked for the same places more than once.
        length: of the sequence, at least 1.
        budget: what may be kept in memory.
        layers: the residual stream after so many blocks, without the final norm; None is the model's output.
        chunk: bases at a time; None goes by the model.
        move: is told how much is done.
    """
    step = chunk or chunk_length(stack)
    chunks = [(start, min(start + step, length)) for start in range(0, length, step)]
    depth = len(stack.layers) if layers is None else layers
    if depth == 0:
        for start, end in chunks:
            yield start, end, stack.backbone.embed(ids(start, end))
        return
    of_a_sweep = scaled(move, 1 / sum(2 if layer.two_way else 1 for layer in stack.layers[:depth]))
    with ExitStack() as stores:
        stream: Store | None = None

        def entering(start: int, end: int) -> Tensor:
            return stack.backbone.embed(ids(start, end)) if stream is None else stream.read(start, end)

        for index in range(depth):
            outputs = _layer(stack, index, entering, chunks, stores, budget, length, of_a_sweep)
            if index == depth - 1:
                for start, end, x in outputs:
                    yield start, end, stack.backbone.finish(x) if layers is None else x
                return
            following = stream
            for start, _, x in outputs:
                if following is None:
                    following = Store(length, x.shape[2], x, budget)
                    stores.callback(following.close)
                following.write(start, x)
            stream = following


def _layer(
    stack: Stack,
    index: int,
    entering: Callable[[int, int], Tensor],
    chunks: list[tuple[int, int]],
    stores: ExitStack,
    budget: Budget,
    length: int,
    move: Move,
) -> Iterator[tuple[int, int, Tensor]]:
    """One layer: its output chunk by chunk from the left; a chunk's input may be overwritten once it is out."""
    layer = stack.layers[index]
    kept: Store | None = None
    state: State | None = None
    if layer.two_way:
        for start, end in reversed(chunks):
            _, inner, _ = layer.inputs(entering(start, end))
            y, state = layer.sweep(inner, "backward", state)
            if kept is None:
                kept = Store(length, y.shape[2], y, budget)
                stores.callback(kept.close)
            kept.write(start, y)
            move((end - start) / length)
    state = None
    for start, end in chunks:
        x = entering(start, end)
        inner, _, gates = layer.inputs(x)
        y, state = layer.sweep(inner, "forward", state)
        move((end - start) / length)
        yield start, end, layer.combine(x, gates, y, None if kept is None else kept.read(start, end))
    if kept is not None:
        kept.close()


def stream_logits(
    model: LanguageModel, stack: Stack, ids: Ids, length: int, budget: Budget, move: Move = unheard
) -> Iterator[tuple[int, int, Tensor]]:
    """Logits (1, end - start, 16) of a long sequence, from the left; ``ids``, ``move`` as in hidden_chunks."""
    for start, end, hidden in stream_hidden(model, stack, ids, length, budget, move=move):
        yield start, end, model.read_out(hidden)


def stream_hidden(
    model: LanguageModel,
    stack: Stack,
    ids: Ids,
    length: int,
    budget: Budget,
    layers: int | None = None,
    move: Move = unheard,
) -> Iterator[tuple[int, int, Tensor]]:
    """Hidden states (1, end - start, width) of a long sequence, both strands' of an equivariant model."""
    if not model.config.rc_equivariant:
        yield from hidden_chunks(stack, ids, length, budget=budget, layers=layers, move=move)
        return
    half = scaled(move, 1 / 2)

    def other_ids(start: int, end: int) -> Tensor:
        return model.complement[ids(length - end, length - start)].flip(1)

    with ExitStack() as stack_of_stores:
        other: Store | None = None
        for start, _, hidden in hidden_chunks(stack, other_ids, length, budget=budget, layers=layers, move=half):
            if other is None:
                other = Store(length, hidden.shape[2], hidden, budget)
                stack_of_stores.callback(other.close)
            other.write(start, hidden)
        assert other is not None
        for start, end, hidden in hidden_chunks(stack, ids, length, budget=budget, layers=layers, move=half):
            yield start, end, join_strands(model, hidden, other.read(length - end, length - start).flip(1), layers)
