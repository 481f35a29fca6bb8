"""What can be told of an imported model without its authors: three checks, and its card."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genossm import vocab
from genossm.data.fasta import FastaOptions, read_fasta
from genossm.errors import GenoSSMError
from genossm.models import LanguageModel, SequenceClassifier
from genossm.models.formats.vocabularies import why_unreadable
from genossm.models.heads import base_log_probs
from genossm.models.likelihood import Reading, is_base, log_likelihood

GENOME = Path("workflow/resources/Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz")
"""The embedded genome, in a checkout."""
WINDOWS, WINDOW = 16, 512
HIGHEST_LOSS = 1.6
"""Nats per base. Uniform guesses give ln 4 = 1.386, and a model of another species little more; damage gives more."""
PADDING_TOLERANCE = 1e-4
"""Of the largest logit: the order of sums changes with the shape."""


@dataclass(frozen=True)
class Check:
    """One check: its outcome in words, and whether it passed (None: nothing to pass)."""

    name: str
    outcome: str
    passed: bool | None

    def __str__(self) -> str:
        mark = {True: "ok", False: "FAILED", None: "-"}[self.passed]
        return f"{self.name}: {self.outcome} [{mark}]"


def embedded_genome() -> Path | None:
    """The genome that comes with a checkout, None where only the package is installed."""
    path = Path(__file__).resolve().parents[2] / GENOME
    return path if path.is_file() else None


@torch.inference_mode()
def check_model(model: LanguageModel | SequenceClassifier, genome: Path | None) -> list[Check]:
    """Reverse-complement consistency, independence of padding and, of language models, the loss on a genome."""
    length = min(200, (model.max_seqlen or 200) - 20)
    ids = torch.from_numpy(np.random.default_rng(0).choice(vocab.BASES, size=(2, length)))
    checks = [_strands(model, ids), _padding(model, ids)]
    if isinstance(model, LanguageModel):
        checks.append(_loss(model, genome))
    return checks


def _strands(model: LanguageModel | SequenceClassifier, ids: Tensor) -> Check:
    complement = torch.from_numpy(vocab.COMPLEMENT).long()
    given, other = model(ids).logits, model(complement[ids].flip(1)).logits
    exact = bool(model.config.rc_equivariant)
    name = "reverse complement"
    if isinstance(model, SequenceClassifier):
        difference = float((torch.softmax(given, -1) - torch.softmax(other, -1)).abs().max())
        outcome = f"largest difference of a probability {difference:.2e}"
    elif model.config.objective == "causal":
        return Check(name, "a causal model reads one way; scores are the mean of both strands", None)
    else:
        difference = float((base_log_probs(given) - base_log_probs(other.flip(1)[..., complement])).abs().max())
        outcome = f"largest difference of a log-probability {difference:.2e}"
    if not exact:
        return Check(name, f"{outcome}; not built in, so scores are the mean of both strands", None)
    return Check(name, outcome, difference < 1e-3)


def _padding(model: LanguageModel | SequenceClassifier, ids: Tensor) -> Check:
    alone = model(ids).logits
    seqlen, worst = ids.shape[1], 0.0
    for left, right in ((0, 11), (7, 3)):
        padded = torch.full((2, left + seqlen + right), vocab.PAD)
        padded[:, left : left + seqlen] = ids
        among = model(padded, padded != vocab.PAD).logits
        kept = among if isinstance(model, SequenceClassifier) else among[:, left : left + seqlen]
        worst = max(worst, float((kept - alone).abs().max() / alone.abs().max()))
    return Check("padding", f"changes a logit by {worst:.1e} of the largest", worst < PADDING_TOLERANCE)


def _loss(model: LanguageModel, genome: Path | None) -> Check:
    name = "loss"
    if genome is None:
        return Check(name, "not computed: no genome in this installation; give --genome FASTA", None)
    windows = _windows(genome, min(WINDOW, model.max_seqlen or WINDOW))
    total, bases = 0.0, 0
    for index, tokens in enumerate(windows):
        if model.config.objective == "causal":
            total += float(log_likelihood(model, tokens, Reading(passes=1, both_strands=False)))
            bases += int(is_base(tokens).sum())
            continue
        hidden = np.random.default_rng(index).random(len(tokens)) < 0.15
        hidden &= is_base(tokens)
        ids = torch.from_numpy(np.where(hidden, vocab.MASK, tokens).astype(np.int64))[None]
        log_probs = base_log_probs(model(ids).logits[0])[torch.from_numpy(hidden)].double()
        answers = torch.from_numpy(tokens[hidden].astype(np.int64) - vocab.FIRST_BASE)
        total += float(log_probs.gather(1, answers[:, None]).sum())
        bases += int(hidden.sum())
    loss = -total / bases
    shown = f"{loss:.4f} nats per base on {bases:,} bases of {genome.name} (uniform {math.log(4):.4f})"
    return Check(name, shown, loss < HIGHEST_LOSS)


def _windows(genome: Path, length: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Windows without N, evenly spread over the first record that is long enough."""
    for record in read_fasta(genome, FastaOptions()):
        count = min(WINDOWS, len(record.tokens) // length)
        starts = [len(record.tokens) // count * i for i in range(count)] if count else []
        found = [w for w in (record.tokens[s : s + length] for s in starts) if is_base(w).all()]
        if found:
            return found
    raise GenoSSMError(f"has no stretch of {length} bases", path=genome)


def card(
    config: Mapping[str, Any], model: LanguageModel | SequenceClassifier, source: str, licence: str | None
) -> list[str]:
    """What a model is, one line a fact."""
    shape, training = config["model"], config["training"]
    vocabulary = shape.get("vocabulary")
    kind = (
        f"{len(config['labels'])} classes ({', '.join(config['labels'])})" if "labels" in config else "language model"
    )
    kind += "" if "labels" in config else f", {shape['objective']}"
    facts = {
        "architecture": _architecture(shape),
        "kind": kind,
        "parameters": f"{model.num_parameters():,}",
        "window": f"at most {model.max_seqlen:,} tokens"
        if model.max_seqlen
        else "any length (time and memory are linear)",
        "vocabulary": "unknown: the commands cannot read DNA with it"
        if why_unreadable(vocabulary)
        else f"{shape['vocab_size']} ids: "
        + " ".join(f"{token}={i}" for token, i in sorted(vocabulary.items(), key=lambda x: x[1])),
        "licence": licence or "not stated beside the weights",
        "source": source,
        "sha256": ", ".join(f"{name} {digest[:16]}" for name, digest in training["files"].items()),
    }
    return [f"{name}: {fact}" for name, fact in facts.items()]


def _architecture(shape: Mapping[str, Any]) -> str:
    size = f"d_model {shape['d_model']}, {shape['n_layer']} layers"
    if shape["architecture"] != "caduceus":
        return f"{shape['architecture']}, {size}"
    if shape["rc_equivariant"]:
        name = f"caduceus-ps ({'fused' if shape['fused_add_norm'] else 'unfused'} add and norm)"
    else:
        name = "caduceus-ph" if shape["bidirectional"] else "caduceus, one direction"
    return f"{name}, {size}"


def licence_of(folder: Path) -> str | None:
    """The licence that the card beside the weights names."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    text = readme.read_text(encoding="utf-8", errors="replace")[:20_000]
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^licen[sc]e:\s*([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else None
