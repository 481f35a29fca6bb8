"""LSTM and GRU in a gated block: the recurrent networks that state spaces are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from genossm.config import ModelConfig
from genossm.kernels.rows import unpack
from genossm.models.mixers.base import Core, GatedMixer, State


class RecurrentCore(Core):
    """One layer of torch's LSTM or GRU, d_inner wide.

    State: h, and for an LSTM c, (batch, d_inner) each.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        kind = nn.LSTM if config.mixer == "lstm" else nn.GRU
        self.rnn: nn.LSTM | nn.GRU = kind(config.d_inner, config.d_inner, batch_first=True)

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
        entry = self.init_state(batch) if state is None else state
        if mask is None and segments is None:
            y, last = self.rnn(x, self._inside(entry))
            after = self._outside(last)
        else:
            rows = unpack(batch, seqlen, mask, segments, x.device)
            entry = tuple(rows.enter(part) for part in entry)
            lengths = rows.lengths.clamp(min=1).cpu()
            packed = pack_padded_sequence(rows.gather(x), lengths, batch_first=True, enforce_sorted=False)
            y, last = self.rnn(packed, self._inside(entry))
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=rows.shape[1])
            none = rows.lengths[:, None] == 0
            ends = (torch.where(none, a, b) for a, b in zip(entry, self._outside(last), strict=True))
            y, after = rows.scatter(y, batch, seqlen), tuple(part[rows.last] for part in ends)
        return (y.flip(1) if reverse else y), after

    def _inside(self, state: State) -> Tensor | State:
        """A state as torch's layer takes it."""
        parts = tuple(part[None] for part in state)
        return parts if isinstance(self.rnn, nn.LSTM) else parts[0]

    def _outside(self, state: Tensor | State) -> State:
        """A state as torch's layer gives it."""
        return (state[0],) if isinstance(state, Tensor) else tuple(part[0] for part in state)

    def init_state(self, batch: int) -> State:
        """Zeros."""
        zeros = next(self.parameters()).new_zeros(batch, self.rnn.hidden_size)
        return (zeros, zeros) if isinstance(self.rnn, nn.LSTM) else (zeros,)


class Recurrent(GatedMixer):
    """A gated block around an LSTM or a GRU."""

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """The network that the preset names."""
        return RecurrentCore(config)
