"""genossm variants: one row an allele of a VCF or BCF, in input order: what a language model says of the change.

Scores (:mod:`genossm.models.edits` defines them): ``llr_site`` and ``llr_window``, natural-log likelihood ratios of the
alternative against the reference allele, at the changed bases and over the window, and ``embedding_distance``. Positive
ratios: the model finds the alternative likelier. ``score`` is the one of the three that was asked for. Indels: the
ratios are freed from what the model charges for any base (``--no-length-control`` leaves it in).

The window of an allele is a function of its place alone: windows begin at every half window, and a change is read in
the one in whose middle half it begins, so at least a quarter of a window stands on either side of it (less at the ends
of a contig). Neighbours share a window, and it is read once; of every allele only what it changes is read again, until
what is left out is below ``--tolerance``.

Every record is accounted for, an allele a row; ``status`` is ``ok`` or why there is no score: what
:mod:`genossm.data.alleles` lists, ``too_long`` (an allele over a quarter of the window), ``no_context`` (no base but N
beside it), ``not_finite``. A fault of a record ends the command before anything is scored; with ``--invalid report`` it
is a status as well.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from genossm.data.alleles import READY, Allele, Change, judge
from genossm.data.compression import rereadable, shown_path
from genossm.data.fasta import FastaOptions, Warnings
from genossm.data.reference import Reference
from genossm.data.variant_tables import AlleleScore, Format, TableWriter, output_format
from genossm.data.vcf import VariantRecord, VcfReader, is_bcf
from genossm.errors import GenoSSMError
from genossm.files import check_output
from genossm.models import LanguageModel
from genossm.models.edits import Edit, EditedWindow, Effect
from genossm.models.likelihood import is_base
from genossm.progress import progress
from genossm.stages.loading import load_model, pick_device
from genossm.train.signals import StopRequest

WINDOW = 8_192
MIN_WINDOW = 64
TOLERANCE = 2e-5
RECORDS = 20_000
"""Records whose windows are read together."""
SPELLED_OUT = 3
"""How many contigs with another name a warning spells out."""


class Score(StrEnum):
    """Which score stands in the column ``score``."""

    SITE = "site"
    WINDOW = "window"
    DISTANCE = "distance"


class Scores(StrEnum):
    """Which scores are computed."""

    ALL = "all"
    SITE = "site"


class Invalid(StrEnum):
    """What a fault of a record does."""

    STOP = "stop"
    REPORT = "report"


class Strands(StrEnum):
    """Which strands a score reads."""

    BOTH = "both"
    GIVEN = "given"


@dataclass(frozen=True)
class VariantOptions:
    """How variants are scored.

    Attributes:
        window: bp of context, see the module. both_strands: the mean of the two strands' scores.
        length_control: see :func:`genossm.models.edits`, ``typical``.
        score: which one is ``score``. tolerance: of :class:`genossm.models.edits.EditedWindow`.
        scores: all three, or that of the site alone; the others are NA then.
    """

    window: int = WINDOW
    both_strands: bool = True
    length_control: bool = True
    score: Score = Score.SITE
    tolerance: float = TOLERANCE
    scores: Scores = Scores.ALL


@dataclass
class Survey:
    """What a first reading of all records found."""

    records: int = 0
    alleles: int = 0
    faults: int = 0
    refs: int = 0
    mismatches: int = 0
    aliases: dict[str, str] = field(default_factory=dict)
    unsorted: bool = False
    odd_qual: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Summary:
    """What was scored: alleles by status, and remarks."""

    records: int
    statuses: Counter[str]
    warnings: list[str]


def window_of(start: int, length: int, window: int) -> tuple[int, int]:
    """The window, [start, end) of a contig of ``length`` bp, in which a change that begins at ``start`` is read."""
    step = max(1, window // 2)
    begin = start // step * step - window // 4
    return max(0, begin), min(length, begin + window)


def survey(reader: VcfReader, reference: Reference, *, strict: bool) -> Survey:
    """Read all records, so that a fault shows before hours of work.

    Raises:
        GenoSSMError: a fault of the file; E_WRONG_ASSEMBLY where every REF of several disagrees with the reference;
            with ``strict`` the first fault of a record.
    """
    found, first = Survey(), None
    for record in reader:
        fault, _ = judge(record, reference)
        found.records += 1
        found.alleles += len(record.alts)
        contig = reference.names.resolve(record.chrom)
        if contig is not None and contig != record.chrom:
            found.aliases[record.chrom] = contig
        found.refs += fault is None or fault.code == "E_REF_MISMATCH"
        if fault is not None:
            found.faults += 1
            found.mismatches += fault.code == "E_REF_MISMATCH"
            first = first or GenoSSMError(
                fault.text, code=fault.code, path=reader.path, line=record.line, record=f"{record.chrom}:{record.place}"
            )
    found.unsorted, found.odd_qual = reader.unsorted, reader.odd_qual
    if strict and first is not None:
        if found.mismatches == found.refs > 1:
            text = f"{found.refs:,} of {found.refs:,} REF alleles disagree with the FASTA: give the assembly of the VCF"
            raise GenoSSMError(text, code="E_WRONG_ASSEMBLY", path=reader.path)
        more = f" (one of {found.faults:,} such records; --invalid report scores the others)"
        raise GenoSSMError(first.text + more, code=first.code, path=first.path, line=first.line, record=first.record)
    return found


def score_records(
    model: LanguageModel,
    reference: Reference,
    records: Iterable[VariantRecord],
    options: VariantOptions | None = None,
    advance: Callable[[int], None] = lambda alleles: None,
) -> Iterator[tuple[VariantRecord, list[AlleleScore]]]:
    """Each record with the scores of its alleles, in order. Memory: 20,000 records and a window.

    Args:
        model: in eval mode.
        reference: what the records are about.
        advance: told how many alleles more are done, window by window.
    """
    options = options or VariantOptions()
    source = iter(records)
    while block := list(islice(source, RECORDS)):
        judged = [judge(record, reference)[1] for record in block]
        scores = _score_block(model, reference, judged, options, advance)
        at = 0
        for record, alleles in zip(block, judged, strict=True):
            yield record, scores[at : at + len(alleles)]
            at += len(alleles)


def _score_block(
    model: LanguageModel,
    reference: Reference,
    judged: list[list[Allele]],
    options: VariantOptions,
    advance: Callable[[int], None],
) -> list[AlleleScore]:
    """The scores of all alleles, window by window."""
    alleles = [allele for record in judged for allele in record]
    scores = [AlleleScore(allele.alt, allele.status) for allele in alleles]
    windows: dict[tuple[str, int, int], list[int]] = {}
    for i, allele in enumerate(alleles):
        if allele.change is None:
            continue
        change, status = allele.change, READY
        place = window_of(change.start, reference.lengths[change.contig], options.window)
        if max(change.end - change.start, len(change.tokens)) > options.window // 4:
            status = "too_long"
        if status == READY:
            windows.setdefault((change.contig, *place), []).append(i)
        else:
            scores[i] = AlleleScore(allele.alt, status)
    advance(len(alleles) - sum(map(len, windows.values())))
    for (contig, start, end), members in sorted(windows.items()):
        tokens = reference.read(contig, start, end)
        changes = [alleles[i].change for i in members]
        found = _score_window(model, tokens, start, [c for c in changes if c is not None], options)
        for i, (status, values) in zip(members, found, strict=True):
            scores[i] = AlleleScore(alleles[i].alt, status, *values)
        advance(len(members))
    return scores


def _score_window(
    model: LanguageModel, tokens: np.ndarray, start: int, changes: list[Change], options: VariantOptions
) -> list[tuple[str, tuple[float | None, ...]]]:
    """Status and (score, site, window, distance) of changes whose window begins at ``start``."""
    edits = [Edit(c.start - start, c.end - start, c.tokens) for c in changes]
    known = is_base(tokens)
    bases = int(known.sum())
    alone = [bases == int(known[edit.start : edit.end].sum()) for edit in edits]
    asked = [edit for edit, no_context in zip(edits, alone, strict=True) if not no_context]
    none: tuple[float | None, ...] = (None,) * 4
    if not asked:
        return [("no_context", none)] * len(edits)
    site_only = options.scores == Scores.SITE
    window = EditedWindow(
        model, tokens, asked, both_strands=options.both_strands, tolerance=options.tolerance, site_only=site_only
    )
    effects = iter(window.effects(asked))
    grown = any(len(edit.tokens) != edit.end - edit.start for edit in asked)
    typical = window.typical() if options.length_control and grown else 0.0
    results = []
    for edit, no_context in zip(edits, alone, strict=True):
        values = none if no_context else _values(next(effects), edit, typical, options)
        finite = all(v is None or math.isfinite(v) for v in values)
        results.append(("no_context", none) if no_context else (READY, values) if finite else ("not_finite", none))
    return results


def _values(effect: Effect, edit: Edit, typical: float, options: VariantOptions) -> tuple[float | None, ...]:
    charge = (len(edit.tokens) - (edit.end - edit.start)) * typical
    site, window = effect.site - charge, effect.window - charge
    if options.scores == Scores.SITE:
        return site, site, None, None
    chosen = {Score.SITE: site, Score.WINDOW: window, Score.DISTANCE: effect.distance}[options.score]
    return chosen, site, window, effect.distance


def variants(
    checkpoint: Path,
    reference_fasta: str | os.PathLike[str],
    vcf: str | os.PathLike[str],
    output: Path | None = None,
    *,
    options: VariantOptions | None = None,
    table: Format | None = None,
    invalid: Invalid = Invalid.STOP,
    device: str = "auto",
) -> Summary:
    """Score the alleles of a VCF or BCF; the table goes to ``output``, which appears whole or not at all, or to stdout.

    Args:
        checkpoint: folder of a language model.
        reference_fasta, vcf: plain, gzip or BGZF; ``vcf`` may be ``-``, standard input.
        table: TSV or VCF; None goes by the name of ``output``.
        invalid: what a fault of a record does.

    Raises:
        GenoSSMError: a fault of the checkpoint, of the reference or of the VCF.
    """
    options = options or VariantOptions()
    if options.scores == Scores.SITE and options.score != Score.SITE:
        raise GenoSSMError(f"--score {options.score.value} is not computed with --scores site")
    if output is not None:
        check_output(output, checkpoint, vcf, reference_fasta)
    table = output_format(output, table)
    model, _ = load_model(checkpoint, pick_device(device))
    if not isinstance(model, LanguageModel):
        raise GenoSSMError("is a classifier; variants are scored by a language model", path=checkpoint)
    if model.max_seqlen is not None and options.window > model.max_seqlen:
        half = model.max_seqlen // 2
        hint = f"use --window {half}" if half >= MIN_WINDOW else f"variants take {MIN_WINDOW} at least"
        text = f"reads {model.max_seqlen:,} tokens at most; {hint}"
        raise GenoSSMError(text, path=checkpoint)
    warnings = Warnings()
    name = shown_path(vcf)
    with ExitStack() as stack:
        path = stack.enter_context(rereadable(vcf))
        if table == Format.VCF and is_bcf(path, name):
            raise GenoSSMError("a BCF gives a TSV; for VCF out, convert it first (bcftools view)", path=name)
        reference = stack.enter_context(Reference(reference_fasta, FastaOptions(), warnings))
        found = survey(VcfReader(path, name), reference, strict=invalid == Invalid.STOP)
        reader = VcfReader(path, name)
        statuses: Counter[str] = Counter()
        with TableWriter(output, table) as writer, progress("variants", found.alleles, "alleles") as advance:
            for record, scores in score_records(model.eval(), reference, reader, options, advance):
                writer.write(reader, record, scores)
                statuses.update(score.status for score in scores)
            writer.finish(reader)
    return Summary(found.records, statuses, _remarks(found, warnings))


def _remarks(found: Survey, warnings: Warnings) -> list[str]:
    lines = [f"the reference: {line}" for line in warnings.lines()]
    if found.unsorted:
        lines.append("W_UNSORTED the records are not in order; rows are in theirs")
    if found.odd_qual[0]:
        count, line = found.odd_qual
        lines.append(f"W_QUAL {count:,} records have a QUAL that is no number (line {line:,}); it is not used")
    if found.aliases:
        shown = [f"{name} is {contig}" for name, contig in islice(found.aliases.items(), SPELLED_OUT)]
        more = f" and {len(found.aliases) - SPELLED_OUT} more" if len(found.aliases) > SPELLED_OUT else ""
        lines.append(f"W_ALIAS contigs have other names in the FASTA: {', '.join(shown)}{more}")
    return lines


def command(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a language model.")],
    reference: Annotated[str, typer.Option(help="FASTA that the VCF is about: plain, gzip or BGZF.")],
    vcf: Annotated[str, typer.Option(help="VCF (plain, gzip, BGZF) or BCF, in any order; - is standard input.")],
    output: Annotated[
        Path | None, typer.Option(help="The table to write: .tsv, .vcf or .vcf.gz; default: standard output.")
    ] = None,
    table: Annotated[
        Format | None, typer.Option("--format", help="tsv: a row an allele; vcf: the records with INFO fields.")
    ] = None,
    window: Annotated[
        int, typer.Option(min=MIN_WINDOW, help="bp of context; at least a quarter of it on either side.")
    ] = WINDOW,
    strands: Annotated[Strands, typer.Option(help="Mean of both strands, or the given one.")] = Strands.BOTH,
    length_control: Annotated[
        bool, typer.Option(help="Indels: take out of the ratios what the model charges for any base.")
    ] = True,
    score: Annotated[Score, typer.Option(help="Which score stands in the column score.")] = Score.SITE,
    scores: Annotated[
        Scores, typer.Option(help="site: llr_site alone, which takes a fraction of the time; the others are NA.")
    ] = Scores.ALL,
    invalid: Annotated[
        Invalid, typer.Option(help="Records with a fault (REF, POS, ALT, contig): an error, or a row with a status.")
    ] = Invalid.STOP,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Nats that a score may be off; the estimate is cautious. 0: every window as a whole."
        ),
    ] = TOLERANCE,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "auto",
) -> None:
    """Score variants with a language model: log-likelihood ratios and embedding distance, one row an allele.

    Columns: chrom, pos, id, ref, alt, score, llr_site, llr_window, embedding_distance, status; NA where the status is
    not ok. Symbolic, spanning and breakend alleles are reported, not scored. llr: ln P(ALT) - ln P(REF) of the changed
    bases, or of the window; embedding_distance: Euclidean, of the two windows' hidden states over all bases that both
    have. Each is the mean of the strands that were read.

    Example: genossm variants --checkpoint results/pretrain/tiny --reference ref.fa --vcf my.vcf.gz --output scores.tsv
    """
    options = VariantOptions(window, strands == Strands.BOTH, length_control, score, tolerance, scores)
    with StopRequest("no table was written; the same command starts again"):
        summary = variants(
            checkpoint, reference, vcf, output, options=options, table=table, invalid=invalid, device=device
        )
    for line in summary.warnings:
        print(f"warning: {line}", file=sys.stderr)
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(summary.statuses.items()))
    print(f"{summary.records:,} records, {summary.statuses.total():,} alleles: {counts or 'none'}", file=sys.stderr)
