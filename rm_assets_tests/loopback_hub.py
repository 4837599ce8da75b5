"""What the Hubs of the tests share: a real HTTP server on this machine, what it was asked, and the form of its answers."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers, content."""


class LoopbackHub:
    """Answers requests by `reply`, and remembers them."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.authorizations: set[str | None] = set()
        self.token: str | None = None
        self.cut: Callable[[str, str], bool] = lambda method, path: False
        """Whether the connection is dropped at a request, after half of its body."""
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}"

    def reply(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        """The reply to one request."""
        raise NotImplementedError

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        """Takes note of a request and replies."""
        self.requests.append(f"{method} {path}")
        self.authorizations.add(headers["Authorization"])
        return self.reply(method, path, headers, body)

    def refuses(self, headers: Any) -> bool:
        """Whether the request lacks the token."""
        return self.token is not None and headers["Authorization"] != f"Bearer {self.token}"


class HubOfReplies(LoopbackHub):
    """Replies by path."""

    def __init__(self, **replies: Reply) -> None:
        self.replies = replies
        super().__init__()

    def reply(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        """The reply to one request."""
        return next((reply for part, reply in self.replies.items() if part in path), as_json([]))


Hub = TypeVar("Hub", bound=LoopbackHub)


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The Hub runs until the end of the block."""
    thread = threading.Thread(target=hub.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.http.shutdown()
        thread.join()
        hub.http.server_close()


def as_json(value: Any, kind: str = "application/json") -> Reply:
    return 200, {"Content-Type": kind}, json.dumps(value).encode()


def fault(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Reply:
    named = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
    return status, {**named, **(headers or {})}, json.dumps({"error": message}).encode()


def content_of(sha: str, content: bytes | None, etag: Callable[[bytes], str], asked: str | None = None) -> Reply:
    """A file at a commit, or the range of it that was asked for."""
    if content is None:
        return fault(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
    headers = {"X-Repo-Commit": sha, "ETag": f'"{etag(content)}"', "Accept-Ranges": "bytes"}
    if asked is None:
        return 200, headers, content
    first, _, last = asked.removeprefix("bytes=").partition("-")
    part = content[int(first) : int(last) + 1 if last else None]
    return 206, headers | {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"}, part


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            if hub.cut(self.command, self.path):
                self.rfile.read(length // 2)
                self.close_connection = True
                self.connection.close()
                return
            chunked = self.headers["Transfer-Encoding"] == "chunked"
            body = b"".join(self._chunks()) if chunked else self.rfile.read(length)
            status, headers, content = hub.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _reply

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):  # a connection that is cut, or a client that needs no more
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler
