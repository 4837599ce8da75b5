"""What every executor that is not this machine is handed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.recipe import SshExecutor
from rm_assets.executors import remote
from rm_assets.executors.remote import Order, run_remote
from rm_assets.storage.home import home_of
from rm_assets.storage.store import Store


class Done:
    """A task that has said nothing and ended well."""

    def lines(self) -> Iterator[str]:
        yield from ()

    def status(self) -> int:
        return 0

    def end(self) -> None: ...


def test_work_has_one_name_in_each_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it an engine finds what a dead run has left working, and nothing of another store."""
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache"))
    orders: list[Order] = []

    @contextmanager
    def start(executor: Any, order: Order) -> Iterator[Done]:
        orders.append(order)
        yield Done()

    monkeypatch.setattr(remote, "_engine", lambda kind: start)
    executor = SshExecutor(kind="ssh", host="gpu")
    for store, digest in (("one", "a" * 64), ("one", "a" * 64), ("two", "a" * 64), ("one", "b" * 64)):
        request = {"asset": "implicit_pairs", "digest": digest}
        url = (tmp_path / store).as_uri()
        run_remote(executor, "benchmarks", request, Store(home_of(url)), lambda event: None, timeout_seconds=None)
    first, again, elsewhere, other = (order.name for order in orders)
    assert first == again and len({first, elsewhere, other}) == 3
    assert first.startswith("rm-benchmarks-aaaaaaaaaaaaaaaa-") and len(first) <= 40
