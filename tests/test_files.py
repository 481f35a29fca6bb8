"""Files are whole or absent, whatever kills the writer, and a lock has one holder."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genossm.errors import ExitCode, GenoSSMError
from genossm.files import atomic_path, atomic_write, check_output, locked, sha256_of

WRITER = """
import os, signal, sys
from pathlib import Path
from genossm.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

HOLDER = """
import sys
from pathlib import Path
from genossm.files import locked
with locked(Path(sys.argv[1]), "the run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_write_replaces_and_makes_folders(tmp_path):
    target = tmp_path / "a" / "b" / "file.txt"
    atomic_write(target, "one")
    atomic_write(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(target.parent) == ["file.txt"]


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path):
    atomic_write(tmp_path / "t", "é\r\nx\n")
    assert (tmp_path / "t").read_bytes() == b"\xc3\xa9\r\nx\n"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file"
    atomic_write(target, "old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("old", ["old", None])
def test_a_killed_writer_leaves_the_old_file(tmp_path, old):
    target = tmp_path / "file"
    if old is not None:
        atomic_write(target, old)
    done = subprocess.run([sys.executable, "-c", WRITER, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (target.read_text() if target.exists() else None) == old


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path):
    target, other = tmp_path / "file", tmp_path / "file.other"
    for path in (target, other):
        subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False)
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    with atomic_path(target) as mine:
        atomic_write(target, "meanwhile")  # a writer that lives keeps its file
        mine.write_text("new")
    assert target.read_text() == "new"
    assert [path.name.startswith(".file.other.") for path in tmp_path.glob(".*.tmp")] == [True]


def test_a_link_stays_one(tmp_path):
    real, link = tmp_path / "a" / "real.tsv", tmp_path / "link.tsv"
    real.parent.mkdir()
    link.symlink_to(real)
    for content in ("old", "new"):
        atomic_write(link, content)
        assert link.is_symlink()
        assert real.read_text() == content


def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_sha256_over_several_blocks(tmp_path):
    content = bytes(range(256)) * 50
    (tmp_path / "f").write_bytes(content)
    assert sha256_of(tmp_path / "f", chunk=1000) == hashlib.sha256(content).hexdigest()


def test_a_lock_has_one_holder_whose_id_is_named_and_goes_with_it(tmp_path):
    lock = tmp_path / "run" / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(GenoSSMError, match=f"the run is in use by process {holder.pid}") as caught,
            locked(lock, "the run"),
        ):
            pass
        assert caught.value.exit_code == ExitCode.TEMPORARY
        holder.kill()
    with locked(lock, "the run"):
        assert lock.read_text() == str(os.getpid())


def test_an_output_that_is_the_input_or_a_folder_is_refused(tmp_path, monkeypatch):
    source = tmp_path / "a.fa"
    source.write_text(">a\nACGT\n")
    (tmp_path / "link.fa").symlink_to(source)
    for output in (source, tmp_path / "link.fa"):
        with pytest.raises(GenoSSMError, match="is the input; give the output another name"):
            check_output(output, source)
    with pytest.raises(GenoSSMError, match="is a folder"):
        check_output(tmp_path)
    for device in ("/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with pytest.raises(GenoSSMError, match="is no ordinary file"):
            check_output(Path(device))
    with pytest.raises(GenoSSMError, match="is inside the input"):
        check_output(tmp_path / "a" / "new.tsv", "-", tmp_path)
    with pytest.raises(GenoSSMError, match="is named for two outputs"):
        check_output(tmp_path / "new.tsv", others=(None, tmp_path / "a" / ".." / "new.tsv"))
    check_output(tmp_path / "new.tsv", source, "-")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match=r"new\.tsv"):
        check_output(tmp_path / "none" / "new.tsv")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_a_full_disk_is_named_and_leaves_no_folder(tmp_path, number):
    target = tmp_path / "a" / "b" / "file"
    with pytest.raises(OSError, match=os.strerror(number)) as caught, atomic_path(target):
        raise OSError(number, "x")
    assert (caught.value.errno, caught.value.filename) == (number, str(target))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="reset"), atomic_path(target):
        raise ConnectionResetError(errno.ECONNRESET, "reset")  # another's fault keeps its words
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
