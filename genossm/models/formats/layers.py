"""Backbones of published models, put together from our own mixers, with the quirks that their weights depend on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genossm.models.backbone import ReverseComplement
from genossm.models.formats.shapes import Mamba2Shape, MambaShape
from genossm.models.mixers.base import Reading, State
from genossm.models.mixers.mamba import Mamba
from genossm.models.mixers.ssd import SSD


class PublishedMamba(Mamba):
    """A Mamba-1 mixer whose projections may have biases and whose convolution may have none."""

    def __init__(self, shape: MambaShape) -> None:
        super().__init__(shape.mixer_config())
        if shape.proj_bias:
            self.in_proj = nn.Linear(shape.d_model, 2 * shape.expand * shape.d_model)
            self.out_proj = nn.Linear(shape.expand * shape.d_model, shape.d_model)
        if not shape.conv_bias:
            self.core.register_parameter("conv_bias", None)


class BiMamba(nn.Module):
    """Mamba-1 in both directions, each with its own core and its own gate where the projections are not tied.

    y = out(core(x) * gate) + out(core reversed(x) * gate), or the product of the two. ``mirrored`` exchanges the
    reading directions, as a mixer does that is given the sequence from its end.
    """

    stateful = True
    reach = None
    """Tokens that a token is influenced by: all."""

    def __init__(self, shape: MambaShape) -> None:
        super().__init__()
        self.multiply = shape.strategy == "multiply"
        self.one_product = not self.multiply and shape.tied_directions and not shape.proj_bias
        self.mixer = PublishedMamba(shape)
        backward = PublishedMamba(shape)
        self.backward_core = backward.core
        self.backward_in: nn.Linear | None = None if shape.tied_directions else backward.in_proj
        self.backward_out: nn.Linear | None = None if shape.tied_directions else backward.out_proj

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None,
        segments: Tensor | None,
        mirrored: bool,
        state: tuple[State, State] | None = None,
    ) -> tuple[Tensor, tuple[State, State]]:
        """(batch, seqlen, d_model) to the same, and the states; arguments as :meth:`Bidirectional.forward`."""
        where: Any = {"mask": mask, "segments": segments}
        if self.one_product:
            own, other = (None, None) if state is None else state[::-1] if mirrored else state
            readings = [Reading(self.mixer.core, own, mirrored), Reading(self.backward_core, other, not mirrored)]
            y, states = self.mixer.mix(x, readings, **where)
            return y, (states[1], states[0]) if mirrored else (states[0], states[1])
        (inner, gate), (backward_inner, backward_gate) = self.inputs(x)
        first, second = (None, None) if state is None else reversed(state) if mirrored else state
        right, first = self.mixer.core(inner, state=first, reverse=mirrored, **where)
        left, second = self.backward_core(backward_inner, state=second, reverse=not mirrored, **where)
        return self.output(right, left, gate, backward_gate), (second, first) if mirrored else (first, second)

    def inputs(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Input and gate of the first core, then of the second."""
        own = self.mixer.project_in(x)
        if self.backward_in is None:
            return own, own
        inner, gate = self.backward_in(x).chunk(2, dim=-1)
        return own, (inner, gate)

    def output(self, right: Tensor, left: Tensor, gate: Tensor, backward_gate: Tensor) -> Tensor:
        """The mixer's output from what its two cores give, and the gates of ``inputs``."""
        if self.one_product:
            return self.mixer.project_out(right + left, gate)
        y = self.mixer.project_out(right, gate)
        z = (self.backward_out or self.mixer.out_proj)(left * nn.functional.silu(backward_gate))
        return y * z if self.multiply else y + z


class OneWay(nn.Module):
    """A causal mixer with the interface of :class:`BiMamba`."""

    stateful = True

    def __init__(self, mixer: Mamba | SSD) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(
        self, x: Tensor, *, mask: Tensor | None, segments: Tensor | None, mirrored: bool, state: Any = None
    ) -> tuple[Tensor, Any]:
        """(batch, seqlen, d_model) to the same, and the state after it."""
        inner, gate = self.mixer.project_in(x)
        y, state = self.mixer.core(inner, state=state, mask=mask, segments=segments, reverse=mirrored)
        return self.mixer.project_out(y, gate), state


class Block(nn.Module):
    """norm, mixer, and the sum; ``mirrored`` blocks work on the channels in reverse order and read from the other end.

    A mirrored block is what the official fused block of Caduceus-PS makes of every second layer: the two strands'
    channels, of which one half is stored in reverse order, are taken for one another. Here a strand keeps its frame,
    and the block is turned round: no sequence is copied.
    """

    def __init__(self, shape: MambaShape | Mamba2Shape, *, mirrored: bool) -> None:
        super().__init__()
        self.mirrored = mirrored
        self.norm = _norm(shape)
        self.mixer: BiMamba | OneWay
        if isinstance(shape, Mamba2Shape):
            self.mixer = OneWay(SSD(shape.mixer_config()))
        else:
            self.mixer = BiMamba(shape) if shape.bidirectional else OneWay(PublishedMamba(shape))

    def forward(
        self, x: Tensor, *, state: Any = None, mask: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """The residual stream after the block, what the mixer added to it (both like x), and the mixer's state."""
        y = self.norm((x.flip(-1) if self.mirrored else x).to(self.norm.weight.dtype))
        y, state = self.mixer(y, state=state, mask=mask, segments=segments, mirrored=self.mirrored)
        y = y.flip(-1) if self.mirrored else y
        return (x + y).to(x.dtype), y, state


def _norm(shape: MambaShape | Mamba2Shape) -> nn.RMSNorm | nn.LayerNorm:
    return (nn.RMSNorm if shape.rms_norm else nn.LayerNorm)(shape.d_model, eps=shape.norm_eps)


class MambaBackbone(nn.Module):
    """Token ids to hidden states: Mamba, Mamba-2, and one strand of Caduceus.

    The residual stream has the dtype of the embedding, or float32 where ``residual_in_fp32`` asks for it and the
    embedding has fewer bits.
    """

    def __init__(self, shape: MambaShape | Mamba2Shape) -> None:
        super().__init__()
        swaps = isinstance(shape, MambaShape) and shape.strand_swap
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(shape, mirrored=swaps and i % 2 == 0) for i in range(shape.n_layer))
        self.norm = _norm(shape)
        self.mirrored_end = swaps and shape.n_layer % 2 == 1
        self.residual_in_fp32 = shape.residual_in_fp32

    def forward(
        self,
        input_ids: Tensor,
        *,
        state: list[Any] | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, list[Any]]:
        """Arguments and results as :meth:`genossm.models.backbone.Backbone.forward`."""
        x = self.embed(input_ids)
        states = []
        for index, block in enumerate(self.blocks):
            x, _, carried = block(x, state=None if state is None else state[index], mask=mask, segments=segments)
            states.append(carried)
        return self.finish(x), states

    def embed(self, input_ids: Tensor) -> Tensor:
        """See :meth:`genossm.models.backbone.Backbone.embed`."""
        x = self.embedding(input_ids)
        return x.float() if self.residual_in_fp32 and x.dtype in (torch.float16, torch.bfloat16) else x

    def finish(self, x: Tensor) -> Tensor:
        """See :meth:`genossm.models.backbone.Backbone.finish`."""
        x = self.norm((x.flip(-1) if self.mirrored_end else x).to(self.norm.weight.dtype))
        return x.flip(-1) if self.mirrored_end else x


class Strands(ReverseComplement):
    """Both strands of Caduceus-PS.

    The result holds the two halves as :class:`ReverseComplement` does; where the official code has exchanged them an
    odd number of times, they are exchanged, and in both the channels are in reverse order.
    """

    def __init__(self, backbone: MambaBackbone, complement: Tensor, *, swaps: bool) -> None:
        super().__init__(backbone, complement)  # type: ignore[arg-type]
        self.swaps = swaps

    def forward(
        self, input_ids: Tensor, *, state: None = None, mask: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Arguments and results as :meth:`ReverseComplement.forward`."""
        hidden, states = super().forward(input_ids, state=state, mask=mask, segments=segments)
        given, other = hidden.chunk(2, dim=-1)
        return self.join(given, other, len(self.backbone.blocks)), states

    def join(self, given: Tensor, other: Tensor, depth: int) -> Tensor:
        """The two strands' features, both in the given order, as they stand after ``depth`` blocks."""
        if self.swaps and depth % 2:
            given, other = other.flip(-1), given.flip(-1)
        return torch.cat([given, other], dim=-1)
