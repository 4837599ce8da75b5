"""The executors that test_contract.py holds to its claims, each ready to be used.

To add one: a fixture here (or imported here) that gives a Place, and its name in PLACES, with its marks.
"""

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rm_assets.executors import kubernetes, local, patience, vertex
from rm_assets_tests.executors import cloud_stand_in
from rm_assets_tests.executors.fake_kubernetes import FakeKubernetes, serving_kubernetes
from rm_assets_tests.executors.fake_vertex import FakeVertex, serving_vertex
from rm_assets_tests.executors.ssh_server import MISSING, SSHD, running_sshd, write_python
from rm_assets_tests.ray_cluster import RayCluster, ray_cluster

REPOSITORY = Path(__file__).parents[2]
CLUSTER_SECRET = f"secret-{uuid.uuid4().hex}"
"""In the environment of Ray's nodes, from which alone a task has it."""
PLACES = [
    pytest.param("local_place", id="local", marks=pytest.mark.slow),  # test_local.py says most of it in less time
    pytest.param("ssh_place", id="ssh"),
    pytest.param("ray_place", id="ray", marks=pytest.mark.slow),
    pytest.param("kubernetes_place", id="kubernetes", marks=pytest.mark.slow),  # test_kubernetes.py has fast ones
    pytest.param("vertex_place", id="vertex", marks=pytest.mark.slow),  # test_vertex.py has fast ones
    pytest.param("gcloud_place", id="vm-gcloud", marks=pytest.mark.slow),
    pytest.param("skypilot_place", id="vm-skypilot", marks=pytest.mark.slow),
]


@dataclass(frozen=True)
class Place:
    """An executor that is ready.

    `section` is the executor as a recipe names it; it passes the variable RM_ASSETS_SECRET on to tasks, if it `takes_secrets`. `environment`
    is what the driver's process needs besides. In `traces` lies what the engine writes by itself: logs, its own records. `joins` says
    what becomes of a task whose driver was killed: the next run joins it, else it ends.
    """

    section: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    traces: tuple[Path, ...] = ()
    joins: bool = False
    takes_secrets: bool = True

    @property
    def is_remote(self) -> bool:
        """Whether it is not this machine."""
        return self.section["kind"] != "local"


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """Each executor in turn."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the environment of a machine that runs tasks has to hold: our code with the planted task, and a cache of its own."""
    return {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "planted"), str(REPOSITORY)]),
        "RM_ASSETS_CACHE": str(tmp_path_factory.mktemp("cache_there")),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def local_place(there: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Place:
    """This machine, with tasks that are processes of their own; test_local.py has the forked ones."""
    monkeypatch.setattr(local, "start_warm", lambda *task: None)
    return Place({"kind": "local"}, {"PYTHONPATH": there["PYTHONPATH"]})


@pytest.fixture(scope="session")
def ssh_folder(there: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the `config` of a client, for whom a running server is `box`, and with a `python` for tasks."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("ssh")
    write_python(folder / "python", there)
    with running_sshd(folder):
        yield folder


@pytest.fixture
def ssh_place(ssh_folder: Path) -> Place:
    """A machine that is reached over SSH: this one."""
    section = {
        "kind": "ssh", "host": "box", "config": str(ssh_folder / "config"), "python": str(ssh_folder / "python"),
        "environment": ["RM_ASSETS_SECRET"],
    }  # fmt: skip
    return Place(section, traces=(ssh_folder,))


@pytest.fixture(scope="session")
def cluster(there: dict[str, str]) -> Iterator[RayCluster]:
    """A Ray cluster of two nodes."""
    with ray_cluster((1, 1), {**there, "RM_ASSETS_SECRET": CLUSTER_SECRET}) as started:
        yield started


@pytest.fixture
def ray_place(cluster: RayCluster) -> Place:
    """A Ray cluster, where a job outlives who has asked for it."""
    section = {"kind": "ray", "address": cluster.address}
    return Place(section, {"RM_ASSETS_SECRET": CLUSTER_SECRET}, traces=(cluster.folder,), joins=True)


@pytest.fixture
def kubernetes_cluster(
    there: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeKubernetes]:
    """A stand-in of a Kubernetes cluster, whose images hold our code; the kubeconfig is its."""
    image = there | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    monkeypatch.setattr(kubernetes, "POLL_SECONDS", 0.1)
    with serving_kubernetes(image, {"rm-assets": ["RM_ASSETS_SECRET"]}) as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        # the client reads KUBECONFIG once, when it is imported
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        yield server


@pytest.fixture
def kubernetes_place(kubernetes_cluster: FakeKubernetes, tmp_path: Path) -> Place:
    """A stand-in of a Kubernetes cluster on loopback."""
    section = {"kind": "kubernetes", "image": "rm-assets:tests", "secret": "rm-assets"}
    return Place(section, {"KUBECONFIG": str(tmp_path / "kubeconfig")}, joins=True)


@pytest.fixture
def vertex_cloud(there: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVertex]:
    """A stand-in of Vertex AI, whose images hold our code; the credentials in `key.json` are its."""
    monkeypatch.setattr(vertex, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(vertex, "LATE_SECONDS", 0.6)
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.05)
    with serving_vertex(there | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}) as server:
        server.write_credentials(tmp_path / "key.json")
        yield server


@pytest.fixture
def vertex_place(vertex_cloud: FakeVertex, tmp_path: Path) -> Place:
    """A stand-in of Vertex AI on loopback."""
    section = {
        "kind": "vertex",
        "project": "research",
        "region": "europe-west4",
        "image": "europe-docker.pkg.dev/r/i@sha256:1",
    }
    return Place(section, vertex_cloud.environment(tmp_path / "key.json"), joins=True, takes_secrets=False)


GCLOUD = {
    "dialect": "gcloud", "zone": "us-central1-a", "machine_type": "g2-standard-8", "image_family": "f", "image_project": "p",
}  # fmt: skip
SKYPILOT = {"dialect": "skypilot", "accelerators": "L4:1"}


@pytest.fixture
def cloud(there: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cloud, with its commands in `bin`."""
    folder = tmp_path_factory.mktemp("cloud")
    cloud_stand_in.install(folder, there)
    return folder


@pytest.fixture
def gcloud_place(cloud: Path) -> Place:
    """Machines that a stand-in for gcloud makes."""
    return _machine_place(cloud, GCLOUD)


@pytest.fixture
def skypilot_place(cloud: Path) -> Place:
    """Machines that a stand-in for SkyPilot makes."""
    return _machine_place(cloud, SKYPILOT)


def _machine_place(cloud: Path, machine: dict[str, Any]) -> Place:
    section = {"kind": "vm", "machine": machine, "python": sys.executable, "environment": ["RM_ASSETS_SECRET"]}
    return Place(section, {"PATH": f"{cloud / 'bin'}{os.pathsep}{os.environ['PATH']}"}, traces=(cloud,))
