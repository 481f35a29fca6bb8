"""The classifier's training loop: what is kept, when it stops, how rates and parts act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from genossm.errors import GenoSSMError
from genossm.train.classification import (
    Batch,
    Epoch,
    Fit,
    FitOptions,
    FitState,
    Judgement,
    WeightAverage,
    fit_classifier,
    predict,
    task_loss,
)  # fmt: skip
from genossm.train.fit_state import load_fit_state, save_fit_state

OPTIONS = FitOptions(epochs=3, lr=1e-2, warmup_fraction=0.0)


class MeanPool(nn.Module):
    """The smallest classifier with a backbone and a head: embedding, masked mean, linear."""

    def __init__(self, num_labels: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Embedding(16, 8)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(8, num_labels)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        weight = torch.ones_like(input_ids).float() if mask is None else mask.float()
        pooled = (self.backbone(input_ids) * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        return self.classifier(self.dropout(pooled))


def batch(rows: int, seed: int) -> Batch:
    """Rows of 20 bases; the label says whether A or C is the more frequent."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(7, 9, (rows, 20), generator=generator)
    return input_ids, None, ((input_ids == 7).sum(1) > 10).long()


def epoch_of(steps: int, rows: int = 16) -> list[Sequence[Batch]]:
    return [[batch(rows, seed)] for seed in range(steps)]


def judge_by_loss(model: nn.Module) -> Judgement:
    input_ids, _, labels = batch(64, 99)
    with torch.no_grad():
        logits = model(input_ids)
    return Judgement(0.0, float(nn.functional.cross_entropy(logits, labels)))


def never(name: str, parameter: nn.Parameter) -> bool:
    return False


def always(name: str, parameter: nn.Parameter) -> bool:
    return True


def test_it_learns() -> None:
    model = MeanPool()
    options = replace(OPTIONS, epochs=20)
    fit = fit_classifier(model, lambda epoch: epoch_of(8), 8, judge_by_loss, options, no_decay=never)
    assert len(fit.history) == 20
    assert fit.best_epoch == 20
    assert fit.best.valid_loss < 0.7 * fit.history[0].valid_loss
    assert fit.best.train_loss < fit.history[0].train_loss


def test_the_best_weights_are_restored_and_patience_ends_it() -> None:
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.9])
    kept: list[dict[str, Tensor]] = []

    def judge(model: nn.Module) -> Judgement:
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return Judgement(next(scores), 1.0)

    model = MeanPool()
    options = replace(OPTIONS, epochs=10, patience=3)
    fit = fit_classifier(model, lambda epoch: epoch_of(2), 2, judge, options, no_decay=never)
    assert [epoch.valid_score for epoch in fit.history] == [0.1, 0.5, 0.4, 0.5, 0.3]  # stopped before the 0.9
    assert fit.best_epoch == 2  # the first of equals
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[1][name])
        assert not torch.equal(value, kept[4][name])
    assert not model.training


def test_equal_scores_go_to_the_lower_loss() -> None:
    verdicts = iter([Judgement(0.5, 0.6), Judgement(0.5, 0.4), Judgement(0.5, 0.5)])
    fit = fit_classifier(
        MeanPool(), lambda e: epoch_of(1), 1, lambda m: next(verdicts), replace(OPTIONS, patience=9), no_decay=never
    )
    assert fit.best_epoch == 2


def test_parts_of_a_batch_sum_to_the_batch() -> None:
    input_ids, _, labels = batch(12, 5)
    parts = [(input_ids[rows], None, labels[rows]) for rows in (slice(0, 7), slice(7, 8), slice(8, 12))]
    whole, cut = MeanPool(), MeanPool()
    whole.dropout.p = cut.dropout.p = 0.0
    options = replace(OPTIONS, epochs=1)
    fit_classifier(whole, lambda e: [[(input_ids, None, labels)]], 1, judge_by_loss, options, no_decay=never)
    fit_classifier(cut, lambda e: [parts], 1, judge_by_loss, options, no_decay=never)
    for ours, theirs in zip(cut.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_backbone_learns_at_its_own_rate() -> None:
    moved = {}
    for scale in (1.0, 0.1, 0.0):
        model = MeanPool()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        options = replace(OPTIONS, epochs=1, scales=(("backbone.", scale),), weight_decay=0.0)
        fit_classifier(model, lambda e: epoch_of(1), 1, judge_by_loss, options, no_decay=never)
        moved[scale] = {name: float((p.detach() - before[name]).abs().max()) for name, p in model.named_parameters()}
    # The first step of Adam moves every parameter that has a gradient by the rate.
    assert moved[1.0]["backbone.weight"] == pytest.approx(1e-2, rel=1e-2)
    assert moved[0.1]["backbone.weight"] == pytest.approx(1e-3, rel=1e-2)
    assert moved[0.0]["backbone.weight"] == 0
    assert {moved[scale]["classifier.weight"] for scale in moved} == {moved[1.0]["classifier.weight"]}


def test_weight_decay_spares_what_it_is_told_to_spare() -> None:
    changed = {}
    for spare in (True, False):
        model = MeanPool()
        options = replace(OPTIONS, epochs=1, weight_decay=10.0)
        fit_classifier(model, lambda e: epoch_of(1), 1, judge_by_loss, options, no_decay=always if spare else never)
        changed[spare] = model.backbone.weight[0].detach()  # [CLS] is in no batch: only decay can move it
    assert torch.equal(changed[True], MeanPool().backbone.weight[0])
    assert torch.allclose(changed[False], MeanPool().backbone.weight[0] * (1 - 1e-2 * 10.0))


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    model = MeanPool()
    with torch.no_grad():
        model.classifier.bias[0] = float("inf")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(GenoSSMError, match="smaller --lr"):
        fit_classifier(model, lambda e: epoch_of(1), 1, judge_by_loss, OPTIONS, no_decay=never)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_progress_is_told_step_by_step() -> None:
    steps: list[int] = []
    epochs: list[Epoch] = []
    options = replace(OPTIONS, epochs=2)
    fit = fit_classifier(
        MeanPool(),
        lambda e: epoch_of(3),
        3,
        judge_by_loss,
        options,
        no_decay=never,
        on_step=lambda epoch, loss: steps.append(epoch),
        on_epoch=epochs.append,
    )
    assert steps == [0, 0, 0, 1, 1, 1]
    assert epochs == fit.history


def test_predict_gives_a_part_a_batch() -> None:
    model = MeanPool(3).eval()
    input_ids, _, _ = batch(5, 1)
    batches = [(input_ids, None), (input_ids[:2], torch.ones(2, 20, dtype=torch.bool))]
    logits = predict(lambda ids, mask: model(ids, mask=mask), batches)
    assert [tuple(part.shape) for part in logits] == [(5, 3), (2, 3)]
    torch.testing.assert_close(logits[0][:2], logits[1])


def test_the_average_follows_the_weights_and_is_what_is_kept() -> None:
    seen: list[Tensor] = []
    model = MeanPool()
    options = replace(OPTIONS, epochs=2, ema=0.5)
    average = model.classifier.bias.detach().clone()
    count = 0

    def follow(epoch: int, loss: float) -> None:
        nonlocal average, count
        keep = min(0.5, (1 + count) / (10 + count))
        average = keep * average + (1 - keep) * model.classifier.bias.detach()
        count += 1
        seen.append(model.classifier.bias.detach().clone())

    fit_classifier(model, lambda e: epoch_of(3), 3, judge_by_loss, options, no_decay=never, on_step=follow)
    torch.testing.assert_close(model.classifier.bias.detach(), average)
    assert not torch.allclose(model.classifier.bias, seen[-1])


def test_the_average_takes_batch_statistics_in_and_counts_whole() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, 0.9)
    assert model.running_mean is not None
    model.running_mean.fill_(10.0)
    model.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    average.update(model)
    assert average.average["running_mean"].tolist() == pytest.approx([9.0, 9.0])  # the first decay is 1 / 10
    assert int(average.average["num_batches_tracked"]) == 7


def test_a_fit_goes_on_from_a_saved_epoch_to_the_same_bits(tmp_path) -> None:
    options = replace(OPTIONS, epochs=4, ema=0.9, patience=3, seed=5)

    def run(model: nn.Module, resume: FitState | None = None, stop_after: int = 4) -> Fit | None:
        def save(state: FitState) -> None:
            save_fit_state(tmp_path / "fit.safetensors", state, "a")
            if len(state.history) == stop_after < 4:
                raise KeyboardInterrupt

        try:
            return fit_classifier(
                model, lambda e: epoch_of(3), 3, judge_by_loss, options, no_decay=never, resume=resume, save=save
            )
        except KeyboardInterrupt:
            return None

    whole, other = MeanPool(), MeanPool()
    through = run(whole)
    assert run(MeanPool(), stop_after=2) is None
    torch.rand(3)  # the state of the global generator must not matter
    state = load_fit_state(tmp_path / "fit.safetensors", "a")
    assert state is not None
    assert len(state.history) == 2
    assert run(other, state) == through
    for name, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_a_state_of_something_else_or_a_damaged_one_is_none(tmp_path) -> None:
    path = tmp_path / "fit.safetensors"
    assert load_fit_state(path, "a") is None
    save_fit_state(path, FitState({"model/x": torch.ones(3)}, [Epoch(1, 0.5, 0.4, 0.3)], 1), "a")
    found = load_fit_state(path, "a")
    assert found is not None
    assert found.history == [Epoch(1, 0.5, 0.4, 0.3)]
    assert load_fit_state(path, "b") is None
    path.write_bytes(path.read_bytes()[:-5])
    assert load_fit_state(path, "a") is None


def test_losses_of_every_kind() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.25]])
    log_p = torch.log_softmax(logits, 1)
    classes = FitOptions(epochs=1, lr=1.0)
    labels = torch.tensor([0, 1])
    assert float(task_loss(logits, labels, classes)) == pytest.approx(float(-log_p[0, 0] - log_p[1, 1]))
    weighed = replace(classes, class_weights=(1.0, 3.0))
    assert float(task_loss(logits, labels, weighed)) == pytest.approx(float(-log_p[0, 0] - 3 * log_p[1, 1]))
    tokens = torch.tensor([[0, -1]])  # one row of two bases, the second without a label
    assert float(task_loss(logits[None], tokens, classes)) == pytest.approx(float(-log_p[0, 0]))
    marks = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    binary = -(marks * logits.sigmoid().log() + (1 - marks) * (-logits).sigmoid().log())
    assert float(task_loss(logits, marks, replace(classes, kind="multilabel"))) == pytest.approx(
        float(binary.mean(1).sum())
    )
    squared = (logits - marks).square().mean(1).sum()
    assert float(task_loss(logits, marks, replace(classes, kind="regression"))) == pytest.approx(float(squared))
