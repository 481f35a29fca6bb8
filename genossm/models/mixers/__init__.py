"""Mixers: what moves information along the sequence, behind one contract (``base.Mixer``)."""

from __future__ import annotations

from genossm.config import ModelConfig
from genossm.models.mixers.base import Mixer
from genossm.models.mixers.hyena import Hyena
from genossm.models.mixers.mamba import Mamba
from genossm.models.mixers.s4d import S4D
from genossm.models.mixers.ssd import SSD

MIXERS: dict[str, type[Mixer]] = {"mamba": Mamba, "s4d": S4D, "ssd": SSD, "linear_attention": SSD, "hyena": Hyena}


def build_mixer(config: ModelConfig) -> Mixer:
    """The mixer that a configuration names, reading left to right."""
    return MIXERS[config.mixer](config)
