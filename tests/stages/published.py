"""Published models with random weights, written as the official code would write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from genossm import vocab
from genossm.models import build_model
from genossm.models.formats.registry import export
from genossm.models.formats.shapes import SHAPES
from genossm.models.formats.vocabularies import HOUSE, PLANT

PLANT_COMPLEMENT = [0, 1, 2, 6, 5, 4, 3, 7]
COMMON = {"d_model": 12, "n_layer": 2, "vocab_size": 16, "vocabulary": HOUSE}
MAMBA = {**COMMON, "d_state": 4, "dt_rank": 1}
CADUCEUS = {
    **MAMBA, "architecture": "caduceus", "objective": "masked", "bidirectional": True, "rc_equivariant": True,
    "fused_add_norm": True, "complement": vocab.COMPLEMENT.tolist(),
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "caduceus-ps": {**CADUCEUS, "n_layer": 3},
    "caduceus-ph": {**CADUCEUS, "rc_equivariant": False, "complement": None},
    "plantcaduceus": {**CADUCEUS, "vocab_size": 8, "vocabulary": PLANT, "complement": PLANT_COMPLEMENT},
    "hyenadna": {
        **COMMON, "architecture": "hyenadna", "objective": "causal", "max_seqlen": 300, "d_inner": 24, "emb_dim": 5,
        "filter_order": 8, "tie_embeddings": False,
    },
    "mamba": {**MAMBA, "architecture": "mamba", "objective": "causal"},
    "mamba2": {
        **COMMON, "architecture": "mamba2", "objective": "causal", "d_state": 4, "head_dim": 8, "tie_embeddings": False,
    },
}  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, 0, -1, 10**9, 1.5, "a", [], [1], {}, True, False, {"a": {"b": 1}}, {"__float__": None}, "9" * 5000,
)  # fmt: skip


def write_published(folder: Path, name: str, labels: list[str] | None = None, **changes: Any) -> Path:
    """A hub folder of a small random model: its predictions are near uniform, as at the start of a training."""
    torch.manual_seed(0)
    content = {**MODELS[name], **changes}
    shape = SHAPES[content["architecture"]].model_validate(content)
    model = build_model(shape) if labels is None else build_model(shape, len(labels))
    official = export(shape, labels, model.state_dict())
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(official.config))
    save_file(official.tensors, folder / "model.safetensors")
    return folder


def mutated(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key with every value, those of sections too."""
    for key, old in content.items():
        for value in VALUES:
            yield key, {**content, key: value}
        for below, changed in mutated(old) if isinstance(old, dict) else ():
            yield f"{key}.{below}", {**content, key: changed}
        for place in range(len(old)) if isinstance(old, list) else ():
            for value in VALUES:
                yield key, {**content, key: [*old[:place], value, *old[place + 1 :]]}
