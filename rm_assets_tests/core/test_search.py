"""The space of a search, the recipe of a trial, the tenths at which trials are compared, and which one is best."""

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import Recipe, SearchSection
from rm_assets.core.recipe_files import RecipeBook, json_schema
from rm_assets.core.search import (
    Trial,
    best_recipe_text,
    best_trial,
    longest_trials,
    num_ties,
    own_settings,
    tenths_seen,
    trial_recipe,
)


def recipe(folder: Path, search: Any, **training: Any) -> Recipe:
    """The embedded recipe with a search."""
    text = yaml.safe_dump({"extends": "embedded", "training": training, "search": search})
    (folder / "r.yaml").write_text(text)
    return RecipeBook(folder, {}).load("r")


def trial(number: int, value: float | None = None, state: Any = "complete", **about: Any) -> Trial:
    return Trial(number=number, state=state, settings={"num_epochs": number}, value=value, **about)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"learning_rte": [0.1, 0.2]}, r"search\.space: 'learning_rte' is no key.*did you mean 'learning_rate'"),
        ({"learning_rate": [0.1, 7]}, r"search\.space\.learning_rate: the training refuses 7: .*less than 1; take it out"),
        ({"learning_rate": {"low": 0.5, "high": 2}}, r"search\.space\.learning_rate: the training refuses 2"),
        ({"learning_rate": {"low": 0.1, "hi": 0.2}}, r"unknown key; did you mean 'high'"),
        ({"learning_rate": {"low": 0.2, "high": 0.1}}, r"'low' must be below 'high'"),
        ({"weight_decay": {"low": 0, "high": 0.1, "log": True}}, r"with 'log', 'low' must be above 0"),
        ({"learning_rate": 0.1}, r"learning_rate: 0\.1: write a list of choices, or \{low"),
        ({"num_epochs": [1]}, r"at least 2 items"),
        ({"num_epochs": [1, 1]}, r"'num_epochs' has a choice twice"),
        ({"schedule": [datetime.date(2026, 1, 1), "linear"]}, r"search\.space\.schedule: the training refuses datetime"),
        ({"pairs_per_step": {"low": 1.5, "high": 4}}, r"'pairs_per_step' takes whole numbers"),
        ({"schedule": {"low": 1, "high": 4}}, r"'schedule' takes no number"),
        ({"lora": [None, {"rnk": 4}]}, r"search\.space\.lora: the training refuses \{'rnk': 4\}: training\.lora\.rnk"),
        ({"max_length": [64, 128]}, r"'max_length' cannot be searched: it decides which validation pairs are counted"),
        ({}, r"search\.space: .*at least 1"),
    ],
)  # fmt: skip
def test_a_space_that_the_training_refuses_names_key_reason_and_fix(
    tmp_path: Path, space: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        recipe(tmp_path, {"space": space})
    assert caught.value.code == "RECIPE_003"


def test_a_search_needs_a_share_of_validation_and_a_training(tmp_path: Path) -> None:
    search = {"space": {"num_epochs": [1, 2]}}
    changes = {"prompts": {"split": {"train": 0.5, "validation": 0.0, "test": 0.5}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"extends": "embedded", "search": search, **changes}))
    with pytest.raises(RecipeError, match=r"give prompts\.split\.validation a share"):
        RecipeBook(tmp_path, {}).load("r")
    existing = {"kind": "existing", "model": {"hub_id": "a/b"}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"extends": "embedded", "search": search, "training": existing}))
    with pytest.raises(RecipeError, match=r"training\.kind is existing, so nothing is trained"):
        RecipeBook(tmp_path, {}).load("r")


def test_both_forms_of_a_setting_are_in_the_schema_of_a_recipe_file() -> None:
    import jsonschema

    def check(space: Any) -> None:
        jsonschema.validate({"search": {"space": space}}, json_schema())

    check({"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "num_epochs": [1, 2]})
    with pytest.raises(jsonschema.ValidationError):
        check({"num_epochs": 3})


def test_the_number_of_settings_is_counted() -> None:
    section = SearchSection(space={"pairs_per_step": {"low": 8, "high": 10}, "schedule": ["linear", "cosine"]})
    assert section.num_settings == 6  # 8, 9, 10 with each of two schedules
    assert SearchSection(space={"learning_rate": {"low": 0.1, "high": 0.2}}).num_settings == float("inf")


def test_a_trial_is_the_recipe_with_other_settings_and_another_name(tmp_path: Path) -> None:
    searched = recipe(tmp_path, {"space": {"objective": [{"kind": "bradley_terry"}, {"kind": "regression"}]}})
    made = trial_recipe(searched, 3, {"objective": {"kind": "bradley_terry", "margin_scale": 2}})
    assert made.name == "r (trial 3)" and made.search is None
    assert made.training.objective.margin_scale == 2  # type: ignore[union-attr]
    assert made.model_copy(
        update={"name": "r", "search": searched.search, "training": searched.training}
    ) == searched  # fmt: skip


def test_settings_that_do_not_go_together_fail_one_trial(tmp_path: Path) -> None:
    searched = recipe(
        tmp_path, {"space": {"engine": ["native", "trl"], "weighting": ["pair", "prompt"]}}, objective={"kind": "bradley_terry"}
    )  # fmt: skip
    assert trial_recipe(searched, 0, {"engine": "trl", "weighting": "pair"}).training.engine == "trl"  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match=r"trial 1 of 'r': .*set weighting to pair") as caught:
        trial_recipe(searched, 1, {"engine": "trl", "weighting": "prompt"})
    assert caught.value.code == "RECIPE_003"


def test_the_recipes_own_settings_are_found_in_the_space_or_not(tmp_path: Path) -> None:
    space = {"learning_rate": {"low": 1e-4, "high": 1e-3}, "lora": [None, {"rank": 4}]}
    assert own_settings(*_searched(tmp_path, space)) == {"learning_rate": 3e-4, "lora": None}
    full = {"rank": 4, "alpha": 32, "target_modules": None}
    # The space writes the same setting with fewer words.
    assert own_settings(*_searched(tmp_path, space, lora=full)) == {"learning_rate": 3e-4, "lora": {"rank": 4}}
    assert own_settings(*_searched(tmp_path, space, learning_rate=0.01)) is None
    assert own_settings(*_searched(tmp_path, space, lora={"rank": 8})) is None


def _searched(folder: Path, space: Any, **training: Any) -> tuple[Recipe, SearchSection]:
    made = recipe(folder, {"space": space}, **training)
    assert made.search is not None
    return made, made.search


def test_the_longest_trial_has_every_end_of_what_decides_the_steps(tmp_path: Path) -> None:
    searched, section = _searched(
        tmp_path, {"num_epochs": {"low": 1, "high": 3}, "pairs_per_step": [8, 16], "learning_rate": [0.1, 0.2]}
    )
    ends = {(r.training.num_epochs, r.training.pairs_per_step) for r in longest_trials(searched, section)}  # type: ignore[union-attr]
    assert ends == {(1.0, 8), (1.0, 16), (3.0, 8), (3.0, 16)}


def test_trials_are_compared_at_the_first_look_in_each_tenth_but_the_last() -> None:
    steps = [{"step": n, **({"validation_accuracy": n / 100} if n % 5 == 0 else {})} for n in range(1, 41)]
    # 5 of 40 is in tenth 1, 10 in 2, 15 in 3, 20 in 5, 25 in 6, 30 in 7, 35 in 8, 40 is the end.
    assert list(tenths_seen(steps, 40)) == [(1, 0.05), (2, 0.1), (3, 0.15), (5, 0.2), (6, 0.25), (7, 0.3), (8, 0.35)]
    looks = [{"step": n, "validation_accuracy": n / 100} for n in range(1, 41)]
    assert list(tenths_seen(looks, 40))[:3] == [(0, 0.01), (1, 0.04), (2, 0.08)]


def test_of_equal_values_the_fewest_tokens_are_best_then_the_first() -> None:
    trials = [
        trial(0, 0.8, num_tokens=9), trial(1, 0.9, num_tokens=7), trial(2, 0.9, num_tokens=5), trial(3, 0.9, num_tokens=5),
        trial(4, 0.99, "pruned"), trial(5, None, "failed", error="MODEL_008"),
    ]  # fmt: skip
    best = best_trial(trials)
    assert best == trials[2] and num_ties(trials, best) == 2
    assert best_trial(trials[4:]) is None


def test_the_best_recipe_trains_exactly_what_the_trial_trained(tmp_path: Path) -> None:
    """Also where the recipe that it extends says more of the same objective than the choice does."""
    space = {"objective": [{"kind": "bradley_terry"}, {"kind": "regression"}], "lora": [None, {"rank": 4}]}
    searched = recipe(
        tmp_path, {"space": space}, objective={"kind": "bradley_terry", "margin_scale": 2}, lora={"rank": 4, "alpha": 7}
    )
    best = Trial(
        number=3, state="complete", settings={"objective": {"kind": "bradley_terry"}, "lora": {"rank": 4}}, value=0.75
    )
    text = best_recipe_text(searched, best, study="abc", num_trials=9, num_pairs=1_200)
    (tmp_path / "r-best.yaml").write_text(text)
    loaded = RecipeBook(tmp_path, {}).load("r-best")
    assert loaded.training == trial_recipe(searched, 3, best.settings).training
    assert loaded.training.objective.margin_scale == 0 and loaded.training.lora.alpha == 32  # type: ignore[union-attr]
    assert "trial 3 of 9, study abc" in text and "1,200 validation pairs 0.7500" in text


def test_the_best_of_one_seed_is_a_recipe_with_all_seeds(tmp_path: Path) -> None:
    text = yaml.safe_dump({"extends": "embedded", "seeds": [1, 2], "search": {"space": {"num_epochs": [1, 2]}}})
    (tmp_path / "r.yaml").write_text(text)
    best = Trial(number=0, state="complete", settings={"num_epochs": 1}, value=0.5)
    book = RecipeBook(tmp_path, {})
    written = best_recipe_text(book.load("r@1"), best, study="abc", num_trials=1, num_pairs=2)
    (tmp_path / "r-best.yaml").write_text(written)
    book = RecipeBook(tmp_path, {})
    assert [book.load(f"r-best@{seed}").training.num_epochs for seed in (1, 2)] == [1, 1]  # type: ignore[union-attr]
