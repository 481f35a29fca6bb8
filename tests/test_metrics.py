"""Metrics: every resampled figure equals scikit-learn's on the resample written out."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, matthews_corrcoef, roc_auc_score

from genossm import metrics


def example(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that lean towards them; rounded, so that scores tie."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = np.round(rng.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[labels], 1)
    raised = np.exp(logits)
    return labels, raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_bootstrap_equals_sklearn_on_each_resample(classes: int) -> None:
    labels, probabilities = example(83, classes)
    ours = metrics.bootstrap(labels, probabilities, resamples=7, seed=3)
    rows = []
    for weights in metrics._resampled_weights(len(labels), 7, 3):
        rows += [np.repeat(np.arange(len(labels)), row.astype(int)) for row in weights]
    assert len(rows) == 7
    assert len({row.tobytes() for row in rows}) == 7
    for i, row in enumerate(rows):
        assert len(row) == len(labels)
        want = metrics.point_metrics(labels[row], probabilities[row])
        for name in metrics.METRICS:
            assert ours[name][i] == pytest.approx(want[name], abs=1e-12), name


def test_point_metrics_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    positive = np.array([0.1, 0.4, 0.6, 0.3, 0.8, 0.9])
    got = metrics.point_metrics(labels, np.stack([1 - positive, positive], axis=1))
    # Confusion: 2 true negatives, 1 false positive, 1 false negative, 2 true positives.
    assert got["accuracy"] == pytest.approx(4 / 6)
    assert got["mcc"] == pytest.approx((2 * 2 - 1 * 1) / 9)
    assert got["f1"] == pytest.approx(2 / 3)
    assert got["auroc"] == pytest.approx(7 / 9)
    assert got["auprc"] == pytest.approx((1 + 1 + 3 / 5) / 3)


def test_multiclass_is_the_macro_average() -> None:
    labels, probabilities = example(200, 3)
    got = metrics.point_metrics(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    assert got["auroc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))
    assert got["auprc"] == pytest.approx(average_precision_score(np.eye(3)[labels], probabilities, average="macro"))
    assert got["f1"] == got["f1_binary"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert got["mcc"] == pytest.approx(matthews_corrcoef(labels, predicted))


def test_f1_of_the_second_of_two_classes() -> None:
    labels, probabilities = np.array([0, 0, 0, 1, 1]), np.eye(2)[[0, 0, 1, 1, 0]]
    report = metrics.summarize(labels, probabilities, resamples=20)
    assert report["f1_binary"] == pytest.approx(f1_score(labels, probabilities.argmax(1)))
    assert report["f1_binary"] < report["f1"]
    low, high = report["f1_binary_ci"]
    assert 0 <= low <= report["f1_binary"] <= high <= 1


def test_chunks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = example(50, 2)
    whole = metrics.bootstrap(labels, probabilities, resamples=40, seed=1)
    monkeypatch.setattr(metrics, "_CHUNK", 50 * 7)
    for name, values in metrics.bootstrap(labels, probabilities, resamples=40, seed=1).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-13)


def test_the_interval_covers_the_truth() -> None:
    """Of 95 % intervals for the accuracy of a coin that is right with p = 0.8, about 95 % hold 0.8."""
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        labels = rng.integers(0, 2, 100)
        predicted = np.where(rng.random(100) < 0.8, labels, 1 - labels)
        accuracy = metrics.bootstrap(labels, np.eye(2)[predicted], resamples=200, seed=trial)["accuracy"]
        low, high = metrics.percentile_interval(accuracy) or (1.0, 0.0)
        held += low <= 0.8 <= high
    assert 176 <= held <= 200


def test_one_class_gives_none_not_a_number() -> None:
    labels, probabilities = np.zeros(20, dtype=int), np.tile([0.7, 0.3], (20, 1))
    report = metrics.summarize(labels, probabilities, resamples=20)
    assert report["accuracy"] == 1.0
    assert report["mcc"] == 0.0
    assert report["auroc"] is None
    assert report["auroc_ci"] is None
    assert report["auprc"] is None


def test_a_class_that_is_not_drawn_is_left_out_of_the_interval() -> None:
    labels = np.array([1] + [0] * 9)
    positive = np.linspace(1, 0.1, 10)
    samples = metrics.bootstrap(labels, np.stack([1 - positive, positive], axis=1), resamples=300, seed=0)
    missing = np.isnan(samples["auroc"])
    assert 0.2 < missing.mean() < 0.5  # the only positive is not drawn with probability 0.9^10 = 0.35
    assert metrics.percentile_interval(samples["auroc"]) == [1.0, 1.0]


def test_summary_counts_rows_and_confusion() -> None:
    labels, probabilities = example(120, 3)
    report = metrics.summarize(labels, probabilities, resamples=50)
    assert report["n"] == 120
    confusion = np.array(report["confusion"])
    np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(labels, minlength=3))
    assert confusion.trace() / 120 == pytest.approx(report["accuracy"])
    for name in metrics.METRICS:
        low, high = report[f"{name}_ci"]
        assert low <= report[name] <= high


def test_a_thousand_resamples_are_quick() -> None:
    labels, probabilities = example(6000, 2)
    start = time.process_time()
    metrics.summarize(labels, probabilities, resamples=1000)
    assert time.process_time() - start < 10


def test_gain_is_paired() -> None:
    labels, probabilities = example(400, 2)
    nothing = metrics.gain(labels, probabilities, probabilities, resamples=100)
    assert nothing == {"mcc": 0.0, "mcc_ci": [0.0, 0.0]}
    better = metrics.gain(labels, np.eye(2)[labels], probabilities, resamples=100)
    assert better["mcc"] == pytest.approx(1 - metrics.mcc(labels, probabilities))
    assert better["mcc_ci"][0] > 0


def test_roc_points_enclose_the_auroc() -> None:
    labels, probabilities = example(150, 2)
    false_rate, true_rate = metrics.roc_points(labels == 1, probabilities[:, 1])
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
    want = metrics.point_metrics(labels, probabilities)["auroc"]
    area = (np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2).sum()
    assert area == pytest.approx(want)
    with pytest.raises(ValueError, match="both classes"):
        metrics.roc_points(labels >= 0, probabilities[:, 1])


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([0, 1], [[0.5, 0.5]]),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]]),
        ([0, -1], [[0.5, 0.5], [0.5, 0.5]]),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]]),
        ([], np.zeros((0, 2))),
    ],
)
def test_what_does_not_belong_together_is_refused(labels: list[int], probabilities: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"belong together|labels must be|finite"):
        metrics.point_metrics(np.array(labels), np.array(probabilities))


def test_numbers_are_judged_by_correlation_and_error() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, 2))
    outputs = targets + [[0.0, 1.0]] + 0.1 * rng.normal(size=(50, 2))
    report = metrics.summarize_numbers(targets, outputs, ["a", "b"], resamples=50)
    assert report["pearson"] == pytest.approx(
        np.mean([stats.pearsonr(*p)[0] for p in zip(targets.T, outputs.T, strict=True)])
    )
    assert report["spearman"] == pytest.approx(
        np.mean([stats.spearmanr(*p)[0] for p in zip(targets.T, outputs.T, strict=True)])
    )
    assert report["pearson_ci"][0] < report["pearson"] < report["pearson_ci"][1]
    assert report["each"]["b"]["rmse"] == pytest.approx(np.sqrt(np.mean((targets[:, 1] - outputs[:, 1]) ** 2)))
    assert metrics.number_metrics(np.ones((4, 1)), np.ones((4, 1))) == {
        "pearson": None, "spearman": None, "r2": None, "rmse": 0.0,
    }  # fmt: skip


def test_several_labels_are_judged_one_by_one() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, (60, 2))
    probabilities = np.clip(targets * 0.4 + 0.6 * rng.random((60, 2)), 0, 1)
    report = metrics.summarize_labels(targets, probabilities, ["a", "b"], resamples=50)
    for j, name in enumerate("ab"):
        pair = np.stack([1 - probabilities[:, j], probabilities[:, j]], axis=1)
        assert report["each"][name] == metrics.point_metrics(targets[:, j], pair)
    assert report["auroc"] == pytest.approx(np.mean([report["each"][name]["auroc"] for name in "ab"]))
    assert report["auroc_ci"][0] <= report["auroc"] <= report["auroc_ci"][1]


def test_calibration_and_precision_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.95, 0.05], [0.35, 0.65], [0.35, 0.65], [0.05, 0.95]])
    bins, error = metrics.calibration(labels, probabilities)
    assert [(round(c, 3), r, n) for c, r, n in bins] == [(0.65, 0.5, 2), (0.95, 1.0, 2)]
    assert error == pytest.approx((0.15 * 2 + 0.05 * 2) / 4)
    recall, precision = metrics.pr_points(labels == 1, probabilities[:, 1])
    assert (recall[0], recall[-1], precision[-1]) == (1, 0, 1)
    with pytest.raises(ValueError, match="needs positive rows"):
        metrics.pr_points(labels > 1, probabilities[:, 1])
