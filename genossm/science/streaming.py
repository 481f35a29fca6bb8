"""A million tokens through a state of constant size: it stays bounded, and the process does not grow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genossm.config.model import MixerName
from genossm.models.mixers import build_mixer
from genossm.report.plots import Line, Plot
from genossm.science.result import Claim, Figure, Setting
from genossm.science.scaling import config_of

MIXERS: tuple[MixerName, ...] = (
    "s4", "s4d", "dss", "lssl", "s5", "liquid_s4", "mamba", "ssd", "rwkv4", "rwkv7", "lstm", "gru"
)  # fmt: skip
UNBOUNDED: MixerName = "linear_attention"
"""Without decay: the counterexample."""
DRIFT = 5.0
"""MB that the process may grow over the second half."""


def resident_mb() -> float:
    """Memory of this process in MB; NaN where the system does not say."""
    if not sys.platform.startswith("linux"):
        return float("nan")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def tensors(state: Any) -> Iterator[Tensor]:
    """The tensors of a state, however nested."""
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from tensors(part)


@torch.inference_mode()
def stream(mixer: MixerName, total: int, chunk: int, seed: int) -> tuple[list[float], list[float], set[int]]:
    """Noise through one layer, chunk after chunk.

    Returns:
        The largest entry of the state after every chunk, the memory of the process in MB then, and the sizes in bytes
        that the state ever had.
    """
    torch.manual_seed(seed)
    layer, state = build_mixer(config_of(mixer, chunk)), None
    largest, memory, sizes = [], [], set()
    for _ in range(total // chunk):
        y, state = layer(torch.randn(1, chunk, layer.config.d_model), state=state)
        parts = list(tensors(state))
        if not torch.isfinite(y).all():
            raise ArithmeticError(f"{mixer}: an output that is no number")
        largest.append(max(float(part.abs().max()) for part in parts))
        sizes.add(sum(part.numel() * part.element_size() for part in parts))
        memory.append(resident_mb())
    return largest, memory, sizes


def check(setting: Setting) -> Claim:
    """The growth of state and process over 2^20 tokens, for every mixer with a state of constant size."""
    total, chunk = (1 << 13, 1 << 9) if setting.quick else (1 << 20, 1 << 15)
    places = [chunk * (i + 1) for i in range(total // chunk)]
    half = len(places) // 2
    lines, growth, drift, varying = [], {}, {}, []
    for mixer in (*MIXERS, UNBOUNDED):
        largest, memory, sizes = stream(mixer, total, chunk, setting.seed)
        lines.append(Line(mixer, places, largest, dashed=mixer == UNBOUNDED))
        growth[mixer] = max(largest[half:]) / max(largest[:half])
        drift[mixer] = memory[-1] - memory[half]
        if len(sizes) > 1:
            varying.append(mixer)
        setting.advance(mixer)
    free = growth.pop(UNBOUNDED)
    figures = [
        Figure(f"state, second half over first, largest of {len(growth)} mixers", max(growth.values()), high=1.5),
        Figure(f"the same of {UNBOUNDED}, which has no decay", free),
        Figure("mixers whose state changes its size", len(varying), high=0),
        Figure("growth of the process in the second half, MB, largest", max(drift.values()), high=DRIFT),
    ]
    plot = Plot("Largest entry of the state", "tokens read", "absolute value", lines, logx=True, logy=True)
    return Claim(
        "A state of constant size reads a million tokens without growing, in value or in memory.",
        f"{total:,} tokens of noise, in chunks of {chunk:,} with the state carried, one layer of 16 channels, float32",
        figures,
        [plot],
    )
