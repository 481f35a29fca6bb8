"""genossm export: what was imported goes back bit for bit, and what was trained here opens as a published model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genossm import cli
from genossm.config import ModelConfig
from genossm.errors import GenoSSMError
from genossm.models import build_model
from genossm.stages.export import export_checkpoint
from genossm.stages.import_checkpoint import import_checkpoint
from genossm.stages.loading import load_model
from genossm.stages.score import score
from genossm.train.checkpoint import checkpoint_config, export_model
from tests.stages.published import MODELS, write_published


@pytest.mark.parametrize("name", MODELS)
def test_an_imported_model_goes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    hub = write_published(tmp_path / "hub", name)
    import_checkpoint(str(hub), tmp_path / "model")
    assert cli.run(["export", str(tmp_path / "model"), "--output", str(tmp_path / "back"), "--format", "hf"]) == 0
    configs = [json.loads((folder / "config.json").read_text()) for folder in (hub, tmp_path / "back")]
    assert configs[0] == configs[1]
    before, after = (load_file(folder / "model.safetensors") for folder in (hub, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    modes = [(tmp_path / "back" / file).stat().st_mode & 0o777 for file in ("config.json", "model.safetensors")]
    assert modes[0] == modes[1]
    import_checkpoint(str(tmp_path / "back"), tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "model" / "model.safetensors"
    ).read_bytes()


def test_a_classifier_goes_back_with_its_labels(tmp_path: Path) -> None:
    hub = write_published(tmp_path / "hub", "caduceus-ph", ["no", "yes"])
    import_checkpoint(str(hub), tmp_path / "model")
    config = export_checkpoint(tmp_path / "model", tmp_path / "back")
    assert config["architectures"] == ["CaduceusForSequenceClassification"]
    assert config["id2label"] == {"0": "no", "1": "yes"}
    assert torch.equal(*(load_file(f / "model.safetensors")["score.weight"] for f in (hub, tmp_path / "back")))


def native(folder: Path, labels: list[str] | None = None, **shape: Any) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(d_model=12, n_layer=2, d_state=4, **shape)
    model = build_model(config) if labels is None else build_model(config, len(labels))
    kind = "language_model" if labels is None else "classifier"
    export_model(folder, checkpoint_config(kind, config.model_dump(mode="json"), {}, labels), model.state_dict())
    return folder


CAUSAL = {"objective": "causal", "bidirectional": False}
SSD = {"mixer": "ssd", "ssd": {"headdim": 8}}


@pytest.mark.parametrize(
    ("shape", "architecture"),
    [
        ({}, "CaduceusForMaskedLM"),
        ({"bidirectional": False}, "CaduceusForMaskedLM"),
        (CAUSAL, "MambaForCausalLM"),
        ({**CAUSAL, **SSD}, "Mamba2ForCausalLM"),
        (
            {**CAUSAL, "mixer": "ssd", "ssd": {"headdim": 8, "dt_limit": [0.001, 0.5], "bias": True}},
            "Mamba2ForCausalLM",
        ),
    ],
)
def test_a_model_that_was_trained_here_opens_as_a_published_one(
    tmp_path: Path, shape: dict[str, Any], architecture: str
) -> None:
    folder = native(tmp_path / "native", **shape)
    assert export_checkpoint(folder, tmp_path / "hub")["architectures"] == [architecture]
    import_checkpoint(str(tmp_path / "hub"), tmp_path / "back")
    ids = torch.randint(0, 16, (2, 50))
    with torch.no_grad():
        ours, theirs = (load_model(f)[0](ids) for f in (folder, tmp_path / "back"))
    assert torch.allclose(ours.logits, theirs.logits, atol=1e-6)
    assert torch.allclose(ours.hidden_states, theirs.hidden_states, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "shape", "text"),
    [
        (None, {"rc_equivariant": True}, "the head shares the weights of the embedding"),
        (None, {"mixer": "s4d"}, "its mixers are s4d"),
        (None, {"pattern": "MS", **SSD}, "its mixers are mamba, ssd"),
        (None, {"mlp_expand": 2}, "it has an MLP after every mixer"),
        (None, SSD, "Mamba-2 is published as a causal model only"),
        (["no", "yes"], {}, "the head of this classifier has a bias"),
    ],
)
def test_what_no_published_architecture_computes_is_refused(
    tmp_path: Path, labels: list[str] | None, shape: dict[str, Any], text: str
) -> None:
    folder = native(tmp_path / "native", labels, **shape)
    with pytest.raises(GenoSSMError, match=f"{folder}: no published architecture computes .*: .*{text}"):
        export_checkpoint(folder, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_nothing_of_ours_is_overwritten(tmp_path: Path) -> None:
    folder = native(tmp_path / "native", **CAUSAL)
    with pytest.raises(GenoSSMError, match="holds a GenoSSM checkpoint: choose another --output"):
        export_checkpoint(folder, folder)
    export_checkpoint(folder, tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["model_type"] == "mamba"
    written = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "hub").iterdir()} == written
    for name in written:
        other = tmp_path / name.replace(".", "-")
        other.mkdir()
        (other / name).touch()
        with pytest.raises(GenoSSMError, match=f"holds a {name} already"):
            export_checkpoint(folder, other)


@pytest.mark.parametrize("shape", [CAUSAL, {**CAUSAL, **SSD}, {}], ids=["mamba", "ssd", "caduceus-ph"])
def test_a_model_that_was_trained_here_scores_the_same_when_it_comes_back(
    tmp_path: Path, shape: dict[str, Any]
) -> None:
    """To the bit: a causal one is given [BOS] first, as it was in training, and its exported tokenizer says so."""
    folder = native(tmp_path / "native", **shape)
    export_checkpoint(folder, tmp_path / "hub")
    done = import_checkpoint(str(tmp_path / "hub"), tmp_path / "back")
    assert done.notes == []
    assert load_model(tmp_path / "back")[0].bos
    records = tmp_path / "x.fa"
    records.write_text(f">a\nACGTTNGACCA\n>b\n{'GATTACAGG' * 60}\n")
    rows = []
    for number, model in enumerate((folder, tmp_path / "back")):
        score(model, records, tmp_path / f"{number}.tsv")
        rows.append((tmp_path / f"{number}.tsv").read_text())
    assert rows[0] == rows[1]
    tokenizer = json.loads((tmp_path / "hub" / "tokenizer.json").read_text())
    first = tokenizer["post_processor"]["single"][0]
    assert ("SpecialToken" in first) == bool(shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["caduceus-ps", "hyenadna", "mamba2"])
def test_weights_keep_their_type(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    """Stored with 16 bits they come back with 16 bits; the model computes with them in float32."""
    hub = write_published(tmp_path / "hub", name)
    given = {n: t.to(dtype) if t.is_floating_point() else t for n, t in load_file(hub / "model.safetensors").items()}
    save_file(given, hub / "model.safetensors")
    config = json.loads((hub / "config.json").read_text())
    extra = {"chunk_size": 8, "pad_token_id": 4, "bos_token_id": None, "initializer_range": 0.5, "problem_type": "x"}
    del config["torch_dtype"]
    (hub / "config.json").write_text(json.dumps(config | extra | {"dtype": "any"}))
    import_checkpoint(str(hub), tmp_path / "model")
    model, _ = load_model(tmp_path / "model")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    written = export_checkpoint(tmp_path / "model", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == given.keys()
    assert all(back[n].dtype == t.dtype and torch.equal(back[n], t) for n, t in given.items())
    assert written["dtype"] == str(dtype).removeprefix("torch.")
    assert {key: written[key] for key in extra} == extra


TABLES = {
    "own": {"<pad>": 0, "<unk>": 1, "t": 2, "g": 3, "c": 4, "a": 15},
    "letters": {"A": 0, "C": 1, "G": 2, "T": 3, "N": 4},
    "words": {"hello": 3, "world": 4},
}


@pytest.mark.parametrize("table", TABLES)
def test_the_vocabulary_goes_with_the_model(tmp_path: Path, table: str) -> None:
    """Else the next import would take the ids for others."""
    hub = write_published(tmp_path / "hub", "mamba")
    (hub / "vocab.json").write_text(json.dumps(TABLES[table]))
    import_checkpoint(str(hub), tmp_path / "model")
    export_checkpoint(tmp_path / "model", tmp_path / "back")
    import_checkpoint(str(tmp_path / "back"), tmp_path / "again")
    shapes = [json.loads((tmp_path / name / "config.json").read_text())["model"] for name in ("model", "again")]
    assert shapes[0]["vocabulary"] == shapes[1]["vocabulary"] == TABLES[table]


@pytest.mark.slow
@pytest.mark.parametrize("second", [False, True], ids=["mamba", "mamba2"])
def test_what_was_trained_here_opens_in_transformers(tmp_path: Path, second: bool) -> None:
    """The model with its logits, and the tokenizer with [BOS] first and padding on the left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, on itself
        transformers = pytest.importorskip("transformers")
        folder = native(tmp_path / "native", **CAUSAL, **(SSD if second else {}))
        export_checkpoint(folder, tmp_path / "hub")
        peer = transformers.Mamba2ForCausalLM if second else transformers.MambaForCausalLM
        official = peer.from_pretrained(tmp_path / "hub").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hub")
        assert tokenizer(["ACGTN", "ga"], padding=True)["input_ids"] == [[2, 7, 8, 9, 10, 11], [4, 4, 4, 2, 9, 7]]
        ids = torch.randint(7, 11, (2, 40))
        with torch.no_grad():
            assert torch.allclose(official(ids).logits, load_model(folder)[0](ids).logits, atol=1e-6)
