"""A dilated convolutional network in a gated block: what genomics used before, with a receptive field that ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.kernels.rows import unpack
from genossm.models.mixers.base import Core, GatedMixer, State


class ConvCore(Core):
    """Residual layers x + linear(gelu(depthwise convolution)), the dilation doubling from layer to layer.

    State: the last (kernel - 1) * dilation inputs of every layer, (batch, ., d_inner) each.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        taps, dim = config.conv.kernel, config.d_inner
        self.contexts = [(taps - 1) << i for i in range(config.conv.layers)]
        self.depthwise = nn.ModuleList(
            nn.Conv1d(dim, dim, taps, dilation=1 << i, groups=dim) for i in range(config.conv.layers)
        )
        self.pointwise = nn.ModuleList(nn.Linear(dim, dim) for _ in range(config.conv.layers))

    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """See :class:`Core`."""
        if reverse:
            x = x.flip(1)
            mask = None if mask is None else mask.flip(1)
            segments = None if segments is None else segments.flip(1)
        batch, seqlen = x.shape[:2]
        rows = None if mask is None and segments is None else unpack(batch, seqlen, mask, segments, x.device)
        lengths = torch.full((batch,), seqlen, device=x.device) if rows is None else rows.lengths
        entry = self.init_state(batch) if state is None else state
        if rows is not None:
            x, entry = rows.gather(x), tuple(rows.enter(part) for part in entry)
        after = []
        for context, before, depthwise, pointwise in zip(
            self.contexts, entry, self.depthwise, self.pointwise, strict=True
        ):
            stream = torch.cat([before, x], dim=1)
            at = lengths[:, None] + torch.arange(context, device=x.device)
            after.append(stream.gather(1, at[..., None].expand(-1, -1, x.shape[2])))
            x = x + pointwise(F.gelu(depthwise(stream.mT).mT))
        last = tuple(after)
        if rows is not None:
            x, last = rows.scatter(x, batch, seqlen), tuple(part[rows.last] for part in last)
        return (x.flip(1) if reverse else x), last

    def init_state(self, batch: int) -> State:
        """Zeros: no inputs yet."""
        like = next(self.parameters())
        return tuple(like.new_zeros(batch, context, like.shape[0]) for context in self.contexts)


class Conv(GatedMixer):
    """A gated block around dilated convolutions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.reach = (config.conv.kernel - 1) * ((1 << config.conv.layers) - 1)

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """A stack of convolutions."""
        return ConvCore(config)
