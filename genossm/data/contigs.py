"""One contig under several names: ``chr20``, ``20`` and ``NC_000020.10``; ``chrM``, ``MT`` and ``NC_012920.1``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HUMAN = re.compile(r"NC_0000(\d\d)\.\d+")
_SEX = {"23": "X", "24": "Y"}
_HUMAN_MITOCHONDRION = re.compile(r"NC_012920\.\d+")
_ENSEMBL = re.compile(r"\bdna(?:_\w+)?:chromosome chromosome:[^:\s]+:([^:\s]+):")
_GENBANK = re.compile(r"\bchromosome:? ([0-9A-Za-z]{1,5})(?:[\s,;]|$)")
_UNPLACED = re.compile(r"\b(?:unlocali[sz]ed|unplaced|scaffold|contig|patch|alternate locus)\b", re.IGNORECASE)
_MITOCHONDRION = re.compile(r"\bmitochondri(?:on|al)\b[^,]*,? complete genome", re.IGNORECASE)


def canonical(name: str, description: str = "") -> str:
    """What the names of one contig have in common.

    ``chr`` is dropped, the mitochondrion is MT, human RefSeq accessions become numbers, and where the description of a
    FASTA record says which chromosome it is (RefSeq, GenBank, Ensembl), that counts.
    """
    stated = _ENSEMBL.search(description)
    if stated is None and not _UNPLACED.search(description):
        stated = _GENBANK.search(description)
        if stated is None and _MITOCHONDRION.search(description):
            return "MT"
    if human := _HUMAN.fullmatch(name):
        return _SEX.get(human[1], human[1].lstrip("0"))
    if _HUMAN_MITOCHONDRION.fullmatch(name):
        return "MT"
    short = stated[1] if stated else re.sub(r"^chr(?=.)", "", name, flags=re.IGNORECASE)
    return "MT" if short in ("M", "MT", "Mt", "mt", "Mito", "mito") else short


class ContigNames:
    """The contigs of a FASTA by any name that means one of them.

    A name that is there stands for itself. Any other stands for the one contig with the same :func:`canonical` name;
    where there are several, for none.
    """

    def __init__(self, contigs: Iterable[tuple[str, str]]) -> None:
        """``contigs``: name and description of every record of the FASTA."""
        self.names: list[str] = []
        self._by_canonical: dict[str, list[str]] = {}
        for name, description in contigs:
            self.names.append(name)
            self._by_canonical.setdefault(canonical(name, description), []).append(name)
        self._exact = set(self.names)

    def resolve(self, name: str) -> str | None:
        """The FASTA's name of a contig, or None where it has none, or cannot tell which."""
        if name in self._exact:
            return name
        candidates = self._by_canonical.get(canonical(name), [])
        return candidates[0] if len(candidates) == 1 else None

    def shown(self, limit: int = 5) -> str:
        """The names there are, for a message: the first few of them."""
        more = f" ... ({len(self.names):,} in all)" if len(self.names) > limit else ""
        return ", ".join(self.names[:limit]) + more
