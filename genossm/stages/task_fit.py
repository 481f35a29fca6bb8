"""Training of a task's networks, and how they and the gapped k-mer machine become one model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize, nnls
from scipy.special import expit, log_softmax
from torch import Tensor, nn

from genossm import metrics
from genossm.baselines.gapped_kmer import GROUPS, POSITION_KS, Machine, fit_machine
from genossm.baselines.gapped_kmer import score as ranking
from genossm.config import FinetuneSection, GappedKmerConfig, TaskConfig
from genossm.models import no_decay
from genossm.models.lora import add_adapters, merge_adapters
from genossm.models.task import Shape, TaskModel, TaskNetwork, other_strand, unflip
from genossm.progress import progress
from genossm.stages.crew import Submit
from genossm.stages.labelled import (
    Augmentation,
    Split,
    Splits,
    prediction_batches,
    read_batches,
    steps_in_epoch,
    training_steps,
)  # fmt: skip
from genossm.stages.task_design import Design
from genossm.train.classification import Epoch, Fit, FitOptions, Judgement, fit_classifier, predict, task_loss
from genossm.train.fit_state import load_fit_state, save_fit_state

Outputs = npt.NDArray[np.float64]
"""(rows, outputs); of tokens (bases of all rows, outputs)."""
Run = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Base:
    """A pretrained backbone: its shape, and its weights by name as :class:`TaskNetwork` calls them."""

    shape: Shape
    dump: dict[str, Any]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Fitted:
    """A model of the task, and what it and its parts say of the judged rows (logits; numbers in their own units)."""

    model: TaskModel
    judged: Outputs
    parts: dict[str, Outputs]
    fits: list[Fit]
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What all fits of a run share; ``work``: a folder for unfinished fits, and what they belong to."""

    splits: Splits
    settings: FinetuneSection
    design: Design
    device: torch.device
    work: Path
    fingerprint: str

    @property
    def judged(self) -> Split:
        """The split that the report is about: test, or where there is none, valid."""
        return self.splits.test or self.splits.valid

    @property
    def scaling(self) -> tuple[Outputs, Outputs]:
        """Mean and standard deviation of the training targets (numbers), else 0 and 1; shape (outputs,)."""
        train = self.splits.train
        if train.kind != "regression":
            return np.zeros(train.outputs), np.ones(train.outputs)
        values = np.asarray(train.targets, dtype=np.float64)
        return values.mean(axis=0), np.maximum(values.std(axis=0), 1e-12)


def network_outputs(run: Run, split: Split, *, both_strands: bool, device: torch.device) -> Outputs:
    """What a network says of every row, float64, the mean of both strands on demand; no row depends on another."""
    parts = prediction_batches(split)
    tokens = split.kind == "tokens"

    def read(ids: Tensor, mask: Tensor | None) -> Tensor:
        given = run(ids, mask)
        if not both_strands:
            return given
        other = run(*other_strand(ids, mask))
        return (given + (unflip(other, mask) if tokens else other)) / 2

    batches = read_batches(split, parts, other_strand=False, device=device)
    found: list[Outputs] = [np.empty(0)] * len(split.sequences)
    for rows, values in zip(parts, predict(read, batches), strict=True):
        for row, value in zip(rows.tolist(), values.double().numpy(), strict=True):
            found[row] = value[: len(split.sequences[row])] if tokens else value
    return np.concatenate(found) if tokens else np.stack(found)


def valid_score(split: Split, outputs: Outputs) -> float:
    """What is chosen by, more is better: MCC of classes, mean AUROC of labels, mean correlation of numbers."""
    targets = split.flat_targets
    if split.kind in ("classes", "tokens"):
        kept = targets >= 0
        return metrics.mcc(targets[kept], outputs[kept])
    return ranking("multilabel" if split.kind == "multilabel" else "regression", targets, outputs)


def train_network(
    job: Job,
    what: str,
    network: nn.Module,
    options: FitOptions,
    *,
    augmentation: Augmentation,
    batch_size: int,
    both_strands: bool,
    seed: int,
) -> Fit:
    """Train ``network`` in place on the training rows, judged by the validation rows; goes on where a kill left it."""
    train, valid = job.splits.train, job.splits.valid
    mean, scale = job.scaling
    if train.kind == "regression":
        train, valid = _standardized(train, mean, scale), _standardized(valid, mean, scale)
    network.to(job.device)

    def judge(model: nn.Module) -> Judgement:
        outputs = network_outputs(
            lambda ids, mask: model(ids, mask=mask), valid, both_strands=both_strands, device=job.device
        )
        targets = torch.from_numpy(valid.flat_targets)
        loss = task_loss(torch.from_numpy(outputs), targets, FitOptions(epochs=1, lr=1.0, kind=options.kind))
        return Judgement(valid_score(valid, outputs), float(loss) / len(targets))

    def tell(epoch: Epoch) -> None:
        figures = f"loss {epoch.train_loss:.4f}, valid loss {epoch.valid_loss:.4f}, score {epoch.valid_score:.4f}"
        print(f"{what}: epoch {epoch.epoch}/{options.epochs}: {figures}", file=sys.stderr, flush=True)

    steps = steps_in_epoch(len(train.sequences), batch_size)
    path = job.work / f"{what.replace(' ', '_')}.safetensors"
    fingerprint = f"{job.fingerprint} {what} {seed} {options}"
    with progress(what, options.epochs * steps, "steps") as advance:
        return fit_classifier(
            network,
            lambda epoch: training_steps(
                train, batch_size, seed=seed, epoch=epoch, augmentation=augmentation, device=job.device
            ),
            steps,
            judge,
            options,
            no_decay=no_decay,
            on_step=lambda epoch, loss: advance(1),
            on_epoch=tell,
            resume=load_fit_state(path, fingerprint),
            save=lambda state: save_fit_state(path, state, fingerprint),
        )


def _standardized(split: Split, mean: Outputs, scale: Outputs) -> Split:
    values: npt.NDArray[np.float64] = (np.asarray(split.targets, dtype=np.float64) - mean) / scale
    return replace(split, targets=values)


def fit_options(job: Job, seed: int, *, pretrained: bool) -> FitOptions:
    """The schedule of a network of the task."""
    settings, design, train = job.settings, job.design, job.splits.train
    weights = None
    if settings.class_weights == "balanced" and train.kind in ("classes", "tokens"):
        targets = train.flat_targets
        counts = np.bincount(targets[targets >= 0], minlength=train.outputs)
        weights = tuple((counts.sum() / (len(counts) * np.maximum(counts, 1))).tolist())
    scale = (settings.backbone_lr_scale if settings.adapt != "frozen" else 0.0) if pretrained else 1.0
    return FitOptions(
        epochs=design.epochs,
        lr=settings.lr,
        scales=(("base.", scale),),
        weight_decay=settings.weight_decay,
        smoothing=settings.smoothing,
        ema=design.ema,
        patience=settings.patience,
        kind="classes" if train.kind == "tokens" else train.kind,
        class_weights=weights,
        seed=seed,
    )


Member = tuple[dict[str, Tensor], Fit]
"""The weights of a trained network, on the CPU, and the course of its training."""


def begin_task(
    job: Job, what: str, base: Base | None, seed: int, submit: Submit, *, pretrained: bool
) -> list[Callable[[], Member]]:
    """Have the networks of a model trained, on the weights of ``base`` or (not ``pretrained``) on random ones.

    Args:
        base: the backbone, None for a head that reads the bases alone.
    """
    return [submit(_train_member, job, what, base, seed, member, pretrained) for member in range(job.design.members)]


def _train_member(job: Job, what: str, base: Base | None, seed: int, member: int, pretrained: bool) -> Member:
    """One network of a model; ``member`` makes its seed another."""
    own = seed + 1_000 * member
    torch.manual_seed(own)
    network = TaskNetwork(None if base is None else base.shape, job.design.head, job.splits.train.outputs)
    if base is not None and pretrained:
        network.load_state_dict(base.weights, strict=False)
    adapted = base is not None and pretrained and job.settings.adapt == "lora"
    if adapted:
        add_adapters(network, job.settings.lora_rank)
    elif base is not None and pretrained and job.settings.adapt == "frozen":
        network.freeze_base()
    name = f"{what} {member + 1} of {job.design.members}" if job.design.members > 1 else what
    fit = train_network(
        job,
        f"{name} (seed {seed})",
        network,
        fit_options(job, own, pretrained=pretrained),
        augmentation=job.design.augmentation,
        batch_size=job.design.batch_size,
        both_strands=job.design.head.both_strands,
        seed=own,
    )
    if adapted:
        merge_adapters(network)
    network.forget()
    return {weight: value.cpu() for weight, value in network.state_dict().items()}, fit


def finish_task(job: Job, base: Base | None, machine: Machine | None, begun: list[Callable[[], Member]]) -> Fitted:
    """Join the networks that :func:`begin_task` has trained, and the machine, where there is one, to one model."""
    splits, head = job.splits, job.design.head
    networks, fits = [], []
    for wait in begun:
        weights, fit = wait()
        network = TaskNetwork(None if base is None else base.shape, head, splits.train.outputs)
        network.load_state_dict(weights)
        networks.append(network.to(job.device).eval())
        fits.append(fit)
    config = TaskConfig(
        backbone=None if base is None else base.dump,
        head=head,
        gapped_kmers=None if machine is None else _machine_config(machine),
        members=len(networks),
        kind=splits.train.kind,
        outputs=splits.train.outputs,
    )
    return _joined(job, config, networks, machine, fits)


def _machine_config(machine: Machine) -> GappedKmerConfig:
    view = machine.view
    return GappedKmerConfig(
        groups=GROUPS,
        both_strands=view.both_strands,
        position_ks=POSITION_KS if view.length else (),
        length=view.length,
    )


def _joined(
    job: Job, config: TaskConfig, networks: list[TaskNetwork], machine: Machine | None, fits: list[Fit]
) -> Fitted:
    """One model of the networks and the machine, scaled by what they say of the validation rows."""
    valid, judged, centred = job.splits.valid, job.judged, config.kind in ("classes", "tokens")
    both = config.head.both_strands
    mean, scale = job.scaling
    splits = {"valid": valid, "judged": judged}
    heard = {
        name: [_centred(network_outputs(n, split, both_strands=both, device=job.device), centred) for n in networks]
        for name, split in splits.items()
    }
    spreads = [1.0 if config.kind == "regression" else _spread(outputs) for outputs in heard["valid"]]
    mixed = {
        name: np.mean([output / spread for output, spread in zip(outputs, spreads, strict=True)], axis=0)
        for name, outputs in heard.items()
    }
    said: dict[str, Outputs] = {}
    if machine is not None:
        said = {name: _centred(machine.margins(split.sequences), centred) for name, split in splits.items()}
    machine_spread = _spread(said["valid"]) if said and config.kind != "regression" else 1.0
    targets = (np.asarray(valid.flat_targets) - mean) / scale if config.kind == "regression" else valid.flat_targets
    parts = [mixed["valid"]] + ([said["valid"] / machine_spread] if said else [])
    weights = mixing_weights(config.kind, parts, targets)
    model = TaskModel(config)
    for member, network in zip(model.members, networks, strict=True):
        member.load_state_dict(network.state_dict())
    model.scales.copy_(torch.tensor([weights[0] / s / len(networks) for s in spreads]))
    model.unit.copy_(torch.from_numpy(scale))
    model.offset.copy_(torch.from_numpy(mean))
    about: dict[str, Any] = {"weight_of_networks": weights[0]}
    outputs = weights[0] * mixed["judged"]
    if machine is not None and model.gapped_kmers is not None:
        model.gapped_kmers.weight.copy_(torch.from_numpy(machine.weight))
        model.gapped_kmers.position_weight.copy_(torch.from_numpy(machine.position_weight))
        model.gapped_kmers.bias.copy_(torch.from_numpy(machine.bias))
        model.machine_scale.copy_(torch.tensor(weights[1] / machine_spread))
        outputs = outputs + weights[1] * said["judged"] / machine_spread
        about |= {"weight_of_machine": weights[1]}
    found = {"network": mixed["judged"]} | ({"gapped_kmers": said["judged"]} if said else {})
    units = {name: values * scale + mean for name, values in found.items()}
    return Fitted(model.eval(), outputs * scale + mean, units, fits, about)


def _centred(outputs: Outputs, centred: bool) -> Outputs:
    return outputs - outputs.mean(axis=-1, keepdims=True) if centred else outputs


def _spread(outputs: Outputs) -> float:
    """The standard deviation of an output over the rows, the mean square over the outputs; 1 where there is none."""
    spread = float(np.sqrt(outputs.var(axis=0).mean()))
    return spread if spread > 1e-12 else 1.0


def mixing_weights(kind: str, parts: list[Outputs], targets: npt.NDArray[Any]) -> list[float]:
    """The weight of each part, whose outputs have spread 1, by the validation rows.

    Classes and labels: the most probable positive weights, log-normal about 1.5 with one e-fold, so that a few dozen
    rows that are told apart without a mistake do not ask for infinite confidence. Numbers: least squares, not negative.
    """
    if kind == "regression":
        weights = nnls(np.stack([part.ravel() for part in parts], axis=1), np.asarray(targets).ravel())[0]
        return weights.tolist() if weights.any() else [1.0, *[0.0] * (len(parts) - 1)]
    kept = targets >= 0 if kind == "tokens" else slice(None)
    wanted = targets[kept]

    def cost(logs: npt.NDArray[np.float64]) -> float:
        mixed = sum(np.exp(log) * part[kept] for log, part in zip(logs, parts, strict=True))
        prior = 0.5 * float(np.sum((logs - np.log(1.5)) ** 2))
        if kind == "multilabel":
            right = np.log(np.clip(np.where(wanted > 0.5, expit(mixed), expit(-np.asarray(mixed))), 1e-12, 1))
            return prior - float(right.mean(axis=1).sum())
        return prior - float(log_softmax(mixed, axis=1)[np.arange(len(wanted)), wanted].sum())

    return np.exp(minimize(cost, np.full(len(parts), np.log(1.5)), method="Nelder-Mead").x).tolist()


def fit_gapped_kmers(job: Job) -> Machine:
    """The gapped k-mer machine of the task, in the view that the design chose."""
    train, valid = job.splits.train, job.splits.valid
    mean, scale = job.scaling
    if train.kind == "regression":
        train, valid = _standardized(train, mean, scale), _standardized(valid, mean, scale)
    return fit_machine(
        train.kind,  # type: ignore[arg-type]  # tokens have no machine
        train.sequences, train.flat_targets, valid.sequences, valid.flat_targets, train.outputs,
        view=job.design.view, balanced=job.settings.class_weights == "balanced",
    )  # fmt: skip
