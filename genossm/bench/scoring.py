"""What scoring is measured against: the same numbers, computed plainly; and what a command takes, as its own process.

The plain ways hold whole sequences in memory and share nothing: a record, or a padded batch, is one forward pass for
every interleaved pass of a masked model, and an allele is two full windows on either strand.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from genossm import vocab
from genossm.errors import GenoSSMError
from genossm.models.edits import Edit, Effect
from genossm.models.heads import LanguageModel, base_log_probs

Tokens = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

POLL = 0.05
"""Seconds between two looks at the memory of a process."""


def drawn_lengths(count: int, shortest: int, longest: int, seed: int) -> list[int]:
    """Lengths in bp from a truncated Pareto distribution of exponent 1.4, in random order, both ends among them.

    So there are records of every size and few long ones: of 5,000 between 50 bp and 200 kb half have under 82 bp, and
    one in 70 has over 1 kb, with 40 % of the million bases.
    """
    rng = np.random.default_rng(seed)
    alpha = 1.4
    share = rng.random(count) * (1 - (shortest / longest) ** alpha)
    found = np.floor(shortest * (1 - share) ** (-1 / alpha)).astype(int)
    found[:2] = (longest, shortest)[:count]
    return [int(length) for length in rng.permutation(found)]


def random_bases(length: int, rng: np.random.Generator) -> Tokens:
    """Bases drawn evenly."""
    return rng.integers(vocab.A, vocab.T + 1, length).astype(np.uint8)


def _inputs(model: LanguageModel, tokens: Tokens, hidden: npt.NDArray[np.bool_] | None = None) -> Tokens:
    """What the model reads: a causal one after [BOS], where it knows that, and a masked one with some bases hidden."""
    if model.config.objective != "causal":
        return tokens if hidden is None else np.where(hidden, np.uint8(vocab.MASK), tokens)
    return np.concatenate([[np.uint8(vocab.BOS)], tokens]) if model.bos else tokens


def _own(model: LanguageModel, log_probs: Floats, tokens: Tokens) -> Floats:
    """log P of every base, float64 (length,), 0 at N, from the log-probabilities (inputs, 4) of all inputs."""
    if model.config.objective == "causal":
        first = [] if model.bos else [np.full(4, -math.log(4))]
        log_probs = np.concatenate([*(row[None] for row in first), log_probs[:-1]])
    known = (tokens >= vocab.A) & (tokens <= vocab.T)
    column = np.where(known, tokens - np.uint8(vocab.A), 0)
    return np.where(known, log_probs[np.arange(len(tokens)), column], 0.0)


@torch.inference_mode()
def padded(model: LanguageModel, batch: Sequence[Tokens], passes: int) -> list[float]:
    """The (pseudo-)log-likelihood of each sequence of a batch, given strand, padded to the longest.

    A batch of one is the plain way one by one. ``passes``: of a masked model, as in ``genossm score``.
    """
    device = next(model.parameters()).device
    causal = model.config.objective == "causal"
    totals = [0.0] * len(batch)
    for turn in range(1 if causal else passes):
        hidden = [(np.arange(len(t)) % passes == turn) & (t >= vocab.A) & (t <= vocab.T) for t in batch]
        texts = [_inputs(model, tokens, where) for tokens, where in zip(batch, hidden, strict=True)]
        ids = np.full((len(batch), max(map(len, texts))), vocab.PAD, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=np.bool_)
        for i, text in enumerate(texts):
            ids[i, : len(text)], mask[i, : len(text)] = text, True
        where = None if mask.all() else torch.from_numpy(mask).to(device)
        log_probs = base_log_probs(model(torch.from_numpy(ids).to(device), where).logits).double().cpu().numpy()
        for i, (tokens, chosen) in enumerate(zip(batch, hidden, strict=True)):
            own = _own(model, log_probs[i, : len(texts[i])], tokens)
            totals[i] += float(own.sum() if causal else own[chosen].sum())
    return totals


@dataclass
class Seconds:
    """What the plain way of variants took: two full windows an allele, and all that its scores need."""

    windows: float = 0.0
    all: float = 0.0


@torch.inference_mode()
def plain_effect(model: LanguageModel, tokens: Tokens, edit: Edit, *, both_strands: bool, spent: Seconds) -> Effect:
    """The scores of an edit, by the definitions of :mod:`genossm.models.edits`, from whole windows of ``tokens``."""
    strands = [(tokens, edit)]
    if both_strands and not model.config.rc_equivariant:
        n = len(tokens)
        back = Edit(n - edit.end, n - edit.start, vocab.reverse_complement(edit.tokens))
        strands.append((vocab.reverse_complement(tokens), back))
    parts = [_plain_strand(model, text, change, spent) for text, change in strands]
    return Effect(*(float(np.mean(values)) for values in zip(*parts, strict=True)))


def _plain_strand(model: LanguageModel, tokens: Tokens, edit: Edit, spent: Seconds) -> tuple[float, float, float]:
    begun = time.perf_counter()
    changed = np.concatenate([tokens[: edit.start], edit.tokens, tokens[edit.end :]])
    k, m = edit.end - edit.start, len(edit.tokens)
    (old, old_states), (new, new_states) = _read(model, tokens), _read(model, changed)
    spent.windows += time.perf_counter() - begun
    was, now = np.zeros(len(tokens), bool), np.zeros(len(changed), bool)
    was[edit.start : edit.end] = now[edit.start : edit.start + m] = True
    flanks = new[~now].sum() - old[~was].sum()
    if model.config.objective == "masked":
        old, new = _read(model, tokens, was)[0], _read(model, changed, now)[0]
    site = float(new[now].sum() - old[was].sum())
    if m != k:
        old_states, new_states = (s[torch.from_numpy(~w)] for s, w in ((old_states, was), (new_states, now)))
    distance = float((new_states.double() - old_states.double()).norm())
    spent.all += time.perf_counter() - begun
    return site, site + float(flanks), distance


def _read(
    model: LanguageModel, tokens: Tokens, hidden: npt.NDArray[np.bool_] | None = None
) -> tuple[Floats, torch.Tensor]:
    """log P of every base (length,), and the hidden states of all bases (length, width)."""
    device = next(model.parameters()).device
    text = _inputs(model, tokens, hidden)
    output = model(torch.from_numpy(text.astype(np.int64))[None].to(device))
    log_probs = base_log_probs(output.logits[0]).double().cpu().numpy()
    return _own(model, log_probs, tokens), output.hidden_states[0, len(text) - len(tokens) :].cpu()


@dataclass(frozen=True)
class Process:
    """What a command took: seconds by the clock, seconds of all cores, bytes at the peak."""

    seconds: float
    cpu: float
    peak: int


def command_of(arguments: Sequence[str]) -> Process:
    """Run ``genossm`` with some arguments as a process of its own, and measure it.

    Raises:
        GenoSSMError: it failed; the message is its last line.
    """
    line = [sys.executable, "-c", "from genossm.cli import main; main()", *arguments]
    begun, peak, done = time.perf_counter(), 0, 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=said)
        while not done:
            peak = max(peak, high_water(process.pid))
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0 if done else POLL)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            last = said.read().strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
            raise GenoSSMError(f"genossm {arguments[0]}: {last[0]}")
    return Process(seconds, usage.ru_utime + usage.ru_stime, peak or usage.ru_maxrss)


def high_water(pid: int) -> int:
    """The most bytes that a process has held so far, 0 where the system does not say.

    Not the ``ru_maxrss`` of its end: on Linux that begins with what the parent held when it started the process.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
