"""genossm export: what was imported goes back bit for bit, and what was trained here opens as a published model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from genossm import cli
from genossm.config import ModelConfig
from genossm.errors import GenoSSMError
from genossm.models import build_model
from genossm.stages.export import export_checkpoint
from genossm.stages.import_checkpoint import import_checkpoint
from genossm.stages.loading import load_model
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
    import_checkpoint(str(tmp_path / "hub"), tmp_path / "back", vocabulary="caduceus")
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
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {"config.json", "model.safetensors"}
