"""Who computes the shards of sampling and scoring, where the recipe says that a Ray cluster has workers for it.

The task itself is then a job of the cluster that has no model. It cuts the shards, gives them out, and commits them. It
takes no lease on a device: what its workers hold, Ray itself gives to nobody else.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rm_assets.backends.ray.pool import Done, Held, Work, WorkerPool
from rm_assets.core.protocols import QuietReporter, Sample, SampleRequest
from rm_assets.core.recipe import ClassifierGold, PolicySampling, RayExecutor, TaskName
from rm_assets.storage.requests import local, portable
from rm_assets.tasks.samplers import load_sampler
from rm_assets.tasks.scorers import load_scorer
from rm_assets.tasks.session import Task
from rm_assets.tasks.used_devices import used_devices

if TYPE_CHECKING:
    from rm_assets.backends.scoring import ConversationScorer
    from rm_assets.backends.torch.sampler import TorchSampler

SamplingWorkers = WorkerPool["TorchSampler", list[SampleRequest], list[Sample]]


def sampling_workers(task: Task, section: PolicySampling) -> SamplingWorkers | None:
    """Workers with the policy, None where this process samples."""
    return _workers(task, "sample", partial(_policy, _sent(task, section)), _sample)


def scoring_workers(
    task: Task, section: ClassifierGold, compute: "Callable[[ConversationScorer, Any], Any]"
) -> "WorkerPool[ConversationScorer, Any, Any] | None":
    """Workers with the gold model, None where this process scores."""
    return _workers(task, "score", partial(_gold_model, _sent(task, section)), compute)


def _workers(
    task: Task, name: TaskName, load: Callable[[], Held], compute: Callable[[Held, Work], Done]
) -> WorkerPool[Held, Work, Done] | None:
    executor = task.recipe.execution.executor_of(name)
    if not isinstance(executor, RayExecutor) or executor.workers == 1:
        return None
    return WorkerPool(
        executor, load, compute, _device, num_threads=task.recipe.execution.num_threads, reporter=task.reporter,
        worked_on=task.worked_on,
    )  # fmt: skip


def _device() -> str:
    return str(used_devices(1)["device"])


def _sent(task: Task, section: PolicySampling | ClassifierGold) -> dict[str, Any]:
    sent: dict[str, Any] = portable({"section": section.model_dump(mode="json")})
    return sent | {"execution": task.recipe.execution}


def _policy(sent: dict[str, Any]) -> "TorchSampler":
    section = PolicySampling.model_validate(local(sent["section"]))
    return load_sampler(section, sent["execution"], QuietReporter())


def _sample(sampler: "TorchSampler", requests: list[SampleRequest]) -> list[Sample]:
    return sampler.sample(requests)


def _gold_model(sent: dict[str, Any]) -> "ConversationScorer":
    section = ClassifierGold.model_validate(local(sent["section"]))
    return load_scorer(
        section.model, section.backend, max_length=section.max_length, dtype=section.dtype, execution=sent["execution"],
        reporter=QuietReporter(),
    )  # fmt: skip
