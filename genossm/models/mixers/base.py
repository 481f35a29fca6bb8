"""The mixer contract: a projection in, a core along the sequence, a projection out.

    forward(x, *, state=None, mask=None, segments=None) -> (y, state)     x, y: (batch, seqlen, d_model)
    step(x_t, state) -> (y_t, state)                                      x_t, y_t: (batch, d_model)
    init_state(batch) -> state

The three parts are separate so that a bidirectional block can project once and run two cores. A core reads in
either direction; whatever it carries is a tuple of tensors, the batch first. What a mixer cannot do its flags say,
and asking for it raises ValueError:

    causal      an output depends on its own token and earlier ones only
    stateful    it can go on from a state: chunks, and token by token
    segments    it takes packed sequences
    reach       tokens back that an output can depend on, None for all
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from genossm.config import ModelConfig

State = tuple[Tensor, ...]


class Core(nn.Module, ABC):
    """What moves along the sequence: (batch, seqlen, columns) to (batch, seqlen, columns), in one direction."""

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
            x: (batch, seqlen, columns), what the mixer's ``project_in`` gives.
            state: what an earlier chunk of the same direction handed on; None starts from nothing.
            mask: bool (batch, seqlen), False at padding, which stands at the ends of a row: it changes neither outputs
                nor state.
            segments: int (batch, seqlen), packed sequences; nothing crosses where the number changes.
            reverse: read from the last token to the first.
        """

    @abstractmethod
    def init_state(self, batch: int) -> State:
        """The state before any token, on the core's device and in its dtype; empty for a core without one."""

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token: (batch, columns) and the state before it give the output and the state after it."""
        y, state = self(x_t[:, None], state=state)
        return y[:, 0], state


class Reading(NamedTuple):
    """A core, what it carries in, and the way it reads."""

    core: Core
    state: State | None
    reverse: bool


class Mixer(nn.Module, ABC):
    """A causal mixer: ``project_out(core(inner), gate)`` with inner, gate from ``project_in(x)``.

    ``config.mixer`` is the mixer's own name, whatever the other blocks of the model are.
    """

    causal = True
    stateful = True
    segments = True
    reach: int | None = None

    core: Core

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.core = self.build_core(config)

    @staticmethod
    @abstractmethod
    def build_core(config: ModelConfig) -> Core:
        """A core of this mixer with fresh parameters."""

    @abstractmethod
    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The core's input and what ``project_out`` needs beside its output, from x (batch, seqlen, d_model)."""

    @abstractmethod
    def project_out(self, y: Tensor, gate: Tensor) -> Tensor:
        """The mixer's output (batch, seqlen, d_model) from the output of its core (or the sum of two) and the gate."""

    def mix(
        self, x: Tensor, readings: Sequence[Reading], *, mask: Tensor | None, segments: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """One projection in, every reading of it, their sum, one projection out; and the states of the readings.

        This is the definition; a mixer may do the same in one step where it has a fused operator.
        """
        inner, gate = self.project_in(x)
        total, states = None, []
        for core, state, reverse in readings:
            y, after = core(inner, state=state, mask=mask, segments=segments, reverse=reverse)
            total = y if total is None else total + y
            states.append(after)
        assert total is not None
        return self.project_out(total, gate), states

    def two_way(self) -> Self | None:
        """This mixer, changed to read both directions at once; None if that takes a second core."""
        return None

    def check_stateful(self) -> None:
        """Refuse what needs a state.

        Raises:
            ValueError: this mixer keeps none.
        """
        if not self.stateful:
            raise ValueError(f"{self.config.mixer} keeps no state: it reads whole sequences, neither chunks nor steps")

    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Mix along the sequence; see the module's docstring for the contract and :class:`Core` for the arguments.

        Raises:
            ValueError: a state for a mixer that keeps none.
        """
        refuse_state(self, state)
        y, (after,) = self.mix(x, [Reading(self.core, state, False)], mask=mask, segments=segments)
        return y, after

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token: x_t (batch, d_model) and the state before it give y_t and the state after it.

        Raises:
            ValueError: this mixer keeps no state.
        """
        self.check_stateful()
        inner, gate = self.project_in(x_t[:, None])
        y, state = self.core.step(inner[:, 0], state)
        return self.project_out(y[:, None], gate)[:, 0], state

    def init_state(self, batch: int) -> State:
        """The state before any token.

        Raises:
            ValueError: this mixer keeps no state.
        """
        self.check_stateful()
        return self.core.init_state(batch)


def refuse_state(mixer: Mixer, state: Any) -> None:
    """Refuse a state, () aside, where ``mixer`` keeps none.

    Raises:
        ValueError: it keeps none and one is given.
    """
    if state is not None and any(len(part) for part in state):
        mixer.check_stateful()


def scale_residual(projection: nn.Linear, config: ModelConfig) -> None:
    """Scale a projection into the residual stream down, so that the stream keeps its size through n_layer blocks."""
    with torch.no_grad():
        projection.weight /= config.n_layer**0.5


class GatedMixer(Mixer):
    """``out_proj(core(x) * silu(z))`` with x, z (batch, seqlen, d_inner) from ``in_proj``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.in_proj = nn.Linear(config.d_model, 2 * config.d_inner, bias=False)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False)
        scale_residual(self.out_proj, config)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The core's input and the gate, (batch, seqlen, d_inner) each."""
        inner, gate = self.in_proj(x).chunk(2, dim=-1)
        return inner, gate

    def project_out(self, y: Tensor, gate: Tensor) -> Tensor:
        """See :class:`Mixer`."""
        return self.out_proj(y * nn.functional.silu(gate))
