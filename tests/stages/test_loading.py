"""From folders to models: equal outputs, and a clear word for every folder that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from genossm.config import ModelConfig
from genossm.errors import GenoSSMError
from genossm.models import LanguageModel, SequenceClassifier, build_model
from genossm.stages.loading import load_model, pick_device
from genossm.train.checkpoint import checkpoint_config, export_model

SHAPE = ModelConfig(d_model=8, n_layer=1, d_state=4)


def _export(folder: Path, model: torch.nn.Module, labels: list[str] | None = None, **changes: Any) -> Path:
    config = checkpoint_config("classifier" if labels else "language_model", SHAPE.model_dump(), {}, labels)
    config["model"].update(changes)
    export_model(folder, config, model.state_dict())
    return folder


@pytest.mark.parametrize("labels", [None, ["no", "yes", "perhaps"]])
def test_a_loaded_model_computes_the_same(tmp_path: Path, labels: list[str] | None) -> None:
    model = build_model(SHAPE) if labels is None else build_model(SHAPE, len(labels))
    loaded, config = load_model(_export(tmp_path, model, labels))
    assert isinstance(loaded, LanguageModel if labels is None else SequenceClassifier)
    assert config.get("labels") == labels
    assert not loaded.training
    input_ids = torch.randint(7, 11, (2, 30))
    with torch.no_grad():
        assert torch.equal(loaded(input_ids).logits, model.eval()(input_ids).logits)


def test_weights_and_shapes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = build_model(SHAPE)
    with pytest.raises(GenoSSMError, match=r"model\.safetensors: \S+ has shape \(16, 4\), config\.json asks \(24, 4\)"):
        load_model(_export(tmp_path / "1", model, d_model=12))
    with pytest.raises(GenoSSMError, match=r"model\.safetensors: has no tensor backbone\.\S*1\S*"):
        load_model(_export(tmp_path / "2", model, n_layer=2))
    with pytest.raises(GenoSSMError, match=r"config\.json: model\.n_layers: "):
        load_model(_export(tmp_path / "3", model, n_layers=2))
    with pytest.raises(GenoSSMError, match=r"holds a tensor classifier\.bias that is not part"):
        load_model(_export(tmp_path / "4", build_model(SHAPE, 2)))


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name, text in (("gpu", "is no device"), ("cuda:99", "there is no cuda:99 here"), ("meta", "there is no meta")):
        with pytest.raises(GenoSSMError, match=text):
            pick_device(name)
