"""DNA language models: mixers, backbones, heads."""

from __future__ import annotations

from typing import overload

from torch import nn

from genossm.config import ModelConfig
from genossm.models.formats.published import PublishedClassifier, PublishedLanguageModel
from genossm.models.formats.shapes import PublishedShape
from genossm.models.heads import LanguageModel, ModelOutput, SequenceClassifier, base_log_probs

__all__ = ["LanguageModel", "ModelOutput", "SequenceClassifier", "base_log_probs", "build_model", "no_decay"]


@overload
def build_model(config: ModelConfig | PublishedShape, num_labels: None = None) -> LanguageModel: ...
@overload
def build_model(config: ModelConfig | PublishedShape, num_labels: int) -> SequenceClassifier: ...
def build_model(
    config: ModelConfig | PublishedShape, num_labels: int | None = None
) -> LanguageModel | SequenceClassifier:
    """A model with random weights: a language model, or with ``num_labels`` a classifier on the same backbone."""
    if isinstance(config, PublishedShape):
        return PublishedLanguageModel(config) if num_labels is None else PublishedClassifier(config, num_labels)
    return LanguageModel(config) if num_labels is None else SequenceClassifier(config, num_labels)


_STATE_SPACE = ("A", "A_log", "A_log_real", "A_imag", "B", "C", "D", "P", "log_dt", "dt_bias", "freq")


def no_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay must leave a parameter alone: state-space parameters, norms, biases, embeddings.

    Decay would pull eigenvalues and time steps towards values that mean something else, not towards less.
    """
    leaf = name.rsplit(".", 1)[-1]
    return leaf in _STATE_SPACE or parameter.dim() < 2 or "norm" in name or "embedding" in name
