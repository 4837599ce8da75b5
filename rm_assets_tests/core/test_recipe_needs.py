"""What a recipe needs from outside is found in whichever section names it."""

from typing import Any

from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_needs import Needs, needs_of

JUDGE = {"kind": "judge", "base_url": "https://judge.test/v1", "model": "j", "revision": "1", "api_key_env": "J_KEY"}


def files(*names: str) -> dict[str, Any]:
    return {"kind": "files", "files": list(names)}


def needs(**changes: Any) -> Needs:
    plain = {
        "name": "mine",
        "prompts": {"source": files("p.jsonl")},
        "sampling": {"kind": "policy", "policy": {"path": "policy"}},
        "gold": {"kind": "verifier"},
        "training": {"base": {"path": "base"}, "learning_rate": 0.1},
    }
    return needs_of(Recipe.model_validate(plain | changes))


def test_a_recipe_of_local_files_needs_no_network() -> None:
    found = needs()
    assert list(found.models) == ["sampling.policy", "training.base"] and list(found.sources) == ["prompts.source"]
    assert not (found.servers or found.uses_hub or found.extras or found.logs_online or found.pushes_to)


def test_parts_of_mixtures_and_of_combined_gold_are_found() -> None:
    parts = [
        {"name": "a", "source": files("s3://b/a.jsonl")},
        {"name": "b", "source": {"kind": "tfds", "dataset": "x"}},
    ]
    scorers = [
        {"name": "model", "gold": {"kind": "classifier", "model": {"hub_id": "me/gold"}}},
        {"name": "judge", "gold": JUDGE},
        {"name": "old", "gold": {"kind": "recorded", "source": files("gs://b/g.csv"), "response_field": "r"}},
    ]
    found = needs(
        prompts={
            "source": {"kind": "mixture", "parts": parts},
            "decontaminate": [{"name": "d", "source": files("d.csv")}],
        },
        gold={"kind": "combined", "scorers": scorers},
    )
    assert list(found.models) == ["sampling.policy", "gold.model.model", "training.base"]
    assert list(found.sources) == [
        "prompts.source, a",
        "prompts.source, b",
        "prompts.decontaminate, d",
        "gold.old.source",
    ]
    assert found.servers["gold.judge"].api_key_env == "J_KEY"
    assert found.uses_hub and found.extras == {"s3", "gcs", "tfds"}


def test_a_push_and_a_dataset_need_the_hub_and_a_release_that_is_only_validated_does_not() -> None:
    assert needs(release={"hub_id": "me/model"}).uses_hub
    assert not needs(release={"hub_id": "me/model", "validate_only": True}).uses_hub
    assert needs(
        evaluation={"benchmarks": [{"kind": "reward_bench", "source": {"kind": "dataset", "dataset": "a/b"}}]}
    ).uses_hub
    assert needs(tracking={"wandb": {"mode": "online"}}).logs_online


def test_an_existing_model_is_needed_in_place_of_a_base() -> None:
    found = needs(training={"kind": "existing", "model": {"hub_id": "me/model"}})
    assert list(found.models) == ["sampling.policy", "training.model"]
