"""The rewards of an earlier release for the test responses of now, so that a new model is compared with it on the same pairs."""

from pathlib import Path
from typing import Any

from rm_assets.core.recipe import Recipe
from rm_assets.core.records import GoldReward, ProxyReward, prompt_messages, response_messages
from rm_assets.storage.store import Store
from rm_assets.storage.tables import read_table, write_table
from rm_assets.tasks.evaluate import proxy_reward
from rm_assets.tasks.session import LineReporter, run_process


def rescore(request: dict[str, Any], reporter: LineReporter) -> None:
    """Scores the test responses among the gold rewards of `request` with a release; one that cuts a prompt is left out."""
    from rm_assets.backends.torch.released import load_released

    recipe = Recipe.model_validate(request["recipe"])
    rows = [row for row in read_table(Path(request["gold_rewards"]), GoldReward) if row.split == "test"]
    with Store(Path(request["home"])).device(reporter.waiting):
        scorer = load_released(Path(request["release"]), recipe.execution, reporter)
        rows = [row for row in rows if scorer.has_room(prompt_messages(row))]
        scores = list(scorer.score([response_messages(row) for row in rows]))
    rewards = (proxy_reward(row, score.reward) for row, score in zip(rows, scores, strict=True))
    write_table(Path(request["rewards"]), ProxyReward, rewards)


if __name__ == "__main__":
    run_process(rescore)
