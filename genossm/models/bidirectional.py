"""Both directions from one projection: y = out_proj((core_f(x) + core_b(x)) * gate).

The projections are tied, as in Caduceus (arXiv:2403.03234, section 3.2); each direction has its own core, and the
backward one reads from the right, without a flip. "flip . causal . flip" is its meaning: y_t sees tokens t and later.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from genossm.models.mixers.base import Mixer, Reading, State, refuse_state

Direction = Literal["forward", "backward"]


def both_directions(mixer: Mixer) -> Mixer | Bidirectional:
    """``mixer`` reading both ways: in its own way if it has one (attention), else by a second core."""
    return mixer.two_way() or Bidirectional(mixer)


class Bidirectional(nn.Module):
    """Any mixer, read in both directions.

    State: one for each direction. A chunk can be given only the state of what is on its own side, so a long
    sequence goes layer by layer: a ``sweep`` forward over all chunks, one backward, then ``combine``.
    """

    causal = False

    def __init__(self, mixer: Mixer) -> None:
        super().__init__()
        self.mixer = mixer
        self.stateful = mixer.stateful
        self.segments = mixer.segments
        self.reach = mixer.reach
        self.backward_core = mixer.build_core(mixer.config)

    def forward(
        self,
        x: Tensor,
        *,
        state: tuple[State, State] | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, tuple[State, State]]:
        """Mix along the sequence, (batch, seqlen, d_model) to the same.

        Args:
            x: (batch, seqlen, d_model).
            state: what stands left of x (forward) and right of x (backward).
            mask, segments: as in :class:`~genossm.models.mixers.base.Core`.

        Raises:
            ValueError: a state for a mixer that keeps none.
        """
        refuse_state(self.mixer, state)
        left, right = (None, None) if state is None else state
        readings = [Reading(self.mixer.core, left, False), Reading(self.backward_core, right, True)]
        y, states = self.mixer.mix(x, readings, mask=mask, segments=segments)
        return y, (states[0], states[1])

    def sweep(
        self, x: Tensor, direction: Direction, state: State | None, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One direction over one chunk: the core's output (batch, seqlen, d_inner) and the state to hand on.

        Raises:
            ValueError: the mixer keeps no state, so it cannot read in chunks.
        """
        self.mixer.check_stateful()
        inner, _ = self.mixer.project_in(x)
        if direction == "forward":
            return self.mixer.core(inner, state=state, mask=mask)
        return self.backward_core(inner, state=state, mask=mask, reverse=True)

    def combine(self, x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        """The mixer's output for a chunk from its two sweeps."""
        _, gate = self.mixer.project_in(x)
        return self.mixer.project_out(forward + backward, gate)

    def init_state(self, batch: int) -> tuple[State, State]:
        """Nothing on either side.

        Raises:
            ValueError: the mixer keeps no state.
        """
        self.mixer.check_stateful()
        return self.mixer.core.init_state(batch), self.backward_core.init_state(batch)

    def step(self, x_t: Tensor, state: tuple[State, State]) -> tuple[Tensor, tuple[State, State]]:
        """Refused: the next token is not known yet.

        Raises:
            ValueError: always.
        """
        raise ValueError("a bidirectional mixer cannot step token by token; use sweep, or a causal model")
