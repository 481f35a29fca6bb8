"""Mamba and Mamba-2: configuration and names, of transformers and of state-spaces/mamba@e9594ce.

The two projects name the same tensors alike but for the embedding. Written is the format of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from genossm import vocab
from genossm.config.official import (
    NO_LIMIT,
    Mamba2Config,
    MambaConfig,
    StateSpaces2Config,
    StateSpacesConfig,
    Whole,
    time_limit,
)
from genossm.errors import GenoSSMError
from genossm.models.formats.caduceus import core_names, read_mamba, read_stack
from genossm.models.formats.naming import Format, Name
from genossm.models.formats.shapes import Mamba2Shape, MambaShape, PublishedShape
from genossm.models.formats.vocabularies import HOUSE, folded

_GUESS = (
    "no tokenizer lies beside the weights: the ids are taken for those of Caduceus and HyenaDNA (A 7, C 8, G 9, T 10);"
    " --vocabulary says otherwise"
)


def _transformers(config: MambaConfig | Mamba2Config) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "d_model": config.hidden_size,
        "n_layer": config.num_hidden_layers,
        "norm_eps": config.layer_norm_epsilon,
        "residual_in_fp32": config.residual_in_fp32,
        "d_conv": config.conv_kernel,
        "expand": config.expand,
        "conv_bias": config.use_conv_bias,
        "proj_bias": config.use_bias,
        "tie_embeddings": config.tie_word_embeddings,
        "d_state": config.state_size,
    }
    if isinstance(config, MambaConfig):
        return {**fields, "architecture": "mamba", "dt_rank": config.time_step_rank or -(-config.hidden_size // 16)}
    return {
        **fields,
        "architecture": "mamba2",
        "head_dim": config.head_dim,
        "n_groups": config.n_groups,
        "dt_limit": time_limit(config.time_step_limit),
    }


def _state_spaces(config: StateSpacesConfig | StateSpaces2Config) -> dict[str, Any]:
    if isinstance(config, StateSpacesConfig):
        return {"architecture": "mamba", "tie_embeddings": config.tie_embeddings, **read_mamba(config)}
    ssm = config.ssm_cfg
    return {
        "architecture": "mamba2",
        "tie_embeddings": config.tie_embeddings,
        **read_stack(config),
        "head_dim": ssm.headdim,
        "n_groups": ssm.ngroups,
        "dt_limit": time_limit(ssm.dt_limit),
    }


def _special_ids(shape: PublishedShape) -> dict[str, int]:
    words = {"bos_token_id": "[BOS]", "eos_token_id": "[SEP]", "pad_token_id": "[PAD]"}
    known = folded(shape.vocabulary or {})
    return {key: known[word] for key, word in words.items() if word in known}


def _mixer_2(ours: str, theirs: str, shape: Mamba2Shape) -> list[Name]:
    found = [Name(f"{ours}core.{leaf}", (f"{theirs}{leaf}",)) for leaf in ("dt_bias", "A_log", "D")]
    found += [
        Name(f"{ours}core.conv_weight", (f"{theirs}conv1d.weight",), lead=1),
        Name(f"{ours}norm.weight", (f"{theirs}norm.weight",)),
    ]
    return [*found, Name(f"{ours}core.conv_bias", (f"{theirs}conv1d.bias",))] if shape.conv_bias else found


class MambaFamily(Format):
    """Mamba and Mamba-2."""

    written = (MambaConfig, Mamba2Config)

    def kind(self, content: Mapping[str, Any]) -> type[Whole] | None:
        """See :meth:`Format.kind`: of either project."""
        if "model_type" in content:
            named = content["model_type"]
            return MambaConfig if named == "mamba" else Mamba2Config if named == "mamba2" else None
        if not {"d_model", "n_layer", "vocab_size", "ssm_cfg"} <= content.keys():
            return None
        options = content["ssm_cfg"]
        second = isinstance(options, dict) and options.get("layer") == "Mamba2"
        return StateSpaces2Config if second else StateSpacesConfig

    def read_shape(
        self,
        config: MambaConfig | Mamba2Config | StateSpacesConfig | StateSpaces2Config,
        tensors: Mapping[str, Tensor],
        vocabulary: Mapping[str, int] | None,
        notes: list[str],
        weights_path: Path,
    ) -> dict[str, Any]:
        """The fields of a :class:`MambaShape` or a :class:`Mamba2Shape`."""
        fields = _transformers(config) if isinstance(config, MambaConfig | Mamba2Config) else _state_spaces(config)
        if vocabulary is None and config.rows == vocab.VOCAB_SIZE:
            vocabulary = HOUSE
            notes.append(_GUESS)
        return {"objective": "causal", "vocab_size": config.rows, "vocabulary": vocabulary, **fields}

    def names(self, shape: PublishedShape, labels: list[str] | None) -> list[Name]:
        """The table of names.

        Raises:
            GenoSSMError: a classifier; no published one exists.
        """
        if labels is not None:
            raise GenoSSMError("Mamba has no published form for classifiers")
        assert isinstance(shape, MambaShape | Mamba2Shape)
        embedding, old = "backbone.embeddings.weight", "backbone.embedding.weight"
        tied = shape.tie_embeddings
        result = [
            Name("backbone.embedding.weight", (embedding, "lm_head.weight") if tied else (embedding,), (old,)),
            Name(
                "lm_head.weight", ("lm_head.weight", embedding) if tied else ("lm_head.weight",), (old,) if tied else ()
            ),
        ]
        leaves = ("weight",) if shape.rms_norm else ("weight", "bias")
        result += [Name(f"backbone.norm.{leaf}", (f"backbone.norm_f.{leaf}",)) for leaf in leaves]
        for i in range(shape.n_layer):
            ours, theirs = f"backbone.blocks.{i}.mixer.mixer.", f"backbone.layers.{i}.mixer."
            result += [
                Name(f"backbone.blocks.{i}.norm.{leaf}", (f"backbone.layers.{i}.norm.{leaf}",)) for leaf in leaves
            ]
            for projection in ("in_proj", "out_proj"):
                for leaf in ("weight", "bias") if shape.proj_bias else ("weight",):
                    result.append(Name(f"{ours}{projection}.{leaf}", (f"{theirs}{projection}.{leaf}",)))
            if isinstance(shape, Mamba2Shape):
                result += _mixer_2(ours, theirs, shape)
            else:
                result += core_names(f"{ours}core.", theirs, conv_bias=shape.conv_bias)
        return result

    def write_config(self, shape: PublishedShape, labels: list[str] | None) -> dict[str, Any]:
        """config.json as transformers writes it.

        Raises:
            GenoSSMError: transformers has no LayerNorm in these models.
        """
        assert isinstance(shape, MambaShape | Mamba2Shape)
        if not shape.rms_norm:
            raise GenoSSMError("a Mamba with LayerNorm has no form in transformers")
        second = isinstance(shape, Mamba2Shape)
        config: dict[str, Any] = {
            "architectures": ["Mamba2ForCausalLM" if second else "MambaForCausalLM"],
            "model_type": "mamba2" if second else "mamba",
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.d_model,
            "num_hidden_layers": shape.n_layer,
            "layer_norm_epsilon": shape.norm_eps,
            "residual_in_fp32": shape.residual_in_fp32,
            "tie_word_embeddings": shape.tie_embeddings,
            "state_size": shape.d_state,
            "conv_kernel": shape.d_conv,
            "expand": shape.expand,
            "use_conv_bias": shape.conv_bias,
            "use_bias": shape.proj_bias,
            "hidden_act": "silu",
            **_special_ids(shape),
        }
        if isinstance(shape, Mamba2Shape):
            low, high = shape.dt_limit or (0.0, NO_LIMIT)
            return config | {
                "num_heads": shape.expand * shape.d_model // shape.head_dim,
                "head_dim": shape.head_dim,
                "n_groups": shape.n_groups,
                "time_step_limit": [low, high],
            }
        return config | {"intermediate_size": shape.expand * shape.d_model, "time_step_rank": shape.dt_rank}
