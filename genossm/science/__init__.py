"""The scientific claims about state-space models, each checked on the user's own machine, one file a claim."""

from __future__ import annotations

import importlib

from genossm.science.result import Check

CLAIMS = (
    "memory_capacity", "linear_probe", "reconstruction", "s4_kernel", "resolution", "gradients", "streaming", "scaling",
    "ablation", "marker_recall", "induction_heads", "listops",
)  # fmt: skip
"""Every claim by the name of its module: mathematics first, training last."""


def check_of(name: str) -> Check:
    """The check of a claim; its module is imported now."""
    check: Check = importlib.import_module(f"genossm.science.{name}").check
    return check
