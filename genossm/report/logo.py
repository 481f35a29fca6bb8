"""Sequence logos: letters as high as what they stand for (Schneider and Stephens 1990)."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from genossm.errors import GenoSSMError
from genossm.files import atomic_path

Floats = npt.NDArray[np.float64]

LETTERS = "ACGT"
COLORS = {"A": "#2f855a", "C": "#0b6e99", "G": "#d9822b", "T": "#d64545"}
WIDEST = 400
"""Positions beyond which letters cannot be told apart: one picture shows no more."""
_INCHES = 0.14


def information(probabilities: Floats) -> Floats:
    """Heights in bits (n, 4) of a logo of probabilities (n, 4): each base's share of 2 - entropy."""
    logs = np.log2(np.clip(probabilities, 1e-12, None))
    return probabilities * (2 + (probabilities * logs).sum(1, keepdims=True))


@functools.cache
def _glyph(letter: str) -> TextPath:
    return TextPath((0, 0), letter, size=1, prop={"family": "DejaVu Sans", "weight": "bold"})  # type: ignore[arg-type]


def draw_logo(axes: Axes, heights: Floats, first: int) -> None:
    """Stack letters of ``heights`` (n, 4) at positions ``first``, ``first`` + 1 ...; negative ones hang down."""
    for place, column in enumerate(heights, start=first):
        for sign in (1, -1):
            base = 0.0
            for letter in np.argsort(sign * column, kind="stable"):
                height = float(sign * column[letter])
                if height <= 0:
                    continue
                box = _glyph(LETTERS[letter]).get_extents()
                fit = Affine2D().translate(-box.x0, -box.y0).scale(0.92 / box.width, height / box.height)
                shift = Affine2D().translate(place - 0.46, base if sign > 0 else -base - height)
                patch = PathPatch(_glyph(LETTERS[letter]), lw=0, fc=COLORS[LETTERS[letter]])
                patch.set_transform(fit + shift + axes.transData)
                axes.add_patch(patch)
                base += height
    top = max(float(np.clip(heights, 0, None).sum(1).max(initial=0)), 1e-6)
    bottom = float(np.clip(heights, None, 0).sum(1).min(initial=0))
    axes.set_xlim(first - 0.6, first + len(heights) - 0.4)
    axes.set_ylim(1.08 * bottom, 1.08 * top)
    axes.spines[["top", "right"]].set_visible(False)
    if bottom < 0:
        axes.axhline(0, lw=0.6, color="#7b8794")


def save_logo(path: Path, title: str, first: int, probabilities: Floats, attribution: Floats) -> None:
    """A picture of two logos: what the model expects, in bits, and what each base of the sequence contributes.

    Args:
        path: .png, .svg or .pdf; appears whole or not at all.
        first: position of the first base, from 1. probabilities, attribution: (n, 4).
    """
    with style.context("default"):
        figure = Figure(figsize=(max(6.0, _INCHES * len(probabilities)), 3.6), layout="constrained")
        expected, contributed = figure.subplots(2, 1, sharex=True)
        draw_logo(expected, information(probabilities), first)
        expected.set_ylabel("bits")
        expected.set_title(title, loc="left", fontsize=10, fontweight="bold")
        draw_logo(contributed, attribution, first)
        contributed.set_ylabel("gradient")
        contributed.set_xlabel("position")
        contributed.ticklabel_format(useOffset=False, style="plain", axis="x")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lstrip(".").lower(), dpi=160)


def check_logo(path: Path, positions: int) -> None:
    """Refuse, before any work, a picture that cannot be made.

    Raises:
        GenoSSMError: no format by this name, or too many positions.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise GenoSSMError(f"{path.suffix!r} is no picture; name it .png, .svg or .pdf", path=path)
    if positions > WIDEST:
        raise GenoSSMError(f"a logo of {positions:,} positions; {WIDEST} at most can be read", path=path)
