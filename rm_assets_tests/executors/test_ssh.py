"""What is wrong with a machine that is to be reached over SSH is said, with a real sshd; what goes well is in test_contract.py."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import SshExecutor
from rm_assets.executors.remote import Order
from rm_assets.executors.ssh import start_over_ssh, start_piped
from rm_assets_tests.executors.ssh_server import write_python
from rm_assets_tests.processes import free_port, is_alive, wait_for

FAULTS: dict[str, tuple[Callable[[str, Path], str], dict[str, Any], str]] = {
    "an unknown name": (lambda text, there: text, {"host": "no-such-machine.invalid"}, "no machine of that name"),
    "a machine that does not listen": (lambda text, there: _with(text, "Port", free_port()), {}, "does not answer"),
    "an unknown host key": (lambda text, there: _with(text, "UserKnownHostsFile", "/dev/null"), {}, "host key is not known"),
    "a refused key": (lambda text, there: _with(text, "IdentityFile", there / "host_key"), {}, "refuses this account"),
    "no configuration": (lambda text, there: text, {"config": "~/no/such/config"}, "its configuration file is not there"),
    "no Python": (lambda text, there: text, {"python": "/no/such/python"}, "no such Python"),
}  # fmt: skip
"""What is changed in the client's configuration and in the executor, and what is said."""


def _with(config: str, key: str, value: object) -> str:
    return "\n".join(f"  {key} {value}" if line.split()[:1] == [key] else line for line in config.splitlines())


@pytest.fixture
def box(ssh_folder: Path) -> dict[str, Any]:
    return {"kind": "ssh", "host": "box", "config": str(ssh_folder / "config"), "python": str(ssh_folder / "python")}


def order(request: str = "file:///nowhere/request.json") -> Order:
    return Order("ingest", request, "rm-ingest-0", None, say=lambda message: None)


def refusal(section: dict[str, Any]) -> ExecutorError:
    with pytest.raises(ExecutorError) as caught, start_over_ssh(SshExecutor(**section), order()):
        pass
    return caught.value


@pytest.mark.parametrize("fault", FAULTS)
def test_the_reason_is_said_why_no_task_begins(
    fault: str, box: dict[str, Any], ssh_folder: Path, tmp_path: Path
) -> None:
    change, other, words = FAULTS[fault]
    (tmp_path / "config").write_text(change((ssh_folder / "config").read_text(), ssh_folder))
    error = refusal(box | {"config": str(tmp_path / "config")} | other)
    assert error.code == "EXECUTOR_003" and words in error.what and error.fix


def test_a_python_without_rm_assets_is_said(box: dict[str, Any], tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    error = refusal(box | {"python": str(bare)})
    assert error.code == "EXECUTOR_003" and "rm_assets is not installed there" in error.what
    assert "No module named 'rm_assets'" in error.why


def test_a_machine_without_ssh_is_said(box: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(box).code == "EXECUTOR_002"


def test_a_variable_that_is_not_set_is_named(box: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RM_ASSETS_SECRET", raising=False)
    error = refusal(box | {"environment": ["RM_ASSETS_SECRET"]})
    assert error.code == "EXECUTOR_003" and "RM_ASSETS_SECRET" in error.what


@pytest.mark.parametrize(
    "wrong", [{"host": "-oProxyCommand"}, {"host": "a; true"}, {"environment": ["HF_TOKEN=hf_abc"]}]
)
def test_options_and_secrets_are_no_part_of_a_recipe(box: dict[str, Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SshExecutor(**box | wrong)


@pytest.fixture
def waiting(there: dict[str, str], tmp_path: Path) -> str:
    """A Python whose task `ingest` says the numbers of two processes, and works until its input ends."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import rm_assets.tasks\nrm_assets.tasks.__path__.insert(0, {str(tmp_path)!r})\n"
    )
    (tmp_path / "ingest.py").write_text("import os\nprint(os.getpid(), os.getppid(), flush=True)\nos.read(0, 1)\n")
    write_python(tmp_path / "python", there | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{there['PYTHONPATH']}"})
    return str(tmp_path / "python")


@pytest.mark.parametrize("dies", ["the connection", "the supervisor there"])
def test_a_connection_that_breaks_is_said_and_ends_the_task(box: dict[str, Any], waiting: str, dies: str) -> None:
    with start_over_ssh(SshExecutor(**box | {"python": waiting}), order()) as task:
        lines = iter(task.lines())
        pid, supervisor = (int(word) for word in next(lines).split())
        server = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(") ")[2].split()[1])
        os.kill(server if dies == "the connection" else supervisor, signal.SIGKILL)
        assert list(lines) == [] or dies == "the connection"  # ssh may say why
        with pytest.raises(ExecutorError, match="the connection broke"):
            task.status()
    wait_for(lambda: not is_alive(pid), 20, "the end of the task")


def test_a_connection_that_breaks_within_the_last_line_broke() -> None:
    said = '@rm {"event": "begins"}\\nworks\\n@rm {"event": "ends", "sta'
    with start_piped(["printf", said], {}, "box") as task:
        assert list(task.lines()) == ["works\n"]
        with pytest.raises(ExecutorError, match="the connection broke"):
            task.status()
