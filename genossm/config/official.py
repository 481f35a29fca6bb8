"""The official configurations, key by key: the kind and the range of each value that the computation depends on.

Every fault of a config.json is found here, and named by its official key. What stands in ``INERT`` is known to change
no output. Any other key of a file is one that this GenoSSM does not know: within a section where every key shapes the
computation it is refused, beside it the user is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from genossm.config import validate
from genossm.config.section import Depth, NonNegative, Positive, PositiveFloat, Section, Width
from genossm.errors import GenoSSMError

NO_LIMIT = 1e30
"""Stands for an infinite time step, which JSON has no word for."""
COMMON_INERT = frozenset((
    "_name_or_path", "architectures", "attn_implementation", "_attn_implementation", "_commit_hash", "auto_map",
    "bos_token_id", "chunk_size_feed_forward", "classifier_dropout", "cls_token_id", "custom_pipelines",
    "decoder_start_token_id", "dtype", "eos_token_id", "finetuning_task", "initializer_cfg", "initializer_range",
    "is_decoder", "is_encoder_decoder", "keys_to_ignore_at_inference", "label2id", "mask_token_id", "num_labels",
    "output_attentions", "output_hidden_states", "pad_token_id", "problem_type", "return_dict", "sep_token_id",
    "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript", "transformers_version", "unk_token_id",
    "use_cache", "use_return_dict",
))  # fmt: skip
"""What transformers may write into any configuration."""


def _only(wanted: bool) -> Any:
    def check(value: bool) -> bool:
        if value is not wanted:
            raise ValueError(f"this GenoSSM can run {str(wanted).lower()} alone")
        return value

    return AfterValidator(check)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} is even; time, then a cosine and a sine a band make it odd")
    return value


def _bounds(written: list[float]) -> list[float]:
    low, high = written
    if not (low < high and high > 0):
        raise ValueError(f"[{low}, {high}] is no range of time steps")
    return written


Always = Annotated[bool, _only(True)]
Never = Annotated[bool, _only(False)]
Taps = Annotated[int, Field(ge=2, le=8)]
Number = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,6})$")]
"""An id as a key of a JSON object."""
ClassName = Annotated[str, BeforeValidator(lambda x: str(x) if type(x) in (int, float) else x)]
Nothing = Annotated[list[Any], Field(max_length=0)]
TimeSteps = Annotated[
    list[Annotated[float, Field(allow_inf_nan=True)]], Field(min_length=2, max_length=2), AfterValidator(_bounds)
]


class Official(Section):
    """A part of an official configuration. Null is what an absent key is."""

    model_config = ConfigDict(strict=True)
    INERT: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _what_counts(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {key: value for key, value in content.items() if value is not None and key not in cls.INERT}


class Whole(Official):
    """A whole config.json."""

    model_config = ConfigDict(strict=True, extra="ignore")
    vocab_size: Width
    id2label: dict[Number, ClassName] = Field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return self.vocab_size

    @classmethod
    def beside(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of a config.json that no output depends on, as far as this GenoSSM knows."""
        return {key: value for key, value in content.items() if key not in cls.model_fields}

    @classmethod
    def unknown(cls, content: Mapping[str, Any]) -> list[str]:
        """The keys of a config.json that this GenoSSM does not know."""
        return sorted(cls.beside(content).keys() - cls.INERT - COMMON_INERT)


class Padded(Whole):
    """A configuration whose vocabulary is filled up to a multiple."""

    pad_vocab_size_multiple: Width = 8

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return self.vocab_size + -self.vocab_size % self.pad_vocab_size_multiple


WholeT = TypeVar("WholeT", bound=Whole)


def read_config(kind: type[WholeT], content: Mapping[str, Any], path: Path) -> WholeT:
    """The content of the config.json at ``path``.

    Raises:
        GenoSSMError: for the first fault; it names the file and the key.
    """
    try:
        return validate(kind, dict(content), [(path, {})])
    except GenoSSMError as error:
        hint = "; the checkpoint may need a newer GenoSSM" if "unknown key" in error.text else ""
        raise GenoSSMError(error.text + hint, path=path) from None


# ------------------------------------------------------------------------------------------ Caduceus and state-spaces


class MambaOptions(Official):
    """``ssm_cfg`` of Mamba-1; the starting values of a training are inert."""

    INERT = frozenset(("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path"))
    layer: Literal["Mamba1"] = "Mamba1"
    d_state: Width = 16
    d_conv: Taps = 4
    expand: Width = 2
    dt_rank: Width | None = None
    conv_bias: bool = True
    bias: bool = False

    @field_validator("dt_rank", mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        return None if value == "auto" else value


class Mamba2Options(Official):
    """``ssm_cfg`` of Mamba-2."""

    INERT = frozenset((
        "conv_init", "A_init_range", "dt_min", "dt_max", "dt_init_floor", "chunk_size", "use_mem_eff_path",
        "sequence_parallel",
    ))  # fmt: skip
    layer: Literal["Mamba2"]
    d_state: Width = 128
    d_conv: Taps = 4
    expand: Width = 2
    headdim: Width = 64
    ngroups: Width = 1
    rmsnorm: Always = True
    norm_before_gate: Never = False
    D_has_hdim: Never = False
    d_ssm: None = None
    conv_bias: bool = True
    bias: bool = False
    dt_limit: TimeSteps = Field([0.0, math.inf])


class Stack(Padded):
    """What Caduceus has in common with state-spaces' own format."""

    d_model: Width
    n_layer: Depth
    rms_norm: bool = True
    norm_epsilon: PositiveFloat = 1e-5
    residual_in_fp32: bool = True


class CaduceusConfig(Stack):
    """Caduceus and PlantCaduceus."""

    model_type: Literal["caduceus"]
    ssm_cfg: MambaOptions = MambaOptions()
    fused_add_norm: bool = True
    bidirectional: bool = True
    bidirectional_strategy: Literal["add", "ew_multiply"] = "add"
    bidirectional_weight_tie: bool = True
    rcps: bool = False
    complement_map: dict[Number, NonNegative] = Field(default_factory=dict)
    tie_word_embeddings: bool = True


class StateSpacesConfig(Stack):
    """state-spaces/mamba, with Mamba-1."""

    INERT = frozenset(("fused_add_norm", "attn_cfg"))
    ssm_cfg: MambaOptions
    d_intermediate: Annotated[int, Field(ge=0, le=0)] = 0
    attn_layer_idx: Nothing = Field(default_factory=list)
    tie_embeddings: bool = True


class StateSpaces2Config(Stack):
    """state-spaces/mamba, with Mamba-2."""

    INERT = StateSpacesConfig.INERT
    ssm_cfg: Mamba2Options
    d_intermediate: Annotated[int, Field(ge=0, le=0)] = 0
    attn_layer_idx: Nothing = Field(default_factory=list)
    tie_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        return _divided(self, self.ssm_cfg.expand * self.d_model, self.ssm_cfg.headdim, self.ssm_cfg.ngroups)


# ----------------------------------------------------------------------------------------------------- transformers


class Transformers(Whole):
    """What Mamba and Mamba-2 have in common in transformers; the names of state-spaces may be left over, unread."""

    INERT = frozenset((
        "rescale_prenorm_residual", "time_step_floor", "time_step_init_scheme", "time_step_max", "time_step_min",
        "time_step_scale", "use_associative_scan", "use_mambapy", "chunk_size", "d_inner", "d_model", "n_layer",
        "ssm_cfg", "fused_add_norm", "pad_vocab_size_multiple",
    ))  # fmt: skip
    hidden_size: Width
    num_hidden_layers: Depth
    layer_norm_epsilon: PositiveFloat = 1e-5
    residual_in_fp32: bool = True
    conv_kernel: Taps = 4
    expand: Width = 2
    use_conv_bias: bool = True
    use_bias: bool = False
    hidden_act: Literal["silu", "swish"] = "silu"


class MambaConfig(Transformers):
    """Mamba in transformers."""

    INERT = Transformers.INERT | {"rms_norm"}
    model_type: Literal["mamba"]
    state_size: Width = 16
    time_step_rank: Width | None = None
    tie_word_embeddings: bool = True
    intermediate_size: Width | None = None

    @field_validator("time_step_rank", mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @model_validator(mode="after")
    def _width(self) -> Self:
        width = self.expand * self.hidden_size
        if self.intermediate_size not in (None, width):
            raise ValueError(f"intermediate_size: must be expand * hidden_size, {width}")
        return self


class Mamba2Config(Transformers):
    """Mamba-2 in transformers."""

    INERT = Transformers.INERT | {"time_step_rank"}
    model_type: Literal["mamba2"]
    num_heads: Width = 128
    head_dim: Width = 64
    state_size: Width = 128
    n_groups: Width = 8
    rms_norm: Always = True
    tie_word_embeddings: bool = False
    time_step_limit: TimeSteps = Field([0.0, math.inf])

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        width = self.expand * self.hidden_size
        if self.num_heads * self.head_dim != width:
            raise ValueError(
                f"num_heads: {self.num_heads} heads of head_dim {self.head_dim} are not the {width} inside"
            )
        return _divided(self, width, self.head_dim, self.n_groups)


ConfigT = TypeVar("ConfigT", bound=Whole)


def _divided(config: ConfigT, width: int, head: int, groups: int) -> ConfigT:
    if width % head or (width // head) % groups:
        raise ValueError(f"{width} inner channels do not make heads of {head} in {groups} groups")
    return config


# --------------------------------------------------------------------------------------------------------- HyenaDNA

EmbDim = Annotated[int, Field(ge=3, le=1_000_000), AfterValidator(_odd)]


class HyenaConfig(Padded):
    """HyenaDNA on the hub."""

    INERT = frozenset(("activation_freq", "train_freq", "embed_dropout", "hyena_dropout", "hyena_filter_dropout"))
    model_type: Literal["hyenadna"]
    d_model: Width
    n_layer: Depth
    d_inner: Width
    max_seq_len: Positive | None = None
    emb_dim: EmbDim
    filter_order: Width
    num_inner_mlps: Depth = 2
    short_filter_order: Taps = 3
    hyena_order: Annotated[int, Field(ge=2, le=2)] = 2
    modulate: Always = True
    use_bias: bool = True
    layer_norm_epsilon: PositiveFloat = 1e-5
    residual_in_fp32: bool = True
    tie_word_embeddings: bool | None = None


class HyenaLayer(Official):
    """``layer`` of the training repository."""

    INERT = frozenset(("w", "lr", "wd", "lr_pos_emb", "dropout", "filter_dropout", "train_freq"))
    name: Literal["hyena"] = Field(alias="_name_")
    l_max: Positive | None = None
    emb_dim: EmbDim = 3
    filter_order: Width = 16
    num_inner_mlps: Depth = 2
    short_filter_order: Taps = 3
    order: Annotated[int, Field(ge=2, le=2)] = 2
    modulate: Always = True


class HyenaRepositoryConfig(Padded):
    """HyenaDNA in its training repository."""

    INERT = frozenset((
        "resid_dropout", "embed_dropout", "fused_mlp", "fused_dropout_add_ln", "return_hidden_state", "checkpoint_mlp",
        "checkpoint_mixer", "_name_", "attn_cfg",
    ))  # fmt: skip
    d_model: Width
    n_layer: Depth
    d_inner: Width
    layer: HyenaLayer
    layer_norm_epsilon: PositiveFloat = 1e-5
    residual_in_fp32: bool = True
    tie_word_embeddings: bool = True
    max_position_embeddings: Annotated[int, Field(ge=0, le=0)] = 0
    attn_layer_idx: Nothing = Field(default_factory=list)


def time_limit(written: list[float]) -> tuple[float, float] | None:
    """The bounds of the time step; None for (0, infinity)."""
    low, high = written
    return None if low <= 0 and high >= NO_LIMIT else (max(low, 0.0), min(high, NO_LIMIT))


# -------------------------------------------------------------------------------------------------------- tokenizers


class _Open(Section):
    model_config = ConfigDict(strict=True, extra="ignore")


class AddedToken(_Open):
    """A special token of a tokenizer.json."""

    id: NonNegative
    content: str


class TokenTable(_Open):
    """Tokens and their ids."""

    vocab: dict[str, NonNegative]


class TokenizerFile(_Open):
    """A tokenizer.json, as far as the ids depend on it."""

    model: TokenTable
    added_tokens: list[AddedToken] = Field(default_factory=list)
