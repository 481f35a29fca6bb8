"""Mixers: what moves information along the sequence, behind one contract (``base.Mixer``)."""

from __future__ import annotations

from genossm.config import ModelConfig
from genossm.models.mixers.attention import Attention
from genossm.models.mixers.base import Mixer
from genossm.models.mixers.conv import Conv
from genossm.models.mixers.hyena import Hyena
from genossm.models.mixers.lti import CORES, LTI
from genossm.models.mixers.mamba import Mamba
from genossm.models.mixers.recurrent import Recurrent
from genossm.models.mixers.rwkv import RWKV, RWKVChannelMix
from genossm.models.mixers.ssd import SSD

MIXERS: dict[str, type[Mixer]] = {
    "mamba": Mamba,
    "ssd": SSD,
    "linear_attention": SSD,
    **dict.fromkeys(CORES, LTI),
    "hyena": Hyena,
    "rwkv4": RWKV,
    "rwkv7": RWKV,
    "rwkv_channel_mix": RWKVChannelMix,
    "attention": Attention,
    "local_attention": Attention,
    "lstm": Recurrent,
    "gru": Recurrent,
    "conv": Conv,
}
"""Every preset by its name in the configuration."""


def build_mixer(config: ModelConfig) -> Mixer:
    """The mixer that a configuration names, reading left to right."""
    return MIXERS[config.mixer](config)
