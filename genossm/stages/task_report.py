"""What is written of a fit: metrics.json and predictions.csv."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import t as student

from genossm import metrics
from genossm.data import leakage
from genossm.stages.labelled import Split
from genossm.stages.task_baselines import Result
from genossm.stages.task_fit import Outputs

HEADLINE = {"classes": "mcc", "tokens": "mcc", "multilabel": "auroc", "regression": "pearson"}
"""The figure that a kind of task is judged by."""
FIGURES = {
    "classes": metrics.METRICS,
    "tokens": metrics.METRICS,
    "multilabel": metrics.METRICS,
    "regression": metrics.NUMBER_METRICS,
}


def summary(split: Split, outputs: Outputs, *, resamples: int, seed: int) -> dict[str, Any]:
    """The figures of one set of outputs (probabilities or numbers) on the rows of ``split``, with their intervals."""
    targets = split.flat_targets
    if split.kind == "regression":
        return metrics.summarize_numbers(targets, outputs, split.names, resamples=resamples, seed=seed)
    if split.kind == "multilabel":
        return metrics.summarize_labels(targets, outputs, split.names, resamples=resamples, seed=seed)
    kept = targets >= 0
    return metrics.summarize(targets[kept], outputs[kept], resamples=resamples, seed=seed)


def points(split: Split, outputs: Outputs) -> dict[str, float | None]:
    """The same without intervals."""
    targets = split.flat_targets
    if split.kind == "regression":
        return metrics.number_metrics(targets, outputs)
    if split.kind == "multilabel":
        report = metrics.summarize_labels(targets, outputs, split.names, resamples=1)
        return {name: report[name] for name in metrics.METRICS}
    kept = targets >= 0
    return metrics.point_metrics(targets[kept], outputs[kept])


def baseline_rows(
    split: Split, outputs: Outputs, baselines: Mapping[str, Result], *, resamples: int, seed: int
) -> dict[str, Any]:
    """The report on every baseline, each with how much better ``outputs`` are, on the same resamples."""
    rows: dict[str, Any] = {}
    for who, result in baselines.items():
        rows[who] = {**summary(split, result.outputs, resamples=resamples, seed=seed), **result.made}
        if split.kind == "classes":
            rows[who]["gain"] = metrics.gain(split.labels, outputs, result.outputs, resamples=resamples, seed=seed)
    return rows


def over_seeds(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Every figure of several runs: the values, their mean, standard deviation and 95 % interval of the mean (t)."""
    found: dict[str, Any] = {}
    for name in rows[0]:
        values = [float(value) for row in rows if (value := row[name]) is not None]
        if not values:
            continue
        mean, n = float(np.mean(values)), len(values)
        found[name] = {"values": values, "mean": mean}
        if n > 1:
            sd = float(np.std(values, ddof=1))
            half = float(student.ppf(0.975, n - 1)) * sd / n**0.5
            found[name] |= {"sd": sd, "ci": [mean - half, mean + half]}
    return found


def leak(train: Split, judged: Split, outputs: Outputs) -> dict[str, Any]:
    """How many judged rows share a stretch with the training rows, and the headline figure on the others."""
    shared = leakage.shared_words(train.sequences, judged.sequences)
    whole = leakage.identical(train.sequences, judged.sequences)
    rest = ~(shared | whole)
    name = HEADLINE[judged.kind]
    without: float | None = None
    if rest.any():
        kept = np.repeat(rest, judged.lengths) if judged.kind == "tokens" else rest
        without = points(judged.take(np.flatnonzero(rest)), outputs[kept])[name]
    if not rest.all():
        said = "none are left" if without is None else f"{name.upper()} without them {without:.4f}"
        print(
            f"warning: {(~rest).sum():,} of {len(rest):,} judged sequences share {leakage.K} bp with a training "
            f"sequence, {whole.sum():,} are identical to one; {said}",
            file=sys.stderr,
        )
    return {
        "k": leakage.K, "shared": int(shared.sum()), "identical": int(whole.sum()), f"{name}_without": without,
    }  # fmt: skip


def history(fits: Sequence[Any]) -> list[list[dict[str, Any]]]:
    """The epochs of every network."""
    return [[asdict(epoch) for epoch in fit.history] for fit in fits]


def predictions(judged: Split, found: Mapping[str, Outputs]) -> str:
    """predictions.csv: the line of each row in its table, the truth, and what every classifier says.

    Columns of the model have no prefix, those of a baseline its name: ``p_<class>`` are probabilities, ``y_<name>``
    numbers. Of tokens there is one string a row, a letter a base.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ours = found[""]
    if judged.kind == "tokens":
        writer.writerow(["line", "label", "predicted"])
        ends = np.cumsum(judged.lengths)[:-1]
        letters = np.array([*judged.names, "."])
        for line, label, said in zip(judged.lines, judged.targets, np.split(ours.argmax(axis=1), ends), strict=True):
            writer.writerow([line, *("".join(letters[classes].tolist()) for classes in (label, said))])
        return text.getvalue()
    mark = "y" if judged.kind == "regression" else "p"
    columns = [f"{who + '_' if who else ''}{mark}_{name}" for who in found for name in judged.names]
    if judged.kind == "classes":
        truth = [
            [judged.names[label], judged.names[best]]
            for label, best in zip(judged.labels, ours.argmax(axis=1), strict=True)
        ]
        head = ["label", "predicted"]
    else:
        truth = [[f"{value:.6g}" for value in row] for row in np.asarray(judged.targets)]
        head = [f"true_{name}" for name in judged.names]
    writer.writerow(["line", *head, *columns])
    for line, known, row in zip(judged.lines, truth, np.concatenate(list(found.values()), axis=1), strict=True):
        writer.writerow([line, *known, *(f"{value:.6f}" for value in row)])
    return text.getvalue()


def describe(report: Mapping[str, Any]) -> str:
    """The report in one line a classifier."""
    name = HEADLINE[report["kind"]]
    second = "accuracy" if report["kind"] != "regression" else "r2"
    lines = []
    for who, row in {"fine-tuned": report[report["judged"]], **report["baselines"]}.items():
        shown = "undefined" if row[name] is None else f"{row[name]:.4f}"
        interval = row[f"{name}_ci"]
        between = f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
        other = "" if row[second] is None else f", {second} {row[second]:.4f}"
        lines.append(f"{who}: {report['judged']} {name.upper() if name == 'mcc' else name} {shown}{between}{other}")
    for what in ("seeds", "folds"):
        if what in report and name in report[what]:
            about = report[what][name]
            spread = f" ± {about['sd']:.4f}" if "sd" in about else ""
            lines.append(f"over {len(about['values'])} {what}: {name} {about['mean']:.4f}{spread} (mean, s.d.)")
    best = max(
        (
            (row[name], who)
            for who, row in report["baselines"].items()
            if row[name] is not None and who != "from_scratch"
        ),
        default=None,
    )
    own = report[report["judged"]][name]
    if best is not None and own is not None and best[0] > own:
        lines.append(
            f"warning: {best[1]} is better than the model, {best[0]:.4f} against {own:.4f}: use the simpler one"
        )
    return "\n".join(lines)
