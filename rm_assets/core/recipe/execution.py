"""Where tasks run."""

from typing import Annotated, Literal

from pydantic import Field

from rm_assets.core.recipe.section import Section

TaskName = Literal["ingest", "sample", "score", "pair", "train", "evaluate", "release"]
HOST = r"^[A-Za-z0-9_.@\[:][A-Za-z0-9_.@\[\]:-]*$"
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


class GcloudMachine(Section):
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


class SkyPilotMachine(Section):
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


class VmExecutor(Section):
    """A machine that is made for the task and deleted after it."""

    kind: Literal["vm"] = Field(description="Run on a machine that is made for it.")
    machine: Annotated[GcloudMachine | SkyPilotMachine, Field(discriminator="dialect")] = Field(
        description="What machine, and which command makes it."
    )
    files: list[str] = Field(
        default=[],
        description="Files of this machine that are copied to the home folder there, such as a wheel of rm_assets.",
    )
    setup: str | None = Field(
        None,
        description="Shell commands that install rm_assets there, in the same version: pip install ~/rm_assets-*.whl.",
    )
    python: str = Field("python3", description="Python there, which has rm_assets after `setup`.")
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


RemoteExecutor = SshExecutor | VmExecutor
Executor = Annotated[LocalExecutor | SshExecutor | VmExecutor, Field(discriminator="kind")]
