"""A search of settings within minutes, by Optuna: what the validation rows favour, the test rows are never seen."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial

from genossm.config import FinetuneSection
from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.stages.crew import crew
from genossm.stages.task_design import design
from genossm.stages.task_fit import Base, Job, begin_task, finish_task

RESULT = "search.json"
TRIALS = 100
"""More than any budget of minutes allows."""


def suggested(trial: Trial, settings: FinetuneSection, epochs: int, *, pretrained: bool) -> FinetuneSection:
    """The settings of a trial: rate, decay, dropout, epochs, and the rate of a pretrained backbone."""
    changes: dict[str, Any] = {
        "lr": trial.suggest_float("lr", settings.lr / 4, settings.lr * 4, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.1, log=True),
        "dropout": trial.suggest_float("dropout", 0.1, 0.5, step=0.1),
        "epochs": trial.suggest_categorical("epochs", [max(1, epochs // 2), epochs, 2 * epochs]),
    }
    if pretrained and settings.adapt != "frozen":
        changes["backbone_lr_scale"] = trial.suggest_categorical("backbone_lr_scale", [0.03, 0.1, 0.3, 1.0])
    return settings.model_copy(update=changes)


def search(
    job: Job, base: Base | None, seed: int, minutes: float, trials: int = TRIALS
) -> tuple[FinetuneSection, dict[str, Any]]:
    """The settings whose network has the lowest validation loss, among those tried within a budget.

    The first trial is the settings as they are, so the result is never worse than they by this measure. One network a
    trial, without the gapped k-mer machine. What was found is kept in the job's folder, for how many trials fit into
    the budget depends on the machine: a run that goes on after an interruption takes it from there.

    Args:
        minutes: after which no trial begins. trials: at most.

    Returns:
        The settings, and the trials for the report.

    Raises:
        GenoSSMError: no trial was finished.
    """
    kept = job.work / RESULT
    known = _read(kept, job.fingerprint)
    if known is not None:
        return job.settings.model_copy(update=known["chosen"]), known
    epochs = job.design.epochs
    deadline = time.monotonic() + 60 * minutes
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=False))
    first = {"lr": job.settings.lr, "weight_decay": job.settings.weight_decay, "epochs": epochs}
    study.enqueue_trial(
        {**first, "dropout": job.design.head.dropout, "backbone_lr_scale": job.settings.backbone_lr_scale}
    )

    def objective(trial: Trial) -> float:
        settings = suggested(trial, job.settings, epochs, pretrained=base is not None)
        plan = replace(design(job.splits, settings, seed, view=job.design.view), members=1)
        part = replace(job, settings=settings, design=plan, work=job.work / f"trial-{trial.number}")
        try:
            with crew(1) as submit:
                begun = begin_task(part, f"trial {trial.number + 1}", base, seed, submit, pretrained=True)
                fitted = finish_task(part, base, None, begun)
        except GenoSSMError as error:  # a rate that is too high for this task is a result, too
            print(f"trial {trial.number + 1}: {error}", file=sys.stderr)
            raise optuna.TrialPruned from None
        return fitted.fits[0].best.valid_loss

    study.optimize(objective, n_trials=trials, timeout=max(0.001, deadline - time.monotonic()))
    done = [trial for trial in study.trials if trial.value is not None]
    if not done:
        raise GenoSSMError("no trial of the search was finished: give it more minutes, or a smaller --lr")
    report = {
        "measure": "validation loss of one network",
        "chosen": study.best_params,
        "trials": [{**trial.params, "valid_loss": trial.value} for trial in done],
        "fingerprint": job.fingerprint,
    }
    atomic_write(kept, json.dumps(report, indent=2) + "\n")
    return job.settings.model_copy(update=study.best_params), report


def _read(path: Path, fingerprint: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if found.get("fingerprint") == fingerprint else None
