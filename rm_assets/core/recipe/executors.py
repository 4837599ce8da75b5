"""Where tasks run: one model for each kind of place."""

import re
from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rm_assets.core.recipe.section import Section

TaskName = Literal["ingest", "sample", "score", "pair", "train", "evaluate", "release"]
FOREIGN_PYTHON = r"^[^~]"
"""A command or path on another machine; no shell there would expand a ~."""
HOST = r"^[A-Za-z0-9_.@\[:][A-Za-z0-9_.@\[\]:-]*$"
KUBERNETES_NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
GOOGLE_GPUS, GOOGLE_TPUS = re.compile(r"[ag][2-9]"), re.compile(r"ct\d|tpu\d")
"""How Google's machine types with GPUs or TPU chips of their own begin: a3-highgpu-1g, g2-standard-8; ct6e-standard-4t, tpu7x-standard-4t."""
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable; NAME=VALUE is refused, so that no secret gets into a recipe."""


class Place(Section):
    """Where tasks run."""

    @property
    def has_accelerator(self) -> bool | None:
        """Whether the recipe gives its tasks a GPU or TPU there; None where it does not say."""
        return None

    @property
    def has_tpu(self) -> bool:
        """Whether that is a TPU, which JAX alone computes on."""
        return False


class LocalExecutor(Place):
    """A process of this machine."""

    kind: Literal["local"] = Field("local", description="Run here.")


class SshExecutor(Place):
    """A process on another machine, over OpenSSH's `ssh`, whose configuration and keys are used."""

    kind: Literal["ssh"] = Field(description="Run over SSH.")
    host: str = Field(pattern=HOST, description="HOST or USER@HOST, or a name of the SSH configuration.")
    python: str = Field(
        "python3",
        pattern=FOREIGN_PYTHON,
        description="Python there, with the same version of rm_assets installed: a command, or a path that is absolute or starts at the home folder there (venv/bin/python, without ~).",
    )
    config: str | None = Field(
        None,
        description="OpenSSH configuration file, relative to the recipe file; without it ~/.ssh/config, as always.",
    )
    environment: list[VariableName] = Field(
        default=[],
        description="Names of variables of this environment that the task is given there, such as AWS_ACCESS_KEY_ID and HF_TOKEN; never their values.",
    )


class RayExecutor(Place):
    """A job on a Ray cluster, with the variables of the cluster's nodes."""

    kind: Literal["ray"] = Field(description="Run on a Ray cluster.")
    address: str = Field(
        pattern=r"^https?://[^\s/@]+$", description="Where the cluster's head takes jobs, such as http://head:8265."
    )
    cpus: float = Field(1, ge=0, description="CPUs that the task holds, or each of its workers.")
    gpus: float = Field(0, ge=0, description="GPUs that the task holds, or each of its workers.")
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory in GB that the task holds, or each of its workers; none is asked for when not given.",
    )
    resources: dict[str, float] = Field(
        default={},
        description="Other resources of the cluster that the task holds, or each of its workers, such as TPU.",
    )
    workers: int = Field(
        1,
        gt=0,
        description="Workers that share the shards of sampling and scoring with a model; other tasks are one process.",
    )

    @property
    def has_accelerator(self) -> bool | None:
        """As of every place."""
        return self.gpus > 0 or self.has_tpu

    @property
    def has_tpu(self) -> bool:
        """As of every place."""
        return self.resources.get("TPU", 0) > 0

    @property
    def memory_bytes(self) -> int | None:
        """`memory_gb` as Ray counts it."""
        return None if self.memory_gb is None else int(self.memory_gb * 10**9)


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


class KubernetesExecutor(Place):
    """A Job of one pod on Kubernetes."""

    kind: Literal["kubernetes"] = Field(description="Run on Kubernetes.")
    image: str = Field(min_length=1, description="Container image with the same version of rm_assets; pin a digest.")
    namespace: str = Field(
        "default", pattern=KUBERNETES_NAME, description="Namespace of the Job: lower-case letters, digits and hyphens."
    )
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

    @property
    def has_accelerator(self) -> bool | None:
        """As of every place."""
        return self.gpus > 0 or self.has_tpu

    @property
    def has_tpu(self) -> bool:
        """As of every place."""
        return self.tpu is not None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.gpus and self.tpu:
            raise ValueError("'gpus' and 'tpu' exclude each other: no node has both")
        if relative := [path for path in self.volumes.values() if not path.startswith("/")]:
            raise ValueError(f"'volumes' mounts at {relative[0]}, which is no absolute path")
        return self


class GcloudMachine(Place):
    """A machine of Google Compute Engine, made and deleted by the command `gcloud`."""

    dialect: Literal["gcloud"] = Field(description="Made by `gcloud compute instances`.")
    zone: str = Field(pattern=r"^[a-z0-9-]+$", description="Zone, such as us-central1-a.")
    project: str | None = Field(None, description="Project that pays; gcloud's own without it.")
    machine_type: str = Field(
        description="Machine type. It decides cores, memory, and GPUs or TPU chips: g2-standard-8, a3-highgpu-1g, ct6e-standard-4t."
    )
    accelerator: str | None = Field(
        None,
        description="GPUs to attach to a machine type that has none of its own, as gcloud writes them: type=nvidia-tesla-t4,count=1.",
    )
    provisioning: Literal["standard", "spot", "flex_start"] = Field(
        "standard", description="`spot` may be taken away at any time, `flex_start` waits in a queue; both cost less."
    )
    image_family: str = Field(description="Family of the disk image, as `gcloud compute images list` shows it.")
    image_project: str = Field(description="Project of the disk image.")
    container: str | None = Field(
        None,
        description="Container image that the task runs in, by the machine's Docker; on the machine itself without.",
    )
    disk_gb: int = Field(200, gt=0, description="Size of the disk in GB.")
    tunnel_through_iap: bool = Field(
        False, description="Reach the machine through Google's proxy (IAP), where the network lets no SSH in."
    )
    service_account: str | None = Field(
        None,
        description="Account whose rights the machine has, such as to the store's bucket; the project's default without it.",
    )

    @property
    def has_gpus(self) -> bool:
        """Whether the machine has GPUs, of its own or attached."""
        return self.accelerator is not None or GOOGLE_GPUS.match(self.machine_type) is not None

    @property
    def has_accelerator(self) -> bool | None:
        """As of every place."""
        return self.has_gpus or self.has_tpu

    @property
    def has_tpu(self) -> bool:
        """As of every place."""
        return GOOGLE_TPUS.match(self.machine_type) is not None


class SkyPilotMachine(Place):
    """A machine of whatever cloud SkyPilot finds one at, made and deleted by its command `sky`."""

    dialect: Literal["skypilot"] = Field(description="Made by `sky launch`.")
    command: str = Field(
        "sky", description="The command, such as /opt/sky/bin/sky: SkyPilot needs an environment of its own."
    )
    infra: str | None = Field(
        None, description="Cloud, region and zone, such as gcp/us-central1; the cheapest without it."
    )
    accelerators: str | None = Field(None, description="GPUs or TPU, as SkyPilot writes them: L4:1, H100:8, tpu-v6e-8.")
    cpus: str | None = Field(None, description="Cores: 8 or 8+.")
    memory: str | None = Field(None, description="Memory in GiB: 64 or 64+.")
    spot: bool = Field(False, description="A machine that may be taken away at any time and costs less.")
    container: str | None = Field(
        None, description="Container image that the task runs in; on the machine itself without."
    )
    disk_gb: int = Field(256, gt=0, description="Size of the disk in GB.")

    @property
    def has_accelerator(self) -> bool | None:
        """As of every place."""
        return self.accelerators is not None

    @property
    def has_tpu(self) -> bool:
        """As of every place."""
        return (self.accelerators or "").lower().startswith("tpu")


class VmExecutor(Place):
    """A machine that is made for the task and deleted after it."""

    kind: Literal["vm"] = Field(description="Run on a machine that is made for it.")
    machine: Annotated[GcloudMachine | SkyPilotMachine, Field(discriminator="dialect")] = Field(
        description="What machine, and which command makes it."
    )
    files: list[str] = Field(
        default=[],
        description="Files of this machine, relative to the recipe file, that are copied to the home folder there, such as a wheel of rm_assets.",
    )
    setup: str | None = Field(
        None,
        description="Shell commands that install rm_assets there, in the same version: pip install ~/rm_assets-*.whl.",
    )
    python: str = Field(
        "python3",
        pattern=FOREIGN_PYTHON,
        description="Python there, which has rm_assets after `setup`; as with `ssh` a command, or a path that is absolute or starts at the home folder there (venv/bin/python, without ~).",
    )
    environment: list[VariableName] = Field(
        default=[],
        description="Names of variables of this environment that the task is given there, such as HF_TOKEN; never their values.",
    )
    max_hours: float = Field(
        24,
        gt=0,
        le=168,
        description="Hours after which the machine is deleted by the cloud itself, whoever has died here.",
    )
    max_machines: int = Field(
        3,
        gt=0,
        description="Machines that are made in turn, where one after the other is taken away before the task is done.",
    )

    @property
    def has_accelerator(self) -> bool | None:
        """As of every place."""
        return self.machine.has_accelerator

    @property
    def has_tpu(self) -> bool:
        """As of every place."""
        return self.machine.has_tpu


class VertexExecutor(Place):
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

    @property
    def has_accelerator(self) -> bool | None:
        """As of every place."""
        return self.accelerator is not None or GOOGLE_GPUS.match(self.machine) is not None or self.has_tpu

    @property
    def has_tpu(self) -> bool:
        """As of every place."""
        return self.tpu_topology is not None or GOOGLE_TPUS.match(self.machine) is not None


RemoteExecutor = SshExecutor | RayExecutor | KubernetesExecutor | VertexExecutor | VmExecutor
Executor = Annotated[LocalExecutor | RemoteExecutor, Field(discriminator="kind")]
