"""GenoSSM: DNA language models with state-space layers, from a reference genome to scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genossm.stages.api import load as load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``genossm.load``, imported when it is asked for: the package alone needs no torch."""
    if name == "load":
        from genossm.stages.api import load

        return load
    raise AttributeError(f"module 'genossm' has no attribute {name!r}")
