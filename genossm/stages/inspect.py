"""genossm inspect: how far back a model can remember, layer by layer, in base pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import Tensor

from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.models.memory import Memory, cores, memory_of, reaches
from genossm.stages.loading import load_model

COLUMNS = (
    "core", "mixer", "reach", "half_life_median", "half_life_max", "dt_min", "dt_median", "dt_max", "memory_median",
    "memory_max",
)  # fmt: skip


def _figure(value: Tensor | float | None) -> str:
    return "" if value is None else f"{float(value):.4g}"


@dataclass(frozen=True)
class Look:
    """What is known of one core: its mixer, how many tokens back it can look (None: all), and its memory."""

    mixer: str
    reach: int | None
    memory: Memory | None


def table(looks: dict[str, Look]) -> str:
    """TSV, one row a core: reach and half-lives in bp, time steps, bp that hold 90 % of a response's energy."""
    lines = ["\t".join(COLUMNS)]
    for name, look in looks.items():
        cells: list[Tensor | None] = [None] * 7
        if look.memory is not None:
            dt, effective = look.memory.dt, look.memory.effective()
            cells = [look.memory.half_life.median(), look.memory.half_life.max()]
            cells += [None] * 3 if dt is None else [dt.min(), dt.median(), dt.max()]
            cells += [effective.median(), effective.max()]
        reach = "all" if look.reach is None else str(look.reach)
        lines.append("\t".join([name, look.mixer, reach, *map(_figure, cells)]))
    return "\n".join(lines) + "\n"


def inspect(checkpoint: Path, length: int) -> dict[str, Look]:
    """What every core of a checkpoint remembers, kernels over ``length`` bp.

    Raises:
        GenoSSMError: a fault of the checkpoint, or a model that is not made of this project's mixers.
    """
    model, _ = load_model(checkpoint)
    found, reach = cores(model), reaches(model)
    if not found:
        raise GenoSSMError("is made of published blocks: inspect reads models that were trained here", path=checkpoint)
    return {
        name: Look(type(core).__name__.removesuffix("Core"), reach[name], memory_of(core, length))
        for name, core in found.items()
    }


def draw(looks: dict[str, Look]) -> str:
    """The memories as an SVG picture; cores without decay are left out."""
    from genossm.report.figures import MemoryRow
    from genossm.report.figures import memory as memory_figure

    def array(value: Tensor | None) -> npt.NDArray[np.float64] | None:
        return None if value is None else value.numpy()

    return memory_figure(
        [
            MemoryRow(f"{name}\n{look.mixer}", m.half_life.numpy(), array(m.dt), array(m.kernel), m.effective().numpy())
            for name, look in looks.items()
            if (m := look.memory) is not None
        ]
    )


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a model that was trained here.")],
    output: Annotated[Path | None, typer.Option(help="SVG picture of half-lives, time steps, memory, kernels.")] = None,
    length: Annotated[int, typer.Option(min=2, help="bp over which kernels are drawn.")] = 16_384,
) -> None:
    """Show how far back each layer can remember, in base pairs, and draw its decays, time steps and kernels.

    Half-lives of gated mixers (mamba, ssd, rwkv7, lstm, gru) are those without input: the input moves them.

    Example: genossm inspect results/pretrain/tiny --output memory.svg
    """
    with torch.inference_mode():
        looks = inspect(checkpoint, length)
    print(table(looks), end="")
    if output is not None:
        if all(look.memory is None for look in looks.values()):
            raise GenoSSMError("has no layer that decays: there is nothing to draw", path=checkpoint)
        atomic_write(output, draw(looks))
