"""The GPUs that the Triton kernels are shaped for, and what every launcher shares.

Block shapes come from one table a kernel family, chosen from static figures (registers, spills, instructions of the
time loop; ``python -m genossm.kernels.static`` prints them) and never by timing at the first call. They depend on the
GPU and on the length of the sequence alone, so a row's bits do not depend on what else is in its batch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETER = "interpreter"


@dataclass(frozen=True)
class ScanBlocks:
    """Programs of a chunked scan.

    Attributes:
        channels, warps: of a program in the forward kernels, and in the walk that prepares backward.
        back_channels, back_warps: of a program in the backward kernel.
        block: tokens whose states backward holds in registers; a power of two.
    """

    channels: int
    warps: int
    back_channels: int
    back_warps: int
    block: int


@dataclass(frozen=True)
class RowBlocks:
    """Programs of an operator without a recurrence.

    Attributes:
        elements: numbers a program holds of each input at a time.
        warps: of a program.
    """

    elements: int
    warps: int


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def target(device: torch.device) -> str:
    """The row of the block tables for a device.

    Raises:
        ValueError: a device that Triton cannot run on.
    """
    if device.type == "cpu" and interpreted():
        return INTERPRETER
    if device.type != "cuda":
        raise ValueError(f"the triton backend runs on a GPU, not on {device} (TRITON_INTERPRET=1 runs it on a CPU)")
    if torch.version.hip is not None:
        return "gfx942"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise ValueError(f"the triton backend needs compute capability 8.0 or newer, not {major}.{minor}")
    return {8: "sm_80", 9: "sm_90"}.get(major, "sm_100")


def chunk_length(seqlen: int) -> int:
    """Tokens of a chunk: enough chunks for a GPU where one sequence is all there is, few states to keep where not."""
    return 64 if seqlen <= 8192 else 128 if seqlen <= 65536 else 256


def check(operator: str, **tensors: Tensor | None) -> None:
    """Raises ValueError, naming the tensor, unless all given ones are on one device in a dtype that kernels take."""
    devices = {v.device for v in tensors.values() if v is not None}
    if len(devices) > 1:
        raise ValueError(
            f"the triton backend of {operator} takes tensors of one device, not {sorted(map(str, devices))}"
        )
    for name, value in tensors.items():
        if value is not None and value.dtype not in FLOATS:
            raise ValueError(
                f"the triton backend of {operator} takes float32, bfloat16 or float16; {name} is {value.dtype}"
            )


def marks(mask: Tensor | None, resets: Tensor | None) -> tuple[Tensor | None, int]:
    """One byte a token, 1 = padding and 2 = cleared before it, and the largest of them that can occur."""
    if mask is None and resets is None:
        return None, 0
    padding = None if mask is None else (~mask).to(torch.uint8)
    if resets is None:
        assert padding is not None
        return padding.contiguous(), 1
    cut = resets.to(torch.uint8) * 2
    return (cut if padding is None else cut + padding).contiguous(), 2


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least ``number``: what a block of Triton must span."""
    return 1 << max(0, number - 1).bit_length()
