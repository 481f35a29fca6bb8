"""genossm report: what a run made, on one page."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from genossm import __version__
from genossm.data.tokens_h5 import open_tokens
from genossm.data.windows import SPLITS
from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.report import sections
from genossm.report.figures import ContigBar
from genossm.report.inputs import read_columns, read_job, read_json, read_json_lines, read_scores
from genossm.report.page import Section, Tile, render
from genossm.stages.compare import COLUMNS
from genossm.stages.task_page import task_section

SOFTWARE = ("torch", "numpy", "numba", "h5py", "scikit-learn", "safetensors", "pydantic", "snakemake")


@dataclass(frozen=True)
class Sources:
    """The files that a report is made of; each is optional."""

    pretrain: Path | None = None
    compare: Path | None = None
    finetune: Sequence[Path] = ()
    task: Sequence[Path] = ()
    score: Sequence[Path] = ()
    tokens: Path | None = None
    provenance: Sequence[Path] = ()
    benchmark: Sequence[Path] = ()
    settings: Path | None = None


def _pretraining(folder: Path) -> tuple[Section, Tile]:
    history = folder / "metrics.jsonl"
    rows = read_json_lines(history) if history.exists() else []
    return sections.pretraining(folder.name, read_json(folder / "metrics.json"), rows)


def _task(folder: Path, abouts: dict[str, Path]) -> tuple[Section, Tile]:
    about = read_json(abouts[folder.name]) if folder.name in abouts else None
    return task_section(folder.name, folder, about)


def _windows(path: Path) -> Section:
    with open_tokens(path) as tokens:
        bars = []
        for index, contig in enumerate(tokens.contigs):
            starts = {split: tokens.windows(split) for split in SPLITS}
            mine = {split: rows[rows[:, 0] == index, 1].tolist() for split, rows in starts.items()}
            bars.append(ContigBar(contig.name, contig.length, mine))
        about = {"source": tokens.source, "sha256 of the source": tokens.source_sha256, "sha256": tokens.sha256}
        return sections.windows(path.stem, bars, tokens.window, tokens.stride, about | tokens.options)


def _versions() -> dict[str, str]:
    found = {"genossm": __version__, "Python": platform.python_version()}
    for name in SOFTWARE:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def build(sources: Sources) -> str:
    """The report as one HTML document.

    Raises:
        GenoSSMError: a file is missing or is not what the stage writes.
    """
    parts: list[Section] = []
    tiles: list[Tile] = []
    if sources.pretrain:
        pretraining, tile = _pretraining(sources.pretrain)
        parts.append(pretraining)
        tiles.append(tile)
    if sources.compare:
        parts.append(sections.comparison(read_columns(sources.compare, "\t", COLUMNS)))
    abouts = {path.parent.name: path for path in sources.task}
    for folder in sources.finetune:
        part, tile = _task(folder, abouts)
        parts.append(part)
        tiles.append(tile)
    if sources.score:
        part, tile = sections.scores({path.stem: read_scores(path) for path in sources.score})
        parts.append(part)
        tiles.append(tile)
    if sources.tokens:
        parts.append(_windows(sources.tokens))
    if sources.provenance:
        files = {path.name.removesuffix(".provenance.json"): read_json(path) for path in sources.provenance}
        parts.append(sections.provenance(files))
    jobs = {path.stem: read_job(path) for path in sources.benchmark}
    if jobs:
        seconds = sum(job.seconds for job in jobs.values())
        tiles.append(Tile("Time of all jobs", f"{seconds / 60:,.1f} min", f"{len(jobs)} jobs, one after another"))
    settings: dict[str, Any] | None = read_json(sources.settings) if sources.settings else None
    parts.append(sections.run(jobs, settings, _versions()))
    names = dict.fromkeys(path.stem for path in (sources.tokens, sources.pretrain) if path)
    title = "GenoSSM report" + (f": {', '.join(names)}" if names else "")
    subtitle = "From a reference genome to a DNA language model, classifiers and scores"
    return render(title, subtitle, tiles, parts, f"GenoSSM {__version__}. This page needs no network.")


def _folder(path: Path) -> Path:
    """A folder, given itself or by a file in it."""
    return path.parent if path.suffix == ".json" else path


def command(
    output: Annotated[Path, typer.Option(help="The page to write, as report.html.")],
    pretrain: Annotated[Path | None, typer.Option(help="Folder of `genossm pretrain`, or its metrics.json.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Table of `genossm compare`.")] = None,
    finetune: Annotated[
        list[Path] | None, typer.Option(help="Folder of `genossm finetune`, or its metrics.json; repeat for more.")
    ] = None,
    task: Annotated[list[Path] | None, typer.Option(help="task.json of `genossm derive`; repeat for more.")] = None,
    score: Annotated[list[Path] | None, typer.Option(help="Table of `genossm score`; repeat for more.")] = None,
    tokens: Annotated[Path | None, typer.Option(help="tokens.h5, for the map of windows and splits.")] = None,
    provenance: Annotated[
        list[Path] | None, typer.Option(help="FILE.provenance.json of `genossm fetch`; repeat for more.")
    ] = None,
    benchmark: Annotated[
        list[Path] | None, typer.Option(help="Benchmark file of a Snakemake job, for the times; repeat for more.")
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="The configuration as JSON, to be shown.")] = None,
) -> None:
    """Gather a run's results into one HTML page that needs no network.

    Example: genossm report --pretrain pretrain/tiny --finetune finetune/coding --output report.html
    """
    if not (pretrain or compare or finetune or score or tokens):
        raise GenoSSMError("nothing to report: give --pretrain, --compare, --finetune, --score or --tokens")
    sources = Sources(
        pretrain=_folder(pretrain) if pretrain else None,
        compare=compare,
        finetune=[_folder(path) for path in finetune or []],
        task=task or [],
        score=score or [],
        tokens=tokens,
        provenance=provenance or [],
        benchmark=benchmark or [],
        settings=settings,
    )
    atomic_write(output, build(sources))
    print(f"{output}: {output.stat().st_size:,} bytes")
