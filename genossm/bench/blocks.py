"""The blocks of the models as benchmark cases: any mixer of the configuration, at the sizes of the comparisons.

The definition of a block is the block itself in float64, with every operator as its ``reference.py``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from genossm.bench import peers
from genossm.config import ModelConfig
from genossm.config.model import MixerName
from genossm.kernels.benchmark import D_MODEL, D_STATE, DIM, Case, Entrant, Outputs, Work, noise
from genossm.kernels.causal_conv1d import bench as conv
from genossm.kernels.selective_scan import bench as scan
from genossm.kernels.ssd import bench as ssd
from genossm.models.backbone import Backbone, ReverseComplement
from genossm.models.bidirectional import both_directions
from genossm.models.mixers import build_mixer
from genossm.vocab import COMPLEMENT, FIRST_BASE

UNKNOWN = Work(math.nan, math.nan, math.nan)
"""Of blocks whose operations nobody has counted: no roofline is drawn for them."""

PROBE = 131
"""Tokens of the check of a block: an odd size, more than a tile of its operators, which are checked by themselves."""

Build = Callable[[], nn.Module]


def config(mixer: MixerName, **options: object) -> ModelConfig:
    """One layer of the comparisons' sizes."""
    return ModelConfig.model_validate(
        {"d_model": D_MODEL, "n_layer": 1, "d_state": D_STATE, "mixer": mixer, "bidirectional": False, **options}
    )


class ModuleCase:
    """A module as a function of its inputs and parameters by name, on any device and in float64."""

    def __init__(self, build: Build, first: Callable[[int], Tensor]) -> None:
        self._build, self._first = build, first
        self.module = cache(self._module)

    def _module(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return copy.deepcopy(self._build()).to(device, dtype)

    def inputs(self, seqlen: int) -> Mapping[str, Tensor]:
        """The input of a length, and the parameters."""
        parameters = self.module(torch.device("cpu"), torch.float32).named_parameters()
        return {"x": self._first(seqlen), **{name: value.detach().clone() for name, value in parameters}}

    def run(self, x: Tensor, **parameters: Tensor) -> Outputs:
        """The module's first output."""
        dtype = next(value.dtype for value in parameters.values() if not value.is_complex())
        y: Tensor = functional_call(self.module(x.device, dtype), parameters, (x,))[0]
        return y

    def entrant(self, name: str) -> Entrant:
        """This module beside another case."""
        return Entrant(name, Case(name, self.inputs, self.run, self.run, unknown, unknown).problem)

    def case(
        self,
        name: str,
        forward: Callable[[int], Work],
        backward: Callable[[int], Work],
        entrants: tuple[Entrant, ...] = (),
    ) -> Case:
        """This module as a case."""
        return Case(name, self.inputs, self.run, self.run, forward, backward, entrants=entrants, probe=PROBE)


def unknown(seqlen: int) -> Work:
    """The work of a block that nobody has counted."""
    return UNKNOWN


def _hidden(seqlen: int) -> Tensor:
    return noise(1, seqlen, D_MODEL, seed=1)


def _bases(seqlen: int) -> Tensor:
    return torch.randint(4, (1, seqlen), generator=torch.Generator().manual_seed(1)) + FIRST_BASE


def _mixer(mixer: MixerName) -> nn.Module:
    return build_mixer(config(mixer))


def _two_way(mixer: MixerName) -> nn.Module:
    return both_directions(build_mixer(config(mixer)))


def _backbone(*, rc: bool) -> nn.Module:
    backbone = Backbone(config("mamba", bidirectional=True))
    return ReverseComplement(backbone, torch.from_numpy(COMPLEMENT).long()) if rc else backbone


def mamba_work(seqlen: int, *, backward: bool, cores: int = 1, strands: int = 1) -> Work:
    """Products, convolution and scan; each product comes back twice in backward. The input and output once."""
    shared = D_MODEL * 2 * DIM + DIM * D_MODEL
    core = DIM * (D_MODEL // 16 + 2 * D_STATE) + D_MODEL // 16 * DIM
    times = 2 if backward else 1
    operators = conv.backward_work(seqlen) + scan.backward_work(seqlen, gate=False)
    if not backward:
        operators = conv.forward_work(seqlen) + scan.forward_work(seqlen, gate=False)
    gate = Work((8 if backward else 4) * seqlen * DIM, seqlen * DIM)
    arithmetic = Work(times * seqlen * (shared + cores * core)) + operators * cores + gate
    return _with_bytes(arithmetic * strands, seqlen, tensors=3 if backward else 2)


def ssd_work(seqlen: int, *, backward: bool) -> Work:
    """As :func:`mamba_work`, of a Mamba-2 block."""
    heads, width = DIM // ssd.HEADDIM, DIM + 2 * D_STATE
    products = D_MODEL * (DIM + width + heads) + DIM * D_MODEL
    operators = conv.backward_work(seqlen, width) + ssd.backward_work(seqlen)
    if not backward:
        operators = conv.forward_work(seqlen, width) + ssd.forward_work(seqlen)
    gate = Work((16 if backward else 8) * seqlen * DIM, seqlen * DIM)
    arithmetic = Work((2 if backward else 1) * seqlen * products) + operators + gate
    return _with_bytes(arithmetic, seqlen, tensors=3 if backward else 2)


def _with_bytes(work: Work, seqlen: int, tensors: int) -> Work:
    return Work(work.multiply_adds, work.exponentials, 4 * tensors * seqlen * D_MODEL)


def _works(work: Callable[..., Work], **options: int) -> tuple[Callable[[int], Work], Callable[[int], Work]]:
    return partial(work, backward=False, **options), partial(work, backward=True, **options)


_MAMBA = ModuleCase(partial(_mixer, "mamba"), _hidden)
_TWO_WAY = ModuleCase(partial(_two_way, "mamba"), _hidden)
_SSD = ModuleCase(partial(_mixer, "ssd"), _hidden)

BLOCKS: dict[str, Case] = {
    case.name: case
    for case in (
        _MAMBA.case("mamba_block", *_works(mamba_work), entrants=peers.MAMBA + peers.MAMBA2[:1] + peers.OTHERS),
        _TWO_WAY.case("bidirectional_block", *_works(mamba_work, cores=2), entrants=(_MAMBA.entrant("one direction"),)),
        ModuleCase(partial(_backbone, rc=True), _bases).case(
            "rc_block",
            *_works(mamba_work, cores=2, strands=2),
            entrants=(ModuleCase(partial(_backbone, rc=False), _bases).entrant("one strand"),),
        ),
        _SSD.case("ssd_block", *_works(ssd_work), entrants=peers.MAMBA2),
        ModuleCase(partial(_mixer, "s4d"), _hidden).case("s4d_block", unknown, unknown),
    )
}
"""The blocks that every run times, by name."""

MORE: dict[str, Case] = {
    f"{name}_block": ModuleCase(partial(_mixer, name), _hidden).case(f"{name}_block", unknown, unknown)
    for name in get_args(MixerName)
    if f"{name}_block" not in BLOCKS
}
"""The other mixers, timed when they are named."""
