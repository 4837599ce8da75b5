"""Machines of Google Compute Engine, with GPUs or TPUs, by `gcloud compute instances`. Never run on the real cloud.

https://cloud.google.com/sdk/gcloud/reference/compute/instances/create
"""

import json
import shlex
import subprocess
import time
from collections.abc import Sequence

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import GcloudMachine, VmExecutor
from rm_assets.executors.machines import Found, call, require, require_machine
from rm_assets.executors.ssh import OPTIONS

LABEL = "rm-assets"
"""Of every machine, so that what is left over is found."""
SECONDS_TO_START = 600.0
SECONDS_IN_QUEUE = 7200.0
"""As long as `--request-valid-for-duration`; gcloud itself gives up after half an hour, and the machine may still come."""
UNDERWAY = "may still be underway"
SECONDS_BETWEEN_LOOKS = 5.0
PROVISIONING = {
    "standard": ["--provisioning-model=STANDARD"],
    "spot": ["--provisioning-model=SPOT"],
    "flex_start": ["--provisioning-model=FLEX_START", "--request-valid-for-duration=2h", "--reservation-affinity=none"],
}


class Gcloud:
    """As machines.Provider."""

    def __init__(self, machine: GcloudMachine) -> None:
        self._machine = machine

    def create(self, name: str, executor: VmExecutor) -> None:
        """As in Provider."""
        machine = self._machine
        options = [
            f"--machine-type={machine.machine_type}", *PROVISIONING[machine.provisioning],
            f"--max-run-duration={max(30, round(executor.max_hours * 3600))}s", "--instance-termination-action=DELETE",
            "--maintenance-policy=TERMINATE", "--no-restart-on-failure", f"--image-family={machine.image_family}",
            f"--image-project={machine.image_project}", f"--boot-disk-size={machine.disk_gb}GB",
            f"--labels={LABEL}=task", "--scopes=cloud-platform",
            *([f"--accelerator={machine.accelerator}"] if machine.accelerator else []),
            *([f"--service-account={machine.service_account}"] if machine.service_account else []),
        ]  # fmt: skip
        created = self._call("instances", "create", name, *self._place(), *options)
        if UNDERWAY in created.stderr:
            self._wait(name, SECONDS_IN_QUEUE)
        else:
            require_machine(created, machine.machine_type)

    def prepare(self, name: str, executor: VmExecutor) -> None:
        """As in Provider."""
        self._wait(name, SECONDS_TO_START)
        if executor.files:
            require(
                self._call("scp", *self._place(), *self._tunnel(), *executor.files, f"{name}:"), "copying the files"
            )
        if executor.setup:
            require(call(self._ssh(name, executor.setup)), "the setup")

    def command(self, name: str, remote: str) -> list[str]:
        """As in Provider."""
        machine = self._machine
        if machine.container:
            gpus = ["--gpus=all"] if machine.has_gpus else []
            options = ["--rm", "--init", "--interactive", "--privileged", "--network=host", "--ipc=host", *gpus]
            remote = f"exec docker run {shlex.join([*options, machine.container])} sh -c {shlex.quote(remote)}"
        return self._ssh(name, remote)

    def deletion(self, name: str) -> list[str]:
        """As in Provider."""
        return ["gcloud", "compute", "instances", "delete", name, "--quiet", "--delete-disks=all", *self._place()]

    def machines(self) -> list[Found]:
        """As in Provider: those of the whole project."""
        project = [f"--project={self._machine.project}"] if self._machine.project else []
        done = self._call("instances", "list", f"--filter=labels.{LABEL}=task", "--format=json", *project)
        return [
            Found(
                found["name"],
                found["creationTimestamp"],
                found["status"] == "RUNNING",
                Gcloud(self._machine.model_copy(update={"zone": found["zone"].rpartition("/")[2]})),
            )
            for found in json.loads(require(done, "listing the machines") or "[]")
        ]

    def _wait(self, name: str, seconds: float) -> None:
        """Until it takes connections: seconds after it is there, or minutes. Raises: ExecutorError EXECUTOR_003 if that takes longer."""
        end = time.monotonic() + seconds
        while (done := call(self._ssh(name, "true"))).returncode != 0:
            if time.monotonic() > end:
                words = "\n".join(done.stderr.strip().splitlines()[-5:])
                raise ExecutorError(
                    "EXECUTOR_003", f"the machine {name} takes no connection", why=words,
                    fix="see that the network's firewall lets SSH in, and that its keys can be written",
                )  # fmt: skip
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _ssh(self, name: str, remote: str) -> list[str]:
        place = [*self._place(), *self._tunnel()]
        return ["gcloud", "compute", "ssh", name, "--quiet", *place, f"--command={remote}", "--", *OPTIONS]

    def _tunnel(self) -> Sequence[str]:
        return ["--tunnel-through-iap"] if self._machine.tunnel_through_iap else []

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return call(["gcloud", "compute", *arguments, "--quiet"])

    def _place(self) -> Sequence[str]:
        project = [f"--project={self._machine.project}"] if self._machine.project else []
        return [f"--zone={self._machine.zone}", *project]
