"""What a labelled data set is like, and what is wrong with it, before anything is trained on it.

Rows are sequences, or intervals whose genome is not at hand: then equal and overlapping intervals stand for equal and
similar sequences.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from genossm import vocab
from genossm.data import leakage

Tokens = npt.NDArray[np.uint8]
Place = tuple[str, int, int]
"""chrom, start, end; 0-based, half-open."""

TOO_SHORT = 20
"""bp below which a sequence tells next to nothing."""
RARE = 0.01
"""A class with a smaller share of the rows is rare."""
UNLIKE_GC = 0.1
"""Classes whose mean share of G and C differs by more can be told apart by it."""


@dataclass(frozen=True)
class Rows:
    """The rows of a split: a label each, and their sequences (token ids) or their places."""

    labels: list[str]
    sequences: list[Tokens] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """bp of every row."""
        if self.sequences:
            return np.array([len(s) for s in self.sequences], dtype=np.int64)
        return np.array([end - start for _, start, end in self.places], dtype=np.int64)


def inspect_rows(splits: Mapping[str, Rows]) -> tuple[dict[str, Any], list[str]]:
    """The figures of every split and of what the others share with ``train``, and warnings that name counts.

    Args:
        splits: train, and what there is of valid and test.
    """
    report: dict[str, Any] = {"splits": {}, "shared_with_train": {}}
    warnings: list[str] = []
    for name, rows in splits.items():
        about = describe(rows)
        report["splits"][name] = about
        warnings += _warn_of_rows(name, about)
    train = splits["train"]
    for name, rows in splits.items():
        if name == "train":
            continue
        about = shared(train, rows)
        report["shared_with_train"][name] = about
        warnings += _warn_of_leak(name, about)
        missing = sorted(set(rows.labels) - set(train.labels))
        if missing:
            warnings.append(f"{name}: {len(missing)} classes are not in train: {', '.join(missing[:8])}")
    return report, warnings


def describe(rows: Rows) -> dict[str, Any]:
    """Rows and lengths by class, share of G and C by class, repeats, and sequences that are too short."""
    lengths, labels = rows.lengths, np.array(rows.labels)
    about: dict[str, Any] = {
        "rows": len(rows.labels),
        "classes": dict(sorted(Counter(rows.labels).items())),
        "length": _spread(lengths),
        "length_by_class": {name: _spread(lengths[labels == name]) for name in sorted(set(rows.labels))},
        "too_short": int((lengths < TOO_SHORT).sum()),
        **repeats(rows),
    }
    if rows.sequences:
        gc = np.array([_gc(s) for s in rows.sequences])
        about["gc_by_class"] = {name: _mean(gc[labels == name]) for name in sorted(set(rows.labels))}
        about["with_n"] = int(sum(bool((s == vocab.N).any()) for s in rows.sequences))
    return about


def repeats(rows: Rows) -> dict[str, int]:
    """Rows that repeat an earlier one: as it is, or as its reverse complement; and how many differ from it in label."""
    if not rows.sequences:
        seen: dict[Place, str] = {}
        same = conflicting = 0
        for place, label in zip(rows.places, rows.labels, strict=True):
            same += place in seen
            conflicting += seen.setdefault(place, label) != label
        return {"duplicates": same, "conflicting_labels": conflicting}
    known: dict[bytes, str] = {}
    same = other = conflicting = 0
    for tokens, label in zip(rows.sequences, rows.labels, strict=True):
        given, reverse = tokens.tobytes(), vocab.reverse_complement(tokens).tobytes()
        if given in known:
            same += 1
            conflicting += known[given] != label
        elif reverse in known:
            other += 1
            conflicting += known[reverse] != label
        known.setdefault(given, label)
    return {"duplicates": same, "reverse_complement_duplicates": other, "conflicting_labels": conflicting}


def shared(train: Rows, rows: Rows) -> dict[str, Any]:
    """How many rows are in train, too: whole, and in part (32 bp on either strand; an overlap of 32 bp); by class."""
    if rows.sequences:
        exact = leakage.identical(train.sequences, rows.sequences)
        near = leakage.shared_words(train.sequences, rows.sequences) | exact
    else:
        known = set(train.places)
        exact = np.array([place in known for place in rows.places], dtype=bool)
        near = _overlapping(train.places, rows.places) | exact
    labels = np.array(rows.labels)
    return {
        "rows": len(rows.labels),
        "identical": int(exact.sum()),
        "near": int(near.sum()),
        "identical_by_class": {name: int(exact[labels == name].sum()) for name in sorted(set(rows.labels))},
        "near_by_class": {name: int(near[labels == name].sum()) for name in sorted(set(rows.labels))},
        "rows_by_class": dict(sorted(Counter(rows.labels).items())),
    }


def _overlapping(train: Sequence[Place], places: Sequence[Place]) -> npt.NDArray[np.bool_]:
    """Which places overlap one of train by ``leakage.K`` bp or more."""
    by_contig: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for chrom, start, end in train:
        by_contig[chrom].append((start, end))
    ordered = {}
    for chrom, spans in by_contig.items():
        array = np.array(sorted(spans), dtype=np.int64)
        # the furthest end of all that begin before: who begins in time and reaches far enough overlaps
        ordered[chrom] = array[:, 0], np.maximum.accumulate(array[:, 1])
    found = np.zeros(len(places), dtype=bool)
    for i, (chrom, start, end) in enumerate(places):
        if chrom in ordered:
            starts, furthest = ordered[chrom]
            last = int(np.searchsorted(starts, end - leakage.K, side="right")) - 1
            found[i] = last >= 0 and furthest[last] >= start + leakage.K
    return found


def _spread(values: npt.NDArray[np.int64]) -> dict[str, int]:
    low, middle, high = (int(v) for v in np.quantile(values, [0, 0.5, 1], method="nearest"))
    return {"shortest": low, "median": middle, "longest": high}


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(f"{np.nanmean(values):.4f}") if np.isfinite(values).any() else 0.0


def _gc(tokens: Tokens) -> float:
    bases = int(((tokens >= vocab.A) & (tokens <= vocab.T)).sum())
    return int(((tokens == vocab.C) | (tokens == vocab.G)).sum()) / bases if bases else float("nan")


def _warn_of_rows(name: str, about: Mapping[str, Any]) -> list[str]:
    found = []
    rows, classes = about["rows"], about["classes"]
    if about["too_short"]:
        found.append(f"{name}: {about['too_short']:,} of {rows:,} sequences are shorter than {TOO_SHORT} bp")
    if about["duplicates"]:
        found.append(f"{name}: {about['duplicates']:,} of {rows:,} rows repeat an earlier row")
    if about.get("reverse_complement_duplicates"):
        count = about["reverse_complement_duplicates"]
        found.append(f"{name}: {count:,} of {rows:,} rows are the reverse complement of an earlier row")
    if about["conflicting_labels"]:
        found.append(f"{name}: {about['conflicting_labels']:,} repeated rows have another label than the first")
    for label, count in classes.items():
        if count < RARE * rows:
            found.append(f"{name}: class {label!r} has {count:,} of {rows:,} rows")
    gc = about.get("gc_by_class", {})
    if gc and max(gc.values()) - min(gc.values()) > UNLIKE_GC:
        low, high = min(gc, key=gc.__getitem__), max(gc, key=gc.__getitem__)
        found.append(
            f"{name}: the share of G and C differs by class, {low!r} {gc[low]:.2f} and {high!r} {gc[high]:.2f}"
        )
    spans = {label: of["median"] for label, of in about["length_by_class"].items()}
    if max(spans.values()) > 1.2 * min(spans.values()):
        low, high = min(spans, key=spans.__getitem__), max(spans, key=spans.__getitem__)
        found.append(
            f"{name}: lengths differ by class, {low!r} has {spans[low]:,} bp (median), {high!r} {spans[high]:,}"
        )
    return found


def _warn_of_leak(name: str, about: Mapping[str, Any]) -> list[str]:
    found = []
    for what, words in (("identical", "are also in train"), ("near", f"share {leakage.K} bp or more with train")):
        if not about[what]:
            continue
        each = ", ".join(
            f"{label!r} {count:,} of {about['rows_by_class'][label]:,}"
            for label, count in about[f"{what}_by_class"].items()
            if count
        )
        found.append(f"{name}: {about[what]:,} of {about['rows']:,} rows {words} ({each})")
    return found
