"""Caduceus and PlantCaduceus: configuration and names (kuleshov-group/caduceus@0060a6d)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genossm.config.official import CaduceusConfig, StateSpaces2Config, StateSpacesConfig
from genossm.errors import GenoSSMError
from genossm.models.formats.naming import Format, Name
from genossm.models.formats.shapes import MambaShape, PublishedShape
from genossm.models.formats.vocabularies import HOUSE, PLANT

MODEL_TYPE = "caduceus"
STRATEGIES = {"add": "add", "ew_multiply": "multiply"}
_MAP = "complement_map"


def read_stack(config: CaduceusConfig | StateSpacesConfig | StateSpaces2Config) -> dict[str, Any]:
    """The fields that Caduceus has in common with both formats of state-spaces."""
    ssm = config.ssm_cfg
    return {
        "d_model": config.d_model,
        "n_layer": config.n_layer,
        "norm_eps": config.norm_epsilon,
        "rms_norm": config.rms_norm,
        "residual_in_fp32": config.residual_in_fp32,
        "d_state": ssm.d_state,
        "d_conv": ssm.d_conv,
        "expand": ssm.expand,
        "conv_bias": ssm.conv_bias,
        "proj_bias": ssm.bias,
    }


def read_mamba(config: CaduceusConfig | StateSpacesConfig) -> dict[str, Any]:
    """The fields that Caduceus has in common with Mamba in state-spaces' own format."""
    return {**read_stack(config), "dt_rank": config.ssm_cfg.dt_rank or -(-config.d_model // 16)}


def read_complement(
    config: CaduceusConfig, tensors: Mapping[str, Tensor], notes: list[str], weights_path: Path
) -> list[int] | None:
    """The complement of every id: what the weights file says, else the configuration, its keys read as numbers.

    The configuration's map has text for keys, and some writers sort them as text; a model that was built from such
    a file takes its entries in that order. Where weights and configuration differ, the official code runs with the
    weights' map, and so does this one.

    Raises:
        GenoSSMError: a map in the weights that is no list of ids.
    """
    written = {int(key): value for key, value in config.complement_map.items()}
    from_config = [written.get(i, i) for i in range(config.rows)] if written else None
    buffers = {name: tensor for name, tensor in tensors.items() if name.endswith(_MAP)}
    for name, tensor in buffers.items():
        if tensor.dtype not in (torch.int64, torch.int32) or tensor.shape != (config.rows,):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise GenoSSMError(
                f"{name} is of type {kind} and shape {tuple(tensor.shape)}; it must list {config.rows} ids, as int64",
                path=weights_path,
            )
    if not buffers:
        if from_config is not None:
            _check_map(written, from_config, config, weights_path.with_name("config.json"))
        return from_config
    complement: list[int] = next(iter(buffers.values())).tolist()
    if any(tensor.tolist() != complement for tensor in buffers.values()):
        notes.append(f"the complement maps in the weights differ from one another; {next(iter(buffers))} is used")
    if from_config is not None and complement != from_config:
        notes.append(
            "the complement map in the weights differs from the one in config.json (a known fault of configurations"
            " whose keys were sorted as text); the weights' map is used, as by the official code"
        )
    if not _is_involution(complement):
        notes.append("the complement of a complement is not the token itself: outputs will not be strand-symmetric")
    return complement


def _is_involution(complement: list[int]) -> bool:
    return [complement[i] if 0 <= i < len(complement) else -1 for i in complement] == list(range(len(complement)))


def _check_map(written: Mapping[int, int], complement: list[int], config: CaduceusConfig, path: Path) -> None:
    """Refuse what is no strand of the other, as by the configuration alone; padded rows may be left out.

    Raises:
        GenoSSMError: an id is missing, or the complement of a complement is another id.
    """
    missing = [str(i) for i in range(config.vocab_size) if i not in written]
    if missing:
        raise GenoSSMError(f"complement_map: says nothing of id {', '.join(missing)}", path=path)
    if not _is_involution(complement):
        raise GenoSSMError("complement_map: the complement of a complement is not the id itself", path=path)


def _norm_names(ours: str, theirs: str, shape: MambaShape) -> list[Name]:
    """Unfused equivariant models wrap their norms; either name is read."""
    wrapped = shape.rc_equivariant and not shape.strand_swap
    found = []
    for leaf in ("weight",) if shape.rms_norm else ("weight", "bias"):
        spelled = (f"{theirs}.{leaf}", f"{theirs}.submodule.{leaf}")
        found.append(Name(f"{ours}.{leaf}", (spelled[wrapped],), (spelled[not wrapped],)))
    return found


def _mixer_names(ours: str, theirs: str, shape: MambaShape) -> list[Name]:
    directions = ["mamba_fwd", "mamba_rev"] if shape.bidirectional else ["mamba_fwd"]
    shared = shape.bidirectional and shape.tied_directions
    leaves = ("weight", "bias") if shape.proj_bias else ("weight",)
    found = []
    for projection, ours_backward in (("in_proj", "backward_in"), ("out_proj", "backward_out")):
        for leaf in leaves:
            spelled = [f"{theirs}{direction}.{projection}.{leaf}" for direction in directions]
            found.append(Name(f"{ours}mixer.{projection}.{leaf}", tuple(spelled if shared else spelled[:1])))
            if shape.bidirectional and not shared:
                found.append(Name(f"{ours}{ours_backward}.{leaf}", (spelled[1],)))
    for direction in directions:
        core = f"{ours}mixer.core." if direction == "mamba_fwd" else f"{ours}backward_core."
        found += core_names(core, f"{theirs}{direction}.", conv_bias=shape.conv_bias)
    return found


def core_names(ours: str, theirs: str, *, conv_bias: bool) -> list[Name]:
    """What a Mamba-1 mixer has beside its projections."""
    found = [Name(f"{ours}{leaf}", (f"{theirs}{leaf}",)) for leaf in ("A_log", "D", "x_proj.weight", "dt_proj.weight")]
    found += [
        Name(f"{ours}dt_bias", (f"{theirs}dt_proj.bias",)),
        Name(f"{ours}conv_weight", (f"{theirs}conv1d.weight",), lead=1),
    ]
    return [*found, Name(f"{ours}conv_bias", (f"{theirs}conv1d.bias",))] if conv_bias else found


class Caduceus(Format):
    """Hub and training repository name the tensors alike."""

    written = (CaduceusConfig,)

    def kind(self, content: Mapping[str, Any]) -> type[CaduceusConfig] | None:
        """See :meth:`Format.kind`."""
        return CaduceusConfig if content.get("model_type") == MODEL_TYPE else None

    def tidy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names as the whole models have them: a backbone that was saved alone lacks their first word."""
        alone = all(not name.startswith("caduceus.") for name in tensors)
        return {f"caduceus.{n}" if alone and n.startswith("backbone.") else n: t for n, t in tensors.items()}

    def read_shape(
        self,
        config: CaduceusConfig,
        tensors: Mapping[str, Tensor],
        vocabulary: Mapping[str, int] | None,
        notes: list[str],
        weights_path: Path,
    ) -> dict[str, Any]:
        """The fields of a :class:`MambaShape`."""
        if vocabulary is None:
            vocabulary = {8: PLANT, 16: HOUSE}.get(config.rows)
        return {
            "architecture": MODEL_TYPE,
            "objective": "masked",
            "vocab_size": config.rows,
            "vocabulary": vocabulary,
            # the official class always ties the head of an equivariant model
            "tie_embeddings": config.rcps or config.tie_word_embeddings,
            "rc_equivariant": config.rcps,
            "fused_add_norm": config.fused_add_norm,
            "complement": read_complement(config, tensors, notes, weights_path) if config.rcps else None,
            "bidirectional": config.bidirectional,
            "strategy": STRATEGIES[config.bidirectional_strategy],
            "tied_directions": config.bidirectional_weight_tie,
            **read_mamba(config),
        }

    def drop_buffers(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors without those that the shape already holds."""
        return {name: tensor for name, tensor in tensors.items() if not name.endswith(_MAP)}

    def names(self, shape: PublishedShape, labels: list[str] | None) -> list[Name]:
        """The table of names of a language model, or with ``labels`` of a classifier."""
        assert isinstance(shape, MambaShape)
        ours, theirs = ("backbone.backbone." if shape.rc_equivariant else "backbone."), "caduceus.backbone."
        embedding = f"{theirs}embeddings.word_embeddings.{'embedding.' if shape.rc_equivariant else ''}weight"
        head = "lm_head.lm_head.weight" if shape.rc_equivariant else "lm_head.weight"
        tied = shape.tie_embeddings and labels is None
        result = [Name(f"{ours}embedding.weight", (embedding, head) if tied else (embedding,))]
        if labels is not None:
            result.append(Name("classifier.weight", ("score.weight",)))
        elif tied:
            result.append(Name("lm_head.weight", (head, embedding)))
        else:
            result.append(Name("lm_head.weight", (head,)))
        for i in range(shape.n_layer):
            mixer = f"{theirs}layers.{i}.mixer.{'submodule.' if shape.rc_equivariant else ''}"
            result += _norm_names(f"{ours}blocks.{i}.norm", f"{theirs}layers.{i}.norm", shape)
            result += _mixer_names(f"{ours}blocks.{i}.mixer.", mixer, shape)
        return result + _norm_names(f"{ours}norm", f"{theirs}norm_f", shape)

    def write_buffers(self, shape: PublishedShape, labels: list[str] | None) -> dict[str, Tensor]:
        """The buffers of the official state dict."""
        assert isinstance(shape, MambaShape)
        if not shape.rc_equivariant:
            return {}
        places = ["caduceus.backbone.embeddings.word_embeddings", *([] if labels is not None else ["lm_head"])]
        return {f"{place}.{_MAP}": torch.tensor(shape.complement) for place in places}

    def write_config(self, shape: PublishedShape, labels: list[str] | None) -> dict[str, Any]:
        """config.json as the official class writes it."""
        assert isinstance(shape, MambaShape)
        task = "CaduceusForMaskedLM" if labels is None else "CaduceusForSequenceClassification"
        complement = shape.complement
        if complement is None and shape.vocabulary == HOUSE:
            complement = [{7: 10, 8: 9, 9: 8, 10: 7}.get(i, i) for i in range(shape.vocab_size)]
        modelling = "modeling_caduceus.Caduceus"
        return {
            "architectures": [task],
            "auto_map": {
                "AutoConfig": "configuration_caduceus.CaduceusConfig",
                "AutoModel": modelling,
                "AutoModelForMaskedLM": f"{modelling}ForMaskedLM",
                "AutoModelForSequenceClassification": f"{modelling}ForSequenceClassification",
            },
            "model_type": MODEL_TYPE,
            "d_model": shape.d_model,
            "n_layer": shape.n_layer,
            "vocab_size": shape.vocab_size,
            "pad_vocab_size_multiple": 8 if shape.vocab_size % 8 == 0 else 1,
            "ssm_cfg": {
                "d_state": shape.d_state, "d_conv": shape.d_conv, "expand": shape.expand, "dt_rank": shape.dt_rank,
                "dt_min": 0.001, "dt_max": 0.1, "dt_init": "random", "dt_scale": 1.0, "dt_init_floor": 1e-4,
                "conv_bias": shape.conv_bias, "bias": shape.proj_bias, "use_fast_path": True,
            },
            "rms_norm": shape.rms_norm,
            "norm_epsilon": shape.norm_eps,
            "residual_in_fp32": shape.residual_in_fp32,
            "fused_add_norm": shape.fused_add_norm,
            "initializer_cfg": {
                "initializer_range": 0.02, "n_residuals_per_layer": 1, "rescale_prenorm_residual": True,
            },
            "bidirectional": shape.bidirectional,
            "bidirectional_strategy": {v: k for k, v in STRATEGIES.items()}[shape.strategy],
            "bidirectional_weight_tie": shape.tied_directions,
            "rcps": shape.rc_equivariant,
            "complement_map": None if complement is None else {str(i): c for i, c in enumerate(complement)},
            "tie_word_embeddings": shape.tie_embeddings,
        }  # fmt: skip
