"""How long a model remembers: half-lives, time steps and kernels of its cores, in base pairs.

What depends on the input (Mamba, Mamba-2, RWKV-7) is given for an input of zero: the bias alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genossm.models.mixers.base import Core
from genossm.models.mixers.hyena import HyenaCore
from genossm.models.mixers.lti import DenseCore, DiagonalCore, DPLRCore, LiquidCore, S5Core
from genossm.models.mixers.mamba import MambaCore
from genossm.models.mixers.rwkv import SLOWEST_DECAY, RWKV4Core, RWKV7Core
from genossm.models.mixers.ssd import SSDCore


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

    def effective(self) -> Tensor | None:
        """float64 (channels,), bp within which 90 % of the kernel's energy lies."""
        if self.kernel is None:
            return None
        energy = self.kernel.square().cumsum(-1)
        return (energy < 0.9 * energy[:, -1:]).sum(-1).double() + 1


def half_lives(log_decay: Tensor) -> Tensor:
    """bp until |exp(log_decay)|^t is 1/2, float64, flat."""
    return math.log(2) / log_decay.double().flatten().clamp(max=0).abs()


@torch.no_grad()
def memory_of(core: Core, length: int) -> Memory | None:
    """The memory of a core, its kernel over ``length`` bp; None for one without decay (attention, LSTM ...)."""
    if isinstance(core, (DiagonalCore, LiquidCore, S5Core)):
        kernel = core.kernel(length).double() if isinstance(core, DiagonalCore) else None
        return Memory(half_lives(core.discrete()[0].real), torch.exp(core.log_dt.double()), kernel)
    if isinstance(core, (DPLRCore, DenseCore)):
        decays = torch.linalg.eigvals(core.discrete()[0]).abs()
        return Memory(half_lives(torch.log(decays)), torch.exp(core.log_dt.double()), core.kernel(length).double())
    if isinstance(core, (MambaCore, SSDCore)):
        if isinstance(core, SSDCore) and not core.decays:
            return None
        dt = F.softplus(core.dt_bias.double())
        rates = torch.exp(core.A_log.double())
        return Memory(half_lives(-dt[:, None] * rates if rates.dim() == 2 else -dt * rates), dt)
    if isinstance(core, RWKV4Core):
        return Memory(half_lives(-torch.exp(core.time_decay)))
    if isinstance(core, RWKV7Core):
        return Memory(half_lives(-SLOWEST_DECAY * torch.sigmoid(core.w_bias)))
    if isinstance(core, HyenaCore):
        kernel = core.filter(min(length, core.filter.max_length)).double().flatten(0, 1)
        return Memory(half_lives(-core.filter.deltas.abs() / (core.filter.max_length - 1)), kernel=kernel)
    return None


def cores(model: nn.Module) -> dict[str, Core]:
    """Every core of a model, by its place: ``blocks.0``, and ``blocks.0 backward`` for the other direction."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Core):
            block = name[name.index("blocks.") :].split(".mixer")[0] if "blocks." in name else name
            found[f"{block} backward" if name.endswith("backward_core") else block] = module
    return found
