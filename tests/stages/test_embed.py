"""genossm embed: every level, layer and format against the model's own hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from genossm import cli, vocab
from genossm.errors import GenoSSMError
from genossm.models import LanguageModel
from genossm.models.embeddings import record_hidden
from genossm.models.heads import Model
from genossm.stages.embed import EmbedOptions, Level, embed
from genossm.stages.loading import load_model

from .test_score import LABELS, export, write

TEXTS = [("one", "ACGTTGCAGGTCANTAC" * 3), ("two", "GATTACA"), ("n", "NNN")]
SHAPES: dict[str, dict[str, Any]] = {
    "masked": {"n_layer": 2},
    "equivariant": {"n_layer": 2, "rc_equivariant": True},
    "causal": {"n_layer": 2, "objective": "causal", "bidirectional": False},
    "hyena": {"n_layer": 2, "mixer": "hyena", "objective": "causal", "bidirectional": False},
}


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("masked"), n_layer=2)


@torch.inference_mode()
def by_hand(model: Model, text: str, layer: int | None, both: bool) -> np.ndarray:
    """Block by block over whole sequences, strand by strand."""

    def read(tokens: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        backbone: Any = model.backbone.backbone if model.config.rc_equivariant else model.backbone
        x = backbone.embedding(ids)
        for block in backbone.blocks[:layer]:
            x = block(x)[0]
        return (backbone.norm(x) if layer is None else x)[0]

    tokens = vocab.encode(text)
    given, other = read(tokens), read(vocab.reverse_complement(tokens)).flip(0)
    if both:
        return ((given + other) / 2).numpy()
    return (torch.cat([given, other], dim=1) if model.config.rc_equivariant else given).numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layer", [None, 0, 1])
@pytest.mark.parametrize("both", [True, False])
def test_tokens_have_the_hidden_states_of_the_layer(shape: str, layer: int | None, both: bool, tmp_path: Path) -> None:
    checkpoint = export(tmp_path / "model", **SHAPES[shape])
    model, _ = load_model(checkpoint)
    assert isinstance(model, LanguageModel)
    options = EmbedOptions(Level.TOKEN, layer=layer, both_strands=both)
    assert embed(checkpoint, write(tmp_path / "x.fa", TEXTS), tmp_path / "x.h5", options=options)[:2] == (3, 61)
    with h5py.File(tmp_path / "x.h5") as file:
        names = file["records/name"].asstr()[:].tolist()
        assert names == [name for name, _ in TEXTS]
        for i, (_, text) in enumerate(TEXTS):
            first, rows = file["records/first_row"][i], file["records/rows"][i]
            assert rows == file["records/length"][i] == len(text)
            got = file["embeddings"][first : first + rows]
            np.testing.assert_allclose(got, by_hand(model, text, layer, both), rtol=1e-3, atol=1e-4)
            assert file["start"][first : first + rows].tolist() == list(range(len(text)))
        assert file.attrs["level"] == "token"
        assert file.attrs["layer"] == ("output" if layer is None else str(layer))


@pytest.mark.parametrize("level", [Level.WINDOW, Level.RECORD])
def test_means(level: Level, masked: Path, tmp_path: Path) -> None:
    model, _ = load_model(masked)
    embed(masked, write(tmp_path / "x.fa", TEXTS), tmp_path / "x.parquet", options=EmbedOptions(level, window=20))
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    want = [
        (name, at, min(at + size, len(text)), by_hand(model, text, None, True)[at : at + size].mean(0))
        for name, text in TEXTS
        for size in [20 if level == Level.WINDOW else len(text)]
        for at in range(0, len(text), size)
    ]
    assert [(row["record"], row["start"], row["end"]) for row in rows] == [row[:3] for row in want]
    for row, (*_, mean) in zip(rows, want, strict=True):
        np.testing.assert_allclose(row["embedding"], mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", ["masked", "equivariant", "causal"])
def test_long_records_go_through_in_chunks(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_model(export(tmp_path / "model", **SHAPES[shape]))
    assert isinstance(model, LanguageModel)
    tokens = np.random.default_rng(0).integers(vocab.A, vocab.N + 1, 500).astype(np.uint8)
    whole = np.concatenate([values for *_, values in record_hidden(model, tokens)])
    monkeypatch.setattr("genossm.models.sweeps.SHORTEST_CHUNK", 64)
    monkeypatch.setattr("genossm.models.sweeps.CHUNK_NUMBERS", 1)
    for memory in (0, 1 << 30):
        parts = list(record_hidden(model, tokens, memory=memory))
        assert [(start, end) for start, end, _ in parts] == [(i, min(i + 64, 500)) for i in range(0, 500, 64)]
        np.testing.assert_allclose(np.concatenate([values for *_, values in parts]), whole, rtol=1e-3, atol=1e-4)


def test_what_it_refuses(masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta = write(tmp_path / "x.fa", TEXTS)
    classifier = export(tmp_path / "classifier", LABELS)
    for checkpoint, output, option, text in (
        (masked, "x.npz", [], "says no format; name it .h5 or .parquet"),
        (masked, "x.h5", ["--layer", "3"], "the model has layers 0 to 2"),
        (classifier, "x.h5", [], "is a classifier"),
        (masked, "x.fa", ["--format", "hdf5"], "is the input"),
    ):
        arguments = ["embed", "--checkpoint", checkpoint, fasta, "--output", tmp_path / output, *option]
        assert cli.run([str(argument) for argument in arguments]) == 2
        assert text in capsys.readouterr().err


def test_the_command(masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta, output = write(tmp_path / "x.fa", TEXTS), tmp_path / "x.h5"
    arguments = ["embed", "--checkpoint", masked, fasta, "--output", output, "--level", "window", "--window", 10]
    assert cli.run([str(argument) for argument in arguments]) == 0
    assert "3 records, 8 embeddings" in capsys.readouterr().err
    with h5py.File(output) as file:
        assert file["embeddings"].shape == (8, 8)
        assert file["records/rows"][:].tolist() == [6, 1, 1]


def test_a_record_beyond_what_the_model_reads_is_named(tmp_path: Path) -> None:
    checkpoint = export(tmp_path / "model", **SHAPES["hyena"], hyena={"max_length": 20})
    fasta = write(tmp_path / "x.fa", TEXTS)
    with pytest.raises(GenoSSMError, match=r"x\.fa:1: record one: 51 bp; this model reads at most 20: cut it"):
        embed(checkpoint, fasta, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
