"""The typed configuration: one pydantic model a section, one section a stage.

Unknown keys, duplicate keys, wrong types and values out of range are errors that name the file, the line and
the key. The workflow's JSON schema is generated from these models (:func:`json_schema`), so there is one definition.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from genossm.config.head import Baseline, GappedKmerConfig, HeadConfig, MotifConfig, Pool, TaskConfig, TaskKind
from genossm.config.model import ModelConfig
from genossm.config.section import FILE_NAME, Fraction, NonNegative, Positive, Section
from genossm.errors import GenoSSMError

__all__ = [
    "FILE_NAME", "BenchmarkSection", "Config", "DeriveSection", "FetchSection", "FinetuneSection",
    "GappedKmerConfig", "HeadConfig", "ModelConfig", "MotifConfig", "PretrainSection", "ScoreSection", "Section",
    "Source", "SplitSection", "TaskConfig", "TaskKind", "TaskSection", "TokenizeSection", "json_schema",
    "load_config", "load_model_config", "merged_config", "read_yaml", "validate",
]  # fmt: skip


class Source(Section):
    """A file to fetch: a URL, a local path, or an NCBI accession as ``ncbi:NC_001133.9``."""

    source: str = Field(description="http(s)/ftp URL, local path, or ncbi:ACCESSION")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="checksum of the file as served; recorded when not given"
    )


class FetchSection(Section):
    """What comes from outside: genomes (FASTA), annotations (GFF3), interval lists of benchmark tasks."""

    genomes: dict[str, Source] = Field(description="name: source of a reference FASTA")
    annotations: dict[str, Source] = Field(default_factory=dict, description="name: source of a GFF3")
    intervals: dict[str, Source] = Field(
        default_factory=dict, description="name: source of a CSV of labelled intervals"
    )


class SplitSection(Section):
    """How a genome is divided into train, valid and test."""

    by: Literal["contig", "block"] = Field("block", description="whole contigs, or blocks of every contig")
    valid: list[str] = Field(default_factory=list, description="contigs for validation (by: contig)")
    test: list[str] = Field(default_factory=list, description="contigs for testing (by: contig)")
    exclude: list[str] = Field(default_factory=list, description="contigs left out altogether")
    block: Positive = Field(1_048_576, description="block length in bp (by: block)")
    margin: NonNegative = Field(1_024, description="bp dropped at each border between splits (by: block)")
    valid_fraction: Fraction = Field(0.05, description="share of the blocks (by: block)")
    test_fraction: Fraction = Field(0.05, description="share of the blocks (by: block)")


class TokenizeSection(Section):
    """FASTA to tokens.h5."""

    window: Positive = Field(131_072, description="window length in bp")
    stride: Positive | None = Field(None, description="distance of window starts in bp; default: the window")
    max_n: Fraction = Field(0.5, description="windows with a larger share of N are left out")
    rna: bool = Field(False, description="accept U as T")
    gaps: Literal["error", "N"] = Field("error", description="what to do with '-' and '.'")
    splits: dict[str, SplitSection] = Field(default_factory=dict, description="genome: how to split it")


class PretrainSection(Section):
    """Pretraining of a language model on one genome."""

    genome: str = Field(description="a name under fetch.genomes")
    steps: Positive = Field(1_000, description="optimizer steps")
    batch_size: Positive = Field(8, description="sequences a step")
    seqlen: Positive | None = Field(None, description="bp a sequence, cropped from a window; default: the window")
    lr: Annotated[float, Field(gt=0)] = Field(4e-3, description="peak learning rate")
    warmup_steps: NonNegative = Field(50, description="linear warm-up, then cosine to a tenth of lr")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.1, description="AdamW decay of matrices")
    grad_clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest gradient norm")
    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.15, description="share of bases to predict (masked)")
    soft_mask_weight: Fraction = Field(0.1, description="weight of soft-masked bases in the loss")
    rc_augment: bool = Field(True, description="flip a random half of the sequences to the other strand")
    valid_every: Positive = Field(200, description="steps between validations")
    valid_tokens: Positive = Field(262_144, description="bases of the validation split that are scored")
    checkpoint_every: Positive = Field(200, description="steps between checkpoints")
    keep: Annotated[int, Field(ge=2)] = Field(2, description="checkpoints kept; two at least, in case one is torn")
    baseline_max_k: Annotated[int, Field(ge=1, le=12)] = Field(8, description="largest k of the count baseline")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0 ...")


class TaskSection(Section):
    """One labelled task that is derived from a genome."""

    kind: Literal["coding", "intervals"] = Field(
        description="coding: coding against intergenic windows of a GFF3; intervals: lists of labelled intervals"
    )
    genome: str = Field(description="a name under fetch.genomes")
    annotation: str | None = Field(None, description="a name under fetch.annotations (kind: coding)")
    train: dict[str, str] = Field(default_factory=dict, description="label: a name under fetch.intervals")
    test: dict[str, str] = Field(default_factory=dict, description="label: a name under fetch.intervals")
    length: Positive = Field(500, description="window length in bp (kind: coding)")
    valid_contigs: list[str] = Field(default_factory=list, description="contigs for validation (kind: coding)")
    test_contigs: list[str] = Field(default_factory=list, description="contigs for testing (kind: coding)")
    exclude: list[str] = Field(default_factory=list, description="contigs left out, as organelles (kind: coding)")
    max_per_class: Positive = Field(3_000, description="records a class and split, at most")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "coding" and not (self.annotation and self.valid_contigs and self.test_contigs):
            raise ValueError("kind: coding needs annotation, valid_contigs and test_contigs")
        if self.kind == "intervals" and not (len(self.train) >= 2 and self.train.keys() == self.test.keys()):
            raise ValueError("kind: intervals needs train and test with the same two labels or more")
        return self


class FinetuneSection(Section):
    """Fine-tuning for a labelled task. What is not given is chosen from the training and validation rows."""

    tasks: list[str] = Field(default_factory=list, description="names under derive.tasks")
    epochs: Positive | None = Field(None, description="passes over the training set; default: by its size")
    batch_size: Positive | None = Field(None, description="sequences a step; default: 64, or 128 from 8,000 rows on")
    lr: Annotated[float, Field(gt=0)] = Field(2e-3, description="peak learning rate")
    backbone_lr_scale: Annotated[float, Field(ge=0)] = Field(
        1.0, description="rate of the pretrained backbone, as a share of lr; 0 freezes it"
    )
    adapt: Literal["full", "frozen", "lora"] = Field(
        "full", description="the backbone: all of it learns, none of it, or low-rank adapters of its projections"
    )
    lora_rank: Positive = Field(8, description="rank of the adapters")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.02, description="AdamW decay of matrices")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.05, description="label smoothing (classes)")
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="before either layer of the head; default: 0.3 where places mean something, else 0.2"
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decay of the average of the weights that is kept, 0 for none; default: by the steps"
    )
    patience: Positive | None = Field(
        None, description="epochs without a better validation score before stopping; default: train to the end"
    )
    strands: Literal["auto", "both", "given"] = Field(
        "auto", description="both: the strand says nothing; given: it does; auto: what the validation split favours"
    )
    positions: bool | None = Field(
        None, description="whether places mean something (equal lengths); default: what the validation split favours"
    )
    stem: bool = Field(True, description="a small convolutional network on the bases beside the backbone")
    pools: list[Pool] = Field(["max", "mean"], description="how hidden states become one vector: mean, max, attention")
    machine: bool = Field(True, description="add a gapped k-mer support vector machine, its weight by the valid split")
    members: Positive | None = Field(
        None, description="networks that are trained and averaged; default: 2 below 8,000 rows, else 1"
    )
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: rare classes weigh more")
    baselines: list[Baseline] = Field(
        ["gc", "onehot_lr", "kmer_lr", "gapped_kmer_svm", "cnn"],
        description="what the result is held against, beside the model from scratch",
    )
    search_minutes: Annotated[float, Field(ge=0)] = Field(
        0, description="look for better settings for so long, by the validation split; 0: do not"
    )
    bootstrap: Positive = Field(1_000, description="resamples for the confidence intervals")
    from_scratch: bool = Field(True, description="train the same model from random weights beside it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0 ...")


class BenchmarkSection(Section):
    """A published benchmark: the target ``results/benchmark/SUITE/results.tsv``, which is made on demand."""

    tasks: list[str] = Field(default_factory=list, description="names of tasks; empty: all of the suite")
    mirror: str | None = Field(None, description="folder that holds the tasks; default: they are downloaded")
    reference: str | None = Field(None, description="FASTA that lists of intervals are cut from")
    seeds: Positive | None = Field(None, description="repetitions; default: as the protocol says, at least 3")
    epochs: Positive | None = Field(None, description="passes over the training set; default: by its size")
    members: Positive | None = Field(None, description="networks a seed that are averaged; default: by its size")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0 ...")


class ScoreSection(Section):
    """Scoring of FASTA files."""

    inputs: dict[str, str] = Field(default_factory=dict, description="name: FASTA path")
    passes: Positive = Field(8, description="masked models: interleaved passes, each masks 1/passes of the bases")
    batch_size: Positive = Field(8, description="records in flight; rows never depend on it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0 ...")


class DeriveSection(Section):
    """Labelled tasks that are derived from genomes."""

    tasks: dict[str, TaskSection] = Field(default_factory=dict, description="name: task")


class Config(Section):
    """config/config.yaml: one section a stage."""

    results: str = Field("results", description="folder of everything that is made")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(1, description="the seed of every random choice")
    model: str = Field("tiny", description="a preset under config/model, or a path to a YAML file")
    compare: list[str] = Field(
        default_factory=list, description="more models, to be pretrained alike and put side by side in compare.tsv"
    )
    fetch: FetchSection
    tokenize: TokenizeSection = TokenizeSection()
    pretrain: PretrainSection
    derive: DeriveSection = DeriveSection()
    finetune: FinetuneSection = FinetuneSection()
    benchmark: BenchmarkSection = BenchmarkSection()
    score: ScoreSection = ScoreSection()

    @model_validator(mode="after")
    def _names_are_file_names(self) -> Self:
        named: dict[str, Iterable[str]] = {
            "fetch.genomes": self.fetch.genomes,
            "fetch.annotations": self.fetch.annotations,
            "fetch.intervals": self.fetch.intervals,
            "derive.tasks": self.derive.tasks,
            "score.inputs": self.score.inputs,
        }
        for key, names in named.items():
            for name in names:
                if not FILE_NAME.fullmatch(name):
                    raise ValueError(f"{key}: {name!r} becomes a file name: use ASCII letters, digits, '_' and '-'")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        genomes = self.fetch.genomes
        wanted: list[tuple[str, str, Collection[str]]] = [("pretrain.genome", self.pretrain.genome, genomes)]
        wanted += [("tokenize.splits", name, genomes) for name in self.tokenize.splits]
        for name, task in self.derive.tasks.items():
            wanted.append((f"derive.tasks.{name}.genome", task.genome, genomes))
            if task.kind == "coding":
                wanted.append((f"derive.tasks.{name}.annotation", task.annotation or "", self.fetch.annotations))
            for label, interval in [*task.train.items(), *task.test.items()]:
                wanted.append((f"derive.tasks.{name}: {label}", interval, self.fetch.intervals))
        wanted += [("finetune.tasks", name, self.derive.tasks) for name in self.finetune.tasks]
        for key, name, known in wanted:
            if name not in known:
                raise ValueError(f"{key}: {name!r} is not defined; there is {', '.join(known) or 'none'}")
        return self


SectionT = TypeVar("SectionT", bound=BaseModel)
KeyLines = dict[tuple[str, ...], int]
"""The line of every key in a YAML file, as {(key, subkey ...): line}."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a key given twice is an error, and so is a key that is no plain word."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        if key_node.value in seen:
            fault = f"key {key_node.value!r} is given twice, first on line {seen[key_node.value]}"
            raise yaml.constructor.ConstructorError(None, None, fault, key_node.start_mark)
        seen[key_node.value] = key_node.start_mark.line + 1
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> tuple[Any, KeyLines]:
    """The content of a YAML file, and the line of every key.

    Raises:
        GenoSSMError: not there, not YAML, or a key given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_UniqueKeyLoader)
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise GenoSSMError(
            f"not valid YAML: {error.problem or error}", path=path, line=mark.line + 1 if mark else None
        ) from None
    except yaml.YAMLError as error:
        raise GenoSSMError(f"not valid YAML: {error}", path=path) from None
    except UnicodeDecodeError:
        raise GenoSSMError("not UTF-8 text; save the file as UTF-8", path=path, code="E_ENCODING") from None
    except OSError as error:
        raise GenoSSMError(f"cannot be read: {error.strerror}", path=path) from None
    lines: KeyLines = {}

    def walk(node: yaml.Node | None, prefix: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*prefix, str(key.value))
                lines[here] = key.start_mark.line + 1
                walk(value, here)

    walk(root, ())
    return content, lines


def _fault(error: ValidationError, *, yaml: bool) -> tuple[tuple[str, ...], str]:
    """The first fault of a validation: the key it is about, and the words for it."""
    fault = error.errors()[0]
    keys = tuple(str(key) for key in fault["loc"])
    text = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        text = "unknown key"
    elif yaml and fault["type"] == "string_type" and not isinstance(fault["input"], (dict, list, type(None))):
        text = f"{str(fault['input']).lower()} is not text to YAML: put it in quotes"
    elif named := re.match(r"([\w.]+): ", text):
        # A check across keys has no place of its own: its text begins with the key.
        keys, text = (*keys, *named[1].split(".")), text[named.end() :]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return keys, f"{'.'.join(keys) + ': ' if keys else ''}{text}{more}"


def _line_of(keys: tuple[str, ...], lines: KeyLines) -> tuple[int, int]:
    """How many leading keys ``lines`` knows, and the line of the longest such prefix (0, 0 if none)."""
    return next(((n, lines[keys[:n]]) for n in range(len(keys), 0, -1) if keys[:n] in lines), (0, 0))


def validate(model: type[SectionT], content: Any, places: Sequence[tuple[Path, KeyLines]]) -> SectionT:
    """``content`` as ``model``.

    Args:
        places: the files that ``content`` came from and the lines of their keys, the last one has the last word.

    Raises:
        GenoSSMError: for the first fault; it names the file, the line and the key.
    """
    if not isinstance(content, dict):
        raise GenoSSMError("the file must hold keys and values", path=places[-1][0])
    try:
        return model.model_validate(content)
    except ValidationError as error:
        keys, text = _fault(error, yaml=any(lines for _, lines in places))
        depth, line, path = max(
            ((*_line_of(keys, lines), path) for path, lines in reversed(places)), key=lambda found: found[0]
        )
        raise GenoSSMError(text, path=path, line=line if depth else None) from None


def load_config(path: Path) -> Config:
    """The whole configuration from a YAML file."""
    content, lines = read_yaml(path)
    return validate(Config, content, [(path, lines)])


def load_model_config(path: Path) -> ModelConfig:
    """A model's shape from a YAML file."""
    content, lines = read_yaml(path)
    return validate(ModelConfig, content, [(path, lines)])


def merged_config(content: dict[str, Any], files: Sequence[Path]) -> Config:
    """The configuration from what Snakemake merged out of ``files`` (a later file overrides an earlier one)."""
    return validate(Config, content, [(path, read_yaml(path)[1]) for path in files])


def json_schema() -> dict[str, Any]:
    """The JSON schema of :class:`Config`, for the workflow's own check."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
