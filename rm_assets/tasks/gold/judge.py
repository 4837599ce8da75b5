"""Gold rewards from a judge that compares each two responses of a prompt, in both orders."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, permutations
from typing import Any

from rm_assets.core.errors import ServerError
from rm_assets.core.gold.judging import Comparison, Judgement, agreed, dialogue_text, read_verdict, win_shares
from rm_assets.core.recipe import JudgeGold
from rm_assets.core.records import GoldReward, Response
from rm_assets.storage.shards import ShardLog
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.run_progress import RunProgress
from rm_assets.tasks.session import Task

ROWS_VERSION = 1
"""To be raised when a judge is asked otherwise; committed shards of another version are not taken."""
ROUNDS_OF_SHARD = 8
"""Requests of a shard by those that are under way at a time: answers are paid for, and a kill loses at most a shard of them."""


def label(task: Task, section: JudgeGold, settings: Mapping[str, Any], responses: Iterable[Response]) -> Labels:
    """Asks what no earlier run has asked this very judge. The server is not reached if nothing is missing."""
    from rm_assets.backends.openai.chat import connect
    from rm_assets.backends.openai.judge import ServerJudge

    model, progress = connect(section, task.recipe.execution), RunProgress(task.reporter)
    judge = ServerJudge(
        model, instructions=section.instructions, max_new_tokens=section.max_new_tokens, reporter=progress
    )
    # Answers are kept as they came: how they are read can change without asking again.
    asked = {key: value for key, value in settings.items() if key != "verdicts"}
    log = ShardLog(task.store.home, "judgements", {**asked, **judge.identity, "rows": ROWS_VERSION}, Judgement)
    facts: dict[str, Any] = {}

    def judge_shard(comparisons: list[Comparison]) -> list[Judgement]:
        try:
            judgements = judge.judge(comparisons)
        except ServerError:
            log.commit(judge.came)
            raise
        progress.before += len(judgements)
        return judgements

    def before(done: int, total: int) -> None:
        progress.before, progress.total = done, total
        judge.has_answered = done > 0  # refusals alone are not committed
        if done < total:
            facts.update(model.require_offered())

    judgements, num_asked = log.complete(
        lambda: ((c.key, c) for prompt in _by_prompt(responses) for c in _comparisons(*prompt)),
        judge_shard,
        ROUNDS_OF_SHARD * task.recipe.execution.server_concurrency,
        before,
        partial(task.reporter.waiting, "another run asks this judge"),
    )
    verdicts = _Verdicts(section.verdicts, judgements)

    def rewards() -> Iterator[GoldReward]:
        for dialogue, group in _by_prompt(responses):
            shares = win_shares([r.response for r in group], partial(verdicts.won, dialogue))
            for r, share in zip(group, shares, strict=True):
                yield GoldReward(**vars(r), gold_reward=share)
        facts.update(verdicts.facts())

    return Labels(rewards(), verdicts.account, Counter({"judgements": num_asked}), facts)


def _by_prompt(responses: Iterable[Response]) -> Iterator[tuple[str, list[Response]]]:
    """The responses of each prompt, under the text of its conversation."""
    for _, group in groupby(responses, key=lambda r: r.prompt_id):
        its_responses = list(group)
        yield dialogue_text(its_responses[0]), its_responses


def _comparisons(dialogue: str, group: list[Response]) -> Iterator[Comparison]:
    """Each two distinct texts, in both orders."""
    for first, second in permutations(dict.fromkeys(r.response for r in group), 2):
        yield Comparison(dialogue, first, second)


class _Verdicts:
    """Judgements as verdicts, and what they say of the judge."""

    def __init__(self, words: Sequence[str], judgements: Mapping[str, Judgement]) -> None:
        self._words, self._judgements = words, judgements
        self.account = Counter[str](judged_pairs=0, unreadable_judgements=0, refused_judgements=0, unreadable_pairs=0)
        self.account["orders_disagree"] = 0
        self._num_decided = self._num_first = 0

    def won(self, dialogue: str, one: str, other: str) -> float:
        """What `one` gets against `other`: 1, 0 or one half."""
        in_order, in_reverse = (
            self._read(Comparison(dialogue, one, other)),
            self._read(Comparison(dialogue, other, one)),
        )
        self.account["judged_pairs"] += 1
        if in_order is None or in_reverse is None:
            self.account["unreadable_pairs"] += 1
        else:
            self.account["orders_disagree"] += in_reverse != 1 - in_order
        return agreed(in_order, in_reverse)

    def _read(self, comparison: Comparison) -> float | None:
        judgement = self._judgements[comparison.key]
        verdict = read_verdict(judgement, self._words)
        self.account["unreadable_judgements"] += verdict is None
        self.account["refused_judgements"] += judgement.answer is None
        self._num_decided += verdict in (0.0, 1.0)
        self._num_first += verdict == 1.0
        return verdict

    def facts(self) -> dict[str, float]:
        """Shares of pairs whose two orders disagree, of unreadable answers, and of verdicts for the first response (one half is fair)."""
        of_pairs = self.account["judged_pairs"] - self.account["unreadable_pairs"]
        shares = {
            "share_orders_disagree": (self.account["orders_disagree"], of_pairs),
            "share_unreadable": (self.account["unreadable_judgements"], 2 * self.account["judged_pairs"]),
            "share_first_preferred": (self._num_first, self._num_decided),
        }
        return {name: round(part / whole, 4) for name, (part, whole) in shares.items() if whole}
