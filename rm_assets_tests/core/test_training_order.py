"""Which pairs an optimizer step has, and what they weigh."""

import numpy as np
import pytest

from rm_assets.core.recipe import ModelRef, TrainingSection
from rm_assets.core.training_order import StepPairs, StepPlan, epoch_order, step_slice


def test_an_epoch_holds_every_pair_once_and_keeps_prompts_together() -> None:
    prompts = np.repeat(np.arange(5), [1, 3, 2, 6, 1])
    for epoch in range(3):
        order = epoch_order(prompts, seed=1, epoch=epoch, shuffle="prompts")
        assert sorted(order) == list(range(13))
        assert np.count_nonzero(np.diff(prompts[order])) == 4
    single = epoch_order(prompts, seed=1, epoch=0, shuffle="pairs")
    assert sorted(single) == list(range(13)) and np.count_nonzero(np.diff(prompts[single])) > 4
    assert list(epoch_order(prompts, seed=1, epoch=0, shuffle="pairs")) == list(single)
    assert list(epoch_order(prompts, seed=2, epoch=0, shuffle="pairs")) != list(single)


def test_the_last_step_of_an_epoch_has_the_pairs_that_are_left() -> None:
    plan = StepPlan(num_pairs=10, pairs_per_step=4, num_optimizer_steps=6, num_warmup_steps=0)
    assert [step_slice(plan, step) for step in range(4)] == [
        (0, slice(0, 4)), (0, slice(4, 8)), (0, slice(8, 10)), (1, slice(0, 4)),
    ]  # fmt: skip


@pytest.mark.parametrize(("weighting", "weights"), [("prompt", [1, 1 / 3, 1 / 2]), ("pair", [1, 1, 1])])
def test_the_pairs_of_a_prompt_weigh_as_much_as_its_one_pair(weighting: str, weights: list[float]) -> None:
    prompts, plan = np.repeat(np.arange(3), [1, 3, 2]), StepPlan(6, 4, 4, 0)
    settings = TrainingSection.model_validate(
        {"base": ModelRef(path="/base"), "learning_rate": 1e-3, "weighting": weighting}
    )
    pairs = StepPairs(prompts, plan, settings, seed=1)
    assert pairs.weights(np.array([0, 1, 5])).tolist() == pytest.approx(weights)
    steps = [pairs.of_step(step).tolist() for step in (0, 1, 2, 1)]
    assert sorted(steps[0] + steps[1]) == list(range(6)) and len(steps[1]) == 2
    assert (
        steps[3] == steps[1]
        and steps[2] == epoch_order(prompts, seed=1, epoch=1, shuffle=settings.shuffle)[:4].tolist()
    )
