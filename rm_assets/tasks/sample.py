"""sampled_responses: K responses to each prompt from the policy or a server, or the responses that were recorded."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby

from rm_assets.core.digests import digest, response_id, sample_seed
from rm_assets.core.errors import DataError, ServerError
from rm_assets.core.protocols import QuietReporter, Reporter, Sample, Sampler, SampleRequest
from rm_assets.core.recipe import PolicySampling, RecordedResponses, SamplingSettings, ServerSampling
from rm_assets.core.records import Prompt, Response, prompt_messages
from rm_assets.storage.shards import ShardLog
from rm_assets.storage.sources import SourceRow
from rm_assets.storage.tables import read_table, write_table
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.prompt_rows import responses_in
from rm_assets.tasks.recorded import align_rows
from rm_assets.tasks.session import Product, Task, run_task

ROWS_VERSION = 1
"""To be raised when a sampler's responses change; committed shards of another version are not taken."""


@dataclass(frozen=True)
class SampledRow:
    """A sampled response by its content key: the hash of prompt and seed, within the log of one sampler."""

    key: str
    response: str
    num_tokens: int
    finished: bool


class RunProgress(QuietReporter):
    """A sampler's progress within its shard, passed on as that of the whole run."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self.before, self.total = reporter, 0, 0

    def progress(self, done: int, total: int, unit: str) -> None:
        """`done` of this shard are finished."""
        self._reporter.progress(self.before + done, self.total, unit)


def sample_from_policy(
    task: Task, section: PolicySampling, prompts: list[Prompt]
) -> tuple[list[Response], Counter[str]]:
    """Samples what no earlier run has sampled with this very sampler; the rest comes from committed shards."""
    from rm_assets.backends.torch.checkpoints import pick_device
    from rm_assets.backends.torch.sampler import TorchSampler

    execution, progress = task.recipe.execution, RunProgress(task.reporter)
    device = pick_device(execution.device)
    sampler = TorchSampler(
        section.policy,
        temperature=section.temperature,
        top_p=section.top_p,
        max_new_tokens=section.max_new_tokens,
        dtype=section.dtype,
        device=device,
        token_budget=execution.forward_tokens("sampling", on_cpu=device.type == "cpu"),
        reporter=progress,
    )
    model = section.policy.location if section.policy.hub_id else "policy"
    responses, work = _complete(task, section, prompts, sampler, progress, model=model)
    work["tokens forwarded"] = sampler.num_tokens_forwarded
    return responses, work


def sample_from_server(
    task: Task, section: ServerSampling, prompts: list[Prompt]
) -> tuple[list[Response], Counter[str], dict[str, str]]:
    """As `sample_from_policy`, and what the server said of the model. The server is not asked if nothing is missing."""
    from rm_assets.backends.openai.client import ServerClient, key_from_environment
    from rm_assets.backends.openai.sampler import ServerSampler

    execution, progress = task.recipe.execution, RunProgress(task.reporter)
    client = ServerClient(
        section.base_url,
        api_key=key_from_environment(section.api_key_env),
        concurrency=execution.server_concurrency,
        timeout_seconds=execution.server_timeout_seconds,
        retries=execution.server_retries,
    )
    sampler = ServerSampler(
        client,
        section.model,
        temperature=section.temperature,
        top_p=section.top_p,
        max_new_tokens=section.max_new_tokens,
        reporter=progress,
    )
    facts: dict[str, str] = {}

    def ask_for_the_model() -> None:
        root = sampler.require_model().get("root")
        facts.update({"server": client.base_url} | ({"server_checkpoint": root} if isinstance(root, str) else {}))

    responses, work = _complete(
        task, section, prompts, sampler, progress, model=section.model, before_sampling=ask_for_the_model,
        came=lambda: sampler.came,
    )  # fmt: skip
    return responses, work, facts


def _complete(
    task: Task,
    section: SamplingSettings,
    prompts: list[Prompt],
    sampler: Sampler,
    progress: RunProgress,
    *,
    model: str,
    before_sampling: Callable[[], None] = lambda: None,
    came: Callable[[], list[Sample]] = list,
) -> tuple[list[Response], Counter[str]]:
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

    def sample_shard(items: list[tuple[Prompt, int]]) -> list[SampledRow]:
        requests, keys = [], dict[tuple[str, int], str]()
        for prompt, group in groupby(items, key=lambda item: item[0]):
            indices = [index for _, index in group]
            keys |= {(prompt.prompt_id, n): _key(prompt, section.seed, i) for n, i in enumerate(indices)}
            seeds = tuple(sample_seed(section.seed, prompt.prompt_id, i) for i in indices)
            requests.append(SampleRequest(prompt.prompt_id, prompt_messages(prompt), seeds))

        def rows_of(samples: list[Sample]) -> list[SampledRow]:
            return [SampledRow(keys[s.prompt_id, s.index], s.response, s.num_tokens, s.finished) for s in samples]

        try:
            samples = sampler.sample(requests)
        except ServerError:
            if came():
                log.commit(rows_of(came()))
            raise
        progress.before += len(samples)
        return rows_of(samples)

    progress.before, progress.total = len(log.committed(wanted)), len(wanted)
    if progress.before:
        task.reporter.log(f"{progress.before} of {len(wanted)} responses were sampled before")
    if progress.before < len(wanted):
        before_sampling()
    rows, num_sampled = log.complete(wanted, sample_shard, task.recipe.execution.shard_prompts * section.num_responses)
    responses = [
        _response(
            prompt,
            index,
            rows[key].response,
            model=model,
            seed=sample_seed(section.seed, prompt.prompt_id, index),
            sampled=rows[key],
        )
        for key, (prompt, index) in wanted.items()
    ]
    return responses, Counter({"responses sampled": num_sampled})


def _key(prompt: Prompt, seed: int, index: int) -> str:
    return digest([prompt.prompt_id, sample_seed(seed, prompt.prompt_id, index)])


def _response(
    prompt: Prompt, index: int, text: str, *, model: str, seed: int | None = None, sampled: SampledRow | None = None
) -> Response:
    return Response(
        **asdict(prompt),
        response_id=response_id(prompt.prompt_id, index, text),
        sample_index=index,
        response=text,
        model=model,
        seed=seed,
        num_tokens=sampled.num_tokens if sampled else None,
        finished=sampled.finished if sampled else None,
    )


def read_recorded(task: Task, section: RecordedResponses, prompts: list[Prompt]) -> tuple[list[Response], Counter[str]]:
    """The recorded responses in order of the prompts, each prompt's in order of the file.

    Raises: DataError DATA_006 if prompts have none and the recipe does not drop those.
    """
    if section.align == "row" and task.recipe.prompts.test is not None:
        raise DataError(
            "DATA_010",
            "recorded responses cannot be aligned by row",
            why="prompts come from two sources",
            fix="align by prompt or prompt_id",
        )
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    messages = {prompt.prompt_id: prompt_messages(prompt) for prompt in prompts}
    num_unknown = 0
    for row, of_prompt in align_rows(section, task.recipe.prompts, prompts):
        if of_prompt is None:
            num_unknown += 1
            continue
        texts = [
            text
            for field in section.response_fields
            for text in responses_in(row, field, messages[of_prompt], task.recipe.prompts.transcript)
        ]
        found[of_prompt] += zip(texts, _models(row, section.model_field, len(texts)), strict=True)
    without = [p for p in prompts if p.prompt_id not in found]
    if without and (section.missing == "error" or len(without) == len(prompts)):
        raise DataError(
            "DATA_006",
            f"{len(without)} of {len(prompts)} prompts have no recorded response, the first is {without[0].prompt!r:.80}",
            fix="record them, correct sampling.align and sampling.prompt_field, or set sampling.missing to 'drop'",
        )
    responses = [
        _response(p, i, text, model=model) for p in prompts for i, (text, model) in enumerate(found[p.prompt_id])
    ]
    return responses, Counter(
        {"prompts_without_response_dropped": len(without), "rows_of_unknown_prompts": num_unknown}
    )


def _models(row: SourceRow, field: str | None, num_responses: int) -> list[str]:
    """The name of the model for each response of a row."""
    value = row.columns.get(field) if field else None
    if field and isinstance(value, list):
        if len(value) != num_responses:
            raise row.fault(field, f"holds {len(value)} names for {num_responses} responses", value)
        return [row.checked_text(field, name) for name in value]
    return [row.optional_text(field) or "recorded"] * num_responses


def sample(task: Task) -> Product:
    """Makes or reads the responses and writes them in order of prompt and sample index."""
    prompts = list(read_table(task.input("prompts", "prompts.parquet"), Prompt))
    section = task.recipe.sampling
    counts: Counter[str] = Counter()
    server: dict[str, str] = {}
    if isinstance(section, PolicySampling):
        with task.store.device(task.reporter.log):
            responses, work = sample_from_policy(task, section, prompts)
    elif isinstance(section, ServerSampling):
        responses, work, server = sample_from_server(task, section, prompts)
    else:
        responses, counts = read_recorded(task, section, prompts)
        work = Counter({"responses sampled": 0})
    write_table(task.folder / "responses.parquet", Response, responses)
    return Product(
        files=["responses.parquet"],
        counts={"responses": len(responses), "prompts": len({r.prompt_id for r in responses}), **counts},
        work=dict(work),
        facts={**dict(_facts(responses)), **server},
        examples=[
            {"split": r.split, "prompt": excerpt(r.prompt), "model": r.model, "response": excerpt(r.response)}
            for r in responses[:8]
        ],
        columns=columns_of(Response),
    )


def _facts(responses: list[Response]) -> Iterator[tuple[str, float]]:
    yield "mean_response_characters", round(sum(len(r.response) for r in responses) / len(responses), 1)
    yield "empty_responses", sum(not r.response.strip() for r in responses)
    cut = [r.finished for r in responses if r.finished is not None]
    if cut:
        yield "share_cut_by_length_limit", round(cut.count(False) / len(cut), 4)
    tokens = [r.num_tokens for r in responses if r.num_tokens is not None]
    if tokens:
        yield "mean_response_tokens", round(sum(tokens) / len(tokens), 1)


if __name__ == "__main__":
    run_task(sample)
