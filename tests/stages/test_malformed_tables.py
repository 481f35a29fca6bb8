"""Every kind of malformed table that was tried, through the command line: one line with the place and the mend."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genossm import cli

DNA = "ACGTACGTACGT"
HEAD = "sequence,label\n"
GOOD = HEAD + f"{DNA},a\nTTTTACGTACGT,b\n" * 3
REGRESSION, TOKENS = ["--task", "regression"], ["--task", "tokens"]
TWO = ["--label-column", "a", "--label-column", "b"]


def parquet(**columns: Any) -> bytes:
    held = io.BytesIO()
    pq.write_table(pa.table(columns), held)
    return held.getvalue()


def packed() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return held.getvalue()


WHOLE = parquet(sequence=[DNA] * 6, label=["a", "b"] * 3)

KINDS: dict[str, tuple[str, str | bytes, list[str], str]] = {
    "no such file": ("", "", [], "t.csv: No such file or directory"),
    "empty file": ("t.csv", "", [], "t.csv: E_EMPTY_FILE the file is empty"),
    "header only": ("t.csv", HEAD, [], "t.csv: E_EMPTY_FILE no row below the header"),
    "no label column": ("t.csv", f"sequence\n{DNA}\n", [], ":1: no column 'label'"),
    "no sequence column": ("t.csv", "id,label\n1,a\n2,b\n", [], "(--sequence-column says which one)"),
    "two columns of sequences": (
        "t.csv", f"up,down,label\n{DNA},{DNA},a\n{DNA},{DNA},b\n", [], "it names: up, down, label (--sequence-column",
    ),
    "two columns of labels": (
        "t.csv", "sequence,u,v\n" + "".join(f"{DNA},{i % 2},{i % 3}\n" for i in range(30)), [],
        "it names: sequence, u, v (--label-column says which one)",
    ),
    "a column that is not there": ("t.csv", GOOD, ["--label-column", "klass"], ":1: no column 'klass' for the labels"),
    "one column for both": ("t.csv", GOOD, ["--sequence-column", "label"], ":1: sequences and labels are asked of"),
    "duplicate header": ("t.csv", f"sequence,label,Label\n{DNA},a,b\n", [], ":1: column 'label' stands twice"),
    "one class": ("t.csv", HEAD + f"{DNA},a\n" * 4, [], "all rows have the label 'a'; two are needed at least"),
    "a class of one row": ("t.csv", GOOD + f"{DNA},c\n", [], "class 'c' has one row, so none can be held out"),
    "identifiers for labels": (
        "t.csv", HEAD + "".join(f"{DNA},g{i}\n" for i in range(9)), [], "9 labels in 9 rows; is 'label' the column",
    ),
    "NaN label": ("t.csv", GOOD + f"{DNA},NaN\n", [], ":8: the label 'NaN' stands for a missing value; remove the row"),
    "empty label": ("t.csv", GOOD + f"{DNA},\n", [], ":8: the label is empty; fill it in"),
    "empty sequence": ("t.csv", GOOD + ",a\n", [], ":8: the sequence is empty; fill it in"),
    "other letters": ("t.csv", GOOD + "ACG!ACGT,a\n", [], ":8: col 4: E_BAD_CHAR '!' in the sequence"),
    "protein": ("t.csv", HEAD + "MKVLATREWQ,a\nMSTNPKPQRK,b\n", [], ":2: col 4: E_BAD_CHAR 'L' in the sequence"),
    "RNA": ("t.csv", GOOD + "ACGUACGU,a\n", [], ":8: col 4: E_RNA 'U' in the sequence is no nucleotide letter; write"),
    "X for unknown": ("t.csv", GOOD + "ACGXACGT,a\n", [], ":8: col 4: E_BAD_CHAR 'X' in the sequence is no nucleotide"),
    "spaces": ("t.csv", GOOD + "ACG ACGT,a\n", [], "; remove the blanks and line breaks within it"),
    "gaps": ("t.csv", GOOD + "ACG--CGT,a\n", [], ":8: col 4: E_BAD_CHAR '-' in the sequence is no nucleotide letter;"),
    "quoted newline": ("t.csv", GOOD + '"ACGT\nACGT",a\n', [], ":8: col 5: E_BAD_CHAR '\\n' in the sequence"),
    "unbalanced quotes": ("t.csv", GOOD + f'"{DNA},a\n', [], ":8: not a valid table: unexpected end of data; see to"),
    "short row": ("t.csv", GOOD + f"{DNA}\n", [], ":8: 1 fields, but the header has 2; they are parted by ','"),
    "long row": ("t.csv", GOOD + f"{DNA},a,b\n", [], ":8: 3 fields, but the header has 2"),
    "two delimiters": ("t.csv", f"sequence\tlabel\n{DNA},a\n", [], ":2: 1 fields, but the header has 2; they are"),
    "huge field": ("t.csv", GOOD + "A" * 300_000 + "!,a\n", [], ":8: col 300001: E_BAD_CHAR '!'"),
    "NUL byte": ("t.csv", GOOD.encode() + b"AC\0GT,a\n", [], ":8: E_ENCODING a NUL byte: damaged, or no UTF-8 text"),
    "UTF-16": ("t.csv", GOOD.encode("utf-16"), [], ":1: E_ENCODING not UTF-8 text; save it as UTF-8"),
    "UTF-16 without a mark": ("t.csv", GOOD.encode("utf-16-le"), [], ":1: E_ENCODING a NUL byte"),
    "Latin-1": ("t.csv", GOOD.encode() + f"{DNA},é\n".encode("latin-1"), [], ":8: E_ENCODING not UTF-8 text"),
    "gzip cut short": ("t.csv.gz", gzip.compress(GOOD.encode(), mtime=0)[:-5], [], "E_TRUNCATED_GZ cut short"),
    "picture": ("t.csv", b"\x89PNG\r\n\x1a\n" + bytes(40), [], ":1: E_ENCODING is a picture; give a table"),
    "workbook": ("t.xlsx", packed(), [], "t.xlsx: is a workbook; save its sheet as CSV"),
    "old workbook": ("t.csv", b"\xd0\xcf\x11\xe0" + bytes(40), [], ":1: E_ENCODING is an Excel workbook; save its"),
    "zip archive": ("t.csv", packed(), [], "E_COMPRESSION compressed by zip (unzip); unpack it"),
    "Parquet by another name": ("t.csv", WHOLE, [], ":1: E_ENCODING is Parquet; name it .parquet"),
    "no Parquet": ("t.parquet", b"sequence,label", [], "is no Parquet file, or not a whole one; write it again"),
    "Parquet cut short": ("t.parquet", WHOLE[:-20], [], "t.parquet: is no Parquet file, or not a whole one"),
    "Parquet damaged": ("t.parquet", WHOLE[:60] + bytes(30) + WHOLE[90:], [], "t.parquet: is no Parquet file, or not"),
    "Parquet without a row": (
        "t.parquet", parquet(sequence=pa.array([], pa.string()), label=pa.array([], pa.string())), [], "E_EMPTY_FILE",
    ),
    "Parquet, numbers for sequences": (
        "t.parquet", parquet(sequence=[1, 2, 3, 4], label=["a", "b"] * 2), [], "t.parquet:1: col 1: E_BAD_CHAR '1'",
    ),
    "Parquet, null label": (
        "t.parquet", parquet(sequence=[DNA] * 4, label=["a", None, "b", "a"]), [], "t.parquet:2: the label is empty",
    ),
    "FASTA named CSV": ("t.csv", ">a\nACGT\n>b\nACGT\n", [], ":1: no column 'sequence'"),
    "web page": ("t.csv", "<!DOCTYPE html>\n<html>404</html>\n", [], ":1: no column 'sequence'"),
    "text for a number": ("t.csv", HEAD + f"{DNA},1.5\n{DNA},high\n", REGRESSION, ":3: the label 'high' is no number"),
    "infinite number": ("t.csv", HEAD + f"{DNA},1.5\n{DNA},inf\n", REGRESSION, ":3: the label 'inf' is no number"),
    "decimal comma": ("t.csv", f"sequence;label\n{DNA};0,5\n", REGRESSION, ":2: the label '0,5' is no number; write a"),
    "constant numbers": ("t.csv", HEAD + f"{DNA},1.5\n" * 3, REGRESSION, "a column of numbers is constant"),
    "labels of 0, 1 and 2": (
        "t.csv", f"sequence,a,b\n{DNA},1,0\n{DNA},2,1\n", ["--task", "multilabel", *TWO],
        ":3: the label '2' is neither 0 nor 1",
    ),
    "classes in two columns": (
        "t.csv", f"sequence,a,b\n{DNA},1,0\n{DNA},0,1\n", ["--task", "classes", *TWO], "classes are in one column, and",
    ),
    "labels of another length": (
        "t.csv", HEAD + f"{DNA},{'a' * 12}\n{DNA},{'b' * 11}\n", TOKENS, ":3: 11 labels for 12 bases; give one a base",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_one_line_names_the_place_and_the_mend(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, content, options, message = KINDS[kind]
    path = tmp_path / (name or "t.csv")
    if name:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code = cli.run(["finetune", "--train", str(path), "--output", str(tmp_path / "out"), *options])
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("\n") == 1
    assert said.startswith(f"genossm: {path}")
    assert message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD, "test.csv: E_EMPTY_FILE no row below the header"),
        (HEAD + f"{DNA},a\n{DNA},c\n", "test.csv:3: the label 'c' is not in the training table, which has a, b"),
    ],
)
def test_a_test_table_that_does_not_fit(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text(GOOD)
    test.write_text(content)
    words = ["finetune", "--train", str(train), "--test", str(test), "--output", str(tmp_path / "out")]
    assert cli.run(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
