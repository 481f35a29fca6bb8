"""genossm finetune: a pretrained model becomes a classifier of labelled sequences, judged beside its baselines.

Three classifiers see the same rows: the fine-tuned model, the same model trained the same way from random weights,
and a logistic regression on k-mer counts. Each chooses by the validation split alone; the test split is read once.

All randomness follows from the seed, and nothing is written before all is computed: an interrupted run leaves what
was there, and the same command gives the same bytes on the same machine.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import nn

from genossm import metrics
from genossm.baselines.kmer import fit_kmer_regression
from genossm.config import FinetuneSection
from genossm.data import leakage
from genossm.files import atomic_write, locked, sha256_of
from genossm.models import LanguageModel, SequenceClassifier, build_model, no_decay
from genossm.progress import progress
from genossm.stages.labelled import Split, Splits, Tables, prediction_batches, read_batches, training_steps
from genossm.stages.loading import load_model, pick_device
from genossm.train.checkpoint import WEIGHTS, checkpoint_config, export_model
from genossm.train.classification import Epoch, Fit, FitOptions, Judgement, fit_classifier, predict_logits
from genossm.train.signals import StopRequest

Probabilities = npt.NDArray[np.float64]

METRICS, PREDICTIONS = "metrics.json", "predictions.csv"


@dataclass(frozen=True)
class _Trained:
    """A classifier after its fit, and the probabilities it gives to the judged split."""

    model: SequenceClassifier
    fit: Fit
    probabilities: Probabilities


@dataclass(frozen=True)
class _Job:
    """What all fits of a run share."""

    splits: Splits
    settings: FinetuneSection
    seed: int
    device: torch.device

    @property
    def both_strands(self) -> bool:
        """Whether a sequence and its reverse complement are the same to the task."""
        return self.settings.strands == "both"

    @property
    def judged(self) -> Split:
        """The split that the report is about: test, or where there is none, valid."""
        return self.splits.test or self.splits.valid

    def logits(self, model: SequenceClassifier, split: Split) -> torch.Tensor:
        """float64 (rows, classes); the mean of both strands where both are read."""
        equivariant = bool(model.config.rc_equivariant)
        parts = prediction_batches(split)
        strands = [False, True] if self.both_strands and not equivariant else [False]
        total = torch.zeros(len(split.labels), len(split.names), dtype=torch.float64)
        for other in strands:
            batches = read_batches(split, parts, other_strand=other, device=self.device)
            for rows, logits in zip(parts, predict_logits(model, batches), strict=True):
                total[rows] += logits.double() / len(strands)
        return total

    def train(self, what: str, base: LanguageModel | SequenceClassifier, *, pretrained: bool) -> _Trained:
        """Fit a classifier of the shape of ``base``, whose backbone starts from its weights, or from random ones."""
        torch.manual_seed(self.seed)  # the head's weights, and dropout
        train, valid, settings = self.splits.train, self.splits.valid, self.settings
        model = build_model(base.config, len(train.names))
        if pretrained:
            model.backbone.load_state_dict(base.backbone.state_dict())
        model.to(self.device)

        def judge(_: nn.Module) -> Judgement:
            logits = self.logits(model, valid)
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(valid.labels))
            return Judgement(metrics.mcc(valid.labels, torch.softmax(logits, dim=1).numpy()), float(loss))

        def tell(epoch: Epoch) -> None:
            figures = f"loss {epoch.train_loss:.4f}, valid loss {epoch.valid_loss:.4f}, MCC {epoch.valid_mcc:.4f}"
            print(f"{what}: epoch {epoch.epoch}/{settings.epochs}: {figures}", file=sys.stderr, flush=True)

        steps = -(-len(train.sequences) // settings.batch_size)
        options = FitOptions(
            epochs=settings.epochs,
            lr=settings.lr,
            backbone_lr_scale=settings.backbone_lr_scale if pretrained else 1.0,
            weight_decay=settings.weight_decay,
            patience=settings.patience,
        )
        flip = self.both_strands and not base.config.rc_equivariant
        with progress(what, settings.epochs * steps, "steps") as advance:
            fit = fit_classifier(
                model,
                lambda epoch: training_steps(
                    train, settings.batch_size, seed=self.seed, epoch=epoch, flip=flip, device=self.device
                ),
                steps,
                judge,
                options,
                no_decay=no_decay,
                on_step=lambda epoch, loss: advance(1),
                on_epoch=tell,
            )
        return _Trained(model, fit, torch.softmax(self.logits(model, self.judged), dim=1).numpy())


def finetune(
    checkpoint: Path,
    tables: Tables,
    output: Path,
    *,
    settings: FinetuneSection | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """Train a classifier and its baselines; write the model, ``metrics.json`` and ``predictions.csv`` to ``output``.

    Args:
        checkpoint: folder of a language model or of a classifier, whose backbone is the start.
        tables: the labelled sequences. Without a test table, the report is about the validation split.
        settings: the configuration section. With ``strands: both``, training reads a random strand of each sequence
            and all else the mean of both.
        seed: of every random choice.

    Returns:
        The content of metrics.json.

    Raises:
        GenoSSMError: a fault of the checkpoint or of a table; a signal (exit code 143 or 130), nothing written.
    """
    settings = settings or FinetuneSection()
    stopping = StopRequest("nothing was written; the same command starts again")
    with contextlib.ExitStack() as held:
        held.enter_context(stopping)
        device = pick_device(settings.device)
        base, source = load_model(checkpoint, device)
        splits = tables.read(seed)
        held.enter_context(locked(output / ".lock", "the output folder"))  # only now: bad input leaves no folder
        provenance = {
            "stage": "finetune",
            "checkpoint_sha256": sha256_of(checkpoint / WEIGHTS),
            "train_sha256": splits.train.sha256,
            "valid_sha256": splits.valid.sha256,
            "seed": seed,
            **settings.model_dump(exclude={"tasks", "bootstrap", "from_scratch", "device"}),
        }
        job = _Job(splits, settings, seed, device)
        tuned = job.train("finetune", base, pretrained=True)
        baselines = _baselines(job, base)
        probabilities = {"": tuned.probabilities, **{who: found for who, (found, _) in baselines.items()}}
        report = _report(job, tuned, baselines) | {"training": provenance}
        config = checkpoint_config("classifier", source["model"], provenance, splits.train.names)
        stopping.hold()
        _write(output, config, tuned.model, report, _predictions(job.judged, probabilities))
    return report


def _baselines(job: _Job, base: LanguageModel | SequenceClassifier) -> dict[str, tuple[Probabilities, dict[str, Any]]]:
    """Probabilities of each baseline on the judged split, and how it was made."""
    train, valid = job.splits.train, job.splits.valid
    kmer = fit_kmer_regression(
        train.sequences, train.labels, valid.sequences, valid.labels, both_strands=job.both_strands
    )
    print(f"kmer_lr: k {kmer.k}, C {kmer.C:g}, valid MCC {kmer.valid_mcc:.4f}", file=sys.stderr, flush=True)
    made = {"k": kmer.k, "C": kmer.C, "valid_mcc": kmer.valid_mcc}
    found = {"kmer_lr": (kmer.probabilities(job.judged.sequences), made)}
    if job.settings.from_scratch:
        twin = job.train("from_scratch", base, pretrained=False)
        made = {"best_epoch": twin.fit.best_epoch, "valid_mcc": twin.fit.best.valid_mcc}
        found["from_scratch"] = (twin.probabilities, made)
    return found


def _report(
    job: _Job, tuned: _Trained, baselines: Mapping[str, tuple[Probabilities, dict[str, Any]]]
) -> dict[str, Any]:
    """The content of metrics.json, but for its provenance; no times, so that equal runs give equal bytes."""
    judged, options = job.judged, {"resamples": job.settings.bootstrap, "seed": job.seed}
    name = "valid" if job.splits.test is None else "test"
    report: dict[str, Any] = {name: metrics.summarize(judged.labels, tuned.probabilities, **options), "baselines": {}}
    for who, (probabilities, made) in baselines.items():
        report["baselines"][who] = {
            **metrics.summarize(judged.labels, probabilities, **options),
            # How much better the fine-tuned model is, on the same resamples.
            "gain": metrics.gain(judged.labels, tuned.probabilities, probabilities, **options),
            **made,
        }
    splits = {"train": job.splits.train, "valid": job.splits.valid, "test": job.splits.test}
    return {
        **report,
        "judged": name,
        "labels": job.splits.train.names,
        "history": [asdict(epoch) for epoch in tuned.fit.history],
        "best_epoch": tuned.fit.best_epoch,
        "parameters": tuned.model.num_parameters(),
        "data": {key: split.describe() for key, split in splits.items() if split is not None},
        "leak": _leak(job, tuned),
    }


def _leak(job: _Job, tuned: _Trained) -> dict[str, Any]:
    """How many judged rows share a stretch with the training rows, and the MCC on the others."""
    train, judged = job.splits.train.sequences, job.judged
    shared = leakage.shared_words(train, judged.sequences)
    whole = leakage.identical(train, judged.sequences)
    rest = ~(shared | whole)
    mcc = metrics.mcc(judged.labels[rest], tuned.probabilities[rest]) if rest.any() else None
    if not rest.all():
        without = "none are left" if mcc is None else f"MCC without them {mcc:.4f}"
        print(
            f"warning: {(~rest).sum():,} of {len(rest):,} judged sequences share {leakage.K} bp with a training "
            f"sequence, {whole.sum():,} are identical to one; {without}",
            file=sys.stderr,
        )
    return {"k": leakage.K, "shared": int(shared.sum()), "identical": int(whole.sum()), "mcc_without": mcc}


def _predictions(judged: Split, probabilities: Mapping[str, Probabilities]) -> str:
    """predictions.csv: the line of each row in its table, label, predicted class, and every classifier's probabilities.

    Columns ``p_<class>`` are the fine-tuned model's, ``<baseline>_p_<class>`` the others'.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{who + '_' if who else ''}p_{name}" for who in probabilities for name in judged.names]
    writer.writerow(["line", "label", "predicted", *columns])
    table = np.concatenate(list(probabilities.values()), axis=1)
    predicted = probabilities[""].argmax(axis=1)
    for line, label, best, row in zip(judged.lines, judged.labels, predicted, table, strict=True):
        writer.writerow([line, judged.names[label], judged.names[best], *(f"{p:.6f}" for p in row)])
    return text.getvalue()


def _write(
    output: Path, config: Mapping[str, Any], model: nn.Module, report: Mapping[str, Any], predictions: str
) -> None:
    """All files of a run; metrics.json is removed first and written last, so the set it stands with is one run's."""
    for name in (METRICS, PREDICTIONS):
        (output / name).unlink(missing_ok=True)
    export_model(output, config, model.state_dict())
    atomic_write(output / PREDICTIONS, predictions)
    atomic_write(output / METRICS, json.dumps(report, indent=2, allow_nan=False) + "\n")


class Strands(StrEnum):
    """Which strands a task is about."""

    BOTH = "both"
    GIVEN = "given"


_DEFAULT = FinetuneSection()
_STRANDS = Strands(_DEFAULT.strands)


def command(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a pretrained model.")],
    train: Annotated[Path, typer.Option(help="Labelled sequences to learn from: CSV or TSV with a header.")],
    output: Annotated[Path, typer.Option(help="Folder for the classifier, metrics.json and predictions.csv.")],
    valid: Annotated[Path | None, typer.Option(help="Table to choose by; default: a share of --train.")] = None,
    test: Annotated[
        Path | None, typer.Option(help="Table to report on, read once; default: the one to choose by.")
    ] = None,
    sequence_column: Annotated[str | None, typer.Option(help="Column of the sequences; default: by its name.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels; default: by its name.")] = None,
    valid_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of every class held out where there is no --valid.")
    ] = 0.1,
    strands: Annotated[
        Strands, typer.Option(help="both: the strand says nothing; given: sequences have a direction, as promoters.")
    ] = _STRANDS,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training set, at most.")] = _DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences a step.")] = _DEFAULT.batch_size,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = _DEFAULT.lr,
    backbone_lr_scale: Annotated[
        float, typer.Option(min=0, help="Rate of the pretrained backbone, as a share of --lr; 0 freezes it.")
    ] = _DEFAULT.backbone_lr_scale,
    weight_decay: Annotated[float, typer.Option(min=0, help="AdamW decay of matrices.")] = _DEFAULT.weight_decay,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a better validation MCC before stopping.")
    ] = _DEFAULT.patience,
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples for the intervals.")] = _DEFAULT.bootstrap,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch/--no-from-scratch", help="Train the same model from random weights, too.")
    ] = _DEFAULT.from_scratch,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = _DEFAULT.device,
) -> None:
    """Train a classifier on labelled sequences, beside a k-mer regression and the same model from scratch.

    Example: genossm finetune --checkpoint results/pretrain/tiny --train train.csv --test test.csv --output my-task
    """
    settings = FinetuneSection(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        backbone_lr_scale=backbone_lr_scale,
        weight_decay=weight_decay,
        strands=strands.value,
        patience=patience,
        bootstrap=bootstrap,
        from_scratch=from_scratch,
        device=device,
    )
    report = finetune(
        checkpoint,
        Tables(train, valid, test, valid_fraction, sequence_column, label_column),
        output,
        settings=settings,
        seed=seed,
    )
    print(describe(report))


def describe(report: Mapping[str, Any]) -> str:
    """The report in one line a classifier."""
    rows = {"fine-tuned": report[report["judged"]], **report["baselines"]}
    return "\n".join(
        f"{who}: {report['judged']} MCC {row['mcc']:.4f} [{row['mcc_ci'][0]:.4f}, {row['mcc_ci'][1]:.4f}], "
        f"accuracy {row['accuracy']:.4f}"
        for who, row in rows.items()
    )
