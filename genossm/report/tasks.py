"""A labelled task on a page: figures beside baselines, curves, errors, the hardest rows, what the model looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genossm.metrics import METRICS, NUMBER_METRICS, calibration, pr_points, roc_points
from genossm.report import figures
from genossm.report.inputs import Predictions
from genossm.report.page import Html, Section, Tile, code, heading, paragraph, table
from genossm.report.page import figures as pictures
from genossm.report.plots import Line, Plot
from genossm.report.sections import facts, number, with_interval

NAMES = {
    "accuracy": "accuracy", "mcc": "MCC", "f1": "F1 (macro)", "f1_binary": "F1 (second class)",
    "auroc": "AUROC", "auprc": "AUPRC",
    "pearson": "Pearson r", "spearman": "Spearman r", "r2": "R²", "rmse": "RMSE",
}  # fmt: skip
CLASSIFIERS = {
    "fine_tuned": "fine-tuned", "kmer_lr": "k-mer regression", "from_scratch": "from scratch", "gc": "GC content",
    "onehot_lr": "one-hot regression", "gapped_kmer_svm": "gapped k-mer SVM", "cnn": "CNN of the Genomic Benchmarks",
}  # fmt: skip
SHOWN_SEQUENCE = 60
HARDEST = 12


def task(
    name: str,
    metrics: Mapping[str, Any],
    about: Mapping[str, Any] | None,
    predictions: Mapping[str, Predictions],
    examples: Sequence[Mapping[str, Any]] = (),
) -> tuple[Section, Tile]:
    """A model of a labelled task beside its baselines.

    Args:
        metrics: its metrics.json. about: the task's task.json, where there is one.
        predictions: classifier: its probabilities on the judged rows (classes).
        examples: its examples.json, see :mod:`genossm.stages.attribution`.
    """
    judged = metrics["judged"]
    ours, baselines = metrics[judged], metrics["baselines"]
    headline = metrics.get("headline", "mcc")
    # a run of an earlier version may lack one
    figures_of = [key for key in (NUMBER_METRICS if headline == "pearson" else METRICS) if key in ours]
    rows = [
        (CLASSIFIERS.get(who, who), *(with_interval(of, key) for key in figures_of))
        for who, of in {"fine_tuned": ours, **baselines}.items()
    ]
    parts = [
        _opening(metrics, judged),
        *_verdict(ours, baselines, headline),
        table(["", *(NAMES[key] for key in figures_of)], rows, numeric=range(1, 1 + len(figures_of)), ours=0),
        *_gains(baselines),
        *_repeats(metrics, headline),
    ]
    drawn = _curves(name, metrics, predictions)
    if drawn:
        parts.append(pictures(*drawn))
    if "confusion" in ours:
        parts += _errors(metrics, ours["confusion"])
    if "each" in ours:
        each = [(label, *(number(of[key], 3) for key in figures_of)) for label, of in ours["each"].items()]
        parts.append(
            table(["output", *(NAMES[key] for key in figures_of)], each, numeric=range(1, 1 + len(figures_of)))
        )
    parts += _hardest(metrics, predictions)
    parts += _logos(examples)
    if "design" in metrics:
        parts += [heading("What was chosen, by the validation rows"), facts(metrics["design"])]
    if about:
        parts += [heading("Where the sequences come from"), facts(about)]
    if "training" in metrics:
        parts += [heading("Settings and provenance"), facts(metrics["training"])]
    best = max(((of[headline], who) for who, of in baselines.items() if of[headline] is not None), default=None)
    note = f"{CLASSIFIERS.get(best[1], best[1])} {best[0]:.3f}" if best else "no baseline"
    own = ours[headline]
    better = own > best[0] if best and own is not None else None
    return Section(f"task-{name}", f"Task: {name}", parts), Tile(
        f"{NAMES[headline]}, {name}", number(own, 3), note, better
    )


def _opening(metrics: Mapping[str, Any], judged: str) -> Html:
    ours, labels = metrics[judged], [str(label) for label in metrics["labels"]]
    said = f"{judged.replace('_', '-').capitalize()} rows, {number(ours['n'])}, with 95 % bootstrap intervals. "
    said += f"{'Classes' if 'confusion' in ours else 'Outputs'}: {', '.join(labels)}. "
    leak = metrics.get("leak")
    if leak:
        without = next((value for key, value in leak.items() if key.endswith("_without")), None)
        said += (
            f"{number(leak['shared'])} sequences share {leak['k']} bp or more with a training sequence, "
            f"{number(leak['identical'])} are identical to one; the figure without them: {number(without, 3)}."
        )
    return paragraph(said)


def _verdict(ours: Mapping[str, Any], baselines: Mapping[str, Any], headline: str) -> list[Html]:
    """A sentence where a baseline is better."""
    better = [
        f"{CLASSIFIERS.get(who, who)} ({of[headline]:.3f})"
        for who, of in baselines.items()
        if of[headline] is not None and ours[headline] is not None and of[headline] > ours[headline]
    ]
    if not better:
        return []
    return [paragraph(f"Better than the model ({ours[headline]:.3f}) on these rows: {', '.join(better)}.")]


def _gains(baselines: Mapping[str, Any]) -> list[Html]:
    gains = [
        (f"over {CLASSIFIERS.get(who, who)}", with_interval(of["gain"], "mcc"))
        for who, of in baselines.items()
        if "gain" in of
    ]
    head = ["gain in MCC of the fine-tuned model, on the same resamples", ""]
    return [table(head, gains, numeric=(1,))] if gains else []


def _repeats(metrics: Mapping[str, Any], headline: str) -> list[Html]:
    """The figures of every seed or fold."""
    parts = []
    for what in ("seeds", "folds"):
        if headline not in metrics.get(what, {}):
            continue
        rows = [
            (
                NAMES.get(name, name),
                number(of["mean"], 4),
                number(of.get("sd"), 4),
                *(number(v, 3) for v in of["values"]),
            )
            for name, of in metrics[what].items()
        ]
        count = len(rows[0]) - 3
        parts += [
            heading(f"Over {count} {what}"),
            table(["", "mean", "s.d.", *map(str, range(1, count + 1))], rows, numeric=range(1, count + 3)),
        ]
    return parts


def _curves(name: str, metrics: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> list[tuple[str, str]]:
    """Learning curves; of two classes ROC and precision-recall; calibration; confusion."""
    drawn: list[tuple[str, str]] = []
    history = [fit for fit in metrics.get("history", []) if fit]
    if history:
        lines = []
        for key, dashed in (("train_loss", True), ("valid_loss", False)):
            for place, fit in enumerate(history[:3]):
                label = f"{key.split('_')[0]} {place + 1}" if len(history) > 1 else key.split("_")[0]
                lines.append(Line(label, [e["epoch"] for e in fit], [e[key] for e in fit], dashed))
        drawn.append((figures.plain(Plot("Loss by epoch", "epoch", "loss", lines)), f"Learning curves, {name}"))
    ours = predictions.get("fine_tuned")
    labels = [str(label) for label in metrics["labels"]]
    if ours is not None and len(labels) == 2 and len(set(ours.labels.tolist())) == 2:
        named = {CLASSIFIERS.get(who, who): p for who, p in predictions.items()}
        roc = {who: roc_points(p.labels == 1, p.probabilities[:, 1]) for who, p in named.items()}
        judged = {"fine_tuned": metrics[metrics["judged"]], **metrics["baselines"]}
        areas = {CLASSIFIERS.get(who, who): of["auroc"] for who, of in judged.items()}
        drawn.append((figures.roc_curves(roc, areas), f"ROC curves, {name}"))
        pr = {who: pr_points(p.labels == 1, p.probabilities[:, 1]) for who, p in named.items()}
        curves = [Line(who, x.tolist(), y.tolist()) for who, (x, y) in pr.items()]
        drawn.append(
            (figures.plain(Plot("Precision and recall", "recall", "precision", curves)), f"Precision-recall, {name}")
        )
    if ours is not None:
        bins, error = calibration(ours.labels, ours.probabilities)
        line = Line("fine-tuned", [b[0] for b in bins], [b[1] for b in bins])
        ideal = Line("calibrated", [1 / len(labels), 1.0], [1 / len(labels), 1.0], dashed=True)
        plot = Plot(
            f"Calibration, error {error:.3f}", "probability of the predicted class", "share right", [line, ideal]
        )
        drawn.append((figures.plain(plot), f"Calibration, {name}"))
    for who, of in {"fine_tuned": metrics[metrics["judged"]], **metrics["baselines"]}.items():
        if "confusion" in of and len(labels) <= 12 and who in ("fine_tuned", "kmer_lr", "gapped_kmer_svm"):
            title = CLASSIFIERS.get(who, who)
            drawn.append((figures.confusion(of["confusion"], labels, title), f"Confusion matrix, {title}, {name}"))
    return drawn


def _errors(metrics: Mapping[str, Any], confusion: Sequence[Sequence[int]]) -> list[Html]:
    """Per class: rows, recall, precision, and what it is taken for most often."""
    labels, counts = [str(label) for label in metrics["labels"]], np.asarray(confusion)
    rows = []
    for i, label in enumerate(labels):
        wrong = counts[i].copy()
        wrong[i] = 0
        total, said, right = int(counts[i].sum()), int(counts[:, i].sum()), int(counts[i, i])
        mistaken = f"{labels[int(wrong.argmax())]} ({int(wrong.max()):,})" if wrong.any() else "–"
        rows.append(
            (
                label,
                number(total),
                number(right / total if total else None, 3),
                number(right / said if said else None, 3),
                mistaken,
            )
        )
    head = ["class", "rows", "recall", "precision", "most often taken for"]
    return [heading("Errors by class"), table(head, rows, numeric=(1, 2, 3))]


def _hardest(metrics: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> list[Html]:
    """The rows whose true class was given the least probability."""
    ours = predictions.get("fine_tuned")
    if ours is None or ours.lines is None:
        return []
    labels = [str(label) for label in metrics["labels"]]
    given = ours.probabilities[np.arange(len(ours.labels)), ours.labels]
    chosen = np.argsort(given, kind="stable")[:HARDEST]
    rows = [
        (
            str(ours.lines[i]),
            labels[ours.labels[i]],
            labels[int(ours.probabilities[i].argmax())],
            number(float(given[i]), 4),
        )
        for i in chosen
    ]
    head = ["line of the table", "class", "predicted", "probability of the class"]
    return [heading("The hardest rows"), table(head, rows, numeric=(3,))]


def _logos(examples: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Which bases speak for the predicted class, in a few rows."""
    parts: list[Html] = []
    for example in examples:
        mutagenesis = np.asarray(example["mutagenesis"], dtype=np.float64)
        gradient = np.asarray(example["gradient"], dtype=np.float64)
        sure = f"{example['probability']:.3f}"
        said = f"line {example['line']}: {example['label']}, predicted {example['predicted']} ({sure})"
        drawn = figures.attribution(example["sequence"], gradient, mutagenesis, said)
        parts.append(pictures((drawn, f"Attribution of {said}")))
    if not parts:
        return []
    note = (
        "Above: gradient of the predicted class's logit times the base, networks only. Below: how much the logit "
        "falls, on the mean, when the base is replaced by another one (in-silico mutagenesis), the whole model. In bp "
        f"from position {examples[0].get('start', 0):,} of the sequence."
    )
    return [heading("What the model looks at"), paragraph(note), *parts]


def short(sequence: str) -> Html:
    """A sequence for a table."""
    return code(sequence if len(sequence) <= SHOWN_SEQUENCE else f"{sequence[:SHOWN_SEQUENCE]}…")
