"""GFF3: the features of an annotation, as far as a derived task needs them (Sequence Ontology, GFF3 1.26)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from genossm.data.compression import TextSource
from genossm.data.numbers import whole_number
from genossm.errors import GenoSSMError, shortened

LANDMARKS = frozenset(
    {"chromosome", "region", "contig", "supercontig", "scaffold", "plasmid", "biological_region", "databank_entry"}
)
"""Types that name a whole sequence, or predictions that cover genomes, and no gene."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One line: [start, end) in bp, 0-based; ``attributes`` as column 9 has it."""

    chrom: str
    type: str
    start: int
    end: int
    strand: str
    attributes: str

    def attribute(self, key: str) -> str | None:
        """The value of an attribute as it is written; None where it is absent."""
        for pair in self.attributes.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == key:
                return value.strip()
        return None


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """(line number, text) of a file, plain, gzip or BGZF."""
    rest, number = b"", 0
    for block in TextSource(path):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number += 1
            yield number, line.decode("utf-8", "backslashreplace").rstrip("\r")
    if rest:
        yield number + 1, rest.decode("utf-8", "backslashreplace").rstrip("\r")


def read_features(path: str | os.PathLike[str]) -> Iterator[Feature]:
    """The features of a GFF3 file, plain, gzip or BGZF, in order; sequence after ``##FASTA`` is not read.

    Raises:
        GenoSSMError: E_GFF with FILE:LINE for a line that is no GFF3; E_EMPTY_FILE where there is no feature.
    """

    def fault(text: str, line: int | None, code: str = "E_GFF") -> GenoSSMError:
        return GenoSSMError(text, code=code, path=os.fspath(path), line=line)

    found = False
    for number, line in _lines(path):
        if line.startswith("##FASTA"):
            break
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 9:
            raise fault(f"{len(fields)} tab-separated columns, not the 9 of GFF3", number)
        chrom, _, kind, start, end, _, strand, _, attributes = fields
        first, last = whole_number(start), whole_number(end)
        if first is None or last is None or not 1 <= first <= last:
            raise fault(f"start {shortened(start)!r} and end {shortened(end)!r} are no span, counted from 1", number)
        if strand not in ("+", "-", ".", "?"):
            raise fault(f"strand {strand!r} is none of + - . ?", number)
        if "=" not in attributes and attributes.strip() not in ("", "."):
            raise fault("column 9 has no key=value; is this GTF?", number)
        found = True
        yield Feature(chrom, kind, first - 1, last, strand, attributes)
    if not found:
        raise fault("no feature in it", None, "E_EMPTY_FILE")


@dataclass(frozen=True)
class Annotation:
    """What a derived task asks of an annotation: spans [start, end) by contig, in no order.

    ``coding``: coding sequence of protein-coding genes. ``features``: every feature but the :data:`LANDMARKS`.
    """

    coding: dict[str, list[tuple[int, int]]]
    features: dict[str, list[tuple[int, int]]]


def read_annotation(path: str | os.PathLike[str]) -> Annotation:
    """The spans of a GFF3's coding sequence and of all its features.

    A CDS counts if no line above it (its Parents, up to the gene) is a pseudogene or a transposable element, is
    marked ``pseudo=true``, or has a ``biotype`` or ``gene_biotype`` other than ``protein_coding``.

    Raises:
        GenoSSMError: as :func:`read_features`.
    """
    parents: dict[str, str] = {}
    barred: set[str] = set()
    pieces: list[tuple[Feature, str, bool]] = []
    features: dict[str, list[tuple[int, int]]] = {}
    for feature in read_features(path):
        if feature.type in LANDMARKS:
            continue
        features.setdefault(feature.chrom, []).append((feature.start, feature.end))
        bar = _is_barred(feature)
        parent = (feature.attribute("Parent") or "").partition(",")[0]
        if feature.type == "CDS":
            pieces.append((feature, parent, bar))
        elif identity := feature.attribute("ID"):
            parents[identity] = parent
            if bar:
                barred.add(identity)
    coding: dict[str, list[tuple[int, int]]] = {}
    for feature, above, bar in pieces:
        seen: set[str] = set()
        while above and not bar and above not in seen:
            bar = above in barred
            seen.add(above)
            above = parents.get(above, "")
        if not bar:
            coding.setdefault(feature.chrom, []).append((feature.start, feature.end))
    return Annotation(coding, features)


def _is_barred(feature: Feature) -> bool:
    biotype = feature.attribute("gene_biotype") or feature.attribute("biotype") or "protein_coding"
    return (
        "pseudogen" in feature.type
        or feature.type.startswith("transposable_element")
        or feature.attribute("pseudo") == "true"
        or biotype != "protein_coding"
    )
