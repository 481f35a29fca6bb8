"""The parts of ``genossm bench scoring``: each measures one promise, and gives figures."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from genossm import vocab
from genossm.bench.scoring import Process, Seconds, Tokens, command_of, padded, plain_effect, random_bases
from genossm.data.alleles import Change, judge
from genossm.data.batching import bounded_parts
from genossm.data.fasta import Record
from genossm.data.reference import Reference
from genossm.data.variant_tables import AlleleScore
from genossm.data.vcf import VariantRecord, VcfReader
from genossm.errors import GenoSSMError
from genossm.models import LanguageModel
from genossm.models.edits import Edit, Effect
from genossm.models.likelihood import Reading, log_likelihood
from genossm.progress import progress
from genossm.stages.scoring import Scorer
from genossm.stages.variants import Scores, VariantOptions, score_records, window_of

SEGMENTS = 10
"""Into how many stretches of the input the ways take their turns."""
PADDED_TOKENS = 1 << 17
"""Tokens of a padded batch, at most; a longer record is one by itself."""
START = 1_000
"""bp of the run whose time is taken for that of starting."""


@dataclass(frozen=True)
class Figure:
    """A row of the table."""

    part: str
    what: str
    value: float
    unit: str

    @property
    def cells(self) -> list[str]:
        """As text."""
        whole = abs(self.value) >= 1000
        return [self.part, self.what, f"{self.value:,.0f}" if whole else f"{self.value:.4g}", self.unit]


# ---- records of mixed lengths


def records_part(
    model: LanguageModel, records: Sequence[Record], *, passes: int, batch_size: int, seed: int
) -> list[Figure]:
    """Records a second of ``genossm score``'s own rows, of padded batches of like length, and one by one, in turns."""
    scorer = Scorer(model, [], Reading(passes, both_strands=False))
    ways: dict[str, Callable[[list[Record]], list[float]]] = {
        "genossm score": lambda part: _scored(scorer, part, batch_size),
        "padded batches": lambda part: _padded(model, part, passes, batch_size),
        "one by one": lambda part: [padded(model, [record.tokens], passes)[0] for record in part],
    }
    seconds, found = dict.fromkeys(ways, 0.0), {name: [math.nan] * len(records) for name in ways}
    bases = sum(len(record.tokens) for record in records)
    with progress("records", (len(ways) + 1) * bases) as advance:
        for turn in range(min(SEGMENTS, len(records))):
            at = range(turn, len(records), SEGMENTS)
            part = [records[i] for i in at]
            for name in np.roll(list(ways), turn).tolist():
                begun = time.perf_counter()
                values = ways[name](part)
                seconds[name] += time.perf_counter() - begun
                for i, value in zip(at, values, strict=True):
                    found[name][i] = value
                advance(sum(len(record.tokens) for record in part))
        order = np.random.default_rng(seed).permutation(len(records)).tolist()
        again = [math.nan] * len(records)
        for i in order:
            again[i] = _scored(scorer, [records[i]], 1)[0]
            advance(len(records[i].tokens))
    sizes = np.array([len(record.tokens) for record in records])
    figures = [("records", len(records), ""), ("bases", bases, "bp"), ("shortest", sizes.min(), "bp")]
    figures += [("longest", sizes.max(), "bp")]
    for name, spent in seconds.items():
        figures += [(f"{name}: records", len(records) / spent, "1/s"), (f"{name}: bases", bases / spent, "bp/s")]
    unit = "nats a base"
    for name, other in (*list(found.items())[1:], (f"batch size 1, shuffled, against {batch_size}", again)):
        worst = np.abs(np.array(other) - np.array(found["genossm score"])) / sizes
        figures.append((f"{name}: largest difference", worst.max(), unit))
    return [Figure("records", what, float(value), unit) for what, value, unit in figures]


def _scored(scorer: Scorer, records: list[Record], batch_size: int) -> list[float]:
    return [float(str(row["log_likelihood"])) for _, row, _ in scorer.rows(records, batch_size)]


def _padded(model: LanguageModel, records: list[Record], passes: int, batch_size: int) -> list[float]:
    lengths = np.array([len(record.tokens) for record in records])
    found = [math.nan] * len(records)
    for rows in bounded_parts(np.arange(len(records)), lengths, max_rows=batch_size, max_tokens=PADDED_TOKENS):
        values = padded(model, [records[i].tokens for i in rows.tolist()], passes)
        for i, value in zip(rows.tolist(), values, strict=True):
            found[i] = value
    return found


# ---- one long record, and generation: as commands


def length_part(
    checkpoint: Path, model: LanguageModel, lengths: Sequence[int], *, passes: int, memory: int, whole: int, seed: int
) -> list[Figure]:
    """Time and peak memory of ``genossm score`` on one record of each length; what one pass says of ``whole`` bp."""
    rng = np.random.default_rng(seed)
    runs: dict[int, Process] = {}
    with tempfile.TemporaryDirectory(prefix="genossm-") as folder, progress("long records", sum(lengths)) as advance:
        for length in (START, *sorted(lengths)):
            fasta = Path(folder) / f"{length}.fa"
            fasta.write_text(f">random\n{vocab.decode(random_bases(length, rng))}\n", encoding="ascii")
            runs[length] = command_of(
                ["score", str(fasta), "--checkpoint", str(checkpoint), "--output", f"{fasta}.tsv",
                 "--passes", str(passes), "--strands", "given", "--memory", str(memory)]
            )  # fmt: skip
            advance(length)
    tokens = random_bases(whole, rng)
    streamed = float(log_likelihood(model, tokens, Reading(passes, both_strands=False, memory=memory << 20)))
    at_once = padded(model, [tokens], passes)[0]
    figures = _runs("length", runs)
    return [*figures, Figure("length", f"{whole:,} bp in one pass: difference", abs(streamed - at_once) / whole,
                             "nats a base")]  # fmt: skip


def generation_part(checkpoint: Path, lengths: Sequence[int], seed: int) -> list[Figure]:
    """Time and peak memory of ``genossm generate`` for each length."""
    runs: dict[int, Process] = {}
    with tempfile.TemporaryDirectory(prefix="genossm-") as folder, progress("generation", sum(lengths)) as advance:
        for length in (START, *sorted(lengths)):
            runs[length] = command_of(
                ["generate", "--checkpoint", str(checkpoint), "--output", str(Path(folder) / "new.fa"),
                 "--length", str(length), "--seed", str(seed)]
            )  # fmt: skip
            advance(length)
    return _runs("generation", runs)


def _runs(part: str, runs: dict[int, Process]) -> list[Figure]:
    """Figures of runs by length, the first of which is that of starting."""
    (_, start), *rest = runs.items()
    figures = []
    for length, run in rest:
        net = max(run.seconds - start.seconds, 1e-9)
        figures += [
            Figure(part, f"{length:,} bp: time", run.seconds, "s"),
            Figure(part, f"{length:,} bp: without starting", length / net, "bp/s"),
            Figure(part, f"{length:,} bp: peak memory", run.peak / 1e6, "MB"),
        ]
    if len(rest) > 1:
        (short, low), (long, high) = rest[0], rest[-1]
        nets = [max(run.seconds - start.seconds, 1e-9) for run in (low, high)]
        slope = math.log(nets[1] / nets[0]) / math.log(long / short)
        figures.append(Figure(part, "slope of log time by log length", slope, ""))
        figures.append(Figure(part, "peak memory, longest over shortest", high.peak / max(low.peak, 1), ""))
    return figures


# ---- variants


def variants_part(
    model: LanguageModel, reference_fasta: str, vcf: str, *, window: int, alleles: int, plain: int
) -> list[Figure]:
    """Alleles a second of ``genossm variants``, with and without the scores beside that of the site, and plainly.

    Neighbouring records, from the middle of the file; the plain way takes ``plain`` alleles evenly among them.
    """
    options = VariantOptions(window=window, length_control=False)
    quick = VariantOptions(window=window, length_control=False, scores=Scores.SITE)
    with Reference(reference_fasta) as reference:
        records = _middle(vcf, alleles)
        found: dict[str, list[AlleleScore]] = {}
        spent = dict.fromkeys(("all", "site"), 0.0)
        windows, count = Seconds(), 0
        worst = np.zeros(4)
        with progress("variants", 2 * len(records) + plain, "records") as advance:
            for name, how in (("all", options), ("site", quick)):
                begun = time.perf_counter()
                scored = list(score_records(model, reference, records, how, advance))
                spent[name] = time.perf_counter() - begun
                found[name] = [score for _, scores in scored for score in scores]
            ready = [
                (change, score, site)
                for change, score, site in zip(_changes(records, reference), found["all"], found["site"], strict=True)
                if change is not None and score.status == "ok"
            ]
            if not ready:
                raise GenoSSMError("no allele of the VCF has a score", path=vcf)
            for place in np.linspace(0, len(ready) - 1, min(plain, len(ready))).astype(int).tolist():
                change, score, site = ready[place]
                start, end = window_of(change.start, reference.lengths[change.contig], window)
                edit = Edit(change.start - start, change.end - start, change.tokens)
                tokens = reference.read(change.contig, start, end)
                effect = plain_effect(model, tokens, edit, both_strands=True, spent=windows)
                worst = np.maximum(worst, _differences(effect, score, site))
                count += 1
                advance(1)
    rates = {
        "genossm variants": len(ready) / spent["all"],
        "genossm variants --scores site": len(ready) / spent["site"],
        "two full windows an allele": count / windows.windows,
        "the same three scores by full windows": count / windows.all,
    }
    figures = [Figure("variants", "alleles", len(ready), ""), Figure("variants", "alleles read plainly", count, "")]
    figures += [Figure("variants", name, rate, "alleles/s") for name, rate in rates.items()]
    ours, quickly, two, three = rates.values()
    for what, value in (("three scores over two windows", ours / two), ("three scores over the same", ours / three),
                        ("site over two windows", quickly / two)):  # fmt: skip
        figures.append(Figure("variants", f"speed, {what}", value, "times"))
    names = ("llr_site", "llr_window", "embedding_distance, relative", "llr_site of --scores site")
    return [
        *figures,
        *(Figure("variants", f"{n}: largest difference", float(w), "") for n, w in zip(names, worst, strict=True)),
    ]


def _middle(vcf: str, count: int) -> list[VariantRecord]:
    """``count`` neighbouring records, or all that there are."""
    total = sum(1 for _ in VcfReader(vcf))
    first = max(0, (total - count) // 2)
    return list(islice(VcfReader(vcf), first, first + count))


def _changes(records: Sequence[VariantRecord], reference: Reference) -> Iterator[Change | None]:
    for record in records:
        yield from (allele.change for allele in judge(record, reference)[1])


def _differences(effect: Effect, score: AlleleScore, site: AlleleScore) -> list[float]:
    ours = (score.llr_site, score.llr_window, score.embedding_distance, site.llr_site)
    numbers = [math.nan if value is None else value for value in ours]
    plainly = (effect.site, effect.window, effect.distance, effect.site)
    found = [abs(number - value) for number, value in zip(numbers, plainly, strict=True)]
    found[2] /= max(effect.distance, 1e-12)
    return found


def synthetic(lengths: Sequence[int], seed: int) -> list[Record]:
    """Records of random bases."""
    rng = np.random.default_rng(seed)
    texts: list[Tokens] = [random_bases(length, rng) for length in lengths]
    return [Record(f"r{i}", "", 2 * i + 1, t, np.zeros(len(t), dtype=bool)) for i, t in enumerate(texts)]
