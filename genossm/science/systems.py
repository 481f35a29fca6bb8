"""Every system that has a preset: its name in the literature, and the laws that its layer is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genossm.config import ModelConfig
from genossm.config.model import LETTERS, MixerName
from genossm.models import build_model
from genossm.models.mixers import build_mixer
from genossm.models.mixers.base import Mixer

LAWS = {
    1: "forward equals the folded steps",
    2: "any chunking with a carried state equals one pass",
    3: "padding and packing change nothing",
    4: "no output depends on a later token",
    5: "the logits of the other strand are the complement's, reversed",
}
BOUND = 1e-9
"""Of a law in float64, relative to the largest output."""

SYSTEMS: dict[MixerName, str] = {
    "s4": "S4 (HiPPO, DPLR, bilinear)",
    "s4d": "S4D",
    "dss": "DSS",
    "lssl": "LSSL",
    "lssl_fixed": "LSSL, A and dt fixed",
    "s5": "S5",
    "liquid_s4": "Liquid-S4",
    "mamba": "Mamba (S6)",
    "ssd": "Mamba-2 (SSD)",
    "linear_attention": "linear attention",
    "hyena": "Hyena",
    "rwkv4": "RWKV-4",
    "rwkv7": "RWKV-7",
    "rwkv_channel_mix": "RWKV channel mix",
    "attention": "attention, rotary",
    "local_attention": "attention in a window",
    "lstm": "LSTM",
    "gru": "GRU",
    "conv": "dilated CNN",
}
"""Preset: system."""
HYBRID = "MMMA"
"""A pattern is a preset, too: its laws are those of its letters."""


@dataclass
class Kept:
    """What came of the laws: the largest relative error of those that were checked, and those that are refused."""

    errors: dict[int, float] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The numbers of the laws that are kept, as ``1 2 3 4 5``; a broken one with an exclamation mark."""
        found = [f"{law}" if error <= BOUND else f"{law}!" for law, error in sorted(self.errors.items())]
        return " ".join(found)


def small_config(mixer: MixerName, **changes: Any) -> ModelConfig:
    """A preset, small enough to be checked in a moment."""
    return ModelConfig(
        d_model=12, n_layer=1, mixer=mixer, d_state=6, bidirectional=False, objective="causal",
        ssd={"headdim": 6, "n_groups": 2}, hyena={"max_length": 128, "filter_order": 8},
        rwkv={"headdim": 4, "rank": 3}, attention={"headdim": 4, "window": 9}, conv={"kernel": 3, "layers": 3},
    ).model_copy(update=changes)  # fmt: skip


def relative(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((got - wanted).detach().abs().max() / wanted.detach().abs().max())


def steps(mixer: Mixer, x: Tensor) -> float:
    """Law 1: token by token against all at once."""
    state, outputs = mixer.init_state(len(x)), []
    for token in x.unbind(1):
        y, state = mixer.step(token, state)
        outputs.append(y)
    return relative(torch.stack(outputs, dim=1), mixer(x)[0])


def chunks(mixer: Mixer, x: Tensor) -> float:
    """Law 2: chunks of 1, 7 and the rest against all at once."""
    mixer.check_stateful()
    state, outputs = None, []
    for part in x.split([1, 7, x.shape[1] - 8], dim=1):
        y, state = mixer(part, state=state)
        outputs.append(y)
    return relative(torch.cat(outputs, dim=1), mixer(x)[0])


def neighbours(mixer: Mixer, x: Tensor) -> float:
    """Law 3: between padding, and packed behind another sequence, against alone."""
    alone = mixer(x)[0]
    noise = torch.randn(x.shape[0], 9, x.shape[2], dtype=x.dtype)
    mask = torch.zeros(x.shape[0], x.shape[1] + 18, dtype=torch.bool)
    mask[:, 9:-9] = True
    padded = mixer(torch.cat([noise, x, noise], dim=1), mask=mask)[0][:, 9:-9]
    segments = torch.cat([torch.zeros(9), torch.ones(x.shape[1])]).long().expand(len(x), -1)
    packed = mixer(torch.cat([noise, x], dim=1), segments=segments)[0][:, 9:]
    return max(relative(padded, alone), relative(packed, alone))


def causality(mixer: Mixer, x: Tensor) -> float:
    """Law 4: what the outputs before a changed token move."""
    place = x.shape[1] // 2
    changed = x.clone()
    changed[:, place] += 1
    y, z = mixer(x)[0], mixer(changed)[0]
    return relative(y[:, :place], z[:, :place])


def strands(mixer: Mixer, x: Tensor) -> float:
    """Law 5: a reverse-complement equivariant model of this mixer in both directions, on both strands of a sequence."""
    options = {"bidirectional": True, "objective": "masked", "rc_equivariant": True}
    model = build_model(ModelConfig(**{**mixer.config.model_dump(), **options})).double().eval()
    ids = torch.randint(7, 11, x.shape[:2])
    return relative(model(model.complement[ids].flip(1)).logits.flip(1)[..., model.complement], model(ids).logits)


CHECKS: dict[int, Callable[[Mixer, Tensor], float]] = {1: steps, 2: chunks, 3: neighbours, 4: causality, 5: strands}


@torch.inference_mode()
def laws(mixer: MixerName, seed: int = 0) -> Kept:
    """Check the five laws for a preset in float64; one that it refuses is no law that it keeps."""
    torch.manual_seed(seed)
    layer = build_mixer(small_config(mixer)).double()
    x = torch.randn(2, 40, layer.config.d_model, dtype=torch.float64)
    kept = Kept()
    for law, check in CHECKS.items():
        try:
            kept.errors[law] = check(layer, x)
        except ValueError:
            kept.refused.append(law)
    return kept


@torch.inference_mode()
def float32_error(mixer: MixerName, seqlen: int = 1000, seed: int = 0) -> float:
    """The layer in float32 as it is used against the same weights in float64, relative, over ``seqlen`` tokens."""
    torch.manual_seed(seed)
    config = small_config(mixer)
    config = config.model_copy(update={"hyena": config.hyena.model_copy(update={"max_length": seqlen})})
    layer = build_mixer(config)
    x = torch.randn(2, seqlen, config.d_model)
    return relative(layer(x)[0].double(), layer.double()(x.double())[0])


def hybrid_laws(pattern: str = HYBRID) -> Kept:
    """Those of every letter at once: the largest error, and what any of them refuses."""
    together = Kept()
    for mixer in dict.fromkeys(LETTERS[letter] for letter in pattern):
        kept = laws(mixer)
        together.refused += kept.refused
        for law, error in kept.errors.items():
            together.errors[law] = max(error, together.errors.get(law, 0.0))
    for law in together.refused:
        together.errors.pop(law, None)
    return together


def timed_config(mixer: MixerName, d_model: int, lengths: Sequence[int]) -> ModelConfig:
    """The preset as it comes, at a width; causal."""
    return ModelConfig(
        d_model=d_model, n_layer=1, mixer=mixer, bidirectional=False, objective="causal",
        ssd={"headdim": min(64, d_model)}, rwkv={"headdim": min(64, d_model)}, hyena={"max_length": max(lengths)},
    )  # fmt: skip


def chosen(names: Sequence[str]) -> Iterator[tuple[MixerName, str]]:
    """The systems of the presets ``names``, all where there is none."""
    yield from ((preset, system) for preset, system in SYSTEMS.items() if not names or preset in names)
