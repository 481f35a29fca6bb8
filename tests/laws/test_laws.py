"""The five laws of the design: every mixer, both directions, float64 and float32.

A mixer that cannot keep a law says so by its flags, and refuses.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genossm.config import ModelConfig
from genossm.models import build_model
from genossm.models.bidirectional import Bidirectional, both_directions
from genossm.models.mixers import MIXERS, build_mixer
from genossm.models.mixers.base import Mixer

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
D_MODEL, SEQLEN = 12, 80
CHUNKS = [7, 1, 1, 64, 5, 2]


@pytest.fixture(params=sorted(MIXERS))
def mixer_name(request) -> str:
    return request.param


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


OPTIONS = {
    "ssd": {"headdim": 6, "n_groups": 2},
    "hyena": {"max_length": 128, "filter_order": 8},
    "rwkv": {"headdim": 4, "rank": 3},
    "attention": {"headdim": 4, "window": 9},
    "conv": {"kernel": 3, "layers": 3},
}


def config(name: str, **changes) -> ModelConfig:
    return ModelConfig(**{"d_model": D_MODEL, "n_layer": 2, "mixer": name, "d_state": 6, **OPTIONS, **changes})


def make(name: str, dtype: torch.dtype, bidirectional: bool = False) -> Mixer | Bidirectional:
    mixer = build_mixer(config(name))
    return (both_directions(mixer) if bidirectional else mixer).to(dtype)


def stateful(block: Mixer | Bidirectional) -> bool:
    """Whether ``block`` keeps a state; one that keeps none must refuse to be given one, to make one and to step."""
    if block.stateful:
        return True
    refusal = pytest.raises(ValueError, match="keeps no state")
    with refusal:
        block(torch.randn(1, 3, D_MODEL), state=(torch.zeros(1),))
    with refusal:
        block.init_state(1)
    if block.causal:
        with refusal:
            block.step(torch.randn(1, D_MODEL), ())
    return False


def close(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    scale = max(a.abs().max().item(), 1e-3)
    return (a - b).abs().max().item() <= TOLERANCE[dtype] * scale


def gradients(loss: Tensor, module: torch.nn.Module, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [*inputs, *module.parameters()]))


def flat(state: Any) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else [tensor for part in state for tensor in flat(part)]


def weigh(y: Tensor) -> Tensor:
    return (y * torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)).sum()


def test_law_1_forward_equals_the_folded_steps(mixer_name: str, dtype: torch.dtype) -> None:
    mixer = make(mixer_name, dtype)
    if not stateful(mixer):
        return
    x = torch.randn(2, 10, D_MODEL, dtype=dtype)
    y, last = mixer(x)
    state, steps = mixer.init_state(2), []
    for t in range(x.shape[1]):
        y_t, state = mixer.step(x[:, t], state)
        steps.append(y_t)
    assert close(y, torch.stack(steps, dim=1), dtype)
    assert all(close(a, b, dtype) for a, b in zip(last, state, strict=True))


def test_law_2_chunks_with_carried_state_equal_one_pass(mixer_name: str, dtype: torch.dtype) -> None:
    mixer = make(mixer_name, dtype)
    if not stateful(mixer):
        return
    x = torch.randn(2, SEQLEN, D_MODEL, dtype=dtype, requires_grad=True)
    whole, last = mixer(x)
    state, parts = None, []
    for piece in x.split(CHUNKS, dim=1):
        y, state = mixer(piece, state=state)
        parts.append(y)
    assert close(whole, torch.cat(parts, dim=1), dtype)
    assert state is not None
    assert all(close(a, b, dtype) for a, b in zip(last, state, strict=True))
    for a, b in zip(
        gradients(weigh(whole), mixer, x), gradients(weigh(torch.cat(parts, dim=1)), mixer, x), strict=True
    ):
        assert close(a, b, dtype)


def test_law_2_bidirectional_sweeps_equal_one_pass(mixer_name: str, dtype: torch.dtype) -> None:
    mixer = make(mixer_name, dtype, bidirectional=True)
    if not stateful(mixer):
        return
    assert isinstance(mixer, Bidirectional)
    x = torch.randn(2, SEQLEN, D_MODEL, dtype=dtype, requires_grad=True)
    whole, _ = mixer(x)
    pieces = x.split(CHUNKS, dim=1)
    forward, state = [], None
    for piece in pieces:
        y, state = mixer.sweep(piece, "forward", state)
        forward.append(y)
    backward, state = [], None
    for piece in reversed(pieces):
        y, state = mixer.sweep(piece, "backward", state)
        backward.insert(0, y)
    combined = [mixer.combine(p, f, b) for p, f, b in zip(pieces, forward, backward, strict=True)]
    swept = torch.cat(combined, dim=1)
    assert close(whole, swept, dtype)
    for a, b in zip(gradients(weigh(whole), mixer, x), gradients(weigh(swept), mixer, x), strict=True):
        assert close(a, b, dtype)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
def test_law_3_padding_changes_nothing(mixer_name: str, dtype: torch.dtype, bidirectional: bool) -> None:
    """Padding on the right, on the left, and on both sides."""
    block = make(mixer_name, dtype, bidirectional)
    length = 90
    places = torch.tensor([[0], [60], [3]]) + torch.arange(30)
    mask = torch.zeros(3, length, dtype=torch.bool).scatter(1, places, True)
    x = torch.randn(3, 30, D_MODEL, dtype=dtype, requires_grad=True)
    padded = torch.randn(3, length, D_MODEL, dtype=dtype)
    padded[mask] = x.detach().flatten(0, 1)
    padded.requires_grad_()
    alone, alone_state = block(x)
    among, among_state = block(padded, mask=mask)
    kept = among[mask].view_as(alone)
    assert close(alone, kept, dtype)
    for a, b in zip(flat(alone_state), flat(among_state), strict=True):
        assert close(a, b, dtype)
    ours, theirs = gradients(weigh(alone), block, x), gradients(weigh(kept), block, padded)
    assert close(ours[0], theirs[0][mask].view_as(x), dtype)
    assert theirs[0][~mask].abs().max() == 0
    assert all(close(a, b, dtype) for a, b in zip(ours[1:], theirs[1:], strict=True))


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
def test_law_3_packing_changes_nothing(mixer_name: str, dtype: torch.dtype, bidirectional: bool) -> None:
    block = make(mixer_name, dtype, bidirectional)
    lengths = [1, 30, 2, 17, 40]
    x = torch.randn(1, sum(lengths), D_MODEL, dtype=dtype, requires_grad=True)
    segments = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))[None]
    packed, _ = block(x, segments=segments)
    separate = torch.cat([block(piece)[0] for piece in x.split(lengths, dim=1)], dim=1)
    assert close(separate, packed, dtype)
    for a, b in zip(gradients(weigh(separate), block, x), gradients(weigh(packed), block, x), strict=True):
        assert close(a, b, dtype)


def test_law_3_a_record_does_not_depend_on_its_batch(mixer_name: str, dtype: torch.dtype) -> None:
    model = build_model(config(mixer_name), num_labels=3).to(dtype).eval()
    records = [torch.randint(7, 11, (n,)) for n in (1, 40, 77, 13)]
    ids = torch.full((4, 77), 4)
    mask = torch.zeros(4, 77, dtype=torch.bool)
    for row, record in enumerate(records):
        ids[row, : len(record)], mask[row, : len(record)] = record, True
    together = model(ids, mask).logits
    alone = torch.cat([model(record[None]).logits for record in records])
    assert close(alone, together, dtype)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
def test_law_4_causality_and_receptive_field(mixer_name: str, dtype: torch.dtype, bidirectional: bool) -> None:
    """A causal mixer shows a change from its place on, a bidirectional one everywhere, as far as it claims to reach."""
    block = make(mixer_name, dtype, bidirectional)
    x = torch.randn(1, 40, D_MODEL, dtype=dtype)
    changed = x.clone()
    changed[:, 20] += 1
    moved = (block(x)[0] - block(changed)[0]).abs().amax(dim=(0, 2))
    assert block.causal is not bidirectional
    reach = 40 if block.reach is None else block.reach
    assert (moved[20 : 20 + reach + 1] > 0).all()
    assert (moved[21 + reach :] <= TOLERANCE[dtype]).all()
    before = moved[max(0, 20 - reach) : 20]
    assert (before > 0).all() if bidirectional else (before <= TOLERANCE[dtype]).all()


def test_law_5_reverse_complement_equivariance(mixer_name: str, dtype: torch.dtype) -> None:
    """Exactly: the logits of the other strand are the complement's logits, reversed."""
    model = build_model(config(mixer_name, rc_equivariant=True)).to(dtype).eval()
    ids = torch.randint(7, 12, (3, SEQLEN))
    logits = model(ids).logits
    other = model(model.complement[ids].flip(1)).logits
    assert torch.equal(other.flip(1)[..., model.complement], logits)
    classifier = build_model(config(mixer_name, rc_equivariant=True), num_labels=2).to(dtype).eval()
    assert close(classifier(ids).logits, classifier(model.complement[ids].flip(1)).logits, dtype)


def test_a_mixer_that_cannot_refuses() -> None:
    block = Bidirectional(build_mixer(config("mamba")))
    with pytest.raises(ValueError, match="cannot step token by token"):
        block.step(torch.randn(1, D_MODEL), block.init_state(1))
    model = build_model(config("mamba", rc_equivariant=True))
    with pytest.raises(ValueError, match="takes no state"):
        model(torch.randint(7, 11, (1, 5)), state=[None])
    with pytest.raises(ValueError, match="not packed segments"):
        build_model(config("mamba"), num_labels=2)(torch.randint(7, 11, (1, 5)), segments=torch.zeros(1, 5))


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_a_state_has_memory_of_its_own(mixer_name: str, bidirectional: bool, packed: bool) -> None:
    """A view of the inputs would keep every layer's activations alive until the last layer has run."""
    block = make(mixer_name, torch.float32, bidirectional)
    if not stateful(block):
        return
    foreign = []
    for seqlen in (120, 600):
        segments = (torch.arange(seqlen) // 30).expand(2, -1) if packed and block.segments else None
        with torch.inference_mode():
            _, state = block(torch.randn(2, seqlen, D_MODEL), segments=segments)
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_of(state)}
        foreign.append(sum(held.values()) - sum(t.numel() * t.element_size() for t in tensors_of(state)))
    assert foreign[1] <= max(foreign[0], 0)


def tensors_of(state: Any) -> list[Tensor]:
    """All tensors in nested tuples and lists."""
    return [state] if isinstance(state, Tensor) else [tensor for part in state for tensor in tensors_of(part)]
