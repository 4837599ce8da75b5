"""sampled_responses: K responses to each prompt from the policy or a server, or the responses that were recorded."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any

from rm_assets.backends.ray.pool import WorkerPool
from rm_assets.core.digests import digest, response_id, sample_seed
from rm_assets.core.errors import ServerError
from rm_assets.core.protocols import Sample, Sampler, SampleRequest
from rm_assets.core.recipe import PolicySampling, SamplingSettings, ServerSampling
from rm_assets.core.records import Prompt, Response, prompt_messages
from rm_assets.storage.shards import ShardLog
from rm_assets.storage.tables import Table, read_table, write_table
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.recorded_responses import recorded_responses
from rm_assets.tasks.run_progress import RunProgress
from rm_assets.tasks.samplers import load_sampler
from rm_assets.tasks.session import Product, Task, run_task
from rm_assets.tasks.workers import SamplingWorkers, sampling_workers

NUM_EXAMPLES = 8
ROWS_VERSION = 1
"""To be raised when a sampler's responses change; committed shards of another version are not taken."""


@dataclass(frozen=True)
class SampledRow:
    """A sampled response by its content key: the hash of prompt and seed, within the log of one sampler."""

    key: str
    response: str
    num_tokens: int
    finished: bool


def sample_from_policy(
    task: Task, section: PolicySampling, prompts: list[Prompt]
) -> tuple[Iterator[Response], Counter[str], dict[str, int]]:
    """Samples what no earlier run has sampled with this very sampler; the rest comes from committed shards."""
    progress = RunProgress(task.reporter)
    model = section.policy.location if section.policy.hub_id else "policy"
    workers = sampling_workers(task, section)
    with workers or task.store.device(task.reporter.waiting):
        sampler = workers or load_sampler(section, task.recipe.execution, progress)
        responses, work = _complete(task, section, prompts, sampler, progress, model=model)
    work["tokens forwarded"] = sampler.num_tokens_forwarded
    return responses, work, sampler.facts


def sample_from_server(
    task: Task, section: ServerSampling, prompts: list[Prompt]
) -> tuple[Iterator[Response], Counter[str], dict[str, str]]:
    """As `sample_from_policy`, and what the server said of the model. The server is not asked if nothing is missing."""
    from rm_assets.backends.openai.chat import connect
    from rm_assets.backends.openai.sampler import ServerSampler

    progress = RunProgress(task.reporter)
    model = connect(section, task.recipe.execution)
    sampler = ServerSampler(
        model,
        temperature=section.temperature,
        top_p=section.top_p,
        max_new_tokens=section.max_new_tokens,
        reporter=progress,
    )
    facts: dict[str, str] = {}

    responses, work = _complete(
        task, section, prompts, sampler, progress, model=section.model,
        before_sampling=lambda: facts.update(model.require_offered()), came=lambda: sampler.came,
    )  # fmt: skip
    return responses, work, facts


def _complete(
    task: Task,
    section: SamplingSettings,
    prompts: list[Prompt],
    sampler: Sampler | SamplingWorkers,
    progress: RunProgress,
    *,
    model: str,
    before_sampling: Callable[[], None] = lambda: None,
    came: Callable[[], list[Sample]] = list,
) -> tuple[Iterator[Response], Counter[str]]:
    """Responses to all prompts: those in committed shards, and the missing ones sampled shard by shard.

    Of a shard at which a server fails, the samples that `came` before it are committed too.
    """
    parameters = {k: v for k, v in task.settings.items() if k not in ("num_responses", "num_test_responses", "seed")}
    log = ShardLog(
        task.store.home,
        "responses",
        {**parameters, **sampler.identity, "rows": ROWS_VERSION},
        SampledRow,
    )

    wanted: dict[str, tuple[Prompt, int]] = {}
    for prompt in prompts:
        num_responses = (
            section.num_responses if prompt.split == "train" else section.num_test_responses or section.num_responses
        )
        for index in range(num_responses):
            wanted[_key(prompt, section.seed, index)] = (prompt, index)

    def requests_of(items: list[tuple[Prompt, int]]) -> list[SampleRequest]:
        requests = []
        for prompt, group in groupby(items, key=lambda item: item[0]):
            seeds = tuple(sample_seed(section.seed, prompt.prompt_id, index) for _, index in group)
            requests.append(SampleRequest(prompt.prompt_id, prompt_messages(prompt), seeds))
        return requests

    def rows_of(requests: list[SampleRequest], samples: list[Sample]) -> list[SampledRow]:
        keys = {(r.prompt_id, n): digest([r.prompt_id, seed]) for r in requests for n, seed in enumerate(r.seeds)}
        return [SampledRow(keys[s.prompt_id, s.index], s.response, s.num_tokens, s.finished) for s in samples]

    def sample_shard(items: list[tuple[Prompt, int]]) -> list[SampledRow]:
        assert not isinstance(sampler, WorkerPool)
        requests = requests_of(items)
        try:
            samples = sampler.sample(requests)
        except ServerError:
            log.commit(rows_of(requests, came()))
            raise
        progress.before += len(samples)
        return rows_of(requests, samples)

    def sample_shards(shards: Iterator[list[tuple[Prompt, int]]]) -> Iterator[list[SampledRow]]:
        assert isinstance(sampler, WorkerPool)
        for requests, samples in sampler.each(map(requests_of, shards)):
            progress.before += len(samples)
            progress.progress(0, 0, "responses")
            yield rows_of(requests, samples)

    def before(done: int, total: int) -> None:
        progress.before, progress.total = done, total
        if done:
            task.reporter.log(f"{done} of {total} responses were sampled before")
        if done < total:
            before_sampling()

    shard_size = task.recipe.execution.shard_prompts * section.num_responses
    waiting = partial(task.reporter.waiting, "another run samples")
    spread = sample_shards if isinstance(sampler, WorkerPool) else None
    rows, num_sampled = log.complete(wanted.items, sample_shard, shard_size, before, waiting, spread)
    responses = (
        _response(prompt, index, rows[key], model, sample_seed(section.seed, prompt.prompt_id, index))
        for key, (prompt, index) in wanted.items()
    )
    return responses, Counter({"responses sampled": num_sampled})


def _key(prompt: Prompt, seed: int, index: int) -> str:
    return digest([prompt.prompt_id, sample_seed(seed, prompt.prompt_id, index)])


def _response(prompt: Prompt, index: int, sampled: SampledRow, model: str, seed: int) -> Response:
    return Response(
        **vars(prompt), response_id=response_id(prompt.prompt_id, index, sampled.response), sample_index=index,
        response=sampled.response, model=model, seed=seed, num_tokens=sampled.num_tokens, finished=sampled.finished,
    )  # fmt: skip


def sample(task: Task) -> Product:
    """Makes or reads the responses and writes them in order of prompt and sample index."""
    prompts = list(read_table(task.input("prompts", "prompts.parquet"), Prompt))
    section, seen = task.recipe.sampling, _Seen()
    counts, work, facts = Counter[str](), Counter[str](), dict[str, Any]()
    responses: Iterable[Response]
    if isinstance(section, PolicySampling):
        responses, work, facts = sample_from_policy(task, section, prompts)
    elif isinstance(section, ServerSampling):
        responses, work, facts = sample_from_server(task, section, prompts)
    else:
        responses = recorded_responses(task, section, prompts, counts)
    table = task.folder / "responses.parquet"
    num_responses = write_table(table, Response, seen.watched(responses))
    return Product(
        files=[table.name],
        counts={"responses": num_responses, "prompts": seen.num_prompts, **counts},
        work=dict(work or {"responses sampled": 0}),
        facts={**seen.facts(num_responses), **facts},
        examples=[
            {"split": r.split, "prompt": excerpt(r.prompt), "model": r.model, "response": excerpt(r.response)}
            for r in islice(Table(table, Response), NUM_EXAMPLES)
        ],
        columns=columns_of(Response),
    )


class _Seen:
    """What is said of the responses, gathered as they pass."""

    def __init__(self) -> None:
        self.num_prompts = 0
        self._sums: Counter[str] = Counter()

    def watched(self, responses: Iterable[Response]) -> Iterator[Response]:
        """The responses as they are."""
        last, sums = "", self._sums
        for r in responses:
            self.num_prompts += r.prompt_id != last
            last = r.prompt_id
            sums["characters"] += len(r.response)
            sums["empty"] += not r.response.strip()
            if r.finished is not None:
                sums["sampled"] += 1
                sums["cut"] += not r.finished
            if r.num_tokens is not None:
                sums["counted"] += 1
                sums["tokens"] += r.num_tokens
            yield r

    def facts(self, num_responses: int) -> dict[str, float]:
        """Means and shares; those of tokens and of the length limit where responses were sampled."""
        sums = self._sums
        facts = {
            "mean_response_characters": round(sums["characters"] / num_responses, 1),
            "empty_responses": sums["empty"],
        }
        if sums["sampled"]:
            facts["share_cut_by_length_limit"] = round(sums["cut"] / sums["sampled"], 4)
        if sums["counted"]:
            facts["mean_response_tokens"] = round(sums["tokens"] / sums["counted"], 1)
        return facts


if __name__ == "__main__":
    run_task(sample)
