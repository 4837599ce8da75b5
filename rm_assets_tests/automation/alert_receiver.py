"""What takes alerts, as Slack or a house's own service would."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """Answers what it is told to, and keeps what it has taken."""

    address: str
    answers: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)

    def kinds(self) -> list[str]:
        """The kind of each alert that was taken, in order."""
        return [body["kind"] for body in self.taken]

    def keys(self) -> Counter[str]:
        """How often the alert of each key was taken."""
        return Counter(body["key"] for body in self.taken)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on loopback, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = found.answers.pop(0) if found.answers else 204
            found.asked.append(self.path)
            if status < 300:
                found.taken.append(body)
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", "/login")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_port}/services/SECRET")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
