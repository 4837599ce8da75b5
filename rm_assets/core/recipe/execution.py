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


class RayExecutor(Section):
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


RemoteExecutor = SshExecutor | RayExecutor
Executor = Annotated[LocalExecutor | SshExecutor | RayExecutor, Field(discriminator="kind")]
