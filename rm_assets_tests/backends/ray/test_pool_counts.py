"""What a pool of workers says that it has worked on, without a cluster."""

import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest

from rm_assets.backends.ray.pool import OURS, WorkerPool
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import RayExecutor


@pytest.mark.parametrize(
    ("gpus", "workers", "num_devices"), [(0, 3, 3), (1, 3, 3), (0.5, 3, 2), (0.25, 4, 1), (0.1, 10, 1)]
)
def test_workers_that_share_a_gpu_have_worked_on_one(
    monkeypatch: pytest.MonkeyPatch, gpus: float, workers: int, num_devices: int
) -> None:
    lost = dict.fromkeys(("RayActorError", "NodeDiedError", "ObjectLostError", "OutOfMemoryError"), RuntimeError)
    actor = SimpleNamespace(begin=SimpleNamespace(remote=object))
    made = SimpleNamespace(options=lambda **held: SimpleNamespace(remote=lambda *arguments: actor))
    fake = SimpleNamespace(is_initialized=lambda: True, exceptions=SimpleNamespace(**lost), remote=lambda kind: made)
    monkeypatch.setitem(sys.modules, "ray", fake)
    executor, worked_on = RayExecutor(kind="ray", address="http://head", gpus=gpus, workers=workers), dict[str, Any]()
    pool = WorkerPool[Any, Any, Any](
        executor, str, max, str, num_threads=1, reporter=QuietReporter(), worked_on=worked_on
    )  # fmt: skip
    for _ in range(workers):
        pool._begun({"device": "cuda", OURS: version(OURS)}, "there", "NVIDIA L4")
    assert worked_on == {"device": "NVIDIA L4", "num_devices": num_devices}
