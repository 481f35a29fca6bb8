"""Mamba and Mamba-2: configuration and names, of transformers and of state-spaces/mamba@e9594ce.

The two projects name the same tensors alike but for the embedding. Written is the format of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from genossm.errors import GenoSSMError
from genossm.models.formats.caduceus import core_names, read_mamba
from genossm.models.formats.naming import ConfigReader, Format, Name
from genossm.models.formats.shapes import Mamba2Shape, MambaShape, PublishedShape
from genossm.models.formats.vocabularies import HOUSE

NO_LIMIT = 1e30
"""Stands for an infinite time step, which JSON has no word for."""
_SSM_KEYS = (
    "layer", "d_state", "d_conv", "conv_init", "expand", "headdim", "d_ssm", "ngroups", "A_init_range", "D_has_hdim",
    "rmsnorm", "norm_before_gate", "dt_min", "dt_max", "dt_init_floor", "dt_limit", "bias", "conv_bias", "chunk_size",
    "use_mem_eff_path", "sequence_parallel",
)  # fmt: skip
_GUESS = (
    "no tokenizer lies beside the weights: the ids are taken for those of Caduceus and HyenaDNA (A 7, C 8, G 9, T 10);"
    " --vocabulary says otherwise"
)


def _transformers(reader: ConfigReader) -> dict[str, Any]:
    reader.one_of("hidden_act", ["silu", "swish"], "silu")
    return {
        "d_model": reader.whole("hidden_size"),
        "n_layer": reader.whole("num_hidden_layers"),
        "norm_eps": reader.get("layer_norm_epsilon", (float, int), 1e-5),
        "residual_in_fp32": reader.flag("residual_in_fp32", True),
        "d_conv": reader.whole("conv_kernel", 4),
        "expand": reader.whole("expand", 2),
        "conv_bias": reader.flag("use_conv_bias", True),
        "proj_bias": reader.flag("use_bias", False),
    }


def _transformers_1(reader: ConfigReader) -> dict[str, Any]:
    fields = _transformers(reader)
    reader.one_of("intermediate_size", [fields["expand"] * fields["d_model"]], fields["expand"] * fields["d_model"])
    rank = reader.get("time_step_rank", (int, str), "auto")
    return {
        **fields,
        "architecture": "mamba",
        "tie_embeddings": reader.flag("tie_word_embeddings", True),
        "d_state": reader.whole("state_size", 16),
        "dt_rank": -(-fields["d_model"] // 16) if rank == "auto" else rank,
    }


def _transformers_2(reader: ConfigReader) -> dict[str, Any]:
    fields = _transformers(reader)
    head_dim = reader.whole("head_dim", 64)
    reader.one_of("rms_norm", [True], True)
    reader.one_of("num_heads", [fields["expand"] * fields["d_model"] // head_dim])
    return {
        **fields,
        "architecture": "mamba2",
        "tie_embeddings": reader.flag("tie_word_embeddings", False),
        "d_state": reader.whole("state_size", 128),
        "head_dim": head_dim,
        "n_groups": reader.whole("n_groups", 8),
        "dt_limit": _limit(reader.get("time_step_limit", list, [0.0, math.inf])),
    }


def _state_spaces(reader: ConfigReader) -> dict[str, Any]:
    reader.one_of("d_intermediate", [0, None], None)
    reader.one_of("attn_layer_idx", [[], None], None)
    tie = {"tie_embeddings": reader.flag("tie_embeddings", True)}
    ssm = reader.below("ssm_cfg")
    if ssm.one_of("layer", ["Mamba1", "Mamba2", None], None) != "Mamba2":
        return {"architecture": "mamba", **tie, **read_mamba(reader)}
    ssm.only(_SSM_KEYS)
    ssm.one_of("rmsnorm", [True], True)
    for key in ("norm_before_gate", "D_has_hdim"):
        ssm.one_of(key, [False], False)
    ssm.one_of("d_ssm", [None], None)
    return {
        "architecture": "mamba2",
        **tie,
        "d_model": reader.whole("d_model"),
        "n_layer": reader.whole("n_layer"),
        "norm_eps": reader.get("norm_epsilon", (float, int), 1e-5),
        "rms_norm": reader.flag("rms_norm", True),
        "residual_in_fp32": reader.flag("residual_in_fp32", True),
        "d_state": ssm.whole("d_state", 128),
        "d_conv": ssm.whole("d_conv", 4),
        "expand": ssm.whole("expand", 2),
        "head_dim": ssm.whole("headdim", 64),
        "n_groups": ssm.whole("ngroups", 1),
        "conv_bias": ssm.flag("conv_bias", True),
        "proj_bias": ssm.flag("bias", False),
        "dt_limit": _limit(ssm.get("dt_limit", list, [0.0, math.inf])),
    }


def _limit(written: list[float]) -> tuple[float, float] | None:
    """The bounds of the time step; None for (0, infinity)."""
    low, high = (float(bound) for bound in written)
    return None if low <= 0 and high >= NO_LIMIT else (max(low, 0.0), min(high, NO_LIMIT))


def _mixer_2(ours: str, theirs: str, shape: Mamba2Shape) -> list[Name]:
    found = [Name(f"{ours}core.{leaf}", (f"{theirs}{leaf}",)) for leaf in ("dt_bias", "A_log", "D")]
    found += [
        Name(f"{ours}core.conv_weight", (f"{theirs}conv1d.weight",), lead=1),
        Name(f"{ours}norm.weight", (f"{theirs}norm.weight",)),
    ]
    return [*found, Name(f"{ours}core.conv_bias", (f"{theirs}conv1d.bias",))] if shape.conv_bias else found


class MambaFamily(Format):
    """Mamba and Mamba-2."""

    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration is Mamba's or Mamba-2's, of either project."""
        if "model_type" in config:
            return config["model_type"] in ("mamba", "mamba2")
        return {"d_model", "n_layer", "vocab_size", "ssm_cfg"} <= config.keys()

    def read_shape(
        self,
        reader: ConfigReader,
        tensors: Mapping[str, Tensor],
        vocabulary: Mapping[str, int] | None,
        notes: list[str],
    ) -> dict[str, Any]:
        """The fields of a :class:`MambaShape` or a :class:`Mamba2Shape`."""
        if "model_type" in reader.content:
            vocab_size = reader.whole("vocab_size")
            fields = _transformers_2(reader) if reader.content["model_type"] == "mamba2" else _transformers_1(reader)
        else:
            vocab_size = reader.whole("vocab_size")
            vocab_size += -vocab_size % reader.whole("pad_vocab_size_multiple", 8)
            fields = _state_spaces(reader)
        if vocabulary is None and vocab_size == len(HOUSE) + 4:
            vocabulary = HOUSE
            notes.append(_GUESS)
        return {"objective": "causal", "vocab_size": vocab_size, "vocabulary": vocabulary, **fields}

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
            "torch_dtype": "float32",
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
