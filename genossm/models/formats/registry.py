"""Which format a file has, and the way through it: official configuration and tensors in, ours out, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genossm.config import ModelConfig, validate
from genossm.errors import GenoSSMError
from genossm.models.formats import native
from genossm.models.formats.caduceus import Caduceus
from genossm.models.formats.hyenadna import HyenaDNA
from genossm.models.formats.mamba import MambaFamily
from genossm.models.formats.naming import ConfigReader, Format, Name, strip_prefixes, to_ours, to_theirs
from genossm.models.formats.published import PublishedClassifier, PublishedLanguageModel
from genossm.models.formats.shapes import SHAPES, PublishedShape
from genossm.models.formats.vocabularies import is_dna

_FORMATS: dict[str, Format] = {
    "caduceus": Caduceus(),
    "hyenadna": HyenaDNA(),
    "mamba": MambaFamily(),
    "mamba2": MambaFamily(),
}
CLASSIFIER_HEAD = "score.weight"
WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Converted:
    """A published model in our terms.

    Attributes:
        shape: what it is. labels: the classes of a classifier.
        weights: the state dict of our model.
        notes: what the user should know, one line each.
    """

    shape: PublishedShape
    labels: list[str] | None
    weights: dict[str, Tensor]
    notes: list[str]


def read_shape(content: Mapping[str, Any], path: Path) -> ModelConfig | PublishedShape:
    """The ``model`` of a GenoSSM checkpoint: native, or by its ``architecture`` a published shape.

    Raises:
        GenoSSMError: an architecture that this version does not know.
        pydantic.ValidationError: a key that is wrong.
    """
    architecture = content.get("architecture")
    if architecture is None:
        return ModelConfig.model_validate(content)
    if architecture not in SHAPES:
        raise GenoSSMError(
            f"model.architecture is {architecture!r}; this GenoSSM can run {', '.join(SHAPES)}", path=path
        )
    return SHAPES[architecture].model_validate(content)


def convert(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    config_path: Path,
    weights_path: Path,
    vocabulary: Mapping[str, int] | None = None,
    pooling: Literal["mean", "max"] = "mean",
) -> Converted:
    """A published model from the content of its files.

    Args:
        config: of config.json. tensors: by official name, wrappers' prefixes included.
        config_path, weights_path: for messages.
        vocabulary: token to id; None leaves it to the format.
        pooling: of a classifier; the official files do not say it.

    Raises:
        GenoSSMError: an unknown architecture, a key or a tensor that is missing, unknown or of the wrong kind.
    """
    form = _find(config, config_path)
    tensors = form.tidy(strip_prefixes(tensors))
    notes: list[str] = []
    if vocabulary is not None and not is_dna(vocabulary):
        notes.append("the tokenizer beside the weights has no tokens A, C, G and T: no command can read DNA with it")
        vocabulary = {}
    fields = form.read_shape(ConfigReader(config, config_path), tensors, vocabulary, notes)
    fields |= {"vocabulary": fields["vocabulary"] or None, "pooling": pooling}
    shape = validate(SHAPES[fields["architecture"]], fields, [(config_path, {})])
    assert isinstance(shape, PublishedShape)
    _check(shape, config_path)
    labels = _labels(config, tensors[CLASSIFIER_HEAD], config_path) if CLASSIFIER_HEAD in tensors else None
    try:
        with torch.device("meta"):
            expected = _build(shape, labels).state_dict()
    except ValueError as error:
        raise GenoSSMError(f"these settings do not fit together: {error}", path=config_path) from None
    shapes = {name: tensor.shape for name, tensor in expected.items()}
    parameters = form.drop_buffers(tensors)
    _check_numbers(parameters, weights_path)
    weights = to_ours(form.names(shape, labels), parameters, shapes, weights_path)
    return Converted(shape, labels, weights, notes)


def _build(shape: PublishedShape, labels: list[str] | None) -> PublishedLanguageModel | PublishedClassifier:
    return PublishedLanguageModel(shape) if labels is None else PublishedClassifier(shape, len(labels))


def _find(config: Mapping[str, Any], path: Path) -> Format:
    for form in _FORMATS.values():
        if form.matches(config):
            return form
    if config.get("format") == "genossm-checkpoint":
        raise GenoSSMError("this is a GenoSSM checkpoint already: use it as it is", path=path)
    named = f"model_type is {config['model_type']!r}" if "model_type" in config else "it names no model_type"
    raise GenoSSMError(f"unknown architecture: {named}; this GenoSSM reads {', '.join(_FORMATS)}", path=path)


def _check(shape: PublishedShape, path: Path) -> None:
    """What no single key can say."""
    complement = getattr(shape, "complement", None)
    if shape.rc_equivariant and complement is None:
        raise GenoSSMError("complement_map is missing, in the configuration and in the weights", path=path)
    if complement is not None and (
        len(complement) != shape.vocab_size or not all(0 <= i < shape.vocab_size for i in complement)
    ):
        raise GenoSSMError(f"complement_map must give one of {shape.vocab_size} ids for each of them", path=path)
    bases = [i for token, i in (shape.vocabulary or {}).items() if token in ("A", "C", "G", "T")]
    if len(set(bases)) < len(bases):
        raise GenoSSMError("the vocabulary gives one id to two of A, C, G and T", path=path)
    if shape.vocabulary and not all(0 <= i < shape.vocab_size for i in shape.vocabulary.values()):
        raise GenoSSMError(f"the vocabulary has ids beyond the {shape.vocab_size} of the model", path=path)


def _check_numbers(parameters: Mapping[str, Tensor], path: Path) -> None:
    """Weights are real numbers that float32 can hold; anything else is not what it seems, or damaged."""
    for name, tensor in parameters.items():
        if tensor.dtype not in WEIGHT_DTYPES:
            raise GenoSSMError(
                f"{name} is of type {str(tensor.dtype).removeprefix('torch.')}; weights are floats "
                "of 16, 32 or 64 bits",
                path=path,
            )
        if not tensor.float().isfinite().all():
            raise GenoSSMError(f"{name} holds a number beyond float32: the file is damaged", path=path)


def _labels(config: Mapping[str, Any], head: Tensor, path: Path) -> list[str]:
    """The classes, in the order of the logits."""
    written = config.get("id2label")
    named = {int(k): str(v) for k, v in written.items()} if isinstance(written, dict) else {}
    if head.dim() != 2 or len(head) < 2:
        raise GenoSSMError(
            f"{CLASSIFIER_HEAD} has shape {tuple(head.shape)}: no classifier of two classes or more", path=path
        )
    return [named.get(i, f"LABEL_{i}") for i in range(len(head))]


def names(shape: PublishedShape, labels: list[str] | None) -> list[Name]:
    """The table between our names and the official ones."""
    return _FORMATS[shape.architecture].names(shape, labels)


def export(
    shape: ModelConfig | PublishedShape, labels: list[str] | None, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The official configuration and tensors of a model of ours.

    Raises:
        GenoSSMError: no published architecture computes what this model does.
    """
    if isinstance(shape, ModelConfig):
        shape, weights = native.as_published(shape, labels, weights)
    form = _FORMATS[shape.architecture]
    config = form.write_config(shape, labels)
    if labels is not None:
        config |= {
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    return config, to_theirs(form.names(shape, labels), weights) | form.write_buffers(shape, labels)
