"""The alleles of a variant record against a reference: what can be scored, as what change, and why the rest cannot.

A change is written in its smallest form: shared bases are cut off its ends and, where it only adds or only removes
bases, it is shifted to the left as far as it goes (Tan, Abecasis and Kang 2015), so every way to write a variant gives
the same change. ``status`` of an allele that is no change to score:

* ``symbolic``, ``breakend``, ``spanning`` (``*``), ``no_alt`` (``.``): no sequence is stated;
* ``telomere``: POS 0, or one beyond the contig;
* ``unchanged``: ALT is REF; ``n_allele``: an N in REF or ALT;
* ``bad_chrom``, ``bad_pos``, ``bad_ref``, ``bad_alt``, ``unknown_contig``, ``out_of_range``, ``ref_mismatch``: faults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genossm import vocab
from genossm.data.reference import Reference
from genossm.data.vcf import Fault, VariantRecord, alt_kind

Tokens = npt.NDArray[np.uint8]

READY = "ok"
_FAULT_STATUS = {
    "E_BAD_CHROM": "bad_chrom",
    "E_BAD_POS": "bad_pos",
    "E_BAD_REF": "bad_ref",
    "E_BAD_ALT": "bad_alt",
    "E_UNKNOWN_CONTIG": "unknown_contig",
    "E_POS_RANGE": "out_of_range",
    "E_REF_MISMATCH": "ref_mismatch",
}
_SHIFT = 1024
"""bp of the reference read at a time while a change is shifted."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Bases [start, end) of a contig of the reference replaced by ``tokens``, uint8; in the smallest form."""

    contig: str
    start: int
    end: int
    tokens: Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Allele:
    """One ALT of a record: its change where the status is ``ok``, else None."""

    alt: str
    status: str
    change: Change | None


def judge(record: VariantRecord, reference: Reference) -> tuple[Fault | None, list[Allele]]:
    """The fault of a record, if it has one, and its alleles, one an ALT."""
    fault = record.fault or _fault_here(record, reference)
    if fault is not None:
        return fault, [Allele(alt, _FAULT_STATUS[fault.code], None) for alt in record.alts]
    return None, [_allele(record, alt, reference) for alt in record.alts]


def _is_telomere(record: VariantRecord, length: int) -> bool:
    return record.pos in (0, length + 1)


def _fault_here(record: VariantRecord, reference: Reference) -> Fault | None:
    """What is wrong with a record in the light of the reference."""
    contig = reference.names.resolve(record.chrom)
    if contig is None:
        return Fault(
            "E_UNKNOWN_CONTIG", f"contig {record.chrom!r} is not in the FASTA, which has {reference.names.shown()}"
        )
    length = reference.lengths[contig]
    if _is_telomere(record, length):
        return None
    start, end = record.pos - 1, record.pos - 1 + len(record.ref)
    if end > length:
        return Fault("E_POS_RANGE", f"REF ends at {end:,}, contig {contig} has {length:,} bp")
    found = reference.read(contig, start, end)
    if not np.array_equal(found, vocab.encode(record.ref)):
        there = vocab.decode(found)
        return Fault("E_REF_MISMATCH", f"REF is {record.ref[:40]}, the FASTA has {there[:40]}; another assembly?")
    return None


def _allele(record: VariantRecord, alt: str, reference: Reference) -> Allele:
    kind = alt_kind(alt)
    if kind != "bases":
        return Allele(alt, kind, None)
    contig = reference.names.resolve(record.chrom)
    assert contig is not None
    if _is_telomere(record, reference.lengths[contig]):
        return Allele(alt, "telomere", None)
    ref_tokens, alt_tokens = vocab.encode(record.ref), vocab.encode(alt)
    if vocab.N in ref_tokens or vocab.N in alt_tokens:
        return Allele(alt, "n_allele", None)
    if np.array_equal(ref_tokens, alt_tokens):
        return Allele(alt, "unchanged", None)
    return Allele(alt, READY, smallest(reference, contig, record.pos - 1, ref_tokens, alt_tokens))


def smallest(reference: Reference, contig: str, start: int, ref: Tokens, alt: Tokens) -> Change:
    """The smallest, leftmost form of replacing ``ref``, which stands at ``start``, by ``alt``; they differ."""
    shared = min(len(ref), len(alt))
    tail = _shared_length(ref[::-1][:shared], alt[::-1][:shared])
    ref, alt = ref[: len(ref) - tail], alt[: len(alt) - tail]
    shared = min(len(ref), len(alt))
    head = _shared_length(ref[:shared], alt[:shared])
    ref, alt, start = ref[head:], alt[head:], start + head
    if len(ref) and len(alt):
        return Change(contig, start, start + len(ref), alt)
    moved = ref if len(ref) else alt
    shift = _leftwards(reference, contig, start, moved)
    moved = np.roll(moved, shift % len(moved))
    start -= shift
    return Change(contig, start, start + len(ref), moved if len(alt) else alt)


def _shared_length(a: Tokens, b: Tokens) -> int:
    """How many first tokens of two arrays of one length are the same."""
    differ = np.flatnonzero(a != b)
    return int(differ[0]) if differ.size else len(a)


def _leftwards(reference: Reference, contig: str, start: int, moved: Tokens) -> int:
    """By how much bases added or removed at ``start`` can be shifted to the left: as long as they turn round."""
    shift, size = 0, len(moved)
    while shift < start:
        before = reference.read(contig, max(0, start - shift - _SHIFT), start - shift)[::-1]
        cycle = moved[::-1][(shift + np.arange(len(before))) % size]
        # no base is scored that is not known
        same = _shared_length(np.where(before == vocab.N, vocab.PAD, before), cycle)
        shift += same
        if same < len(before):
            break
    return shift
