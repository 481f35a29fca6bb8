"""Servers on the loopback that misbehave in every way that real ones do: HTTP, NCBI's efetch, FTP."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import random
import socket
import socketserver
import time


def fasta(name: str = "chr1", seed: int = 0, n: int = 200_000) -> bytes:
    """A FASTA of one record of random bases, lines of 60."""
    letters = bytes(random.Random(seed).choices(b"ACGT", k=n))
    return f">{name} a genome\n".encode() + b"\n".join(letters[i : i + 60] for i in range(0, n, 60)) + b"\n"


TEXT = fasta()
NEW_TEXT = fasta(seed=9)
NEW_GZIP = gzip.compress(NEW_TEXT)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's body; the first part of the path and the server's list of faults say how."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """One request, with the next fault of the list; after the list all is well."""
        server = self.server
        server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        fault = server.faults.pop(0) if server.faults else "ok"
        self.close_connection = True
        if fault.isdigit():
            self._answer(int(fault), b"<html>no</html>", {"Retry-After": "0", "Content-Type": "text/html"})
        elif fault == "html":
            self._answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})
        elif fault == "html as text":
            self._answer(200, b"\n<!DOCTYPE html>\n<p>log in", {"Content-Type": "text/plain"})
        elif fault == "redirect":
            self._answer(302, b"", {"Location": "/moved/file"})
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            if fault.startswith("new "):
                server.body = NEW_TEXT if "plain" in fault else NEW_GZIP
                fault = "ok"
            self._file(fault)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _file(self, fault: str) -> None:
        body = self.server.body
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        start = 0
        wanted = self.headers.get("Range")
        ranges = "no range" not in fault and "no length" not in fault
        condition = self.headers.get("If-Range")
        if wanted and ranges and (condition in (None, etag) or "careless" in fault):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if "no etag" not in fault:
            self.send_header("ETag", etag)
        rest = body[start:]
        if "no length" in fault:
            pass
        elif "chunked" in fault:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(rest)))
        self.send_header("Connection", "close")
        self.end_headers()
        if "cut" in fault:
            rest = rest[: len(rest) // 2]
        self._send(rest, fault)

    def _send(self, rest: bytes, fault: str) -> None:
        if "chunked" in fault:
            for i in range(0, len(rest), 10_000):
                piece = rest[i : i + 10_000]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if "cut" not in fault:
                self.wfile.write(b"0\r\n\r\n")
        elif "slow" in fault:
            self.wfile.write(rest[:40_000])
            self.wfile.flush()
            time.sleep(1.2)
        elif "drip" in fault:
            for i in range(0, len(rest), 2000):
                self.wfile.write(rest[i : i + 2000])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(rest)


class Server(http.server.ThreadingHTTPServer):
    """Holds one file, the faults to come, and the requests that came: (path, Range, If-Range)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.faults: list[str] = []
        self.requests: list[tuple[str, str | None, str | None]] = []

    @property
    def url(self) -> str:
        """Address of the file."""
        return f"http://127.0.0.1:{self.server_address[1]}/file"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no fault of the test."""


class Entrez(Handler):
    """Answers efetch as NCBI does: chunked text, or its errors."""

    def _file(self, fault: str) -> None:
        super()._file(fault + " chunked no etag no range")


class FtpHandler(socketserver.StreamRequestHandler):
    """As much of an FTP server as a download needs (RFC 959, 2428, 3659)."""

    server: FtpServer

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def handle(self) -> None:
        """One session."""
        start, data = 0, socket.create_server(("127.0.0.1", 0))
        self._say("220 ready")
        with data:
            while line := self.rfile.readline().decode().strip():
                word, _, rest = line.partition(" ")
                self.server.log.append(line)
                if word == "REST":
                    start = int(rest)
                if word == "RETR":
                    if self.server.missing:
                        self._say("550 no such file")
                        continue
                    self._say("150 coming")
                    self._transfer(data, start)
                else:
                    port = data.getsockname()[1]
                    a, b = divmod(port, 256)
                    replies = {
                        "USER": "331 password",
                        "EPSV": f"229 here (|||{port}|)",
                        "PASV": f"227 here (127,0,0,1,{a},{b})",
                        "SIZE": f"213 {len(self.server.body)}" if self.server.tells else "500 unknown",
                        "MDTM": "213 20200101000000",
                        "REST": "350 restart",
                    }
                    self._say(replies.get(word, "230 fine" if word == "PASS" else "200 fine"))

    def _transfer(self, data: socket.socket, start: int) -> None:
        rest = self.server.body[start:]
        cut = self.server.cuts > 0
        self.server.cuts -= 1
        with data.accept()[0] as stream:
            stream.sendall(rest[: len(rest) // 2] if cut else rest)
        self._say("426 cut" if cut else "226 done")


class FtpServer(socketserver.ThreadingTCPServer):
    """Holds one file; cuts the first ``cuts`` transfers; ``tells`` its size or not."""

    daemon_threads = True

    def __init__(self, body: bytes, cuts: int, tells: bool, missing: bool) -> None:
        super().__init__(("127.0.0.1", 0), FtpHandler)
        self.body, self.cuts, self.tells, self.missing = body, cuts, tells, missing
        self.log: list[str] = []
