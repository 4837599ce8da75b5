"""What a task elsewhere needs of this machine, which can be known before anything is begun. Asks no network."""

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import RemoteExecutor, SkyPilotMachine, SshExecutor, VmExecutor
from rm_assets.executors.remote import require_url, variables_of
from rm_assets.storage.store import Store

PACKAGES = {"ray": "ray", "kubernetes": "kubernetes", "vertex": "google.auth"}
"""What the extra of the same name brings."""


def require_ready(executor: RemoteExecutor, store: Store) -> None:
    """Raises: ExecutorError EXECUTOR_001 if the store is a folder of this machine, EXECUTOR_002 without the engine's package or
    command, EXECUTOR_003 without a variable or file that the task is given."""
    require_url(store, executor.kind)
    package = PACKAGES.get(executor.kind)
    if package and not _is_there(package):
        raise ExecutorError(
            "EXECUTOR_002", f"the package {package} is not installed", fix=f"pip install 'rm-assets[{executor.kind}]'"
        )
    for command in _commands(executor):
        if shutil.which(command) is None:
            raise ExecutorError("EXECUTOR_002", f"the command {command} is not there", fix="install it and log in")
    if isinstance(executor, SshExecutor | VmExecutor):
        variables_of(executor.environment)
    for file in executor.files if isinstance(executor, VmExecutor) else ():
        if not Path(file).is_file():
            raise ExecutorError(
                "EXECUTOR_003", f"{file} is not there", why="execution copies it to the machine that it makes",
                fix="make it, or correct `files`, whose paths start at the recipe file",
            )  # fmt: skip


def _commands(executor: RemoteExecutor) -> Iterator[str]:
    if isinstance(executor, VmExecutor):
        yield executor.machine.command if isinstance(executor.machine, SkyPilotMachine) else "gcloud"
    if isinstance(executor, SshExecutor | VmExecutor):
        yield "ssh"


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package that it lies in
        return False
