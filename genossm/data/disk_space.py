"""Space on the disk for files that a library writes, set aside before it writes them.

HDF5 and libBigWig cannot cope with a disk that is full: they end the process, do not end at all, or leave a part of the
file without a word. So they must never be the ones to find out.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import h5py

_OVERHEAD = 4 << 20
"""More than what a library adds to a file without values: headers, and the unused ends of a dozen chunks."""
_STEP = 16 << 20


class DiskSpace:
    """The space of one file that grows; what is set aside stands behind the end of what was written, as zeros.

    Raises (here and in :meth:`take`):
        OSError: the file system has no such space; what was set aside before is still there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reserved = self._taken = 0
        self.take(0)

    def take(self, n: int) -> None:
        """Have the file system set ``n`` bytes more aside, and enough for the library's own structures."""
        self._taken += n
        # Of chunks and their checksums an index is kept, which grows with them: far less than a byte in 256.
        needed = self._taken + (self._taken >> 8) + _OVERHEAD
        if needed > self._reserved:
            self._reserved = needed + _STEP
            # Not every system can (macOS cannot); there a full disk may end the process, though never the old file.
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            with os.fdopen(handle, "rb+") as file, contextlib.suppress(AttributeError):
                os.posix_fallocate(file.fileno(), 0, self._reserved)


def release_hdf5(path: Path) -> None:
    """Give back what was set aside beyond the end of an HDF5 file, which its superblock (version 2 or 3) names."""
    with open(path, "rb+") as file:
        head = file.read(36)
        file.truncate(int.from_bytes(head[28:36], "little"))


def create_hdf5(path: Path) -> tuple[h5py.File, DiskSpace]:
    """A new HDF5 file, and its space: take from it before anything is written; after closing, :func:`release_hdf5`.

    Raises:
        OSError: the disk is full.
    """
    DiskSpace(path)  # a full disk shows before HDF5 holds anything: the file below begins empty again
    file = h5py.File(path, "w", libver=("v110", "v110"), locking=False)
    try:
        return file, DiskSpace(path)
    except OSError:
        file.close()
        raise


@contextlib.contextmanager
def new_hdf5(path: Path) -> Iterator[tuple[h5py.File, DiskSpace]]:
    """:func:`create_hdf5` for the time of a block, closed and released after it."""
    file, space = create_hdf5(path)
    with file:
        yield file, space
    release_hdf5(path)


def release_zeros(path: Path, ending: bytes) -> None:
    """Give back what was set aside beyond the end of a file that closes with the bytes ``ending``, its last not 0.

    Raises:
        OSError: EIO, the file does not end so: it was not written to its end.
    """
    block = 1 << 20
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - block)
            file.seek(start)
            kept = len(file.read(end - start).rstrip(b"\0"))
            end = start + kept
            if kept:
                break
        file.truncate(end)
        file.seek(max(0, end - len(ending)))
        if file.read() != ending:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
