"""Which format a file has, and the way through it: official configuration and tensors in, ours out, and back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genossm.config import ModelConfig, validate
from genossm.config.official import Whole, read_config
from genossm.errors import GenoSSMError
from genossm.models.formats import native
from genossm.models.formats.caduceus import Caduceus
from genossm.models.formats.hyenadna import HyenaDNA
from genossm.models.formats.mamba import MambaFamily
from genossm.models.formats.naming import Format, Name, strip_prefixes, to_ours, to_theirs
from genossm.models.formats.published import PublishedClassifier, PublishedLanguageModel
from genossm.models.formats.shapes import SHAPES, PublishedShape
from genossm.models.formats.tokenizers import write_tokenizer
from genossm.models.formats.vocabularies import Vocabulary, folded, why_unreadable

_FORMATS: dict[str, Format] = {
    "caduceus": Caduceus(),
    "hyenadna": HyenaDNA(),
    "mamba": MambaFamily(),
    "mamba2": MambaFamily(),
}
CLASSIFIER_HEAD = "score.weight"
_WRITTEN_ANEW = frozenset(("architectures", "label2id", "num_labels", "_name_or_path"))
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
        GenoSSMError: an architecture that this version does not know; ids that the model does not have.
        pydantic.ValidationError: a key that is wrong.
    """
    architecture = content.get("architecture")
    if architecture is None:
        return ModelConfig.model_validate(content)
    if not isinstance(architecture, str) or architecture not in SHAPES:
        raise GenoSSMError(
            f"model.architecture is {architecture!r}; this GenoSSM can run {', '.join(SHAPES)}", path=path
        )
    shape = SHAPES[architecture].model_validate(content)
    _check(shape, path, path)
    return shape


def convert(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    config_path: Path,
    weights_path: Path,
    vocabulary: Vocabulary | None = None,
    pooling: Literal["mean", "max"] = "mean",
) -> Converted:
    """A published model from the content of its files.

    Args:
        config: of config.json. tensors: by official name, wrappers' prefixes included.
        config_path, weights_path: for messages.
        vocabulary: of the tokenizer; None leaves it to the format.
        pooling: of a classifier; the official files do not say it.

    Raises:
        GenoSSMError: an unknown architecture, a key or a tensor that is missing, unknown or of the wrong kind.
    """
    form, kind = find_format(config, config_path)
    official = read_config(kind, config, config_path)
    tensors = form.tidy(strip_prefixes(tensors))
    notes = _named(kind.unknown(config))
    if vocabulary is not None and (reason := why_unreadable(vocabulary.ids)):
        notes.append(f"{reason}, so no command can read DNA with it; --vocabulary says otherwise")
    fields = form.read_shape(official, tensors, None if vocabulary is None else vocabulary.ids, notes, weights_path)
    fields |= {"bos": vocabulary is not None and vocabulary.bos, "pooling": pooling}
    if kind in form.written:
        fields["official"] = _passed_on(kind.beside(config))
    shape = validate(SHAPES[fields["architecture"]], fields, [(config_path, {})])
    assert isinstance(shape, PublishedShape)
    _check(shape, config_path, (vocabulary and vocabulary.path) or config_path)
    head = tensors.get(CLASSIFIER_HEAD)
    labels = None if head is None else _labels(official, head, config_path, weights_path)
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


def _named(unknown: list[str]) -> list[str]:
    text = (
        f"warning: config.json has keys that this GenoSSM does not know: {', '.join(unknown)}; if they change what the"
        " official code computes, outputs differ from it here"
    )
    return [text] if unknown else []


def _passed_on(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that JSON can hold and that no export writes anew."""
    found = {}
    for key, value in entries.items():
        if key not in _WRITTEN_ANEW:
            with contextlib.suppress(ValueError):  # an infinity
                json.dumps(value, allow_nan=False)
                found[key] = value
    return found


def _build(shape: PublishedShape, labels: list[str] | None) -> PublishedLanguageModel | PublishedClassifier:
    return PublishedLanguageModel(shape) if labels is None else PublishedClassifier(shape, len(labels))


def find_format(content: Mapping[str, Any], path: Path) -> tuple[Format, type[Whole]]:
    """The format of a config.json, and the kind of configuration that it is there.

    Raises:
        GenoSSMError: none that is known.
    """
    for form in _FORMATS.values():
        if kind := form.kind(content):
            return form, kind
    if content.get("format") == "genossm-checkpoint":
        raise GenoSSMError("this is a GenoSSM checkpoint already: use it as it is", path=path)
    named = f"model_type is {content['model_type']!r}"[:200] if "model_type" in content else "it names no model_type"
    raise GenoSSMError(f"unknown architecture: {named}; this GenoSSM reads {', '.join(_FORMATS)}", path=path)


def _check(shape: PublishedShape, path: Path, vocabulary_path: Path) -> None:
    """What no single key can say."""
    complement = getattr(shape, "complement", None)
    if shape.rc_equivariant and complement is None:
        raise GenoSSMError("complement_map is missing, in the configuration and in the weights", path=path)
    if complement is not None and (
        len(complement) != shape.vocab_size or not all(0 <= i < shape.vocab_size for i in complement)
    ):
        raise GenoSSMError(f"complement_map must give one of {shape.vocab_size} ids for each of them", path=path)
    bases = [i for token, i in folded(shape.vocabulary or {}).items() if token in ("A", "C", "G", "T")]
    if len(set(bases)) < len(bases):
        raise GenoSSMError("the vocabulary gives one id to two of A, C, G and T", path=vocabulary_path)
    if shape.vocabulary and not all(0 <= i < shape.vocab_size for i in shape.vocabulary.values()):
        text = f"the vocabulary has ids beyond the {shape.vocab_size} of the model"
        raise GenoSSMError(text, path=vocabulary_path)


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


def _labels(config: Whole, head: Tensor, config_path: Path, weights_path: Path) -> list[str]:
    """The classes, in the order of the logits.

    They become columns of tables, so each needs a name of its own, of one line.
    """
    if head.dim() != 2 or len(head) < 2:
        raise GenoSSMError(
            f"{CLASSIFIER_HEAD} has shape {tuple(head.shape)}: no classifier of two classes or more", path=weights_path
        )
    named = {int(number): label for number, label in config.id2label.items()}
    labels = [named.get(i, f"LABEL_{i}") for i in range(len(head))]
    for i, label in enumerate(labels):
        if not label.strip() or not label.isprintable() or label in labels[:i]:
            what = "is the name of two classes" if label in labels[:i] else "is no name of a class"
            raise GenoSSMError(f"id2label: {label!r} {what}", path=config_path)
    if beyond := named.keys() - set(range(len(head))):
        raise GenoSSMError(f"id2label names class {min(beyond)}, the weights have {len(head)}", path=config_path)
    return labels


def names(shape: PublishedShape, labels: list[str] | None) -> list[Name]:
    """The table between our names and the official ones."""
    return _FORMATS[shape.architecture].names(shape, labels)


@dataclass(frozen=True)
class Exported:
    """A model in the official form: the content of config.json, the tensors, and the tokenizer's files by name."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer: dict[str, dict[str, Any]]


def export(shape: ModelConfig | PublishedShape, labels: list[str] | None, weights: Mapping[str, Tensor]) -> Exported:
    """The official form of a model of ours.

    Raises:
        GenoSSMError: no published architecture computes what this model does.
    """
    if isinstance(shape, ModelConfig):
        shape, weights = native.as_published(shape, labels, weights)
    form = _FORMATS[shape.architecture]
    config = form.write_config(shape, labels) | shape.official
    config["dtype" if "dtype" in config else "torch_dtype"] = _dtype(weights)
    if labels is not None:
        config |= {
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    tensors = to_theirs(form.names(shape, labels), weights) | form.write_buffers(shape, labels)
    tokenizer = write_tokenizer(shape.vocabulary, bos=shape.bos) if shape.vocabulary else {}
    return Exported(config, tensors, tokenizer)


def _dtype(weights: Mapping[str, Tensor]) -> str:
    """The type of the first weights, as transformers says it."""
    return str(next(tensor.dtype for tensor in weights.values())).removeprefix("torch.")
