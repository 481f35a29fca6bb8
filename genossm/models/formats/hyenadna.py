"""HyenaDNA: its backbone, configuration and names (HazyResearch/hyena-dna@d553021, and the port on the hub).

The mixer is our own :class:`~genossm.models.mixers.hyena.Hyena`; the positions and the rates of the damping, which
other projects compute, are read from the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from genossm.config.official import HyenaConfig, HyenaRepositoryConfig
from genossm.errors import GenoSSMError
from genossm.models.formats.naming import Format, Name
from genossm.models.formats.shapes import HyenaDNAShape, PublishedShape
from genossm.models.formats.vocabularies import HOUSE
from genossm.models.mixers.hyena import Hyena


class HyenaBlock(nn.Module):
    """Two pre-norm residual steps: the mixer, then an MLP."""

    def __init__(self, shape: HyenaDNAShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.d_model, eps=shape.norm_eps)
        self.mixer = Hyena(shape.mixer_config())
        self.norm2 = nn.LayerNorm(shape.d_model, eps=shape.norm_eps)
        self.fc1 = nn.Linear(shape.d_model, shape.d_inner)
        self.fc2 = nn.Linear(shape.d_inner, shape.d_model)

    def forward(self, x: Tensor, *, mask: Tensor | None, segments: Tensor | None) -> Tensor:
        """(batch, seqlen, d_model) to the same."""
        y, _ = self.mixer(self.norm1(x), mask=mask, segments=segments)
        x = y + x
        return self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh")) + x


class HyenaDNABackbone(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, shape: HyenaDNAShape) -> None:
        super().__init__()
        self.max_seqlen = shape.max_seqlen
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(HyenaBlock(shape) for _ in range(shape.n_layer))
        self.norm = nn.LayerNorm(shape.d_model, eps=shape.norm_eps)

    def forward(
        self, input_ids: Tensor, *, state: None = None, mask: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Arguments and results as :meth:`genossm.models.backbone.Backbone.forward`; it carries no state.

        Raises:
            ValueError: a state is given.
            GenoSSMError: the sequence is longer than the filters.
        """
        if state is not None:
            raise ValueError("a long convolution reads whole sequences: it takes no state")
        if input_ids.shape[1] > self.max_seqlen:
            raise GenoSSMError(
                f"this HyenaDNA reads at most {self.max_seqlen:,} tokens, not {input_ids.shape[1]:,}: give"
                " shorter sequences"
            )
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = block(x, mask=mask, segments=segments)
        return self.norm(x), []


class HyenaDNA(Format):
    """The names of the hub; the training repository's lack the first word."""

    written = (HyenaConfig,)

    def kind(self, content: Mapping[str, Any]) -> type[HyenaConfig | HyenaRepositoryConfig] | None:
        """See :meth:`Format.kind`: of the hub or of the training repository."""
        if content.get("model_type") == "hyenadna":
            return HyenaConfig
        layer = content.get("layer")
        return HyenaRepositoryConfig if isinstance(layer, dict) and layer.get("_name_") == "hyena" else None

    def tidy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The hub's names; checkpointed layers of the repository are wrapped once more."""
        result = {n.replace(".mixer.layer.", ".mixer.").replace(".mlp.layer.", ".mlp."): t for n, t in tensors.items()}
        return {f"hyena.{n}" if n.startswith("backbone.") else n: t for n, t in result.items()}

    def read_shape(
        self,
        config: HyenaConfig | HyenaRepositoryConfig,
        tensors: Mapping[str, Tensor],
        vocabulary: Mapping[str, int] | None,
        notes: list[str],
        weights_path: Path,
    ) -> dict[str, Any]:
        """The fields of a :class:`HyenaDNAShape`; the longest sequence is the length of the positions in the file."""
        positions = tensors.get("hyena.backbone.layers.0.mixer.filter_fn.pos_emb.z")
        if positions is None or positions.dim() != 3:
            raise GenoSSMError("it holds no filter_fn.pos_emb.z of shape (1, length, emb_dim)", path=weights_path)
        hub = isinstance(config, HyenaConfig)
        layer = config if isinstance(config, HyenaConfig) else config.layer
        tied = config.tie_word_embeddings
        return {
            "architecture": "hyenadna",
            "objective": "causal",
            "d_model": config.d_model,
            "n_layer": config.n_layer,
            "vocab_size": config.rows,
            "vocabulary": HOUSE if vocabulary is None else vocabulary,
            "norm_eps": config.layer_norm_epsilon,
            "tie_embeddings": (not hub or "lm_head.weight" not in tensors) if tied is None else tied,
            "residual_in_fp32": config.residual_in_fp32,
            "max_seqlen": positions.shape[1],
            "d_inner": config.d_inner,
            "emb_dim": layer.emb_dim,
            "filter_order": layer.filter_order,
            "inner_mlps": layer.num_inner_mlps,
            "short_filter": layer.short_filter_order,
            "proj_bias": config.use_bias if isinstance(config, HyenaConfig) else True,
        }

    def names(self, shape: PublishedShape, labels: list[str] | None) -> list[Name]:
        """The table of names of a language model, or with ``labels`` of a classifier."""
        assert isinstance(shape, HyenaDNAShape)
        root, embedding = "hyena.backbone.", "hyena.backbone.embeddings.word_embeddings.weight"
        tied = shape.tie_embeddings and labels is None
        result = [Name("backbone.embedding.weight", (embedding, "lm_head.weight") if tied else (embedding,))]
        if labels is not None:
            result.append(Name("classifier.weight", ("score.weight",)))
        else:
            result.append(Name("lm_head.weight", ("lm_head.weight", embedding) if tied else ("lm_head.weight",)))
        pairs = [("norm", f"{root}ln_f")]
        for i in range(shape.n_layer):
            ours, theirs = f"backbone.blocks.{i}.", f"{root}layers.{i}."
            pairs += [(f"{ours}{norm}", f"{theirs}{norm}") for norm in ("norm1", "norm2")]
            pairs += [(f"{ours}{fc}", f"{theirs}mlp.{fc}") for fc in ("fc1", "fc2")]
            result += self._mixer(f"{ours}mixer.", f"{theirs}mixer.", shape)
        pairs[0] = ("backbone.norm", pairs[0][1])
        return result + [Name(f"{o}.{leaf}", (f"{t}.{leaf}",)) for o, t in pairs for leaf in ("weight", "bias")]

    def _mixer(self, ours: str, theirs: str, shape: HyenaDNAShape) -> list[Name]:
        leaves = ("weight", "bias") if shape.proj_bias else ("weight",)
        found = [Name(f"{ours}{p}.{x}", (f"{theirs}{p}.{x}",)) for p in ("in_proj", "out_proj") for x in leaves]
        found.append(Name(f"{ours}core.short_weight", (f"{theirs}short_filter.weight",), lead=1))
        found.append(Name(f"{ours}core.short_bias", (f"{theirs}short_filter.bias",)))
        inner, last = f"{theirs}filter_fn.implicit_filter.", 2 * (shape.inner_mlps + 1)
        for number in range(shape.inner_mlps + 1):
            for leaf in ("weight", "bias"):
                found.append(Name(f"{ours}core.filter.layers.{number}.{leaf}", (f"{inner}{2 * number}.{leaf}",)))
        found.append(Name(f"{ours}core.filter.last.weight", (f"{inner}{last}.weight",)))
        found.append(Name(f"{ours}core.filter.freq", tuple(f"{inner}{n}.freq" for n in range(1, last, 2))))
        for leaf, official in (
            ("bias", "bias"),
            ("z", "pos_emb.z"),
            ("t", "pos_emb.t"),
            ("deltas", "modulation.deltas"),
        ):
            found.append(Name(f"{ours}core.filter.{leaf}", (f"{theirs}filter_fn.{official}",)))
        return found

    def write_config(self, shape: PublishedShape, labels: list[str] | None) -> dict[str, Any]:
        """config.json as the hub's port writes it."""
        assert isinstance(shape, HyenaDNAShape)
        modelling = "modeling_hyena.HyenaDNA"
        return {
            "architectures": ["HyenaDNAForCausalLM" if labels is None else "HyenaDNAForSequenceClassification"],
            "auto_map": {
                "AutoConfig": "configuration_hyena.HyenaConfig",
                "AutoModel": f"{modelling}Model",
                "AutoModelForCausalLM": f"{modelling}ForCausalLM",
                "AutoModelForSequenceClassification": f"{modelling}ForSequenceClassification",
            },
            "model_type": "hyenadna",
            "d_model": shape.d_model,
            "n_layer": shape.n_layer,
            "d_inner": shape.d_inner,
            "vocab_size": 12 if shape.vocab_size == 16 else shape.vocab_size,
            "pad_vocab_size_multiple": 8 if shape.vocab_size % 8 == 0 else 1,
            "max_seq_len": shape.max_seqlen,
            "emb_dim": shape.emb_dim,
            "filter_order": shape.filter_order,
            "num_inner_mlps": shape.inner_mlps,
            "short_filter_order": shape.short_filter,
            "hyena_order": 2,
            "use_bias": shape.proj_bias,
            "layer_norm_epsilon": shape.norm_eps,
            "activation_freq": 10,
            "train_freq": True,
            "embed_dropout": 0.1,
            "hyena_dropout": 0.0,
            "hyena_filter_dropout": 0.0,
            "initializer_range": 0.02,
            "pad_token_id": 4,
            "tie_word_embeddings": shape.tie_embeddings,
        }
