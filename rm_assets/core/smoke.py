"""The same recipe in a minute: a few prompts, ten optimizer steps. Shows that every part works, not that the model is good."""

from typing import Any

from rm_assets.core.recipe import GateSection, LearningCurve, Recipe, SamplingSettings, SplitFractions, TrainingSection

NUM_PROMPTS = 64
NUM_STEPS = 10
SHARES = (0.25, 0.5)
"""Of the training prompts, for a learning curve; smaller ones could be empty."""


def smoke_recipe(recipe: Recipe) -> Recipe:
    """`recipe` cut down. Its digests and name differ, so its results never stand in for the real ones or as their version before."""
    prompts: dict[str, Any] = {"max_prompts": min(NUM_PROMPTS, recipe.prompts.max_prompts or NUM_PROMPTS)}
    # Shares large enough that none of the three sides is empty among so few prompts.
    test = 0.3 if recipe.prompts.test is None else 0.0
    validation = 0.1 if recipe.prompts.split.validation or test else 0.0
    stratify = recipe.prompts.split.stratify
    prompts["split"] = SplitFractions(train=1 - validation - test, validation=validation, test=test, stratify=stratify)
    prompts["test_set_hash"] = None  # it pins all test prompts, and these are a few
    sampling = recipe.sampling
    if isinstance(sampling, SamplingSettings):
        sampling = sampling.model_copy(
            update={
                "num_responses": min(sampling.num_responses, 2),
                "num_test_responses": 2,
                "max_new_tokens": min(sampling.max_new_tokens, 64),
            }
        )
    training, evaluation = recipe.training, recipe.evaluation
    if evaluation.learning_curve is not None:
        evaluation = evaluation.model_copy(update={"learning_curve": LearningCurve(shares=list(SHARES))})
    if isinstance(training, TrainingSection):
        few = {"max_optimizer_steps": NUM_STEPS, "pairs_per_step": min(training.pairs_per_step, 4)}
        training = training.model_copy(update={**few, "share_of_prompts": 1.0})
    checks = {"enough_pairs": recipe.checks.enough_pairs.model_copy(update={"severity": "ignore"})}
    return recipe.model_copy(
        update={
            "name": f"{recipe.name} (smoke)",
            "prompts": recipe.prompts.model_copy(update=prompts),
            "sampling": sampling,
            "training": training,
            "evaluation": evaluation,
            "gate": GateSection.model_validate({name: {"severity": "ignore"} for name in GateSection.model_fields}),
            "checks": recipe.checks.model_copy(update=checks),
            "release": recipe.release.model_copy(update={"validate_only": True}),
        }
    )
