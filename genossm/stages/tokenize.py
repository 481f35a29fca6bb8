"""genossm tokenize: a FASTA becomes tokens.h5 with windows and splits."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from genossm.config import SplitSection
from genossm.data.fasta import FastaOptions, FastaReader, Header, Warnings, stream_fasta
from genossm.data.tokens_h5 import Contig, TokensWriter
from genossm.data.windows import SPLITS, Segment, count_n, split_by_block, split_by_contig, window_starts
from genossm.errors import GenoSSMError
from genossm.files import atomic_path, check_output
from genossm.progress import progress


@dataclass(frozen=True)
class Summary:
    """What a tokens file holds: its contigs, windows by split, windows left out for their N, and the warnings."""

    contigs: tuple[Contig, ...]
    windows: dict[str, int]
    left_out: int
    warnings: list[str]
    sha256: str


def tokenize(
    fasta: str | os.PathLike[str],
    output: Path,
    *,
    window: int = 131_072,
    stride: int | None = None,
    max_n: float = 0.5,
    rna: bool = False,
    gaps: Literal["error", "N"] = "error",
    split: SplitSection | None = None,
    seed: int = 1,
) -> Summary:
    """Write ``output`` (tokens.h5) from a FASTA; the file appears whole, or not at all.

    Args:
        fasta: plain, gzip or BGZF; ``-`` is standard input.
        window, stride: in bp; the stride is the window by default.
        max_n: windows with a larger share of N are left out.
        rna, gaps: see :mod:`genossm.data.fasta`.
        split: how to divide the genome (default: by block). seed: of the deal of blocks.

    Raises:
        GenoSSMError: a fault of the FASTA or of the split.
    """
    split = split or SplitSection()
    stride = stride or window
    check_output(output, fasta)
    warnings = Warnings()
    reader = stream_fasta(fasta, FastaOptions(rna=rna, gaps=gaps), warnings)
    with atomic_path(output) as temporary, TokensWriter(temporary) as writer:
        _copy(reader, writer, fasta)
        for contig in writer.contigs:
            if contig.length < window:
                warnings.add("W_SHORT_RECORD", 1, contig.name)
        segments = _segments(writer.contigs, split, seed, fasta)
        windows, left_out = _add_windows(writer, segments, window, stride, max_n)
        options: dict[str, Any] = {"max_n": max_n, "rna": rna, "gaps": gaps, "seed": seed, "split": split.model_dump()}
        sha256 = writer.finish(
            window=window,
            stride=stride,
            source=Path(reader.source.path).name,
            source_sha256=reader.source.sha256,
            options=options,
        )
        contigs = writer.contigs
    remarks = warnings.lines()
    remarks += [f"W_EMPTY_SPLIT the {name} split has no window" for name in SPLITS if not windows[name]]
    return Summary(contigs, windows, left_out, remarks, sha256)


def _copy(reader: FastaReader, writer: TokensWriter, fasta: str | os.PathLike[str]) -> None:
    """All bases of the FASTA into the tokens file."""
    name = Path(reader.source.path).name
    total = None if os.fspath(fasta) == "-" else Path(fasta).stat().st_size
    with progress(f"tokenize {name}", total, "bytes") as advance:
        seen = 0
        for event in reader:
            if isinstance(event, Header):
                writer.add_contig(event.name)
                continue
            writer.append(event.tokens, event.soft_mask)
            if reader.source.size != seen:
                advance(reader.source.size - seen)
                seen = reader.source.size
    writer.end_contigs()


def _segments(
    contigs: tuple[Contig, ...], split: SplitSection, seed: int, fasta: str | os.PathLike[str]
) -> list[Segment]:
    names, lengths = [contig.name for contig in contigs], [contig.length for contig in contigs]
    try:
        if split.by == "contig":
            return split_by_contig(names, lengths, valid=split.valid, test=split.test, exclude=split.exclude)
        if split.valid or split.test:
            raise ValueError("contigs for valid and test are for --split-by contig")
        return split_by_block(
            names,
            lengths,
            block=split.block,
            margin=split.margin,
            valid_fraction=split.valid_fraction,
            test_fraction=split.test_fraction,
            exclude=split.exclude,
            seed=seed,
        )
    except ValueError as error:
        raise GenoSSMError(f"split: {error}", path=fasta) from None


def _add_windows(
    writer: TokensWriter, segments: list[Segment], window: int, stride: int, max_n: float
) -> tuple[dict[str, int], int]:
    """Tile the segments and keep the windows with few enough N; counts of the kept by split, and of the others."""
    kept = dict.fromkeys(SPLITS, 0)
    left_out = 0
    for segment in segments:
        starts = window_starts(segment, window, stride)
        contig = segment.contig
        n = count_n(lambda start, end, contig=contig: writer.read_tokens(contig, start, end), starts, window)  # type: ignore[misc]
        good = starts[n <= max_n * window]
        if good.size:
            writer.add_windows(segment.split, contig, good)
        kept[segment.split] += good.size
        left_out += starts.size - good.size
    return kept, left_out


class SplitBy(StrEnum):
    """How a genome is divided."""

    CONTIG = "contig"
    BLOCK = "block"


class Gaps(StrEnum):
    """What to do with '-' and '.'."""

    ERROR = "error"
    N = "N"


_SPLIT = SplitSection()


def command(
    fasta: Annotated[str, typer.Argument(help="FASTA: plain, gzip or BGZF; - is standard input.")],
    output: Annotated[Path, typer.Option(help="The tokens file to write, as tokens/yeast.h5.")],
    window: Annotated[int, typer.Option(min=1, help="Window length in bp.")] = 131_072,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Distance of window starts in bp; default: the window.")
    ] = None,
    max_n: Annotated[float, typer.Option(min=0, max=1, help="Leave out windows with a larger share of N.")] = 0.5,
    rna: Annotated[bool, typer.Option("--rna/--no-rna", help="Read U as T.")] = False,
    gaps: Annotated[Gaps, typer.Option(help="'-' and '.' in a sequence: an error, or N.")] = Gaps.ERROR,
    split_by: Annotated[
        SplitBy | None,
        typer.Option(help="Whole contigs, or blocks of every contig; default: contig if --valid or --test is given."),
    ] = None,
    valid: Annotated[
        list[str] | None, typer.Option(help="A contig for validation (split by contig); repeat for more.")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option(help="A contig for testing (split by contig); repeat for more.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A contig to leave out, as an organelle; repeat for more.")
    ] = None,
    block: Annotated[int, typer.Option(min=1, help="Block length in bp (split by block).")] = _SPLIT.block,
    margin: Annotated[
        int, typer.Option(min=0, help="bp dropped on both sides of a border between splits (split by block).")
    ] = _SPLIT.margin,
    valid_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the blocks for validation.")
    ] = _SPLIT.valid_fraction,
    test_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the blocks for testing.")
    ] = _SPLIT.test_fraction,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the deal of blocks.")] = 1,
) -> None:
    """Turn a FASTA into tokens.h5: windows, splits, soft-mask.

    Example: genossm tokenize yeast.fa.gz --output tokens/yeast.h5 --valid XIV --test XVI --exclude Mito
    """
    by = split_by or (SplitBy.CONTIG if valid or test else SplitBy.BLOCK)
    split = SplitSection(
        by=by.value,
        valid=valid or [],
        test=test or [],
        exclude=exclude or [],
        block=block,
        margin=margin,
        valid_fraction=valid_fraction,
        test_fraction=test_fraction,
    )
    summary = tokenize(
        fasta,
        output,
        window=window,
        stride=stride,
        max_n=max_n,
        rna=rna,
        gaps=gaps.value,
        split=split,
        seed=seed,
    )
    for line in summary.warnings:
        print(f"warning: {fasta}: {line}", file=sys.stderr)
    print(describe(summary, output))


def describe(summary: Summary, output: Path) -> str:
    """The summary in two lines."""
    bases = sum(contig.length for contig in summary.contigs)
    n, lower = (sum(getattr(contig, key) for contig in summary.contigs) for key in ("n", "lower"))
    counts = ", ".join(f"{name} {summary.windows[name]:,}" for name in SPLITS)
    return (
        f"{output}: {len(summary.contigs):,} contigs, {bases:,} bp, {n / bases:.2%} N, {lower / bases:.2%} lower case\n"
        f"windows: {counts}; {summary.left_out:,} left out for their N"
    )
