"""`rm-assets outdated`: what it says of recipes that were never made, were changed, or are as they should be."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rm_assets.cli.outdated import find, show
from rm_assets.core.errors import RecipeError
from rm_assets.resources.known import find_known
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import TOY, Bench, files

DATA = ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    made.write_toy()
    save_causal(made.folder / "recipes" / "base")
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(made.folder / "recipes"))
    monkeypatch.setenv("RM_ASSETS_HOME", str(made.home))
    return made


def first(found: list[dict[str, Any]]) -> tuple[str, list[str]]:
    (each,) = found
    return each["assets"][0], each["why"]


def test_it_names_the_first_asset_and_what_has_changed(bench: Bench) -> None:
    bench.recipe()
    assert first(find(["toy"])) == ("prompts", ["prompts has not been made"])
    bench.make(bench.recipe(), *DATA)
    assert first(find(["toy"])) == ("reward_model", ["reward_model has not been made"])
    bench.recipe(pairs={"min_margin": 0.5}, training=TOY["training"] | {"learning_rate": 0.5})
    assert first(find(["toy"])) == ("implicit_pairs", ["implicit_pairs.min_margin: 0.5, was 0.0"])
    bench.make(bench.recipe(pairs={"min_margin": 0.5}), "implicit_pairs")
    answers = bench.folder / "recipes" / "answers.jsonl"
    answers.write_text(answers.read_text("utf-8").replace("bad bad", "bad  bad"), "utf-8")
    asset, why = first(find(["toy"]))
    assert asset == "sampled_responses" and why[0].startswith("sampled_responses.source.files")


def test_operations_are_those_of_what_is_not_made(bench: Bench) -> None:
    bench.recipe()
    (before,) = find(["toy"])
    bench.make(bench.recipe(), *DATA, "reward_model")
    (after,) = find(["toy"])
    assert before["operations_at_most"] > after["operations_at_most"] > 0


def test_a_plan_is_of_the_given_store_and_counts_the_answers_of_benchmarks(bench: Bench) -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "subset": "donotanswer"}] * 3
    bench.write("bench.jsonl", rows)
    recipe = bench.recipe(evaluation={"benchmarks": [{"kind": "reward_bench", "source": files("bench.jsonl")}]})
    bench.make(recipe, "prompts")
    known = find_known(recipe, None, [])
    assert "prompts" in known.made and known.num_benchmark_responses == 6
    assert find_known(recipe, None, [], Store(bench.folder / "another")).made == {}


def test_a_fault_of_one_recipe_hides_no_other(bench: Bench) -> None:
    bench.recipe()
    (bench.folder / "recipes" / "faulty.yaml").write_text("prompts: 3\n")
    found = {each["recipe"]: each for each in find(["toy", "faulty"])}
    assert found["faulty"]["error"]["code"] == "RECIPE_003" and found["toy"]["assets"]
    said = io.StringIO()
    show(list(found.values()), Console(file=said, width=200))
    assert (
        "cannot be told" in said.getvalue()
        and "Fix: " in said.getvalue()
        and "prompts to hub_release" in said.getvalue()
    )


def test_without_names_a_shipped_recipe_is_left_out_until_something_of_it_was_made(bench: Bench) -> None:
    bench.recipe()
    assert [each["recipe"] for each in find([])] == ["toy"]
    bench.make(recipe_book().load("embedded"), "prompts")
    assert [(each["recipe"], each["assets"][0]) for each in find([])] == [
        ("embedded", "sampled_responses"),
        ("toy", "prompts"),
    ]


def test_a_name_that_is_none_is_an_error(bench: Bench) -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'toy'"):
        find(["toy"])
