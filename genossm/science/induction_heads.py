"""Induction heads: the token after the special one, asked by showing it again; trained short, tested ever longer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from genossm import vocab
from genossm.config import ModelConfig
from genossm.models import LanguageModel, build_model
from genossm.report.plots import Line, Plot
from genossm.science.result import Claim, Figure, Setting
from genossm.science.training import fit

SPECIAL = vocab.SEP
FIRST, CONTENT = 2, 14
"""The tokens 2 to 15 are content."""
BATCH = 64


def sequences(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random content with the special token once inside and again last, (count, length); and what followed the first.

    As in Olsson et al. (arXiv:2209.11895) and Mamba (arXiv:2312.00752, section 4.1.2).
    """
    ids = torch.randint(FIRST, FIRST + CONTENT, (count, length), generator=generator)
    place = torch.randint(0, length - 2, (count, 1), generator=generator)
    ids.scatter_(1, place, SPECIAL)
    ids[:, -1] = SPECIAL
    return ids, ids.gather(1, place + 1)[:, 0]


def trained(pattern: str, length: int, steps: int, seed: int) -> LanguageModel:
    """A model of two blocks that was trained at one length."""
    torch.manual_seed(seed)
    config = ModelConfig(
        d_model=64, n_layer=2, pattern=pattern, bidirectional=False, objective="causal", ssd={"headdim": 32},
        attention={"headdim": 16},
    )  # fmt: skip
    model = build_model(config)
    generator = torch.Generator().manual_seed(seed + 1)

    def loss(step: int) -> Tensor:
        ids, wanted = sequences(BATCH, length, generator)
        return F.cross_entropy(model(ids).logits[:, -1], wanted)

    fit(model, loss, steps, lr=3e-3)
    return model


@torch.inference_mode()
def accuracy(model: LanguageModel, length: int, seed: int, tokens: int) -> float:
    """Over about ``tokens`` tokens of test sequences, 64 at least."""
    generator, right, count = torch.Generator().manual_seed(seed + length), 0, max(64, tokens // length)
    for begin in range(0, count, rows := max(1, (1 << 16) // length)):
        ids, wanted = sequences(min(rows, count - begin), length, generator)
        right += int((model(ids).logits[:, -1].argmax(-1) == wanted).sum())
    return right / count


def check(setting: Setting) -> Claim:
    """Accuracy against length, of S4D, Mamba, Mamba-2, and S4D with one layer of attention."""
    steps, length, lengths = (30, 16, [16, 32, 64]) if setting.quick else (400, 32, [32, 128, 512, 2048, 16384])
    names = {"S4D": "D", "Mamba": "M", "Mamba-2": "S", "hybrid S4D + attention": "DA"}
    found = {}
    for name, pattern in names.items():
        model = trained(pattern, length, steps, setting.seed)
        reach = lengths[:3] if "A" in pattern else lengths
        found[name] = [accuracy(model, n, setting.seed, lengths[-1]) for n in reach]
        setting.advance(name)
    judged = not setting.quick
    figures = [
        Figure(f"{name}, {length} tokens as trained", values[0], low, high, judged=judged)
        for name, values in found.items()
        for low, high in ((0.0, 0.5) if name == "S4D" else (0.95, 1.0),)
    ]
    figures.append(Figure(f"Mamba, {lengths[-1]:,} tokens", found["Mamba"][-1], low=0.9, judged=judged))
    figures.append(Figure(f"Mamba-2, {lengths[-1]:,} tokens", found["Mamba-2"][-1]))
    lines = [Line(name, lengths[: len(values)], values) for name, values in found.items()]
    plot = Plot(
        f"Induction heads, trained at {length} tokens", "tokens", "test accuracy", lines,
        levels={"chance": 1 / CONTENT}, logx=True,
    )  # fmt: skip
    return Claim(
        "Selective models learn an induction head and keep it at lengths never seen; a time-invariant one does not.",
        f"two layers, d_model 64, {steps} steps of batch {BATCH} at {length} tokens, {CONTENT} answers",
        figures,
        [plot],
    )
