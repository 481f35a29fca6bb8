"""How a sum over a window changes, to the first order, with the states that are carried through it.

One reading backward gives the derivatives by the states at many places at once, of every layer and either direction,
with all that follows from a change there: in later layers, and back over the place by the other direction. So whoever
knows how much the states at the borders of a region change knows what the change does outside it, but for products of
small changes (:mod:`genossm.models.edits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genossm.models.mixers.base import State
from genossm.models.streaming import Reading, Shifts, Snapshots, Stack, read_window

Derivatives = list[tuple[Snapshots, Snapshots]]
"""Shaped as the states of a :class:`~genossm.models.streaming.Reading`."""


def read_with_derivatives(
    stack: Stack, ids: Tensor, places: Sequence[int], total: Callable[[Tensor], Tensor]
) -> tuple[Reading, Derivatives]:
    """:func:`~genossm.models.streaming.read_window`, and the derivatives of ``total`` by the states at ``places``.

    Args:
        stack, ids, places: as there.
        total: a number, shape (), of the hidden states (batch, n, d_model).
    """
    shifts: Shifts = [({}, {}) for _ in stack.layers]
    with torch.inference_mode(False), torch.enable_grad(), _frozen(stack.backbone):
        reading = read_window(stack, ids.clone(), places, shifts)
        leaves = [leaf for pair in shifts for snapshots in pair for state in snapshots.values() for leaf in state]
        found = iter(torch.autograd.grad(total(reading.hidden), leaves, allow_unused=True) if leaves else ())

        def filled(snapshots: Snapshots) -> Snapshots:
            return {
                place: tuple(leaf.detach() if (g := next(found)) is None else g for leaf in state)
                for place, state in snapshots.items()
            }

        derivatives = [(filled(right), filled(left)) for right, left in shifts]
    return Reading(reading.hidden.detach(), reading.states), derivatives


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No derivatives by parameters, which nobody asks for; cuDNN refuses those of a model in eval mode."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def first_order(derivative: State, change: State) -> list[float]:
    """What a change of a state (batch, ...) does, an estimate for every row of the batch."""
    parts = [(by * moved).double().flatten(1).sum(1) for by, moved in zip(derivative, change, strict=True)]
    found: list[float] = torch.stack(parts).sum(0).tolist()
    return found
