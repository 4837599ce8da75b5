"""Machines of whatever cloud, by SkyPilot's command `sky` from an environment of its own. Never run on a real cloud.

`sky launch` makes the machine and writes its name to the SSH configuration, so that `ssh NAME` reaches it: `sky exec` has no standard
input. Written against SkyPilot 0.14.1. https://docs.skypilot.co/en/stable/reference/cli.html
"""

import json
import math
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rm_assets.core.recipe import SkyPilotMachine, VmExecutor
from rm_assets.executors.machines import NAME, Found, call, require, require_machine
from rm_assets.executors.ssh import OPTIONS
from rm_assets.storage.files import write_json


class SkyPilot:
    """As machines.Provider."""

    def __init__(self, machine: SkyPilotMachine) -> None:
        self._machine = machine

    def create(self, name: str, executor: VmExecutor) -> None:
        """As in Provider, and prepares it.

        For SkyPilot a machine is idle without a job of its own queue or a terminal, which a task has neither: so idleness is
        counted from the launch on (`--wait-for none`), which makes it the longest time that the machine exists.
        """
        minutes = max(1, math.ceil(executor.max_hours * 60))
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / "task.yaml", self._task(executor))  # JSON is YAML
            done = call([
                self._machine.command, "launch", "--yes", f"--cluster={name}", f"--idle-minutes-to-autostop={minutes}",
                "--wait-for=none", "--down", str(Path(folder) / "task.yaml"),
            ])  # fmt: skip
        require_machine(done, self._machine.accelerators or "machine")

    def prepare(self, name: str, executor: VmExecutor) -> None:
        """As in Provider."""

    def command(self, name: str, remote: str) -> list[str]:
        """As in Provider."""
        return ["ssh", *OPTIONS, "--", name, remote]

    def deletion(self, name: str) -> list[str]:
        """As in Provider."""
        return [self._machine.command, "down", "--yes", name]

    def machines(self) -> list[Found]:
        """As in Provider."""
        done = call([self._machine.command, "status", "--output=json"])
        return [
            Found(
                found["name"],
                datetime.fromtimestamp(found["launched_at"], UTC).isoformat(),
                found["status"] == "UP",
                self,
            )
            for found in json.loads(require(done, "listing the machines") or "[]")
            if NAME.fullmatch(found["name"])
        ]

    def _task(self, executor: VmExecutor) -> dict[str, Any]:
        """SkyPilot's description of the machine; it has nothing to run of its own."""
        machine = self._machine
        resources = {
            "infra": machine.infra, "accelerators": machine.accelerators, "cpus": machine.cpus, "memory": machine.memory,
            "use_spot": machine.spot, "disk_size": machine.disk_gb, "labels": {"rm-assets": "task"},
            "image_id": f"docker:{machine.container}" if machine.container else None,
        }  # fmt: skip
        task = {
            "resources": {key: value for key, value in resources.items() if value is not None},
            "file_mounts": {f"~/{Path(file).name}": str(Path(file).resolve()) for file in executor.files},
            "setup": executor.setup,
        }
        return {key: value for key, value in task.items() if value}
