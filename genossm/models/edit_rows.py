"""What goes into and comes out of reading an edited window: data alone; :mod:`genossm.models.edits` uses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

Tokens = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Edit:
    """Bases [start, end) of a window replaced by ``tokens``, uint8."""

    start: int
    end: int
    tokens: Tokens


@dataclass(frozen=True)
class Effect:
    """The scores of an edit, defined in :mod:`genossm.models.edits`; NaN for one that was not asked for."""

    site: float
    window: float
    distance: float


@dataclass(frozen=True, slots=True)
class Row:
    """Inputs [start, end) of a strand's window read again, with [at, at + k) replaced by ``tokens``."""

    strand: int
    start: int
    end: int
    at: int
    k: int
    tokens: Tokens

    @property
    def length(self) -> int:
        """Tokens to read."""
        return self.end - self.start + len(self.tokens) - self.k


@dataclass(frozen=True)
class Result:
    """What was read in a row.

    Attributes:
        log_probs: float64 (length, 4). hidden: (length, width).
        leaving: how far the states that leave the region are from those of the unedited window, relative, at most.
        outside: the change of the sum of log P of the bases outside the region, to the first order.
    """

    row: Row
    log_probs: Floats
    hidden: Tensor
    leaving: float
    outside: float
