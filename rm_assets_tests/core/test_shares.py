"""Shares of the training prompts: which prompts, and what else of the recipe follows."""

from typing import Any

import pytest
from pydantic import ValidationError

from rm_assets.core.recipe import Recipe, TrainingSection
from rm_assets.core.shares import at_shares
from rm_assets.core.smoke import smoke_recipe
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.core.training_order import is_in_share


def recipe(shares: list[float] | None = None, **training: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "mine", "seed": 3, "prompts": {"source": {"kind": "generator", "num_prompts": 10}},
            "sampling": {"kind": "recorded", "source": {"kind": "files", "files": ["/a.jsonl"]}},
            "gold": {"kind": "verifier"},
            "training": {"base": {"path": "/base"}, "learning_rate": 1e-3, **training},
            "evaluation": {"learning_curve": {"shares": shares}} if shares else {},
        }
    )  # fmt: skip


def drawn(share: float, seed: int) -> str:
    return " ".join(f"p{n}" for n in range(10) if is_in_share(f"p{n}", share, seed=seed))


def test_a_share_is_of_the_prompts_whose_hash_lies_below_it() -> None:
    # SHA-256 of ["share of prompts",SEED,"pN"] in [0, 1). Seed 0: 0.195 0.920 0.947 0.172 0.167 0.624 0.272 0.126 0.964 0.619
    assert drawn(0.1, seed=0) == ""
    assert drawn(0.25, seed=0) == "p0 p3 p4 p7"
    assert drawn(0.5, seed=0) == "p0 p3 p4 p6 p7"  # the smaller share and more
    assert drawn(0.62, seed=0) == "p0 p3 p4 p6 p7 p9"
    assert drawn(0.25, seed=1) == "p5 p6 p7 p9"
    assert drawn(1, seed=0) == drawn(1, seed=1) == " ".join(f"p{n}" for n in range(10))


def test_a_share_is_trained_on_for_as_many_passes() -> None:
    mine = recipe([0.25, 0.5], num_epochs=3, max_optimizer_steps=10, validation={"every_steps": 6, "patience": 2})
    quarter, half = at_shares(mine).values()
    assert isinstance(quarter.training, TrainingSection) and isinstance(half.training, TrainingSection)
    assert [of.training.share_of_prompts for of in (quarter, half)] == [0.25, 0.5]
    assert [of.training.max_optimizer_steps for of in (quarter, half)] == [2, 5]
    assert [of.training.validation and of.training.validation.every_steps for of in (quarter, half)] == [2, 3]
    assert half.training.num_epochs == 3 and half.seed == 3
    assert [of.name for of in (quarter, half)] == ["mine (share 0.25)", "mine (share 0.5)"]
    same = {"share_of_prompts", "max_optimizer_steps", "validation"}
    assert half.training.model_dump(exclude=same) == mine.training.model_dump(exclude=same)


def test_a_step_is_always_left_and_without_limits_there_are_none() -> None:
    few = at_shares(recipe([0.001, 0.5], max_optimizer_steps=10))[0.001].training
    assert isinstance(few, TrainingSection) and few.max_optimizer_steps == 1
    free = at_shares(recipe([0.25, 0.5]))[0.5].training
    assert isinstance(free, TrainingSection) and free.max_optimizer_steps is None and free.validation is None


def test_a_share_of_a_share_lies_within_it() -> None:
    found = at_shares(recipe([0.25, 0.5], share_of_prompts=0.5))[0.5].training
    assert isinstance(found, TrainingSection) and found.share_of_prompts == 0.25


def test_only_the_evaluation_of_a_curve_reads_other_models() -> None:
    mine = recipe([0.25, 0.5])
    reads = STAGES["evaluation_report"].reads(mine)
    assert list(reads) == [
        "gold_rewards", "implicit_pairs", "reward_model", "reward_model at share 0.25", "reward_model at share 0.5",
    ]  # fmt: skip
    assert [asset_of(name) for name in reads][2:] == ["reward_model"] * 3
    assert list(STAGES["evaluation_report"].reads(recipe())) == ["gold_rewards", "implicit_pairs", "reward_model"]
    assert list(STAGES["hub_release"].reads(mine)) == ["reward_model", "evaluation_report"]


def test_a_smoke_run_takes_shares_that_are_not_empty() -> None:
    small = smoke_recipe(recipe([0.001, 0.002, 0.004], share_of_prompts=0.01))
    assert list(at_shares(small)) == [0.25, 0.5] and at_shares(smoke_recipe(recipe())) == {}
    assert isinstance(small.training, TrainingSection) and small.training.share_of_prompts == 1


@pytest.mark.parametrize("shares", [[0.5], [0.5, 0.25], [0.5, 0.5], [0.5, 1.0], [0.0, 0.5]])
def test_shares_rise_between_none_and_all(shares: list[float]) -> None:
    with pytest.raises(ValidationError, match=r"rise|at least 2 items|less than 1|greater than 0"):
        recipe(shares)


def test_a_curve_needs_a_training_of_all_pairs() -> None:
    with pytest.raises(ValidationError, match="set max_train_pairs to null"):
        recipe([0.25, 0.5], max_train_pairs=100)
    values = recipe([0.25, 0.5]).model_dump() | {"training": {"kind": "existing", "model": {"path": "/m"}}}
    with pytest.raises(ValidationError, match=r"existing trains nothing; remove learning_curve"):
        Recipe.model_validate(values)
