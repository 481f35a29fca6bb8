"""What is packed comes out whole, or not as good."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from Bio import bgzf

from genossm.data.compression import TextSource, is_bgzf
from genossm.errors import GenoSSMError

TEXT = b">a\n" + bytes(random.Random(0).choices(b"ACGT", k=400_000)) + b"\n"


def _bgzf(text: bytes) -> bytes:
    """As Biopython packs it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.gz")
        with bgzf.BgzfWriter(path) as writer:
            writer.write(text)
        return path.read_bytes()


PACKED = {
    "plain": TEXT,
    "gzip": gzip.compress(TEXT),
    "bgzf": _bgzf(TEXT),
    "members": gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:]),
    "joined bgzf": _bgzf(TEXT[:70_000]) + _bgzf(TEXT[70_000:]),
    "empty": b"",
    "empty gzip": gzip.compress(b""),
    "empty bgzf": bgzf._bgzf_eof,
    "zeros": gzip.compress(bytes(50_000_000)),
}


def _write(folder: Path, raw: bytes) -> Path:
    path = folder / "file.anything"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("how", PACKED)
def test_the_text_comes_out(tmp_path: Path, how: str) -> None:
    source = TextSource(_write(tmp_path, PACKED[how]))
    blocks = list(source)
    text = b"".join(blocks)
    wanted = {"zeros": bytes(50_000_000)}.get(how, b"" if "empty" in how else TEXT)
    assert text == wanted
    assert max(map(len, blocks), default=0) <= 1 << 21
    assert source.sha256 == hashlib.sha256(PACKED[how]).hexdigest()
    assert source.size == len(PACKED[how])
    assert source.kind == ("bgzf" if "bgzf" in how else "plain" if how in ("plain", "empty") else "gzip")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PACKED["gzip"])))
    assert b"".join(TextSource("-")) == TEXT


@pytest.mark.parametrize("how", ["gzip", "bgzf", "members", "joined bgzf"])
def test_every_cut_is_seen(tmp_path: Path, how: str) -> None:
    """But for a cut between two gzip members, which leaves a whole file."""
    raw = PACKED[how]
    rng = random.Random(1)
    members = len(gzip.compress(TEXT[:100]))
    whole = {members, members + len(gzip.compress(b""))} if how == "members" else set()
    whole |= {len(_bgzf(TEXT[:70_000]))} if how == "joined bgzf" else set()
    for size in [2, 3, 11, 17, 19, *rng.sample(range(20, len(raw)), 20), len(raw) - 28, len(raw) - 1]:
        if size in whole:
            continue
        with pytest.raises(GenoSSMError) as caught:
            list(TextSource(_write(tmp_path, raw[:size])))
        assert caught.value.code == "E_TRUNCATED_GZ", size


@pytest.mark.parametrize("how", ["gzip", "bgzf", "members"])
def test_every_flipped_bit_in_the_data_is_seen(tmp_path: Path, how: str) -> None:
    raw = PACKED[how]
    rng = random.Random(2)
    for place in rng.sample(range(20, len(raw) - 28), 20):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << rng.randrange(8)
        with pytest.raises(GenoSSMError) as caught:
            list(TextSource(_write(tmp_path, bytes(damaged))))
        assert caught.value.code in ("E_CORRUPT_GZ", "E_TRUNCATED_GZ")


@pytest.mark.parametrize("how", ["gzip", "bgzf"])
@pytest.mark.parametrize("tail", [b"text", b"\x00\x00", b"\x1f"])
def test_nothing_may_follow(tmp_path: Path, how: str, tail: bytes) -> None:
    with pytest.raises(GenoSSMError) as caught:
        list(TextSource(_write(tmp_path, PACKED[how] + tail)))
    assert caught.value.code in ("E_CORRUPT_GZ", "E_TRUNCATED_GZ")


def test_a_plain_member_in_bgzf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenoSSMError, match="E_CORRUPT_GZ"):
        list(TextSource(_write(tmp_path, PACKED["bgzf"] + PACKED["gzip"])))


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, lambda text: b"\x28\xb5\x2f\xfd" + text])
def test_other_packings_are_named(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(GenoSSMError, match=r"E_COMPRESSION compressed by (bzip2|xz|zstd)"):
        list(TextSource(_write(tmp_path, pack(TEXT))))


def test_is_bgzf() -> None:
    assert is_bgzf(PACKED["bgzf"][:18])
    assert not is_bgzf(PACKED["gzip"][:18])
    assert not is_bgzf(b"\x1f\x8b\x08\x04")
