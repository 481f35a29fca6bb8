"""A tokens file gives back what was written, is the same bytes for the same input, and refuses every damage."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from genossm import vocab
from genossm.data import tokens_h5
from genossm.data.tokens_h5 import TokensWriter, check_tokens_file, open_tokens
from genossm.errors import GenoSSMError
from genossm.files import sha256_of

CONTIGS = {"../../etc/passwd": 2000, "a/b": 7, "grün": 1, "chrM": 5001}


def _content(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {
        name: (rng.integers(vocab.A, vocab.N + 1, n, dtype=np.uint8), rng.random(n) < 0.3)
        for name, n in CONTIGS.items()
    }


def _write(path: Path, piece: int = 701) -> str:
    with TokensWriter(path) as writer:
        for name, (tokens, soft_mask) in _content().items():
            writer.add_contig(name)
            for start in range(0, tokens.size, piece):
                writer.append(tokens[start : start + piece], soft_mask[start : start + piece])
        writer.end_contigs()
        writer.add_windows("train", 0, np.array([0, 100]))
        writer.add_windows("test", 3, np.array([5001 - 64]))
        return writer.finish(window=64, stride=100, source="x.fa", source_sha256="0" * 64, options={"max_n": 0.5})


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.h5"
    _write(path)
    return path


def test_round_trip(tokens: Path) -> None:
    with open_tokens(tokens) as file:
        assert [contig.name for contig in file.contigs] == list(CONTIGS)
        for index, (ids, soft_mask) in enumerate(_content().values()):
            contig = file.contigs[index]
            assert (contig.length, contig.n, contig.lower) == (ids.size, (ids == vocab.N).sum(), soft_mask.sum())
            for start, end in ((0, ids.size), (ids.size // 3, ids.size // 2), (ids.size, ids.size)):
                read = file.read(index, start, end)
                assert np.array_equal(read[0], ids[start:end])
                assert np.array_equal(read[1], soft_mask[start:end])
        assert (file.window, file.stride, file.options) == (64, 100, {"max_n": 0.5})
        assert file.windows("train").tolist() == [[0, 0], [0, 100]]
        assert file.windows("valid").shape == (0, 2)
        assert file.windows("test").tolist() == [[3, 5001 - 64]]
        with pytest.raises(ValueError, match="not inside"):
            file.read(1, 0, 8)


def test_chunk_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file whatever the pieces that are appended, when contigs cross many chunks."""
    monkeypatch.setattr(tokens_h5, "CHUNK", 64)
    identities = {_write(tmp_path / f"{piece}.h5", piece) for piece in (1, 63, 64, 1000)}
    assert len(identities) == 1
    assert len({sha256_of(path) for path in tmp_path.iterdir()}) == 1
    with open_tokens(tmp_path / "63.h5") as file:
        for index, (ids, soft_mask) in enumerate(_content().values()):
            read = file.read(index, 0, ids.size)
            assert np.array_equal(read[0], ids)
            assert np.array_equal(read[1], soft_mask)


def test_an_open_file_may_be_given_to_other_processes(tokens: Path) -> None:
    with open_tokens(tokens) as file:
        here = file.read(0, 10, 20)[0].tolist()
        assert pickle.loads(pickle.dumps(file)).read(0, 10, 20)[0].tolist() == here
        context = multiprocessing.get_context("forkserver")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            assert pool.submit(file.read, 0, 10, 20).result(timeout=60)[0].tolist() == here


def _refused(path: Path, word: str) -> None:
    with pytest.raises(GenoSSMError, match=word) as caught:
        check_tokens_file(path)
    assert "\n" not in str(caught.value)


def test_an_unfinished_file_is_refused(tmp_path: Path) -> None:
    with TokensWriter(tmp_path / "t.h5") as writer:
        writer.add_contig("a")
    _refused(tmp_path / "t.h5", "missing")


def _replace(file: h5py.File, name: str, **how: object) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape=how.pop("shape", shape), dtype=how.pop("dtype", dtype), **how)


def _external_link(file: h5py.File, folder: Path) -> None:
    del file["tokens"]
    file["tokens"] = h5py.ExternalLink(str(folder / "other.h5"), "/tokens")


def _soft_link(file: h5py.File, folder: Path) -> None:
    del file["windows/train"]
    file["windows/train"] = h5py.SoftLink("/windows/test")


def _linked_group(file: h5py.File, folder: Path) -> None:
    del file["windows"]
    file["windows"] = h5py.ExternalLink(str(folder / "other.h5"), "/windows")


def _virtual(file: h5py.File, folder: Path) -> None:
    shape = file["tokens"].shape
    del file["tokens"]
    layout = h5py.VirtualLayout(shape=shape, dtype="u1")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "tokens", shape=shape)
    file.create_virtual_dataset("tokens", layout)


FAULTS = {
    "external link": (_external_link, "link"),
    "soft link": (_soft_link, "link"),
    "external group": (_linked_group, "link"),
    "virtual": (_virtual, "other files"),
    "external storage": (
        lambda f, d: _replace(f, "tokens", external=[(str(d / "other.h5"), 0, h5py.h5f.UNLIMITED)]),
        "other files",
    ),
    "huge": (lambda f, d: _replace(f, "tokens", shape=(10**13,), chunks=(1 << 20,), fletcher32=True), "more values"),
    "compressed": (lambda f, d: _replace(f, "tokens", compression="gzip", fletcher32=True), "filters"),
    "dtype": (lambda f, d: _replace(f, "contigs/length", dtype="f8", fletcher32=True), "float64"),
    "group for dataset": (lambda f, d: (f.pop("tokens"), f.create_group("tokens")), "no dataset"),
    "dataset for group": (lambda f, d: (f.pop("windows"), f.create_dataset("windows", data=[1])), "no group"),
    "extra member": (lambda f, d: f.create_group("more"), "more"),
    "version": (lambda f, d: f.attrs.__setitem__("format_version", 2), "version 2"),
    "vocabulary": (lambda f, d: f.attrs.__setitem__("vocabulary", "[]"), "vocabulary"),
    "incomplete": (lambda f, d: f.attrs.__setitem__("complete", 0), "never completed"),
    "no attribute": (lambda f, d: f.attrs.__delitem__("window"), "window is missing"),
    "attribute type": (lambda f, d: f.attrs.__setitem__("window", "64"), "wrong type"),
    "not JSON": (lambda f, d: f.attrs.__setitem__("sha256", "{"), "no JSON"),
    "changed base": (lambda f, d: f["tokens"].__setitem__(5, 3), "tokens fails its checksum"),
    "changed window": (lambda f, d: f["windows/train"].__setitem__(0, [9, 9]), "windows/train fails its checksum"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tampered_file_is_refused(tokens: Path, tmp_path: Path, fault: str) -> None:
    shutil.copy(tokens, tmp_path / "other.h5")
    change, word = FAULTS[fault]
    with h5py.File(tokens, "r+") as file:
        change(file, tmp_path)
    _refused(tokens, word)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text(">chr1\nACGT\n")
    (tmp_path / "empty.h5").touch()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    _refused(tmp_path / "text.h5", "not an HDF5 file")
    _refused(tmp_path / "empty.h5", "not an HDF5 file")
    _refused(tmp_path / "other.h5", "missing")
    with pytest.raises(FileNotFoundError):
        check_tokens_file(tmp_path / "absent.h5")


def test_no_flipped_bit_and_no_cut_goes_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flip is refused, or it hit bytes that hold nothing: then the content is unchanged."""
    monkeypatch.setattr(tokens_h5, "CHUNK", 4096)
    identity = _write(tmp_path / "tokens.h5")
    whole = (tmp_path / "tokens.h5").read_bytes()
    rng = np.random.default_rng(0)
    seen = 0
    for place in rng.integers(0, len(whole), 120).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path = tmp_path / "flipped.h5"
        path.write_bytes(damaged)
        try:
            assert open_tokens(path).sha256 == identity
        except GenoSSMError:
            seen += 1
    assert seen > 60
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        _refused(path, "HDF5")
