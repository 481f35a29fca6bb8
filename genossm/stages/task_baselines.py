"""What a model is held against, on the same rows: regressions, a machine, a network, and itself unlearned."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from genossm.baselines.gapped_kmer import Machine
from genossm.baselines.kmer import fit_kmer_regression
from genossm.baselines.linear import fit_linear
from genossm.models.cnn import BenchmarkCNN, flattened
from genossm.stages.crew import Submit
from genossm.stages.labelled import Augmentation
from genossm.stages.task_fit import Base, Fitted, Job, Outputs, begin_task, finish_task, network_outputs, train_network
from genossm.train.classification import FitOptions

CNN_EPOCHS, CNN_BATCH, CNN_LR = 10, 64, 1e-3
"""The published training of the benchmark's CNN (Caduceus, arXiv:2403.03234, appendix D)."""


@dataclass(frozen=True)
class Result:
    """What a baseline says of the judged rows, as :func:`probabilities`, and how it was made."""

    outputs: Outputs
    made: dict[str, Any]


def probabilities(kind: str, logits: Outputs) -> Outputs:
    """Probabilities of classes (rows sum to 1) or of labels, of logits; numbers stay numbers."""
    if kind in ("classes", "tokens"):
        return np.asarray(softmax(logits, axis=1), dtype=np.float64)
    return np.asarray(expit(logits), dtype=np.float64) if kind == "multilabel" else logits


def run_baselines(job: Job, base: Base | None, machine: Machine | None, seed: int, submit: Submit) -> dict[str, Result]:
    """Every baseline of the settings that the task admits, and with a pretrained backbone its from-scratch twin."""
    train, valid = job.splits.train, job.splits.valid
    wanted = () if train.kind == "tokens" else job.settings.baselines
    twins = base is not None and job.settings.from_scratch
    twin = begin_task(job, "from_scratch", base, seed, submit, pretrained=False) if twins else []
    cnn = submit(_cnn, job, seed) if "cnn" in wanted and flattened(int(train.lengths.max())) else None
    found: dict[str, Result] = {}
    for name in wanted:
        if name == "kmer_lr" and train.kind == "classes":
            found[name] = _kmer(job)
        elif name == "gapped_kmer_svm" and machine is not None:
            margins = machine.margins(job.judged.sequences)
            mean, scale = job.scaling
            outputs = margins * scale + mean if train.kind == "regression" else probabilities(train.kind, margins)
            made = {"C": machine.C, "view": machine.view.name, "valid_score": machine.valid_score}
            found[name] = Result(outputs, made)
        elif name in ("gc", "onehot_lr"):
            line = fit_linear(
                "gc" if name == "gc" else "onehot", train.kind,  # type: ignore[arg-type]
                train.sequences, train.flat_targets, valid.sequences, valid.flat_targets, train.outputs,
            )  # fmt: skip
            found[name] = Result(line.predict(job.judged.sequences), {"C": line.C, "valid_score": line.valid_score})
        elif name == "cnn" and cnn is not None:
            found[name] = cnn()
        if name in found:
            print(f"{name}: {found[name].made}", file=sys.stderr, flush=True)
    if twin:
        joined = finish_task(job, base, machine, twin)
        found["from_scratch"] = Result(probabilities(train.kind, joined.judged), fit_facts(joined))
    return found


def fit_facts(fitted: Fitted) -> dict[str, Any]:
    """Best epoch and its validation score, of every network."""
    return {
        "best_epoch": [fit.best_epoch for fit in fitted.fits],
        "valid_score": [fit.best.valid_score for fit in fitted.fits],
    } | fitted.about


def _kmer(job: Job) -> Result:
    train, valid = job.splits.train, job.splits.valid
    kmer = fit_kmer_regression(
        train.sequences, train.labels, valid.sequences, valid.labels, both_strands=job.design.view.both_strands
    )
    return Result(kmer.probabilities(job.judged.sequences), {"k": kmer.k, "C": kmer.C, "valid_mcc": kmer.valid_mcc})


def _cnn(job: Job, seed: int) -> Result:
    """The benchmark's CNN by its published recipe: 10 epochs, the one that is best on the validation split."""
    torch.manual_seed(seed)
    train = job.splits.train
    network = BenchmarkCNN(int(train.lengths.max()), train.outputs)
    kind = "classes" if train.kind == "tokens" else train.kind
    options = FitOptions(
        epochs=CNN_EPOCHS, lr=CNN_LR, warmup_fraction=0.1, patience=CNN_EPOCHS, kind=kind, seed=seed, grad_clip=1e9
    )
    fit = train_network(
        job, f"cnn (seed {seed})", network, options,
        augmentation=Augmentation(), batch_size=CNN_BATCH, both_strands=False, seed=seed,
    )  # fmt: skip
    outputs = network_outputs(
        lambda ids, mask: network(ids, mask=mask), job.judged, both_strands=False, device=job.device
    )
    mean, scale = job.scaling
    made = {"best_epoch": fit.best_epoch, "valid_score": fit.best.valid_score, "parameters": _count(network)}
    return Result(outputs * scale + mean if kind == "regression" else probabilities(kind, outputs), made)


def _count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
