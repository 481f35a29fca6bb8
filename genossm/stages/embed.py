"""genossm embed: embeddings of the bases, of windows or of whole records of a FASTA, from any layer, in one file.

An embedding of a window or a record is the mean over its bases, N included. Strand-averaged (the default): at every
base the mean of what it looks like from either strand (:mod:`genossm.models.embeddings`). Layer k is the residual
stream after k blocks, 0 the token embedding; the default is what the heads read, after the last norm. Records of any
length are read as wholes, long ones layer by layer, so an embedding never depends on where a record was cut.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from genossm.data.embedding_files import EmbeddingFormat, EmbeddingWriter, embedding_file, embedding_format
from genossm.data.fasta import FastaOptions, Warnings, read_fasta
from genossm.errors import GenoSSMError
from genossm.files import check_output, sha256_of
from genossm.models import LanguageModel
from genossm.models.embeddings import embedding_width, record_hidden
from genossm.models.sweeps import MEMORY
from genossm.progress import progress
from genossm.stages.loading import load_model, pick_device
from genossm.train.checkpoint import MANIFEST
from genossm.train.signals import StopRequest

Floats = npt.NDArray[np.float32]


class Level(StrEnum):
    """What has an embedding."""

    TOKEN = "token"
    WINDOW = "window"
    RECORD = "record"


class Strands(StrEnum):
    """Which strands an embedding is of."""

    BOTH = "both"
    GIVEN = "given"


@dataclass(frozen=True)
class EmbedOptions:
    """What is embedded and how.

    Attributes:
        level: see :class:`Level`. window: bp of one, level ``window``.
        layer: blocks behind the embedding; None is the model's output. both_strands: strand-averaged.
        memory: bytes of activations of a long record kept in memory.
    """

    level: Level = Level.RECORD
    window: int = 1000
    layer: int | None = None
    both_strands: bool = True
    memory: int = MEMORY


Block = tuple[int, int, Floats]
"""Bases [start, end) and their embeddings (end - start, width), or one embedding (1, width) of them all."""


def embed_blocks(model: LanguageModel, tokens: npt.NDArray[np.uint8], options: EmbedOptions) -> Iterator[Block]:
    """The embeddings of a record, block by block from its beginning."""
    blocks = record_hidden(
        model, tokens, layers=options.layer, both_strands=options.both_strands, memory=options.memory
    )
    if options.level == Level.TOKEN:
        yield from blocks
        return
    size = len(tokens) if options.level == Level.RECORD else options.window
    yield from _means(blocks, len(tokens), size)


def _means(blocks: Iterable[Block], length: int, size: int) -> Iterator[Block]:
    """Means over windows of ``size`` bp, of which the last may be shorter."""
    total: npt.NDArray[np.float64] | None = None
    for start, end, values in blocks:
        at = start
        while at < end:
            first = at // size * size
            last = min(first + size, length)
            stop = min(end, last)
            part = values[at - start : stop - start].sum(0, dtype=np.float64)
            total = part if total is None else total + part
            if stop == last:
                yield first, last, (total / (last - first)).astype(np.float32)[None]
                total = None
            at = stop


def embed(
    checkpoint: Path,
    fasta: str | os.PathLike[str],
    output: Path,
    *,
    options: EmbedOptions | None = None,
    kind: EmbeddingFormat | None = None,
    rna: bool = False,
    device: str = "auto",
) -> tuple[int, int, list[str]]:
    """Write the embeddings of a FASTA's records to one file.

    Args:
        checkpoint: folder of a language model. fasta: plain, gzip or BGZF; ``-`` is standard input.
        kind: HDF5 or Parquet; None goes by the name of ``output``.

    Returns:
        records, embeddings, warnings on the input.

    Raises:
        GenoSSMError: a fault of the checkpoint or of the FASTA; a layer that the model does not have.
    """
    options = options or EmbedOptions()
    check_output(output, checkpoint, fasta)
    kind = embedding_format(output, kind)
    model, _ = load_model(checkpoint, pick_device(device))
    if not isinstance(model, LanguageModel):
        raise GenoSSMError("is a classifier; embeddings are a language model's", path=checkpoint)
    if options.layer is not None and not 0 <= options.layer <= model.config.n_layer:
        raise GenoSSMError(f"--layer {options.layer}: the model has layers 0 to {model.config.n_layer}")
    warnings, records, rows = Warnings(), 0, 0
    width = embedding_width(model, both_strands=options.both_strands)
    with (
        embedding_file(output, kind, width, _attributes(checkpoint, options)) as writer,
        progress(f"embed {Path(fasta).name}", None) as advance,
    ):
        for record in read_fasta(fasta, FastaOptions(rna=rna), warnings):
            if model.max_seqlen is not None and len(record.tokens) > model.max_seqlen:
                text = f"{len(record.tokens):,} bp; this model reads at most {model.max_seqlen:,}: cut it"
                raise GenoSSMError(text, path=fasta, line=record.line, record=record.name)
            writer.begin(record.name, len(record.tokens))
            records += 1
            for block in embed_blocks(model, record.tokens, options):
                rows += _add(writer, block, options.level)
            advance(len(record.tokens))
    return records, rows, warnings.lines()


def _add(writer: EmbeddingWriter, block: Block, level: Level) -> int:
    start, end, values = block
    if level == Level.TOKEN:
        starts = np.arange(start, end)
        writer.add(values, starts, starts + 1)
    else:
        writer.add(values, np.array([start]), np.array([end]))
    return len(values)


def _attributes(checkpoint: Path, options: EmbedOptions) -> dict[str, Any]:
    return {
        "model_sha256": sha256_of(checkpoint / MANIFEST),
        "level": options.level.value,
        "window": options.window if options.level == Level.WINDOW else 0,
        "layer": "output" if options.layer is None else str(options.layer),
        "strands": "both" if options.both_strands else "given",
    }


def command(
    fasta: Annotated[str, typer.Argument(help="FASTA: plain, gzip or BGZF; - is standard input.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of a language model.")],
    output: Annotated[Path, typer.Option(help="The file to write: .h5 or .parquet.")],
    level: Annotated[Level, typer.Option(help="An embedding a base, a window, or a record.")] = Level.RECORD,
    window: Annotated[int, typer.Option(min=1, help="bp of a window, with --level window.")] = 1000,
    layer: Annotated[int | None, typer.Option(min=0, help="Blocks behind the embedding; default: the output.")] = None,
    strands: Annotated[Strands, typer.Option(help="Strand-averaged, or of the given strand.")] = Strands.BOTH,
    kind: Annotated[EmbeddingFormat | None, typer.Option("--format", help="Default: by the output's name.")] = None,
    memory: Annotated[
        int, typer.Option(min=0, help="MiB of activations of a long record kept in memory; the rest goes to TMPDIR.")
    ] = MEMORY >> 20,
    rna: Annotated[bool, typer.Option("--rna/--no-rna", help="Read U as T.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "auto",
) -> None:
    """Embed the records of a FASTA file with a language model.

    Example: genossm embed --checkpoint results/pretrain/tiny my.fa --output my.h5 --level window --window 500
    """
    options = EmbedOptions(level, window, layer, strands == Strands.BOTH, memory << 20)
    with StopRequest("no file was written; the same command starts again"):
        records, rows, warnings = embed(checkpoint, fasta, output, options=options, kind=kind, rna=rna, device=device)
    for line in warnings:
        print(f"warning: {fasta}: {line}", file=sys.stderr)
    print(f"{records:,} records, {rows:,} embeddings: {output}", file=sys.stderr)
