"""genossm score: one row a record, by a language model or by a fine-tuned classifier.

The table is TSV with a header, one row a record in input order. Numbers are fixed-point: log_likelihood with 4
decimals, per_base, perplexity and probabilities with 6; a field without a value is ``NA``. ``status`` is

* ``ok``: the row has its numbers;
* ``no_bases``: it has letters, all of them N;
* ``too_long``: a classifier reads a record at once, and this one is longer than ``--window``, or than its model reads;
* ``not_finite``: the model gave a value that is no number.

Each record is computed by itself (:mod:`genossm.models.likelihood`), so its row has the same bytes in any file, in
any order, with any ``--batch-size``.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Literal

import torch
import typer

from genossm.config import ScoreSection
from genossm.data.fasta import FastaOptions, Header, Record, Warnings, read_fasta, stream_fasta
from genossm.files import atomic_path, check_output
from genossm.models import LanguageModel, SequenceClassifier
from genossm.models.likelihood import class_probabilities, in_pieces, is_base, log_likelihood
from genossm.progress import progress
from genossm.stages.loading import load_model, pick_device
from genossm.train.signals import StopRequest

NA = "NA"
LANGUAGE_COLUMNS = ("record", "length", "scored_bases", "log_likelihood", "per_base", "perplexity", "status")


@dataclass(frozen=True)
class Summary:
    """What was scored: records by status, masked-model records that were cut into pieces, warnings on the input."""

    statuses: Counter[str]
    cut: int
    warnings: list[str]


@dataclass(frozen=True)
class _Scorer:
    """A model and how to use it; a record becomes a value on the device, and the value a row."""

    model: LanguageModel | SequenceClassifier
    labels: list[str]
    passes: int
    window: int
    both_strands: bool

    @property
    def columns(self) -> tuple[str, ...]:
        if isinstance(self.model, LanguageModel):
            return LANGUAGE_COLUMNS
        return ("record", "length", "label", *(f"p_{label}" for label in self.labels), "status")

    def cuts(self, length: int) -> bool:
        """Whether a record of this length is scored in pieces that do not see one another."""
        return isinstance(self.model, LanguageModel) and in_pieces(self.model, length, self.window)

    def start(self, record: Record) -> tuple[str, torch.Tensor | None]:
        """The record's status so far, and its value on the device (None: it has none)."""
        if not is_base(record.tokens).any():
            return "no_bases", None
        if isinstance(self.model, LanguageModel):
            return "ok", log_likelihood(
                self.model, record.tokens, passes=self.passes, window=self.window, both_strands=self.both_strands
            )
        if len(record.tokens) > min(self.window, self.model.max_seqlen or self.window):
            return "too_long", None
        return "ok", class_probabilities(self.model, record.tokens, both_strands=self.both_strands)

    def row(self, record: Record, status: str, value: torch.Tensor | None) -> list[str]:
        """The fields of a record; reads its value from the device."""
        numbers = [] if value is None else [float(x) for x in value.cpu().reshape(-1)]
        if not all(map(math.isfinite, numbers)):
            status, numbers = "not_finite", []
        fields = [record.name, str(len(record.tokens))]
        if isinstance(self.model, LanguageModel):
            bases = int(is_base(record.tokens).sum())
            return [*fields, str(bases), *_likelihood_fields(numbers, bases), status]
        if not numbers:
            return [*fields, *[NA] * (1 + len(self.labels)), status]
        label = self.labels[numbers.index(max(numbers))]
        return [*fields, label, *(f"{p:.6f}" for p in numbers), status]


def _likelihood_fields(numbers: list[float], bases: int) -> list[str]:
    """log_likelihood, per_base and perplexity as text."""
    if not numbers:
        return [NA] * 3
    per_base = numbers[0] / bases
    try:
        perplexity = f"{math.exp(-per_base):.6f}"
    except OverflowError:
        perplexity = "inf"
    return [f"{numbers[0]:.4f}", f"{per_base:.6f}", perplexity]


def score(
    checkpoint: Path,
    fasta: str | os.PathLike[str],
    output: Path | None = None,
    *,
    settings: ScoreSection | None = None,
    window: int = 131_072,
    strands: Literal["auto", "both", "given"] = "auto",
    rna: bool = False,
    gaps: Literal["error", "N"] = "error",
) -> Summary:
    """Score the records of a FASTA; the table goes to ``output``, which appears whole or not at all, or to stdout.

    Args:
        checkpoint: folder of a language model or of a classifier.
        fasta: plain, gzip or BGZF; ``-`` is standard input. A file is checked to its end before anything is scored.
        settings: passes, batch_size (records on their way at a time) and device.
        window: bp at a time, see :mod:`genossm.models.likelihood`.
        strands: what to read; ``auto`` is both, but for a classifier that was trained on the given strand alone.
        rna, gaps: see :mod:`genossm.data.fasta`.

    Raises:
        GenoSSMError: a fault of the checkpoint or of the FASTA.
    """
    settings = settings or ScoreSection()
    if output is not None:
        check_output(output, fasta)
    device = pick_device(settings.device)
    model, config = load_model(checkpoint, device)
    trained = config.get("training", {}).get("strands", "both")
    both = (trained if strands == "auto" else strands) == "both"
    scorer = _Scorer(model.eval(), config.get("labels", []), settings.passes, window, both)
    options = FastaOptions(rna=rna, gaps=gaps)
    warnings = Warnings()
    bases = _survey(fasta, options, warnings)
    records = read_fasta(fasta, options, warnings if bases is None else Warnings())
    statuses: Counter[str] = Counter()
    cut = 0
    with _table(output) as table, progress(f"score {Path(fasta).name}", bases) as advance:
        table.write("\t".join(scorer.columns) + "\n")
        for record, fields in _rows(scorer, records, settings.batch_size):
            table.write("\t".join(fields) + "\n")
            statuses[fields[-1]] += 1
            cut += scorer.cuts(len(record.tokens))
            advance(len(record.tokens))
    return Summary(statuses, cut, warnings.lines())


def _survey(fasta: str | os.PathLike[str], options: FastaOptions, warnings: Warnings) -> int | None:
    """Read a file to its end, so that a fault shows before hours of work; its length in bp. None for a pipe."""
    path = Path(fasta)
    if os.fspath(fasta) == "-" or path.is_fifo() or path.is_char_device():
        return None
    return sum(
        0 if isinstance(event, Header) else len(event.tokens) for event in stream_fasta(fasta, options, warnings)
    )


def _rows(scorer: _Scorer, records: Iterable[Record], in_flight: int) -> Iterator[tuple[Record, list[str]]]:
    """Each record and its fields. The device works on ``in_flight`` records before the first value is read back."""
    source = iter(records)
    while group := list(islice(source, in_flight)):
        started = [(record, *scorer.start(record)) for record in group]
        for record, status, value in started:
            yield record, scorer.row(record, status, value)


@contextlib.contextmanager
def _table(output: Path | None) -> Iterator[IO[str]]:
    """Where the rows go: a file that appears whole, or stdout."""
    if output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with atomic_path(output) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as handle:
        yield handle


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
    output: Annotated[Path | None, typer.Option(help="The table to write (TSV); default: standard output.")] = None,
    passes: Annotated[
        int, typer.Option(min=1, help="Masked models: interleaved passes, each hides 1/passes of the bases.")
    ] = _DEFAULT.passes,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Records on their way at a time; no row depends on it.")
    ] = _DEFAULT.batch_size,
    window: Annotated[
        int,
        typer.Option(
            min=1,
            help="bp read at a time. Longer records: causal models carry their state, masked models score nearly "
            "equal pieces one by one, classifiers give the status too_long.",
        ),
    ] = 131_072,
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
    order; NA where the status is not ok.

    Example: genossm score --checkpoint results/pretrain/tiny my.fa.gz --output scores.tsv
    """
    settings = ScoreSection(passes=passes, batch_size=batch_size, device=device)
    with StopRequest("no table was written; the same command starts again"):
        summary = score(
            checkpoint,
            fasta,
            output,
            settings=settings,
            window=window,
            strands=strands.value,
            rna=rna,
            gaps=gaps.value,
        )
    for line in summary.warnings:
        print(f"warning: {fasta}: {line}", file=sys.stderr)
    if summary.cut:
        print(f"note: {summary.cut:,} records of over {window:,} bp were scored in pieces", file=sys.stderr)
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(summary.statuses.items()))
    print(f"{summary.statuses.total():,} records: {counts or 'none'}", file=sys.stderr)
