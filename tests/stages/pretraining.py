"""A small genome with structure, its tokens file, and a small model: what the tests of pretraining share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from genossm import vocab
from genossm.config import ModelConfig, PretrainSection, SplitSection
from genossm.stages.tokenize import tokenize

WINDOW = 512
MODEL = ModelConfig(d_model=16, n_layer=1, d_state=4)
CAUSAL = ModelConfig(d_model=16, n_layer=1, d_state=4, objective="causal", bidirectional=False)


def genome(path: Path, seed: int = 0) -> Path:
    """Four contigs of an order-2 Markov chain, with some lower case and some N."""
    rng = np.random.default_rng(seed)
    follow = np.random.default_rng(1).dirichlet([0.3] * 4, size=(4, 4)).cumsum(axis=-1)
    with open(path, "w") as handle:
        for name, length in (("I", 6_000), ("II", 5_000), ("III", 2_100), ("IV", 1_500)):
            codes = [0, 1]
            for draw in rng.random(length - 2):
                codes.append(int((follow[codes[-2], codes[-1]] < draw).sum()))
            tokens = np.minimum(np.array(codes), 3).astype(np.uint8) + vocab.A
            tokens[100:130] = vocab.N
            letters = vocab.decode(tokens)
            handle.write(f">{name}\n{letters[:700]}{letters[700:900].lower()}{letters[900:]}\n")
    return path


def tokens_file(folder: Path) -> Path:
    """The genome's tokens file: train I and II, valid III, test IV."""
    path = folder / "tokens.h5"
    split = SplitSection(by="contig", valid=["III"], test=["IV"])
    tokenize(genome(folder / "genome.fa"), path, window=WINDOW, split=split)
    return path


def section(**changes: Any) -> PretrainSection:
    """Settings for a run of seconds."""
    values: dict[str, Any] = {
        "genome": "toy",
        "steps": 8,
        "batch_size": 4,
        "seqlen": 128,
        "lr": 0.01,
        "warmup_steps": 2,
        "valid_every": 4,
        "valid_tokens": 1_024,
        "checkpoint_every": 3,
        "baseline_max_k": 4,
        "device": "cpu",
    }
    return PretrainSection(**{**values, **changes})
