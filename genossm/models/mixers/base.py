"""The mixer contract: a projection in, a core along the sequence, a projection out.

    forward(x, *, state=None, mask=None, segments=None) -> (y, state)     x, y: (batch, seqlen, d_model)
    step(x_t, state) -> (y_t, state)                                      x_t, y_t: (batch, d_model)
    init_state(batch) -> state

The three parts are separate so that a bidirectional block can project once and run two cores. A core reads in
either direction; whatever it carries is a tuple of tensors, the batch first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from genossm.config import ModelConfig

State = tuple[Tensor, ...]


class Core(nn.Module, ABC):
    """What moves along the sequence: (batch, seqlen, d_inner) to the same, in one direction."""

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """Outputs, and the state after the last token read.

        Args:
            x: (batch, seqlen, d_inner).
            state: what an earlier chunk of the same direction handed on; None starts from nothing.
            mask: bool (batch, seqlen), False at padding: it changes neither outputs nor state.
            segments: int (batch, seqlen), packed sequences; nothing crosses where the number changes.
            reverse: read from the last token to the first.
        """

    @abstractmethod
    def init_state(self, batch: int) -> State:
        """The state before any token, on the core's device and in its dtype."""


class Mixer(nn.Module, ABC):
    """A causal mixer with a gate: ``out_proj(core(x) * silu(z))`` with x, z from ``in_proj``."""

    causal = True
    stateful = True
    segments = True

    in_proj: nn.Linear
    out_proj: nn.Linear
    core: Core

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.in_proj = nn.Linear(config.d_model, 2 * config.d_inner, bias=False)
        self.core = self.build_core(config)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False)
        with torch.no_grad():  # so that the residual stream keeps its size through n_layer blocks
            self.out_proj.weight /= config.n_layer**0.5

    @staticmethod
    @abstractmethod
    def build_core(config: ModelConfig) -> Core:
        """A core of this mixer with fresh parameters."""

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The core's input and the gate, (batch, seqlen, d_inner) each, from x (batch, seqlen, d_model)."""
        inner, gate = self.in_proj(x).chunk(2, dim=-1)
        return inner, gate

    def project_out(self, y: Tensor, gate: Tensor) -> Tensor:
        """The mixer's output (batch, seqlen, d_model) from the core's output and the gate."""
        return self.out_proj(y * nn.functional.silu(gate))

    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Mix along the sequence; see the module's docstring for the contract and :class:`Core` for the arguments."""
        inner, gate = self.project_in(x)
        y, state = self.core(inner, state=state, mask=mask, segments=segments)
        return self.project_out(y, gate), state

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token: x_t (batch, d_model) and the state before it give y_t and the state after it."""
        y, state = self(x_t[:, None], state=state)
        return y[:, 0], state

    def init_state(self, batch: int) -> State:
        """The state before any token."""
        return self.core.init_state(batch)
