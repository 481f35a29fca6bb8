"""Scores of one record, each held to the definition written out base by base."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from genossm import vocab
from genossm.config import ModelConfig
from genossm.models import LanguageModel, SequenceClassifier, base_log_probs, build_model, course, likelihood, sweeps
from genossm.models.course import Bookmark, Course
from genossm.models.likelihood import Reading


def small(seed: int = 0, **changes: Any) -> LanguageModel:
    """A model whose predictions are far from uniform, so that a mistake shows."""
    torch.manual_seed(seed)
    config = ModelConfig(**{"d_model": 16, "n_layer": 2, "d_state": 4, **changes})
    model = build_model(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
        for name, parameter in model.named_parameters():
            if name.endswith("embedding.weight"):
                parameter.mul_(30)
    return model


CAUSAL: dict[str, Any] = {"objective": "causal", "bidirectional": False}


def sequence(length: int, seed: int = 0, n_every: int = 0) -> np.ndarray:
    tokens = np.random.default_rng(seed).integers(vocab.A, vocab.T + 1, length).astype(np.uint8)
    if n_every:
        tokens[::n_every] = vocab.N
    return tokens


def score(
    model: LanguageModel,
    tokens: np.ndarray,
    *,
    passes: int = 4,
    window: int | None = None,
    overlap: int = 0,
    both: bool = False,
    memory: int = 1 << 30,
    track: np.ndarray | None = None,
) -> float:
    reading = Reading(passes, both, window, overlap, memory)
    return float(likelihood.log_likelihood(model, tokens, reading, track))


@torch.inference_mode()
def masked_by_hand(model: LanguageModel, tokens: np.ndarray, passes: int) -> float:
    total = 0.0
    for p in range(passes):
        hidden = [i for i in range(p, len(tokens), passes) if tokens[i] in vocab.BASES]
        ids = tokens.astype(np.int64)
        ids[hidden] = vocab.MASK
        log_probs = base_log_probs(model(torch.from_numpy(ids)[None]).logits[0])
        total += sum(float(log_probs[i, tokens[i] - vocab.A]) for i in hidden)
    return total


@torch.inference_mode()
def causal_by_hand(model: LanguageModel, tokens: np.ndarray) -> float:
    total = 0.0
    for i in range(len(tokens)):  # a fresh pass over the prefix for every base
        if tokens[i] in vocab.BASES:
            prefix = torch.from_numpy(np.concatenate([[vocab.BOS], tokens[:i]]).astype(np.int64))[None]
            total += float(base_log_probs(model(prefix).logits[0, -1])[tokens[i] - vocab.A])
    return total


@pytest.mark.parametrize("passes", [1, 3, 8])
@pytest.mark.parametrize("n_every", [0, 5])
def test_masked_is_the_sum_over_interleaved_passes(passes: int, n_every: int) -> None:
    model, tokens = small(), sequence(37, n_every=n_every)
    want = masked_by_hand(model, tokens, passes)
    assert score(model, tokens, passes=passes) == pytest.approx(want, rel=1e-5)
    assert abs(want / 37 + np.log(4)) > 0.05  # not the uniform value, or the test would see nothing


def test_more_passes_than_bases_hide_one_base_each() -> None:
    model, tokens = small(), sequence(5)
    assert score(model, tokens, passes=8) == pytest.approx(score(model, tokens, passes=5), rel=1e-5)
    assert score(model, tokens, passes=10**9) == score(model, tokens, passes=5)


@pytest.mark.parametrize("n_every", [0, 5])
def test_causal_is_exact(n_every: int) -> None:
    model, tokens = small(**CAUSAL), sequence(23, n_every=n_every)
    assert score(model, tokens) == pytest.approx(causal_by_hand(model, tokens), rel=1e-5)


def test_causal_probabilities_of_all_sequences_sum_to_one() -> None:
    model = small(**CAUSAL)
    total = 0.0
    for code in range(64):
        tokens = np.array([vocab.A + (code >> 2 * i) % 4 for i in range(3)], dtype=np.uint8)
        total += np.exp(score(model, tokens))
    assert total == pytest.approx(1, abs=1e-5)


def test_causal_chunks_carry_the_state() -> None:
    model, tokens = small(**CAUSAL), sequence(101)
    whole = score(model, tokens)
    for window in (1, 16, 50, 100):
        assert score(model, tokens, window=window) == pytest.approx(whole, rel=1e-5)


def test_masked_pieces_are_scored_by_themselves() -> None:
    model, tokens = small(), sequence(100)
    want = sum(masked_by_hand(model, piece, 4) for piece in (tokens[:33], tokens[33:66], tokens[66:]))
    assert score(model, tokens, window=40) == pytest.approx(want, rel=1e-5)
    tokens[33:66] = vocab.N
    want = sum(masked_by_hand(model, piece, 4) for piece in (tokens[:33], tokens[66:]))
    assert score(model, tokens, window=40) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"rc_equivariant": True}, CAUSAL, {**CAUSAL, "mixer": "s4d"}])
@pytest.mark.parametrize("window", [None, 40])
def test_a_reading_goes_on_from_any_bookmark(
    changes: dict[str, Any], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Total and track have the bits of an undisturbed reading, and every base is told of once."""
    monkeypatch.setattr(likelihood, "ONE_PASS", 50)
    monkeypatch.setattr(course, "SECONDS_BETWEEN_MARKS", 0.0)
    monkeypatch.setattr(course, "SHARE_OF_MARKING", math.inf)
    model, tokens = small(**changes), sequence(131, n_every=7)
    reading = Reading(4, True, window, 0 if window is None else 9)
    want = np.zeros(len(tokens), np.float32)
    kept: list[tuple[Bookmark, np.ndarray]] = []
    told: list[int] = []

    def way(track: np.ndarray, begun: Bookmark | None = None) -> Course:
        told.clear()
        keep = None if begun else lambda mark: kept.append((mark, track.copy()))
        return Course(len(tokens), told.append, begun=begun, mark=keep)

    total = float(likelihood.log_likelihood(model, tokens, reading, want, way(want)))
    assert total == score(model, tokens, window=window, overlap=reading.overlap, both=True)
    assert len(kept) > 3
    for bookmark, track in kept:
        assert float(likelihood.log_likelihood(model, tokens, reading, track, way(track, bookmark))) == total
        assert np.array_equal(track, want)
        assert sum(told) == len(tokens)


@pytest.mark.parametrize("length", [131, 49])
def test_progress_is_told_as_it_goes(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "ONE_PASS", 50)
    monkeypatch.setattr(sweeps, "chunk_length", lambda stack: 20)
    told: list[int] = []
    likelihood.log_likelihood(small(), sequence(length), Reading(4), None, Course(length, told.append))
    assert sum(told) == length
    assert min(told) > 0
    assert len(told) > (100 if length > 50 else 0)


@pytest.mark.parametrize("changes", [{}, CAUSAL])
def test_both_strands_are_the_mean_of_the_two(changes: dict[str, Any]) -> None:
    model, tokens = small(**changes), sequence(37)
    other = vocab.reverse_complement(tokens)
    one, two = score(model, tokens), score(model, other)
    assert abs(one - two) > 1e-3
    assert score(model, tokens, both=True) == pytest.approx((one + two) / 2, rel=1e-6)
    assert score(model, other, both=True) == pytest.approx(score(model, tokens, both=True), rel=1e-6)


@pytest.mark.parametrize("length", [36, 37])
def test_an_equivariant_model_needs_one_strand(length: int) -> None:
    model, tokens = small(rc_equivariant=True), sequence(length)
    one = score(model, tokens)
    assert score(model, tokens, both=True) == one
    assert score(model, vocab.reverse_complement(tokens)) == pytest.approx(one, rel=1e-5)


def test_rows_of_a_record_may_be_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = small(), sequence(50)
    whole = score(model, tokens, both=True)
    for row_tokens in (1, 50, 175):
        monkeypatch.setattr(likelihood, "ROW_TOKENS", row_tokens)
        assert score(model, tokens, both=True) == pytest.approx(whole, rel=1e-5)


def test_what_was_scored_before_changes_no_bit() -> None:
    model, tokens = small(), sequence(64)
    first = score(model, tokens, both=True)
    for length in (1, 63, 200):
        score(model, sequence(length, seed=9), both=True)
        assert score(model, tokens, both=True) == first


def test_class_probabilities() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(d_model=16, n_layer=1, d_state=4), 3).eval()
    assert isinstance(model, SequenceClassifier)
    tokens = sequence(40)
    with torch.no_grad():
        model.classifier.weight.mul_(20)
        ids = np.stack([tokens, vocab.reverse_complement(tokens)]).astype(np.int64)
        logits = model(torch.from_numpy(ids)).logits.double()
    one = likelihood.class_probabilities(model, tokens, both_strands=False)
    two = likelihood.class_probabilities(model, tokens, both_strands=True)
    torch.testing.assert_close(one, torch.softmax(logits[0], 0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(two, torch.softmax(logits.mean(0), 0), rtol=1e-5, atol=1e-6)
    assert (one - two).abs().max() > 1e-3
    assert (one.dtype, float(one.sum())) == (torch.float64, pytest.approx(1))


SHAPES: dict[str, dict[str, Any]] = {
    "masked": {},
    "equivariant": {"rc_equivariant": True},
    "hybrid": {"pattern": "MC4", "n_layer": 3, "mlp_expand": 2},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory", [0, 30_000, 1 << 30])
def test_a_long_record_goes_through_layer_by_layer(shape: str, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With activations in files, in memory, or partly so: the value of one pass, base by base."""
    model, tokens = small(**SHAPES[shape]), sequence(400, n_every=23)
    whole, streamed = np.zeros(400, np.float32), np.zeros(400, np.float32)
    want = score(model, tokens, both=True, track=whole)
    monkeypatch.setattr(likelihood, "ONE_PASS", 100)
    monkeypatch.setattr(sweeps, "CHUNK_NUMBERS", 1)
    monkeypatch.setattr(sweeps, "SHORTEST_CHUNK", 64)
    assert score(model, tokens, both=True, memory=memory, track=streamed) == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(streamed, whole, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, CAUSAL, {"rc_equivariant": True}])
@pytest.mark.parametrize("cut", [{}, {"window": 40}, {"window": 40, "overlap": 10}])
@pytest.mark.parametrize("both", [False, True])
def test_a_track_adds_up_to_the_score(changes: dict[str, Any], cut: dict[str, int], both: bool) -> None:
    model, tokens, track = small(**changes), sequence(100, n_every=7), np.zeros(100, np.float32)
    total = score(model, tokens, both=both, track=track, **cut)
    assert track.sum() == pytest.approx(total, rel=1e-5)
    assert (track[tokens == vocab.N] == 0).all()
    assert (track[tokens != vocab.N] < 0).all()


def test_overlapping_pieces_score_each_base_once_with_a_margin() -> None:
    model, tokens, track = small(), sequence(100), np.zeros(100, np.float32)
    score(model, tokens, window=50, overlap=20, track=track)  # four pieces: the second reads 15 to 60
    want = np.zeros(45, np.float32)
    score(model, tokens[15:60], track=want)
    np.testing.assert_allclose(track[25:50], want[10:35], atol=1e-5)
    near, far = np.zeros(100, np.float32), np.zeros(100, np.float32)
    score(model, tokens, window=90, overlap=80, track=near)
    score(model, tokens, track=far)
    np.testing.assert_allclose(near.sum(), far.sum(), rtol=0.05)


def test_published_models_without_bos_know_nothing_of_the_first_base() -> None:
    model, tokens, track = small(**CAUSAL), sequence(30), np.zeros(30, np.float32)
    model.bos = False
    score(model, tokens, both=True, track=track)
    alone = np.zeros(30, np.float32)
    score(model, tokens, track=alone)
    assert alone[0] == pytest.approx(-np.log(4))
    assert track[0] != pytest.approx(-np.log(4))
