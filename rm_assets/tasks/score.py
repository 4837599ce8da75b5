"""gold_rewards: a label for each response, from a gold model, a judge, a verifier, people, a record, or several of these."""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

import numpy as np

from rm_assets.core.errors import DataError
from rm_assets.core.records import UNLABELLED, GoldReward, Response
from rm_assets.storage.tables import Table, write_table
from rm_assets.tasks.gold import combined, human, preferences
from rm_assets.tasks.gold.labels import Labeller
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.session import Product, Task, run_task

NUM_EXAMPLES = 8
DECIMALS = 9
"""Of a gold reward: sums of the same parts in another order are equal, for pairs as for the evaluation."""
LABELLERS: dict[str, Labeller] = {
    **combined.LABELLERS,
    "preferences": preferences.label,
    "human": human.label,
    "combined": combined.label,
}
"""By the kind of gold."""


def score(task: Task) -> Product:
    """Labels the responses, in the order of sampled_responses.

    Raises: DataError DATA_008 for a reward that is not finite, DATA_005 if no response has one.
    """
    responses = Table(task.input("sampled_responses", "responses.parquet"), Response)
    section, seen = task.recipe.gold, _Seen()
    labels = LABELLERS[section.kind](task, section, task.settings, responses)
    table = task.folder / "gold_rewards.parquet"
    num_rewards = write_table(table, GoldReward, seen.watched(labels.rewards, labels.account))
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


class _Seen:
    """What is said of the rewards, gathered as they pass."""

    def __init__(self) -> None:
        self.num_truncated = 0
        self._values = array("d")
        self._components: Counter[str] = Counter()

    def watched(self, rewards: Iterable[GoldReward], account: Mapping[str, int]) -> Iterator[GoldReward]:
        """The rewards, rounded; `account` says, once they have ended, why responses have none."""
        for r in rewards:
            if not math.isfinite(r.gold_reward):
                raise DataError(
                    "DATA_008",
                    f"response {r.response!r:.60} got the gold reward {r.gold_reward}",
                    fix="use another dtype for the gold model, or correct the label",
                )
            self.num_truncated += r.truncated
            rounded = replace(r, gold_reward=round(r.gold_reward, DECIMALS))
            self._values.append(rounded.gold_reward)
            self._components.update(r.components)
            yield rounded
        if not self._values:
            raise DataError(
                "DATA_005",
                "no response has a gold reward, so that no pair can be made",
                why=", ".join(f"{account[reason]} {reason}" for reason in UNLABELLED if account.get(reason)),
                fix="raise gold.max_length, or set gold.over_length to cut"
                if account.get("over_length")
                else "have responses labelled",
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
