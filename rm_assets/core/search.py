"""Search over settings of the training: the recipe of a trial, its figures while it trains, the best one and its recipe file."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

import yaml

from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import Recipe, SearchRange, SearchSection, TrainingSection
from rm_assets.core.recipe.search import with_settings

COUNT_OF_STEPS = ("num_epochs", "max_optimizer_steps", "pairs_per_step", "max_train_pairs", "lora")
"""Fields of the training that decide how many steps it has and how many operations one takes."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial. `value` is the accuracy on validation pairs, of a pruned one the last that was seen.

    `tenths` of the training were done when the last figure came; `num_tokens` were computed; `was_there` says that the
    model had been made before. `error` is the code of what a failed one failed with.
    """

    number: int
    state: Literal["complete", "pruned", "failed", "running"]
    settings: dict[str, Any]
    value: float | None = None
    seconds: float | None = None
    num_tokens: int | None = None
    digest: str | None = None
    was_there: bool = False
    tenths: int | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def trial_recipe(recipe: Recipe, number: int, settings: Mapping[str, Any]) -> Recipe:
    """`recipe` with these settings, under a name of its own. Raises: RecipeError RECIPE_003 if they do not go together."""
    try:
        training = with_settings(_training(recipe), settings)
    except ValueError as error:
        raise RecipeError(
            "RECIPE_003",
            f"trial {number} of '{recipe.name}': settings that do not go together: {error}",
            fix="nothing has to be done, the search goes on; take one of the two out of search.space to save the trial",
        ) from None
    changes = {"name": f"{recipe.name} (trial {number})", "training": training, "search": None}
    return recipe.model_copy(update=changes)


def own_settings(recipe: Recipe, search: SearchSection) -> dict[str, Any] | None:
    """What the recipe itself sets, as the space writes it; None where that lies outside of the space."""
    training, found = _training(recipe), dict[str, Any]()
    for name, dimension in search.space.items():
        value = getattr(training, name)
        if isinstance(dimension, SearchRange):
            inside = [value] if value is not None and dimension.low <= value <= dimension.high else []
        else:
            inside = [choice for choice in dimension if with_settings(training, {name: choice}) == training]
        if not inside:
            return None
        found[name] = inside[0]
    return found


def longest_trials(recipe: Recipe, search: SearchSection) -> Iterator[Recipe]:
    """Recipes of which one takes as many optimizer steps, and one as many operations, as any trial may."""
    sides = {
        name: [dimension.low, dimension.high] if isinstance(dimension, SearchRange) else dimension
        for name, dimension in search.space.items()
        if name in COUNT_OF_STEPS
    }
    for values in product(*sides.values()):
        yield trial_recipe(recipe, 0, dict(zip(sides, values, strict=True)))


def tenths_seen(steps: Sequence[Mapping[str, Any]], num_steps: int) -> Iterator[tuple[int, float]]:
    """The first validation accuracy in each tenth of a training, from the steps of its metrics log: (tenth, accuracy).

    Trials are compared at the same tenth, where their learning rates are at the same place of the schedule, however many
    steps they have. The end is left out: the trained model's own figure takes its place.
    """
    seen: set[int] = set()
    for step in steps:
        tenth = 10 * step["step"] // num_steps
        if "validation_accuracy" in step and tenth < 10 and tenth not in seen:
            seen.add(tenth)
            yield tenth, step["validation_accuracy"]


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The highest value; of several with the same, the one that computed the fewest tokens, then the first."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return min(complete, key=lambda t: (-_value(t), t.num_tokens or 0, t.number), default=None)


def num_ties(trials: Iterable[Trial], best: Trial) -> int:
    """How many other complete trials have the best one's value."""
    return sum(t.state == "complete" and t.value == best.value and t != best for t in trials)


def best_recipe_text(recipe: Recipe, best: Trial, *, study: str, num_trials: int, num_pairs: int) -> str:
    """The recipe file of the best trial: what it sets in place of the recipe's own, whole, and where that comes from."""
    training = _training(trial_recipe(recipe, best.number, best.settings)).model_dump(mode="json")
    overrides = {name: training[name] for name in best.settings}
    comment = (
        f"# Written by `rm-assets search {recipe.name}`: trial {best.number} of {num_trials}, study {study}.\n"
        f"# Accuracy on {num_pairs:,} validation pairs {_value(best):.4f}; it was chosen for that, so only test pairs tell how good it is.\n"
    )
    name = recipe.name.partition("@")[0]
    body = {"extends": name, "description": f"{name} with the best settings of its search.", "training": overrides}
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    return comment + text


def _value(trial: Trial) -> float:
    return -math.inf if trial.value is None else trial.value


def _training(recipe: Recipe) -> TrainingSection:
    assert isinstance(recipe.training, TrainingSection), "a recipe with a search trains"
    return recipe.training
