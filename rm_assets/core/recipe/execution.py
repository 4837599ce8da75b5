"""How work is carried out."""

from typing import Annotated, Literal

from pydantic import Field

from rm_assets.core.recipe.executors import Executor, LocalExecutor, TaskName
from rm_assets.core.recipe.mesh import JaxMesh
from rm_assets.core.recipe.section import Section

SMALL_BATCHES = ("cpu", "mps")
"""Devices on which a forward pass has few tokens unless the recipe says how many."""


class ExecutionSection(Section):
    """How work is carried out. Changes no result and enters no digest."""

    executor: Executor = Field(
        LocalExecutor(),
        description="Where tasks run: `local`, `ssh`, `ray`, `kubernetes`, `vertex` or `vm`; what runs elsewhere needs a store at a URL.",
    )
    executors: dict[TaskName, Executor] = Field(
        default={},
        description="Where single tasks run instead, by the task's name: ingest, sample, score, pair, train, evaluate, release.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto",
        description="Where models run; `auto` takes a GPU if there is one. JAX finds its device itself, also a TPU: leave it at `auto`.",
    )
    num_threads: int | None = Field(None, gt=0, description="CPU threads of a task; all cores when not given.")
    shard_prompts: int = Field(
        256,
        gt=0,
        description="Prompts in one committed shard: the unit of resume. Those of a judge are of 8 x `server_concurrency` requests.",
    )
    token_budget: int | None = Field(
        None,
        gt=0,
        description="Tokens in one forward pass while sampling and scoring; when not given 16,384, but 2,048 for scoring on a CPU or an Apple GPU.",
    )
    training_token_budget: int | None = Field(
        None,
        gt=0,
        description="Tokens in one forward pass while training; when not given 16,384, but 2,048 on a CPU or an Apple GPU.",
    )
    pairs_per_forward: int = Field(16, gt=0, description="Pairs in one forward pass while training with engine trl.")
    gradient_checkpointing: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Recompute activations in the backward pass, which takes less memory and about a third more time; `auto` does so where the estimated memory does not fit, with JAX on all devices but a CPU.",
    )
    num_processes: int = Field(
        1,
        gt=0,
        description="Processes of one training, each with a GPU of its own where there are GPUs; weights are sharded between them.",
    )
    jax_mesh: JaxMesh | None = Field(
        None,
        description="Devices among which `backend: jax` divides its work, each with a token budget of its own; without it one on a CPU, and all of a machine's GPUs or TPU cores along `fsdp`.",
    )
    deterministic: bool = Field(
        False, description="Use only operations whose result is the same in every run, at some cost on a GPU."
    )
    profile: bool = Field(
        False, description="Profile a few training steps and write what took the time beside the model."
    )
    save_every_steps: int = Field(200, gt=0, description="Optimizer steps between two resumable checkpoints.")
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        description="Longest time for one task, not counting what it waits for the device or another run; without it there is no limit.",
    )
    task_timeout_seconds: dict[TaskName, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="The limits of single tasks instead, by the task's name."
    )
    server_concurrency: int = Field(32, gt=0, description="Requests that a server works on at a time.")
    server_timeout_seconds: float = Field(
        600, gt=0, description="Longest time for one answer of a server; then it is asked again."
    )
    server_retries: int = Field(
        8,
        ge=0,
        description="Further tries of a request that a server dropped, refused as too many, or failed to answer.",
    )

    def executor_of(self, task: TaskName) -> Executor:
        """Where a task runs."""
        return self.executors.get(task, self.executor)

    def timeout_of(self, task: TaskName) -> float | None:
        """Seconds that a task may take, without a limit None."""
        return self.task_timeout_seconds.get(task, self.timeout_seconds)

    def forward_tokens(self, work: Literal["sampling", "scoring", "training"], *, on_cpu: bool) -> int:
        """Tokens in one forward pass; `on_cpu` on every device of `SMALL_BATCHES`.

        A CPU is fastest while activations stay near its caches; sampling computes one token a row, and many rows are best.
        """
        given = self.training_token_budget if work == "training" else self.token_budget
        return given or (2_048 if on_cpu and work != "sampling" else 16_384)
