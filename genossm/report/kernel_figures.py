"""The picture of ``genossm bench kernels``: time and memory a token against length, one panel an operator and pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from genossm.report.figures import PALETTE, _picture

COLUMNS = 3

Curves = Mapping[str, Sequence[tuple[int, float]]]


@_picture
def kernel_curves(panels: Mapping[str, tuple[str, Curves]]) -> Figure:
    """Panels by title, (label of the y axis, points by name), three in a row; a name has one colour in all of them."""
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.9 * rows))
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    names = list(dict.fromkeys(name for _, curves in panels.values() for name in curves))
    for axes, (title, (label, curves)) in zip(grid, panels.items(), strict=False):
        for name, points in curves.items():
            place = names.index(name)
            color, dash = PALETTE[place % len(PALETTE)], ("-", ":", "-.")[place // len(PALETTE) % 3]
            x, y = zip(*sorted(points), strict=True)
            axes.plot(x, y, dash, color=color, label=name, marker="o", markersize=3, linewidth=1.3)
        axes.set(title=title, xlabel="tokens", ylabel=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.legend(fontsize=6.5)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure
