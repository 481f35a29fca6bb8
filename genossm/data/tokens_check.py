"""What a valid tokens file is: the format's constants and its checks (see :mod:`genossm.data.tokens_h5`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from genossm import vocab
from genossm.data.windows import SPLITS
from genossm.errors import GenoSSMError

FORMAT = "genossm-tokens"
FORMAT_VERSION = 1
CHUNK = 1 << 20
"""Bases an HDF5 chunk."""
COLUMNS = ("length", "offset", "n", "lower")
"""The columns of the contig table beside ``name``."""
_TABLES = tuple(f"contigs/{column}" for column in COLUMNS) + tuple(f"windows/{split}" for split in SPLITS)
DATASETS = ("tokens", "soft_mask", "contigs/name", *_TABLES)
_ATTRIBUTES = {
    "format": str,
    "format_version": int,
    "complete": int,
    "source": str,
    "source_sha256": str,
    "window": int,
    "stride": int,
    "options": str,
    "vocabulary": str,
    "sha256": str,
}


def check_tokens_file(path: Path) -> None:
    """Say whether ``path`` is a whole, undamaged tokens file that refers to nothing outside itself.

    It must be HDF5 with exactly the datasets that :mod:`genossm.data.tokens_h5` lists: hard links, no external storage,
    no virtual dataset, no filter but fletcher32, no claim beyond the file's size; of this format version and
    vocabulary; marked complete; with a consistent contig table and windows inside it; and the values must have their
    sha256.

    Raises:
        GenoSSMError: it is not; the message says what is wrong.
    """
    with checked_file(Path(path)):
        pass


@contextlib.contextmanager
def checked_file(path: Path, *, complete: bool = True, content: bool = True) -> Iterator[h5py.File]:
    """A tokens file, open for reading and checked; whatever HDF5 raises inside the block is a damaged file.

    Args:
        complete: ask for the mark of completion. content: read all values and compare their checksums.

    Raises:
        GenoSSMError: as :func:`check_tokens_file`.
    """
    try:
        with open_hdf5(path) as file:
            _check_structure(file, path, complete=complete)
            if content:
                _check_content(file, path)
            yield file
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(path, f"HDF5 says {error}") from None
    except OSError as error:
        if error.filename is not None:
            raise
        raise damaged(path, f"HDF5 says {error}") from None


def open_hdf5(path: Path) -> h5py.File:
    """An HDF5 file for reading, without a lock: it is never changed under its name."""
    try:
        with open(path, "rb"):
            return h5py.File(path, "r", locking=False)
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise
        raise GenoSSMError("not an HDF5 file, or cut short; make it again with genossm tokenize", path=path) from None


def damaged(path: Path, what: str) -> GenoSSMError:
    """The error for a file that is not what it should be."""
    return GenoSSMError(f"not a valid tokens file: {what}; make it again with genossm tokenize", path=path)


def canonical_json(value: Any) -> str:
    """JSON with one spelling a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def content_identity(file: h5py.File) -> str:
    """sha256 over what the file says: all values, window, stride and vocabulary; not where it came from."""
    parts = [FORMAT, FORMAT_VERSION, int(file.attrs["window"]), int(file.attrs["stride"])]
    parts += [str(file.attrs["vocabulary"]), str(file.attrs["sha256"])]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _check_structure(file: h5py.File, path: Path, *, complete: bool) -> None:
    """Everything that can be said without reading the values."""
    _check_attributes(file, path, complete)
    groups: Iterable[tuple[str, Sequence[str]]] = (
        ("/", ("contigs", "soft_mask", "tokens", "windows")),
        ("contigs", ("name", *COLUMNS)),
        ("windows", SPLITS),
    )
    for group, members in groups:
        if not isinstance(file[group], h5py.Group):
            raise damaged(path, f"{group} is no group")
        if sorted(file[group]) != sorted(members):
            raise damaged(path, f"group {group} holds {sorted(file[group])[:8]}")
        for member in members:
            if type(file[group].get(member, getlink=True)) is not h5py.HardLink:
                raise damaged(path, f"{group}/{member} is a link to another place")
    size = path.stat().st_size
    for name in DATASETS:
        _check_dataset(file[name], name, path, size)
    if file["soft_mask"].shape[0] != -(-file["tokens"].shape[0] // 8):
        raise damaged(path, "soft_mask and tokens differ in length")
    if len({file[name].shape[0] for name in DATASETS if name.startswith("contigs/")}) != 1:
        raise damaged(path, "the columns of the contig table differ in length")


def _check_attributes(file: h5py.File, path: Path, complete: bool) -> None:
    attributes = {name: kind for name, kind in _ATTRIBUTES.items() if complete or name != "complete"}
    for name, kind in attributes.items():
        value = file.attrs.get(name)
        if value is None:
            raise damaged(path, f"attribute {name} is missing")
        if not isinstance(value, str if kind is str else (int, np.integer)):
            raise damaged(path, f"attribute {name} has the wrong type")
    if file.attrs["format"] != FORMAT or file.attrs["format_version"] != FORMAT_VERSION:
        raise damaged(path, f"it is {file.attrs['format']!r} version {file.attrs['format_version']}, not {FORMAT} 1")
    if complete and file.attrs["complete"] != 1:
        raise damaged(path, "it was never completed")
    if file.attrs["vocabulary"] != canonical_json(vocab.TOKENS):
        raise damaged(path, "it has another vocabulary")
    if file.attrs["window"] < 1 or file.attrs["stride"] < 1:
        raise damaged(path, "window and stride must be above 0")
    for name in ("options", "sha256"):
        try:
            content = json.loads(file.attrs[name])
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise damaged(path, f"attribute {name} is no JSON object")


def _check_dataset(dataset: Any, name: str, path: Path, file_size: int) -> None:
    if not isinstance(dataset, h5py.Dataset):
        raise damaged(path, f"{name} is no dataset")
    if dataset.external or dataset.is_virtual:
        raise damaged(path, f"{name} takes its values from other files")
    creation = dataset.id.get_create_plist()
    filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
    if filters != [h5py.h5z.FILTER_FLETCHER32]:
        raise damaged(path, f"{name} has filters {filters}")
    tail = (2,) if name.startswith("windows/") else ()
    kind = "S" if name == "contigs/name" else "i" if name in _TABLES else "u"
    width = {"i": 8, "u": 1}.get(kind, dataset.dtype.itemsize)
    if dataset.dtype.kind != kind or dataset.dtype.itemsize != width or dataset.shape[1:] != tail:
        raise damaged(path, f"{name} is {dataset.dtype} of shape {dataset.shape}")
    if dataset.size * dataset.dtype.itemsize > min(dataset.id.get_storage_size(), file_size):
        raise damaged(path, f"{name} claims more values than the file holds")


def _check_content(file: h5py.File, path: Path) -> None:
    """The values have their checksums, and the tables agree with one another."""
    wanted = json.loads(file.attrs["sha256"])
    for name in DATASETS:
        digest = hashlib.sha256()
        dataset = file[name]
        try:
            for start in range(0, dataset.shape[0], CHUNK):
                digest.update(dataset[start : start + CHUNK].tobytes())
        except OSError:
            raise damaged(path, f"{name} fails its checksum") from None
        if wanted.get(name) != digest.hexdigest():
            raise damaged(path, f"{name} fails its checksum")
    try:
        names = [raw.decode("utf-8") for raw in file["contigs/name"][:]]
    except UnicodeDecodeError:
        raise damaged(path, "a contig's name is not UTF-8") from None
    if len(set(names)) != len(names):
        raise damaged(path, "two contigs have the same name")
    length, offset = file["contigs/length"][:], file["contigs/offset"][:]
    if (length < 0).any() or not np.array_equal(offset, np.cumsum(length) - length):
        raise damaged(path, "the contig table is inconsistent")
    if length.sum() != file["tokens"].shape[0]:
        raise damaged(path, "the contig table and the tokens differ in length")
    window = int(file.attrs["window"])
    for split in SPLITS:
        rows = file[f"windows/{split}"][:]
        inside = (rows[:, 0] >= 0) & (rows[:, 0] < length.size) & (rows[:, 1] >= 0)
        if not inside.all() or (rows[:, 1] + window > length[rows[:, 0]]).any():
            raise damaged(path, f"windows/{split} leaves its contigs")
