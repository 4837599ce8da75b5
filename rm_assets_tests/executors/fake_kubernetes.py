"""A stand-in of the Kubernetes API on loopback: Jobs, pods, logs and events, with processes of this machine as containers.

It refuses what the API's schema does not know, as the real server does, and misbehaves when told to.
"""

import contextlib
import json
import os
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

import kubernetes_validate

from rm_assets_tests.executors.containers import Container

Json = dict[str, Any]
TOKEN = "token-of-the-kubeconfig"
JOBS = re.compile(r"/apis/batch/v1/namespaces/(?P<namespace>[^/]+)/(?P<resource>jobs)(?:/(?P<name>[^/]+))?")
OTHERS = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/(?P<resource>pods|events)(?:/(?P<name>[^/]+)/log)?")
VERBS = {"POST": "create", "DELETE": "delete"}


def status(code: int, message: str) -> tuple[int, Json]:
    """A refusal, as the API writes it."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


@dataclass
class Misbehaviour:
    """What goes wrong, each until it is taken back."""

    unschedulable: str = ""  # pods find no node, for this reason
    unpullable: str = ""  # images are not there, in these words
    refusals: dict[str, tuple[int, Json]] = field(default_factory=dict)  # by verb and resource: "create jobs"
    cuts: list[int] = field(default_factory=list)  # the next openings of a log break after so many bytes
    cuts_are_clean: bool = False  # and look like its end


class Pod:
    """A pod with one container, which is a process group of this machine."""

    def __init__(self, job: Json, environment: dict[str, str] | None, wrong: Misbehaviour) -> None:
        self.job, self.environment, self._wrong = job, environment, wrong
        self.name, self.uid = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}", str(uuid.uuid4())
        self.phase, self.state, self.conditions = "Pending", Json(), list[Json]()
        self.events: list[tuple[str, str]] = []
        self.is_deleted, self._killed_for = False, ""
        self.container: Container | None = None
        self.thread = threading.Thread(target=self._live)
        self.thread.start()

    def to_json(self) -> Json:
        """As the API gives it."""
        labels = {"batch.kubernetes.io/controller-uid": self.job["metadata"]["uid"]}
        statuses = [
            {"name": "task", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": self.state}
        ]
        return {
            "metadata": {"name": self.name, "uid": self.uid, "labels": labels},
            "spec": self.job["spec"]["template"]["spec"],
            "status": {
                "phase": self.phase, "conditions": self.conditions,
                "containerStatuses": statuses if self.state else None,
            },
        }  # fmt: skip

    def kill(self, reason: str = "Error") -> None:
        """The container's processes end at once."""
        self._killed_for = reason
        if self.container is not None:
            self.container.kill()

    def delete(self) -> None:
        """It is gone when its processes are."""
        self.is_deleted = True
        self.kill()
        self.thread.join()

    def _live(self) -> None:
        while self._wrong.unschedulable and not self.is_deleted:
            message = self._wrong.unschedulable
            self.conditions = [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            ]
            self.events = [("FailedScheduling", message)]
            time.sleep(0.05)
        self.conditions = [{"type": "PodScheduled", "status": "True"}]
        self.state = {"waiting": {"reason": "ContainerCreating"}}
        self.events.append(("Pulling", "Pulling image"))
        time.sleep(0.2)
        if self._wrong.unpullable:
            self.events.append(("Failed", self._wrong.unpullable))
            self.state = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
        elif self.environment is None:
            self.state = {"waiting": {"reason": "CreateContainerConfigError", "message": "secret not found"}}
        elif not self.is_deleted:
            self._run(self.environment)

    def _run(self, environment: dict[str, str]) -> None:
        spec = self.job["spec"]["template"]["spec"]["containers"][0]
        self.container = Container([*spec.get("command", ()), *spec.get("args", ())], environment)
        self.phase, self.state = "Running", {"running": {}}
        code = self.container.wait()
        reason = self._killed_for or ("Error" if code else "Completed")
        self.phase = "Failed" if code else "Succeeded"
        self.state = {"terminated": {"exitCode": 128 - code if code < 0 else code, "reason": reason}}
        # the Job ends when its controller has seen that
        kind = "Failed" if code else "Complete"
        self.job["status"] = {"conditions": [{"type": kind, "status": "True"}]}

    def lines(self, since: float) -> Iterator[bytes]:
        """The log from a time on, stamped, as it grows."""
        for at, line in self.container.lines() if self.container else ():
            if at >= since:
                yield datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() + line


class FakeKubernetes:
    """The server: its objects, what was asked of it, and what goes wrong.

    `image` is the environment of all containers; a Secret is names of variables of this process, whose values it holds.
    """

    def __init__(self, image: dict[str, str], secrets: dict[str, list[str]]) -> None:
        self.image, self.secrets, self.wrong = image, secrets, Misbehaviour()
        self.jobs: dict[str, Json] = {}
        self.created: list[Json] = []
        self.pods: list[Pod] = []
        self.asked: list[str] = []
        self.since: list[str | None] = []
        self._lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True

    def write_kubeconfig(self, file: Path) -> None:
        """Where it is and how it is asked, as `kubectl` reads it."""
        cluster = {"server": f"http://127.0.0.1:{self.http.server_port}"}
        context = {"cluster": "loopback", "user": "tester"}
        file.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "loopback", "cluster": cluster}],
            "users": [{"name": "tester", "user": {"token": TOKEN}}],
            "contexts": [{"name": "tests", "context": context}],
        }))  # fmt: skip

    def answer(self, method: str, path: str, query: dict[str, str], body: Json | None, token: str) -> Any:
        """Status and body of an answer, or the Pod whose log is asked for."""
        found = JOBS.fullmatch(path) or OTHERS.fullmatch(path)
        assert found, path
        name, resource = found["name"], found["resource"] + ("/log" if found["name"] and "pods" in path else "")
        verb = VERBS.get(method) or ("get" if name else "list")
        self.asked.append(f"{verb} {resource}")
        if token != f"Bearer {TOKEN}":
            return status(401, "Unauthorized")
        if refusal := self.wrong.refusals.get(f"{verb} {resource}"):
            return refusal
        with self._lock:
            return getattr(self, f"_{verb}_{resource.replace('/', '_')}")(name, query, body)

    def _create_jobs(self, name: None, query: dict[str, str], job: Json) -> Any:
        try:
            kubernetes_validate.validate(job, "1.37", strict=True)
        except kubernetes_validate.ValidationError as error:
            return status(422, str(error))
        name = job["metadata"]["name"]
        if name in self.jobs:
            return status(409, f'jobs.batch "{name}" already exists')
        self.created.append(json.loads(json.dumps(job)))
        job["metadata"]["uid"], job["status"] = str(uuid.uuid4()), {}
        self.jobs[name] = job
        self.pods.append(Pod(job, self._environment(job), self.wrong))
        return 201, job

    def _environment(self, job: Json) -> dict[str, str] | None:
        """That of a Job's container, None where its Secret is not there."""
        references = job["spec"]["template"]["spec"]["containers"][0].get("envFrom", ())
        names = [one["secretRef"]["name"] for one in references if "secretRef" in one]
        if not all(name in self.secrets for name in names):
            return None
        return self.image | {key: os.environ[key] for name in names for key in self.secrets[name]}

    def _get_jobs(self, name: str, query: dict[str, str], body: None) -> Any:
        found = self.jobs.get(name)
        return (200, found) if found else status(404, f'jobs.batch "{name}" not found')

    def _delete_jobs(self, name: str, query: dict[str, str], body: Json) -> Any:
        job = self.jobs.get(name)
        if job is None:
            return status(404, f'jobs.batch "{name}" not found')
        if body["preconditions"]["uid"] != job["metadata"]["uid"]:
            return status(409, "the UID in the precondition does not match")
        if "deletionTimestamp" not in job["metadata"]:
            job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            threading.Thread(target=self._collect, args=[job]).start()
        return 200, job

    def _collect(self, job: Json) -> None:
        """Deletes a Job after its pods, as propagation policy Foreground has it."""
        time.sleep(0.3)
        for pod in [pod for pod in self.pods if pod.job is job]:
            pod.delete()
            self.pods.remove(pod)
        del self.jobs[job["metadata"]["name"]]

    def _list_pods(self, name: None, query: dict[str, str], body: None) -> Any:
        uid = query["labelSelector"].removeprefix("batch.kubernetes.io/controller-uid=")
        return 200, {"items": [pod.to_json() for pod in self.pods if pod.job["metadata"]["uid"] == uid]}

    def _list_events(self, name: None, query: dict[str, str], body: None) -> Any:
        uid = query["fieldSelector"].removeprefix("involvedObject.uid=")
        said = [event for pod in self.pods if pod.uid == uid for event in pod.events]
        return 200, {"items": [
            {"metadata": {}, "involvedObject": {}, "reason": reason, "message": words} for reason, words in said
        ]}  # fmt: skip

    def _get_pods_log(self, name: str, query: dict[str, str], body: None) -> Any:
        assert (query["follow"], query["timestamps"], query["container"]) == ("true", "true", "task")
        self.since.append(query.get("sinceTime"))
        pods = [pod for pod in self.pods if pod.name == name]
        return pods[0] if pods else status(404, f'pods "{name}" not found')


def _handler(server: FakeKubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            found = server.answer(self.command, url.path, query, body, self.headers["Authorization"] or "")
            with contextlib.suppress(OSError):
                if isinstance(found, Pod):
                    self._give_log(found, query.get("sinceTime"))
                    return
                content = json.dumps(found[1]).encode()
                self.send_response(found[0])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer

        def _give_log(self, pod: Pod, since: str | None) -> None:
            cut = server.wrong.cuts.pop(0) if server.wrong.cuts else None
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in pod.lines(datetime.fromisoformat(since).timestamp() if since else 0):
                part = line if cut is None else line[:cut]
                if part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                cut = None if cut is None else cut - len(part)
                if cut == 0:
                    self.close_connection = True
                    self.wfile.write(b"0\r\n\r\n" if server.wrong.cuts_are_clean else b"")
                    return
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler


@contextlib.contextmanager
def serving_kubernetes(image: dict[str, str], secrets: dict[str, list[str]]) -> Iterator[FakeKubernetes]:
    """A cluster until the end of the block, with which its containers end."""
    server = FakeKubernetes(image, secrets)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        for pod in list(server.pods):
            pod.delete()
        server.http.shutdown()
        thread.join()
        server.http.server_close()
