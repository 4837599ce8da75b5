"""Where tasks run."""

from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rm_assets.core.recipe.section import Section

TaskName = Literal["ingest", "sample", "score", "pair", "train", "evaluate", "release"]
HOST = r"^[A-Za-z0-9_.@\[:][A-Za-z0-9_.@\[\]:-]*$"
KUBERNETES_NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable; NAME=VALUE is refused, so that no secret gets into a recipe."""


class LocalExecutor(Section):
    """A process of this machine."""

    kind: Literal["local"] = Field("local", description="Run here.")


class SshExecutor(Section):
    """A process on another machine, over OpenSSH's `ssh`, whose configuration and keys are used."""

    kind: Literal["ssh"] = Field(description="Run over SSH.")
    host: str = Field(pattern=HOST, description="HOST or USER@HOST, or a name of the SSH configuration.")
    python: str = Field("python3", description="Python there, with the same version of rm_assets installed.")
    config: str | None = Field(None, description="OpenSSH configuration file; without it ~/.ssh/config, as always.")
    environment: list[VariableName] = Field(
        default=[],
        description="Names of variables of this environment that the task is given there, such as AWS_ACCESS_KEY_ID and HF_TOKEN; never their values.",
    )


class TpuSlice(Section):
    """A TPU slice of one host, by the labels of GKE's nodes."""

    type: str = Field(
        pattern=KUBERNETES_NAME,
        description="Value of the node label cloud.google.com/gke-tpu-accelerator, such as tpu-v5-lite-podslice or tpu-v6e-slice.",
    )
    topology: str = Field(
        pattern=r"^[1-9]\d*x[1-9]\d*(x[1-9]\d*)?$",
        description="Chips along each axis, such as 2x4; at most 8 chips, since a task is one pod and a pod is on one host.",
    )

    @property
    def num_chips(self) -> int:
        """Chips of the slice."""
        return prod(map(int, self.topology.split("x")))

    @model_validator(mode="after")
    def _one_host(self) -> Self:
        if self.num_chips > 8:
            raise ValueError(f"topology {self.topology} has {self.num_chips} chips, and no host has more than 8")
        return self


class KubernetesExecutor(Section):
    """A Job of one pod on Kubernetes."""

    kind: Literal["kubernetes"] = Field(description="Run on Kubernetes.")
    image: str = Field(min_length=1, description="Container image with the same version of rm_assets; pin a digest.")
    namespace: str = Field("default", pattern=KUBERNETES_NAME, description="Namespace of the Job.")
    context: str | None = Field(
        None,
        description="Context of the kubeconfig; when not given, the cluster that this process runs in, or else the kubeconfig's current context.",
    )
    cpus: float | None = Field(None, gt=0, description="CPU cores that are reserved for the task.")
    memory_gb: float | None = Field(
        None, gt=0, description="Memory in GB (10^9 bytes) that is reserved for the task, and at which it is ended."
    )
    gpus: int = Field(0, ge=0, description="NVIDIA GPUs of the task.")
    tpu: TpuSlice | None = Field(None, description="TPU slice of the task, on GKE.")
    spot: bool = Field(False, description="Run on GKE's spot nodes, which may be taken away at any time.")
    node_selector: dict[str, str] = Field(
        default={}, description="Labels that the node must have, such as cloud.google.com/gke-accelerator: nvidia-l4."
    )
    volumes: dict[str, str] = Field(
        default={},
        description="Absolute paths in the container where PersistentVolumeClaims are mounted, by the claim's name.",
    )
    service_account: str | None = Field(
        None, pattern=KUBERNETES_NAME, description="Service account of the pod, by which it may reach the bucket."
    )
    secret: str | None = Field(
        None,
        pattern=KUBERNETES_NAME,
        description="Name of a Secret in the namespace whose keys become environment variables of the task.",
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.gpus and self.tpu:
            raise ValueError("'gpus' and 'tpu' exclude each other: no node has both")
        if relative := [path for path in self.volumes.values() if not path.startswith("/")]:
            raise ValueError(f"'volumes' mounts at {relative[0]}, which is no absolute path")
        return self


class VertexExecutor(Section):
    """A custom job of Vertex AI, on one machine that Google makes for it. No secret reaches it: its service account reaches the bucket."""

    kind: Literal["vertex"] = Field(description="Run as a custom job of Vertex AI.")
    project: str = Field(
        pattern=r"^[a-z0-9:.-]+$", description="Google Cloud project that runs the job and pays for it."
    )
    region: str = Field(pattern=r"^[a-z0-9-]+$", description="Region of the machine, such as us-central1.")
    image: str = Field(min_length=1, description="Container image with the same version of rm_assets; pin a digest.")
    machine: str = Field("n1-standard-8", pattern=r"^[a-z0-9-]+$", description="Machine type, such as g2-standard-12.")
    accelerator: str | None = Field(
        None, pattern=r"^[A-Z0-9_]+$", description="Type of its accelerators, such as NVIDIA_L4."
    )
    num_accelerators: int = Field(1, gt=0, description="Accelerators of the machine, where `accelerator` is given.")
    tpu_topology: str | None = Field(
        None,
        pattern=r"^[1-9]\d*x[1-9]\d*(x[1-9]\d*)?$",
        description="Topology where the machine type has TPUs, such as 2x2.",
    )
    disk_gb: int = Field(100, ge=100, description="Size of the boot disk in GB: the image, models and the cache.")
    spot: bool = Field(False, description="Run on a spot machine, which may be taken away at any time.")
    service_account: str | None = Field(
        None,
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="Service account of the task; the project's own for custom jobs when not given.",
    )
    usd_per_hour: float | None = Field(
        None, ge=0, description="Price of the machine for an hour in US dollars, by which the cost of a task is said."
    )


RemoteExecutor = SshExecutor | KubernetesExecutor | VertexExecutor
Executor = Annotated[LocalExecutor | RemoteExecutor, Field(discriminator="kind")]
