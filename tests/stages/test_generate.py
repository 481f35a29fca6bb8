"""genossm generate: the model's own distribution, in constant memory, the same for a seed."""

from __future__ import annotations

import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from genossm import cli, vocab
from genossm.data.fasta import read_fasta
from genossm.models import LanguageModel, base_log_probs, generation
from genossm.models.generation import Sampling, choose, generate
from genossm.stages.loading import load_model

from .test_score import export, write


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("causal"), n_layer=2, objective="causal", bidirectional=False)


def loaded(checkpoint: Path) -> LanguageModel:
    model, _ = load_model(checkpoint)
    assert isinstance(model, LanguageModel)
    return model


def made(model: LanguageModel, prompt: str, length: int, sampling: Sampling, first: int = 0) -> np.ndarray:
    tokens = vocab.encode(prompt) if prompt else np.empty(0, dtype=np.uint8)
    return np.concatenate([block[0] for block in generate(model, [tokens], length, sampling, first)])


def test_the_likeliest_base_follows_the_whole_sequence(causal: Path) -> None:
    """Temperature 0, base by base: what a pass over all that stands before it says."""
    model = loaded(causal)
    text = made(model, "ACGT", 40, Sampling(temperature=0))
    sequence = np.concatenate([[vocab.BOS], vocab.encode("ACGT"), text]).astype(np.int64)
    with torch.inference_mode():
        want = base_log_probs(model(torch.from_numpy(sequence)[None]).logits[0]).argmax(-1).numpy() + vocab.A
    np.testing.assert_array_equal(text, want[4:-1])


def test_bases_are_drawn_as_often_as_the_model_says(causal: Path) -> None:
    model = loaded(causal)
    ids = torch.from_numpy(np.concatenate([[vocab.BOS], vocab.encode("ACGTTG")]).astype(np.int64))[None]
    with torch.inference_mode():
        p = base_log_probs(model(ids).logits[0, -1]).exp().numpy()
    uniform = np.random.default_rng(0).random(20_000)
    for temperature, top_k in ((1.0, 4), (0.5, 4), (2.0, 2)):
        want = np.where(np.argsort(np.argsort(-p)) < top_k, p ** (1 / temperature), 0)
        drawn = choose(np.log(np.repeat(p[None], 20_000, 0)), uniform, Sampling(temperature, top_k))
        counts = Counter(drawn.tolist())
        got = np.array([counts[base] for base in vocab.BASES]) / 20_000
        np.testing.assert_allclose(got, want / want.sum(), atol=0.012)


def test_a_seed_makes_a_sequence_and_a_longer_run_begins_with_it(causal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "BLOCK", 16)
    model = loaded(causal)
    long = made(model, "", 60, Sampling(seed=3))
    np.testing.assert_array_equal(made(model, "", 23, Sampling(seed=3)), long[:23])
    assert (made(model, "", 60, Sampling(seed=4)) != long).any()
    assert (made(model, "", 60, Sampling(seed=3), first=1) != long).any()
    assert set(long.tolist()) <= set(vocab.BASES)


def test_a_long_prompt_is_read_in_chunks(causal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(causal)
    want = made(model, "ACGGT" * 30, 20, Sampling(temperature=0))
    monkeypatch.setattr(generation, "PROMPT_CHUNK", 7)
    np.testing.assert_array_equal(made(model, "ACGGT" * 30, 20, Sampling(temperature=0)), want)


def test_memory_does_not_grow_with_the_length(causal: Path) -> None:
    model = loaded(causal)
    made(model, "", 500, Sampling())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in generate(model, [vocab.encode("A")], 6000, Sampling()):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 << 10  # KiB


def test_the_command(causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = write(tmp_path / "p.fa", [("a", "ACGTACGT"), ("b", "GGG")])
    output = tmp_path / "x.fa"
    arguments = ["generate", "--checkpoint", causal, "--output", output, "--prompt", prompt, "--length", 100]
    assert cli.run([str(x) for x in (*arguments, "--count", 2, "--with-prompt", "--seed", 5)]) == 0
    records = list(read_fasta(output))
    assert [record.name for record in records] == ["a_1", "a_2", "b_1", "b_2"]
    assert [len(record.tokens) for record in records] == [108, 108, 103, 103]
    assert vocab.decode(records[0].tokens[:8]) == "ACGTACGT"
    assert max(len(line) for line in output.read_text().splitlines() if line[0] != ">") == 60
    model = loaded(causal)
    np.testing.assert_array_equal(records[1].tokens[8:], made(model, "ACGTACGT", 100, Sampling(seed=5), first=1))
    capsys.readouterr()
    assert cli.run(["generate", "--checkpoint", str(causal), "--length", "30"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == ">generated_1 length=30 seed=0 sequence=0"


def test_temperatures_at_the_edges(causal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny one is greedy, without a warning; a huge one draws all bases alike; what is none is refused."""
    model = loaded(causal)
    likeliest = made(model, "ACGT", 40, Sampling(temperature=0))
    for tiny in (1e-310, 5e-324, 1e-9):
        np.testing.assert_array_equal(made(model, "ACGT", 40, Sampling(temperature=tiny)), likeliest)
    log_probs = np.log(np.repeat([[0.97, 0.01, 0.01, 0.01]], 4000, 0))
    drawn = choose(log_probs, np.random.default_rng(0).random(4000), Sampling(temperature=1e300))
    np.testing.assert_allclose(np.bincount(drawn - vocab.A) / 4000, 0.25, atol=0.03)
    for word in ("inf", "nan", "-0.5", "-inf"):
        assert cli.run(["generate", "--checkpoint", str(causal), "--temperature", word]) == 2
        assert f"--temperature {word}: a finite number above 0, or 0 for the likeliest" in capsys.readouterr().err


def test_models_that_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hyena = export(tmp_path / "hyena", mixer="hyena", objective="causal", bidirectional=False)
    for checkpoint in (export(tmp_path / "masked"), hyena):
        assert cli.run(["generate", "--checkpoint", str(checkpoint)]) == 2
        assert "cannot generate: that takes a causal language model" in capsys.readouterr().err
    model = loaded(export(tmp_path / "causal", objective="causal", bidirectional=False))
    model.bos = False
    with pytest.raises(ValueError, match="it needs a prompt"):
        next(generate(model, [np.empty(0, dtype=np.uint8)], 5, Sampling()))
    with pytest.raises(ValueError, match="keeps no state"):
        next(generate(loaded(hyena), [vocab.encode("A")], 5, Sampling()))
