"""The names of machines, by which what is left over is found and nothing else is taken for it."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from rm_assets.core.recipe import TaskName, VmExecutor
from rm_assets.executors import machines, remote
from rm_assets.executors.remote import Order
from rm_assets.executors.vm import provider_of
from rm_assets.storage.home import home_of
from rm_assets.storage.store import Store
from rm_assets_tests.executors.conftest import GCLOUD


@pytest.mark.parametrize("task", get_args(TaskName))
def test_the_name_of_a_machine_tells_who_has_made_it(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that run_remote gives the work: what it does not find is neither listed nor deleted."""
    orders: list[Order] = []

    @contextmanager
    def start(executor: Any, order: Order) -> Iterator[None]:
        orders.append(order)
        raise KeyboardInterrupt
        yield

    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_engine", lambda kind: start)
    executor = VmExecutor.model_validate({"kind": "vm", "machine": GCLOUD})
    store, request = Store(home_of((tmp_path / "store").as_uri())), {"asset": "prompts", "digest": "a" * 64}
    with pytest.raises(KeyboardInterrupt):
        remote.run_remote(executor, task, request, store, print, timeout_seconds=None)
    name = machines.name_of(orders[0].name, 1)
    machine = machines.Found(name, "", True, provider_of(executor.machine))
    assert len(name) <= 63 and machine.driver.endswith(f"-{os.getpid()}") and not machine.is_left_over
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = machines.Found(name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"), "", True, provider_of(executor.machine))
    assert left.is_left_over
    elsewhere = f"{socket.gethostname()}x"  # whose processes are others
    monkeypatch.setattr(socket, "gethostname", lambda: elsewhere)
    assert not left.is_left_over


def test_hosts_whose_names_begin_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for host in ("ip-172-31-201-111", "ip-172-31-201-112"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        names.add(machines.name_of("rm-train-0123456789abcdef-abcdef", 1))
    assert len(names) == 2
