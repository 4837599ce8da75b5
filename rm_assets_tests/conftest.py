"""What all tests share: one thread for torch, so that tests beside each other do not fight for cores, and warm tasks."""

import os
from collections.abc import Iterator

import pytest

from rm_assets.executors import warm

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def warm_tasks() -> Iterator[None]:
    """Tasks are forked as soon as the libraries are imported, and not only after the first."""
    server = warm.keep_warm()
    yield
    if server is not None:
        server.close()
