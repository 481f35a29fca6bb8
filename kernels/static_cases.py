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


def _lti() -> dict[str, Case]:
    from genossm.kernels.lti import triton_op as op

    u, dy = _tensor(1, SEQLEN, DIM), _tensor(1, SEQLEN, DIM)
    lam, C = (_tensor(2, DIM, DSTATE, dtype=torch.float32) for _ in range(2))
    state = _tensor(2, 1, DIM, DSTATE, dtype=torch.float32)
    packed = _tensor(1, SEQLEN, dtype=torch.uint8)
    entries = _tensor(2, 1, SEQLEN // op.chunk_length(SEQLEN), DSTATE, DIM, dtype=torch.float32)
    cases = {}
    for name, marks, level in (("plain", None, 0), ("packed", packed, 2)):
        forward = partial(op.forward, u, lam, C, state, marks, level, False)
        backward = partial(op.backward, dy, state, u, lam, C, marks, level, entries, True)
        cases[f"forward {name}"] = Case(forward, SEQLEN, _size(u, dy, marks))
        cases[f"backward {name}"] = Case(backward, SEQLEN, _size(u, u, dy, marks))
    return cases


def _ssd() -> dict[str, Case]:
    from genossm.kernels.ssd import triton_op as op

    heads, headdim = 8, DIM // 8
    x, dy = _tensor(1, SEQLEN, heads, headdim), _tensor(1, SEQLEN, heads, headdim)
    delta, log_decay = (_tensor(1, SEQLEN, heads, dtype=torch.float32) for _ in range(2))
    D, packed = _tensor(heads, headdim, dtype=torch.float32), _tensor(1, SEQLEN, dtype=torch.uint8)
    cases = {}
    for name, dstate, reset in (("plain", DSTATE, None), ("64 packed", op.LARGEST_STATE, packed)):
        B, C = _tensor(1, SEQLEN, 1, dstate), _tensor(1, SEQLEN, 1, dstate)
        state = _tensor(1, heads, dstate, headdim, dtype=torch.float32)
        states = _tensor(1, SEQLEN // op.BLOCKS["sm_90"].chunk, heads, dstate, headdim, dtype=torch.float32)
        forward = partial(op.forward, x, delta, log_decay, B, C, D, state, reset, False)
        backward = partial(op.backward, dy, state, x, delta, log_decay, B, C, D, reset, states, True)
        read = _size(x, delta, B, C)
        cases[f"forward {name}"] = Case(forward, SEQLEN, read + _size(dy, reset))
        cases[f"backward {name}"] = Case(backward, SEQLEN, 2 * read + _size(dy, reset))
    return cases


def _causal_conv1d() -> dict[str, Case]:
    from genossm.kernels.causal_conv1d import triton_op as op

    x, dy, packed = _tensor(1, SEQLEN, DIM), _tensor(1, SEQLEN, DIM), _tensor(1, SEQLEN, dtype=torch.uint8)
    weight, bias = _tensor(DIM, WIDTH, dtype=torch.float32), _tensor(DIM, dtype=torch.float32)
    inputs = (x, weight, bias, None)
    return {
        "forward": Case(partial(op.forward, *inputs, None, None, True, False), SEQLEN, _size(x, dy)),
        "backward": Case(partial(op.backward, dy, *inputs, None, None, True, True), SEQLEN, _size(x, x, dy)),
        "backward packed": Case(
            partial(op.backward, dy, *inputs, packed, packed, True, False), SEQLEN, _size(x, x, dy, packed, packed)
        ),
    }


def _rms_norm() -> dict[str, Case]:
    from genossm.kernels.rms_norm import triton_op as op

    x, residual, weight = _tensor(SEQLEN, D_MODEL), _tensor(SEQLEN, D_MODEL), _tensor(D_MODEL, dtype=torch.float32)
    scale = _tensor(SEQLEN, dtype=torch.float32)
    return {
        "forward": Case(partial(op.forward, x, weight, residual, 1e-5), SEQLEN, 4 * _size(x)),
        "backward": Case(partial(op.backward, x, residual, residual, weight, scale), SEQLEN, 4 * _size(x)),
    }


def _cross_entropy() -> dict[str, Case]:
    from genossm.kernels.cross_entropy import triton_op as op

    hidden, weight, bias = _tensor(SEQLEN, D_MODEL), _tensor(16, D_MODEL), _tensor(16, dtype=torch.float32)
    labels, loss = _tensor(SEQLEN, dtype=torch.int64), _tensor(SEQLEN, dtype=torch.float32)
    arguments = (hidden, weight, bias, labels, -100)
    return {
        "forward": Case(partial(op.forward, *arguments), SEQLEN, _size(hidden, labels, loss)),
        "backward": Case(partial(op.backward, loss, *arguments), SEQLEN, _size(hidden, hidden, labels, loss)),
    }


def _embedding() -> dict[str, Case]:
    from genossm.kernels.embedding import triton_op as op

    ids, weight, dy = _tensor(SEQLEN, dtype=torch.int64), _tensor(16, D_MODEL), _tensor(SEQLEN, D_MODEL)
    return {
        "forward": Case(partial(op.forward, ids, weight), SEQLEN, _size(ids, dy)),
        "backward": Case(partial(op.backward, dy, ids, weight), SEQLEN, _size(ids, dy)),
    }


CASES: dict[str, dict[str, Case]] = {
    "selective_scan": _selective_scan(),
    "lti": _lti(),
    "ssd": _ssd(),
    "causal_conv1d": _causal_conv1d(),
    "rms_norm": _rms_norm(),
    "cross_entropy": _cross_entropy(),
    "embedding": _embedding(),
}
