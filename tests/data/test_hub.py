"""The hub's own client against a loopback server: fetched once, then from the cache, and every refusal in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genossm.data.hub import fetch_model
from genossm.errors import GenoSSMError
from tests.data.hub_server import COMMIT, hub

CODE = """
import sys
from genossm.cli import _fault
from genossm.data.hub import fetch_model
try:
    found = fetch_model(sys.argv[1], offline=len(sys.argv) > 2)
except Exception as error:
    line, code = _fault(error)
    print(line)
    raise SystemExit(code)
print(found.name, found.revision, *sorted(p.name for p in found.folder.iterdir()), *found.sha256)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "README.md", "modeling_x.py", "model.safetensors", "pytorch_model.bin"):
        (folder / name).write_text(name)
    return folder


def fetch(home: Path, url: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of fetch_model in a fresh process: the client reads its settings once."""
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **settings},
    )  # fmt: skip
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_a_model_is_fetched_once_and_then_needs_no_network(tmp_path: Path, model: Path) -> None:
    """Only what is read comes over: no code, and one form of the weights."""
    expected = f"own/model {COMMIT} README.md config.json model.safetensors"
    with hub({"own/model": model}) as (url, requests):
        assert fetch(tmp_path, url, "hf:own/model")[:2] == (0, f"{expected} model.safetensors")
        sent = [request for request in requests if request.startswith("GET /own/model/resolve")]
        assert len(sent) == 3
        requests.clear()
        assert fetch(tmp_path, url, f"hf:own/model@{COMMIT}")[0] == 0
        assert not [request for request in requests if request.startswith("GET /own/model/resolve")]
    for arguments, environment in ((["offline"], {}), ([], {}), ([], {"HF_HUB_OFFLINE": "1"})):
        code, out, err = fetch(tmp_path, url, "hf:own/model", *arguments, **environment)
        assert (code, out) == (0, expected)
        assert ("the hub cannot be reached" in err) == (not arguments)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_cache_is_named_with_the_mend(tmp_path: Path, model: Path, name: str, how: str) -> None:
    with hub({"own/model": model}) as (url, _):
        assert fetch(tmp_path / "home", url, "hf:own/model")[0] == 0
    (path,) = (tmp_path / "home").rglob(f"snapshots/*/{name}")
    blob = path.resolve()
    content = blob.read_bytes()
    if how == "gone":
        blob.unlink()
    else:
        blob.write_bytes(content[:-1] + (b"" if how == "cut" else b"?"))
    code, out, _ = fetch(tmp_path / "home", url, "hf:own/model", "offline")
    what = "is missing from" if how == "gone" else "damaged in"
    assert code == 2
    assert out.startswith(
        f"{path}: {what} the cache of the hub's client: remove {path.parents[2]}, and import once with"
    )


def test_what_answers_may_be_no_hub(tmp_path: Path) -> None:
    with hub({}, page=b"<html>Please log in</html>") as (url, _):
        code, out, err = fetch(tmp_path, url, "hf:own/model")
    assert code == 69
    assert out.startswith(
        "hf:own/model: what answers does not speak as the hub does, and the model is not in the cache"
    )
    assert "cannot be reached" not in out + err


def test_without_network_and_cache_there_is_one_clear_line(tmp_path: Path) -> None:
    code, out, _ = fetch(tmp_path, "http://127.0.0.1:9", "hf:own/model")
    assert code == 69
    assert out.startswith("hf:own/model: the hub cannot be reached, and the model is not in the cache")
    assert "\n" not in out


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("hf:own/other", 2, "no such model on the hub, or a private one"),
        ("hf:own/model@nope", 2, "the model has no such revision"),
        ("hf:own/gated", 2, "its owner asks for an agreement"),
        ("hf:own/empty", 2, "the repository holds no weights that can be read (1 files)"),
    ],
)
def test_refusals(tmp_path: Path, model: Path, source: str, code: int, text: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    with hub({"own/model": model, "own/empty": empty, "own/gated": model}, gated="own/gated") as (url, _):
        found, out, _ = fetch(tmp_path, url, source)
    assert found == code
    assert text in out


def test_a_server_in_trouble(tmp_path: Path, model: Path) -> None:
    with hub({"own/model": model}, refused=501) as (url, _):
        code, out, _ = fetch(tmp_path, url, "hf:own/model")
    assert (code, out) == (69, "hf:own/model: the hub answers with status 501; try again later")


@pytest.mark.parametrize("source", ["hf:", "hf:model", "hf:a/b/c", "hf:../..@x y", "hf:own/model@"])
def test_names_that_are_none(source: str) -> None:
    with pytest.raises(GenoSSMError, match="is no model of the hub: write hf:owner/name"):
        fetch_model(source)
