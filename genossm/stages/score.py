"""genossm score: one row a record, by a language model or by a fine-tuned classifier.

One row a record in input order. In a TSV numbers are fixed-point: log_likelihood with 4 decimals, per_base, perplexity
and probabilities with 6; a field without a value is ``NA``. JSON lines and Parquet keep every digit. ``status`` is

* ``ok``: the row has its numbers;
* ``no_bases``: it has letters, all of them N;
* ``too_long``: a classifier reads a record at once, and this one is longer than ``--window``, or than its model reads;
* ``not_finite``: the model gave a value that is no number.

Each record is computed by itself (:mod:`genossm.models.likelihood`), so its row has the same bytes in any file, in
any order, with any ``--batch-size``. A run that was killed goes on from the last record that was done, and within a
long record from where it was a minute before (:mod:`genossm.stages.score_journal`; without ``--workers``).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from genossm import __version__
from genossm.config import ScoreSection
from genossm.data.fasta import FastaOptions, Header, Record, Warnings, read_fasta, stream_fasta
from genossm.data.reference import Reference
from genossm.data.regions import Region, read_bed, region_records
from genossm.data.score_tables import Row, TableFormat, score_table, table_format
from genossm.data.tracks import Stretch, check_track, write_track
from genossm.errors import GenoSSMError
from genossm.files import check_output, sha256_of
from genossm.models import LanguageModel
from genossm.models.course import Course
from genossm.models.likelihood import ONE_PASS, Reading
from genossm.progress import progress
from genossm.stages.loading import load_model, pick_device
from genossm.stages.score_journal import Journal
from genossm.stages.scoring import DECIMALS, LANGUAGE_COLUMNS, Scored, Scorer, Track, rows_by_workers
from genossm.train.checkpoint import MANIFEST
from genossm.train.signals import StopRequest

__all__ = ["LANGUAGE_COLUMNS", "Outputs", "Summary", "command", "score"]


@dataclass(frozen=True)
class Summary:
    """What was scored: records by status, records that were cut into pieces, warnings on the input."""

    statuses: Counter[str]
    cut: int
    warnings: list[str]


@dataclass(frozen=True)
class Outputs:
    """What is written.

    Attributes:
        table: TSV, JSON lines or Parquet; None goes by the name of the output.
        track: a bigWig or bedGraph of every base's log-likelihood. plot: a picture of it, in bins.
        regions: BED; what it lists is scored, each stretch by itself, in place of whole records.
        workers: processes that score records side by side; 0 is this one alone.
    """

    table: TableFormat | None = None
    track: Path | None = None
    regions: Path | None = None
    workers: int = 0
    plot: Path | None = None

    @property
    def tracks(self) -> bool:
        """Whether every base's value is wanted."""
        return self.track is not None or self.plot is not None


@dataclass(frozen=True)
class _Input:
    """The records of a run, read from the beginning at each call, and what is known of them before they are scored."""

    records: Iterator[Record]
    bases: int | None
    sha256: str | None
    contigs: list[tuple[str, int]]
    regions: list[Region] | None


def score(
    checkpoint: Path,
    fasta: str | os.PathLike[str],
    output: Path | None = None,
    *,
    settings: ScoreSection | None = None,
    window: int | None = None,
    overlap: int = 0,
    memory: int = Reading.memory,
    strands: Literal["auto", "both", "given"] = "auto",
    rna: bool = False,
    gaps: Literal["error", "N"] = "error",
    outputs: Outputs | None = None,
) -> Summary:
    """Score the records of a FASTA; the table goes to ``output``, which appears whole or not at all, or to stdout.

    Args:
        checkpoint: folder of a language model or of a classifier.
        fasta: plain, gzip or BGZF; ``-`` is standard input. A file is checked to its end before anything is scored.
        settings: passes, batch_size (records on their way at a time) and device.
        window, overlap, memory: see :class:`genossm.models.likelihood.Reading`.
        strands: what to read; ``auto`` is both, but for a classifier that was trained on the given strand alone.
        rna, gaps: see :mod:`genossm.data.fasta`.
        outputs: see there.

    Raises:
        GenoSSMError: a fault of the checkpoint, of the FASTA or of the regions.
    """
    settings, outputs = settings or ScoreSection(), outputs or Outputs()
    table = _check(checkpoint, fasta, output, outputs, window, overlap)
    model, config = load_model(checkpoint, pick_device(settings.device))
    scorer = Scorer.of(model, config, Reading(settings.passes, True, window, overlap, memory), strands)
    if outputs.tracks and not isinstance(model, LanguageModel):
        raise GenoSSMError("is a classifier; a track is of a language model's log-likelihoods", path=checkpoint)
    if overlap and not isinstance(model, LanguageModel):
        raise GenoSSMError("is a classifier, which reads a record at once: leave --overlap away", path=checkpoint)
    warnings = Warnings()
    with contextlib.ExitStack() as stack:
        given = _open(fasta, FastaOptions(rna=rna, gaps=gaps), warnings, outputs, stack)
        whole = output if given.sha256 is not None else None
        key = {
            "model": sha256_of(checkpoint / MANIFEST), "fasta": given.sha256, "reading": repr(scorer.reading),
            "regions": None if given.regions is None else repr(given.regions), "track": outputs.tracks,
            "options": [rna, gaps], "version": __version__,
        }  # fmt: skip
        journal = Journal(whole, key)
        stack.callback(journal.close)
        records = islice(given.records, len(journal.done), None)
        statuses: Counter[str] = Counter()
        cut = 0
        with (
            score_table(output, table, scorer.columns, DECIMALS) as write,
            progress(f"score {Path(fasta).name}", given.bases) as advance,
        ):
            for row in journal.done:
                advance(int(str(row["length"])))
            if outputs.workers:
                scored = _by_workers(scorer, checkpoint, records, outputs, strands, advance)
            else:
                course = partial(_course, journal, scorer, advance)
                scored = scorer.rows(records, settings.batch_size, tracks=outputs.tracks, course=course)
            for row in _all_rows(journal, scored):
                write(row)
                statuses[str(row["status"])] += 1
                cut += scorer.cuts(int(str(row["length"])))
        _write_tracks(outputs, Path(fasta).name, given, journal, statuses.total())
        journal.remove()
    return Summary(statuses, cut, warnings.lines())


def _all_rows(journal: Journal, scored: Iterator[Scored]) -> Iterator[Row]:
    """The rows that an earlier run left, then the new ones, each kept before it is given out."""
    yield from journal.done
    for index, (_, row, track) in enumerate(scored, start=len(journal.done)):
        journal.add(index, row, track)
        yield row


def _check(
    checkpoint: Path,
    fasta: str | os.PathLike[str],
    output: Path | None,
    outputs: Outputs,
    window: int | None,
    overlap: int,
) -> TableFormat:
    """Refuse, before any work, what cannot be written."""
    inputs = [checkpoint, fasta, *([] if outputs.regions is None else [outputs.regions])]
    if output is not None:
        check_output(output, *inputs, others=(outputs.track, outputs.plot))
    if outputs.track is not None:
        check_track(outputs.track)
        check_output(outputs.track, *inputs, others=(outputs.plot,))
    if outputs.plot is not None:
        from genossm.report.tracks import check_picture

        check_picture(outputs.plot)
        check_output(outputs.plot, *inputs)
    if overlap and (window is None or overlap >= window):
        raise GenoSSMError(f"--overlap {overlap:,}: an overlap needs a larger --window")
    return table_format(output, outputs.table)


def _is_pipe(fasta: str | os.PathLike[str]) -> bool:
    path = Path(fasta)
    return os.fspath(fasta) == "-" or path.is_fifo() or path.is_char_device()


def _open(
    fasta: str | os.PathLike[str],
    options: FastaOptions,
    warnings: Warnings,
    outputs: Outputs,
    stack: contextlib.ExitStack,
) -> _Input:
    """What is to be scored; a file is read to its end first, so that a fault shows before hours of work."""
    if outputs.regions is not None:
        reference = stack.enter_context(Reference(fasta, options, warnings))
        regions = read_bed(outputs.regions, reference)
        contigs = _contigs_in_order(regions, reference, outputs)
        bases = sum(region.end - region.start for region in regions)
        return _Input(region_records(regions, reference), bases, reference.sha256, contigs, regions)
    if _is_pipe(fasta):
        if outputs.tracks:
            raise GenoSSMError("a track needs the lengths of all records first: give a file in place of a pipe")
        return _Input(read_fasta(fasta, options, warnings), None, None, [], None)
    reader = stream_fasta(fasta, options, warnings)
    lengths: dict[str, int] = {}
    name = ""
    for event in reader:
        if isinstance(event, Header):
            name = event.name
            lengths[name] = 0
        else:
            lengths[name] += len(event.tokens)
    records = read_fasta(fasta, options, Warnings())
    return _Input(records, sum(lengths.values()), reader.source.sha256, list(lengths.items()), None)


def _contigs_in_order(regions: list[Region], reference: Reference, outputs: Outputs) -> list[tuple[str, int]]:
    """The contigs of the regions as they come; for a track they must come in order, without overlap."""
    found: dict[str, int] = {}
    last: Region | None = None
    for region in regions:
        again = region.contig in found and (last is None or last.contig != region.contig)
        if outputs.tracks and (
            again or (last is not None and last.contig == region.contig and region.start < last.end)
        ):
            text = "a track needs regions in order that do not overlap (bedtools sort, bedtools merge)"
            raise GenoSSMError(text, code="E_BED", path=outputs.regions, line=region.line)
        found[region.contig] = reference.lengths[region.contig]
        last = region
    return list(found.items())


def _course(
    journal: Journal, scorer: Scorer, advance: Callable[[int], None], index: int, record: Record, track: Track | None
) -> Course:
    """The way through the record that is the ``index``-th of this run."""
    length, place = len(record.tokens), len(journal.done) + index
    if length <= ONE_PASS or not journal.marks:
        return Course(length, advance)
    begun = journal.bookmark(place, track, scorer.device)
    return Course(length, advance, begun=begun, mark=partial(journal.mark, place, track))


def _by_workers(
    scorer: Scorer,
    checkpoint: Path,
    records: Iterator[Record],
    outputs: Outputs,
    strands: Literal["auto", "both", "given"],
    advance: Callable[[int], None],
) -> Iterator[Scored]:
    found = rows_by_workers(outputs.workers, checkpoint, scorer.reading, strands, records, tracks=outputs.tracks)
    for record, row, track in found:
        advance(len(record.tokens))
        yield record, row, track


def _write_tracks(outputs: Outputs, name: str, given: _Input, journal: Journal, count: int) -> None:
    def stretches() -> Iterator[Stretch]:
        for index, values in enumerate(journal.tracks(count)):
            if values is None:
                continue
            if given.regions is None:
                yield given.contigs[index][0], 0, values
            else:
                region = given.regions[index]
                yield region.contig, region.start, values[::-1] if region.strand == "-" else values

    if outputs.track is not None:
        with progress(f"track {outputs.track.name}", None, "records"):
            write_track(outputs.track, given.contigs, stretches())
    if outputs.plot is not None:
        from genossm.report.tracks import save_track

        save_track(outputs.plot, name, given.contigs, stretches())


class Strands(StrEnum):
    """Which strands a score reads."""

    AUTO = "auto"
    BOTH = "both"
    GIVEN = "given"


class Gaps(StrEnum):
    """What to do with '-' and '.'."""

    ERROR = "error"
    N = "N"


_DEFAULT = ScoreSection()


def command(
    fasta: Annotated[str, typer.Argument(help="FASTA: plain, gzip or BGZF; - is standard input.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of a pretrained or fine-tuned model.")],
    output: Annotated[Path | None, typer.Option(help="The table to write; default: standard output, as TSV.")] = None,
    passes: Annotated[
        int, typer.Option(min=1, help="Masked models: interleaved passes, each hides 1/passes of the bases.")
    ] = _DEFAULT.passes,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Records on their way at a time; no row depends on it.")
    ] = _DEFAULT.batch_size,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="bp read at a time: longer records are scored in pieces by masked models, and too_long for "
            "classifiers (131,072 by default). Default: long records are read as a whole, layer by layer.",
        ),
    ] = None,
    overlap: Annotated[int, typer.Option(min=0, help="bp that neighbouring pieces share; with --window.")] = 0,
    memory: Annotated[
        int, typer.Option(min=0, help="MiB of activations of a long record kept in memory; the rest goes to TMPDIR.")
    ] = Reading.memory >> 20,
    regions: Annotated[Path | None, typer.Option(help="BED: score these stretches, each by itself.")] = None,
    track: Annotated[Path | None, typer.Option(help="Every base's log-likelihood: .bw (bigWig) or .bedgraph.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="A picture of the track along every contig: .svg, .png or .pdf.")
    ] = None,
    table: Annotated[
        TableFormat | None, typer.Option("--format", help="tsv, jsonl or parquet; default: by the output's name.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes that score records side by side on the CPU, sharing its threads: worth it for many short "
            "records. 0: one process with all threads, which a long record keeps busy.",
        ),
    ] = 0,
    strands: Annotated[
        Strands, typer.Option(help="Mean of both strands, or the given one; auto: as the model was trained.")
    ] = Strands.AUTO,
    rna: Annotated[bool, typer.Option("--rna/--no-rna", help="Read U as T.")] = False,
    gaps: Annotated[Gaps, typer.Option(help="'-' and '.' in a sequence: an error, or N.")] = Gaps.ERROR,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = _DEFAULT.device,
) -> None:
    """Score the records of a FASTA file: likelihoods, or class probabilities from a fine-tuned model.

    Language model: record, length, scored_bases, log_likelihood (nats; masked models: pseudo-log-likelihood),
    per_base, perplexity, status. Classifier: record, length, label, p_CLASS ..., status. One row a record, in input
    order; NA where the status is not ok: no_bases (N alone), too_long (a classifier, --window), not_finite.

    The same command goes on after a kill. --regions: names and strands of columns 4 and 6 count; for a track they must
    be in order.

    Example: genossm score --checkpoint results/pretrain/tiny my.fa.gz --output scores.tsv
    """
    settings = ScoreSection(passes=passes, batch_size=batch_size, device=device)
    kept = "no table was written; the same command goes on with the records that are left"
    if output is None or _is_pipe(fasta):
        kept = "what was written so far is not all; the same command starts again"
    with StopRequest(kept):
        summary = score(
            checkpoint,
            fasta,
            output,
            settings=settings,
            window=window,
            overlap=overlap,
            memory=memory << 20,
            strands=strands.value,
            rna=rna,
            gaps=gaps.value,
            outputs=Outputs(table, track, regions, workers, plot),
        )
    for line in summary.warnings:
        print(f"warning: {fasta}: {line}", file=sys.stderr)
    if summary.cut:
        text = "records are longer than what the model reads at a time: scored in pieces that do not see one another"
        print(f"note: {summary.cut:,} {text}", file=sys.stderr)
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(summary.statuses.items()))
    print(f"{summary.statuses.total():,} records: {counts or 'none'}", file=sys.stderr)
