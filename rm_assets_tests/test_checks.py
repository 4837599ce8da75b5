"""Checks in a run of Dagster: the recipe decides what a fault of the data stops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rm_assets_tests.fakes import BOS_TEMPLATE, save_causal, save_classifier
from rm_assets_tests.tasks.conftest import TOY, Bench


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
    done = run(bench, {"enough_pairs": {"severity": "off"}})
    assert done.returncode == 0, done.stderr
    assert "warning: sampled_responses, responses_are_not_empty: 1 of 24 (4.2%) responses are empty" in done.stdout
    # Eight toy pairs, of which the longer is better; the empty response is far shorter than most.
    assert "30 of 33 checks passed" in done.stdout
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
    done = run(bench, {"responses_are_not_empty": {"severity": "off"}}, select="*reward_model", training=training)
    assert done.returncode == 0, done.stderr
    # Eight pairs in which the longer is better would be two warnings of a training.
    assert "enough_pairs" not in done.stdout and "length_does_not_decide" not in done.stdout
    assert "training_pairs_add_up" not in done.stdout and "evaluation_is_not_trained_on" not in done.stdout
    assert "reward_model" in made(bench)


def test_prompts_that_grew_since_the_version_before_are_a_warning(bench: Bench) -> None:
    short = [f"what is {n} and {n}" for n in range(100)]
    checks: dict[str, dict[str, object]] = {
        "prompt_lengths_are_usual": {"severity": "off"}
    }  # the few test prompts stay short
    for prompts in (short, [f"{prompt}, " + "and so on " * 20 for prompt in short]):
        bench.write("prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
        done = run(bench, checks, select="prompts")
        assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stdout.splitlines() if line.startswith("warning:")]
    assert warning.startswith("warning: prompts, prompts_have_not_drifted: prompt_")
    assert "prompt_chars: PSI" in warning and "KS 0.962, median 17 before and 219 now" in warning
    assert warning.endswith("(104 rows before, 104 now)")
    # With the first content again, the second is the version before.
    bench.write("prompts.jsonl", [{"prompt": prompt} for prompt in short])
    assert "median 219 before and 17 now" in run(bench, checks, select="prompts").stdout
