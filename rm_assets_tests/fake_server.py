"""A real HTTP server on this machine that speaks as much of the OpenAI API as is needed, and misbehaves when told to."""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Reply:
    """What the server answers; `drop` closes the connection instead."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


def completion(text: str | None = "fine", *, finish_reason: str = "stop", num_tokens: int = 3) -> Json:
    """A chat completion as vLLM gives it."""
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 5, "completion_tokens": num_tokens, "total_tokens": 5 + num_tokens},
    }


def echo(body: Json) -> Reply:
    """The last message and the seed, so that every response tells which request it belongs to."""
    return Reply(completion(f"{body['messages'][-1]['content']} / {body['seed']}"))


def judge(verdict: Callable[[str, str], str]) -> Callable[[Json], Reply]:
    """Answers a question of the default instructions by what `verdict` says of its first and its second response."""

    def answer(body: Json) -> Reply:
        first, second = responses_in(body)
        return Reply(completion(verdict(first, second)))

    return answer


def responses_in(body: Json) -> tuple[str, str]:
    """The two responses between the marks of a question to a judge."""
    asked = body["messages"][0]["content"]
    first, second = (re.search(rf"<response {n} (\w+)>\n(.*)\n</response {n} \1>", asked, re.S) for n in (1, 2))
    assert first and second
    return first[2], second[2]


class _ManyConnections(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


class FakeServer:
    """What was asked of the server, and how it answers."""

    def __init__(self) -> None:
        self.models: Any = {"object": "list", "data": [{"id": "toy", "root": "org/toy-1b"}]}
        self.answer: Callable[[Json], Reply] = echo
        self.key: str | None = None
        self.posts: list[Json] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self.http = _ManyConnections(("127.0.0.1", 0), _handler(self))
        self.base_url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def reply(self, method: str, path: str, body: Json, authorization: str | None) -> Reply:
        """The reply to one request."""
        with self._lock:
            self.paths.append(f"{method} {path}")
            self.authorizations.append(authorization)
        if self.key is not None and authorization != f"Bearer {self.key}":
            return Reply({"error": f"no such key: {authorization}"}, status=401)
        if method == "GET":
            return Reply(self.models) if path == "/v1/models" else Reply("Not Found", status=404)
        with self._lock:
            self.posts.append(body)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            return self.answer(body)
        finally:
            with self._lock:
                self._in_flight -= 1


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as by the real servers

        def do_GET(self) -> None:
            self._reply(server.reply("GET", self.path, {}, self.headers["Authorization"]))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._reply(server.reply("POST", self.path, body, self.headers["Authorization"]))

        def _reply(self, reply: Reply) -> None:
            if reply.drop:
                self.close_connection = True
                return
            content = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            try:
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client broke the request off
                self.close_connection = True

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):  # broken off between head and body of a request
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[FakeServer]:
    """A server that runs until the end of the block."""
    server = FakeServer()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()
