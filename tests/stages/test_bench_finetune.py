"""genossm bench finetune: the peer is the same classifier, times are of an epoch, and the command runs, small."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genossm import cli
from genossm.bench.finetune import Runner, TransformersClassifier, race_epochs
from genossm.config import ModelConfig
from genossm.train.classification import FitOptions, Judgement, fit_classifier, updates

from .test_finetune import export, rows, write

CONFIG = ModelConfig(d_model=8, n_layer=2, d_state=4, expand=1)


def run(output: Path, *words: object) -> int:
    return cli.run(["bench", "finetune", "--output", str(output), *(str(word) for word in words)])


def table(output: Path) -> list[dict[str, str]]:
    with open(output / "finetune.csv", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.slow  # transformers takes seconds to import
@pytest.mark.parametrize("mambapy", [False, True])
def test_the_peer_reads_both_directions_and_no_padding(mambapy: bool) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("mambapy")
    torch.manual_seed(0)
    peer = TransformersClassifier(CONFIG, 3, mambapy=mambapy).train()
    assert len(peer.mamba.layers) == CONFIG.n_layer
    assert peer.mamba.layers[0].mixer.A_log.shape == (CONFIG.d_inner, CONFIG.d_state)
    ids = torch.randint(7, 11, (2, 20))
    logits = peer(ids)
    assert logits.shape == (2, 3)
    torch.testing.assert_close(peer(ids.flip(1)), logits)
    padded = torch.cat([ids, torch.full((2, 5), 4)], dim=1)
    torch.testing.assert_close(peer(padded, torch.arange(25).expand(2, 25) < 20), logits)
    logits.sum().backward()
    assert all(p.grad is not None for p in peer.parameters())


def test_times_are_of_the_whole_epoch_in_turns() -> None:
    called: list[tuple[str, int]] = []
    runners = [Runner(name, 1, lambda batch, name=name: called.append((name, batch))) for name in "ab"]  # type: ignore[misc]
    told: list[int] = []
    sizes = [10, 30, 60]
    race_epochs(
        runners, lambda n: [0, 1, 2][:n], sizes, limit=60, rounds=2, device=torch.device("cpu"), advance=told.append
    )
    assert called[:4] == [("a", 0), ("a", 0), ("b", 0), ("b", 0)]
    assert [name for name, _ in called[4:]] == [*"aaabbb", *"bbbaaa"]
    assert [(r.steps, r.share, len(r.seconds)) for r in runners] == [(3, 1.0, 2)] * 2
    assert sum(told) == len(called)
    assert runners[0].times(runners[0]) == 1


def test_what_takes_too_long_is_scaled_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genossm.bench.finetune.seconds_of", lambda step, device: 4.0)
    runner: Runner[int] = Runner("slow", 1, lambda batch: None)
    race_epochs(
        [runner], lambda n: list(range(n)), [10] * 20, limit=13, rounds=1,
        device=torch.device("cpu"), advance=lambda n: None,
    )  # fmt: skip
    assert (runner.steps, runner.seconds) == (3, [pytest.approx(80.0)])


def test_an_update_is_that_of_a_fit() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Embedding(16, 4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, 2))

        def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
            logits: Tensor = self.layers(ids)
            return logits

    batch = [(torch.randint(7, 11, (4, 6)), None, torch.tensor([0, 1, 0, 1]))]
    options = FitOptions(epochs=1, lr=1e-2, warmup_fraction=0.0, ema=0.5)
    fitted, timed, losses = Net(), Net(), []
    fit_classifier(
        fitted, lambda epoch: [batch], 1, lambda model: Judgement(0.0, 0.0), options,
        no_decay=lambda name, parameter: False, on_step=lambda epoch, loss: losses.append(loss),
    )  # fmt: skip
    assert updates(timed, options, no_decay=lambda name, parameter: False)(batch) == losses[0]
    moved = [not torch.equal(a, b) for a, b in zip(timed.parameters(), Net().parameters(), strict=True)]
    assert all(moved)


@pytest.mark.slow
def test_a_table_and_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    model, train = export(tmp_path / "model"), write(tmp_path / "train.csv", rows(60, 0))
    assert run(tmp_path / "out", "--checkpoint", model, "--train", train, "--repeats", 2, "--limit", 0.01) == 0
    shown, found = capsys.readouterr().out, table(tmp_path / "out")
    assert "| network | parameters | seconds |" in shown
    names = [row["network"] for row in found]
    assert names[:2] == ["genossm finetune --checkpoint", "genossm finetune, no checkpoint"]
    assert "transformers Mamba" in names
    assert float(found[0]["times"]) == 1
    for row in found:
        assert 0 < float(row["low"]) <= float(row["seconds"]) <= float(row["high"])
        assert row["seconds_are"] == ("measured" if row["measured"] == row["of"] else "scaled to the epoch")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["finetune.csv", "finetune.svg"]


def test_random_sequences_and_another_mixer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = tmp_path / "s4d.yaml"
    shape.write_text("d_model: 8\nn_layer: 1\nmixer: s4d\nd_state: 4\n")
    words = ["--model", shape, "--count", 20, "--length", 20, "--repeats", 1, "--limit", 0.01]
    assert run(tmp_path / "out", *words) == 0
    assert [row["network"] for row in table(tmp_path / "out")] == [
        "genossm finetune --checkpoint", "genossm finetune, no checkpoint",
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "left out: CNN of the Genomic Benchmarks: 20 bp are too short for it" in said
    assert "left out: transformers Mamba: the checkpoint is no Mamba of ours" in said


def test_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert run(tmp_path / "file") == 2
    assert "--output names a folder" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("sequence,label\n" + "ACGTACGTAC,aabbaabbaa\n" * 20)
    assert run(tmp_path / "out", "--train", tmp_path / "t.csv") == 2
    assert "labels every base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
