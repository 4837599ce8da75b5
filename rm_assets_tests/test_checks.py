"""Checks in a run of Dagster: the recipe decides what a fault of the data stops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rm_assets.core.data_checks import DATA_CHECKS
from rm_assets_tests.tasks.conftest import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Toy data of which one response is empty."""
    made = Bench(tmp_path)
    made.write_toy()
    answers = tmp_path / "recipes" / "answers.jsonl"
    answers.write_text(answers.read_text().replace('"bad bad"', '" "', 1))
    return made


def run(bench: Bench, checks: dict[str, dict[str, object]]) -> subprocess.CompletedProcess[str]:
    bench.recipe(checks=checks)
    environment = {
        **os.environ, "RM_ASSETS_RECIPES": str(bench.folder / "recipes"), "RM_ASSETS_HOME": str(bench.home),
        "DAGSTER_HOME": "", "COLUMNS": "200",
    }  # fmt: skip
    command = [sys.executable, "-m", "rm_assets.cli.main", "run", "toy", "--select", "*implicit_pairs"]
    return subprocess.run(command, env=environment, cwd=bench.folder, capture_output=True, text=True, check=False)


def made(bench: Bench) -> set[str]:
    return {Path(name).parts[0] for name in bench.manifests()}


def test_a_warning_is_printed_and_stops_nothing(bench: Bench) -> None:
    done = run(bench, {"enough_pairs": {"severity": "off"}})
    assert done.returncode == 0, done.stderr
    assert "warning: sampled_responses, responses_are_not_empty: 1 of 24 (4.2%) responses are empty" in done.stdout
    num_checks = len(DATA_CHECKS)
    assert (
        f"{num_checks - 2} of {num_checks} checks passed" in done.stdout
    )  # eight toy pairs of which the longer is better
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
