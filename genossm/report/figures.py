"""The pictures of the report, as SVG: the same data give the same bytes."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from genossm.report.plots import Plot

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
MODEL, BASELINE, TWIN = "#0b6e99", "#d9822b", "#8a94a6"
SPLIT_COLORS = {"train": "#8fc1d9", "valid": "#f0b429", "test": "#d64545"}
UNUSED = "#f0f2f5"
LETTER_COLORS = {"A": "#2f855a", "C": "#0b6e99", "G": "#d9822b", "T": "#d64545"}
PALETTE = (MODEL, BASELINE, TWIN, "#2f855a", "#6b46c1", "#b83280")

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    # Text as outlines: the page looks the same on every machine. A fixed salt: the same ids in every run.
    "svg.fonttype": "path",
    "svg.hashsalt": "genossm",
}

P = ParamSpec("P")


def _picture(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Make ``draw`` return an SVG document, in the report's style whatever the user's matplotlibrc says."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        buffer = io.StringIO()
        with style.context(["default", STYLE]):
            metadata = {"Date": None, "Creator": None}
            draw(*args, **kwargs).savefig(buffer, format="svg", metadata=metadata, transparent=True)
        return buffer.getvalue()

    return drawn


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


@dataclass(frozen=True)
class Level:
    """A value to compare with, drawn as a line across."""

    name: str
    value: float
    color: str


def running_mean(values: Sequence[float], width: int) -> npt.NDArray[np.float64]:
    """The mean over ``width`` neighbours, over those that there are at the ends; shape (len(values),)."""
    weights = np.ones(min(width, len(values)))
    total = np.convolve(values, weights, "same")
    return np.asarray(total / np.convolve(np.ones(len(values)), weights, "same"))


@_picture
def loss_curve(
    train: Sequence[tuple[int, float]], valid: Sequence[tuple[int, float]], levels: Sequence[Level]
) -> Figure:
    """Training loss (points and running mean) and validation loss by step, against levels; nats per base."""
    figure, axes = _axes(7.2, 3.6)
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, ".", color=MODEL, alpha=0.18, markersize=2.5, markeredgewidth=0)
        smooth = running_mean(losses, max(1, len(losses) // 30))
        axes.plot(steps, smooth, color=MODEL, alpha=0.65, linewidth=1.3, label="training (running mean)")
    if valid:
        axes.plot(*zip(*valid, strict=True), "o-", color=INK, linewidth=1.4, markersize=4, label="validation")
    for level in levels:
        axes.axhline(level.value, color=level.color, linestyle="--", linewidth=1.1, label=level.name)
    shown = [value for _, value in [*train[len(train) // 20 :], *valid]] + [level.value for level in levels]
    if shown:
        low, high = float(np.quantile(shown, 0.005)), float(np.quantile(shown, 0.995))
        low, high = (min([low, *(v.value for v in levels)]), max([high, *(v.value for v in levels)]))
        margin = 0.08 * (high - low) or 0.01
        axes.set_ylim(low - margin, high + margin)
    axes.set(title="Loss", xlabel="step", ylabel="nats per base")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    return figure


@_picture
def baseline_bars(by_k: Mapping[int, float], best_k: int, model: float | None, uniform: float) -> Figure:
    """The count baseline's loss for every k, beside the model's and the uniform one; nats per base."""
    figure, axes = _axes(7.2, 3.0)
    ks = sorted(by_k)
    colors = [BASELINE if k == best_k else "#f3cfa3" for k in ks]
    axes.bar([str(k) for k in ks], [by_k[k] for k in ks], color=colors, width=0.72)
    for place, k in enumerate(ks):
        axes.annotate(f"{by_k[k]:.3f}", (place, by_k[k]), ha="center", va="bottom", fontsize=7.5)
    axes.axhline(uniform, color=MUTED, linestyle="--", linewidth=1.1, label=f"uniform, {uniform:.4f}")
    if model is not None:
        axes.axhline(model, color=MODEL, linewidth=1.6, label=f"the model, {model:.4f}")
    values = [*by_k.values(), uniform, *([model] if model is not None else [])]
    spread = max(values) - min(values) or 0.01
    axes.set_ylim(min(values) - 0.35 * spread, max(values) + 0.15 * spread)
    axes.grid(visible=False, axis="x")
    axes.set(title="Count baseline by k", xlabel="k, bases of context (the axis does not begin at 0)")
    axes.set_ylabel("nats per base")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    return figure


@_picture
def roc_curves(
    curves: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], areas: Mapping[str, float | None]
) -> Figure:
    """ROC curves by name: (false positive rates, true positive rates); the areas stand in the legend."""
    figure, axes = _axes(3.1, 3.0)
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
    for (name, (false_rate, true_rate)), color in zip(curves.items(), PALETTE * 9, strict=False):
        area = areas.get(name)
        label = name if area is None else f"{name}, {area:.3f}"
        axes.plot(false_rate, true_rate, color=color, linewidth=1.6, label=label, drawstyle="steps-post")
    axes.set(title="ROC (area)", xlabel="false positive rate", ylabel="true positive rate")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower right", fontsize=8)
    return figure


@_picture
def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str], title: str) -> Figure:
    """Counts by true class (row) and predicted class (column); the shade is the share of the row."""
    counts = np.asarray(matrix, dtype=np.int64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 1.0 + 0.5 * len(labels)
    figure, axes = _axes(size, size + 0.15)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        color = "white" if share[row, column] > 0.55 else INK
        text = f"{counts[row, column]:,}\n{share[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8, rotation=90, va="center")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title=title, xlabel="predicted", ylabel="true")
    return figure


@_picture
def histogram(groups: Mapping[str, Sequence[float]], title: str, xlabel: str) -> Figure:
    """How values are distributed, one outline a group."""
    figure, axes = _axes(5.4, 3.0)
    together = np.concatenate([np.asarray(values, dtype=np.float64) for values in groups.values()])
    edges = np.histogram_bin_edges(together, bins=min(60, max(8, int(len(together) ** 0.5)))).tolist()
    for (name, values), color in zip(groups.items(), PALETTE * 9, strict=False):
        axes.hist(values, edges, histtype="stepfilled", color=color, alpha=0.28)
        axes.hist(values, edges, histtype="step", color=color, linewidth=1.4, label=f"{name} ({len(values):,})")
    axes.set(title=title, xlabel=xlabel, ylabel="records")
    axes.legend(fontsize=8.5)
    return figure


@dataclass(frozen=True)
class ContigBar:
    """A contig of the window map: its length in bp, and the starts of its windows by split."""

    name: str
    length: int
    windows: Mapping[str, Sequence[int]]


@_picture
def window_map(contigs: Sequence[ContigBar], window: int) -> Figure:
    """Every contig as a bar, its windows coloured by the split that they are in."""
    figure, axes = _axes(9.4, 0.9 + 0.24 * len(contigs))
    scale, unit = (1e6, "Mb") if max(c.length for c in contigs) >= 1e6 else (1e3, "kb")
    for row, contig in enumerate(contigs):
        axes.broken_barh([(0, contig.length / scale)], (row - 0.36, 0.72), facecolor=UNUSED, edgecolor=GRID)
        for split, starts in contig.windows.items():
            bars = [(start / scale, window / scale) for start in starts]
            axes.broken_barh(bars, (row - 0.36, 0.72), facecolor=SPLIT_COLORS[split], edgecolor="white", linewidth=0.4)
    axes.set_yticks(range(len(contigs)), [contig.name for contig in contigs])
    axes.set_ylim(len(contigs) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set(title="Windows by split", xlabel=unit)
    handles = [Patch(facecolor=color, label=split) for split, color in SPLIT_COLORS.items()]
    handles.append(Patch(facecolor=UNUSED, edgecolor=GRID, label="in no window"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    return figure


@_picture
def durations(seconds: Mapping[str, float]) -> Figure:
    """How long each job took, in seconds."""
    figure, axes = _axes(7.2, 0.8 + 0.24 * len(seconds))
    axes.barh(list(seconds), list(seconds.values()), color=MODEL, height=0.66)
    for place, value in enumerate(seconds.values()):
        axes.annotate(f" {value:,.1f}", (value, place), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(title="Time by job", xlabel="seconds")
    axes.margins(x=0.12)
    return figure


@dataclass(frozen=True)
class MemoryRow:
    """One core of the memory figure.

    Half-lives in bp, time steps and kernels (channels, bp) where there are any, and effective memory in bp.
    """

    name: str
    half_life: npt.NDArray[np.float64]
    dt: npt.NDArray[np.float64] | None
    kernel: npt.NDArray[np.float64] | None
    effective: npt.NDArray[np.float64]


def _log_histogram(axes: Axes, values: npt.NDArray[np.float64], color: str) -> None:
    """How the logarithms of what is finite and positive are distributed; a word where there is nothing."""
    finite = values[np.isfinite(values) & (values > 0)]
    if len(finite):
        axes.hist(np.log10(finite), bins=24, color=color)
    else:
        axes.text(0.5, 0.5, "never forgets", transform=axes.transAxes, ha="center", va="center", color=MUTED)


@_picture
def memory(rows: Sequence[MemoryRow]) -> Figure:
    """Half-lives, time steps, effective memory and kernels of every core, one row a core."""
    figure = Figure(figsize=(11.6, 0.6 + 1.5 * len(rows)))
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for (decay, step, effective, response), row in zip(grid, rows, strict=True):
        _log_histogram(decay, row.half_life, MODEL)
        _log_histogram(effective, row.effective, TWIN)
        decay.set_ylabel(row.name, fontsize=8)
        if row.dt is None:
            step.set_axis_off()
        else:
            step.hist(np.log10(row.dt), bins=24, color=BASELINE)
        if row.kernel is None:
            response.set_axis_off()
        else:
            lag = np.arange(1, row.kernel.shape[1] + 1)
            for channel in row.kernel[:: -(-len(row.kernel) // 4)]:
                response.plot(lag, channel / np.abs(channel).max(), linewidth=0.7)
            response.set_xscale("log")
    for axes, title, label in zip(
        grid[0],
        ("Half-life", "Time step", "90 % of the energy", "Kernel, four channels"),
        ("log10 bp", "log10 dt", "within log10 bp", "lag in bp"),
        strict=True,
    ):
        axes.set_title(title)
        grid[-1][list(grid[0]).index(axes)].set_xlabel(label)
    return figure


@_picture
def attribution(
    sequence: str, gradient: npt.NDArray[np.float64], mutagenesis: npt.NDArray[np.float64], title: str
) -> Figure:
    """Two rows of letters as high as what they add: (bp,) gradient times input, and (bp,) the loss by mutation."""
    figure = Figure(figsize=(min(14.0, 1.2 + 0.11 * len(sequence)), 2.6))
    grid = figure.subplots(2, 1, sharex=True)
    for axes, heights, name in zip(grid, (gradient, mutagenesis), ("gradient", "mutation"), strict=True):
        for place, (letter, height) in enumerate(zip(sequence, heights, strict=True)):
            color = LETTER_COLORS.get(letter, MUTED)
            axes.bar(place, height, width=0.9, color=color)
            if len(sequence) <= 120:
                axes.annotate(letter, (place, height), ha="center", va="bottom" if height >= 0 else "top", fontsize=6.5)
        axes.set_ylabel(name, fontsize=8)
        axes.margins(x=0.005, y=0.18)
    grid[0].set_title(title)
    return figure


@_picture
def plain(plot: Plot) -> Figure:
    """The curves of a plot, or its bars; what is not positive is left out of a logarithmic axis."""
    figure, axes = _axes(7.2, 3.6 if not plot.bars else 0.9 + 0.3 * len(plot.bars))
    if plot.bars:
        _draw_bars(axes, plot)
    many = len(plot.lines) > len(PALETTE)
    colors = matplotlib.colormaps["tab20"].colors if many else PALETTE  # type: ignore[attr-defined]
    for index, line in enumerate(plot.lines):
        style_ = "--" if line.dashed else ("-", ":")[index // len(colors) % 2]
        marker = "o" if len(line.x) <= 16 else ""
        color = colors[index % len(colors)]
        axes.plot(line.x, line.y, style_, color=color, label=line.name, marker=marker, markersize=3, linewidth=1.3)
    if not plot.bars:
        for name, value in plot.levels.items():
            axes.axhline(value, color=MUTED, linestyle="--", linewidth=1.1, label=name)
        axes.set(xscale="log" if plot.logx else "linear", yscale="log" if plot.logy else "linear")
        axes.set(xlabel=plot.xlabel, ylabel=plot.ylabel)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7 if many else 8.5)
    axes.set_title(plot.title)
    return figure


def _draw_bars(axes: Axes, plot: Plot) -> None:
    """Bars from left to right, each with its value, and the levels across them."""
    axes.barh(list(plot.bars), list(plot.bars.values()), color=MODEL, height=0.66)
    if plot.logy:
        axes.set_xscale("log")
    for place, value in enumerate(plot.bars.values()):
        axes.annotate(f" {value:.3g}", (value, place), va="center", fontsize=8)
    for name, value in plot.levels.items():
        axes.axvline(value, color=BASELINE, linestyle="--", linewidth=1.1, label=name)
    if plot.levels:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.set(xlabel=plot.ylabel)
