"""Published models from the Hugging Face hub, through its own client: cached, resumed, from the cache without network.

``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` mean what they mean to that client.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from genossm.errors import ExitCode, GenoSSMError
from genossm.files import sha256_of

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_BESIDE = ("config.json", "tokenizer.json", "vocab.json", "README.md")
_WEIGHTS = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
    ("*.ckpt",),
)
"""What holds the weights; the first that a repository has is taken. Code of a repository is never fetched."""


@dataclass(frozen=True)
class HubModel:
    """A model in the cache of the hub's client.

    Attributes:
        folder: where its files lie.
        name: owner/name. revision: the commit.
        sha256: checksums that the hub knows, by file name.
    """

    folder: Path
    name: str
    revision: str
    sha256: dict[str, str]


def fetch_model(source: str, *, offline: bool = False) -> HubModel:
    """Bring ``hf:owner/name`` or ``hf:owner/name@revision`` into the cache; what is there already is not sent again.

    Args:
        offline: use the cache alone.

    Raises:
        GenoSSMError: no such name; no network and not in the cache (exit code 69); the hub refuses.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise GenoSSMError(f"{source!r} is no model of the hub: write hf:owner/name or hf:owner/name@revision")
    name, revision = match["name"], match["revision"]
    return _cached(name, revision, "--offline") if offline else _fetched(name, revision)


def _fetched(name: str, revision: str | None) -> HubModel:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
        files = info.siblings or []
        wanted = _choose([file.rfilename for file in files], name)
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except GenoSSMError:
        raise
    except HFValidationError as error:
        raise GenoSSMError(f"{PREFIX}{name}: {str(error).splitlines()[0]}") from None
    except HfHubHTTPError as error:
        raise _refused(name, error) from None
    except Exception as error:  # no way to the hub, or an answer of something else, as of a login page
        garbled = isinstance(error, ValueError | LookupError | TypeError | AttributeError)
        why = "what answers does not speak as the hub does" if garbled else "the hub cannot be reached"
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"warning: {PREFIX}{name}: {why} ({detail}); trying the cache", file=sys.stderr)
        return _cached(name, revision, why)
    known = {f.rfilename: f.lfs.sha256 for f in files if f.lfs is not None and f.rfilename in wanted}
    return HubModel(folder, name, folder.name, known if folder.name == info.sha else {})


def _refused(name: str, error: Exception) -> GenoSSMError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        text, code = "its owner asks for an agreement: accept it on the hub, then set HF_TOKEN", ExitCode.BAD_INPUT
    elif isinstance(error, RepositoryNotFoundError):
        text, code = "no such model on the hub, or a private one (then set HF_TOKEN)", ExitCode.BAD_INPUT
    elif isinstance(error, RevisionNotFoundError):
        text, code = "the model has no such revision", ExitCode.BAD_INPUT
    else:
        text, code = f"the hub answers with status {status}; try again later", ExitCode.NETWORK
    return GenoSSMError(f"{PREFIX}{name}: {text}", exit_code=code)


def _choose(files: Iterable[str], name: str) -> list[str]:
    """The files to fetch: the configuration, the tokenizer, the card, and one form of the weights."""
    present = list(files)
    for patterns in _WEIGHTS:
        found = [f for pattern in patterns for f in fnmatch.filter(present, pattern) if "/" not in f]
        if found:
            return [*(f for f in _BESIDE if f in present), *found]
    raise GenoSSMError(f"{PREFIX}{name}: the repository holds no weights that can be read ({len(present)} files)")


def _cached(name: str, revision: str | None, why: str) -> HubModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        _check_cache(Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[])))
    for patterns in _WEIGHTS:
        try:
            wanted = ["config.json", *patterns]
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=wanted))
        except LocalEntryNotFoundError:
            continue
        if any(True for pattern in patterns for _ in folder.glob(pattern)):
            return HubModel(folder, name, folder.name, {})
    raise GenoSSMError(
        f"{PREFIX}{name}: {why}, and the model is not in the cache: fetch it once where there is network (copy"
        " ~/.cache/huggingface), or give the path of a folder with its config.json and weights",
        exit_code=ExitCode.NETWORK,
    )


def _check_cache(folder: Path) -> None:
    """Compare the files of a snapshot with their checksums: the client keeps each under its sha256, or git's sha1.

    Raises:
        GenoSSMError: a file that is missing or changed.
    """
    mend = f"remove {folder.parent.parent}, and import once with network"
    for path in sorted(folder.iterdir()):
        if not path.is_symlink():
            continue
        blob = path.resolve()
        if not blob.is_file():
            raise GenoSSMError(f"is missing from the cache of the hub's client: {mend}", path=path)
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            found = sha256_of(blob)
        elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
            content = blob.read_bytes()
            found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        else:
            continue
        if found != blob.name:
            raise GenoSSMError(f"damaged in the cache of the hub's client: {mend}", path=path)
