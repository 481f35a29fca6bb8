"""Our operators in torch's library: schema, implementation, shapes for the compiler.

Plain registration, not ``torch.library.custom_op``: its wrapper imports the whole compiler at the first call, which
costs every process seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("genossm", "FRAGMENT")


GPU = ("CUDA", "CPU")
"""Where a Triton kernel may run: a GPU, and a CPU for Triton's interpreter (the launchers refuse it otherwise)."""


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
        _library.impl(name, run, device)
    torch.library.register_fake(f"genossm::{name}", fake, lib=_library)
    return getattr(torch.ops.genossm, name).default
