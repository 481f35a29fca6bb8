"""Tokenizer files: what is written gives the same ids in the tokenizers library, and reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genossm.errors import GenoSSMError
from genossm.models.formats.tokenizers import read_tokenizer, write_tokenizer
from genossm.models.formats.vocabularies import HOUSE, PLANT, Tokenizer, Vocabulary

PATH = Path("tokenizer.json")
TABLES = {
    "house": HOUSE,
    "plant": PLANT,
    "angles": {"<pad>": 0, "<unk>": 1, "T": 2, "G": 3, "C": 4, "A": 15},
    "letters": {"A": 0, "C": 1, "G": 2, "T": 3, "N": 4},
    "both cases": {"A": 0, "C": 1, "G": 2, "T": 3, "N": 4, "a": 5, "c": 6, "g": 7, "t": 8, "[PAD]": 9},
}


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_the_written_files_read_back(name: str, bos: bool) -> None:
    files = write_tokenizer(TABLES[name], bos=bos)
    known = bos and "[BOS]" in TABLES[name]
    assert read_tokenizer(json.loads(json.dumps(files["tokenizer.json"])), PATH) == Vocabulary(TABLES[name], known)
    assert read_tokenizer(TABLES[name], PATH) == Vocabulary(TABLES[name])


@pytest.mark.parametrize("name", TABLES)
def test_the_tokenizers_library_gives_the_ids_of_ours(name: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    files = write_tokenizer(TABLES[name], bos=False)
    official, ours = tokenizers.Tokenizer.from_str(json.dumps(files["tokenizer.json"])), Tokenizer(TABLES[name])
    texts = ["ACGT", "acgtn", "ACGTNNRYacgu\n A", "", "é漢"]
    texts += [f"A{token}C" for token in TABLES[name] if token.startswith("[")]
    for text in texts:
        assert official.encode(text).ids == ours.ids(text), text
        assert official.encode(text, add_special_tokens=False).ids == ours.ids(text, add_sep=False)
    if "[BOS]" in TABLES[name]:
        first = tokenizers.Tokenizer.from_str(json.dumps(write_tokenizer(TABLES[name], bos=True)["tokenizer.json"]))
        assert first.encode("AC").ids == [TABLES[name]["[BOS]"], *ours.ids("AC", add_sep=False)]


def test_words_are_a_table_alone() -> None:
    assert write_tokenizer({"world": 4, "hello": 3}, bos=False) == {"vocab.json": {"hello": 3, "world": 4}}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"model": 3.5}, "model: Input should be a valid dictionary"),
        ({"model": {}}, "model.vocab: Field required"),
        ({"model": {"vocab": [["A", 0.5]]}}, "model.vocab: Input should be a valid dictionary"),
        ({"model": {"vocab": {"A": None}}}, "model.vocab.A: Input should be a valid integer"),
        ({"model": {"vocab": {"A": True}}}, "model.vocab.A: Input should be a valid integer"),
        ({"model": {"vocab": {"A": -1}}}, "model.vocab.A: Input should be greater than or equal to 0"),
        ({"model": {"vocab": {}}, "added_tokens": {}}, "added_tokens: Input should be a valid list"),
        ({"model": {"vocab": {}}, "added_tokens": [3]}, "added_tokens.0: Input should be a valid dictionary"),
        ({"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}, "added_tokens.0.content: Field required"),
        ({"model": {"vocab": {}}, "added_tokens": [{"id": 1, "content": 2}]}, "content: Input should be a valid str"),
        ({"A": "x"}, "vocab.A: Input should be a valid integer"),
    ],
)
def test_broken_tables_are_one_line(content: dict[str, Any], text: str) -> None:
    with pytest.raises(GenoSSMError, match=f"^tokenizer.json: .*{text}"):
        read_tokenizer(content, PATH)


@pytest.mark.parametrize(
    "processor",
    [3, [], {}, {"single": 3}, {"single": [3]}, {"single": [{"SpecialToken": {"id": 3}}]}, {"processors": {"a": 1}}],
)
def test_a_post_processor_of_another_kind_puts_nothing_first(processor: Any) -> None:
    assert not read_tokenizer({"model": {"vocab": HOUSE}, "post_processor": processor}, PATH).bos


def test_a_post_processor_among_others_puts_bos_first() -> None:
    written = write_tokenizer(HOUSE, bos=True)["tokenizer.json"]
    written["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, written["post_processor"]]}
    assert read_tokenizer(written, PATH).bos
