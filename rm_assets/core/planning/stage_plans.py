"""What each stage of a recipe makes, the tokens it reads or writes for that, and what these take of its model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rm_assets.core.planning.arithmetic import (
    BYTES,
    InferenceMemory,
    forward_flops,
    sampling_flops,
    sampling_memory,
    scoring_memory,
)
from rm_assets.core.planning.recipe_counts import (
    UNKNOWN,
    Count,
    Known,
    num_judgements,
    num_responses,
    pairs_by_split,
    responses_by_split,
    split_prompts,
    total,
)
from rm_assets.core.recipe import (
    ClassifierGold,
    GoldSection,
    HumanGold,
    JudgeGold,
    PolicySampling,
    Recipe,
    SamplingSettings,
    scorers_of,
)
from rm_assets.core.stages import STAGES

CACHED_TOKENS_PER_BUDGET = 4
"""Positions that the sampler's cache holds, in token budgets; a test holds it to the sampler's own number."""
SCORED = "responses scored by the reward model"
"""What the evaluation calls its work in its manifest."""


@dataclass(frozen=True)
class StagePlan:
    """One stage. `tokens` is None for a stage without a model, `flops` and `memory` also where its shape is unknown."""

    asset: str
    made: bool
    items: Count
    unit: str
    tokens: Count | None = None
    model: str | None = None
    flops: int | None = None
    memory: InferenceMemory | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "asset": self.asset, "made": self.made, "num_items": self.items.as_json(), "unit": self.unit,
            "num_tokens": self.tokens and self.tokens.as_json(), "model": self.model, "flops": self.flops,
            "memory_bytes": self.memory and self.memory.as_json(),
        }  # fmt: skip


def plan_stages(recipe: Recipe, known: Known, trained_pairs: Sequence[Count]) -> list[StagePlan]:
    """Every stage but the training, which has a plan of its own; one entry for each scorer of a combined gold.

    `trained_pairs` are those of each model that is evaluated: the recipe's, and those of its learning curve.
    """
    canaries = Count(recipe.evaluation.num_canaries, "at_most")
    return [
        StagePlan("prompts", "prompts" in known.made, total(split_prompts(recipe, known)), "prompts"),
        _sampling(recipe, known),
        *(_gold(recipe, known, name, scorer) for name, scorer in scorers_of(recipe.gold).items()),
        StagePlan("implicit_pairs", "implicit_pairs" in known.made, total(pairs_by_split(recipe, known)), "pairs"),
        _evaluation(recipe, known, trained_pairs),
        StagePlan("hub_release", "hub_release" in known.made, canaries, "canary rewards"),
    ]


def _sampling(recipe: Recipe, known: Known) -> StagePlan:
    """The model's work on new tokens; that on the prompts' tokens, whose number is not known, is not in it."""
    section, made = recipe.sampling, known.made.get("sampled_responses")
    responses = num_responses(recipe, known)
    if not isinstance(section, SamplingSettings):
        return StagePlan("sampled_responses", made is not None, responses, "responses, recorded")
    tokens = responses.times(section.max_new_tokens).at_most()
    if made and "mean_response_tokens" in made.facts:
        tokens = responses.times(made.facts["mean_response_tokens"])
    if not isinstance(section, PolicySampling):  # the model is on the server's device
        return StagePlan("sampled_responses", made is not None, responses, "responses, from a server", tokens)
    shape = known.shapes.get(section.policy.location)
    flops = memory = None
    if shape:
        budget = recipe.execution.forward_tokens("sampling", on_cpu="sample" in known.small_batches)
        memory = sampling_memory(
            shape, tokens_per_forward=budget, cached_tokens=CACHED_TOKENS_PER_BUDGET * budget,
            weight_bytes=BYTES[section.dtype],
        )  # fmt: skip
        if tokens.value is not None:
            flops = sampling_flops(shape, num_new_tokens=tokens.value, row_length=section.max_new_tokens)
    return StagePlan(
        "sampled_responses", made is not None, responses, "responses", tokens, section.policy.location, flops, memory
    )


def _gold(recipe: Recipe, known: Known, name: str, section: GoldSection) -> StagePlan:
    """One scorer, whose name is empty where it is alone."""
    return GOLD_PLANS[section.kind](recipe, known, name, section)


def _classifier(recipe: Recipe, known: Known, name: str, section: ClassifierGold) -> StagePlan:
    return _scored(
        recipe, known, "gold_rewards", num_responses(recipe, known), f"gold rewards{_of(name)}",
        model=section.model.location, max_length=section.max_length, weight_bytes=BYTES[section.dtype],
    )  # fmt: skip


def _judge(recipe: Recipe, known: Known, name: str, section: JudgeGold) -> StagePlan:
    """Its model is on its server; the tokens are those that it writes."""
    made = known.made.get("gold_rewards")
    num_pairs = made.counts.get(f"{name}_judged_pairs" if name else "judged_pairs") if made else None
    asked = num_judgements(recipe, known) if num_pairs is None else Count(2 * num_pairs, "made")
    tokens = asked.times(section.max_new_tokens).at_most()
    return StagePlan("gold_rewards", made is not None, asked, f"judgements{_of(name)}, from a server", tokens)


def _human(recipe: Recipe, known: Known, name: str, section: HumanGold) -> StagePlan:
    """People need not have ranked every prompt."""
    made = known.made.get("gold_rewards")
    ranked = Count(made.counts["gold_rewards"], "made") if made else num_responses(recipe, known).at_most()
    return StagePlan("gold_rewards", made is not None, ranked, f"gold rewards{_of(name)}, human")


def _without_model(recipe: Recipe, known: Known, name: str, section: GoldSection) -> StagePlan:
    unit = f"gold rewards{_of(name)}, {section.kind}"
    return StagePlan("gold_rewards", "gold_rewards" in known.made, num_responses(recipe, known), unit)


def _of(name: str) -> str:
    return f" of {name}" if name else ""


GOLD_PLANS: dict[str, Callable[[Recipe, Known, str, Any], StagePlan]] = {
    "classifier": _classifier,
    "judge": _judge,
    "human": _human,
    "verifier": _without_model,
    "recorded": _without_model,
    "preferences": _without_model,
}
"""By the kind of gold; the scorers of a combined one are planned each by itself."""


def _evaluation(recipe: Recipe, known: Known, trained_pairs: Sequence[Count]) -> StagePlan:
    """Test responses and both sides of some training pairs by each model; canaries and benchmarks by the recipe's; in float32."""
    settings = recipe.evaluation
    scored = Count(settings.num_canaries, "at_most")
    for pairs in trained_pairs:
        sides = pairs.capped(settings.max_train_pairs).times(2)
        scored = scored.plus(responses_by_split(recipe, known)["test"]).plus(sides)
    if settings.benchmarks:
        num = known.num_benchmark_responses
        scored = scored.plus(UNKNOWN if num is None else Count(num, "made"))
    made = known.made.get("evaluation_report")
    if made and SCORED in made.work:
        scored = Count(made.work[SCORED], "made")
    return _scored(
        recipe, known, "evaluation_report", scored, "rewards",
        model=recipe.training.base.location, max_length=recipe.training.max_length, weight_bytes=BYTES["float32"],
    )  # fmt: skip


def _scored(
    recipe: Recipe, known: Known, asset: str, items: Count, unit: str, *, model: str, max_length: int, weight_bytes: int
) -> StagePlan:
    tokens = items.times(max_length).at_most()
    shape = known.shapes.get(model)
    flops = memory = None
    if shape:
        memory = scoring_memory(
            shape,
            tokens_per_forward=max(
                recipe.execution.forward_tokens("scoring", on_cpu=STAGES[asset].task in known.small_batches), max_length
            ),
            weight_bytes=weight_bytes,
        )
        if tokens.value is not None:
            flops = forward_flops(shape, num_tokens=tokens.value, row_length=max_length)
    return StagePlan(asset, asset in known.made, items, unit, tokens, model, flops, memory)
