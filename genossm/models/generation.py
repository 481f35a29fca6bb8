"""New sequence from a causal model, base by base, in recurrent mode: the memory is that of the state, however long.

Only A, C, G and T are drawn. The random numbers of a sequence are a function of (seed, its number) alone, so it does
not depend on how many are made, and a longer run begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genossm import vocab
from genossm.models.heads import LanguageModel, base_log_probs

Tokens = npt.NDArray[np.uint8]

PROMPT_CHUNK = 1 << 16
"""Tokens of a prompt that are read at a time."""
BLOCK = 1 << 12
"""Bases handed out at a time."""


@dataclass(frozen=True)
class Sampling:
    """How a base is drawn.

    Attributes:
        temperature: the log-probabilities are divided by it; 0 takes the likeliest base.
        top_k: only the k likeliest bases are drawn, 1 to 4.
        seed: of the random numbers.
    """

    temperature: float = 1.0
    top_k: int = 4
    seed: int = 0


def choose(log_probs: npt.NDArray[np.float64], uniform: npt.NDArray[np.float64], sampling: Sampling) -> Tokens:
    """A base (rows,), uint8 tokens, from log-probabilities (rows, 4) and a number in [0, 1) each."""
    if sampling.temperature == 0:
        return (vocab.FIRST_BASE + log_probs.argmax(1)).astype(np.uint8)
    kept = np.argsort(np.argsort(-log_probs, axis=1, kind="stable"), axis=1) < sampling.top_k
    with np.errstate(over="ignore"):  # a tiny temperature: what is not the likeliest has no chance
        scaled = (log_probs - log_probs.max(1, keepdims=True)) / sampling.temperature
    weights = np.where(kept, np.exp(scaled), 0.0)
    edges = weights.cumsum(1)
    drawn = (uniform[:, None] * edges[:, -1:] >= edges).sum(1)
    return (vocab.FIRST_BASE + np.minimum(drawn, 3)).astype(np.uint8)


@torch.inference_mode()
def generate(
    model: LanguageModel, prompts: Sequence[Tokens], length: int, sampling: Sampling, first: int = 0
) -> Iterator[Tokens]:
    """Go on from each prompt; yields blocks, uint8 (rows, n), of the new bases alone.

    Args:
        model: causal, with a state, in eval mode.
        prompts: tokens uint8, all of one length; an empty one begins a sequence.
        length: new bases of each. first: number of the first sequence, for its random numbers.

    Raises:
        ValueError: the model keeps no state, or cannot begin without a prompt.
    """
    if not model.stateful:
        raise ValueError("the model is not causal, or keeps no state")
    device = next(model.parameters()).device
    text = np.stack(prompts)
    if model.bos:
        text = np.concatenate([np.full((len(text), 1), vocab.BOS, dtype=np.uint8), text], axis=1)
    if not text.shape[1]:
        raise ValueError("the model was trained without [BOS]: it needs a prompt to begin")
    state: Any = None
    hidden: Tensor | None = None
    for start in range(0, text.shape[1], PROMPT_CHUNK):
        hidden, state = _read(model, text[:, start : start + PROMPT_CHUNK], state, device)
    numbers = [np.random.Generator(np.random.Philox([sampling.seed, first + row])) for row in range(len(text))]
    assert hidden is not None
    log_probs = _next(model, hidden)
    for start in range(0, length, BLOCK):
        # always a whole block of numbers, so that a longer run begins with the shorter one
        uniform = np.stack([rng.random(BLOCK) for rng in numbers])
        block = np.empty((len(text), min(BLOCK, length - start)), dtype=np.uint8)
        for i in range(block.shape[1]):
            block[:, i] = choose(log_probs, uniform[:, i], sampling)
            if start + i + 1 < length:
                hidden, state = _read(model, block[:, i : i + 1], state, device)
                log_probs = _next(model, hidden)
        yield block


def _read(model: LanguageModel, text: Tokens, state: Any, device: torch.device) -> tuple[Tensor, Any]:
    ids = model.translate(torch.from_numpy(text.astype(np.int64)).to(device))
    return model.backbone(ids, state=state)


def _next(model: LanguageModel, hidden: Tensor) -> npt.NDArray[np.float64]:
    """Log-probabilities of the next base, (rows, 4)."""
    return base_log_probs(model.read_out(hidden[:, -1:])[:, 0]).double().cpu().numpy()
