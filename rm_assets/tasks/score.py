"""gold_rewards: a label for each response, from a gold model, a verifier or a record."""

import math
import statistics
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields

from rm_assets.core.digests import digest
from rm_assets.core.errors import DataError
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import ClassifierGold, PreferenceGold, PromptsSection, RecordedGold, VerifierGold
from rm_assets.core.records import GoldReward, Response, response_messages
from rm_assets.core.verifier import VerifierRule, verify
from rm_assets.storage.shards import ShardLog
from rm_assets.storage.sources import SourceRow
from rm_assets.storage.tables import read_table, write_table
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.recorded import align_rows, require_all_rows, rows_of_prompts
from rm_assets.tasks.session import Product, Task, run_task

COMPONENTS = ("exact", "partial", "numerical", "lines", "format")


ROWS_VERSION = 1
"""To be raised when a gold model's rewards are computed otherwise; committed shards of another version are not taken."""


@dataclass(frozen=True)
class ScoredRow:
    """A gold reward by its content key: the hash of the conversation, within the log of one gold model."""

    key: str
    reward: float
    truncated: bool


def score_with_classifier(
    task: Task, section: ClassifierGold, responses: list[Response]
) -> tuple[list[GoldReward], dict[str, int]]:
    """Scores what no earlier run has scored with this very gold model; the rewards, and what was computed for them."""
    from rm_assets.backends.torch.checkpoints import pick_device
    from rm_assets.backends.torch.scorer import TorchScorer

    execution, reporter = task.recipe.execution, task.reporter
    device = pick_device(execution.device)
    scorer = TorchScorer(
        section.model,
        max_length=section.max_length,
        dtype=section.dtype,
        device=device,
        token_budget=execution.forward_tokens("scoring", on_cpu=device.type == "cpu"),
        reporter=QuietReporter(),
    )
    log = ShardLog(
        task.store.home,
        "gold",
        {**task.settings, **scorer.identity, "rows": ROWS_VERSION},
        ScoredRow,
    )
    conversations = [response_messages(r) for r in responses]
    keys = [digest(c) for c in conversations]
    wanted = dict(zip(keys, zip(keys, conversations, strict=True), strict=True))
    done = Counter(rewards=len(log.committed(wanted)))

    def score_shard(items: list[tuple[str, list[dict[str, str]]]]) -> list[ScoredRow]:
        scores = list(scorer.score([messages for _, messages in items]))
        done["rewards"] += len(scores)
        reporter.progress(done["rewards"], len(wanted), "rewards")
        return [ScoredRow(key, s.reward, s.truncated) for (key, _), s in zip(items, scores, strict=True)]

    num_responses = max(Counter(r.prompt_id for r in responses).values())
    rows, num_scored = log.complete(wanted, score_shard, execution.shard_prompts * num_responses)
    rewards = [
        GoldReward(**asdict(r), gold_reward=rows[key].reward, truncated=rows[key].truncated)
        for r, key in zip(responses, keys, strict=True)
    ]
    return rewards, {"responses scored": num_scored, "tokens forwarded": scorer.num_tokens_forwarded}


def verify_all(section: VerifierGold, responses: list[Response]) -> list[GoldReward]:
    """Scores by rules. Raises: DataError DATA_009 if a prompt's reference is missing or has no final answer."""
    rule = VerifierRule(**{f.name: getattr(section, f.name) for f in fields(VerifierRule)})
    rewards = []
    for r in responses:
        if r.reference is None:
            raise DataError(
                "DATA_009",
                f"prompt {r.prompt!r:.80} has no reference answer",
                fix="name its column in prompts.reference_field",
            )
        try:
            verdict = verify(r.response, r.reference, rule)
        except ValueError as error:
            raise DataError(
                "DATA_009",
                f"the reference of prompt {r.prompt!r:.80} has no final answer",
                why=str(error),
                fix="correct the reference, or gold.answer_pattern",
            ) from None
        rewards.append(
            GoldReward(**asdict(r), gold_reward=verdict.reward, components={c: getattr(verdict, c) for c in COMPONENTS})
        )
    return rewards


def read_recorded(
    section: RecordedGold, prompts: PromptsSection, responses: list[Response]
) -> tuple[list[GoldReward], dict[str, int]]:
    """Recorded rewards, each checked to be of its response, and an account of the record.

    Raises: DataError DATA_007 if number or order do not agree, DATA_008 if a reward is not finite.
    """
    of_prompt: defaultdict[str, list[Response]] = defaultdict(list)
    for r in responses:
        of_prompt[r.prompt_id].append(r)
    recorded: defaultdict[str, list[tuple[SourceRow, float]]] = defaultdict(list)
    num_recorded = num_unknown = 0
    for row, prompt in align_rows(section, prompts, responses):
        num_recorded += 1
        if prompt is None:
            num_unknown += 1
        else:
            recorded[prompt] += [(row, v) for field in section.reward_fields for v in _finite(row, field)]
    rewards = []
    for prompt, its_responses in of_prompt.items():
        values = _of_responses(section, its_responses, recorded[prompt])
        rewards += [
            GoldReward(**asdict(r), gold_reward=-v if section.ranks else v)
            for r, v in zip(its_responses, values, strict=True)
        ]
    return rewards, {"recorded_rows": num_recorded, "recorded_rows_of_unknown_prompts": num_unknown}


def _finite(row: SourceRow, field: str) -> list[float]:
    values = row.numbers(field)
    for value in values:
        if not math.isfinite(value):
            raise DataError(
                "DATA_008",
                f"{row.where}: gold reward '{field}' is {value}",
                fix="remove the row, or label the response again",
            )
    return values


def read_preferences(
    section: PreferenceGold, prompts: PromptsSection, responses: list[Response]
) -> tuple[list[GoldReward], dict[str, int]]:
    """The two rewards of each row, which compare with each other alone, and an account of the rows.

    Raises: DataError DATA_003 for a label that the recipe does not know, DATA_007 if a row has not two responses,
    DATA_008 for a margin that is negative or not finite.
    """
    of_prompt: defaultdict[str, list[Response]] = defaultdict(list)
    for r in responses:
        of_prompt[r.prompt_id].append(r)
    taken: Counter[str] = Counter()
    rewards, account = [], Counter[str](recorded_rows=0, recorded_rows_of_unknown_prompts=0, tied_rows=0)
    for row, prompt in rows_of_prompts(prompts, responses):
        account["recorded_rows"] += 1
        if prompt is None:
            account["recorded_rows_of_unknown_prompts"] += 1
            continue
        its_responses = of_prompt[prompt][taken[prompt] : taken[prompt] + 2]
        taken[prompt] += 2
        values = two_rewards(section, row)
        account["tied_rows"] += values[0] == values[1]
        rewards += [
            GoldReward(**asdict(r), gold_reward=value, comparison=str(taken[prompt] // 2 - 1))
            for r, value in zip(its_responses, values, strict=False)
        ]
    if len(rewards) != len(responses) or any(taken[prompt] != len(rows) for prompt, rows in of_prompt.items()):
        raise DataError(
            "DATA_007",
            f"{len(responses)} responses for {sum(taken.values()) // 2} rows of preferences",
            why="a preference is between two responses",
            fix="name two columns in sampling.response_fields, or use gold.kind recorded for rows with more",
        )
    return rewards, dict(account)


def two_rewards(section: PreferenceGold, row: SourceRow) -> tuple[float, float]:
    margin = 1.0 if section.margin_field is None else row.number(section.margin_field)
    if not math.isfinite(margin) or margin < 0:
        raise DataError(
            "DATA_008",
            f"{row.where}: the margin '{section.margin_field}' is {margin}",
            fix="give a number of at least 0: how much better the preferred response is",
        )
    if section.winner_field is None:
        return margin, 0.0
    label = row.optional_text(section.winner_field)
    if label in section.ties:
        return 0.0, 0.0
    if label not in section.winners:
        raise row.fault(section.winner_field, f"is none of {', '.join([*section.winners, *section.ties])}", label)
    return (margin, 0.0) if label == section.winners[0] else (0.0, margin)


def _of_responses(
    section: RecordedGold, responses: list[Response], recorded: list[tuple[SourceRow, float]]
) -> list[float]:
    shown = f"prompt {responses[0].prompt!r:.80}"
    if section.response_field is None:
        if len(recorded) != len(responses):
            raise DataError(
                "DATA_007",
                f"{shown} has {len(responses)} responses and {len(recorded)} recorded rewards",
                fix="record one reward for each response, or name gold.response_field so that rewards find theirs",
            )
        return [value for _, value in recorded]
    by_text: defaultdict[str, list[float]] = defaultdict(list)
    for row, value in recorded:
        by_text[row.text(section.response_field, may_be_empty=True)].append(value)
    values: list[float] = []
    used: Counter[str] = Counter()
    for r in responses:
        found = by_text[r.response]
        if not found:
            raise DataError(
                "DATA_007",
                f"{shown}: no recorded reward for the response {r.response!r:.60}",
                fix="label it, or correct gold.response_field",
            )
        num_same = sum(other.response == r.response for other in responses)
        if len(set(found)) > 1 and len(found) != num_same:
            raise DataError(
                "DATA_007",
                f"{shown}: the response {r.response!r:.60} occurs {num_same} times and has {len(found)} rewards",
                why="they contradict each other",
                fix="keep one reward for it, or one for each occurrence",
            )
        used[r.response] += 1
        values.append(found[min(used[r.response], len(found)) - 1])
    return values


def score(task: Task) -> Product:
    """Labels every response, in the order of sampled_responses."""
    responses = list(read_table(task.input("sampled_responses", "responses.parquet"), Response))
    section = task.recipe.gold
    work, account = {"responses scored": 0}, dict[str, int]()
    if isinstance(section, ClassifierGold):
        with task.store.device(task.reporter.log):
            rewards, work = score_with_classifier(task, section, responses)
    elif isinstance(section, VerifierGold):
        rewards, work = verify_all(section, responses), {"responses scored": len(responses)}
    elif isinstance(section, PreferenceGold):
        rewards, account = read_preferences(section, task.recipe.prompts, responses)
    else:
        require_all_rows(section, task.recipe.prompts)
        rewards, account = read_recorded(section, task.recipe.prompts, responses)
    order = {r.response_id: i for i, r in enumerate(responses)}
    rewards.sort(key=lambda r: order[r.response_id])
    broken = next((r for r in rewards if not math.isfinite(r.gold_reward)), None)
    if broken:
        raise DataError(
            "DATA_008",
            f"response {broken.response!r:.60} got the gold reward {broken.gold_reward}",
            fix="use another dtype for the gold model, or correct the label",
        )
    write_table(task.folder / "gold_rewards.parquet", GoldReward, rewards)
    values = [r.gold_reward for r in rewards]
    facts = {
        "gold_reward_mean": round(statistics.fmean(values), 4),
        "gold_reward_sd": round(statistics.pstdev(values), 4),
        "gold_reward_min": min(values),
        "gold_reward_max": max(values),
        **{
            f"mean_{c}": round(statistics.fmean(r.components[c] for r in rewards), 4)
            for c in COMPONENTS
            if rewards[0].components
        },
    }
    return Product(
        files=["gold_rewards.parquet"],
        counts={"gold_rewards": len(rewards), "truncated": sum(r.truncated for r in rewards), **account},
        work=work,
        facts=facts,
        examples=[
            {"prompt": excerpt(r.prompt, 120), "response": excerpt(r.response), "gold_reward": f"{r.gold_reward:.3f}"}
            for r in rewards[:8]
        ],
        columns=columns_of(GoldReward),
    )


if __name__ == "__main__":
    run_task(score)
