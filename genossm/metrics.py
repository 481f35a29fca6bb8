"""How good a classifier is: accuracy, MCC, F1, AUROC and AUPRC, with bootstrap confidence intervals.

Point values come from scikit-learn. The intervals need the same figures on a thousand resamples, so the resamples
are weights on the rows and every figure is computed for all of them at once; a test holds each to scikit-learn.

Conventions: the predicted class is the most probable one (the first of equals). ``f1`` is the macro average,
``f1_binary`` that of the second class of two (the macro average for more).
``auroc`` and ``auprc`` (average precision) are those of the second class for two classes, and the mean over classes,
each against the rest, for more. A figure that is undefined, because a class is absent, is ``None``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_curve,
    r2_score,
    roc_auc_score,
    roc_curve,
)

METRICS = ("accuracy", "mcc", "f1", "f1_binary", "auroc", "auprc")
"""The figures of every report, in order."""

_CHUNK = 1 << 22
"""Rows times resamples that are held at a time (32 MiB an array)."""

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def _ranked_classes(n_classes: int) -> list[int]:
    """The classes whose ranking is judged: the second of two, or each of more."""
    return [1] if n_classes == 2 else list(range(n_classes))


def _check(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> tuple[Labels, Floats]:
    labels = np.asarray(labels, dtype=np.int64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(f"labels {labels.shape} and probabilities {probabilities.shape} do not belong together")
    if probabilities.shape[1] < 2 or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be in 0..{probabilities.shape[1] - 1}, of two classes or more")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite")
    return labels, probabilities


def mcc(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> float:
    """Matthews correlation of ``labels`` (rows,) and the most probable class of ``probabilities`` (rows, classes).

    0 where either is constant.
    """
    labels, probabilities = _check(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    # scikit-learn warns where both are constant.
    return float(matthews_corrcoef(labels, predicted)) if np.ptp(labels) or np.ptp(predicted) else 0.0


def point_metrics(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> dict[str, float | None]:
    """Every figure of :data:`METRICS`, by scikit-learn.

    Args:
        labels: integers, shape (rows,), each the index of a class.
        probabilities: floats, shape (rows, classes).

    Raises:
        ValueError: shapes that do not belong together, labels out of range, probabilities that are not finite.
    """
    labels, probabilities = _check(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    classes = list(range(probabilities.shape[1]))
    aurocs, auprcs = [], []
    for k in _ranked_classes(len(classes)):
        positive = labels == k
        if positive.any():
            auprcs.append(average_precision_score(positive, probabilities[:, k]))
            if not positive.all():
                aurocs.append(roc_auc_score(positive, probabilities[:, k]))
    each = f1_score(labels, predicted, labels=classes, average=None, zero_division=0)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "mcc": mcc(labels, probabilities),
        "f1": float(np.mean(each)),
        "f1_binary": float(np.mean(each[_ranked_classes(len(classes))])),
        "auroc": float(np.mean(aurocs)) if aurocs else None,
        "auprc": float(np.mean(auprcs)) if auprcs else None,
    }


def _resampled_weights(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn, in chunks of shape (resamples of the chunk, rows)."""
    rng = np.random.Generator(np.random.Philox(seed))
    size = max(1, _CHUNK // rows)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = rng.integers(0, rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)


def _confusion_metrics(weights: Floats, labels: Labels, predicted: Labels, n_classes: int) -> dict[str, Floats]:
    """Accuracy, MCC and both kinds of F1 of every resample, from its confusion matrix."""
    cell = np.zeros((len(labels), n_classes * n_classes))
    cell[np.arange(len(labels)), labels * n_classes + predicted] = 1.0
    confusion = (weights @ cell).reshape(-1, n_classes, n_classes)
    hits = np.einsum("rkk->rk", confusion)
    true, guessed, total = confusion.sum(axis=2), confusion.sum(axis=1), confusion.sum(axis=(1, 2))
    covariance = hits.sum(axis=1) * total - (true * guessed).sum(axis=1)
    each = np.divide(2 * hits, true + guessed, out=np.zeros_like(hits), where=true + guessed > 0)
    scale = np.sqrt((total**2 - (true**2).sum(axis=1)) * (total**2 - (guessed**2).sum(axis=1)))
    return {
        "accuracy": hits.sum(axis=1) / total,
        "mcc": np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0),
        "f1": each.mean(axis=1),
        "f1_binary": each[:, _ranked_classes(n_classes)].mean(axis=1),
    }


def _ranking_metrics(weights: Floats, positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision of every resample; NaN where a class was not drawn. Tied scores are one step."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    drawn = weights[:, order]
    true = np.add.reduceat(drawn * positive[order], starts, axis=1)
    false = np.add.reduceat(drawn * ~positive[order], starts, axis=1)
    true_above, false_above = true.cumsum(axis=1), false.cumsum(axis=1)
    n_true, n_false = true_above[:, -1], false_above[:, -1]
    pairs = (false * (true_above - true / 2)).sum(axis=1)
    above = true_above + false_above
    precision = np.divide(true_above, above, out=np.zeros_like(above), where=above > 0)
    undefined = np.full(len(weights), np.nan)
    auroc = np.divide(pairs, n_true * n_false, out=undefined.copy(), where=n_true * n_false > 0)
    return auroc, np.divide((true * precision).sum(axis=1), n_true, out=undefined, where=n_true > 0)


def _nanmean(columns: list[Floats]) -> Floats:
    """The mean over the columns that are defined; NaN where none is."""
    values = np.stack(columns)
    defined = np.isfinite(values)
    count = defined.sum(axis=0)
    return np.divide(np.where(defined, values, 0).sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)


def bootstrap(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], *, resamples: int, seed: int
) -> dict[str, Floats]:
    """Every figure of :data:`METRICS` on ``resamples`` resamples of the rows, each an array of shape (resamples,).

    The resamples depend on the number of rows, ``resamples`` and ``seed`` alone, so two classifiers that are judged
    on the same rows are judged on the same resamples.
    """
    labels, probabilities = _check(labels, probabilities)
    n_classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    parts: dict[str, list[Floats]] = {name: [] for name in METRICS}
    for weights in _resampled_weights(len(labels), resamples, seed):
        ranked = [_ranking_metrics(weights, labels == k, probabilities[:, k]) for k in _ranked_classes(n_classes)]
        figures = _confusion_metrics(weights, labels, predicted, n_classes)
        figures["auroc"] = _nanmean([auroc for auroc, _ in ranked])
        figures["auprc"] = _nanmean([auprc for _, auprc in ranked])
        for name, values in figures.items():
            parts[name].append(values)
    return {name: np.concatenate(chunks) for name, chunks in parts.items()}


def percentile_interval(values: Floats, level: float = 0.95) -> list[float] | None:
    """The central interval [low, high] that holds ``level`` of the defined values; None where none is defined."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return [float(q) for q in np.quantile(values, [(1 - level) / 2, (1 + level) / 2])]


def summarize(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The report on one classifier, ready for JSON.

    Args:
        labels: integers, shape (rows,), each the index of a class.
        probabilities: floats, shape (rows, classes).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Every figure of :data:`METRICS`, its 95 % percentile interval under ``<name>_ci``, ``n`` (rows) and
        ``confusion`` (row: true class, column: predicted class).
    """
    report: dict[str, Any] = dict(point_metrics(labels, probabilities))
    for name, values in bootstrap(labels, probabilities, resamples=resamples, seed=seed).items():
        report[f"{name}_ci"] = percentile_interval(values)
    labels, probabilities = _check(labels, probabilities)
    classes = range(probabilities.shape[1])
    report["n"] = len(labels)
    report["confusion"] = confusion_matrix(labels, probabilities.argmax(axis=1), labels=list(classes)).tolist()
    return report


def gain(
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    baseline: npt.NDArray[Any],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How much better ``probabilities`` are than ``baseline`` on the same rows, as ``mcc`` and ``mcc_ci``.

    The interval is paired: both are judged on the same resamples, so what the two have in common cancels.
    """
    ours = bootstrap(labels, probabilities, resamples=resamples, seed=seed)["mcc"]
    theirs = bootstrap(labels, baseline, resamples=resamples, seed=seed)["mcc"]
    difference = mcc(labels, probabilities) - mcc(labels, baseline)
    return {"mcc": difference, "mcc_ci": percentile_interval(ours - theirs)}


def roc_points(positive: npt.NDArray[Any], scores: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """The ROC curve as (false positive rate, true positive rate), each rising from 0 to 1.

    Args:
        positive: bool, shape (rows,); both classes must be there.
        scores: floats, shape (rows,), larger for what looks positive.

    Raises:
        ValueError: one of the two classes is absent.
    """
    positive = np.asarray(positive, dtype=bool)
    if positive.all() or not positive.any():
        raise ValueError("a ROC curve needs both classes")
    false_rate, true_rate, _ = roc_curve(positive, np.asarray(scores, dtype=np.float64))
    return false_rate, true_rate


NUMBER_METRICS = ("pearson", "spearman", "r2", "rmse")
"""The figures of a report on numbers, in order."""


def number_metrics(targets: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> dict[str, float | None]:
    """Correlation, rank correlation, R2 and root mean square error of (rows, outputs), the mean over the outputs.

    A figure that is undefined, because a column is constant, is left out of the mean, and ``None`` where all are.
    """
    found: dict[str, list[float]] = {name: [] for name in NUMBER_METRICS}
    for wanted, given in zip(
        np.asarray(targets, dtype=np.float64).T, np.asarray(outputs, dtype=np.float64).T, strict=True
    ):
        found["rmse"].append(float(np.sqrt(np.mean((wanted - given) ** 2))))
        if len(wanted) > 1 and np.ptp(wanted):
            found["r2"].append(float(r2_score(wanted, given)))
            if np.ptp(given):
                found["pearson"].append(float(np.corrcoef(wanted, given)[0, 1]))
                found["spearman"].append(float(np.corrcoef(rankdata(wanted), rankdata(given))[0, 1]))
    return {name: float(np.mean(values)) if values else None for name, values in found.items()}


def summarize_numbers(
    targets: npt.NDArray[Any], outputs: npt.NDArray[Any], names: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The report on numbers, ready for JSON: :func:`number_metrics` with their intervals, and those of every output."""
    targets, outputs = np.asarray(targets, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    if targets.shape != outputs.shape or targets.ndim != 2 or not len(targets):
        raise ValueError(f"targets {targets.shape} and outputs {outputs.shape} do not belong together")
    rng = np.random.Generator(np.random.Philox(seed))
    drawn = [rng.integers(0, len(targets), len(targets)) for _ in range(resamples)]
    sampled = [number_metrics(targets[rows], outputs[rows]) for rows in drawn]
    report: dict[str, Any] = dict(number_metrics(targets, outputs))
    for name in NUMBER_METRICS:
        values = np.array([np.nan if figures[name] is None else figures[name] for figures in sampled], dtype=np.float64)
        report[f"{name}_ci"] = percentile_interval(values)
    each = {name: number_metrics(targets[:, [j]], outputs[:, [j]]) for j, name in enumerate(names)}
    return {**report, "n": len(targets), "each": each}


def summarize_labels(
    targets: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    names: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The report on labels of which any number may hold, ready for JSON.

    Args:
        targets: 0 or 1, (rows, labels). probabilities: (rows, labels).

    Returns:
        The mean over the labels of every figure of :data:`METRICS`, its interval, ``n``, and the figures of ``each``.
    """
    targets, probabilities = np.asarray(targets) > 0.5, np.asarray(probabilities, dtype=np.float64)
    if targets.shape != probabilities.shape or targets.ndim != 2 or not len(targets):
        raise ValueError(f"targets {targets.shape} and probabilities {probabilities.shape} do not belong together")
    pairs = [
        (t.astype(np.int64), np.stack([1 - p, p], axis=1)) for t, p in zip(targets.T, probabilities.T, strict=True)
    ]
    each = {name: point_metrics(*pair) for name, pair in zip(names, pairs, strict=True)}
    sampled = [bootstrap(*pair, resamples=resamples, seed=seed) for pair in pairs]
    report: dict[str, Any] = {}
    for name in METRICS:
        known = [value for figures in each.values() if (value := figures[name]) is not None]
        report[name] = float(np.mean(known)) if known else None
        report[f"{name}_ci"] = percentile_interval(_nanmean([values[name] for values in sampled]))
    return {**report, "n": len(targets), "each": each}


def calibration(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], bins: int = 10
) -> tuple[list[tuple[float, float, int]], float]:
    """How far probabilities can be believed.

    Args:
        labels: class indices (rows,). probabilities: (rows, classes).

    Returns:
        (mean confidence, share that is right, rows) of every bin of the most probable class's probability that has
        rows, and the expected calibration error (Guo et al. 2017, arXiv:1706.04599, equation 5).
    """
    labels, probabilities = _check(labels, probabilities)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    found = [
        (float(confidence[place == b].mean()), float(right[place == b].mean()), int((place == b).sum()))
        for b in np.unique(place)
    ]
    return found, float(sum(abs(c - r) * n for c, r, n in found) / len(labels))


def pr_points(positive: npt.NDArray[Any], scores: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """The precision-recall curve as (recall, precision), recall falling from 1 to 0.

    Raises:
        ValueError: there is no positive row.
    """
    positive = np.asarray(positive, dtype=bool)
    if not positive.any():
        raise ValueError("a precision-recall curve needs positive rows")
    precision, recall, _ = precision_recall_curve(positive, np.asarray(scores, dtype=np.float64))
    return recall, precision
