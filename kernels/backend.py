"""Which implementation of an operator runs: chosen by device and dtype, with one override.

``GENOSSM_KERNELS`` may name a backend (``reference``, ``torch``, ``cpu``, ``triton``) for every operator that has it;
a backend that cannot take the tensors at hand is an error, never a silent detour.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

VARIABLE = "GENOSSM_KERNELS"


def pick(operator: str, backends: dict[str, Callable[..., Any]], default: str) -> Callable[..., Any]:
    """The implementation of ``operator`` to run: the environment's choice, else ``default``.

    Raises:
        ValueError: the environment names a backend that this operator does not have.
    """
    name = os.environ.get(VARIABLE) or default
    if name not in backends:
        raise ValueError(f"{VARIABLE}={name}: {operator} has no such backend; there is {', '.join(backends)}")
    return backends[name]


def default(*tensors: Tensor | None) -> str:
    """The backend for an operator's inputs: ``cpu`` for float32 there, ``triton`` on a GPU but for float64.

    Everything else (float64, which is for checks; half precision on a CPU, also in part, as autocast gives it; other
    devices) goes to ``torch``.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    device, types = given[0].device.type, {tensor.dtype for tensor in given}
    if device == "cpu" and types == {torch.float32}:
        return "cpu"
    if device == "cuda" and torch.float64 not in types:
        return "triton"
    return "torch"
