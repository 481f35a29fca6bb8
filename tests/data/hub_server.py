"""A loopback server that speaks as much of the hub's language as its client asks for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".ckpt")


@contextmanager
def hub(
    models: dict[str, Path], *, gated: str = "", refused: int = 0, page: bytes = b""
) -> Iterator[tuple[str, list[str]]]:
    """Serve folders as models: the endpoint's URL, and the requests so far.

    ``gated``: a model whose owner asks for an agreement. ``refused``: a status for every request. ``page``: the answer
    to every request, as of a login page.
    """
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path}")
            path = self.path.split("?")[0]
            api = re.fullmatch(r"/api/models/([\w-]+/[\w.-]+)(/revision/(\w+))?(/tree/(\w+))?", path)
            file = re.fullmatch(r"/([\w-]+/[\w.-]+)/resolve/(\w+)/([\w.-]+)", path)
            name = api[1] if api else file[1] if file else ""
            revision = (api[3] or api[5] or "main") if api else file[2] if file else ""
            if refused:
                self.answer(refused)
            elif page:
                self.answer(200, page)
            elif name == gated:
                self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="gated")
            elif name not in models:
                self.answer(401, X_Error_Code="RepoNotFound")
            elif revision not in ("main", COMMIT):
                self.answer(404, X_Error_Code="RevisionNotFound")
            elif api:
                self.answer(200, json.dumps(self.listing(name, tree=api[4] is not None)).encode())
            elif file and (models[name] / file[3]).is_file():
                self.file(models[name] / file[3])
            else:
                self.answer(404, X_Error_Code="EntryNotFound")

        def file(self, path: Path) -> None:
            body = path.read_bytes()
            large = path.suffix in LARGE
            digest = hashlib.sha256(body) if large else hashlib.sha1(b"blob %d\0" % len(body) + body)
            headers = {"X_Repo_Commit": COMMIT, "ETag": f'"{digest.hexdigest()}"'}
            self.answer(200, body, **headers)

        def listing(self, name: str, *, tree: bool) -> Any:
            entries = []
            for path in sorted(models[name].iterdir()):
                size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
                lfs = {"sha256": digest, "oid": digest, "size": size, "pointerSize": 134}
                large = path.suffix in LARGE
                entries.append(
                    {"type": "file", "rfilename": path.name, "path": path.name, "size": size, "blobId": digest[:40],
                     "oid": digest[:40], **({"lfs": lfs} if large else {})}
                )  # fmt: skip
            if tree:
                return entries
            return {"id": name, "modelId": name, "sha": COMMIT, "siblings": entries, "private": False, "tags": []}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
