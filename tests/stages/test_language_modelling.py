"""Batches as functions of (seed, step), losses against plain sums, and what a model may not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genossm import vocab
from genossm.config import SplitSection
from genossm.data.tokens_h5 import TokensFile, open_tokens
from genossm.models import ModelOutput, base_log_probs, build_model
from genossm.stages.language_modelling import Batch, LanguageModelling, flip_strands, hold_back
from genossm.stages.tokenize import tokenize
from tests.stages.pretraining import CAUSAL, MODEL, section, tokens_file

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokensFile:
    """The open tokens file of the toy genome."""
    return open_tokens(tokens_file(tmp_path_factory.mktemp("tokens")))


def _same(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, f), getattr(other, f)) for f in ("input_ids", "tokens", "targets", "soft_mask")
    )


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_a_batch_follows_from_seed_and_step(tokens: TokensFile, objective: str) -> None:
    task, other = (LanguageModelling(tokens, objective, section(), seed, CPU) for seed in (1, 2))  # type: ignore[arg-type]
    first = task.batch(5)
    task.batch(6)
    again = LanguageModelling(tokens, objective, section(), 1, CPU)  # type: ignore[arg-type]
    assert _same(first, again.batch(5))
    assert not _same(first, task.batch(6))
    assert not _same(first, other.batch(5))
    assert _same(task.held_out, other.held_out), "runs of different seeds are judged alike"


def test_batches_are_slices_of_training_windows_on_either_strand(tokens: TokensFile) -> None:
    task = LanguageModelling(tokens, "causal", section(), 1, CPU)
    flipped = 0
    for step in range(10):
        batch = task.batch(step)
        for (contig, start, end), row, soft in zip(task.places(step), batch.tokens, batch.soft_mask, strict=True):
            assert tokens.contigs[contig].name in ("I", "II")
            here, here_soft = tokens.read(contig, start, end)
            given = np.array_equal(row, here) and np.array_equal(soft, here_soft)
            other = np.array_equal(row, vocab.reverse_complement(here)) and np.array_equal(soft, here_soft[::-1])
            assert given or other
            flipped += not given
    assert 5 < flipped < 35
    straight = LanguageModelling(tokens, "causal", section(rc_augment=False), 1, CPU)
    assert all(
        np.array_equal(row, tokens.read(*place)[0])
        for row, place in zip(straight.batch(0).tokens, straight.places(0), strict=True)
    )


def test_flipping_twice_changes_nothing_and_copies() -> None:
    rows = np.array([[7, 8, 9, 10, 11], [7, 7, 8, 8, 9]], dtype=np.uint8)
    soft = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]], dtype=bool)
    flips = np.array([True, False])
    once, once_soft = flip_strands(rows, soft, flips)
    np.testing.assert_array_equal(once, [[11, 7, 8, 9, 10], [7, 7, 8, 8, 9]])
    np.testing.assert_array_equal(once_soft, [[0, 0, 0, 0, 1], [1, 1, 0, 0, 0]])
    twice, twice_soft = flip_strands(once, once_soft, flips)
    np.testing.assert_array_equal(twice, rows)
    np.testing.assert_array_equal(twice_soft, soft)


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_only_bases_are_targets_and_held_out_answers_are_hidden(tokens: TokensFile, objective: str) -> None:
    task = LanguageModelling(tokens, objective, section(), 1, CPU)  # type: ignore[arg-type]
    for batch in (task.batch(0), task.batch(1), task.held_out):
        assert batch.targets.any()
        assert set(np.unique(batch.tokens[batch.targets])) <= set(vocab.BASES)
    held = task.held_out
    assert held.tokens.shape == (8, 128)
    if objective == "masked":
        assert (held.input_ids[held.targets] == vocab.MASK).all()
        assert np.array_equal(held.input_ids[~held.targets], held.tokens[~held.targets])
        assert held.targets.mean() == pytest.approx(0.15, abs=0.04)
    else:
        assert (held.input_ids[:, 0] == vocab.BOS).all()
        assert np.array_equal(held.input_ids[:, 1:], held.tokens[:, :-1])


def test_a_causal_model_cannot_see_its_target() -> None:
    torch.manual_seed(0)
    model = build_model(CAUSAL)
    sequence = np.array([[7, 8, 9, 10, 7, 8, 9, 10]], dtype=np.uint8)
    changed = sequence.copy()
    changed[0, 4:] = [10, 10, 7, 7]
    soft = np.zeros_like(sequence, dtype=bool)
    with torch.no_grad():
        logits = [
            model(torch.from_numpy(hold_back(s, soft, "causal", 0.15).input_ids)).logits for s in (sequence, changed)
        ]
    assert torch.equal(logits[0][:, :5], logits[1][:, :5])
    assert not torch.allclose(logits[0][:, 5:], logits[1][:, 5:])


class Fixed(nn.Module):
    """Gives the same logits for every position: easy to sum by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.linspace(-1, 2, 16))

    def forward(self, input_ids: Tensor) -> ModelOutput:
        return ModelOutput(self.row.expand(*input_ids.shape, 16), self.row, [])


def test_losses_are_the_sums_they_claim_to_be(tokens: TokensFile) -> None:
    settings = section(soft_mask_weight=0.25)
    task = LanguageModelling(tokens, "masked", settings, 1, CPU)
    model = Fixed()
    nats = -base_log_probs(model.row).detach().numpy()
    soft_seen = 0
    for step in range(4):
        batch = task.batch(step)
        soft_seen += int((batch.soft_mask & batch.targets).sum())
        total = weight = shown = count = 0.0
        for row, col in np.argwhere(batch.targets):
            loss = nats[batch.tokens[row, col] - vocab.A]
            w = 0.25 if batch.soft_mask[row, col] else 1.0
            total, weight = total + w * loss, weight + w
            if batch.input_ids[row, col] == vocab.MASK:
                shown, count = shown + loss, count + 1
        result = task.loss(model, step)
        assert float(result.objective.detach()) == pytest.approx(total / weight, rel=1e-5)
        assert float(result.shown) == pytest.approx(shown / count, rel=1e-5)
        assert result.objective.requires_grad
        assert not result.shown.requires_grad
    assert soft_seen > 10
    held = task.held_out
    with torch.no_grad():
        figures = task.validate(model, lambda: False)
    assert figures is not None
    assert figures["valid_loss"] == pytest.approx(nats[held.tokens[held.targets] - vocab.A].mean(), rel=1e-6)


def test_validation_does_not_depend_on_the_batch_size_and_can_be_left(tokens: TokensFile) -> None:
    torch.manual_seed(0)
    model = build_model(MODEL).eval()
    with torch.no_grad():
        figures = [
            LanguageModelling(tokens, "masked", section(batch_size=size), 1, CPU).validate(model, lambda: False)
            for size in (1, 3, 8)
        ]
        asked = iter([False, True])
        assert LanguageModelling(tokens, "masked", section(), 1, CPU).validate(model, lambda: next(asked)) is None
    losses = [f["valid_loss"] for f in figures if f is not None]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_a_batch_without_a_base_has_no_loss_and_no_gradient(tmp_path: Path) -> None:
    fasta = tmp_path / "n.fa"
    fasta.write_text(">I\n" + "N" * 600 + "\n>II\n" + "ACGT" * 150 + "\n")
    tokenize(fasta, tmp_path / "n.h5", window=256, max_n=1.0, split=SplitSection(by="contig", valid=["II"]))
    task = LanguageModelling(open_tokens(tmp_path / "n.h5"), "masked", section(), 1, CPU)
    model = Fixed()
    result = task.loss(model, 0)
    result.objective.backward()
    assert (float(result.objective.detach()), float(result.shown)) == (0.0, 0.0)
    assert model.row.grad is not None
    assert not model.row.grad.any()


def test_a_batch_is_described_by_its_windows(tokens: TokensFile) -> None:
    task = LanguageModelling(tokens, "masked", section(batch_size=6), 1, CPU)
    contig, start, end = task.places(3)[0]
    text = task.describe(3)
    assert text.startswith(f"windows {tokens.contigs[contig].name}:{start + 1}-{end}, ")
    assert text.endswith("... of 6")
