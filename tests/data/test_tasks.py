"""Tables of labelled sequences: as people write them, and what is said when they are wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from genossm.data.tasks import read_table
from genossm.errors import GenoSSMError


def _table(folder: Path, text: str | bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "sequence,label\nACGT,0\nacgn,1\n",
        "label\tid\tsequence\n0\tx\tACGT\n1\ty\tACGN\n",
        "﻿Seq;Class\r\nACGT;0\r\nACGN;1",
        "sequence,label\rACGT,0\rACGN,1\r",
        '\n"sequence","label"\n\n"ACGT","0"\n" ACGN "," 1"\n\n',
        gzip.compress(b"sequence,label\nACGT,0\nACGN,1\n", mtime=0),
    ],
)
def test_tables_as_people_write_them(tmp_path: Path, text: str | bytes) -> None:
    table = read_table(_table(tmp_path, text))
    assert (table.sequences, table.labels, len(table)) == (["ACGT", "ACGN"], ["0", "1"], 2)


def test_named_columns_and_lines(tmp_path: Path) -> None:
    path = _table(tmp_path, 'a,b,note\nACGT,x,"two\nlines"\n\nRYK,y,\n')
    table = read_table(path, sequence_column="A", label_column="b")
    assert (table.sequences, table.labels, table.lines) == (["ACGT", "RYK"], ["x", "y"], [2, 5])


def test_a_sequence_of_a_megabase(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, f"sequence,label\n{'ACGT' * 250_000},a\nA,b\n"))
    assert len(table.sequences[0]) == 1_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv: E_EMPTY_FILE the file is empty"),
        ("\n \n", "t.csv: E_EMPTY_FILE the file is empty"),
        ("sequence,label\n", "t.csv: E_EMPTY_FILE no row below the header"),
        ("seq_1,label\nA,0\n", "t.csv:1: no column 'sequence' or 'seq' or"),
        ("ACGT,0\nACGA,1\n", "the first line must name the columns, and it names: ACGT, 0"),
        (
            "sequence,score\nA,0\n",
            "for the labels; the first line must name the columns, and it names: sequence, score",
        ),
        ("sequence,label,Label\nA,0,1\n", "t.csv:1: column 'label' stands twice"),
        ("sequence,label\nA,0\nC\n", "t.csv:3: 1 fields, but the header has 2"),
        ("sequence,label\nA,0\nC, \n", "t.csv:3: the label is empty"),
        ("sequence,label\nA,0\nC,NaN\n", "t.csv:3: the label 'NaN' stands for a missing value"),
        ("sequence,label\n,0\nC,1\n", "t.csv:2: the sequence is empty"),
        ("sequence,label\nA,0\nACXG,1\n", "t.csv:3: col 3: E_BAD_CHAR 'X' in the sequence is no nucleotide letter"),
        ("sequence,label\nA,0\nACé,1\n", "t.csv:3: col 3: E_BAD_CHAR"),
        ("sequence,label\nA,0\nACU,1\n", "t.csv:3: col 3: E_RNA 'U' in the sequence is no nucleotide letter; write T"),
        ("sequence,label\nA,0\nC,0\n", "t.csv: all rows have the label '0'"),
        ("sequence,label\nA,0.1\nC,0.2\nG,0.3\n", "t.csv: 3 labels in 3 rows; is 'label' the column of labels?"),
        ('sequence,label\nA,0\n"C,1\n', "t.csv:3: not a valid table"),
        ('sequence,label\nA,0\n"AC\nGT",1\n', "t.csv:3: col 3: E_BAD_CHAR"),
        ("sequence,label\nA,0\nAC GT,1\n", "t.csv:3: col 3: E_BAD_CHAR ' ' in the sequence"),
        ("sequence,label\nA,0\nAC-GT,1\n", "t.csv:3: col 3: E_BAD_CHAR '-' in the sequence"),
        ("sequence,label\nA,0\nMKVLAT,1\n", "t.csv:3: col 4: E_BAD_CHAR 'L' in the sequence"),
        ("sequence,label\nA,0\nA\x00C,1\n", "t.csv:3: E_ENCODING a NUL byte"),
        ("sequence,label\nA,0\nC,1,2\n", "t.csv:3: 3 fields, but the header has 2"),
        ("sequence\nA\nC\n", "t.csv:1: no column 'label'"),
        (">r1\nACGT\n>r2\nACGT\n", "t.csv:1: no column 'sequence'"),
        ('{"sequence": 1}\n{"sequence": 2}\n', "t.csv:1: no column 'sequence'"),
        ("sequence,label\nA,0\nC,null\n", "t.csv:3: the label 'null' stands for a missing value"),
        ("sequence,label\n" + "ACGTACGTAC,0\n" * 3, "t.csv: all rows have the label '0'"),
        (b"sequence,label\nA,\xe9\n", "t.csv:2: E_ENCODING"),
        ("sequence,label\nA,0\nC,1\n".encode("utf-16"), "t.csv:1: E_ENCODING"),
        (gzip.compress(b"sequence,label\nA,0\nC,1\n", mtime=0)[:-3], "t.csv: E_TRUNCATED_GZ"),
    ],
)
def test_faults(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(GenoSSMError) as caught:
        read_table(_table(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_column_for_both(tmp_path: Path) -> None:
    with pytest.raises(GenoSSMError, match="same column"):
        read_table(_table(tmp_path, "a,b\nA,C\n"), "a", "a")


def test_a_benchmark(shared: Path) -> None:
    table = read_table(shared / "data/tasks/gue/mouse/3/train.csv.gz")
    assert len(table) == 1904
    assert {len(sequence) for sequence in table.sequences} == {101}
    assert set(table.labels) == {"0", "1"}


def guessed(text: str, folder: Path) -> tuple[list[str], list[str]]:
    said: list[str] = []
    table = read_table(_table(folder, text), say=said.append)
    return table.labels, said


def test_columns_are_guessed_by_what_is_in_them_and_said(tmp_path: Path) -> None:
    rows = "".join(f"{i},ACGTACGTACGT,{'ab'[i % 2]}\n" for i in range(30))
    labels, said = guessed("id,region_text,group\n" + rows, tmp_path)
    assert labels[:3] == ["a", "b", "a"]
    assert said == [f"{tmp_path / 't.csv'}: sequences of column 'region_text', classes of group"]


def test_a_table_without_a_header(tmp_path: Path) -> None:
    rows = "".join(f"{('EI', 'IE', 'N')[i % 3]},   GENE-{i},   ACGTACGTACGT\n" for i in range(30))
    table = read_table(_table(tmp_path, rows))
    assert (table.names, len(table), table.lines[:2]) == (["EI", "IE", "N"], 30, [1, 2])


@pytest.mark.parametrize(
    ("text", "kind", "names"),
    [
        ("sequence,label\nACGT,NNNY\nAC,YN\n", "tokens", ["N", "Y"]),
        ("sequence,label\n" + "".join(f"ACGTACGTAC,{i / 7:.3f}\n" for i in range(30)), "regression", ["label"]),
        ("sequence,label\nAC,10\nGT,2\n", "classes", ["10", "2"]),
    ],
)
def test_the_kind_of_labels_is_guessed(text: str, kind: str, names: list[str], tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, text))
    assert (table.kind, table.names) == (kind, names)


def test_several_columns_are_labels_or_numbers(tmp_path: Path) -> None:
    path = _table(tmp_path, "sequence,a,b\nACGT,1,no\nAC,0,yes\n")
    table = read_table(path, label_column=["a", "b"])
    assert (table.kind, table.values, table.names) == ("multilabel", [(1.0, 0.0), (0.0, 1.0)], ["a", "b"])
    path = _table(tmp_path, "sequence,a,b\nACGT,1,-2.5\nAC,0,1e3\n")
    assert read_table(path, label_column=["a", "b"]).values == [(1.0, -2.5), (0.0, 1000.0)]
    path = _table(tmp_path, "sequence,label\nACGT,x;y\nAC,\nGT,y | z\n")
    table = read_table(path, kind="multilabel")
    assert (table.names, table.values[2]) == (["x", "y", "z"], (0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("regression", "sequence,label\nA,1.5\nC,high\n", "t.csv:3: the label 'high' is no number"),
        ("regression", 'sequence,label\nA,1.5\nC,"2,5"\n', "the label '2,5' is no number; write a point"),
        ("regression", "sequence,label\nA,1.5\nC,inf\n", "t.csv:3: the label 'inf' is no number"),
        ("regression", "sequence,label\nA,1.5\nC,1.5\n", "a column of numbers is constant"),
        ("multilabel", "sequence,label\nA,x\nC,x\n", "one label in all, x; two are needed"),
        ("tokens", "sequence,label\nACGT,NNN\nAC,NN\n", "t.csv:2: 3 labels for 4 bases"),
    ],
)
def test_faults_of_other_kinds(kind: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GenoSSMError) as caught:
        read_table(_table(tmp_path, text), kind=kind)  # type: ignore[arg-type]
    assert message in str(caught.value)
    with pytest.raises(GenoSSMError, match="is neither 0 nor 1"):
        read_table(_table(tmp_path, "sequence,a,b\nA,1,2\nC,0,1\n"), label_column=["a", "b"], kind="multilabel")
    with pytest.raises(GenoSSMError, match="classes are in one column, and 2 are named: a, b"):
        read_table(_table(tmp_path, "sequence,a,b\nA,1,2\nC,0,1\n"), label_column=["a", "b"], kind="classes")
