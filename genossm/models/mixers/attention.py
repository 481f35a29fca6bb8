"""Softmax attention with rotary positions (arXiv:2104.09864), over everything or in a window, through torch's SDPA.

Reading one way, its state is the keys and values so far: it grows with the sequence, or stays as long as the window.
Reading both ways, one softmax runs over both sides; that cannot go in chunks, so it keeps no state then.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genossm.config import ModelConfig
from genossm.kernels.rows import Rows, unpack
from genossm.models.mixers.base import Core, Mixer, State, scale_residual

SPAN = 1 << 13
"""Tokens of windowed attention whose masks are in memory at once."""


def rotate(x: Tensor, position: Tensor, base: float) -> Tensor:
    """Rotary embedding: channel pairs (i, i + n/2) turned by position / base^(2i/n).

    Args:
        x: (rows, length, heads, n).
        position: int64 (rows, length); the angles are formed in double precision.
    """
    half = x.shape[-1] // 2
    speed = base ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angle = position[..., None, None] * speed
    cos, sin = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class AttentionCore(Core):
    """Attention of one row's tokens to each other; no parameters of its own.

    Columns in: queries, keys, values, d_model each. State: rotated keys and values, (batch, kept, heads, headdim),
    the latest at the right, and the number of tokens read, int64 (batch,).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        options = config.attention
        self.headdim, self.heads = options.headdim, config.d_model // options.headdim
        self.window = options.window if config.mixer == "local_attention" else None
        self.base = options.rotary_base
        self.causal = True
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # device and dtype of a fresh state

    anchor: Tensor

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
        past = self.init_state(batch) if state is None else state
        rows = None if mask is None and segments is None else unpack(batch, seqlen, mask, segments, x.device)
        if rows is not None:
            x, past = rows.gather(x), tuple(rows.enter(part) for part in past)
        lengths = torch.full((batch,), seqlen, device=x.device) if rows is None else rows.lengths
        q, k, v = x.unflatten(-1, (3, self.heads, self.headdim)).unbind(2)
        position = past[2][:, None] + torch.arange(x.shape[1], device=x.device)
        q, k = (rotate(part, position, self.base) for part in (q, k))
        y = self._full(q, k, v, past, rows) if self.window is None else self._windowed(q, k, v, past, lengths)
        after = self._hand_on(k, v, past, lengths) if self.causal else ()
        if rows is not None:
            y, after = rows.scatter(y, batch, seqlen), tuple(part[rows.last] for part in after)
        return (y.flip(1) if reverse else y).flatten(2), after

    def _full(self, q: Tensor, k: Tensor, v: Tensor, past: State, rows: Rows | None) -> Tensor:
        """Attention over all that is behind, or all; what stands behind the end of a row is never ahead of a query."""
        allowed = None
        kept, length = past[0].shape[1], q.shape[1]
        if self.causal and kept:
            i, j = torch.arange(length, device=q.device), torch.arange(kept + length, device=q.device)
            known = j >= kept - past[2].clamp(max=kept)[:, None]
            allowed = (known[:, None, :] & (j - kept <= i[:, None]))[:, None]
            k, v = torch.cat([past[0], k], dim=1), torch.cat([past[1], v], dim=1)
        elif not self.causal and rows is not None:
            allowed = torch.arange(length, device=q.device) < rows.lengths.clamp(min=1)[:, None, None, None]
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=self.causal and allowed is None)
        return y.transpose(1, 2)

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, past: State, lengths: Tensor) -> Tensor:
        """Blocks of a window attend to themselves and their neighbours: linear in length."""
        assert self.window is not None
        size, length, kept = self.window, q.shape[1], past[0].shape[1]
        blocks = -(-length // size)
        behind = blocks * size - length + (0 if self.causal else size)
        j = torch.arange(size - kept + kept + length + behind, device=q.device) - size
        known = (j < lengths[:, None]) & (j >= -past[2].clamp(max=kept)[:, None])
        padding = (0, 0, 0, 0, size - kept, behind)
        keys, values = (F.pad(torch.cat(pair, dim=1), padding) for pair in ((past[0], k), (past[1], v)))
        reach = 2 * size if self.causal else 3 * size
        q = F.pad(q, (0, 0, 0, 0, 0, blocks * size - length)).unflatten(1, (blocks, size))
        k, v = (part.unfold(1, reach, size).movedim(-1, 2) for part in (keys, values))
        known = known.unfold(1, reach, size)
        lag = torch.arange(size, device=q.device)[:, None] + size - torch.arange(reach, device=q.device)
        near = (lag < size) & ((lag >= 0) if self.causal else (lag > -size))
        span = max(1, SPAN // (size * len(q)))
        parts = [
            checkpoint(
                _attend, *(part[:, i : i + span] for part in (q, k, v, known)), near, lag == 0,
                use_reentrant=False, preserve_rng_state=False,
            )
            for i in range(0, blocks, span)
        ]  # fmt: skip
        return torch.cat(parts, dim=1).flatten(1, 2)[:, :length]

    def _hand_on(self, k: Tensor, v: Tensor, past: State, lengths: Tensor) -> State:
        """The latest keys and values of every row, at the right."""
        had = past[0].shape[1]
        count = past[2] + lengths
        keep = int(count.max()) if self.window is None else self.window - 1
        at = had + lengths[:, None] - keep + torch.arange(keep, device=k.device)
        known = (at >= had - past[2].clamp(max=had)[:, None])[..., None, None]
        index = at.clamp(min=0)[..., None, None].expand(-1, -1, *k.shape[2:])
        streams = (torch.cat(pair, dim=1) for pair in ((past[0], k), (past[1], v)))
        keys, values = (torch.where(known, stream.gather(1, index), 0) for stream in streams)
        return keys, values, count

    def init_state(self, batch: int) -> State:
        """No keys yet."""
        kept = 0 if self.window is None or not self.causal else self.window - 1
        empty = self.anchor.new_zeros(batch, kept, self.heads, self.headdim)
        return empty, empty, torch.zeros(batch, dtype=torch.long, device=empty.device)


def _attend(q: Tensor, k: Tensor, v: Tensor, known: Tensor, near: Tensor, itself: Tensor) -> Tensor:
    """Attention within blocks; a query outside of all rows sees itself, so that no softmax is empty.

    Args:
        q: (rows, blocks, size, heads, headdim). k, v: (rows, blocks, reach, heads, headdim).
        known: bool (rows, blocks, reach). near, itself: bool (size, reach).
    """
    allowed = (near & known[:, :, None, :]) | itself
    q, k, v = (part.transpose(2, 3).flatten(0, 1) for part in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed.flatten(0, 1)[:, None])
    return y.transpose(1, 2).unflatten(0, known.shape[:2])


class Attention(Mixer):
    """Multi-head attention; in_proj gives queries, keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.in_proj = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=False)
        scale_residual(self.out_proj, config)
        if config.mixer == "local_attention":
            self.reach = config.attention.window - 1

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """A core that looks back."""
        return AttentionCore(config)

    def two_way(self) -> Self:
        """One softmax over both sides."""
        core: Any = self.core
        self.causal = core.causal = self.stateful = False
        return self

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries, keys, values; the second part is empty."""
        projected = self.in_proj(x)
        return projected, projected[..., :0]

    def project_out(self, y: Tensor, gate: Tensor) -> Tensor:
        """See :class:`Mixer`."""
        return self.out_proj(y)
