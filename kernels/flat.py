"""Tensors as flat numpy arrays for the CPU kernels: a base, and strides counted in numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Flat = npt.NDArray[np.float32]


def rows(tensor: Tensor) -> Tensor:
    """``tensor`` itself if its last axis is dense in memory, else a copy that is."""
    return tensor if tensor.shape[-1] == 1 or tensor.stride(-1) == 1 else tensor.contiguous()


def flat(tensor: Tensor) -> npt.NDArray[np.generic]:
    """The memory that ``tensor`` spans, as a 1-D array that shares it; offsets follow ``tensor.stride()``."""
    if tensor.numel() == 0:
        return tensor.detach().reshape(-1).numpy()
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return torch.as_strided(tensor.detach(), (span,), (1,)).numpy()


CHANNELS = 128
"""Channels of one task of a CPU kernel: its tiles fit the second cache level, and small models feed two cores."""

NONE = torch.zeros(1)
NO_BYTES = torch.zeros(1, dtype=torch.uint8)


class Layout:
    """Strides and offsets of a tensor (batch, seqlen, ...) in reading order; all zero for None."""

    def __init__(self, tensor: Tensor | None, reverse: bool) -> None:
        self.row = self.step = self.start = 0
        if tensor is not None:
            self.row, self.step = tensor.stride(0), tensor.stride(1)
            if reverse:
                self.start, self.step = (tensor.shape[1] - 1) * self.step, -self.step

    def at(self, batch: int, channel: int = 0) -> int:
        """Offset of the first token read of a batch row."""
        return batch * self.row + self.start + channel


def lanes() -> int:
    """Channels of one SIMD vector on this host."""
    from genossm.kernels.vector import LANES

    return LANES


def tasks(batch: int, dim: int) -> list[tuple[int, int, int]]:
    """(batch row, first channel, groups of lanes) of every task: by shape alone, never by the number of threads."""
    width = lanes()
    return [(b, c, min(CHANNELS, dim - c) // width) for b in range(batch) for c in range(0, dim, CHANNELS)]
