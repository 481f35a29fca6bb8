"""What a plain plot shows, as data: whoever measures needs no matplotlib; :mod:`genossm.report.science` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    """A curve: y against x, of one length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves over one pair of axes, or bars by name where ``bars`` is given.

    Attributes:
        lines: the curves.
        bars: name: value.
        levels: name: value, drawn across as a line to compare with.
        logx, logy: logarithmic axes (curves).
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line] = ()
    bars: dict[str, float] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    logx: bool = False
    logy: bool = False
