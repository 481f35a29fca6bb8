"""genossm export: a model back in the format of the published code.

Tensors keep every bit. A tensor that the official code shares is written under each of its names, so that no reader
loses the tie.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from genossm.errors import GenoSSMError
from genossm.files import atomic_path, atomic_write
from genossm.models.formats.registry import export
from genossm.models.formats.tokenizers import TOKENIZER_FILES
from genossm.stages.loading import load_model_parts
from genossm.train.checkpoint import CONFIG, MANIFEST, WEIGHTS
from genossm.train.published_files import write_tensors


def export_checkpoint(checkpoint: Path, output: Path) -> dict[str, Any]:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer to ``output``, as the official code names things.

    Returns:
        The official configuration.

    Raises:
        GenoSSMError: a fault of the checkpoint; no published architecture computes what it does.
    """
    shape, labels, weights = load_model_parts(checkpoint)
    if output.resolve() == checkpoint.resolve() or (output / MANIFEST).exists():
        raise GenoSSMError("holds a GenoSSM checkpoint: choose another --output", path=output)
    for name in (CONFIG, WEIGHTS, *TOKENIZER_FILES):
        if (output / name).exists():
            raise GenoSSMError(f"holds a {name} already: choose another --output, or remove it first", path=output)
    try:
        official = export(shape, labels, weights)
    except GenoSSMError as error:
        raise GenoSSMError(error.text, path=checkpoint) from None
    with atomic_path(output / WEIGHTS) as temporary:
        write_tensors(temporary, official.tensors)
    for name, content in {**official.tokenizer, CONFIG: official.config}.items():
        atomic_write(output / name, json.dumps(content, indent=2) + "\n")
    return official.config


class ExportFormat(StrEnum):
    """What to write."""

    HF = "hf"


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a model: imported, pretrained or fine-tuned.")],
    output: Annotated[Path, typer.Option(help="Folder for config.json and model.safetensors.")],
    format: Annotated[ExportFormat, typer.Option(help="hf: the layout of the Hugging Face hub.")] = ExportFormat.HF,
) -> None:
    """Write a model with the names of the published code, bit for bit, so that it opens there.

    Imported models go back to where they came from. Of models trained here, causal stacks of mamba or ssd become a
    Mamba or a Mamba-2, and bidirectional stacks of mamba a Caduceus-Ph.

    Example: genossm export results/pretrain/tiny --output for-the-hub --format hf
    """
    config = export_checkpoint(checkpoint, output)
    print(f"{config['architectures'][0]}: {output / CONFIG}, {output / WEIGHTS}")
