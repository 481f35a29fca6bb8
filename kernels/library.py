"""Our operators in torch's library: schema, implementation, shapes for the compiler.

Plain registration, not ``torch.library.custom_op``: its wrapper imports the whole compiler at the first call, which
costs every process seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("genossm", "FRAGMENT")


GPU = ("CUDA", "CPU")
"""Where a Triton kernel may run: a GPU, and a CPU for Triton's interpreter (the launchers refuse it otherwise)."""


def _on_its_device(run: Callable[..., Any]) -> Callable[..., Any]:
    """``run`` with the device of its first tensor made current: Triton launches on the current one."""

    @functools.wraps(run)
    def guarded(first: Tensor, *rest: Any) -> Any:
        with torch.cuda.device(first.device):
            return run(first, *rest)

    return guarded


def define(
    name: str, run: Callable[..., Any], fake: Callable[..., Any], devices: tuple[str, ...] = ("CPU",)
) -> Callable[..., Any]:
    """The operator ``genossm::name``: its schema is read from the annotations of ``run``, which mutates nothing.

    Args:
        run: what runs on tensors of ``devices``.
        fake: the same signature; returns empty tensors of the right shapes, strides and dtypes.
        devices: dispatch keys.
    """
    _library.define(name + torch.library.infer_schema(run, mutates_args=()))
    for device in devices:
        _library.impl(name, _on_its_device(run) if device == "CUDA" else run, device)
    torch.library.register_fake(f"genossm::{name}", fake, lib=_library)
    return getattr(torch.ops.genossm, name).default
