"""genossm finetune: labelled sequences become a model, judged beside its baselines.

With a checkpoint its backbone is the start; without one a small network on the bases is. Everything is chosen by the
validation split alone, see :mod:`genossm.stages.task_design`; the test split is read once, by what was chosen.

All randomness follows from the seed. Finished epochs lie in a folder beside the results until all is written, so the
same command goes on after any interruption, to the same bytes on the same machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from genossm.baselines.gapped_kmer import Machine
from genossm.config import FinetuneSection
from genossm.data.batching import fold_rows
from genossm.errors import GenoSSMError
from genossm.files import atomic_write, locked, sha256_of
from genossm.models.task import TaskModel
from genossm.stages.attribution import examples
from genossm.stages.crew import crew
from genossm.stages.finetune_command import command
from genossm.stages.labelled import Split, Splits, Tables, hold_out
from genossm.stages.loading import load_model, pick_device
from genossm.stages.task_baselines import Result, fit_facts, probabilities, run_baselines
from genossm.stages.task_design import Design, design
from genossm.stages.task_fit import Base, Fitted, Job, Outputs, begin_task, finish_task, fit_gapped_kmers
from genossm.stages.task_page import EXAMPLES, METRICS, PAGE, PREDICTIONS, task_page
from genossm.stages.task_report import (
    HEADLINE,
    baseline_rows,
    describe,
    history,
    leak,
    over_seeds,
    points,
    predictions,
    summary,
)  # fmt: skip
from genossm.train.checkpoint import WEIGHTS, checkpoint_config, export_model
from genossm.train.signals import StopRequest

__all__ = ["command", "describe", "finetune"]

WORK = ".work"
WORTH_A_PROCESS = 10_000
"""Training rows times epochs from which on a network gets a process of its own, which takes seconds to start."""
NOT_SETTINGS = {"tasks", "bootstrap", "from_scratch", "device", "baselines"}
"""What does not change the model."""


@dataclass(frozen=True)
class Outcome:
    """Models of one set of splits, joined, and what they and the baselines say of its judged rows (probabilities)."""

    model: TaskModel
    outputs: Outputs
    parts: dict[str, Outputs]
    each: list[Outputs]
    fits: list[Fitted]
    baselines: dict[str, Result]
    design: Design


def finetune(
    checkpoint: Path | None,
    tables: Tables,
    output: Path,
    *,
    settings: FinetuneSection | None = None,
    seed: int = 1,
    seeds: int = 1,
    folds: int = 0,
) -> dict[str, Any]:
    """Train a model and its baselines; write the model, ``metrics.json`` and ``predictions.csv`` to ``output``.

    Args:
        checkpoint: folder of a model whose backbone is the start; None: a network on the bases alone.
        tables: the labelled sequences. Without a test table, the report is about the validation split.
        settings: the configuration section.
        seed: of every random choice.
        seeds: so many models, of this seed and the next ones, and the figures of each; what is written is their mean.
        folds: so many parts of the training table, each judged by a model of the others (0: none). The report is about
            these rows, and what is written is the mean of the models.

    Returns:
        The content of metrics.json.

    Raises:
        GenoSSMError: a fault of the checkpoint or of a table; a signal (exit code 143 or 130).
    """
    settings = settings or FinetuneSection()
    if checkpoint is None and settings.adapt != "full":
        raise GenoSSMError(f"--adapt {settings.adapt} is about a pretrained backbone: give --checkpoint")
    stopping = StopRequest("finished epochs are kept; the same command goes on from there")
    with contextlib.ExitStack() as held:
        held.enter_context(stopping)
        device = pick_device(settings.device)
        base = None if checkpoint is None else read_base(checkpoint, device)
        splits = tables.read(seed)
        if folds and (tables.valid is not None or tables.test is not None or folds < 2):
            raise GenoSSMError("--folds takes 2 or more parts of --train, without --valid and --test")
        if folds and settings.search_minutes:
            raise GenoSSMError("--search-minutes needs one validation split: use it without --folds")
        provenance = _provenance(checkpoint, splits, settings, seed, seeds, folds)
        held.enter_context(locked(output / ".lock", "the output folder"))  # only now: bad input leaves no folder
        work = output / WORK
        fingerprint = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
        if folds:
            judged, outcome, extra = _cross_validated(
                splits, tables, settings, base, seed, folds, device, work, fingerprint
            )
        else:
            job = Job(splits, settings, design(splits, settings, seed), device, work, fingerprint)
            searched: dict[str, Any] = {}
            if settings.search_minutes:
                job, searched = _searched(job, base, seed)
            judged, outcome = job.judged, _fit(job, base, seed, seeds)
            name = "valid" if splits.test is None else "test"
            extra = {"judged": name, "data": _described(splits), "leak": leak(splits.train, judged, outcome.outputs)}
            if searched:
                extra["search"] = searched
            if seeds > 1:
                extra["seeds"] = over_seeds([points(judged, outputs) for outputs in outcome.each])
        report = _report(judged, outcome, extra, settings, seed) | {"training": provenance}
        config = checkpoint_config("classifier", outcome.model.config.model_dump(mode="json"), provenance, judged.names)
        found = {"": outcome.outputs, **{who: result.outputs for who, result in outcome.baselines.items()}}
        stopping.hold()
        shown = examples(outcome.model.cpu(), judged, outcome.outputs) if judged.kind == "classes" else []
        _write(output, config, outcome.model, report, predictions(judged, found), shown)
        shutil.rmtree(work, ignore_errors=True)
    return report


def read_base(checkpoint: Path, device: torch.device) -> Base:
    """The backbone of a checkpoint folder, under the names that a task's network gives it.

    Raises:
        GenoSSMError: the folder is no model, or one without a backbone.
    """
    model, source = load_model(checkpoint, device)
    if isinstance(model, TaskModel):
        member = model.networks[0]
        if member.base is None:
            raise GenoSSMError(
                "holds a network on the bases alone, which has no backbone to start from", path=checkpoint
            )
        weights = {f"base.{name}": value for name, value in member.base.state_dict().items()}
        return Base(member.base.config, dict(source["model"]["backbone"]), weights)
    weights = {f"base.backbone.{name}": value for name, value in model.backbone.state_dict().items()}
    return Base(model.config, dict(source["model"]), weights)


def _provenance(
    checkpoint: Path | None, splits: Splits, settings: FinetuneSection, seed: int, seeds: int, folds: int
) -> dict[str, Any]:
    """What the model depends on; no times and no paths, so that equal runs give equal bytes."""
    return {
        "stage": "finetune",
        "checkpoint_sha256": None if checkpoint is None else sha256_of(checkpoint / WEIGHTS),
        "train_sha256": splits.train.sha256,
        "valid_sha256": splits.valid.sha256,
        "seed": seed,
        "seeds": seeds,
        "folds": folds,
        **settings.model_dump(exclude=NOT_SETTINGS),
    }


def _fit(job: Job, base: Base | None, seed: int, seeds: int, *, baselines: bool = True) -> Outcome:
    """Models of ``seeds`` seeds on one set of splits, and the baselines."""
    kind = job.splits.train.kind
    with crew(_processes(job, base, seeds)) as submit:
        begun = [begin_task(job, "finetune", base, seed + i, submit, pretrained=True) for i in range(seeds)]
        machine = _machine(job)
        held_against = run_baselines(job, base, machine, seed, submit) if baselines else {}
        added = machine if job.settings.machine else None
        fits = [finish_task(job, base, added, networks) for networks in begun]
    logits = np.mean([fit.judged for fit in fits], axis=0)
    names = fits[0].parts
    parts = {name: probabilities(kind, np.mean([fit.parts[name] for fit in fits], axis=0)) for name in names}
    return Outcome(
        averaged([fit.model for fit in fits]),
        probabilities(kind, logits),
        parts,
        [probabilities(kind, fit.judged) for fit in fits],
        fits,
        held_against,
        job.design,
    )


def _processes(job: Job, base: Base | None, seeds: int) -> int:
    """How many networks are trained side by side: small ones keep one core busy, whatever the cores."""
    networks = seeds * job.design.members
    networks += job.design.members if base is not None and job.settings.from_scratch else 0
    networks += "cnn" in job.settings.baselines
    short = len(job.splits.train.sequences) * job.design.epochs < WORTH_A_PROCESS
    return 1 if short or job.device.type != "cpu" else min(networks, torch.get_num_threads())


def _searched(job: Job, base: Base | None, seed: int) -> tuple[Job, dict[str, Any]]:
    """The job with the settings that a search found, and what the report says of it."""
    from genossm.stages.search import search  # Optuna, only where it is asked for

    settings, found = search(job, base, seed, job.settings.search_minutes)
    plan = design(job.splits, settings, seed, view=job.design.view)
    plan = replace(plan, scores=job.design.scores)
    told = {name: value for name, value in found.items() if name != "fingerprint"}
    return replace(job, settings=settings, design=plan), told


def _machine(job: Job) -> Machine | None:
    """The gapped k-mer machine, where it is added to the model or held against it."""
    wanted = job.settings.machine or "gapped_kmer_svm" in job.settings.baselines
    return fit_gapped_kmers(job) if wanted and job.splits.train.kind != "tokens" else None


def averaged(models: list[TaskModel]) -> TaskModel:
    """One model whose outputs are the mean of those of models of one shape."""
    if len(models) == 1:
        return models[0]
    config = models[0].config
    joined = TaskModel(config.model_copy(update={"members": sum(model.config.members for model in models)}))
    members = [member for model in models for member in model.members]
    for mine, theirs in zip(joined.members, members, strict=True):
        mine.load_state_dict(theirs.state_dict())
    joined.scales.copy_(torch.cat([model.scales for model in models]) / len(models))
    for name in ("unit", "offset"):
        getattr(joined, name).copy_(torch.stack([getattr(model, name) for model in models]).mean(0))
    machines = [model.gapped_kmers for model in models if model.gapped_kmers is not None]
    if joined.gapped_kmers is not None:
        # the margins are linear in the weights, so the mean of scaled machines is one machine
        for name in ("weight", "position_weight", "bias"):
            scaled = [m.machine_scale * getattr(g, name) for m, g in zip(models, machines, strict=True)]
            getattr(joined.gapped_kmers, name).copy_(torch.stack(scaled).mean(0))
        joined.machine_scale.fill_(1.0)
    return joined.eval()


def _cross_validated(
    splits: Splits,
    tables: Tables,
    settings: FinetuneSection,
    base: Base | None,
    seed: int,
    folds: int,
    device: torch.device,
    work: Path,
    fingerprint: str,
) -> tuple[Split, Outcome, dict[str, Any]]:
    """Every row judged by a model that did not see it: the rows, the outcome on them, and what the report says."""
    whole = _joined(splits.train, splits.valid)
    parts = fold_rows(whole.strata, folds, seed=seed)
    if not all(len(rows) for rows in parts):
        raise GenoSSMError(f"--folds {folds}: there are only {len(whole.sequences)} rows")
    outcomes: list[Outcome] = []
    chosen: Design | None = None
    for number, rows in enumerate(parts):
        others = whole.take(np.setdiff1d(np.arange(len(whole.sequences)), rows))
        train, valid = hold_out(others, tables.valid_fraction, seed, tables.train)
        fold = Splits(train, valid, whole.take(rows))
        # strand and places are a fact of the task, not of a fold: the first fold's own rows say, and all follow
        chosen = chosen or design(fold, settings, seed)
        job = Job(fold, settings, chosen, device, work / f"fold-{number}", fingerprint)
        outcomes.append(_fit(job, base, seed, 1))
    order = np.argsort(np.concatenate(parts), kind="stable")
    per_row = np.repeat(np.arange(len(order)), 1)[order]

    def gathered(arrays: list[Outputs]) -> Outputs:
        if whole.kind == "tokens":
            pieces = [
                p
                for a, rows in zip(arrays, parts, strict=True)
                for p in np.split(a, np.cumsum(whole.lengths[rows])[:-1])
            ]
            return np.concatenate([pieces[i] for i in per_row])
        return np.concatenate(arrays)[order]

    baselines = {
        name: Result(gathered([o.baselines[name].outputs for o in outcomes]), {})
        for name in outcomes[0].baselines
        if all(name in o.baselines for o in outcomes)
    }
    together = Outcome(
        averaged([o.model for o in outcomes]),
        gathered([o.outputs for o in outcomes]),
        {name: gathered([o.parts[name] for o in outcomes]) for name in outcomes[0].parts},
        [],
        [fit for o in outcomes for fit in o.fits],
        baselines,
        outcomes[0].design,
    )
    figures = [points(whole.take(rows), o.outputs) for rows, o in zip(parts, outcomes, strict=True)]
    extra = {"judged": "out_of_fold", "data": {"train": whole.describe()}, "folds": over_seeds(figures)}
    return whole, together, extra


def _joined(first: Split, second: Split) -> Split:
    """The rows of two splits of one table, in the order of the table."""
    if isinstance(first.targets, list) and isinstance(second.targets, list):
        targets: Any = [*first.targets, *second.targets]
    else:
        targets = np.concatenate([np.asarray(first.targets), np.asarray(second.targets)])
    lines = [*first.lines, *second.lines]
    both = replace(first, sequences=[*first.sequences, *second.sequences], targets=targets, lines=lines)
    return both.take(np.argsort(lines, kind="stable"))


def _described(splits: Splits) -> dict[str, Any]:
    named = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    return {name: split.describe() for name, split in named.items() if split is not None}


def _report(
    judged: Split, outcome: Outcome, extra: Mapping[str, Any], settings: FinetuneSection, seed: int
) -> dict[str, Any]:
    """The content of metrics.json, but for its provenance; no times, so that equal runs give equal bytes."""
    options = {"resamples": settings.bootstrap, "seed": seed}
    made = outcome.design
    return {
        extra["judged"]: summary(judged, outcome.outputs, **options),
        "baselines": baseline_rows(judged, outcome.outputs, outcome.baselines, **options),
        "parts": {name: points(judged, outputs) for name, outputs in outcome.parts.items()},
        "kind": judged.kind,
        "headline": HEADLINE[judged.kind],
        "labels": judged.names,
        **extra,
        "design": {
            "view": made.view.name,
            "validation_scores_of_views": made.scores,
            "epochs": made.epochs,
            "batch_size": made.batch_size,
            "ema": made.ema,
            "members": made.members,
            "mutation": made.augmentation.mutation,
            "shift": made.augmentation.shift,
            "head": made.head.model_dump(mode="json"),
        },
        "history": history([fit for fitted in outcome.fits for fit in fitted.fits]),
        "networks": [fit_facts(fitted) for fitted in outcome.fits],
        "parameters": outcome.model.num_parameters(),
    }


def _write(
    output: Path,
    config: Mapping[str, Any],
    model: nn.Module,
    report: Mapping[str, Any],
    predicted: str,
    shown: list[dict[str, Any]],
) -> None:
    """All files of a run; metrics.json is removed first and written last, so the set it stands with is one run's.

    The page comes after it, for it is made of the files alone.
    """
    for name in (METRICS, PREDICTIONS, EXAMPLES, PAGE):
        (output / name).unlink(missing_ok=True)
    export_model(output, config, model.state_dict())
    atomic_write(output / PREDICTIONS, predicted)
    atomic_write(output / EXAMPLES, json.dumps(shown, allow_nan=False) + "\n")
    atomic_write(output / METRICS, json.dumps(report, indent=2, allow_nan=False) + "\n")
    atomic_write(output / PAGE, task_page(output.resolve().name, output))
