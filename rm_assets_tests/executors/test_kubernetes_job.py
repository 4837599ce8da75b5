"""The Jobs that Kubernetes is given, held to the schema of its API."""

from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from rm_assets.core.recipe import KubernetesExecutor
from rm_assets.executors.kubernetes_job import job_of
from rm_assets.executors.remote import Order

NAME = "rm-train-0123456789abcdef-883241"
EVERYTHING: dict[str, Any] = {
    "namespace": "research", "cpus": 7.5, "memory_gb": 30, "gpus": 2, "spot": True, "service_account": "trainer", "secret": "keys",
    "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"}, "volumes": {"cache": "/cache", "models": "/models"},
}  # fmt: skip
SECTIONS = {
    "least": {}, "cpu": {"cpus": 0.5, "memory_gb": 1.5}, "gpu": {"gpus": 1},
    "tpu": {"tpu": {"type": "tpu-v5-lite-podslice", "topology": "2x4"}}, "spot": {"spot": True},
    "volumes": {"volumes": {"cache": "/cache"}}, "everything": EVERYTHING,
}  # fmt: skip


def job(timeout_seconds: float | None = None, **section: Any) -> dict[str, Any]:
    executor = KubernetesExecutor(kind="kubernetes", image="example.org/rm-assets:1", **section)
    return job_of(executor, Order("train", "s3://b/requests/r.json", NAME, timeout_seconds, print))


def pod(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = job(**options)["spec"]["template"]["spec"]
    return found


def validate(made: dict[str, Any]) -> None:
    kubernetes_validate.validate(made, "1.37", strict=True)


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_job_is_as_the_schema_of_the_api_wants_it(section: dict[str, Any]) -> None:
    validate(job(**section))
    validate(job(timeout_seconds=600.5, **section))


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        (("spec",), "backOffLimit", 0),
        (("spec",), "backoffLimit", "none"),
        (("spec", "template", "spec"), "tolerations", {"key": "x"}),
        (("spec", "template", "spec", "containers", 0), "gpus", 1),
        (("spec", "template", "spec", "containers", 0), "command", "python"),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_api_would(where: tuple[Any, ...], key: str, value: Any) -> None:
    made = inner = job(**EVERYTHING)
    for step in where:
        inner = inner[step]
    inner[key] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(made)


def test_the_least_is_one_container_that_is_tried_once() -> None:
    labels = {
        "app.kubernetes.io/name": "rm-assets", "app.kubernetes.io/component": "train",
        "app.kubernetes.io/instance": NAME,
    }  # fmt: skip
    command = ["python", "-m", "rm_assets.tasks.train", "s3://b/requests/r.json"]
    assert job() == {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": NAME, "namespace": "default", "labels": labels},
        "spec": {
            "backoffLimit": 0, "ttlSecondsAfterFinished": 3600,
            "template": {"metadata": {"labels": labels}, "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "task", "image": "example.org/rm-assets:1", "command": command}],
            }},
        },
    }  # fmt: skip


def test_everything_that_is_asked_for_is_in_the_job() -> None:
    made = job(**EVERYTHING)
    found = made["spec"]["template"]["spec"]
    (container,) = found["containers"]
    assert made["metadata"]["namespace"] == "research" and found["serviceAccountName"] == "trainer"
    assert container["resources"] == {
        "requests": {"cpu": "7500m", "memory": "30000M", "nvidia.com/gpu": "2"},
        "limits": {"memory": "30000M", "nvidia.com/gpu": "2"},
    }
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    claims = {volume.get("persistentVolumeClaim", {}).get("claimName"): volume["name"] for volume in found["volumes"]}
    assert {claim: mounts[name] for claim, name in claims.items()} == {
        "cache": "/cache", "models": "/models", None: "/dev/shm",
    }  # fmt: skip
    assert found["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "cloud.google.com/gke-spot": "true",
    }
    assert found["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
    ]


def test_a_tpu_slice_is_asked_for_by_type_topology_and_all_of_its_chips() -> None:
    found = pod(tpu={"type": "tpu-v6e-slice", "topology": "2x2"})
    assert found["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice", "cloud.google.com/gke-tpu-topology": "2x2",
    }  # fmt: skip
    assert found["containers"][0]["resources"]["limits"] == {"google.com/tpu": "4"}
    assert found["tolerations"] == [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_the_clusters_time_limit_is_the_tasks_and_an_hour() -> None:
    assert "activeDeadlineSeconds" not in pod()
    assert pod(timeout_seconds=600.5)["activeDeadlineSeconds"] == 601 + 3600


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"gpus": 1, "tpu": {"type": "tpu-v6e-slice", "topology": "1x1"}}, "exclude each other"),
        ({"tpu": {"type": "tpu-v4-podslice", "topology": "2x2x4"}}, "16 chips"),
        ({"tpu": {"type": "tpu-v4-podslice", "topology": "4"}}, "pattern"),
        ({"volumes": {"cache": "cache"}}, "no absolute path"),
        ({"namespace": "My Team"}, "pattern"),
        ({"cpus": 0}, "greater than 0"),
        ({"gpu": 1}, "Extra inputs"),
    ],
)
def test_a_section_that_no_cluster_could_follow_is_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        pod(**section)
