"""genossm benchmark: a model on a published benchmark, under its protocol, beside what has been reported."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from genossm.config import FinetuneSection
from genossm.data.benchmarks import NOT_STATED, SUITES, Suite, Task, suite
from genossm.data.download import Retry, download, opener_for
from genossm.data.layouts import find_splits
from genossm.data.readers import checksum
from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.stages.finetune import finetune
from genossm.stages.labelled import Tables
from genossm.stages.task_page import METRICS

TABLE, RESULTS = "results.tsv", "results.json"
VALID_FRACTION = 0.1
SEEDS = 3
"""Repetitions of ours where a protocol has fewer, or says nothing of them: enough for an interval."""

command = typer.Typer(no_args_is_help=True, help="Run published benchmarks under their protocols.")


def find_task(task: Task, suite_name: str, mirror: Path) -> Path:
    """The folder of a task in a mirror: DIR/FOLDER, or DIR/SUITE/FOLDER.

    Raises:
        GenoSSMError: neither is there.
    """
    for folder in (mirror / task.folder, mirror / suite_name / task.folder):
        if folder.is_dir():
            return folder
    raise GenoSSMError(f"holds neither {task.folder} nor {suite_name}/{task.folder}", path=mirror)


def bring(task: Task, suite_: Suite, cache: Path, retry: Retry | None = None) -> Path:
    """Download the files of a task to ``cache/SUITE/FOLDER``; what is there already stays.

    Raises:
        GenoSSMError: it has no files at stable addresses, or one cannot be had.
    """
    if not task.files:
        raise GenoSSMError(
            f"{task.name} has no file at a fixed address: get it from {suite_.source} and give its folder as --mirror"
        )
    folder = cache / suite_.name / task.folder
    for path, url in task.files.items():
        target = folder / path
        if not target.exists():
            part = target.with_name(f".{target.name}.part")
            download(url, part, opener_for(url), retry or Retry())
            os.replace(part, target)
    return folder


def check_sources(task: Task, folder: Path) -> bool | None:
    """Whether the folder has the official content; None where its checksums are not known."""
    if not task.sha256:
        return None
    layout = find_splits(folder)
    found = {"train": layout.train, "test": layout.test}
    return all(source is not None and checksum(source) == task.sha256[split] for split, source in found.items())


def run_suite(
    suite_: Suite,
    output: Path,
    *,
    checkpoint: Path | None = None,
    tasks: Sequence[str] = (),
    mirror: Path | None = None,
    reference: Path | None = None,
    settings: FinetuneSection | None = None,
    seeds: int | None = None,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Fine-tune on every task and judge it once; ``results.tsv`` and ``results.json`` are written after each.

    Args:
        tasks: names; empty: all of the suite.
        mirror: a folder with the tasks; None: they are downloaded to ``output/sources``.
        reference: FASTA for tasks that are lists of intervals.
        seeds: None: as many as the protocol says, at least :data:`SEEDS`.

    Returns:
        A row a task.
    """
    chosen = [suite_.task(name) for name in tasks] or list(suite_.tasks)
    settings = settings or FinetuneSection()
    count = seeds or max(SEEDS, suite_.protocol.seeds or 0)
    rows = []
    for task in chosen:
        folder = bring(task, suite_, output / "sources") if mirror is None else find_task(task, suite_.name, mirror)
        layout = find_splits(folder)
        if layout.test is None:
            raise GenoSSMError("holds no test split", path=folder)
        print(f"{suite_.name}: {task.name}", file=sys.stderr, flush=True)
        tables = Tables(layout.train, layout.valid, layout.test, VALID_FRACTION, reference=reference)
        where = output / task.name
        report = _finished(where, task.metric, settings, seed, count) or finetune(
            checkpoint, tables, where, settings=settings, seed=seed, seeds=count
        )
        rows.append(_row(suite_, task, report, count, check_sources(task, folder)))
        _write(suite_, rows, output)
    return rows


def _finished(folder: Path, metric: str, settings: FinetuneSection, seed: int, seeds: int) -> dict[str, Any] | None:
    """The report of an earlier run with the same settings, if it has the metric, else None."""
    try:
        report: dict[str, Any] = json.loads((folder / METRICS).read_text())
    except (FileNotFoundError, ValueError):
        return None
    wanted = {"seed": seed, "seeds": seeds, **settings.model_dump()}
    trained = report.get("training", {})
    same = all(trained[key] == value for key, value in wanted.items() if key in trained)
    return report if same and metric in report.get(str(report.get("judged")), {}) else None


def _row(suite_: Suite, task: Task, report: dict[str, Any], seeds: int, official: bool | None) -> dict[str, Any]:
    """A task's figure beside the published ones, and whether they can be compared."""
    over = report.get("seeds", {}).get(task.metric)
    judged = report[report["judged"]]
    mean = over["mean"] if over else judged[task.metric]
    interval = over.get("ci") if over else judged[f"{task.metric}_ci"]
    best = max(((of[task.metric], who) for who, of in report["baselines"].items()), default=(None, None))
    reasons = []
    wanted = suite_.protocol.seeds or 0
    if seeds < wanted:
        reasons.append(f"{seeds} of {wanted} seeds")
    if official is False:
        reasons.append("not the official files")
    reasons += _other_rows(task, report)
    if not task.published:
        reasons.append("nothing published is known")
    return {
        "suite": suite_.name,
        "task": task.name,
        "metric": task.metric,
        "mean": mean,
        "interval": interval,
        "interval_of": "the mean over seeds (t)" if over and "ci" in over else "the test rows (bootstrap)",
        "seeds": seeds,
        "rows": judged["n"],
        "best_baseline": best[1],
        "best_baseline_value": best[0],
        "published": dict(task.published),
        "comparable": not reasons,
        "because": "; ".join(reasons),
        "official_files": official,
        "leak": report.get("leak"),
    }


def _other_rows(task: Task, report: dict[str, Any]) -> list[str]:
    """What differs from the official numbers of rows, as far as they are known."""
    data = report["data"]
    found = {
        "train": sum(data[split]["rows"] for split in ("train", "valid")),
        "test": data.get("test", {}).get("rows"),
    }
    return [
        f"{found[split]} rows of {split}, officially {rows}"
        for split, rows in zip(found, task.rows or (), strict=False)
        if rows is not None and found[split] != rows
    ]


def _write(suite_: Suite, rows: Sequence[dict[str, Any]], output: Path) -> None:
    about = asdict(suite_) | {"tasks": [task.name for task in suite_.tasks]}
    atomic_write(output / RESULTS, json.dumps({"suite": about, "results": list(rows)}, indent=2) + "\n")
    atomic_write(output / TABLE, show(rows))


def show(rows: Sequence[dict[str, Any]]) -> str:
    """The results as TSV, a published model a column."""
    models = list(dict.fromkeys(model for row in rows for model in row["published"]))
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    head = ["task", "metric", "mean", "low", "high", "seeds", "best_baseline", "its_value", "comparable", "because"]
    writer.writerow([*head, *models])
    for row in rows:
        low, high = row["interval"] or (None, None)
        figures = [_number(value) for value in (row["mean"], low, high)]
        ours = [row["seeds"], row["best_baseline"] or "NA", _number(row["best_baseline_value"])]
        verdict = ["yes" if row["comparable"] else "no", row["because"] or "-"]
        published = [_number(row["published"].get(model)) for model in models]
        writer.writerow([row["task"], row["metric"], *figures, *ours, *verdict, *published])
    return text.getvalue()


def _number(value: float | None) -> str:
    return "NA" if value is None else f"{value:.4f}"


@command.command("run")
def run(
    suite_name: Annotated[str, typer.Option("--suite", help=f"One of {', '.join(SUITES)}.")],
    output: Annotated[Path, typer.Option(help="Folder for results.tsv, results.json and a folder a task.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a pretrained model; without: a small network on the bases.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task of the suite; repeat. Default: all.")] = None,
    mirror: Annotated[
        Path | None, typer.Option(help="Folder that holds the tasks; default: download them to OUTPUT/sources.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="FASTA that lists of intervals are cut from.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Repetitions; default: as the protocol says, at least 3.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training set; default: by its size.")
    ] = None,
    members: Annotated[int | None, typer.Option(min=1, help="Networks a seed that are averaged.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "auto",
) -> None:
    """Fine-tune on the tasks of a benchmark, and put the results beside the published ones.

    A task that was finished with the same settings is not run again.

    Example: genossm benchmark run --suite gue --task tf_0 --checkpoint results/pretrain/tiny --mirror GUE --output gue
    """
    settings = FinetuneSection(epochs=epochs, members=members, device=device)
    rows = run_suite(
        suite(suite_name), output, checkpoint=checkpoint, tasks=task or (), mirror=mirror, reference=reference,
        settings=settings, seeds=seeds, seed=seed,
    )  # fmt: skip
    print(show(rows), end="")


@command.command("list")
def list_tasks(
    suite_name: Annotated[str | None, typer.Option("--suite", help="One suite; default: all.")] = None,
) -> None:
    """Show the suites: source, citation, protocol, and every task with its metric and published figures.

    Example: genossm benchmark list --suite gue
    """
    for one in [suite(suite_name)] if suite_name else SUITES.values():
        print(f"{one.name}: {one.title}, {len(one.tasks)} tasks\n  source: {one.source}\n  cite: {one.citation}")
        how = one.protocol
        print(
            f"  protocol: {how.splits}; seeds {how.seeds or NOT_STATED}; epochs {how.epochs}; "
            f"rate {how.learning_rates}; batch {how.batch_sizes}; chosen by: {how.choose}; {how.reading}"
        )
        for model, where in one.sources_of_figures.items():
            print(f"  {model}: {where}")
        for task in one.tasks:
            figures = ", ".join(_figure(task, model) for model in task.published) or "no figure known"
            others = "".join(f"; {model} {value:.3f}" for model, value in task.elsewhere.items())
            print(f"  - {task.name} ({task.metric}): {figures}{others}")
        for group, means in one.averages.items():
            print(f"  mean of {group}: {', '.join(f'{model} {value:.4f}' for model, value in means.items())}")


def _figure(task: Task, model: str) -> str:
    spread = f" +-{task.spread[model]:.3f}" if model in task.spread else ""
    return f"{model} {task.published[model]:.3f}{spread}"
