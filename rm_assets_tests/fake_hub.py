"""A real HTTP server on this machine that speaks as much of the Hugging Face Hub's API as reading datasets needs."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Reply = tuple[int, dict[str, str], bytes]
COMMIT_DATE = "2026-01-02T03:04:05.000Z"


class FakeHub:
    """Dataset repositories with their commits and branches, and what was asked of them."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}  # by dataset, by commit: files
        self.branches: dict[str, dict[str, str]] = {}
        self.token: str | None = None
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.authorizations: set[str | None] = set()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}"

    def commit(self, dataset: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Puts a commit with these files on top of a branch, and gives its id."""
        sha = hashlib.sha1(f"{dataset}{len(self.commits.get(dataset, {}))}".encode()).hexdigest()
        self.commits.setdefault(dataset, {})[sha] = files
        self.branches.setdefault(dataset, {})[branch] = sha
        return sha

    def reply(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        """The reply to one request."""
        self.requests.append(f"{method} {path}")
        self.authorizations.add(headers["Authorization"])
        address = urlsplit(path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        is_api = parts[0] == "api"
        if parts[is_api : is_api + 1] != ["datasets"] or len(parts) < is_api + 3:
            return _fault(404, "", "no such address")
        dataset, rest = "/".join(parts[is_api + 1 : is_api + 3]), parts[is_api + 3 :]
        if self.token is not None and headers["Authorization"] != f"Bearer {self.token}":
            return _fault(401, "RepoNotFound", "Invalid username or password.")
        if dataset not in self.commits:
            return _fault(401, "RepoNotFound", "Repository not found")
        verb, revision, inside = (rest or ["revision"])[0], rest[1] if len(rest) > 1 else "main", rest[2:]
        if dataset in self.gated and verb == "resolve":
            return _fault(403, "GatedRepo", f"Access to dataset {dataset} is restricted.")
        sha = self.branches[dataset].get(revision, revision)
        if sha not in self.commits[dataset]:
            return _fault(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = self.commits[dataset][sha]
        if verb == "resolve":
            return _content(sha, files.get("/".join(inside)), headers["Range"])
        if verb == "revision":
            siblings = [{"rfilename": name} for name in files]
            return _json({"_id": "1", "id": dataset, "sha": sha, "private": False, "tags": [], "downloads": 0,
                          "likes": 0, "gated": False, "lastModified": COMMIT_DATE, "siblings": siblings})  # fmt: skip
        if verb == "tree":
            return _json(list(_entries(files, "/".join(inside), recursive="recursive" in address.query)))
        asked = parse_qs(body.decode())["paths"] if verb == "paths-info" else []
        return _json([entry for entry in _entries(files, "", recursive=True) if entry["path"] in asked])


def _entries(files: dict[str, bytes], folder: str, *, recursive: bool) -> Iterator[dict[str, Any]]:
    """The files and folders below a folder."""
    folders: dict[str, None] = {}
    for name, content in files.items():
        if folder and not name.startswith(folder + "/"):
            continue
        inner = name.removeprefix(folder + "/" if folder else "")
        parents = inner.split("/")[:-1]
        folders |= {"/".join([*([folder] if folder else []), *parents[: n + 1]]): None for n in range(len(parents))}
        if recursive or not parents:
            commit = {"id": "1" * 40, "title": "files", "date": COMMIT_DATE}
            yield {"type": "file", "oid": _oid(content), "size": len(content), "path": name, "lastCommit": commit}
    for name in folders:
        yield {"type": "directory", "oid": _oid(name.encode()), "size": 0, "path": name}


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _content(sha: str, content: bytes | None, asked: str | None) -> Reply:
    if content is None:
        return _fault(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
    headers = {"X-Repo-Commit": sha, "ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"}
    if asked is None:
        return 200, headers, content
    first, _, last = asked.removeprefix("bytes=").partition("-")
    part = content[int(first) : int(last) + 1 if last else None]
    return 206, headers | {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"}, part


def _json(value: Any) -> Reply:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _fault(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Reply:
    named = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
    return status, {**named, **(headers or {})}, json.dumps({"error": message}).encode()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, headers, content = hub.reply(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = _reply

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # a client that needs no more breaks off
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler


@contextlib.contextmanager
def serving_hub() -> Iterator[FakeHub]:
    """A Hub that runs until the end of the block."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.http.shutdown()
        thread.join()
        hub.http.server_close()
