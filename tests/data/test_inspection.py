"""What is wrong with a data set: each fault is counted, and the known ones of the official data are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genossm import vocab
from genossm.data.inspection import Rows, inspect_rows, repeats, shared
from genossm.stages.inspect_data import inspect_data, show


def random_rows(count: int, length: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(7, 11, (count, length)).astype(np.uint8))


def test_repeats_on_either_strand_and_of_another_label() -> None:
    first = random_rows(3, 50, 0)
    rows = Rows(["a", "b", "a", "a", "b"], [*first, first[0], vocab.reverse_complement(first[2])])
    assert repeats(rows) == {"duplicates": 1, "reverse_complement_duplicates": 1, "conflicting_labels": 1}
    places = [("1", 0, 9), ("1", 0, 9), ("2", 0, 9)]
    assert repeats(Rows(["a", "b", "a"], places=places)) == {"duplicates": 1, "conflicting_labels": 1}


def test_what_is_shared_with_train_by_class() -> None:
    train, test = random_rows(4, 60, 1), random_rows(4, 60, 2)
    test[0] = vocab.reverse_complement(train[1])
    test[1] = np.concatenate([train[2][10:45], test[1][:20]])
    about = shared(Rows(["a"] * 4, train), Rows(["a", "b", "a", "b"], test))
    assert (about["identical"], about["near"]) == (1, 2)
    assert about["near_by_class"] == {"a": 1, "b": 1}


def test_intervals_overlap_where_they_share_32_bp() -> None:
    train = Rows(["a"] * 3, places=[("1", 100, 200), ("1", 150, 160), ("2", 0, 50)])
    places = [
        ("1", 168, 300),
        ("1", 169, 300),
        ("1", 0, 132),
        ("1", 0, 131),
        ("2", 0, 50),
        ("3", 0, 50),
        ("1", 110, 190),
    ]
    about = shared(train, Rows(["a"] * 7, places=places))
    assert (about["identical"], about["near"]) == (1, 4)


def test_warnings_name_counts() -> None:
    long = random_rows(300, 100, 3)
    gc = [np.where(s < 9, 8, s).astype(np.uint8) for s in random_rows(2, 100, 4)]
    train = Rows(["x"] * 300 + ["rare"] * 2, [*long, *gc])
    test = Rows(["x", "new"], [long[0], random_rows(1, 10, 5)[0]])
    report, warnings = inspect_rows({"train": train, "test": test})
    told = "\n".join(warnings)
    assert "train: class 'rare' has 2 of 302 rows" in told
    assert "train: the share of G and C differs by class, 'x'" in told
    assert "test: 1 of 2 sequences are shorter than 20 bp" in told
    assert "test: 1 of 2 rows are also in train ('x' 1 of 1)" in told
    assert "test: 1 classes are not in train: new" in told
    assert "test: lengths differ by class, 'new' has 10 bp (median), 'x' 100" in told
    assert "train\trare\t2\t100\t100\t100\t" in show(report)


def test_a_clean_set_has_no_warning() -> None:
    report, warnings = inspect_rows({
        "train": Rows(["a", "b"] * 20, random_rows(40, 200, 6)), "test": Rows(["a", "b"] * 5, random_rows(10, 200, 7)),
    })  # fmt: skip
    assert warnings == []
    assert report["shared_with_train"]["test"]["near"] == 0


@pytest.mark.slow
def test_the_known_leaks_of_the_official_data_are_found(shared: Path) -> None:
    tasks = shared / "data" / "tasks"
    folder = tasks / "genomic_benchmarks_intervals" / "human_enhancers_ensembl"
    report, warnings = inspect_data({"train": folder / "train", "test": folder / "test"})
    leak = report["shared_with_train"]["test"]
    assert leak["identical_by_class"] == {"negative": 0, "positive": 11_694}
    assert leak["rows_by_class"]["positive"] == 15_485
    assert sum(of["too_short"] for of in report["splits"].values()) == 2_854
    assert any("11,694 of 30,970 rows are also in train" in line for line in warnings)
    layer = tasks / "ienhancer" / "layer2"
    splits = {
        split: {name: layer / f"{split}_{name}_enhancers.fa" for name in ("strong", "weak")}
        for split in ("train", "test")
    }
    report, warnings = inspect_data(splits)
    assert report["shared_with_train"]["test"]["identical_by_class"] == {"strong": 100, "weak": 0}
    assert "test: 100 of 200 rows are also in train ('strong' 100 of 100)" in warnings
