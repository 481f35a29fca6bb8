"""genossm bench scoring: what the scoring commands promise, shown on this machine beside the plain ways."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from genossm.bench.scoring import drawn_lengths
from genossm.data.fasta import Record, read_fasta
from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.models import LanguageModel
from genossm.report.figures import plain
from genossm.report.plots import Line, Plot
from genossm.stages.bench_models import to_csv, to_markdown
from genossm.stages.bench_scoring_parts import (
    Figure,
    generation_part,
    length_part,
    records_part,
    synthetic,
    variants_part,
)
from genossm.stages.loading import load_model, pick_device

COLUMNS = ("part", "figure", "value", "unit")


class Part(StrEnum):
    """What can be measured."""

    RECORDS = "records"
    LENGTH = "length"
    GENERATION = "generation"
    VARIANTS = "variants"


def _records(fasta: str | None, count: int, longest: int, seed: int) -> list[Record]:
    if fasta is not None:
        return list(read_fasta(fasta))
    return synthetic(drawn_lengths(count, min(50, longest), longest, seed), seed)


def pictures(figures: Sequence[Figure]) -> dict[str, Plot]:
    """Speed of the ways, and peak memory by length, of the parts that were measured."""
    found = {}
    speeds = {f.what.removesuffix(": bases"): f.value for f in figures if f.part == "records" and f.unit == "bp/s"}
    if speeds:
        found["speed"] = Plot("Records of mixed lengths", "", "bp/s", bars=speeds)
    lines = []
    for part in (Part.LENGTH, Part.GENERATION):
        mine = [f for f in figures if f.part == part and f.unit == "MB"]
        if mine:
            x = [float(f.what.partition(" bp")[0].replace(",", "")) for f in mine]
            lines.append(Line("score" if part == Part.LENGTH else "generate", x, [f.value for f in mine]))
    if lines:
        found["memory"] = Plot("Peak memory of one record", "bp", "MB", lines, logx=True)
    return found


def write(figures: Sequence[Figure], output: Path) -> None:
    """scoring.csv, and the pictures that the figures give, in the folder ``output``."""
    rows = [[f.part, f.what, f"{f.value:.8g}", f.unit] for f in figures]
    atomic_write(output / "scoring.csv", to_csv(COLUMNS, rows))
    for name, plot in pictures(figures).items():
        atomic_write(output / f"{name}.svg", plain(plot))


def scoring(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a language model.")],
    output: Annotated[Path, typer.Option(help="Folder for scoring.csv and the pictures.")] = Path("scoring"),
    part: Annotated[
        list[Part] | None, typer.Option(help="What to measure; repeat. All that the options allow.")
    ] = None,
    fasta: Annotated[str | None, typer.Option(help="Records: take these in place of random ones.")] = None,
    count: Annotated[
        int, typer.Option(min=2, help="Records: how many, of 50 bp to --longest, few of them long.")
    ] = 5000,
    longest: Annotated[int, typer.Option(min=1, help="Records: bp of the longest.")] = 200_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Records: how many go together.")] = 64,
    passes: Annotated[int, typer.Option(min=1, help="Of a masked model, as in genossm score.")] = 2,
    length: Annotated[
        list[int] | None, typer.Option(min=1, help="Length: bp of a record; repeat [default: 1000000, 10000000].")
    ] = None,
    memory: Annotated[int, typer.Option(min=0, help="Length: MiB of activations in memory, as in genossm score.")] = 64,
    whole: Annotated[int, typer.Option(min=1, help="Length: bp that are also read in one pass.")] = 200_000,
    generate: Annotated[
        list[int] | None, typer.Option(min=1, help="Generation: bp; repeat [default: 10000, 1000000].")
    ] = None,
    vcf: Annotated[str | None, typer.Option(help="Variants: VCF or BCF.")] = None,
    reference: Annotated[str | None, typer.Option(help="Variants: its FASTA.")] = None,
    window: Annotated[int, typer.Option(min=64, help="Variants: bp of context.")] = 8192,
    alleles: Annotated[int, typer.Option(min=1, help="Variants: neighbouring records from the middle.")] = 400,
    plain_alleles: Annotated[int, typer.Option(min=1, help="Variants: alleles that are read plainly.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of the random sequences.")] = 0,
) -> None:
    """What the scoring commands promise, beside the plain ways of the same numbers: speed, memory, equality.

    On the CPU, given strand (variants: both). records: rows of genossm score beside padded batches and records one by
    one, in turns; and with batch size 1 in another order. length: one long record; generation: of a causal model.
    variants: beside two full windows an allele.

    Example: genossm bench scoring --checkpoint results/pretrain/tiny --part records --count 500 --longest 20000
    """
    if output.exists() and not output.is_dir():
        raise GenoSSMError("is a file; --output names a folder", path=output)
    if part and Part.VARIANTS in part and (vcf is None or reference is None):
        raise GenoSSMError("--part variants needs --vcf and --reference")
    model, _ = load_model(checkpoint, pick_device("cpu"))
    if not isinstance(model, LanguageModel):
        raise GenoSSMError("is a classifier; give a language model", path=checkpoint)
    if part and Part.GENERATION in part and not model.stateful:
        raise GenoSSMError("cannot generate: --part generation needs a causal model", path=checkpoint)
    figures: list[Figure] = []

    def wanted(which: Part, possible: bool = True) -> bool:
        return which in part if part else possible

    if wanted(Part.LENGTH):
        figures += length_part(
            checkpoint, model, length or (1_000_000, 10_000_000), passes=passes, memory=memory, whole=whole, seed=seed
        )
    if wanted(Part.GENERATION, model.stateful):
        figures += generation_part(checkpoint, generate or (10_000, 1_000_000), seed)
    if wanted(Part.RECORDS):
        records = _records(fasta, count, longest, seed)
        figures += records_part(model, records, passes=passes, batch_size=batch_size, seed=seed)
    if vcf is not None and reference is not None and wanted(Part.VARIANTS):
        figures += variants_part(model, reference, vcf, window=window, alleles=alleles, plain=plain_alleles)
    print(to_markdown(COLUMNS, [figure.cells for figure in figures]))
    print(f"\n{model.num_parameters():,} parameters, {torch.get_num_threads()} threads, {passes} passes if masked.")
    write(figures, output)
