"""The picture of a track: its mean in bins along every contig."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.figure import Figure

from genossm.errors import GenoSSMError
from genossm.files import atomic_path
from genossm.report.figures import MODEL, MUTED, STYLE

Stretch = tuple[str, int, npt.NDArray[np.float32]]
"""Contig, start, and values float32 (n,), NaN where there is none."""

BINS = 800
"""Along the longest contig."""
ROWS = 40
"""Contigs drawn, the longest; the title says how many there are."""
SUFFIXES = (".svg", ".png", ".pdf")


def check_picture(path: Path) -> None:
    """Refuse, before any work, a name that says no format.

    Raises:
        GenoSSMError: none of ``SUFFIXES``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise GenoSSMError(f"{path.suffix!r} is no picture; name it .svg, .png or .pdf", path=path)


def binned_means(
    contigs: Sequence[tuple[str, int]], stretches: Iterable[Stretch], width: int
) -> dict[str, npt.NDArray[np.float64]]:
    """The mean of the values in every ``width`` bp of every contig, float64 (bins,); NaN where there is none."""
    sums = {name: np.zeros((2, -(-length // width))) for name, length in contigs}
    for name, start, values in stretches:
        known = np.isfinite(values)
        place = (start + np.arange(len(values))) // width
        total, count = sums[name]
        total += np.bincount(place[known], values[known], minlength=len(total))
        count += np.bincount(place[known], minlength=len(count))
    with np.errstate(invalid="ignore"):
        return {name: total / count for name, (total, count) in sums.items()}


def save_track(path: Path, title: str, contigs: Sequence[tuple[str, int]], stretches: Iterable[Stretch]) -> None:
    """Draw a track, one row a contig on one scale; the file appears whole or not at all.

    Args:
        path: one of ``SUFFIXES``.
        contigs: names and lengths in bp. stretches: as for :func:`genossm.data.tracks.write_track`.
    """
    longest = max(length for _, length in contigs)
    width = max(1, -(-longest // BINS))
    means = binned_means(contigs, stretches, width)
    shown = {name for name, _ in sorted(contigs, key=lambda contig: -contig[1])[:ROWS]}
    rows = [(name, means[name]) for name, _ in contigs if name in shown]
    everything = np.concatenate(list(means.values()))
    known = everything[np.isfinite(everything)]
    low, middle, high = np.quantile(known, (0.001, 0.5, 0.999)) if len(known) else (-2.0, -1.4, -1.0)
    margin = 0.05 * float(high - low) or 0.01
    scale, unit = (1e6, "Mb") if longest >= 1e6 else (1e3, "kb") if longest >= 1e3 else (1.0, "bp")
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(9.4, 1.1 + 0.42 * len(rows)))
        grid = figure.subplots(len(rows), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(grid, rows, strict=True):
            x = (np.arange(len(values)) + 0.5) * width / scale
            axes.axhline(middle, color=MUTED, linewidth=0.6)
            axes.fill_between(x, values, middle, color=MODEL, linewidth=0, step="mid")
            axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
            axes.grid(visible=False)
            axes.tick_params(axis="y", labelsize=6)
        grid[0].set_ylim(low - margin, high + margin)
        more = f", the {len(rows)} longest of {len(contigs):,} contigs" if len(contigs) > len(rows) else ""
        grid[0].set_title(f"{title}: nats a base, mean of {width:,} bp, about the median{more}")
        grid[-1].set_xlabel(unit)
        with atomic_path(path) as temporary:
            metadata = {"Date": None, "Creator": None} if path.suffix.lower() == ".svg" else None
            figure.savefig(temporary, format=path.suffix.lstrip(".").lower(), dpi=160, metadata=metadata)
