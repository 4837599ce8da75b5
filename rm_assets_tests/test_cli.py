"""The rm-assets command, as a user would type it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from rm_assets import __version__
from rm_assets.cli.run import build
from rm_assets.core.errors import RecipeError

COMMAND = [str(Path(sys.executable).parent / "rm-assets")]
MINE = """
extends: embedded
prompts: {source: {kind: files, files: [prompts.csv]}, reference_field: reference, split: {train: 0.5, validation: 0, test: 0.5}}
sampling:
  kind: recorded
  source: {kind: files, files: [responses.jsonl]}
"""


def rm_assets(*arguments: str, home: Path, recipes: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("DAGSTER_HOME", "RM_ASSETS_RECIPES")}
    environment |= {"RM_ASSETS_HOME": str(home), "COLUMNS": "200"} | (
        {"RM_ASSETS_RECIPES": str(recipes)} if recipes else {}
    )
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=environment, cwd=home, check=False
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A recipe folder with 40 prompts, which look like markup, and two recorded answers each, one right and one wrong."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    rows = [(f"[INST]What is {i} plus 1?[/INST]", f"#### {i + 1}") for i in range(40)]
    (folder / "prompts.csv").write_text("prompt,reference\n" + "".join(f"{p},{r}\n" for p, r in rows))
    answers = [{"prompt": p, "response": text} for p, r in rows for text in (r, "#### 99")]
    (folder / "responses.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
    (folder / "mine.yaml").write_text(MINE)
    return folder


def test_version_is_the_packages(tmp_path: Path) -> None:
    assert rm_assets("version", home=tmp_path).stdout.strip() == __version__


def test_a_misspelt_recipe_gets_a_suggestion_and_exit_status_1(tmp_path: Path) -> None:
    result = rm_assets("run", "embeded", home=tmp_path)
    assert result.returncode == 1
    assert "[RECIPE_001]" in result.stderr and "did you mean 'embedded'?" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_typo_in_a_recipe_names_file_key_value_and_fix(tmp_path: Path, recorded: Path) -> None:
    (recorded / "mine.yaml").write_text(MINE + "training: {learning_rat: 0.1}\n")
    result = rm_assets("recipes", "validate", "mine", home=tmp_path, recipes=recorded)
    assert result.returncode == 1
    for part in (str(recorded / "mine.yaml"), "training.learning_rat", "0.1", "did you mean 'learning_rate'?"):
        assert part in result.stdout


def test_a_folder_of_recipes_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for command in (["recipes", "list"], ["plan", "embedded"], ["run", "embedded"]):
        result = rm_assets(*command, home=tmp_path, recipes=tmp_path / "absent")
        assert result.returncode == 1
        assert result.stderr.startswith("error: [RECIPE_001]") and "correct RM_ASSETS_RECIPES" in result.stderr
    assert rm_assets("version", home=tmp_path, recipes=tmp_path / "absent").returncode == 0


def test_recipes_list_show_and_schema(tmp_path: Path, recorded: Path) -> None:
    listed = rm_assets("recipes", "list", home=tmp_path, recipes=recorded).stdout
    assert "mine" in listed and "'rm-assets[gcs]'" in listed
    shown = yaml.safe_load(rm_assets("recipes", "show", "mine", home=tmp_path, recipes=recorded).stdout)
    assert shown["prompts"]["split"]["test"] == 0.5
    schema = json.loads(rm_assets("recipes", "schema", home=tmp_path).stdout)
    jsonschema.validate(yaml.safe_load(MINE), schema)


@pytest.mark.parametrize(
    ("selection", "why"),
    [("promts", "did you mean 'prompts'?"), ("*gold_reward", "did you mean 'gold_rewards'?"), ("prompts,", "Dagster")],
)
def test_a_selection_of_nothing_names_what_is_near(
    tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch, selection: str, why: str
) -> None:
    for name, value in (("HOME", tmp_path), ("RECIPES", recorded)):
        monkeypatch.setenv(f"RM_ASSETS_{name}", str(value))
    with pytest.raises(RecipeError, match=f"{re.escape(repr(selection))} selects nothing") as caught:
        build("mine", select=selection, smoke=True, log_level="WARNING")
    assert caught.value.code == "RECIPE_003" and why in caught.value.why


def test_a_part_of_the_graph_runs_shows_and_is_not_made_twice(tmp_path: Path, recorded: Path) -> None:
    first = rm_assets("run", "mine", "--select", "*implicit_pairs", home=tmp_path, recipes=recorded)
    assert first.returncode == 0, first.stderr
    assert "40 pairs made" in first.stdout
    again = rm_assets("run", "mine", "--select", "*implicit_pairs", home=tmp_path, recipes=recorded)
    assert again.returncode == 0
    assert "0 pairs made" in again.stdout and "task pair starts" not in again.stderr
    shown = rm_assets("show", "implicit_pairs", "--recipe", "mine", "--json", home=tmp_path, recipes=recorded)
    assert json.loads(shown.stdout)["counts"]["pairs"] == 40
    shown = rm_assets("show", "implicit_pairs", "--recipe", "mine", home=tmp_path, recipes=recorded)
    assert "plus 1?[/INST]" in shown.stdout and str(tmp_path / "implicit_pairs") in shown.stdout
    pair = re.search(r"pair_id (\w+)", shown.stdout)
    assert pair is not None
    traced = rm_assets("trace", "--pair", pair[1], "--recipe", "mine", home=tmp_path, recipes=recorded)
    assert "plus 1?[/INST]" in traced.stdout
    every = rm_assets("stats", "mine", "--json", home=tmp_path, recipes=recorded)
    assert [stats["all"]["n"] for stats in json.loads(every.stdout)] == [40, 80, 80, 40]
    gold = rm_assets("stats", "mine", "gold_rewards", home=tmp_path, recipes=recorded)
    assert gold.stdout.startswith("gold_rewards\n") and "tie rate" in gold.stdout


def test_releases_of_a_recipe_that_has_none_are_told_so(tmp_path: Path) -> None:
    assert rm_assets("release", "list", "mine", home=tmp_path).stdout.startswith("No release of 'mine' is in the store")


def test_machines_in_use_are_an_option_of_delete_alone(tmp_path: Path) -> None:
    result = rm_assets("machines", "--in-use", home=tmp_path)
    assert result.returncode == 2 and "belongs to --delete" in result.stderr


def test_statistics_of_what_is_not_made_or_no_table_are_store_002(tmp_path: Path) -> None:
    for arguments, said in (
        (("embedded",), "prompts of recipe 'embedded' has not been made"),
        (("embedded", "reward_model"), "'reward_model' has no statistics"),
    ):
        result = rm_assets("stats", *arguments, home=tmp_path)
        assert result.returncode == 1 and "[STORE_002]" in result.stderr and said in result.stderr


def test_what_was_not_made_is_not_shown(tmp_path: Path) -> None:
    result = rm_assets("show", "evaluation_report", "--recipe", "embedded", home=tmp_path)
    assert result.returncode == 1
    assert "[STORE_002]" in result.stderr and "rm-assets run embedded" in result.stderr


def test_a_fault_in_the_data_is_one_message_and_exit_status_1(tmp_path: Path, recorded: Path) -> None:
    (recorded / "responses.jsonl").write_text('{"prompt": "What is 0 plus 1?", "response": "1"\n')
    result = rm_assets("run", "mine", home=tmp_path, recipes=recorded)
    assert result.returncode == 1
    assert "[DATA_002]" in result.stderr and "responses.jsonl, line 1" in result.stderr
    assert "Traceback" not in result.stderr
