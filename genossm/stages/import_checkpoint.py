"""genossm import: a published checkpoint becomes a GenoSSM checkpoint, for every command.

The weights are taken over bit for bit (those of 16 bits are computed with in float32), and the configuration with
every constant of the computation. Nothing in a file is executed. Ties between tensors are restored whichever copy the
file holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from genossm.data.hub import PREFIX, HubModel, fetch_model
from genossm.errors import GenoSSMError, printable
from genossm.models import LanguageModel, SequenceClassifier, build_model
from genossm.models.formats.registry import Converted, convert
from genossm.models.formats.tokenizers import read_tokenizer
from genossm.models.formats.vocabularies import HOUSE, PLANT, Vocabulary, why_unreadable
from genossm.stages.model_check import Check, card, check_model, embedded_genome, licence_of
from genossm.train.checkpoint import CONFIG, MANIFEST, WEIGHTS, checkpoint_config, export_model, load_config
from genossm.train.published_files import PublishedFiles, read_json, read_published

VOCABULARIES = {"caduceus": HOUSE, "plantcaduceus": PLANT}


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        model: in evaluation mode. config: of the checkpoint.
        notes: what the user should know, one line each.
        card: the model's facts, one line each. checks: their outcomes, where asked for.
    """

    model: LanguageModel | SequenceClassifier
    config: dict[str, Any]
    notes: list[str]
    card: list[str]
    checks: list[Check]


class NotAsItShould(GenoSSMError):
    """A check failed; ``done`` is what was found until then."""

    def __init__(self, text: str, done: Imported, *, path: Path) -> None:
        super().__init__(text, path=path)
        self.done = done


def import_checkpoint(
    source: str,
    output: Path,
    *,
    verify: bool = False,
    genome: Path | None = None,
    vocabulary: str | None = None,
    pooling: Literal["mean", "max"] = "mean",
    offline: bool = False,
) -> Imported:
    """Read a published checkpoint and write it to the folder ``output``.

    Args:
        source: a folder, a weights file with ``config.json`` beside it, or ``hf:owner/name[@revision]``.
        verify: check the model first; nothing is written where a check fails.
        genome: FASTA for the loss of ``verify``; None is the embedded genome.
        vocabulary: ``caduceus``, ``plantcaduceus``, or the path of a JSON object of tokens and ids; None is what lies
            beside the weights, else the architecture's.
        pooling: of a classifier.
        offline: take a hub model from the cache alone.

    Raises:
        GenoSSMError: a file that is missing, damaged or not supported; a failed check; a network that is not there.
    """
    if not source.strip():
        raise GenoSSMError("SOURCE is empty: name a folder, a weights file, or hf:owner/name")
    hub = fetch_model(source, offline=offline) if source.startswith(PREFIX) else None
    files = read_published(Path(source) if hub is None else hub.folder)
    _check_output(output, files)
    if hub is not None:
        _check_sums(files, hub)
    converted = convert(
        files.config,
        files.tensors,
        config_path=files.config_path,
        weights_path=files.weights,
        vocabulary=_vocabulary(vocabulary, files),
        pooling=pooling,
    )
    config = _config(converted, files, hub)
    model = build_model(converted.shape, len(converted.labels)) if converted.labels else build_model(converted.shape)
    model.load_state_dict(converted.weights)
    model.eval()
    readable = why_unreadable(converted.shape.vocabulary) is None
    checks = check_model(model, genome or embedded_genome()) if verify and readable else []
    shown = source if hub is None else f"{PREFIX}{hub.name}@{hub.revision}"
    facts = card(config, model, shown, licence_of(files.weights.parent))
    done = Imported(model, config, [*converted.notes, *_passed_over(files)], facts, checks)
    if failed := [str(check) for check in checks if check.passed is False]:
        raise NotAsItShould(
            f"not imported, for it does not hold what it should: {'; '.join(failed)}", done, path=files.weights
        )
    export_model(output, config, converted.weights)
    return done


def _passed_over(files: PublishedFiles) -> list[str]:
    if not files.passed_over:
        return []
    shown = ", ".join(files.passed_over[:8]) + (" ..." if len(files.passed_over) > 8 else "")
    return [f"{files.weights.name} also asks for {shown}; none of it was made or run"]


def _check_output(output: Path, files: PublishedFiles) -> None:
    """Refuse to write over what was not written by this command."""
    if output == Path():  # also of --output ""
        raise GenoSSMError("--output: name a folder for the checkpoint, not the current one")
    if output.resolve() == files.weights.parent.resolve():
        raise GenoSSMError("is the folder of the published model: choose another --output", path=output)
    if output.exists() and not output.is_dir():
        raise GenoSSMError("is a file; --output is a folder", path=output)
    for name in (CONFIG, WEIGHTS):
        if (output / name).exists() and not (output / MANIFEST).exists():
            raise GenoSSMError(f"holds a {name} of something else: choose another --output", path=output)
    if (output / MANIFEST).exists() and load_config(output).get("training", {}).get("stage") != "import":
        raise GenoSSMError("holds a model that was trained here: choose another --output", path=output)


def _check_sums(files: PublishedFiles, hub: HubModel) -> None:
    for name, digest in hub.sha256.items():
        if files.sha256.get(name, digest) != digest:
            raise GenoSSMError(
                f"damaged: its sha256 is not the hub's; remove {hub.folder.parent.parent} and try again",
                path=hub.folder / name,
            )


def _vocabulary(choice: str | None, files: PublishedFiles) -> Vocabulary | None:
    if choice is None:
        return None if files.tokenizer is None else read_tokenizer(files.tokenizer[1], files.tokenizer[0])
    if choice in VOCABULARIES:
        return Vocabulary(VOCABULARIES[choice])
    chosen = read_tokenizer(read_json(Path(choice)), Path(choice))
    if reason := why_unreadable(chosen.ids):
        raise GenoSSMError(f"{reason}: no command could read DNA with it", path=choice)
    return chosen


def _config(converted: Converted, files: PublishedFiles, hub: HubModel | None) -> dict[str, Any]:
    """config.json: the shape, and what it was read from; no paths and no times, so that equal imports are equal."""
    training: dict[str, Any] = {"stage": "import", "files": dict(sorted(files.sha256.items()))}
    if hub is not None:
        training |= {"hub": hub.name, "revision": hub.revision}
    shape = json.loads(converted.shape.model_dump_json())
    kind: Literal["classifier", "language_model"] = "classifier" if converted.labels else "language_model"
    return checkpoint_config(kind, shape, training, converted.labels)


class Pooling(StrEnum):
    """How a classifier sums up a sequence."""

    MEAN = "mean"
    MAX = "max"


def command(
    source: Annotated[str, typer.Argument(help="Folder, weights file (config.json beside it), or hf:owner/name.")],
    output: Annotated[Path, typer.Option(help="Folder for the checkpoint; an earlier import there is replaced.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Check strands, padding and the loss on a genome; print the model's card.")
    ] = False,
    genome: Annotated[
        Path | None, typer.Option(help="FASTA for the loss of --verify; default: the embedded genome.")
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(help="caduceus, plantcaduceus, or a JSON of tokens and ids; default: the checkpoint's own."),
    ] = None,
    pooling: Annotated[Pooling, typer.Option(help="How a classifier pools; its files do not say.")] = Pooling.MEAN,
    offline: Annotated[bool, typer.Option("--offline", help="Take hf:owner/name from the cache alone.")] = False,
) -> None:
    """Make a published Caduceus, PlantCaduceus, HyenaDNA, Mamba or Mamba-2 checkpoint usable by every command.

    Reads model.safetensors, pytorch_model.bin (also in shards) and Lightning checkpoints, as data: nothing in them is
    executed. The model then runs on any CPU or GPU, with the outputs of the official code.

    Example: genossm import hf:kuleshov-group/caduceus-ps_seqlen-131k_d_model-256_n_layer-16 --output caduceus --verify
    """
    try:
        done = import_checkpoint(
            source, output, verify=verify, genome=genome, vocabulary=vocabulary, pooling=pooling.value, offline=offline
        )
    except NotAsItShould as fault:
        _print(fault.done)
        raise
    print(f"model: {output}")
    _print(done)


def _print(done: Imported) -> None:
    notes = (note if note.startswith("warning: ") else f"note: {note}" for note in done.notes)
    for line in (*done.card, *map(str, done.checks), *notes):
        print(printable(line))
