"""Scores of an edit, held to two full windows read by the model itself, and to the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from genossm import vocab
from genossm.models import LanguageModel, base_log_probs, build_model, edits, streaming
from genossm.models.edits import Edit, EditedWindow, Effect
from genossm.models.formats.shapes import HyenaDNAShape, MambaShape
from genossm.models.streaming import read_window, stack_of

from .test_likelihood import CAUSAL, sequence, small

PS: dict[str, Any] = {"architecture": "caduceus", "bidirectional": True, "rc_equivariant": True, "objective": "masked"}


def published(**changes: Any) -> LanguageModel:
    """A published shape with random weights, far from uniform."""
    torch.manual_seed(0)
    model = build_model(
        MambaShape(**{"d_model": 16, "n_layer": 3, "vocab_size": 16, "dt_rank": 1, "vocabulary": HOUSE, **changes})
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" in name:
                parameter.mul_(30)
    return model.eval()


HOUSE = {letter: i for i, letter in enumerate(["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]"])}
HOUSE.update({letter: i + 7 for i, letter in enumerate("ACGTN")})

MODELS = {
    "masked": lambda: small(),
    "equivariant": lambda: small(rc_equivariant=True),
    "causal": lambda: small(**CAUSAL),
    "s4d": lambda: small(mixer="s4d"),
    "hybrid": lambda: small(pattern="MC", mlp_expand=2),
    "whole": lambda: small(pattern="MA", attention={"headdim": 8}),
    "caduceus-ph": lambda: published(**{**PS, "rc_equivariant": False}),
    "caduceus-ps": lambda: published(**PS, fused_add_norm=True),
    "mamba": lambda: published(architecture="mamba", bidirectional=False, objective="causal"),
}

EDITS = {
    "snv": (50, 51, "C"),
    "mnv": (20, 23, "CAT"),
    "insertion": (40, 40, "ACGTACG"),
    "deletion": (60, 66, ""),
    "complex": (70, 74, "TT"),
    "first": (0, 1, "T"),
    "last": (99, 100, "A"),
    "first_insertion": (0, 0, "GG"),
    "first_deletion": (0, 2, ""),
}


def edit(name: str) -> Edit:
    start, end, letters = EDITS[name]
    return Edit(start, end, vocab.encode(letters) if letters else np.empty(0, np.uint8))


@torch.inference_mode()
def by_hand(model: LanguageModel, tokens: np.ndarray, change: Edit) -> Effect:
    """One strand, from whole windows."""
    causal = model.config.objective == "causal"
    new = np.concatenate([tokens[: change.start], change.tokens, tokens[change.end :]])

    def read(text: np.ndarray, hidden: range = range(0)) -> tuple[np.ndarray, torch.Tensor]:
        ids = text.astype(np.int64)
        ids[list(hidden)] = vocab.MASK
        if causal and model.bos:
            ids = np.concatenate([[vocab.BOS], ids])
        output = model(torch.from_numpy(ids)[None])
        log_probs = base_log_probs(output.logits[0]).double().numpy()
        states = output.hidden_states[0]
        if causal and model.bos:
            log_probs, states = log_probs[:-1], states[1:]
        elif causal:
            log_probs = np.concatenate([np.full((1, 4), -math.log(4)), log_probs[:-1]])
        own = np.array([p[t - vocab.A] if t in vocab.BASES else 0.0 for p, t in zip(log_probs, text, strict=True)])
        return own, states

    m, k = len(change.tokens), change.end - change.start
    site_new, site_old = range(change.start, change.start + m), range(change.start, change.end)
    own_new, states_new = read(new)
    own_old, states_old = read(tokens)
    flanks = np.delete(own_new, list(site_new)).sum() - np.delete(own_old, list(site_old)).sum()
    if not causal:
        own_new, _ = read(new, site_new)
        own_old, _ = read(tokens, site_old)
    site = own_new[list(site_new)].sum() - own_old[list(site_old)].sum()
    if m != k:
        states_new = torch.from_numpy(np.delete(states_new.numpy(), list(site_new), axis=0))
        states_old = torch.from_numpy(np.delete(states_old.numpy(), list(site_old), axis=0))
    return Effect(float(site), float(site + flanks), float((states_new - states_old).norm()))


def assert_close(got: Effect, want: Effect, tolerance: float) -> None:
    for field in ("site", "window", "distance"):
        assert getattr(got, field) == pytest.approx(getattr(want, field), rel=tolerance, abs=tolerance), field


def mean_of(a: Effect, b: Effect) -> Effect:
    return Effect((a.site + b.site) / 2, (a.window + b.window) / 2, (a.distance + b.distance) / 2)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tolerance", [0.0, 1e-5])
def test_effects_are_those_of_two_whole_windows(name: str, tolerance: float) -> None:
    """Also where regions are read again: the random models remember little, so regions end well inside the window."""
    model = MODELS[name]()
    tokens = sequence(100, n_every=17)
    changes = [edit(which) for which in EDITS]
    both = not model.config.rc_equivariant
    got = EditedWindow(model, tokens, changes, both_strands=both, tolerance=tolerance).effects(changes)
    other = vocab.reverse_complement(tokens)
    for change, effect in zip(changes, got, strict=True):
        want = by_hand(model, tokens, change)
        if both:
            back = Edit(100 - change.end, 100 - change.start, vocab.reverse_complement(change.tokens))
            want = mean_of(want, by_hand(model, other, back))
        assert_close(effect, want, 5e-4)
        assert abs(effect.site) > 1e-3
        assert effect.distance > 1e-3


@pytest.mark.parametrize("name", ["masked", "equivariant", "causal", "caduceus-ps", "hybrid"])
def test_only_a_region_is_read_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a long window, most of it is left alone, and the scores are those of the whole within the tolerance."""
    monkeypatch.setattr(edits, "GRID", 64)
    monkeypatch.setattr(edits, "REACHES", (64, 256))
    model = MODELS[name]()
    tokens = sequence(3000, n_every=301)
    changes = [Edit(at, at + k, vocab.encode(new)) for at, k, new in ((1500, 1, "A"), (700, 2, "ACG"), (2995, 1, "C"))]
    exact = EditedWindow(model, tokens, changes, both_strands=True, tolerance=0).effects(changes)
    read: list[int] = []
    window = EditedWindow(model, tokens, changes, both_strands=True, tolerance=1e-4)
    plain = window._read_together
    monkeypatch.setattr(window, "_read_together", lambda rows: read.extend(r.length for r in rows) or plain(rows))
    near = window.effects(changes)
    assert max(read) < 1000
    for got, want in zip(near, exact, strict=True):
        assert got.site == pytest.approx(want.site, abs=1e-4)
        assert got.window == pytest.approx(want.window, abs=4e-4)
        assert got.distance == pytest.approx(want.distance, rel=1e-4)


@pytest.mark.parametrize("name", ["masked", "equivariant", "causal", "caduceus-ph", "caduceus-ps", "hybrid", "s4d"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_leaves_a_region_is_accounted_for(name: str, checkpointed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions so narrow that much leaves them: the first order takes most of the error out."""
    monkeypatch.setattr(edits, "GRID", 8)
    monkeypatch.setattr(edits, "REACHES", (28,))
    monkeypatch.setattr(streaming, "CHECKPOINTED", 0 if checkpointed else 1 << 30)
    model = MODELS[name]()
    tokens = sequence(400, n_every=101)
    changes = [Edit(at, at + k, vocab.encode(new)) for at, k, new in ((200, 1, "A"), (250, 2, "ACG"), (150, 1, "C"))]
    exact = EditedWindow(model, tokens, changes, both_strands=True, tolerance=0).effects(changes)
    window = EditedWindow(model, tokens, changes, both_strands=True, tolerance=1e9)
    near = window.effects(changes)
    for side in (side for pair in window._derivatives for side in pair):
        for place, state in side.items():
            side[place] = tuple(map(torch.zeros_like, state))
    frozen = window.effects(changes)

    def error(found: list[Effect]) -> float:
        return sum(abs(got.window - want.window) for got, want in zip(found, exact, strict=True))

    assert error(frozen) > 1e-4
    assert error(near) < 0.1 * error(frozen)


def test_the_site_alone() -> None:
    for name in ("masked", "causal", "caduceus-ps"):
        model, tokens, changes = MODELS[name](), sequence(100), [edit("snv"), edit("insertion")]
        full = EditedWindow(model, tokens, changes, both_strands=True, tolerance=1e-5).effects(changes)
        part = EditedWindow(model, tokens, changes, both_strands=True, tolerance=1e-5, site_only=True).effects(changes)
        assert [effect.site for effect in part] == pytest.approx([effect.site for effect in full], abs=1e-5)
        assert all(math.isnan(effect.window) and math.isnan(effect.distance) for effect in part)


def test_attention_is_read_whole_though_it_could_go_in_chunks() -> None:
    model = small(pattern="MA", attention={"headdim": 8}, **CAUSAL)
    tokens, changes = sequence(3000), [Edit(1500, 1502, vocab.encode("ACG")), Edit(1700, 1701, vocab.encode("A"))]
    exact = EditedWindow(model, tokens, changes, both_strands=False, tolerance=0).effects(changes)
    got = EditedWindow(model, tokens, changes, both_strands=False, tolerance=1e-3).effects(changes)
    assert got == exact


def test_neighbours_and_order_change_nothing() -> None:
    model, tokens = MODELS["masked"](), sequence(400)
    changes = [Edit(at, at + 1, np.array([vocab.A + (at % 4)], np.uint8)) for at in range(100, 300, 7)]
    together = EditedWindow(model, tokens, changes, both_strands=True, tolerance=1e-3).effects(changes)
    for change, effect in list(zip(changes, together, strict=True))[::9]:
        alone = EditedWindow(model, tokens, [change], both_strands=True, tolerance=1e-3).effects([change])[0]
        assert_close(alone, effect, 1e-4)


def test_the_typical_base_takes_the_length_out() -> None:
    """A model that knows nothing pays log 4 a base: corrected, every indel scores zero."""
    for changes in ({}, CAUSAL):
        model = small(**changes)
        with torch.no_grad():
            model.lm_head.weight.zero_()
        window = EditedWindow(
            model, sequence(100), [edit("insertion"), edit("complex")], both_strands=True, tolerance=0
        )
        assert window.typical() == pytest.approx(-math.log(4))
        for name in ("insertion", "complex"):
            (effect,) = window.effects([edit(name)])
            longer = len(edit(name).tokens) - (edit(name).end - edit(name).start)
            assert effect.site == pytest.approx(-longer * math.log(4), abs=1e-4)
            assert effect.site - longer * window.typical() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", ["masked", "causal", "hybrid", "s4d", "caduceus-ph", "caduceus-ps", "mamba"])
def test_reading_in_chunks_is_reading_at_once(name: str) -> None:
    model = MODELS[name]()
    stack = stack_of(model)
    assert stack is not None
    ids = model.translate(torch.from_numpy(np.stack([sequence(97), sequence(97, seed=2)]).astype(np.int64)))
    with torch.inference_mode():
        reading = read_window(stack, ids, [1, 13, 50, 96])
        whole, _ = stack.backbone(ids)
    torch.testing.assert_close(reading.hidden, whole, rtol=1e-4, atol=1e-4)
    assert [sorted(forward) for forward, _ in reading.states] == [[1, 13, 50, 96, 97]] * len(stack.layers)


def test_models_that_read_whole_sequences_have_no_stack() -> None:
    assert stack_of(MODELS["whole"]()) is None
    assert (
        stack_of(small(pattern="MA", attention={"headdim": 8}, **CAUSAL)) is not None
    )  # causal attention keeps its keys as a state
    assert stack_of(small(mixer="hyena", **CAUSAL)) is None
    shape = {"architecture": "hyenadna", "objective": "causal", "d_model": 16, "n_layer": 1, "vocab_size": 16}
    hyena = HyenaDNAShape(**shape, max_seqlen=64, d_inner=32, emb_dim=5, filter_order=8, vocabulary=HOUSE)
    assert stack_of(build_model(hyena)) is None
