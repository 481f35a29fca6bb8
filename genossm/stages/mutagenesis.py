"""genossm mutagenesis: every substitution of a region, and what each of its bases contributes.

A row a substitution: the scores of :mod:`genossm.models.edits`, and ``gradient``, the first-order estimate of
``llr_window`` without its own base (:mod:`genossm.models.attribution`). HDF5 holds the same as arrays (n, 4), for A, C,
G, T, zero at the base of the reference. The picture shows the model's expectation at every place, in bits, and the
gradient at the bases of the sequence.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from genossm import vocab
from genossm.data.embedding_files import write_mutagenesis
from genossm.data.numbers import whole_number
from genossm.data.reference import Reference
from genossm.errors import GenoSSMError, shortened
from genossm.files import atomic_path, check_output
from genossm.models import LanguageModel
from genossm.models.attribution import gradients
from genossm.models.edits import Edit, EditedWindow
from genossm.models.likelihood import is_base
from genossm.progress import progress
from genossm.report.logo import check_logo, save_logo
from genossm.stages.loading import load_model, pick_device
from genossm.stages.variants import TOLERANCE, WINDOW, Strands
from genossm.train.signals import StopRequest

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """Bases [start, end) of a contig."""

    contig: str
    start: int
    end: int


@dataclass(frozen=True)
class Mutagenesis:
    """What was found in a region of n bp.

    Attributes:
        tokens: uint8 (n,), the reference.
        site, window, distance: float64 (n, 4), of every substitution (A, C, G, T); 0 at the base itself, NaN at N.
        gradient: float64 (n, 4), see :mod:`genossm.models.attribution`.
    """

    region: Region
    tokens: npt.NDArray[np.uint8]
    site: Floats
    window: Floats
    distance: Floats
    gradient: Floats

    @property
    def probabilities(self) -> Floats:
        """What the model expects at every place, (n, 4); uniform at N."""
        weights = np.exp(np.nan_to_num(self.site - np.nanmax(np.nan_to_num(self.site), axis=1, keepdims=True)))
        return weights / weights.sum(1, keepdims=True)


def parse_region(text: str, reference: Reference) -> Region:
    """``CONTIG:START-END``, from 1, both ends inside, as samtools writes it; commas are passed over.

    Raises:
        GenoSSMError: not so written, no such contig, or not inside it.
    """
    name, _, places = text.rpartition(":")
    first, _, last = places.replace(",", "").partition("-")
    start, end = whole_number(first), whole_number(last)
    if not name or start is None or end is None:
        raise GenoSSMError(f"--region {shortened(text)!r}: write it as chr1:1000-1200", code="E_REGION")
    contig = reference.names.resolve(name)
    if contig is None:
        what = f"contig {name!r} is not in the FASTA, which has {reference.names.shown()}"
        raise GenoSSMError(what, code="E_UNKNOWN_CONTIG")
    if not 1 <= start <= end <= reference.lengths[contig]:
        what = f"--region {text}: contig {contig} has positions 1 to {reference.lengths[contig]:,}"
        raise GenoSSMError(what, code="E_POS_RANGE")
    return Region(contig, start - 1, end)


def mutate(
    model: LanguageModel,
    reference: Reference,
    region: Region,
    *,
    window: int = WINDOW,
    both_strands: bool = True,
    tolerance: float = TOLERANCE,
    passes: int = 8,
) -> Mutagenesis:
    """Score every substitution of a region, in one window with the region in its middle.

    Raises:
        GenoSSMError: the region is longer than half a window.
    """
    size, length = region.end - region.start, reference.lengths[region.contig]
    if size > window // 2:
        raise GenoSSMError(f"a region of {size:,} bp needs a --window of {2 * size:,} at least")
    begin = max(0, (region.start + region.end - window) // 2)
    tokens = reference.read(region.contig, begin, min(length, begin + window))
    first, last = region.start - begin, region.end - begin
    known = np.flatnonzero(is_base(tokens[first:last]))
    edits = [
        Edit(first + place, first + place + 1, np.array([base], dtype=np.uint8))
        for place in known.tolist()
        for base in vocab.BASES
        if base != tokens[first + place]
    ]
    found = np.zeros((3, size, 4))
    found[:, ~is_base(tokens[first:last])] = np.nan
    read = EditedWindow(model, tokens, edits, both_strands=both_strands, tolerance=tolerance)
    with progress("mutagenesis", len(edits), "substitutions") as advance:
        for at in range(0, len(edits), 48):
            part = edits[at : at + 48]
            for edit, effect in zip(part, read.effects(part), strict=True):
                place, base = edit.start - first, int(edit.tokens[0]) - vocab.FIRST_BASE
                found[:, place, base] = effect.site, effect.window, effect.distance
            advance(len(part))
    gradient = gradients(model, tokens, first, last, passes=passes, both_strands=both_strands)[first:last]
    site, whole, distance = found
    return Mutagenesis(region, tokens[first:last], site, whole, distance, gradient)


def write_tsv(path: Path | None, found: Mutagenesis) -> None:
    """A row a substitution, to a file that appears whole, or to stdout."""
    head = ("chrom", "pos", "ref", "alt", "llr_site", "llr_window", "embedding_distance", "gradient")
    lines = ["\t".join(head)]
    for place, token in enumerate(found.tokens.tolist()):
        if token not in vocab.BASES:
            continue
        own = token - vocab.FIRST_BASE
        for base in range(4):
            if base != own:
                numbers = (
                    found.site[place, base], found.window[place, base], found.distance[place, base],
                    found.gradient[place, base] - found.gradient[place, own],
                )  # fmt: skip
                where = (found.region.contig, str(found.region.start + place + 1), "ACGT"[own], "ACGT"[base])
                lines.append("\t".join([*where, *(f"{number:.5f}" for number in numbers)]))
    text = "\n".join(lines) + "\n"
    if path is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def command(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a language model.")],
    reference: Annotated[str, typer.Option(help="FASTA: plain, gzip or BGZF.")],
    region: Annotated[str, typer.Option(help="CONTIG:START-END, from 1, both ends inside.")],
    output: Annotated[Path | None, typer.Option(help="The table: .tsv or .h5; default: standard output, TSV.")] = None,
    logo: Annotated[Path | None, typer.Option(help="A picture: .png, .svg or .pdf; up to 400 bp.")] = None,
    window: Annotated[int, typer.Option(min=64, help="bp of context around the region, itself included.")] = WINDOW,
    strands: Annotated[Strands, typer.Option(help="Mean of both strands, or the given one.")] = Strands.BOTH,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="As in genossm variants.")] = TOLERANCE,
    passes: Annotated[int, typer.Option(min=1, help="Masked models: passes of the score that is differentiated.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "auto",
) -> None:
    """Mutate every base of a region in silico, and show what each contributes.

    Example: genossm mutagenesis --checkpoint results/pretrain/tiny --reference ref.fa --region 1:900-999 --logo x.svg
    """
    for path in (output, logo):
        if path is not None:
            check_output(path, checkpoint, reference, others=(logo,) if path is output else ())
    model, _ = load_model(checkpoint, pick_device(device))
    if not isinstance(model, LanguageModel):
        raise GenoSSMError("is a classifier; regions are scored by a language model", path=checkpoint)
    both = strands == Strands.BOTH
    with StopRequest("no table was written; the same command starts again"), Reference(reference) as opened:
        place = parse_region(region, opened)
        if logo is not None:
            check_logo(logo, place.end - place.start)
        found = mutate(model, opened, place, window=window, both_strands=both, tolerance=tolerance, passes=passes)
    if output is not None and output.suffix in (".h5", ".hdf5"):
        write_mutagenesis(output, found.region.contig, found.region.start, found.tokens, _arrays(found))
    else:
        write_tsv(output, found)
    if not is_base(found.tokens).any():
        print(f"note: --region {region}: every base is N, and none has a row", file=sys.stderr)
    if logo is not None:
        own = np.zeros_like(found.gradient)
        known = np.flatnonzero(is_base(found.tokens))
        columns = found.tokens[known] - np.uint8(vocab.FIRST_BASE)
        own[known, columns] = found.gradient[known, columns]
        save_logo(logo, region, place.start + 1, found.probabilities, own)


def _arrays(found: Mutagenesis) -> dict[str, Floats]:
    return {
        "llr_site": found.site,
        "llr_window": found.window,
        "embedding_distance": found.distance,
        "gradient": found.gradient,
    }
