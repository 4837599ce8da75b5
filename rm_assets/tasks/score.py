"""gold_rewards: a label for each response, from a gold model, a judge, a verifier, people, a record, or several of these."""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import (
    ClassifierGold,
    CombinedGold,
    GoldSection,
    HumanGold,
    JudgeGold,
    PreferenceGold,
    VerifierGold,
)
from rm_assets.core.records import GoldReward, Response
from rm_assets.storage.tables import Table, write_table
from rm_assets.tasks.gold import classifier, combined, human, judge, preferences, recorded, verifier
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.session import Product, Task, run_task

NUM_EXAMPLES = 8


def score(task: Task) -> Product:
    """Labels the responses, in the order of sampled_responses.

    Raises: DataError DATA_008 for a reward that is not finite, DATA_005 if no response has one.
    """
    responses = Table(task.input("sampled_responses", "responses.parquet"), Response)
    labels, seen = _label(task, task.recipe.gold, task.settings, responses), _Seen()
    table = task.folder / "gold_rewards.parquet"
    num_rewards = write_table(table, GoldReward, seen.watched(labels.rewards))
    return Product(
        files=[table.name],
        counts={"gold_rewards": num_rewards, "truncated": seen.num_truncated, **labels.account},
        work=dict(labels.work),
        facts={**seen.facts(), **labels.facts},
        examples=[
            {"prompt": excerpt(r.prompt, 120), "response": excerpt(r.response), "gold_reward": f"{r.gold_reward:.3f}"}
            for r in islice(Table(table, GoldReward), NUM_EXAMPLES)
        ],
        columns=columns_of(GoldReward),
    )


def _label(task: Task, section: GoldSection, settings: Mapping[str, Any], responses: Iterable[Response]) -> Labels:
    """The labels of one kind of gold; `settings` are those of its section, by content."""
    if isinstance(section, CombinedGold):
        parts = zip(section.scorers, settings["scorers"], strict=True)
        labels = (_label(task, scorer.gold, part["gold"], responses) for scorer, part in parts)
        return combined.label(section, labels, responses)
    if isinstance(section, ClassifierGold):
        return classifier.label(task, section, settings, responses)
    if isinstance(section, JudgeGold):
        return judge.label(task, section, settings, responses)
    if isinstance(section, VerifierGold):
        return verifier.label(section, responses)
    if isinstance(section, PreferenceGold):
        return preferences.label(task, section, responses)
    if isinstance(section, HumanGold):
        return human.label(section, task.recipe.name, responses)
    return recorded.label(task, section, responses)


class _Seen:
    """What is said of the rewards, gathered as they pass."""

    def __init__(self) -> None:
        self.num_truncated = 0
        self._values = array("d")
        self._components: Counter[str] = Counter()

    def watched(self, rewards: Iterable[GoldReward]) -> Iterator[GoldReward]:
        """The rewards as they are."""
        for r in rewards:
            if not math.isfinite(r.gold_reward):
                raise DataError(
                    "DATA_008",
                    f"response {r.response!r:.60} got the gold reward {r.gold_reward}",
                    fix="use another dtype for the gold model, or correct the label",
                )
            self.num_truncated += r.truncated
            self._values.append(r.gold_reward)
            self._components.update(r.components)
            yield r
        if not self._values:
            raise DataError(
                "DATA_005",
                "no response has a gold reward, so that no pair can be made",
                why="all are too long for the gold model, and gold.over_length is 'drop'",
                fix="raise gold.max_length, or set gold.over_length to cut",
            )

    def facts(self) -> dict[str, float]:
        """Mean, standard deviation (of all, not of a sample) and bounds, and the mean of each component."""
        values = np.frombuffer(self._values)
        return {
            "gold_reward_mean": round(float(values.mean()), 4),
            "gold_reward_sd": round(float(values.std()), 4),
            "gold_reward_min": round(float(values.min()), 4),
            "gold_reward_max": round(float(values.max()), 4),
            **{f"mean_{name}": round(total / len(values), 4) for name, total in self._components.items()},
        }


if __name__ == "__main__":
    run_task(score)
