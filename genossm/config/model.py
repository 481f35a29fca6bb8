"""The shape of a model: what every mixer shares, and one section of options a family of mixers."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from genossm.config.section import NonNegative, Positive, PositiveFloat, Section

MixerName = Literal[
    "mamba", "ssd", "linear_attention", "s4", "s4d", "dss", "lssl", "lssl_fixed", "s5", "liquid_s4", "hyena",
    "rwkv4", "rwkv7", "rwkv_channel_mix", "attention", "local_attention", "lstm", "gru", "conv",
]  # fmt: skip

LETTERS: dict[str, MixerName] = {
    "M": "mamba", "S": "ssd", "4": "s4", "D": "s4d", "5": "s5", "H": "hyena", "R": "rwkv7", "K": "rwkv_channel_mix",
    "A": "attention", "W": "local_attention", "L": "lstm", "G": "gru", "C": "conv",
}  # fmt: skip
"""The letters of a pattern."""


class SSDOptions(Section):
    """Mamba-2 and linear attention."""

    headdim: Positive = Field(64, description="channels that share one decay; divides d_inner")
    n_groups: Positive = Field(1, description="groups of heads that share B and C; divides the number of heads")
    dt_limit: tuple[float, float] | None = Field(None, description="smallest and largest time step after softplus")
    bias: bool = Field(False, description="biases of the projections")
    conv_bias: bool = Field(True, description="bias of the short convolution")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.dt_limit is not None and not 0 <= self.dt_limit[0] < self.dt_limit[1]:
            raise ValueError(f"dt_limit: {list(self.dt_limit)} must be two numbers that rise, from 0 on")
        return self


class LTIOptions(Section):
    """Time-invariant state spaces: S4, S4D, DSS, LSSL, S5, Liquid-S4."""

    init: Literal["auto", "lin", "inv", "legs", "legt", "lagt", "fout", "real"] = Field(
        "auto", description="initial A; auto is lin for s4d, else legs"
    )
    discretization: Literal["auto", "zoh", "bilinear"] = Field(
        "auto", description="continuous to discrete; auto: bilinear for s4, lssl and liquid_s4, zoh for the others"
    )
    gbt_alpha: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="lssl: generalised bilinear in place of it; 0 forward Euler, 0.5 bilinear, 1 backward Euler"
    )
    length: Positive = Field(1024, description="dss: the length that its softmax normalises over")


class HyenaOptions(Section):
    """Hyena, as in HyenaDNA."""

    order: Annotated[int, Field(ge=2)] = Field(2, description="gates and long convolutions: order - 1 of them")
    max_length: Positive = Field(131_072, description="longest sequence; the filters are functions on this interval")
    emb_dim: Annotated[int, Field(ge=3)] = Field(5, description="features of a position (odd)")
    filter_order: Positive = Field(64, description="width of the network that makes the filters")
    filter_layers: NonNegative = Field(2, description="its inner layers")
    sine_freq: PositiveFloat = Field(10.0, description="frequency of its sine activations")
    short_filter: Annotated[int, Field(ge=2, le=8)] = Field(3, description="taps of the short convolution")
    bias: bool = Field(True, description="biases of the projections")

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.emb_dim % 2 == 0:
            raise ValueError(f"emb_dim: {self.emb_dim} is even; time, then a cosine and a sine a band make it odd")
        return self


class RWKVOptions(Section):
    """RWKV-4 and RWKV-7."""

    headdim: Positive = Field(64, description="channels of a head of rwkv7; divides d_model")
    rank: Positive = Field(32, description="rank of the low-rank projections of rwkv7")


class AttentionOptions(Section):
    """Softmax attention with rotary positions."""

    headdim: Positive = Field(32, description="channels of a head; even, divides d_model")
    window: Positive = Field(512, description="local_attention: tokens a token sees on a side, itself among them")
    rotary_base: PositiveFloat = Field(10_000.0, description="slowest rotation has this period, over 2 pi")


class ConvOptions(Section):
    """A dilated convolutional network."""

    kernel: Annotated[int, Field(ge=2)] = Field(5, description="taps of every layer")
    layers: Annotated[int, Field(ge=1, le=20)] = Field(4, description="layers in a block; layer i has dilation 2**i")


class ModelConfig(Section):
    """The shape of a language model (config/model/*.yaml; also ``config.json`` of a checkpoint)."""

    d_model: Positive = Field(128, description="width of the residual stream")
    n_layer: Positive = Field(4, description="number of residual blocks")
    mixer: MixerName = Field("mamba", description="what mixes along the sequence in every block")
    pattern: str | None = Field(
        None, description="hybrids: one letter a block, repeated over the depth, in place of mixer"
    )
    mlp_expand: NonNegative = Field(0, description="width of an MLP after every mixer over d_model; 0 for none")
    d_state: Positive = Field(16, description="state size per channel")
    expand: Positive = Field(2, description="d_inner / d_model")
    d_conv: Annotated[int, Field(ge=2, le=8)] = Field(
        4, description="taps of the short causal convolution (mamba, ssd)"
    )
    dt_rank: Positive | Literal["auto"] = Field("auto", description="rank of the dt projection; auto is d_model/16")
    dt_min: PositiveFloat = Field(1e-3, description="smallest initial time step")
    dt_max: PositiveFloat = Field(1e-1, description="largest initial time step")
    dt_window: Positive | None = Field(
        None,
        description="bp to remember: the smallest initial time step is 1 / dt_window, where that is below dt_min; "
        "default: pretrain's seqlen, where it is above 2 / dt_min",
    )
    ssd: SSDOptions = SSDOptions()
    lti: LTIOptions = LTIOptions()
    hyena: HyenaOptions = HyenaOptions()
    rwkv: RWKVOptions = RWKVOptions()
    attention: AttentionOptions = AttentionOptions()
    conv: ConvOptions = ConvOptions()
    bidirectional: bool = Field(True, description="read both directions, with tied projections")
    rc_equivariant: bool = Field(False, description="reverse-complement equivariant: both strands, one set of weights")
    objective: Literal["masked", "causal"] = Field("masked", description="masked-LM or next-base prediction")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="dropout on each block's output")
    norm_eps: PositiveFloat = Field(1e-5, description="epsilon of RMSNorm")
    vocab_size: Literal[16] = Field(16, description="fixed by the vocabulary")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.objective == "causal" and (self.bidirectional or self.rc_equivariant):
            raise ValueError(
                "objective: causal needs bidirectional: false and rc_equivariant: false (else it sees its answer)"
            )
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min {self.dt_min} is above dt_max {self.dt_max}")
        if self.pattern is not None and (not self.pattern or set(self.pattern) - LETTERS.keys()):
            known = ", ".join(f"{letter} {name}" for letter, name in LETTERS.items())
            raise ValueError(f"pattern: {self.pattern!r} must be made of the letters of mixers: {known}")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        used = set(self.layers)
        if used & {"ssd", "linear_attention"}:
            heads, rest = divmod(self.d_inner, self.ssd.headdim)
            if rest or heads % self.ssd.n_groups:
                raise ValueError(
                    f"ssd.headdim: heads of {self.ssd.headdim} in {self.ssd.n_groups} groups do not divide the"
                    f" {self.d_inner} inner channels"
                )
        if "rwkv7" in used and self.d_model % self.rwkv.headdim:
            raise ValueError(f"rwkv.headdim: {self.rwkv.headdim} does not divide d_model {self.d_model}")
        if used & {"attention", "local_attention"} and (
            self.d_model % self.attention.headdim or self.attention.headdim % 2
        ):
            raise ValueError(
                f"attention.headdim: {self.attention.headdim} must be even and divide d_model {self.d_model}"
            )
        return self

    @model_validator(mode="after")
    def _state_space_exists(self) -> Self:
        init, rule = self.lti.init, self.lti.discretization
        for mixer in sorted(set(self.layers)):
            measures = {"legs", "legt", "lagt", "fout"} if mixer in ("s4", "lssl", "lssl_fixed") else None
            if mixer in ("s4d", "dss", "s5", "liquid_s4"):
                measures = {"lin", "inv", "legs", "real"}
            if measures and init not in {"auto", *measures}:
                raise ValueError(f"lti.init: {mixer} starts from {', '.join(sorted(measures))}, not from {init}")
            only = {"s4": "bilinear", "dss": "zoh"}.get(mixer)
            if only and rule not in ("auto", only):
                raise ValueError(f"lti.discretization: {mixer} is made for {only}, not for {rule}")
            if measures and init == "fout" and self.d_state % 2:
                raise ValueError(f"d_state: the states of lti.init: fout come in pairs, {self.d_state} is odd")
        if self.lti.gbt_alpha is not None and (rule != "auto" or not {"lssl", "lssl_fixed"} & set(self.layers)):
            raise ValueError("lti.gbt_alpha: only lssl takes it, in place of lti.discretization")
        return self

    @property
    def d_inner(self) -> int:
        """Width inside a mixer: expand * d_model."""
        return self.expand * self.d_model

    @property
    def resolved_dt_rank(self) -> int:
        """The dt rank as a number."""
        return -(-self.d_model // 16) if self.dt_rank == "auto" else self.dt_rank

    @property
    def initial_dt_min(self) -> float:
        """The smallest initial time step.

        A channel with decay rate 1 remembers about 1 / dt tokens, so a model for a window of L bp needs some channels
        near 1 / L: with dt >= 0.001 nothing is remembered beyond a few thousand bp at the start of training.
        """
        return self.dt_min if self.dt_window is None else min(self.dt_min, 1 / self.dt_window)

    def for_window(self, seqlen: int) -> Self:
        """This shape, to be trained on windows of ``seqlen`` tokens: ``dt_window`` is that, where nothing else is set.

        Up to 2 / dt_min tokens the usual range reaches across half the window already, and stays as published.
        """
        if self.dt_window is not None or seqlen <= 2 / self.dt_min:
            return self
        return self.model_copy(update={"dt_window": seqlen})

    @property
    def layers(self) -> list[MixerName]:
        """The mixer of every block, the first block first."""
        names = [self.mixer] if self.pattern is None else [LETTERS[letter] for letter in self.pattern]
        return [names[i % len(names)] for i in range(self.n_layer)]

    def for_layer(self, index: int) -> Self:
        """The configuration of one block: its own mixer, no pattern."""
        return self.model_copy(update={"mixer": self.layers[index], "pattern": None})


assert set(LETTERS.values()) <= set(get_args(MixerName))
