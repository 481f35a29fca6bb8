"""genossm generate: new sequence from a causal language model, as FASTA.

Each record of ``--prompt`` is continued, or sequences are begun from nothing. The model runs in recurrent mode, so
memory does not grow with the length, and the file is written as it comes (under its name only when it is whole).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import numpy.typing as npt
import typer

from genossm import vocab
from genossm.data.fasta import read_fasta
from genossm.errors import GenoSSMError
from genossm.files import atomic_path, check_output
from genossm.models import LanguageModel
from genossm.models.generation import Sampling, generate
from genossm.progress import progress
from genossm.stages.loading import load_model, pick_device
from genossm.train.signals import StopRequest

Tokens = npt.NDArray[np.uint8]

WIDTH = 60
"""Bases of a line."""


def generate_fasta(
    checkpoint: Path,
    output: Path | None = None,
    *,
    length: int = 1000,
    count: int = 1,
    prompt: str | os.PathLike[str] | None = None,
    with_prompt: bool = False,
    sampling: Sampling | None = None,
    device: str = "auto",
) -> int:
    """Write new sequences; gives how many.

    Args:
        checkpoint: folder of a causal language model with a state.
        output: FASTA, which appears whole or not at all; None is standard output.
        length: new bp of each. count: sequences from each prompt, or from nothing.
        prompt: FASTA whose records are continued. with_prompt: repeat the prompt before what follows it.

    Raises:
        GenoSSMError: a fault of the checkpoint or of the prompt; a model that cannot generate; a temperature that is
            none.
    """
    sampling = sampling or Sampling()
    if not 0 <= sampling.temperature < math.inf:
        raise GenoSSMError(f"--temperature {sampling.temperature}: a finite number above 0, or 0 for the likeliest")
    if output is not None:
        check_output(output, checkpoint, *([] if prompt is None else [prompt]))
    model, _ = load_model(checkpoint, pick_device(device))
    if not isinstance(model, LanguageModel) or not model.stateful:
        why = "cannot generate: that takes a causal language model that keeps a state (pretrain with objective: causal)"
        raise GenoSSMError(why, path=checkpoint)
    if prompt is None and not model.bos:
        raise GenoSSMError("was trained without [BOS] and cannot begin from nothing: give --prompt", path=checkpoint)
    made = 0
    with ExitStack() as stack:
        handle: IO[str] = sys.stdout
        if output is not None:
            temporary = stack.enter_context(atomic_path(output))
            handle = stack.enter_context(temporary.open("w", encoding="ascii", newline="\n"))
        advance = stack.enter_context(progress("generate", None))
        for name, text in _prompts(prompt):
            for copy in range(count):
                handle.write(f">{name}_{copy + 1} length={length} seed={sampling.seed} sequence={made}\n")
                lines = _Lines(handle)
                if with_prompt:
                    lines.add(text)
                for block in generate(model, [text], length, sampling, first=made):
                    lines.add(block[0])
                    advance(block.shape[1])
                lines.finish()
                made += 1
        handle.flush()
    return made


def _prompts(prompt: str | os.PathLike[str] | None) -> Iterator[tuple[str, Tokens]]:
    if prompt is None:
        yield "generated", np.empty(0, dtype=np.uint8)
        return
    for record in read_fasta(prompt):
        yield record.name, record.tokens


class _Lines:
    """Writes bases in lines of one width."""

    def __init__(self, handle: IO[str]) -> None:
        self._handle, self._rest = handle, ""

    def add(self, tokens: Tokens) -> None:
        text = self._rest + vocab.decode(tokens)
        whole = len(text) // WIDTH * WIDTH
        self._handle.writelines(f"{text[at : at + WIDTH]}\n" for at in range(0, whole, WIDTH))
        self._rest = text[whole:]

    def finish(self) -> None:
        if self._rest:
            self._handle.write(f"{self._rest}\n")


def command(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a causal language model.")],
    output: Annotated[Path | None, typer.Option(help="FASTA to write; default: standard output.")] = None,
    length: Annotated[int, typer.Option(min=1, help="New bp of each sequence.")] = 1000,
    count: Annotated[int, typer.Option(min=1, help="Sequences from each prompt, or from nothing.")] = 1,
    prompt: Annotated[str | None, typer.Option(help="FASTA whose records are continued; - is standard input.")] = None,
    with_prompt: Annotated[bool, typer.Option(help="Write the prompt before what follows it.")] = False,
    temperature: Annotated[float, typer.Option(help="Below 1: likelier bases; 0: the likeliest.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=1, max=4, help="Draw from the k likeliest bases.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the random numbers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "auto",
) -> None:
    """Generate sequence with a causal language model.

    Example: genossm generate --checkpoint results/pretrain/causal --prompt start.fa --length 5000 --output new.fa
    """
    with StopRequest("no file was written; the same command starts again"):
        made = generate_fasta(
            checkpoint,
            output,
            length=length,
            count=count,
            prompt=prompt,
            with_prompt=with_prompt,
            sampling=Sampling(temperature, top_k, seed),
            device=device,
        )
    print(f"{made:,} sequences of {length:,} bp", file=sys.stderr)
