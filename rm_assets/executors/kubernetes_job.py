"""A task as a `batch/v1` Job of Kubernetes: one pod, one container, one try."""

from collections.abc import Iterator
from math import ceil
from typing import Any

from rm_assets.core.recipe import KubernetesExecutor
from rm_assets.executors.remote import Order

CONTAINER = "task"
GPU, TPU = "nvidia.com/gpu", "google.com/tpu"
SPOT = "cloud.google.com/gke-spot"
SECONDS_KEPT = 3600
"""How long an ended Job can be looked at."""


def job_of(executor: KubernetesExecutor, order: Order) -> dict[str, Any]:
    """The Job that does what is ordered. It names the Secret, whose values only the cluster reads."""
    labels = {
        "app.kubernetes.io/name": "rm-assets",
        "app.kubernetes.io/component": order.task,
        "app.kubernetes.io/instance": order.name,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": order.name, "namespace": executor.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,  # whether it is tried again is decided where its errors are read
            "ttlSecondsAfterFinished": SECONDS_KEPT,
            "template": {"metadata": {"labels": labels}, "spec": _pod(executor, order)},
        },
    }


def _pod(executor: KubernetesExecutor, order: Order) -> dict[str, Any]:
    selector, tolerations = _placement(executor)
    optional = {
        "serviceAccountName": executor.service_account,
        "nodeSelector": selector,
        "tolerations": tolerations,
        "volumes": [volume for volume, _ in _volumes(executor)],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,  # what a task has committed is whole at any moment
        "containers": [_container(executor, order)],
    }
    if order.engine_timeout_seconds is not None:
        # the pod's deadline and not the Job's, which also counts what the pod waits for a node
        pod["activeDeadlineSeconds"] = order.engine_timeout_seconds
    return pod | {key: value for key, value in optional.items() if value}


def _container(executor: KubernetesExecutor, order: Order) -> dict[str, Any]:
    requests, limits = _resources(executor)
    optional = {
        "envFrom": [{"secretRef": {"name": executor.secret}}] if executor.secret else [],
        "volumeMounts": [{"name": volume["name"], "mountPath": path} for volume, path in _volumes(executor)],
        "resources": {name: amounts for name, amounts in (("requests", requests), ("limits", limits)) if amounts},
    }
    container = {
        "name": CONTAINER,
        "image": executor.image,
        "command": order.command,
    }
    return container | {key: value for key, value in optional.items() if value}


def _volumes(executor: KubernetesExecutor) -> Iterator[tuple[dict[str, Any], str]]:
    """What is mounted, and where."""
    for n, (claim, path) in enumerate(executor.volumes.items()):
        yield {"name": f"volume-{n}", "persistentVolumeClaim": {"claimName": claim}}, path
    if executor.gpus > 1:  # NCCL between GPUs needs more than the 64 MB that a container has there
        yield {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}, "/dev/shm"


def _resources(executor: KubernetesExecutor) -> tuple[dict[str, str], dict[str, str]]:
    """What is reserved, and what is a limit, too: cores that others leave idle may be used, memory may not."""
    limits = {}
    if executor.memory_gb is not None:
        limits["memory"] = f"{ceil(executor.memory_gb * 1000)}M"
    if executor.gpus:
        limits[GPU] = str(executor.gpus)
    if executor.tpu:
        limits[TPU] = str(executor.tpu.num_chips)
    cpus = {} if executor.cpus is None else {"cpu": f"{ceil(executor.cpus * 1000)}m"}
    return cpus | limits, limits


def _placement(executor: KubernetesExecutor) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The labels of the nodes that are wanted, and the taints of such nodes."""
    selector, tolerations = dict(executor.node_selector), []
    if executor.tpu:
        selector["cloud.google.com/gke-tpu-accelerator"] = executor.tpu.type
        selector["cloud.google.com/gke-tpu-topology"] = executor.tpu.topology
    for resource, is_wanted in ((GPU, executor.gpus), (TPU, executor.tpu)):
        if is_wanted:
            tolerations.append({"key": resource, "operator": "Exists", "effect": "NoSchedule"})
    if executor.spot:
        selector[SPOT] = "true"
        tolerations.append({"key": SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"})
    return selector, tolerations
