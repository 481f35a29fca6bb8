"""What a claim's check gives: figures with the ranges that they were expected in, and a plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genossm.report.plots import Plot

Advance = Callable[[str], None]
"""Told of every part that is done, for the progress shown."""


@dataclass(frozen=True)
class Setting:
    """How a claim is to be checked.

    Attributes:
        seed: of every random choice.
        quick: seconds in place of minutes: shorter sequences and fewer steps of the same thing.
        advance: told of every part that is done.
    """

    seed: int = 0
    quick: bool = False
    advance: Advance = lambda part: None


@dataclass(frozen=True)
class Figure:
    """A measured number and the range, both ends included, that the claim lets expect.

    Attributes:
        judged: False where the setting is too short to tell, so that the number decides nothing.
    """

    what: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    judged: bool = True

    @property
    def expected(self) -> str:
        """The range in words; empty for a number that is only reported."""
        if self.low == -math.inf and self.high == math.inf:
            return ""
        if self.high == math.inf:
            return f">= {self.low:.4g}"
        if self.low == -math.inf:
            return f"<= {self.high:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"

    @property
    def verdict(self) -> str:
        """holds, does not hold here, too short to tell, or nothing for a number that is only reported."""
        if not self.expected:
            return ""
        if not self.judged:
            return "too short to tell"
        return "holds" if self.low <= self.value <= self.high else "does not hold here"


@dataclass(frozen=True)
class Claim:
    """A statement of the field, what was measured for it, and how that looks.

    Attributes:
        statement: the claim, one sentence.
        how: what was done, one sentence.
    """

    statement: str
    how: str
    figures: Sequence[Figure]
    plots: Sequence[Plot]

    @property
    def holds(self) -> bool | None:
        """Whether every judged figure lies in its range; None where none was judged."""
        verdicts = [figure.verdict for figure in self.figures]
        if "does not hold here" in verdicts:
            return False
        return True if "holds" in verdicts else None


Check = Callable[[Setting], Claim]
