"""Official configurations: every key mutated is a model, or one line that names it."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from genossm.config.official import read_config
from genossm.errors import GenoSSMError
from genossm.models import build_model
from genossm.models.formats.registry import convert, export, find_format, read_shape
from genossm.models.formats.shapes import SHAPES
from genossm.train.published_files import read_json, read_published
from tests.stages.published import MODELS, mutated, write_published

FOREIGN = {
    "mamba-statespaces": {
        "d_model": 12, "n_layer": 2, "vocab_size": 16, "ssm_cfg": {"d_state": 4, "dt_rank": "auto"}, "rms_norm": True,
        "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8, "tie_embeddings": True,
    },
    "mamba2-statespaces": {
        "d_model": 12, "n_layer": 2, "vocab_size": 16, "d_intermediate": 0, "attn_layer_idx": [],
        "tie_embeddings": False,
        "ssm_cfg": {"layer": "Mamba2", "d_state": 4, "headdim": 8, "ngroups": 1, "dt_limit": [0.0, 1e31]},
    },
    "hyenadna-repository": {
        "d_model": 12, "n_layer": 2, "d_inner": 24, "vocab_size": 12, "pad_vocab_size_multiple": 8,
        "tie_word_embeddings": False,
        "layer": {"_name_": "hyena", "emb_dim": 5, "filter_order": 8, "l_max": 300, "modulate": True, "w": 10},
    },
}  # fmt: skip
MORE = {"id2label": {"0": "no", "1": "yes"}, "complement_map": {"0": 0}, "torch_dtype": "float32", "modulate": True}


@cache
def official(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    family = name.removesuffix("-statespaces").removesuffix("-repository")
    shape = SHAPES[MODELS[family]["architecture"]].model_validate(MODELS[family])
    written = export(shape, None, build_model(shape).state_dict())
    return {**FOREIGN.get(name, written.config)}, written.tensors


@pytest.mark.parametrize("name", [*MODELS, *FOREIGN])
def test_a_mutated_key_is_a_model_or_one_line(name: str) -> None:
    """All are read, and of those that can be, some are converted as well."""
    config, tensors = official(name)
    given = {"config_path": Path("config.json"), "weights_path": Path("model.safetensors")}
    _, kind = find_format(config, given["config_path"])
    faults, shapes = [], [convert(config, tensors, **given).shape]
    for key, content in mutated({**config, **({} if name in FOREIGN else MORE)}):
        try:
            read_config(kind, content, given["config_path"])
            if zlib.crc32(repr((key, content)).encode()) % 16 == 0:
                shapes.append(convert(content, tensors, **given).shape)
        except GenoSSMError as fault:
            faults.append((key, str(fault)))
    assert len(faults) > 100
    assert all(read_shape(shape.model_dump(mode="json"), Path("x")) == shape for shape in shapes)
    assert [f for f in faults if "\n" in f[1] or not f[1].startswith(("config.json: ", "model.safetensors: "))] == []


@pytest.mark.parametrize("name", MODELS)
def test_keys_that_nobody_knows_are_named_and_those_of_transformers_are_not(name: str) -> None:
    config, tensors = official(name)
    given = {"config_path": Path("config.json"), "weights_path": Path("w")}
    harmless = {"_name_or_path": "x", "transformers_version": "9", "architectures": ["X"], "use_cache": True}
    before = convert(config | harmless, tensors, **given)
    assert not [note for note in before.notes if "does not know" in note]
    after = convert(config | harmless | {"gate_kind": "sigmoid", "depth_scale": 2}, tensors, **given)
    (note,) = set(after.notes) - set(before.notes)
    assert note.startswith("warning: config.json has keys that this GenoSSM does not know: depth_scale, gate_kind;")
    assert after.shape.official["gate_kind"] == "sigmoid"
    assert "_name_or_path" not in after.shape.official


def test_the_window_of_a_hyena_cannot_be_turned_off() -> None:
    config, tensors = official("hyenadna")
    with pytest.raises(GenoSSMError, match=r"config\.json: modulate: this GenoSSM can run true alone"):
        convert(config | {"modulate": False}, tensors, config_path=Path("config.json"), weights_path=Path("w"))


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"0": "a", "1": "a"}, "'a' is the name of two classes"),
        ({"0": "LABEL_1"}, "'LABEL_1' is the name of two classes"),
        ({"0": "a\tb"}, r"is no name of a class"),
        ({"0": "a\nb"}, r"is no name of a class"),
        ({"0": " "}, r"is no name of a class"),
        ({"0": ""}, r"is no name of a class"),
        ({"7": "x"}, r"id2label names class 7, the weights have 2"),
        ({"a": "x"}, r"id2label\.a"),
        ({"0": ["x"]}, r"id2label\.0: Input should be a valid string"),
    ],
)
def test_names_of_classes(tmp_path: Path, labels: dict[str, Any], text: str) -> None:
    hub = write_published(tmp_path / "hub", "caduceus-ph", ["no", "yes"])
    files = read_published(hub)
    given = {"config_path": Path("config.json"), "weights_path": Path("w")}
    assert convert(files.config | {"id2label": {"0": 1, "1": 0}}, files.tensors, **given).labels == ["1", "0"]
    with pytest.raises(GenoSSMError, match=f"^config.json: .*{text}"):
        convert(files.config | {"id2label": labels}, files.tensors, **given)


@pytest.mark.parametrize(
    "buffer",
    [torch.zeros(16), torch.tensor(3), torch.zeros(4, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)],
    ids=["float", "scalar", "table", "short"],
)
def test_a_complement_map_of_another_form(buffer: torch.Tensor) -> None:
    config, tensors = official("caduceus-ps")
    changed = {n: buffer if n.endswith("complement_map") else t for n, t in tensors.items()}
    with pytest.raises(GenoSSMError, match=r"^w: \S+complement_map is of type .*; it must list 16 ids, as int64"):
        convert(config, changed, config_path=Path("config.json"), weights_path=Path("w"))


def test_a_float_of_transformers_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"norm_epsilon": {"__float__": null}}')
    assert read_json(tmp_path / "config.json") == {"norm_epsilon": {"__float__": None}}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"architecture": ["mamba"]}, r"model.architecture is \['mamba'\]; this GenoSSM can run"),
        ({"vocabulary": {"A": 0, "C": 1, "G": 2, "T": 16}}, "the vocabulary has ids beyond the 16 of the model"),
        ({"vocabulary": {"A": 0, "C": 1, "G": 1, "T": 2}}, "one id to two of A, C, G and T"),
        ({"complement": [0, 1]}, "complement_map must give one of 16 ids for each of them"),
    ],
)
def test_a_shape_of_ours_that_does_not_fit(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(GenoSSMError, match=rf"^own: .*{text}"):
        read_shape(MODELS["caduceus-ps"] | changes, Path("own"))
