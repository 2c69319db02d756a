"""A server of this machine that plays the public addresses: released files, and the Hugging Face hub."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """A repository of the hub: its files, and the commits by which its branches and tags are known."""

    files: dict[str, bytes]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})

    def commit(self, revision: str) -> str | None:
        return self.revisions.get(revision) or (revision if revision in self.revisions.values() else None)


@dataclass
class Web:
    """The state of the server, which tests change, and what was asked of it."""

    address: str
    #: Path -> content of released files.
    files: dict[str, bytes] = field(default_factory=dict)
    repos: dict[str, Repo] = field(default_factory=dict)
    #: Bytes behind which successive answers with content end; None lets one be whole.
    cuts: list[int | None] = field(default_factory=list)
    #: Statuses of successive answers, before any is as it should be.
    statuses: list[int] = field(default_factory=list)
    #: Header fields that are left out, and whether parts are given.
    without: tuple[str, ...] = ()
    ranges: bool = True
    #: Seconds to wait before content is sent.
    delay: float = 0.0
    #: Method, path and range of every request.
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    #: Large files that were uploaded, by their sha256.
    uploaded: dict[str, bytes] = field(default_factory=dict)

    def gets(self, part: str = "") -> list[tuple[str, str]]:
        """Paths and ranges of those that asked for content."""
        return [(path, span) for method, path, span in self.asked if method == "GET" and part in path]


class Handler(BaseHTTPRequestHandler):
    """Answers as the public servers do, as far as clients look."""

    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._note()
        if self.web.statuses:
            self._send(self.web.statuses.pop(0), b"later")
        elif self.path_only in self.web.files:
            self._send_file(self.web.files[self.path_only], {})
        else:
            self._hub()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._note()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path_only):
            self._json(self._committed(found[1], body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path_only):
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._json({"files": modes})
        elif self.path_only == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.web.repos.setdefault(name, Repo({}))
            self._json({"url": f"{self.web.address}/{name}"})
        elif self.path_only.endswith("/info/lfs/objects/batch"):
            objects = [
                {"oid": entry["oid"], "size": entry["size"], "actions": {"upload": {"href": self._place(entry["oid"])}}}
                for entry in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        else:
            self._json({})

    def do_PUT(self) -> None:
        self._note()
        self.web.uploaded[self.path.rsplit("/", 1)[-1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(200, b"")

    @property
    def path_only(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _place(self, oid: str) -> str:
        return f"{self.web.address}/upload/{oid}"

    def _note(self) -> None:
        self.web.asked.append((self.command, self.path_only, self.headers.get("Range", "")))

    def _hub(self) -> None:
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?(?:/.*)?", self.path_only)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path_only)
        if self.path_only == "/api/whoami-v2":
            return self._json({"type": "user", "name": "me", "orgs": []})
        found = api or file
        repo = self.web.repos.get(found[1]) if found else None
        if found is None or repo is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        revision = (found[3] if api else found[2]) or "main"
        commit = repo.commit(revision)
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        if file is None:
            return self._told(found[1], repo, commit, tree=found[2] == "tree")
        if file[3] not in repo.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        return self._send_file(repo.files[file[3]], {"X-Repo-Commit": commit})

    def _told(self, name: str, repo: Repo, commit: str, *, tree: bool) -> None:
        if tree:
            entries = [
                {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": path}
                for path, content in repo.files.items()
            ]
            return self._json(entries)
        siblings = [{"rfilename": path} for path in repo.files]
        return self._json({"id": name, "modelId": name, "sha": commit, "private": False, "siblings": siblings})

    def _committed(self, name: str, body: bytes) -> dict[str, Any]:
        repo = self.web.repos[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.web.uploaded[value["oid"]]
        place = f"{self.web.address}/{name}/commit/{COMMIT}"
        return {"commitUrl": place, "commitOid": COMMIT, "pullRequestUrl": None, "success": True}

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_file(self, content: bytes, fields: dict[str, str]) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        fields = {**fields, "ETag": tag, "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.web.ranges else None
        if span is None or self.headers.get("If-Range", tag) != tag:
            return self._send(200, content, fields)
        start = int(span[1])
        if start >= len(content):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        end = min(int(span[2] or len(content)), len(content) - 1)
        fields |= {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        return self._send(206, content[start : end + 1], fields)

    def _send(self, status: int, content: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (fields or {})).items():
            if name not in self.web.without:
                self.send_header(name, value)
        if "Content-Length" in self.web.without:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.web.cuts.pop(0) if self.web.cuts and status in (200, 206) else None
        if self.web.delay:
            threading.Event().wait(self.web.delay)
        self.wfile.write(content[:cut])
        if cut is not None and cut < len(content):
            self.wfile.flush()
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Web]:
    """The server, until the block ends."""
    handler = type("Handler", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    web = handler.web = Web(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
