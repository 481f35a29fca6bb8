"""Models of labelled tasks: padding and strands, the gapped k-mer machine, adapters that reach the state spaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from genossm import vocab
from genossm.baselines.gapped_kmer import GROUPS, POSITION_KS, View, features
from genossm.config import GappedKmerConfig, HeadConfig, ModelConfig, MotifConfig, TaskConfig
from genossm.models.cnn import BenchmarkCNN, flattened
from genossm.models.gapped_kmers import GappedKmers, kmer_codes
from genossm.models.lora import add_adapters, merge_adapters, projections
from genossm.models.motif import both_sides
from genossm.models.task import TaskModel, TaskNetwork, other_strand, unflip

SMALL = MotifConfig(filters=8, d_state=2)


def tokens(rows: int, length: int, seed: int = 0, n: bool = False) -> np.ndarray:
    return np.random.default_rng(seed).integers(7, 12 if n else 11, (rows, length)).astype(np.uint8)


def trained(network: TaskNetwork) -> TaskNetwork:
    """A network whose batch statistics and zero-initialised weights are not at their start."""
    torch.manual_seed(1)
    for _ in range(3):
        network(torch.from_numpy(tokens(16, 40, n=True).astype(np.int64)))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return network.eval()


@pytest.mark.parametrize("length", [0, 40])
def test_padding_changes_nothing(length: int) -> None:
    torch.manual_seed(0)
    network = trained(TaskNetwork(None, HeadConfig(motif=SMALL, length=length, both_strands=False), 3))
    ids = torch.from_numpy(tokens(1, 33, n=True).astype(np.int64))
    padded = torch.nn.functional.pad(ids, (0, 27), value=vocab.PAD)
    mask = torch.arange(60)[None] < 33
    with torch.no_grad():
        if length:
            padded, mask = padded[:, :40], mask[:, :40]
        torch.testing.assert_close(network(padded, mask), network(ids), rtol=1e-5, atol=1e-5)


def test_outputs_for_every_base_follow_the_base_and_read_either_strand() -> None:
    head = HeadConfig(motif=MotifConfig(filters=8, pool=1), level="token", wide=(), both_strands=True)
    model = TaskModel(TaskConfig(head=head, outputs=2, kind="tokens"))
    trained(model.networks[0])
    ids = torch.from_numpy(tokens(2, 30).astype(np.int64))
    mask = torch.arange(30)[None] < torch.tensor([[30], [21]])
    ids = ids.masked_fill(~mask, vocab.PAD)
    with torch.no_grad():
        given = model.eval()(ids, mask).logits
        other = model(*other_strand(ids, mask)).logits
        alone = model(ids[1:, :21]).logits
    torch.testing.assert_close(unflip(other, mask)[mask], given[mask], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given[1:, :21], alone, rtol=1e-4, atol=1e-5)


def test_unflip_reads_every_row_backwards_within_itself() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    values = torch.tensor([[1, 2, 3], [4, 5, 9]])
    assert unflip(values, mask).tolist() == [[3, 2, 1], [5, 4, 9]]
    assert unflip(values, None).tolist() == [[3, 2, 1], [9, 5, 4]]


@pytest.mark.parametrize("n", [7, 200])
def test_a_state_space_is_a_convolution_to_both_sides(n: int) -> None:
    rng = torch.Generator().manual_seed(0)
    u, past, future = (torch.randn(*shape, generator=rng) for shape in ((2, 3, n), (3, n), (3, n)))
    lag = torch.arange(n)[:, None] - torch.arange(n)  # of output i and input j
    weight = torch.where(lag >= 0, past[:, lag.clamp(min=0)], future[:, (-lag).clamp(min=0)])
    wanted = torch.einsum("cij,bcj->bci", weight, u)
    torch.testing.assert_close(both_sides(u, past, future), wanted, rtol=1e-3, atol=1e-3)


def test_codes_of_gapped_kmers() -> None:
    ids = torch.tensor([[7, 8, 9, 10, 11, 7]])  # ACGTNA
    code, whole = kmer_codes(ids, (0, 2))
    assert code.tolist() == [[0 * 4 + 2, 1 * 4 + 3, 0, 3 * 4 + 0]]
    assert whole.tolist() == [[True, True, False, True]]


@pytest.mark.parametrize("view", [View(True), View(False), View(False, 30)])
def test_the_machine_in_the_model_is_the_machine_that_was_fitted(view: View) -> None:
    rows = [
        t[:length]
        for t, length in zip(tokens(4, 30, n=True), (30, 30, 30, 30) if view.length else (30, 11, 5, 1), strict=True)
    ]
    matrix = features(rows, view)
    config = GappedKmerConfig(
        groups=GROUPS, both_strands=view.both_strands,
        position_ks=POSITION_KS if view.length else (), length=view.length,
    )  # fmt: skip
    machine = GappedKmers(config, 2)
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(matrix.shape[1], 2))
    edge = len(machine.weight)
    machine.weight.copy_(torch.from_numpy(weight[:edge]))
    machine.position_weight.copy_(torch.from_numpy(weight[edge:]))
    machine.bias.copy_(torch.tensor([0.5, -0.25]))
    wanted = matrix @ weight + [0.5, -0.25]
    for row, said in zip(rows, wanted, strict=True):
        ids = torch.from_numpy(row.astype(np.int64))[None]
        padded = torch.nn.functional.pad(ids, (0, 3), value=vocab.PAD)
        for read in (ids, padded):
            np.testing.assert_allclose(machine(read)[0].numpy(), said, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mixer", ["mamba", "ssd", "s4d", "rwkv7"])
def test_adapters_reach_the_projections_of_the_mixers_and_merge_to_the_same(mixer: str) -> None:
    torch.manual_seed(0)
    options = {"ssd": {"ssd": {"headdim": 8}}, "rwkv7": {"rwkv": {"headdim": 8, "rank": 4}, "bidirectional": False}}
    shape = ModelConfig(d_model=16, n_layer=2, mixer=mixer, d_state=4, **options.get(mixer, {}))
    network = TaskNetwork(shape, HeadConfig(motif=None, wide=()), 2).eval()
    ids = torch.from_numpy(tokens(3, 40).astype(np.int64))
    before = network(ids)
    adapters = add_adapters(network, 2)
    assert len(adapters) == len(projections(network)) > 2
    torch.testing.assert_close(network(ids), before)  # B is zero: nothing has changed yet
    with torch.no_grad():
        for adapter in adapters:
            torch.nn.init.normal_(adapter.B, std=0.1)
    network(ids)[:, 0].sum().backward()
    for name, layer in projections(network).items():
        adapter = layer.parametrizations.weight[0]
        assert float(adapter.A.grad.abs().max()) > 0, name
        assert float(adapter.B.grad.abs().max()) > 0, name
    assert all(not p.requires_grad for n, p in network.base.named_parameters() if not n.endswith((".A", ".B")))
    adapted = network(ids)
    assert (adapted - before).abs().max() > 1e-4
    merge_adapters(network)
    assert not any(parametrize.is_parametrized(layer) for layer in projections(network).values())
    torch.testing.assert_close(network(ids), adapted, rtol=1e-5, atol=1e-6)


def test_a_frozen_backbone_reads_a_sequence_once_and_says_the_same() -> None:
    torch.manual_seed(0)
    head = HeadConfig(motif=SMALL)
    network = TaskNetwork(ModelConfig(d_model=8, n_layer=1, d_state=4), head, 2).eval()
    ids = torch.from_numpy(tokens(4, 30).astype(np.int64))
    mask = torch.arange(30)[None] < torch.tensor([[30], [30], [20], [11]])
    ids = ids.masked_fill(~mask, vocab.PAD)
    wanted = network(ids, mask)
    read: list[int] = []
    network.freeze_base()
    states = network.backbone_states
    network.backbone_states = lambda i, m: read.append(len(i)) or states(i, m)  # type: ignore[method-assign]
    torch.testing.assert_close(network(ids[:2]), wanted[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(ids, mask), wanted, rtol=1e-4, atol=1e-5)
    network(ids, mask).sum().backward()
    assert read == [2, 2]
    assert network.base is not None
    assert all(p.grad is None for p in network.base.parameters())
    assert network.layers[1].weight.grad is not None
    network.forget()
    network(ids, mask)
    assert read == [2, 2, 4]


def test_the_benchmarks_network_has_its_published_shape() -> None:
    network = BenchmarkCNN(200, 2)
    assert [m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv1d)] == [16, 8, 4]
    assert network(torch.from_numpy(tokens(3, 180).astype(np.int64))).shape == (3, 2)
    assert flattened(30) == 0
    with pytest.raises(ValueError, match="too short"):
        BenchmarkCNN(30, 2)


def test_heads_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="level: token"):
        HeadConfig(level="token")
    with pytest.raises(ValueError, match="pools"):
        HeadConfig(pools=())
    with pytest.raises(ValueError, match="is even"):
        MotifConfig(width=4)
    with pytest.raises(ValueError, match=r"needs head\.motif"):
        TaskNetwork(None, HeadConfig(motif=None), 2)
