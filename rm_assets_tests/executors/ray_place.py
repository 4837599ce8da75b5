"""The executor `ray` as a place of the contract: a cluster of two nodes on this machine."""

import uuid
from collections.abc import Iterator

import pytest
from rm_assets_tests.executors.conftest import Place

from rm_assets_tests.ray_cluster import RayCluster, ray_cluster

SECRET = f"secret-{uuid.uuid4().hex}"
"""In the environment of the cluster's nodes, from which alone a task has it."""


@pytest.fixture(scope="session")
def cluster(there: dict[str, str]) -> Iterator[RayCluster]:
    """Two nodes, with a planted task."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    with ray_cluster((1, 1), {**there, "RM_ASSETS_SECRET": SECRET}) as started:
        yield started


@pytest.fixture
def ray_place(cluster: RayCluster) -> Place:
    """Ray."""
    return Place(
        {"kind": "ray", "address": cluster.address}, {"RM_ASSETS_SECRET": SECRET}, traces=(cluster.folder,), joins=True
    )
