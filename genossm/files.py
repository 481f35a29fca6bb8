"""Files that are whole or absent: write beside, sync, rename.

Every file that GenoSSM leaves under its final name went through :func:`atomic_path` or :func:`atomic_write`,
so a kill at any moment leaves the old content or the new one, never a part.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from genossm.errors import ExitCode, GenoSSMError


def sha256_of(path: Path, chunk: int = 1 << 20) -> str:
    """The sha256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(chunk):
            digest.update(block)
    return digest.hexdigest()


def fsync_dir(path: Path) -> None:
    """Make a rename or an unlink inside ``path`` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Make the bytes of ``path`` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_output(output: Path, *inputs: str | os.PathLike[str], others: Iterable[Path | None] = ()) -> None:
    """Refuse, before any work, an output that is a folder, a device, or the very file that is read.

    Args:
        inputs: what is read; nothing is written into a folder among them either.
        others: further outputs of the same command.

    Raises:
        GenoSSMError: the output cannot take a file's place.
    """
    if output.is_dir():
        raise GenoSSMError("is a folder; name a file in it for the output", path=output)
    # a rename would put a file in the place of /dev/null, or of the link /dev/stdout, whatever that leads to
    stream = output.is_symlink() and output.absolute().parts[1:2] in (("dev",), ("proc",))
    if stream or (output.exists() and not output.is_file()):
        raise GenoSSMError("is no ordinary file; name a file for the output", path=output)
    folder = next(path for path in output.absolute().parents if path.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(output))
    for source in inputs:
        if os.path.isdir(source) and Path(source).resolve() in output.resolve().parents:
            raise GenoSSMError(f"is inside the input {os.fspath(source)}; write it elsewhere", path=output)
        if output.exists() and os.path.exists(source) and os.path.samefile(output, source):
            raise GenoSSMError("is the input; give the output another name", path=output)
    if any(other is not None and other.resolve() == output.resolve() for other in others):
        raise GenoSSMError("is named for two outputs; give each its own name", path=output)


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A path beside ``target`` to write to; on success it is synced and renamed to ``target``, else removed.

    A fault of the disk that names no file, as a full one, is given ``target``'s; folders that were made for it go. A
    link stays a link: the file that it names is replaced. What a killed process left for the same target is removed.
    """
    target = Path(target)
    check_output(target)
    target = Path(os.path.realpath(target)) if target.is_symlink() else target
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    temporary = target.parent / f".{target.name}.{_host()}.{os.getpid()}.tmp"
    try:
        yield temporary
        fsync_file(temporary)
        os.replace(temporary, target)
        fsync_dir(target.parent)
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(target)) from None
    finally:
        temporary.unlink(missing_ok=True)
        if not target.exists():
            for folder in made:
                with contextlib.suppress(OSError):  # something else stands in it
                    folder.rmdir()


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files of ``target`` that a process of this host left which is no more."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.{_host()}.*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdigit() and not _alive(int(process)):
            path.unlink(missing_ok=True)


def _host() -> str:
    """This host's name in a form that stands in a file name: a folder may be shared by the hosts of a cluster."""
    return "".join(c if c.isalnum() else "-" for c in socket.gethostname())


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def atomic_write(target: Path, content: str | bytes) -> None:
    """Replace ``target`` by ``content`` at once."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[IO[str]]:
    """Hold an exclusive lock on the file ``path`` (made if absent) for the time of the block.

    Raises:
        GenoSSMError: when another process holds it; the message names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise GenoSSMError(
                f"{what} is in use by process {holder}; wait for it, or stop it first",
                path=path.parent,
                exit_code=ExitCode.TEMPORARY,
            ) from None
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        yield handle
