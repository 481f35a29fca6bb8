"""How long a model remembers: half-lives, time steps and kernels of its cores, in base pairs.

What depends on the input (Mamba, Mamba-2, RWKV-7, LSTM, GRU) is given for an input of zero: the bias alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genossm.models.mixers.base import Core
from genossm.models.mixers.hyena import HyenaCore
from genossm.models.mixers.lti import DenseCore, DiagonalCore, DPLRCore, LiquidCore, S5Core
from genossm.models.mixers.mamba import MambaCore
from genossm.models.mixers.recurrent import RecurrentCore
from genossm.models.mixers.rwkv import SLOWEST_DECAY, RWKV4Core, RWKV7Core
from genossm.models.mixers.ssd import SSDCore
from genossm.models.ssm.kernel import vandermonde

ENERGY = 0.9
"""The share of a response that counts as remembered."""


@dataclass(frozen=True)
class Memory:
    """The memory of one core.

    Attributes:
        half_life: float64 (modes,), bp after which a mode has lost half; infinite if it never does.
        dt: float64 (channels,), time steps; None where there are none.
        kernel: float64 (channels, length), the response to one base; None where it depends on the input.
    """

    half_life: Tensor
    dt: Tensor | None = None
    kernel: Tensor | None = None

    def effective(self) -> Tensor:
        """float64, bp within which ``ENERGY`` of the response's energy lies: of every channel where there are kernels,
        else of every mode, whose energy falls as 2^(-2 t / half-life)."""
        if self.kernel is None:
            return -math.log2(1 - ENERGY) / 2 * self.half_life
        energy = self.kernel.square().cumsum(-1)
        return (energy < ENERGY * energy[:, -1:]).sum(-1).double() + 1


def half_lives(log_decay: Tensor) -> Tensor:
    """bp until |exp(log_decay)|^t is 1/2, float64, flat."""
    return math.log(2) / log_decay.double().flatten().clamp(max=0).abs()


@torch.no_grad()
def memory_of(core: Core, length: int) -> Memory | None:
    """The memory of a core, its kernel over ``length`` bp; None for one that forgets nothing or all at once.

    Those are attention, which sees its whole window alike, and networks of finite reach.
    """
    if isinstance(core, (DiagonalCore, LiquidCore, S5Core)):
        return Memory(
            half_lives(core.discrete()[0].real),
            torch.exp(core.log_dt.double()),
            _diagonal_kernel(core, length).double(),
        )
    if isinstance(core, (DPLRCore, DenseCore)):
        decays = torch.linalg.eigvals(core.discrete()[0]).abs()
        return Memory(half_lives(torch.log(decays)), torch.exp(core.log_dt.double()), core.kernel(length).double())
    if isinstance(core, (MambaCore, SSDCore)):
        if isinstance(core, SSDCore) and not core.decays:
            return Memory(torch.full((core.heads,), math.inf, dtype=torch.float64))
        dt = F.softplus(core.dt_bias.double())
        rates = torch.exp(core.A_log.double())
        return Memory(half_lives(-dt[:, None] * rates if rates.dim() == 2 else -dt * rates), dt)
    if isinstance(core, RWKV4Core):
        return Memory(half_lives(-torch.exp(core.time_decay)))
    if isinstance(core, RWKV7Core):
        return Memory(half_lives(-SLOWEST_DECAY * torch.sigmoid(core.w_bias)))
    if isinstance(core, RecurrentCore):
        return Memory(half_lives(F.logsigmoid(_keep_gate(core).double())))
    if isinstance(core, HyenaCore):
        kernel = core.filter(min(length, core.filter.max_length)).double().flatten(0, 1)
        return Memory(half_lives(-core.filter.deltas.abs() / (core.filter.max_length - 1)), kernel=kernel)
    return None


def _diagonal_kernel(core: DiagonalCore | LiquidCore | S5Core, length: int) -> Tensor:
    """The response of every channel to itself, (channels, length); Liquid-S4's to a small input."""
    if isinstance(core, DiagonalCore):
        return core.kernel(length)
    log_decay, factor = core.discrete()
    C = torch.view_as_complex(core.C)
    if isinstance(core, LiquidCore):
        return vandermonde(log_decay, C * factor, length)
    B = torch.view_as_complex(core.B) * factor
    return vandermonde(log_decay[:, 0].expand_as(C), C * B.mT, length)


def _keep_gate(core: RecurrentCore) -> Tensor:
    """The biases of the gate that the state is multiplied by: the second of an LSTM's, the second of a GRU's."""
    biases = dict(core.rnn.named_parameters())
    return (biases["bias_ih_l0"] + biases["bias_hh_l0"])[core.rnn.hidden_size : 2 * core.rnn.hidden_size]


def reaches(model: nn.Module) -> dict[str, int | None]:
    """Tokens back that a layer can look, by the names of :func:`cores`; None for all."""
    found = {}
    for name, _ in _cores(model):
        mixer: Any = model.get_submodule(name.rpartition(".")[0])
        found[_place(name)] = mixer.reach
    return found


def _cores(model: nn.Module) -> Iterator[tuple[str, Core]]:
    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, Core))


def _place(name: str) -> str:
    block = name[name.index("blocks.") :].split(".mixer")[0] if "blocks." in name else name
    return f"{block} backward" if name.endswith("backward_core") else block


def cores(model: nn.Module) -> dict[str, Core]:
    """Every core of a model, by its place: ``blocks.0``, and ``blocks.0 backward`` for the other direction."""
    return {_place(name): core for name, core in _cores(model)}
