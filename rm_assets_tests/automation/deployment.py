"""Webserver, daemon and code location as processes of their own over a SQLite instance, to be killed and started again."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import dagster as dg

from rm_assets_tests.processes import free_port, wait_for

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MARK = "RM_ASSETS_TEST_MARK"
DEFINITIONS = """
from rm_assets.core import rebuilding
rebuilding.SECONDS_BETWEEN_TRIES = (5.0,) * 99
from rm_assets.definitions import defs
"""
"""What failed is asked for again at the sensor's next look."""
SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "rm_assets"}


class Deployment:
    """What runs in `folder`: recipes in `recipes`, the store in `home`. All its processes carry a mark in their environment."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.mark, self._ports = folder, uuid.uuid4().hex, {n: free_port() for n in ("code", "webserver")}
        (folder / "dagster").mkdir()
        settings = (ROOT / "dagster.yaml").read_text()
        assert "start_timeout_seconds: 180" in settings and "poll_interval_seconds: 30" in settings
        (folder / "dagster" / "dagster.yaml").write_text(
            settings.replace("start_timeout_seconds: 180", "start_timeout_seconds: 60").replace(
                "seconds: 30", "seconds: 5"
            )
        )
        (folder / "definitions.py").write_text(DEFINITIONS)
        (folder / "workspace.yaml").write_text(
            f"load_from: [grpc_server: {{host: 127.0.0.1, port: {self._ports['code']}, location_name: rm_assets}}]\n"
        )
        self.environment = os.environ | {
            MARK: self.mark, "DAGSTER_HOME": str(folder / "dagster"), "RM_ASSETS_HOME": str(folder / "home"),
            "RM_ASSETS_RECIPES": str(folder / "recipes"), "PYTHONPATH": str(ROOT),
            **environment,
        }  # fmt: skip
        self.servers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Starts `code`, `webserver` or `daemon`, and waits until the first two answer."""
        workspace = ["-w", str(self.folder / "workspace.yaml")]
        port = ["-h", "127.0.0.1", "-p", str(self._ports.get(name))]
        command = {
            "code": ["dagster", "api", "grpc", "-f", str(self.folder / "definitions.py"), *port],
            "webserver": ["dagster-webserver", *workspace, *port],
            "daemon": ["dagster-daemon", "run", *workspace],
        }[name]
        with open(self.folder / f"{name}.log", "ab") as log:
            self.servers[name] = subprocess.Popen(
                [BIN / command[0], *command[1:]], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        if name == "code":
            wait_for(self._code_answers, 60)
        if name == "webserver":
            wait_for(lambda: self.asked("{ version }"), 60)

    def _code_answers(self) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self._ports["code"])) == 0

    def kill(self, name: str) -> None:
        """kill -9 of a server."""
        self.servers[name].kill()
        self.servers[name].wait()

    def stop(self) -> None:
        """Ends all servers as a supervisor does."""
        for server in reversed(self.servers.values()):
            server.terminate()
        for server in self.servers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()
            server.wait()

    def asked(self, query: str, **variables: object) -> Any:
        """The webserver's answer to a GraphQL query; None while it does not answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports['webserver']}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                said = json.load(answer)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None
        assert "errors" not in said, said
        return said["data"]

    def backfill(self, *recipes: str) -> None:
        """Asks for a backfill of the job over recipes, as the web UI does."""
        said = self.asked(
            "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p)"
            " { __typename ... on PythonError { message } } }",
            p={
                "selector": {"partitionSetName": "build_reward_model_partition_set", "repositorySelector": SELECTOR},
                "partitionNames": list(recipes),
            },
        )
        assert said["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", said

    def instance(self) -> dg.DagsterInstance:
        """The instance, for this process."""
        return dg.DagsterInstance.from_config(str(self.folder / "dagster"))

    def processes(self) -> dict[int, str]:
        """The command lines of all processes that carry the mark, by pid, without Python's trackers beside the servers."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return {pid: command for pid, command in found.items() if "multiprocessing.resource_tracker" not in command}

    def workers(self) -> list[int]:
        """The processes of runs, by their heartbeats."""
        files = (self.folder / "home" / "heartbeats").glob("*.json")
        return [pid for file in files if (pid := json.loads(file.read_text())["pid"]) in self.processes()]

    def tasks(self) -> list[int]:
        """The processes of tasks: started, or forked from a warm one."""
        there, found = self.processes(), []
        for pid, command in there.items():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
                forked = (
                    "executors.warm" in command and os.getpgid(pid) == pid and "executors.warm" in there.get(parent, "")
                )
                if forked or "rm_assets.tasks." in command:
                    found.append(pid)
        return found

    def end_all(self) -> None:
        """Leaves nothing behind, whatever the test has found."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for server in self.servers.values():
            server.wait()
