"""genossm inspect: how far back a model can remember, layer by layer, in base pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import Tensor

from genossm.errors import GenoSSMError
from genossm.files import atomic_write
from genossm.models.memory import Memory, cores, memory_of
from genossm.stages.loading import load_model

COLUMNS = (
    "core", "mixer", "half_life_median", "half_life_max", "dt_min", "dt_median", "dt_max", "kernel_median", "kernel_max"
)  # fmt: skip


def _figure(value: Tensor | float | None) -> str:
    return "" if value is None else f"{float(value):.4g}"


def table(memories: dict[str, tuple[str, Memory | None]]) -> str:
    """TSV, one row a core: half-lives in bp, time steps, bp within which a kernel has 90 % of its energy."""
    lines = ["\t".join(COLUMNS)]
    for name, (mixer, memory) in memories.items():
        cells: list[Tensor | None] = [None] * 7
        if memory is not None:
            dt, reach = memory.dt, memory.effective()
            cells = [memory.half_life.median(), memory.half_life.max()]
            cells += [None] * 3 if dt is None else [dt.min(), dt.median(), dt.max()]
            cells += [None] * 2 if reach is None else [reach.median(), reach.max()]
        lines.append("\t".join([name, mixer, *map(_figure, cells)]))
    return "\n".join(lines) + "\n"


def inspect(checkpoint: Path, length: int) -> dict[str, tuple[str, Memory | None]]:
    """The mixer and the memory of every core of a checkpoint, kernels over ``length`` bp.

    Raises:
        GenoSSMError: a fault of the checkpoint, or a model that is not made of this project's mixers.
    """
    model, _ = load_model(checkpoint)
    found = cores(model)
    if not found:
        raise GenoSSMError("is made of published blocks: inspect reads models that were trained here", path=checkpoint)
    return {name: (type(core).__name__.removesuffix("Core"), memory_of(core, length)) for name, core in found.items()}


def draw(memories: dict[str, tuple[str, Memory | None]]) -> str:
    """The memories as an SVG picture; cores without decay are left out."""
    from genossm.report.figures import MemoryRow
    from genossm.report.figures import memory as memory_figure

    def array(value: Tensor | None) -> npt.NDArray[np.float64] | None:
        return None if value is None else value.numpy()

    return memory_figure(
        [
            MemoryRow(f"{name}\n{mixer}", m.half_life.numpy(), array(m.dt), array(m.kernel))
            for name, (mixer, m) in memories.items()
            if m is not None
        ]
    )


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a model that was trained here.")],
    output: Annotated[Path | None, typer.Option(help="SVG picture of half-lives, time steps and kernels.")] = None,
    length: Annotated[int, typer.Option(min=2, help="bp over which kernels are drawn.")] = 16_384,
) -> None:
    """Show how far back each layer can remember, in base pairs, and draw its decays, time steps and kernels.

    Half-lives of selective mixers (mamba, ssd, rwkv7) are those without input: the input can only move them.

    Example: genossm inspect results/pretrain/tiny --output memory.svg
    """
    with torch.inference_mode():
        memories = inspect(checkpoint, length)
    print(table(memories), end="")
    if output is not None:
        if all(memory is None for _, memory in memories.values()):
            raise GenoSSMError("has no layer that decays: there is nothing to draw", path=checkpoint)
        atomic_write(output, draw(memories))
