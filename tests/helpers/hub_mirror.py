"""A minimal mirror of the hub for tests: serves data set folders over the protocol that the loader speaks."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "0" * 40


class _Handler(BaseHTTPRequestHandler):
    root: Path
    requests: list[str]
    unfinished: bool

    def log_message(self, format: str, *args: Any) -> None:
        self.requests.append(format % args)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        if self.unfinished:
            self.requests.append(self.path)
            self.close_connection = True
        else:
            self._answer(body=True)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.posted = self.rfile.read(length)
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            file = self.root / match[1] / match[2]
            if file.is_file():
                return self._send(200, file.read_bytes(), body)
            return self._send(404, b"{}", body, "EntryNotFound" if (self.root / match[1]).is_dir() else "RepoNotFound")
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/.*)?", path):
            folder = self.root / match[1]
            if folder.is_dir():
                return self._send(200, json.dumps(self._describe(folder, match[1], match[2])).encode(), body)
        elif path == "/":
            return self._send(200, b"", body)
        return self._send(404, b"{}", body, "RepoNotFound")

    def _describe(self, folder: Path, name: str, kind: str | None) -> Any:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        entries = [
            {
                "type": "file",
                "path": str(p.relative_to(folder)),
                "size": p.stat().st_size,
                "oid": _digest(p.read_bytes()),
            }
            for p in files
        ]
        if kind in ("tree", "paths-info"):
            return entries
        siblings = [{"rfilename": entry["path"]} for entry in entries]
        return {
            "id": name,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        }

    def _send(self, status: int, content: bytes, body: bool, error: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{_digest(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def hub_mirror(root: Path, unfinished: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Serve `root`/OWNER/NAME/... on localhost; yields the endpoint and the growing list of requests.

    With `unfinished` it answers HEAD requests, and hangs up on all that ask for content.
    """
    requests: list[str] = []
    handler = type("Handler", (_Handler,), {"root": root, "requests": requests, "unfinished": unfinished})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
