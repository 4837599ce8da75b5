"""A stand-in of Vertex AI's custom jobs and of Cloud Logging on loopback, with processes of this machine as machines."""

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from rm_assets_tests.executors.containers import Container

Json = dict[str, Any]
TOKEN = "token-of-the-service-account"
JOBS = "/v1/projects/research/locations/europe-west4/customJobs"


def refusal(code: int, message: str, status: str = "") -> tuple[int, Json]:
    """A refusal, as Google's APIs write it."""
    return code, {"error": {"code": code, "message": message, "status": status}}


@dataclass
class Misbehaviour:
    """What goes wrong."""

    refusals: dict[str, tuple[int, Json]] = field(default_factory=dict)  # by what is asked: "create", "get", "log"
    no_machine: str = ""  # jobs fail for this reason before they have one
    log_delay: float = 0.3  # before an entry can be read


class Job:
    """A custom job and its machine."""

    def __init__(self, asked: Json, environment: dict[str, str], wrong: Misbehaviour) -> None:
        self.asked, self._wrong, self.container = asked, wrong, None
        self._environment = environment
        now = _now()
        self.json = asked | {
            "name": f"{JOBS.removeprefix('/v1/')}/{uuid.uuid4().int % 10**18}", "state": "JOB_STATE_PENDING", "createTime": now,
        }  # fmt: skip
        self.is_cancelled = False
        self.thread = threading.Thread(target=self._live)
        self.container: Container | None = None
        self.thread.start()

    def cancel(self) -> None:
        """Begins to end it."""
        self.is_cancelled = True
        self.json["state"] = "JOB_STATE_CANCELLING"
        if self.container:
            self.container.kill()

    def _live(self) -> None:
        time.sleep(0.3)
        if self._wrong.no_machine:
            self._end("JOB_STATE_FAILED", 3, self._wrong.no_machine)
        elif self.is_cancelled:
            self._end("JOB_STATE_CANCELLED", 1, "CANCELED")
        else:
            command = self.asked["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["command"]
            self.container = Container(command, self._environment)
            self.json |= {"state": "JOB_STATE_RUNNING", "startTime": _now()}
            code = self.container.wait()
            if self.is_cancelled:
                self._end("JOB_STATE_CANCELLED", 1, "CANCELED")
            elif code == 0:
                self._end("JOB_STATE_SUCCEEDED")
            else:
                code = 128 - code if code < 0 else code
                text = f"The replica workerpool0-0 exited with a non-zero status of {code}. Termination reason: Error."
                self._end("JOB_STATE_FAILED", 3, text)

    def _end(self, state: str, code: int = 0, message: str = "") -> None:
        error = {"error": {"code": code, "message": message}} if message else {}
        self.json |= {"endTime": _now(), **error}
        self.json["state"] = state

    def entries(self, since: float) -> list[Json]:
        """Log entries that can be read by now."""
        lines = self.container.log if self.container else []
        until = time.time() - self._wrong.log_delay
        return [
            {
                "insertId": f"entry-{n}", "timestamp": datetime.fromtimestamp(at, UTC).isoformat(),
                "jsonPayload": {"message": line.decode("utf-8", "replace").removesuffix("\n")},
            }
            for n, (at, line) in enumerate(list(lines)) if since <= at <= until
        ]  # fmt: skip


class FakeVertex:
    """The server: its jobs, what was asked of it, and what goes wrong. `image` is the environment of all containers."""

    def __init__(self, image: dict[str, str]) -> None:
        self.image, self.wrong = image, Misbehaviour()
        self.jobs: list[Job] = []
        self.asked: list[str] = []
        self.page_size = 1000
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def write_credentials(self, file: Path) -> None:
        """The key file of a service account whose tokens come from here."""
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_text(json.dumps({
            "type": "service_account", "client_email": "tester@research.iam.gserviceaccount.com", "project_id": "research",
            "private_key": key.decode(), "private_key_id": "1", "token_uri": f"{self.url}/token",
        }))  # fmt: skip

    def environment(self, credentials: Path) -> dict[str, str]:
        """By which a client finds it."""
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"{self.url}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": f"{self.url}/",
        }

    def answer(self, method: str, path: str, query: dict[str, str], body: Json, token: str) -> tuple[int, Json]:
        """Status and body of an answer."""
        if path == "/token":
            return 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        name = path.removeprefix("/v1/").removesuffix(":cancel")
        one = next((job for job in self.jobs if job.json["name"] == name), None)
        verb = {("POST", JOBS): "create", ("GET", JOBS): "list", ("POST", "/v2/entries:list"): "log"}.get(
            (method, path), "cancel" if path.endswith(":cancel") else "get"
        )
        self.asked.append(verb)
        if token != f"Bearer {TOKEN}":
            return refusal(401, "Request had invalid authentication credentials.")
        if verb in self.wrong.refusals:
            return self.wrong.refusals[verb]
        if verb == "create":
            self.jobs.append(Job(body, self.image, self.wrong))
            return 200, self.jobs[-1].json
        if verb == "list":
            named = [job.json for job in self.jobs if query["filter"] == f'display_name="{job.json["displayName"]}"']
            return 200, {"customJobs": named} if named else {}
        if verb == "log":
            return 200, self._page(body)
        if one is None:
            return refusal(404, "The CustomJob does not exist.")
        if verb == "cancel":
            one.cancel()
            return 200, {}
        return 200, one.json

    def _page(self, body: Json) -> Json:
        assert body["resourceNames"] == ["projects/research"] and body["orderBy"] == "timestamp asc"
        found = re.fullmatch(
            r'resource.type="ml_job" AND resource.labels.job_id="(\d+)" '
            r'AND resource.labels.task_name="workerpool0-0" AND timestamp>="(.*)"',
            body["filter"],
        )
        assert found, body["filter"]
        job = next(job for job in self.jobs if job.json["name"].endswith(f"/{found[1]}"))
        start = int(body.get("pageToken", 0))
        entries = job.entries(datetime.fromisoformat(found[2]).timestamp())
        end = start + self.page_size
        return {"entries": entries[start:end]} | ({"nextPageToken": str(end)} if end < len(entries) else {})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _handler(server: FakeVertex) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            url, length = urlsplit(self.path), int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(length)
            body = json.loads(sent) if sent.startswith(b"{") else {}
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            code, answer = server.answer(self.command, url.path, query, body, self.headers["Authorization"] or "")
            content = json.dumps(answer).encode()
            with contextlib.suppress(OSError):
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler


@contextlib.contextmanager
def serving_vertex(image: dict[str, str]) -> Iterator[FakeVertex]:
    """The service until the end of the block, with which its machines end."""
    server = FakeVertex(image)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        for job in server.jobs:
            job.cancel()
            job.thread.join()
        server.http.shutdown()
        thread.join()
        server.http.server_close()
