"""The page of one task, and its section of a run's report, from what ``genossm finetune`` left in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genossm import __version__
from genossm.report.inputs import Predictions, read_columns, read_json
from genossm.report.page import Section, Tile, render
from genossm.report.tasks import task

METRICS, PREDICTIONS, EXAMPLES, PAGE = "metrics.json", "predictions.csv", "examples.json", "report.html"


def read_predictions(path: Path, labels: Sequence[str], classifiers: Sequence[str]) -> dict[str, Predictions]:
    """The probabilities of every classifier in predictions.csv: columns p_<class>, <baseline>_p_<class>."""
    columns = read_columns(path, ",", ("label",))
    true = np.array([labels.index(label) for label in columns["label"]], dtype=np.int64)
    lines = [int(line) for line in columns.get("line", [])] or None
    found = {}
    for who, prefix in {"fine_tuned": "", **{who: f"{who}_" for who in classifiers}}.items():
        names = [f"{prefix}p_{label}" for label in labels]
        if all(name in columns for name in names):
            found[who] = Predictions(true, np.array([columns[name] for name in names], dtype=np.float64).T, lines)
    return found


def task_section(name: str, folder: Path, about: Mapping[str, Any] | None) -> tuple[Section, Tile]:
    """A task's section of a report and its figure for the summary.

    Raises:
        GenoSSMError: a file is missing or is not what the stage writes.
    """
    content = read_json(folder / METRICS)
    labels = [str(label) for label in content["labels"]]
    table, examples = folder / PREDICTIONS, folder / EXAMPLES
    classes = content.get("kind", "classes") == "classes" and table.exists()
    predictions = read_predictions(table, labels, list(content["baselines"])) if classes else {}
    shown = json.loads(examples.read_text()) if examples.exists() else []
    return task(name, content, about, predictions, shown)


def task_page(name: str, folder: Path) -> str:
    """The task on a page of its own, one HTML document that needs no network."""
    section, tile = task_section(name, folder, None)
    return render(f"Task: {name}", "A labelled task, judged", [tile], [section], f"genossm {__version__}")
