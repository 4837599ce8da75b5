"""Checks in a run of Dagster: the recipe decides what a fault of the data stops."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rm_assets.checks import data, inputs, recipe_check
from rm_assets.core.digests import prompt_id
from rm_assets.core.errors import RecipeError, TaskError
from rm_assets.core.gold.rankings import Entry, text_id
from rm_assets.core.recipe import Recipe
from rm_assets.core.smoke import smoke_recipe
from rm_assets.resources.compute import Compute
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.outdated import find_outdated
from rm_assets.storage.rankings import append_entry
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import BOS_TEMPLATE, save_causal, save_classifier
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, in_this_process


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Toy data of which one response is empty."""
    made = Bench(tmp_path)
    made.write_toy()
    answers = tmp_path / "recipes" / "answers.jsonl"
    answers.write_text(answers.read_text().replace('"bad bad"', '" "', 1))
    return made


def run(
    bench: Bench, checks: dict[str, dict[str, object]], select: str = "*implicit_pairs", **sections: object
) -> subprocess.CompletedProcess[str]:
    bench.recipe(checks=checks, **sections)
    environment = {
        **os.environ, "RM_ASSETS_RECIPES": str(bench.folder / "recipes"), "RM_ASSETS_HOME": str(bench.home),
        "DAGSTER_HOME": "", "COLUMNS": "200",
    }  # fmt: skip
    command = [sys.executable, "-m", "rm_assets.cli.main", "run", "toy", "--select", select]
    return subprocess.run(command, env=environment, cwd=bench.folder, capture_output=True, text=True, check=False)


def made(bench: Bench) -> set[str]:
    return {Path(name).parts[0] for name in bench.manifests()}


def test_a_warning_is_printed_and_stops_nothing(bench: Bench) -> None:
    done = run(bench, {"enough_pairs": {"severity": "ignore"}})
    assert done.returncode == 0, done.stderr
    said = "1 of 24 (4.2%) responses are empty (limit 0.01; checks.responses_are_not_empty)"
    assert f"warning: sampled_responses, responses_are_not_empty: {said}" in done.stdout
    # Eight toy pairs, of which the longer is better; the empty response is far shorter than most.
    assert "15 of 18 checks passed, 15 looked at nothing: " in done.stdout
    assert "there is no earlier version (4)" in done.stdout and "turned off by the recipe (1)" in done.stdout
    assert "implicit_pairs" in made(bench)


def test_an_error_keeps_what_depends_on_the_asset_from_being_made(bench: Bench) -> None:
    checks: dict[str, dict[str, object]] = {"responses_are_not_empty": {"severity": "error"}}
    done = run(bench, checks)
    assert done.returncode == 1
    assert "error: sampled_responses, responses_are_not_empty: 1 of 24" in done.stdout
    assert made(bench) == {"prompts", "sampled_responses"}
    # The limit belongs to no digest: once it is raised, what was made stays and the rest follows.
    before = bench.manifests()
    assert run(bench, {"responses_are_not_empty": {"severity": "error", "limit": 0.1}}).returncode == 0
    assert before.items() <= bench.manifests().items() and "implicit_pairs" in made(bench)


def test_a_base_that_would_read_the_start_token_twice_is_named_before_anything_is_trained(bench: Bench) -> None:
    save_causal(bench.folder / "recipes" / "base", "llama")
    training = {**TOY["training"], "base": {"path": "base", "chat_template": "{{- bos_token -}}" + BOS_TEMPLATE}}
    done = run(bench, {}, select="*reward_model", training=training)
    assert done.returncode == 1
    said = "error: implicit_pairs, one_start_token: of 24 conversations 24 with 2 start tokens (<|bos|>), one is right; give training.base a chat_template that writes it once"
    assert said in done.stdout
    assert done.stdout.count("error: implicit_pairs") == 1
    assert made(bench) == {"prompts", "sampled_responses", "gold_rewards", "implicit_pairs"}


@pytest.mark.slow
def test_checks_of_a_training_that_is_not_known_pass_and_say_so(bench: Bench) -> None:
    save_classifier(bench.folder / "recipes" / "rm")
    training = {"kind": "existing", "model": {"path": "rm"}, "max_length": 60}
    done = run(bench, {"responses_are_not_empty": {"severity": "ignore"}}, select="*reward_model", training=training)
    assert done.returncode == 0, done.stderr
    # Eight pairs in which the longer is better would be two warnings of a training.
    assert "enough_pairs" not in done.stdout and "length_does_not_decide" not in done.stdout
    assert "training_pairs_add_up" not in done.stdout and "evaluation_is_not_trained_on" not in done.stdout
    assert "reward_model" in made(bench)


@pytest.mark.slow
def test_prompts_that_grew_since_the_version_before_are_a_warning(bench: Bench) -> None:
    short = [f"what is {n} and {n}" for n in range(100)]
    checks: dict[str, dict[str, object]] = {
        "prompt_lengths_are_usual": {"severity": "ignore"}
    }  # the few test prompts stay short
    for prompts in (short, [f"{prompt}, " + "and so on " * 20 for prompt in short]):
        bench.write("prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
        done = run(bench, checks, select="prompts")
        assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stdout.splitlines() if line.startswith("warning:")]
    begins = (
        "warning: prompts, prompts_have_not_drifted: prompt lengths in characters are distributed otherwise than before"
    )
    assert warning.startswith(begins) and "KS 0.962, limit" in warning
    assert "104 rows): median 17 then, 219 now" in warning
    # With the first content again, the second is the version before.
    bench.write("prompts.jsonl", [{"prompt": prompt} for prompt in short])
    assert "median 219 then, 17 now" in run(bench, checks, select="prompts").stdout


def in_dagster(
    bench: Bench, patch: pytest.MonkeyPatch, recipe: Recipe, *assets: str
) -> tuple[dg.ExecuteInProcessResult, dict[str, dg.AssetCheckEvaluation]]:
    """Makes assets and their checks in this process, with tasks too, and gives what the checks said."""
    from rm_assets.definitions import defs

    in_this_process(patch)
    patch.setattr(Compute, "recipe", lambda *_: recipe)
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("build_reward_model").execute_in_process(
            run_config={"resources": {"compute": {"config": {"home": str(bench.home)}}}},
            instance=instance,
            partition_key="embedded",
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            raise_on_error=False,
        )
    return result, {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_a_ranking_that_arrives_while_gold_is_checked_changes_nothing_that_is_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = bench.recipe(gold={"kind": "human", "rankings": "ranked.jsonl", "pending": "drop"})
    rankings = Path(recipe.gold.rankings)  # type: ignore[union-attr]

    def rank(number: int) -> None:
        prompt = f"what is {number} and 1"
        of_prompt, texts = prompt_id(prompt, None), (f"good {prompt[:9]}", "bad bad")
        ranking = tuple((text_id(of_prompt, text),) for text in texts)
        append_entry(rankings, Entry(prompt_id=of_prompt, action="rank", ranking=ranking, annotator=None, at="t"))

    rank(1)
    arrived = iter(range(2, 8))
    looked_at = recipe_check.check_result

    def looks(*found: Any) -> dg.AssetCheckResult:
        if list(bench.home.glob("gold_rewards/*/manifest.json")):
            rank(next(arrived, 7))
        return looked_at(*found)

    monkeypatch.setattr(data, "check_result", looks)
    result, said = in_dagster(bench, monkeypatch, recipe, "prompts", "sampled_responses", "gold_rewards")
    assert result.success and len(list(bench.home.glob("gold_rewards/*/manifest.json"))) == 1
    rows = said["rewards_follow_responses"]
    assert rows.passed and str(rows.description).startswith("2 rewards, 0 out of place")


def test_what_a_check_refused_is_not_built_on_when_something_else_has_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_causal(bench.folder / "recipes" / "base")
    checks = {"enough_pairs": {"severity": "error", "limit": 1000}}
    recipe = bench.recipe(checks=checks)
    assert not in_dagster(bench, monkeypatch, recipe, *ASSETS[:5])[0].success
    recipe = bench.recipe(checks=checks, training={**TOY["training"], "num_epochs": 1})
    outdated = find_outdated(Store(bench.home), recipe, Fingerprints(bench.home / "fingerprints").of)
    assert outdated is not None and outdated.assets[0] == "reward_model"
    result, said = in_dagster(bench, monkeypatch, recipe, *outdated.to_run)
    assert not result.success and not said["enough_pairs"].passed and "reward_model" not in made(bench)


def test_an_error_in_a_check_reaches_the_user_with_its_code_and_fix(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_causal(bench.folder / "recipes" / "base")
    error = TaskError("TASK_003", "it was ended", why="it was late", fix="give it time")

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(inputs, "examination", fails)
    monkeypatch.setattr(data, "earlier", fails)
    recipe = bench.recipe()
    for assets, check in (
        (("prompts",), "check prompts_have_not_drifted"),
        (ASSETS[:4], "the checks of what the model reads"),
    ):
        result, _ = in_dagster(bench, monkeypatch, recipe, *assets)
        said = [e.step_failure_data.user_failure_data for e in result.filter_events(lambda e: e.is_step_failure)]
        assert [failure.description for failure in said if failure] == [f"{check} of recipe 'embedded': {error}"]
        monkeypatch.setattr(data, "earlier", lambda *_: None)


def test_a_limit_of_a_share_is_no_percentage(bench: Bench) -> None:
    with pytest.raises(RecipeError, match=r"(?s)checks\.ties_are_few\.limit.*less than or equal to 1"):
        bench.recipe(checks={"ties_are_few": {"limit": 30}})
    assert bench.recipe(checks={"enough_pairs": {"limit": 30}}).checks.enough_pairs.limit == 30


def test_a_smoke_run_is_not_blamed_for_being_small(bench: Bench) -> None:
    assert smoke_recipe(bench.recipe()).checks.enough_pairs.severity == "ignore"
