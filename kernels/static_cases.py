"""The calls whose kernels ``static`` compiles: every operator at the sizes of a 131,072 bp layer, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

SEQLEN, DIM, D_MODEL, DSTATE, WIDTH = 131072, 512, 256, 16, 4


@dataclass(frozen=True)
class Case:
    """A call without memory behind its tensors, and the bytes that any implementation must move for it."""

    call: Callable[[], Any]
    tokens: int
    bytes: int


def _tensor(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _size(*tensors: Tensor | None) -> int:
    return sum(v.numel() * v.element_size() for v in tensors if v is not None)


def _selective_scan() -> dict[str, Case]:
    from genossm.kernels.selective_scan import triton_op as op

    u, dt, z, dy = (_tensor(1, SEQLEN, DIM) for _ in range(4))
    B, C = _tensor(1, SEQLEN, DSTATE), _tensor(1, SEQLEN, DSTATE)
    A, D, bias = _tensor(DIM, DSTATE, dtype=torch.float32), *(_tensor(DIM, dtype=torch.float32) for _ in range(2))
    state = _tensor(1, DIM, DSTATE, dtype=torch.float32)
    inputs = (u, dt, A, B, C, D, z, bias)
    packed = _tensor(1, SEQLEN, dtype=torch.uint8)
    entries = _tensor(1, SEQLEN // op.chunk_length(SEQLEN), DSTATE, DIM, dtype=torch.float32)
    cases = {}
    for name, marks, level in (("plain", None, 0), ("packed", packed, 2)):
        forward = partial(op.forward, *inputs, state, marks, level, True, False)
        backward = partial(op.backward, dy, state, *inputs, marks, level, entries, True, True)
        read = _size(u, dt, B, C, z)
        cases[f"forward {name}"] = Case(forward, SEQLEN, read + _size(dy, marks))
        cases[f"backward {name}"] = Case(backward, SEQLEN, 2 * read + _size(dy, marks))
    return cases


CASES: dict[str, dict[str, Case]] = {"selective_scan": _selective_scan()}
