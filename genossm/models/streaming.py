"""Models that read a long sequence piece by piece, exactly: layer by layer, with carried states.

A causal model goes through a sequence once. A bidirectional layer needs what stands on either side, so a sequence goes
through it in two sweeps, one from either end; what does not move along the sequence is done chunk by chunk. This holds
for every model whose cores keep a state; attention over whole sequences and long convolutions do not, and
:func:`stack_of` says so by None.

:func:`read_window` reads a sequence that fits in memory and keeps the states at chosen places, so that a part of it can
be read again, with its surroundings as they were (:mod:`genossm.models.edits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genossm.models.backbone import Backbone, Block, ReverseComplement
from genossm.models.bidirectional import Bidirectional, Direction
from genossm.models.formats.layers import BiMamba, MambaBackbone, OneWay, Strands
from genossm.models.formats.layers import Block as PublishedBlock
from genossm.models.heads import LanguageModel
from genossm.models.mixers.base import Mixer, State

Inputs = tuple[Tensor, Tensor, tuple[Tensor, ...]]
"""What moves along the sequence, forward and backward, (batch, n, columns) each, and the gates that do not."""


class Layer:
    """One block taken apart: ``combine`` of its two sweeps is the block's output."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self.two_way = isinstance(block.mixer, Bidirectional)

    def inputs(self, x: Tensor) -> Inputs:
        """What the sweeps and ``combine`` need of a chunk x (batch, n, d_model) of the residual stream."""
        mixer = self._block.mixer
        inner, gate = (mixer.mixer if isinstance(mixer, Bidirectional) else mixer).project_in(self._block.norm(x))
        return inner, inner, (gate,)

    def sweep(self, inner: Tensor, direction: Direction, state: State | None) -> tuple[Tensor, State]:
        """One direction over the inputs of a chunk, and the state to hand on."""
        mixer = self._block.mixer
        if not isinstance(mixer, Bidirectional):
            return mixer.core(inner, state=state)
        if direction == "forward":
            return mixer.mixer.core(inner, state=state)
        return mixer.backward_core(inner, state=state, reverse=True)

    def combine(self, x: Tensor, gates: tuple[Tensor, ...], forward: Tensor, backward: Tensor | None) -> Tensor:
        """The residual stream after the block; ``backward`` is None for a causal one."""
        mixer = self._block.mixer
        if isinstance(mixer, Bidirectional):
            assert backward is not None
            x = x + mixer.mixer.project_out(forward + backward, *gates)
        else:
            x = x + mixer.project_out(forward, *gates)
        return x if self._block.mlp is None else x + self._block.mlp(x)


class PublishedLayer(Layer):
    """A block of a published model."""

    def __init__(self, block: PublishedBlock) -> None:
        self._published = block
        self.two_way = isinstance(block.mixer, BiMamba)

    def inputs(self, x: Tensor) -> Inputs:
        """See :class:`Layer`."""
        block = self._published
        normed = block.norm((x.flip(-1) if block.mirrored else x).to(block.norm.weight.dtype))
        if not isinstance(block.mixer, BiMamba):
            inner, gate = block.mixer.mixer.project_in(normed)
            return inner, inner, (gate,)
        (own, gate), (other, other_gate) = block.mixer.inputs(normed)
        return (other, own, (gate, other_gate)) if block.mirrored else (own, other, (gate, other_gate))

    def sweep(self, inner: Tensor, direction: Direction, state: State | None) -> tuple[Tensor, State]:
        """See :class:`Layer`."""
        block, reverse = self._published, direction == "backward"
        if isinstance(block.mixer, BiMamba) and reverse != block.mirrored:
            return block.mixer.backward_core(inner, state=state, reverse=reverse)
        return block.mixer.mixer.core(inner, state=state, reverse=reverse)

    def combine(self, x: Tensor, gates: tuple[Tensor, ...], forward: Tensor, backward: Tensor | None) -> Tensor:
        """See :class:`Layer`."""
        block = self._published
        if isinstance(block.mixer, BiMamba):
            assert backward is not None
            right, left = (backward, forward) if block.mirrored else (forward, backward)
            y = block.mixer.output(right, left, *gates)
        else:
            y = block.mixer.mixer.project_out(forward, *gates)
        return (x + (y.flip(-1) if block.mirrored else y)).to(x.dtype)


@dataclass(frozen=True)
class Stack:
    """A backbone on one strand, in parts that can go through a sequence one after the other.

    Attributes:
        backbone: reads ids (batch, n) with ``state`` one entry a layer: a pair (left, right) of a two-way layer.
        layers: its blocks.
    """

    backbone: Backbone | MambaBackbone
    layers: list[Layer]

    @property
    def two_way(self) -> bool:
        """Whether any layer reads both ways."""
        return any(layer.two_way for layer in self.layers)


def strand_backbone(model: LanguageModel) -> nn.Module:
    """The backbone that reads one strand."""
    return model.backbone.backbone if isinstance(model.backbone, ReverseComplement) else model.backbone


def join_strands(model: LanguageModel, given: Tensor, other: Tensor, layers: int | None = None) -> Tensor:
    """Hidden states (batch, n, 2 * d_model) of an equivariant model from those of its two strands, both in given order.

    ``layers``: after so many blocks; None is the model's output.
    """
    if isinstance(model.backbone, Strands):
        return model.backbone.join(given, other, len(model.backbone.backbone.blocks) if layers is None else layers)
    return torch.cat([given, other], dim=-1)


def stack_of(model: LanguageModel) -> Stack | None:
    """A model's backbone in parts; None where it can only read whole sequences."""
    backbone = strand_backbone(model)
    if not isinstance(backbone, Backbone | MambaBackbone):
        return None
    layers: list[Layer] = []
    for block in backbone.blocks:
        mixer = block.mixer
        if not isinstance(mixer, Bidirectional | Mixer | BiMamba | OneWay) or not mixer.stateful:
            return None
        layers.append(PublishedLayer(block) if isinstance(block, PublishedBlock) else Layer(block))  # type: ignore[arg-type]
    return Stack(backbone, layers)


Snapshots = dict[int, State]
"""States by place: of a sweep forward, after all tokens before it; of one backward, after all tokens from it on."""


@dataclass(frozen=True)
class Reading:
    """What a stack made of a sequence.

    Attributes:
        hidden: (batch, n, d_model).
        states: a layer's snapshots of its sweep forward and of its sweep backward (empty for a causal one).
    """

    hidden: Tensor
    states: list[tuple[Snapshots, Snapshots]]


Shifts = list[tuple[Snapshots, Snapshots]]
"""Of every layer, by place as in :class:`Reading`: what is added to the states that a sweep hands on there."""
CHECKPOINTED = 1 << 15
"""Tokens from which on a reading that is differentiated keeps a layer's activations only while it goes backward."""


def read_window(stack: Stack, ids: Tensor, places: Sequence[int], shifts: Shifts | None = None) -> Reading:
    """Read ids int64 (batch, n), in the backbone's own ids, and keep the states at ``places``, each in (0, n).

    ``shifts``: an empty pair of dictionaries a layer; filled with zeros to differentiate by, as :data:`Shifts` says.
    """
    edges = sorted({0, ids.shape[1], *places})
    x = stack.backbone.embed(ids)
    states = []
    for index, layer in enumerate(stack.layers):
        moved = None if shifts is None else shifts[index]
        if moved is not None and ids.numel() > CHECKPOINTED:
            x, kept = checkpoint(_through, layer, x, edges, moved, use_reentrant=False, preserve_rng_state=False)
        else:
            x, kept = _through(layer, x, edges, moved)
        states.append(kept)
    return Reading(stack.backbone.finish(x), states)


def _through(
    layer: Layer, x: Tensor, edges: list[int], shifts: tuple[Snapshots, Snapshots] | None
) -> tuple[Tensor, tuple[Snapshots, Snapshots]]:
    """The residual stream after a layer, and the snapshots of its sweeps."""
    inner, backward_inner, gates = layer.inputs(x)
    right, left = (None, None) if shifts is None else shifts
    forward, right_states = _sweep(layer, inner, edges, "forward", right)
    backward, left_states = _sweep(layer, backward_inner, edges, "backward", left) if layer.two_way else (None, {})
    return layer.combine(x, gates, forward, backward), (right_states, left_states)


def _sweep(
    layer: Layer, inner: Tensor, edges: list[int], direction: Direction, shifts: Snapshots | None
) -> tuple[Tensor, Snapshots]:
    """One direction over all inputs (batch, n, columns), and the states at the inner edges."""
    chunks = list(pairwise(edges))
    parts = inner.split([end - start for start, end in chunks], dim=1)  # slices would each go backward in full length
    order = list(zip(chunks, parts, strict=True))
    outputs: list[Tensor] = []
    snapshots: Snapshots = {}
    state: State | None = None
    for (start, end), part in order if direction == "forward" else reversed(order):
        y, state = layer.sweep(part, direction, state)
        outputs.append(y)
        place = end if direction == "forward" else start
        snapshots[place] = tuple(value.detach() for value in state)
        if shifts is not None and 0 < place < edges[-1]:
            if place not in shifts:  # read again by a checkpoint, it must be the same
                shifts[place] = tuple(torch.zeros_like(value, requires_grad=True) for value in snapshots[place])
            state = tuple(value + shift for value, shift in zip(state, shifts[place], strict=True))
    return torch.cat(outputs if direction == "forward" else outputs[::-1], dim=1), snapshots
