"""From a checkpoint folder to a model that runs: shared by all stages that use one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from genossm.config import ModelConfig, TaskConfig
from genossm.errors import GenoSSMError
from genossm.kernels.memory import keep_freed_memory
from genossm.models import LanguageModel, SequenceClassifier, build_model
from genossm.models.formats.registry import read_shape
from genossm.models.formats.shapes import PublishedShape
from genossm.models.formats.vocabularies import own_ids
from genossm.models.pretrained import Pretrained
from genossm.models.task import TaskModel
from genossm.train.checkpoint import CONFIG, WEIGHTS, load_weights


def pick_device(name: str) -> torch.device:
    """The device of a name: ``auto`` is CUDA where there is one, else the CPU.

    For the CPU the process is told to keep the memory it frees, which saves a page fault for every 4 KiB of a tensor.

    Raises:
        GenoSSMError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise GenoSSMError(f"device: {name!r} is no device; use auto, cpu, cuda or cuda:0 ...") from None
    if name == "cpu":
        keep_freed_memory()
        return device
    if device.type == "cuda" and (device.index or 0) < torch.cuda.device_count():
        return device
    raise GenoSSMError(f"device: there is no {name} here ({torch.cuda.device_count()} CUDA devices); use auto or cpu")


def load_model(
    folder: Path, device: torch.device | str = "cpu"
) -> tuple[LanguageModel | SequenceClassifier, dict[str, Any]]:
    """The model of a checkpoint folder in evaluation mode on ``device``, and the folder's ``config.json``.

    It reads GenoSSM's token ids, whatever those of the checkpoint are. Every byte is checked against the manifest
    before it is used, and nothing in the folder is executed.

    Raises:
        GenoSSMError: the folder is missing, unfinished, damaged, or not ours, or nobody knows which of its tokens are
            bases; the message names the file.
    """
    model, config, _ = _load(folder, device)
    if isinstance(model.config, PublishedShape):
        try:
            own_ids(model.config.vocabulary)
        except GenoSSMError as error:
            raise GenoSSMError(error.text, path=folder) from None
    return model, config


def load(folder: str | os.PathLike[str], device: torch.device | str = "cpu", *, tasks: bool = False) -> Pretrained:
    """The model of a checkpoint folder for use in Python, in evaluation mode: ``genossm.load``.

    ``model(input_ids)`` takes the checkpoint's own ids, int64 (batch, seqlen), and gives ``.logits`` and
    ``.last_hidden_state``; with ``output_hidden_states=True`` also ``.hidden_states``. Without a mask it computes what
    the official code computes. ``model.tokenizer`` makes input_ids of text, ``model.embed`` embeddings. ``tasks``: take
    a model of a labelled task, too, which can do none of this: it reads records.

    Raises:
        GenoSSMError: the folder is missing, unfinished, damaged, or not ours; the message names the file.
    """
    model, config, _ = _load(Path(folder), pick_device(str(device)))
    if isinstance(model, TaskModel) and not tasks:
        raise GenoSSMError("a model of a labelled task has no ids of its own; use `genossm score`", path=folder)
    return Pretrained(model, config).eval()


def load_model_parts(folder: Path) -> tuple[ModelConfig | PublishedShape, list[str] | None, dict[str, Tensor]]:
    """Shape, classes (None: a language model) and weights of a checkpoint folder, these as they are stored.

    Raises as :func:`load` does.
    """
    model, config, weights = _load(folder, "cpu")
    if isinstance(model, TaskModel):
        raise GenoSSMError("a model of a labelled task has no form in the published code", path=folder)
    return model.config, config.get("labels") if config["kind"] == "classifier" else None, weights


def _build(config: dict[str, Any], path: Path) -> LanguageModel | SequenceClassifier:
    """The model of a ``config.json`` with random weights."""
    if config["model"].get("architecture") == "task":
        return TaskModel(TaskConfig.model_validate(config["model"]))
    shape = read_shape(config["model"], path)
    labels = config.get("labels") if config["kind"] == "classifier" else None
    return build_model(shape) if labels is None else build_model(shape, len(labels))


def _load(
    folder: Path, device: torch.device | str
) -> tuple[LanguageModel | SequenceClassifier, dict[str, Any], dict[str, Tensor]]:
    config, weights = load_weights(folder)
    try:
        model = _build(config, folder / CONFIG)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise GenoSSMError(f"model.{key}: {fault['msg']}", path=folder / CONFIG) from None
    expected = model.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            fault_text = f"has no tensor {name}"
        elif name not in expected:
            fault_text = f"holds a tensor {name} that is not part of the model in {CONFIG}"
        elif weights[name].shape != expected[name].shape:
            fault_text = f"{name} has shape {tuple(weights[name].shape)}, {CONFIG} asks {tuple(expected[name].shape)}"
        else:
            continue
        raise GenoSSMError(fault_text, path=folder / WEIGHTS)
    model.load_state_dict(weights)
    return model.to(device).eval(), config, weights
