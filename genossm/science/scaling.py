"""Time and memory against length, for every mixer: the slope of their logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from genossm.config import ModelConfig
from genossm.config.model import MixerName
from genossm.report.plots import Line, Plot
from genossm.science.cost import Cost, costs
from genossm.science.result import Claim, Figure, Setting

D_MODEL = 16
QUADRATIC = {"attention"}
LIMIT = 12.0
"""CPU seconds that a training pass may take."""


def config_of(mixer: MixerName, longest: int, d_model: int = D_MODEL) -> ModelConfig:
    """A narrow layer of a preset, long enough a filter included."""
    return ModelConfig(
        d_model=d_model, n_layer=1, mixer=mixer, expand=1, bidirectional=False, ssd={"headdim": d_model},
        rwkv={"headdim": d_model, "rank": 4}, attention={"headdim": d_model, "window": 256},
        hyena={"max_length": longest, "filter_order": 16},
    )  # fmt: skip


def slope(lengths: Sequence[int], values: Sequence[float]) -> float:
    """Of log value against log length, by least squares."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def fitted(found: Sequence[Cost], skip: int) -> tuple[float, float]:
    """Slopes of time and memory over the lengths that were run, the first ``skip`` left out where others remain."""
    run = [cost for cost in found if not cost.refused]
    run = run[min(skip, max(len(run) - 2, 0)) :]
    lengths = [cost.length for cost in run]
    return (
        slope(lengths, [cost.forward + cost.backward for cost in run]),
        slope(lengths, [max(cost.bytes, 1.0) for cost in run]),
    )


def check(setting: Setting) -> Claim:
    """Slopes of every preset, from 8,192 to 131,072 tokens as far as each gets."""
    lengths = [256, 512, 1024] if setting.quick else [2048, 8192, 32_768, 131_072]
    figures, time_lines, memory_lines = [], [], []
    for mixer in get_args(MixerName):
        found = costs(config_of(mixer, lengths[-1]), lengths, limit=LIMIT)
        run = [cost for cost in found if not cost.refused]
        of_time, of_memory = fitted(found, skip=1)
        low, high = (1.7, 2.3) if mixer in QUADRATIC else (0.6, 1.2)
        reach = f"{mixer}, to {run[-1].length:,} tokens"
        figures.append(Figure(f"time slope, {reach}", of_time, low, high, judged=not setting.quick))
        figures.append(Figure(f"memory slope, {reach}", of_memory, high=1.2, judged=not setting.quick))
        shown = [cost.length for cost in run]
        time_lines.append(Line(mixer, shown, [cost.forward + cost.backward for cost in run]))
        memory_lines.append(Line(mixer, shown, [max(cost.bytes, 1.0) / 1e6 for cost in run]))
        setting.advance(mixer)
    plots = [
        Plot("Time of a training pass", "tokens", "CPU seconds", time_lines, logx=True, logy=True),
        Plot("Memory of a training pass", "tokens", "MB", memory_lines, logx=True, logy=True),
    ]
    return Claim(
        "State-space models cost time and memory linear in length; attention takes time quadratic in it.",
        f"one causal layer of {D_MODEL} channels, forward and backward, batch 1, CPU time of the faster of two passes; "
        f"what would take over {LIMIT:g} s is left out; attention by PyTorch's kernel, whose memory is linear",
        figures,
        plots,
    )
