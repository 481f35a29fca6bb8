"""The parts of the report, each from what a stage wrote."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from genossm.report import figures
from genossm.report.figures import BASELINE, MUTED, ContigBar, Level
from genossm.report.inputs import Job, ScoreTable
from genossm.report.page import Html, Section, Tile, code, heading, markup, paragraph, preformatted, table
from genossm.report.page import figures as pictures
from genossm.report.plots import Plot

MAP_ROWS = 40


def number(value: object, digits: int | None = None) -> str:
    """A figure for a table: thousands separated, floats rounded (4 digits, 1 from 100 on), a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits if digits is not None else 1 if abs(value) >= 100 else 4}f}"


def with_interval(judged: Mapping[str, Any], name: str) -> str:
    """A metric and its confidence interval."""
    interval = judged.get(f"{name}_ci")
    shown = number(judged.get(name), 3)
    return shown if interval is None else f"{shown} [{interval[0]:.3f}, {interval[1]:.3f}]"


def compare(gap: float) -> str:
    """How a loss stands to a baseline's, in words."""
    return f"{abs(gap):.4f} {'below' if gap > 0 else 'above'}"


def facts(content: Mapping[str, Any]) -> Html:
    """A nested mapping as a table of dotted keys and values."""
    rows: list[tuple[object, object]] = []

    def walk(value: object, key: str) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list):
            rows.append((key, ", ".join(map(str, value)) or "–"))
        else:
            rows.append((key, code(value) if isinstance(value, str) and len(value) > 40 else number(value)))

    walk(content, "")
    return table((), rows)


def pretraining(name: str, metrics: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> tuple[Section, Tile]:
    """Loss of the language model against the count baseline and the uniform distribution."""
    loss, uniform = metrics["valid_loss"], metrics["uniform"]
    by_k = {int(k): value for k, value in metrics["baseline"]["by_k"].items()}
    best_k = metrics["baseline"]["best_k"]
    near_k = min((k for k in by_k if k <= 3), key=by_k.__getitem__)
    near, best = by_k[near_k], by_k[best_k]
    levels = [Level(f"uniform, {uniform:.4f}", uniform, MUTED)]
    levels.append(Level(f"counts, k = {near_k}: {near:.4f}", near, "#e8a765"))
    if best_k != near_k:
        levels.append(Level(f"counts, best k = {best_k}: {best:.4f}", best, BASELINE))
    curve = figures.loss_curve(
        [(row["step"], row["loss"]) for row in history if "loss" in row],
        [(row["step"], row["valid_loss"]) for row in history if "valid_loss" in row],
        levels,
    )
    bars = figures.baseline_bars(by_k, best_k, loss, uniform)
    rows = [
        (who, number(value), number(uniform - value))
        for who, value in [
            ("the model", loss),
            (f"counts, k = {near_k} (the best of k up to 3)", near),
            (f"counts, k = {best_k} (the best of all, picked on the tuning share)", best),
            ("uniform over four bases", uniform),
        ]
    ]
    parts = [
        paragraph(
            "Mean loss on the held-out bases of the validation split, in nats per base. The model is ",
            f"{compare(near - loss)} the count baseline with k up to 3, and {compare(best - loss)} that with the best "
            "k of all. The count baseline has the same view as the model: k bases on either side of a masked base, or "
            "the k bases before it for a causal model. It was fitted on the training contigs and is scored on the "
            "same bases.",
        ),
        pictures(
            (curve, f"Loss by step; the last validation loss is {loss:.4f} nats per base"),
            (bars, "Loss of the count baseline for every k beside the model"),
        ),
        table(["", "nats per base", "below uniform"], rows, numeric=(1, 2), ours=0),
        heading(f"Figures of the run ({name})"),
        facts({key: value for key, value in metrics.items() if not isinstance(value, (dict, list))}),
    ]
    tile = Tile("Validation loss, nats per base", f"{loss:.4f}", f"{compare(near - loss)} counts, k ≤ 3", near > loss)
    return Section("pretraining", "Pretraining", parts), tile


def comparison(columns: Mapping[str, Sequence[str]]) -> Section:
    """Models that were pretrained alike (the table of `genossm compare`, by column): how far each is below uniform."""
    parts: list[Html] = []
    uniform = math.log(4)
    for objective in dict.fromkeys(columns["objective"]):
        at = [i for i, found in enumerate(columns["objective"]) if found == objective]
        losses = {columns["model"][i]: float(columns["valid_loss"][i]) for i in at}
        counts = losses[columns["model"][at[0]]] + float(columns["better_than_best_k"][at[0]])
        plot = Plot(
            f"{objective}: nats per base below uniform", "", "more is better",
            bars={name: uniform - loss for name, loss in losses.items()},
            levels={f"best count table, {uniform - counts:.4f}": uniform - counts},
        )  # fmt: skip
        rows = [
            (
                name,
                columns["mixer"][i],
                number(int(columns["parameters"][i])),
                number(loss),
                number(float(columns["seconds"][i]), 1),
            )
            for i, (name, loss) in zip(at, losses.items(), strict=True)
        ]
        parts += [
            heading(objective),
            pictures((figures.plain(plot), f"Validation loss of every {objective} model below uniform")),
            table(["model", "mixer", "parameters", "nats per base", "seconds"], rows, numeric=(2, 3, 4)),
        ]
    steps = ", ".join(dict.fromkeys(columns["steps"]))
    said = paragraph(f"Pretrained alike, {steps} steps each. Losses of different objectives do not compare.")
    return Section("comparison", "Models side by side", [said, *parts])


def scores(tables: Mapping[str, ScoreTable]) -> tuple[Section, Tile]:
    """What `genossm score` gave: the spread of likelihoods and class probabilities, every status counted."""
    parts: list[Html] = []
    records = 0
    for name, scored in tables.items():
        statuses = Counter(scored.columns["status"])
        said = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items()))
        parts += [heading(name), paragraph(f"{statuses.total():,} records: {said}.")]
        if "per_base" in scored.columns:
            records += statuses.total()
            groups = {"records": scored.numbers("per_base")}
            title, xlabel = "Log-likelihood", "nats per base (uniform: -1.386)"
        else:
            groups = by_class(scored)
            title, xlabel = "Classes", "probability of the class that was given"
        if any(groups.values()):
            parts.append(pictures((figures.histogram(groups, title, xlabel), f"{title}: {xlabel}, {name}")))
    return Section("scores", "Scores", parts), Tile("Records scored", f"{records:,}", ", ".join(tables))


def by_class(scored: ScoreTable) -> dict[str, list[float]]:
    """The probability of the class that was given, by that class."""
    groups: dict[str, list[float]] = {}
    for place, label in enumerate(scored.columns["label"]):
        if f"p_{label}" in scored.columns:
            groups.setdefault(label, []).append(float(scored.columns[f"p_{label}"][place]))
    return dict(sorted(groups.items()))


def coverage(starts: Sequence[int], window: int) -> int:
    """How many bases are in one window or more."""
    ordered = sorted(starts)
    steps = (after - start for start, after in itertools.pairwise(ordered))
    return sum(min(window, step) for step in steps) + (window if ordered else 0)


def windows(name: str, contigs: Sequence[ContigBar], window: int, stride: int, about: Mapping[str, Any]) -> Section:
    """The map of the windows, and what is in each split."""
    ranked = sorted(contigs, key=lambda contig: (not any(contig.windows.values()), -contig.length))[:MAP_ROWS]
    shown = [contig for contig in contigs if contig in ranked]
    rows = []
    for split in figures.SPLIT_COLORS:
        count = sum(len(contig.windows[split]) for contig in contigs)
        covered = sum(coverage(contig.windows[split], window) for contig in contigs)
        where = [contig.name for contig in shown if contig.windows[split]]
        rows.append((split, number(count), f"{covered / 1e6:,.2f}", ", ".join(where)))
    bases = sum(contig.length for contig in contigs)
    said = f"{name}: {len(contigs):,} sequences, {bases:,} bp, in windows of {window:,} bp every {stride:,} bp. "
    if len(shown) < len(contigs):
        said += f"The map shows {len(shown)} sequences: those with windows first, the longest first. "
    parts = [
        paragraph(said, "No base is in two splits."),
        pictures((figures.window_map(shown, window), "The sequences of the genome with their windows, by split")),
        table(["split", "windows", "Mb", "sequences"], rows, numeric=(1, 2)),
        facts(about),
    ]
    return Section("windows", "Genome and windows", parts)


def provenance(files: Mapping[str, Mapping[str, Any]]) -> Section:
    """Where every input came from, and its checksums."""
    rows = []
    for about in files.values():
        written = about["written"]
        sums = Html(f"{code(about['sha256']).markup}<br>{code(written['sha256']).markup}")
        content = ", ".join(f"{number(value)} {what}" for what, value in about["content"].items())
        came = Html(f"{markup(about['source'])}<br>{markup(about['date'])}")
        rows.append(
            (written["file"], came, Html(f"{number(about['size'])}<br>{number(written['size'])}"), sums, content)
        )
    parts = [
        paragraph(
            "Every file that came from outside: as it was served (first line), and as it was written (second line)."
        ),
        table(["file", "source and date", "bytes", "sha256", "content"], rows, numeric=(2,)),
    ]
    warnings = [f"{name}: {warning}" for name, about in files.items() for warning in about["warnings"]]
    parts += [paragraph(warning) for warning in warnings]
    return Section("provenance", "Provenance of the inputs", parts)


def run(jobs: Mapping[str, Job], settings: Mapping[str, Any] | None, versions: Mapping[str, str]) -> Section:
    """Times, software and configuration."""
    parts: list[Html] = []
    if jobs:
        svg = figures.durations({name: job.seconds for name, job in jobs.items()})
        rows = [(name, number(job.seconds, 1), number(job.max_rss_mb, 0)) for name, job in jobs.items()]
        parts += [pictures((svg, "Seconds by job"))]
        parts += [table(["job", "seconds", "peak memory, MB"], rows, numeric=(1, 2))]
    parts += [heading("Software"), table((), list(versions.items()))]
    if settings:
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=110)
        parts += [heading("Configuration"), preformatted(text, "every setting of this run, defaults filled in")]
    return Section("run", "The run", parts)
