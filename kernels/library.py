"""Our operators in torch's library: schema, CPU implementation, shapes for the compiler.

Plain registration, not ``torch.library.custom_op``: its wrapper imports the whole compiler at the first call, which
costs every process seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("genossm", "FRAGMENT")


def define(name: str, cpu: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """The operator ``genossm::name``: its schema is read from the annotations of ``cpu``, which mutates nothing.

    Args:
        cpu: what runs on CPU tensors.
        fake: the same signature; returns empty tensors of the right shapes, strides and dtypes.
    """
    _library.define(name + torch.library.infer_schema(cpu, mutates_args=()))
    _library.impl(name, cpu, "CPU")
    torch.library.register_fake(f"genossm::{name}", fake, lib=_library)
    return getattr(torch.ops.genossm, name).default
