"""What ``genossm bench kernels`` runs: each operator's ``bench.py`` declares a :class:`Case`, as data.

A case says how inputs of a length are made, what runs, what it must equal, the operations and bytes that any
implementation needs, and who else can do the same. Measuring is done elsewhere (``genossm/bench``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genossm.kernels.peaks import Peaks

DIM, D_MODEL, D_STATE = 512, 256, 16
"""The sizes of every comparison: d_inner, d_model, d_state; the batch is 1."""

OPERATORS = (
    "selective_scan", "ssd", "causal_conv1d", "rms_norm", "lti", "cross_entropy", "embedding",
)  # fmt: skip

Outputs = Tensor | tuple[Tensor, ...]
Run = Callable[..., Outputs]
Passes = tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """The least that a computation takes.

    Attributes:
        multiply_adds: multiplications, additions, and both at once.
        exponentials: exp or exp2.
        bytes: of every input and output once, in float32.
    """

    multiply_adds: float = 0.0
    exponentials: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.multiply_adds + other.multiply_adds, self.exponentials + other.exponentials, self.bytes + other.bytes
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.multiply_adds * times, self.exponentials * times, self.bytes * times)

    def floor(self, peaks: Peaks) -> float:
        """Seconds on a machine with these peaks: arithmetic (both kinds share the units) or memory, the longer."""
        arithmetic = self.multiply_adds / peaks.multiply_adds + self.exponentials / peaks.exponentials
        memory = self.bytes / peaks.bytes
        return max(memory, arithmetic) if arithmetic == arithmetic else memory


@dataclass(frozen=True)
class Problem:
    """A call that is ready to run: ``run()`` gives outputs, whose gradients are taken for ``leaves``."""

    run: Callable[[], Outputs]
    leaves: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Entrant:
    """Someone else who does the same work.

    Attributes:
        name: as the table shows it.
        prepare: of a length and a device; imports its package, and may raise ImportError.
        device: the only type of device that it runs on, None for any.
        passes: those that it takes part in.
    """

    name: str
    prepare: Callable[[int, torch.device], Problem]
    device: str | None = None
    passes: Passes = ("forward", "training")


def _none(seqlen: int) -> dict[str, dict[str, Any]]:
    return {}


@dataclass(frozen=True)
class Case:
    """An operator or a block.

    Attributes:
        name: of the operator.
        inputs: of a length, float32 (int64 for tokens) on the CPU, batch 1; the same numbers at every call.
        run: takes the inputs by name.
        reference: the definition, likewise; it is run in float64.
        forward, backward: the work of a length.
        variants: of a length, keyword arguments by name under which outputs and gradients are checked too.
        activations: inputs that are in half precision where the operator is used in half precision.
        entrants: who it is compared with.
        passes: what is timed. ``forward`` keeps nothing for gradients; ``training`` is forward and backward, and
            gives the row ``backward`` too; ``step`` is a run that does all of it itself.
        probe: tokens of the check against the definition.
        prepare: what is timed, where that is more than ``run`` (a training step).
    """

    name: str
    inputs: Callable[[int], Mapping[str, Tensor]]
    run: Run
    reference: Run
    forward: Callable[[int], Work]
    backward: Callable[[int], Work]
    variants: Callable[[int], dict[str, dict[str, Any]]] = _none
    activations: tuple[str, ...] = ()
    entrants: tuple[Entrant, ...] = field(default=())
    passes: Passes = ("forward", "training")
    probe: int = 259
    prepare: Callable[[int, torch.device], Problem] | None = None

    def problem(self, seqlen: int, device: torch.device) -> Problem:
        """What is timed, in float32 on a device."""
        if self.prepare is not None:
            return self.prepare(seqlen, device)
        return same_inputs(self.inputs, self.run)(seqlen, device)


def same_inputs(inputs: Callable[[int], Mapping[str, Tensor]], run: Run) -> Callable[[int, torch.device], Problem]:
    """How to prepare ``run`` on the inputs of a case."""

    def prepare(seqlen: int, device: torch.device) -> Problem:
        given = {name: value.to(device) for name, value in inputs(seqlen).items()}
        leaves = tuple(v.requires_grad_() for v in given.values() if v.is_floating_point() or v.is_complex())
        return Problem(lambda: run(**given), leaves)

    return prepare


def noise(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    """Normal float32 numbers that follow from ``seed`` alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def layouts(seqlen: int, *, stateful: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The variants that every operator along the sequence has: the other direction, padding, packing, a state."""
    tokens = torch.arange(seqlen)
    cut = ((tokens > seqlen // 3).long() + (tokens > seqlen // 2).long())[None]
    mask = ((tokens > seqlen // 7) & (tokens < seqlen - seqlen // 5))[None]
    variants: dict[str, dict[str, Any]] = {
        "reverse": {"reverse": True},
        "padded": {"mask": mask},
        "packed": {"segments": cut},
        "packed, padded, reverse": {"segments": cut, "mask": mask, "reverse": True},
    }
    if stateful is not None:
        variants["carried state"] = stateful
        variants["carried state, reverse"] = {**stateful, "reverse": True}
    return variants


def operator_case(name: str) -> Case:
    """The case that ``kernels/NAME/bench.py`` declares."""
    case: Case = importlib.import_module(f"genossm.kernels.{name}.bench").CASE
    return case
