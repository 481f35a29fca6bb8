"""genossm compare: pretrained models side by side, the best of each objective first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from genossm.errors import GenoSSMError
from genossm.files import atomic_write, check_output
from genossm.stages.pretrain import METRICS
from genossm.train.checkpoint import load_config

COLUMNS = (
    "model", "mixer", "objective", "parameters", "steps", "bases_seen", "valid_loss", "better_than_best_k", "seconds",
    "bp_per_second",
)  # fmt: skip


def row(folder: Path) -> dict[str, Any]:
    """What a run reached, by column, and the checksum of the tokens that it is of.

    Raises:
        GenoSSMError: no finished run of ``genossm pretrain`` in ``folder``.
    """
    path = folder / METRICS
    if not path.is_file():
        raise GenoSSMError(f"has no {METRICS}: a finished run of genossm pretrain is wanted", path=folder)
    try:
        found, shape = json.loads(path.read_text(encoding="utf-8")), load_config(folder)["model"]
        return {
            "model": folder.name,
            "tokens": found["training"]["tokens_sha256"],
            "mixer": shape.get("pattern") or shape["mixer"],
            "objective": shape["objective"],
            "parameters": found["parameters"],
            "steps": found["training"]["steps"],
            "bases_seen": found["bases_seen"],
            "valid_loss": found["valid_loss"],
            "better_than_best_k": found["gap"]["best_k"],
            "seconds": found["seconds"],
            "bp_per_second": found["tokens_per_second"],
        }
    except (ValueError, KeyError) as error:
        raise GenoSSMError(f"is not what genossm pretrain writes: {error}", path=path) from None


def compare(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a run, by objective and validation loss.

    Losses of different objectives answer different questions: a masked model sees both sides of a base.

    Raises:
        GenoSSMError: a folder without a finished run, or runs that were trained or judged on different genomes.
    """
    rows = [row(folder) for folder in folders]
    genomes = {one["tokens"] for one in rows}
    if len(genomes) > 1:
        raise GenoSSMError(f"the runs are of {len(genomes)} different tokens files: their losses do not compare")
    return sorted(rows, key=lambda one: (one["objective"], one["valid_loss"]))


def to_tsv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as TSV with a header; losses to six places."""

    def cell(value: Any) -> str:
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    return "\n".join(["\t".join(COLUMNS), *("\t".join(cell(one[name]) for name in COLUMNS) for one in rows)]) + "\n"


def command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs of genossm pretrain.")],
    output: Annotated[Path | None, typer.Option(help="TSV file for the table.")] = None,
) -> None:
    """Put pretrained models side by side: parameters, validation loss, seconds; the best of each objective first.

    Example: genossm compare results/pretrain/mamba results/pretrain/hyena --output compare.tsv
    """
    if output is not None:
        check_output(output)
    table = to_tsv(compare(runs))
    print(table, end="")
    if output is not None:
        atomic_write(output, table)
