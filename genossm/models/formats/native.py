"""A model that was trained here, in the terms of a published architecture that computes the same."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from genossm import vocab
from genossm.config import ModelConfig
from genossm.errors import GenoSSMError
from genossm.models.formats.shapes import Mamba2Shape, MambaShape, PublishedShape
from genossm.models.formats.vocabularies import HOUSE


def as_published(
    config: ModelConfig, labels: list[str] | None, weights: Mapping[str, Tensor]
) -> tuple[PublishedShape, dict[str, Tensor]]:
    """The shape and the weights, under the names of :mod:`genossm.models.formats.published`.

    A causal model of Mamba or Mamba-2 blocks is a Mamba; a bidirectional one of Mamba blocks is a Caduceus-Ph.

    Raises:
        GenoSSMError: no published architecture computes what this model does; the message says what is in the way.
    """
    reason = _obstacle(config, labels)
    if reason is not None:
        raise GenoSSMError(f"no published architecture computes what this model does: {reason}")
    common = {
        "objective": config.objective,
        "d_model": config.d_model,
        "n_layer": config.n_layer,
        "vocab_size": config.vocab_size,
        "vocabulary": HOUSE,
        "bos": config.objective == "causal",
        "norm_eps": config.norm_eps,
        "tie_embeddings": False,
        "d_state": config.d_state,
        "d_conv": config.d_conv,
        "expand": config.expand,
    }
    shape: PublishedShape
    if config.layers[0] == "ssd":
        options = {"head_dim": config.ssd.headdim, "proj_bias": config.ssd.bias}
        options |= {name: getattr(config.ssd, name) for name in ("n_groups", "dt_limit", "conv_bias")}
        shape = Mamba2Shape.model_validate({"architecture": "mamba2", **common, **options})
    else:
        options = {"dt_rank": config.resolved_dt_rank, "bidirectional": config.bidirectional}
        architecture = "mamba" if config.objective == "causal" else "caduceus"
        complement = vocab.COMPLEMENT.tolist() if architecture == "caduceus" else None
        shape = MambaShape.model_validate({"architecture": architecture, **common, **options, "complement": complement})
    return shape, {_renamed(name, config.bidirectional): tensor for name, tensor in weights.items()}


def _obstacle(config: ModelConfig, labels: list[str] | None) -> str | None:
    kinds = set(config.layers)
    if len(kinds) > 1 or not kinds <= {"mamba", "ssd"}:
        return f"its mixers are {', '.join(sorted(kinds))}; published are stacks of mamba, and causal ones of ssd"
    if config.mlp_expand:
        return "it has an MLP after every mixer"
    if kinds == {"ssd"} and config.objective != "causal":
        return "Mamba-2 is published as a causal model only"
    if config.rc_equivariant:
        return "in Caduceus-PS the head shares the weights of the embedding, and here it does not"
    if labels is not None:
        return "the head of this classifier has a bias, and a published one has none"
    return None


def _renamed(name: str, bidirectional: bool) -> str:
    """Our published blocks keep a native mixer one level deeper; both directions are already two names."""
    if bidirectional or ".mixer." not in name:
        return name
    before, after = name.split(".mixer.", 1)
    return f"{before}.mixer.mixer.{after}"
