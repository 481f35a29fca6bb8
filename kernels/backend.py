"""Which implementation of an operator runs: chosen by device and dtype, with one override.

``GENOSSM_KERNELS`` may name a backend (``reference``, ``torch``, ``cpu``) for every operator that has it; a
backend that cannot take the tensors at hand is an error, never a silent detour.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

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
