"""Marker recall: what stood behind a marker that can be anywhere? It takes a state that chooses what to keep."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genossm import vocab
from genossm.config import ModelConfig
from genossm.models import LanguageModel, build_model
from genossm.models.mixers.ssd import SSD
from genossm.report.plots import Plot
from genossm.science.result import Claim, Figure, Setting
from genossm.science.training import fit

MARKER, QUERY = vocab.SEP, vocab.MASK
BATCH, TEST = 64, 2048


def sequences(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bases with one marker among them and the query last, int64 (count, length), and the base after the marker."""
    ids = torch.randint(vocab.A, vocab.T + 1, (count, length), generator=generator)
    place = torch.randint(0, length - 2, (count, 1), generator=generator)
    ids.scatter_(1, place, MARKER)
    ids[:, -1] = QUERY
    return ids, ids.gather(1, place + 1)[:, 0] - vocab.A


def answers(model: LanguageModel, ids: Tensor) -> Tensor:
    """Logits of the four bases at the query, (batch, 4)."""
    return model(ids).logits[:, -1, vocab.A : vocab.T + 1]


def freeze_in_time(model: LanguageModel) -> None:
    """Take the input out of B, C and dt of a Mamba-2 model: biases alone make them, the same at every token.

    The rows of in_proj behind z and x are held at zero.
    """
    for mixer in [module for module in model.modules() if isinstance(module, SSD)]:
        keep = torch.ones_like(mixer.in_proj.weight)
        keep[2 * mixer.config.d_inner :] = 0
        with torch.no_grad():
            mixer.in_proj.weight *= keep
        mixer.in_proj.weight.register_hook(lambda gradient, keep=keep: gradient * keep)


def accuracy(name: str, mixer: str, n_layer: int, steps: int, length: int, setting: Setting) -> float:
    """Test accuracy of a model after training on fresh sequences at every step."""
    torch.manual_seed(setting.seed)
    options = {"d_model": 64, "n_layer": n_layer, "mixer": mixer, "bidirectional": False}
    model = build_model(ModelConfig(**options, objective="causal", ssd={"headdim": 32, "bias": "frozen" in name}))
    if "frozen" in name:
        freeze_in_time(model)
    generator = torch.Generator().manual_seed(setting.seed + 1)

    def loss(step: int) -> Tensor:
        ids, wanted = sequences(BATCH, length, generator)
        return F.cross_entropy(answers(model, ids), wanted)

    fit(model, loss, steps, lr=3e-3)
    ids, wanted = sequences(TEST, length, torch.Generator().manual_seed(setting.seed + 2))
    with torch.inference_mode():
        return float((answers(model, ids).argmax(-1) == wanted).double().mean())


def check(setting: Setting) -> Claim:
    """Accuracies of S4D and of selective models after the same number of steps."""
    steps, length = (40, 16) if setting.quick else (400, 64)
    runs = {
        "S4D, 1 layer": ("s4d", 1), "S4D, 2 layers": ("s4d", 2), "Mamba-2 frozen in time": ("ssd", 1),
        "Mamba-2, 1 layer": ("ssd", 1), "Mamba, 1 layer": ("mamba", 1),
    }  # fmt: skip
    found = {}
    for name, (mixer, n_layer) in runs.items():
        found[name] = accuracy(name, mixer, n_layer, steps, length, setting)
        setting.advance(name)
    judged = not setting.quick
    figures = [
        Figure(name, value, high=0.5, judged=judged) if "S4D" in name or "frozen" in name
        else Figure(name, value, low=0.95, judged=judged)
        for name, value in found.items()
    ]  # fmt: skip
    plot = Plot(f"Marker recall over {length} bases", "model", "test accuracy", bars=found, levels={"chance": 0.25})
    return Claim(
        "A time-invariant model cannot pick what to remember by its content; a selective one learns it in minutes.",
        f"{steps} steps of batch {BATCH}, d_model 64, the same rate for all; {TEST:,} test sequences, 4 answers. It "
        "says what is learnt in these steps: nobody has shown that more of them would not do",
        figures,
        [plot],
    )
