"""A Ray cluster on this machine's loopback, whose nodes are process groups of the tests'; each is ended by its own id."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from rm_assets_tests.processes import free_port, wait_for

STORE_BYTES = 80 * 2**20


class RayCluster:
    """A head that takes jobs at `address`, and nodes that join and die."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self._nodes = folder, list[subprocess.Popen[bytes]]()
        self._environment = {
            **os.environ,
            **environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # whose `python` a job is
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # else workers get little of a busy machine
        }
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            self._environment.pop(name, None)
        port, dashboard = free_port(), free_port()
        self.address, self.gcs = f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}"
        self._head = [
            "--head", f"--port={port}", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}", f"--temp-dir={folder}",
        ]  # fmt: skip

    def start_head(self, cpus: int) -> None:
        """Returns once the head takes jobs."""
        from ray.job_submission import JobSubmissionClient

        self._start(cpus, self._head)

        def answers() -> bool:
            with contextlib.suppress(OSError, RuntimeError):
                return bool(JobSubmissionClient(self.address).submit_job(entrypoint="true"))
            return False

        wait_for(answers, 240, "a Ray cluster")

    def join(self, cpus: int) -> subprocess.Popen[bytes]:
        """One more node."""
        return self._start(cpus, [f"--address={self.gcs}"])

    def pids_of_actors(self, method: str) -> list[int]:
        """Processes of the actors in which `method`, as `Worker.work`, runs now. Ray names a process by what runs in it."""
        nodes, found = {node.pid for node in self._nodes}, list[int]()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if process.joinpath("cmdline").read_bytes().startswith(f"ray::{method}".encode()):
                    pid = int(process.name)
                    found += [pid] if os.getsid(pid) in nodes else []
        return found

    def _start(self, cpus: int, options: list[str]) -> subprocess.Popen[bytes]:
        ports = [f"--{name}={free_port()}" for name in ("dashboard-agent-listen-port", "metrics-export-port")]
        node = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
                "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", "--num-gpus=0",
                f"--object-store-memory={STORE_BYTES}", *ports, *options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self._environment, start_new_session=True,
        )  # fmt: skip
        self._nodes.append(node)
        return node

    def end(self) -> None:
        """Ends all nodes, the head last."""
        for node in reversed(self._nodes):
            node.send_signal(signal.SIGTERM)  # `ray start --block` ends its node's processes
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()


@contextmanager
def ray_cluster(cpus_of_nodes: tuple[int, ...], environment: Mapping[str, str]) -> Iterator[RayCluster]:
    """A cluster of these nodes, the first being its head. The folder's path is short: sockets lie in it."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    cluster = RayCluster(folder, environment)
    try:
        cluster.start_head(cpus_of_nodes[0])
        for cpus in cpus_of_nodes[1:]:
            cluster.join(cpus)
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
