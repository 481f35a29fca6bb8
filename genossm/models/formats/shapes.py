"""The shapes of published models: what their ``config.json`` says, in one vocabulary, every constant included.

A shape stands as ``model`` in the ``config.json`` of a GenoSSM checkpoint, told from a native
:class:`~genossm.config.ModelConfig` by its ``architecture``. Lengths are in tokens.
"""

from __future__ import annotations

from typing import Literal

from genossm.config import ModelConfig
from genossm.config.section import Depth, Entries, Positive, PositiveFloat, Section, Width


class PublishedShape(Section):
    """What all published models have.

    ``vocabulary`` is token to id; None where nobody knows, and then no command can read DNA with the model. ``bos``:
    a causal model was trained with [BOS] before the sequence. ``official``: entries of the official configuration
    that no output depends on, for the way back.
    """

    architecture: str
    objective: Literal["masked", "causal"]
    d_model: Width
    n_layer: Depth
    vocab_size: Width
    norm_eps: PositiveFloat = 1e-5
    tie_embeddings: bool = True
    residual_in_fp32: bool = False
    vocabulary: dict[str, int] | None = None
    bos: bool = False
    pooling: Literal["mean", "max"] = "mean"
    rc_equivariant: bool = False
    max_seqlen: Positive | None = None
    official: Entries


class MambaShape(PublishedShape):
    """Stacks of Mamba-1: Mamba itself, and Caduceus, which reads both directions and perhaps both strands.

    ``fused_add_norm`` changes what an equivariant model computes, see :attr:`strand_swap`.
    """

    architecture: Literal["mamba", "caduceus"]
    rms_norm: bool = True
    bidirectional: bool = False
    strategy: Literal["add", "multiply"] = "add"
    tied_directions: bool = True
    fused_add_norm: bool = False
    complement: list[int] | None = None
    d_state: Width = 16
    d_conv: Width = 4
    expand: Width = 2
    dt_rank: Width
    conv_bias: bool = True
    proj_bias: bool = False

    @property
    def strand_swap(self) -> bool:
        """Whether every block takes the channels of the two strands for one another.

        The official blocks of Caduceus-PS do so with fused_add_norm, the published setting, and not without it
        (kuleshov-group/caduceus, RCPSMambaBlock): the same weights give other outputs.
        """
        return self.rc_equivariant and self.fused_add_norm

    def mixer_config(self) -> ModelConfig:
        """The shape of one direction of a mixer, as the native blocks take it."""
        names = ("d_model", "n_layer", "d_state", "d_conv", "expand", "dt_rank", "norm_eps")
        return ModelConfig.model_validate({name: getattr(self, name) for name in names})


class Mamba2Shape(PublishedShape):
    """Stacks of Mamba-2; ``n_groups`` sets of B and C, and as many groups of the gated norm."""

    architecture: Literal["mamba2"]
    rms_norm: bool = True
    expand: Width = 2
    head_dim: Width = 64
    n_groups: Width = 1
    d_state: Width = 128
    d_conv: Width = 4
    conv_bias: bool = True
    proj_bias: bool = False
    dt_limit: tuple[float, float] | None = None

    def mixer_config(self) -> ModelConfig:
        """The shape of a mixer, as the native blocks take it."""
        names = ("d_model", "n_layer", "d_state", "d_conv", "expand", "norm_eps")
        options = {
            "headdim": self.head_dim,
            "n_groups": self.n_groups,
            "dt_limit": self.dt_limit,
            "bias": self.proj_bias,
            "conv_bias": self.conv_bias,
        }
        return ModelConfig.model_validate(
            {"mixer": "ssd", "ssd": options, **{name: getattr(self, name) for name in names}}
        )


class HyenaDNAShape(PublishedShape):
    """HyenaDNA: long convolutions whose filters are small networks of the position, then an MLP."""

    architecture: Literal["hyenadna"]
    max_seqlen: Positive
    d_inner: Width
    emb_dim: Width
    filter_order: Width
    inner_mlps: Depth = 2
    short_filter: Width = 3
    proj_bias: bool = True

    def mixer_config(self) -> ModelConfig:
        """The shape of a mixer, as the native blocks take it."""
        options = {
            "max_length": self.max_seqlen,
            "emb_dim": self.emb_dim,
            "filter_order": self.filter_order,
            "filter_layers": self.inner_mlps,
            "short_filter": self.short_filter,
            "bias": self.proj_bias,
        }
        return ModelConfig(d_model=self.d_model, n_layer=self.n_layer, mixer="hyena", expand=1, hyena=options)


SHAPES: dict[str, type[PublishedShape]] = {
    "caduceus": MambaShape,
    "mamba": MambaShape,
    "mamba2": Mamba2Shape,
    "hyenadna": HyenaDNAShape,
}
