"""A search over real trainings of a tiny model: what it makes, what it leaves alone, how it goes on and what it writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rm_assets.cli import search as command
from rm_assets.cli.monitor import select
from rm_assets.core.errors import DataError, ModelError, SearchError, StoreError
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.search import own_settings, trial_recipe
from rm_assets.executors.output import TaskEnd
from rm_assets.resources import compute
from rm_assets.resources.compute import Compute
from rm_assets.resources.search import Searched, run_search
from rm_assets.resources.study import NUM_STARTUP_TRIALS, Study
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, files, in_this_process

SPACE = {"learning_rate": [0.01, 0.001], "num_epochs": {"low": 1, "high": 3}, "schedule": ["cosine", "linear"]}
PROMPTS = {
    "source": files("prompts.jsonl"), "test": files("test.jsonl"), "split": {"train": 0.6, "validation": 0.4, "test": 0.0},
}  # fmt: skip


def toy(bench: Bench, *, space: Any = SPACE, name: str = "toy", seed: int = 0, **training: Any) -> Recipe:
    return bench.recipe(
        name, prompts=PROMPTS, search={"num_trials": 4, "seed": seed, "space": space},
        training={**TOY["training"], "validation": {"every_steps": 1}, **training},
    )  # fmt: skip


def search_command(name: str, trials: int | None = None, *, as_json: bool = False) -> bool:
    return command.search(name, trials, force=False, as_json=as_json, log_level="INFO")


@pytest.fixture
def ready(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """With pairs, trained on in this process; the command finds them as the run in Dagster would have left them."""
    in_this_process(monkeypatch)
    monkeypatch.setattr(command, "build", lambda *given, **options: True)
    save_causal(bench.folder / "recipes" / "base")
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    bench.make(toy(bench), *ASSETS[:4])
    return bench


def run(bench: Bench, recipe: Recipe, num_trials: int) -> Searched:
    return run_search(
        Compute(home=str(bench.home)), recipe, num_trials=num_trials, say=bench.said.append, debug=bench.said.append
    )


def break_task(patch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """The training with this number, counted from 0, fails with `error`."""
    real, begun = compute.run_local, []

    def breaking(task: str, *given: Any, **options: Any) -> TaskEnd:
        begun.append(task)
        if len(begun) == number + 1:
            raise error
        return real(task, *given, **options)

    patch.setattr(compute, "run_local", breaking)


def settings(found: Searched) -> list[dict[str, Any]]:
    return [trial.settings for trial in found.trials]


def test_a_search_makes_each_setting_once_and_nothing_else_again(ready: Bench) -> None:
    upstream = ready.manifests()
    space = {"learning_rate": [0.01, 0.001], "schedule": ["cosine", "linear"]}
    found = run(ready, toy(ready, space=space), 6)
    assert [trial.state for trial in found.trials] == ["complete"] * 6
    assert found.trials[0].settings == {"learning_rate": 0.01, "schedule": "cosine"}  # the recipe's own
    different = {str(trial.settings) for trial in found.trials}
    assert len(different) <= 4 and sum(not trial.was_there for trial in found.trials) == len(different)
    made = {name: raw for name, raw in ready.manifests().items() if name not in upstream}
    assert {Path(name).parts[0] for name in made} == {"reward_model"} and len(made) == len(different)
    assert ready.manifests().items() >= upstream.items()


def test_values_are_those_of_the_trained_models_on_validation_pairs(ready: Bench) -> None:
    found = run(ready, toy(ready), 2)
    for trial in found.trials:
        folder = ready.home / "reward_model" / str(trial.digest)
        assert json.loads((folder / "manifest.json").read_text())["facts"]["validation_accuracy"] == trial.value
    (pairs,) = (ready.home / "implicit_pairs").glob("*/manifest.json")
    assert found.num_pairs == json.loads(pairs.read_text())["counts"]["validation_pairs"] > 0


@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_ends_as_one_that_was_not(
    ready: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy(ready)
    with monkeypatch.context() as patch:
        break_task(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(ready, recipe, 3)
    found = run(ready, recipe, 3)
    assert [trial.number for trial in found.trials] == [0, 1, 2] and {t.state for t in found.trials} == {"complete"}
    assert any("1 trials are there" in line for line in ready.said)
    other = Bench(ready.folder, home=tmp_path / "other")
    other.make(recipe, *ASSETS[:4])
    whole = run(other, recipe, 3)
    assert settings(whole) == settings(found) and [t.digest for t in whole.trials] == [t.digest for t in found.trials]
    assert [t.value for t in whole.trials] == [t.value for t in found.trials]
    # A search that is done does nothing, and one that is to be longer goes on.
    started = ready.num_tasks_started()
    assert run(ready, recipe, 3) == found and ready.num_tasks_started() == started
    assert settings(run(ready, recipe, 4))[:3] == settings(found)


def test_what_makes_values_incomparable_begins_a_study_of_its_own(ready: Bench) -> None:
    first = run(ready, toy(ready), 1)
    same = [toy(ready, num_epochs=3), toy(ready)]  # what is searched has no value of its own in the study
    assert {run(ready, recipe, 1).study for recipe in same} == {first.study}
    others = [
        toy(ready, max_grad_norm=0.5), toy(ready, seed=1), toy(ready, space={**SPACE, "weight_decay": [0, 0.1]}),
    ]  # fmt: skip
    studies = [run(ready, recipe, 1).study for recipe in others]
    ready.write_toy(9)
    ready.make(toy(ready), *ASSETS[:4])
    studies.append(run(ready, toy(ready), 1).study)
    assert len({first.study, *studies}) == 5
    assert len(list((ready.home / "search" / "toy").glob("*.db"))) == 5


def test_a_trial_fails_by_its_settings_and_the_search_goes_on(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        break_task(patch, 1, ModelError("MODEL_008", "the loss left its range"))
        found = run(ready, toy(ready), 3)
    assert [(trial.state, trial.error) for trial in found.trials] == [
        ("complete", None), ("failed", "MODEL_008"), ("complete", None),
    ]  # fmt: skip
    assert found.best.state == "complete"


def test_what_no_setting_could_mend_ends_the_search_and_counts_against_no_trial(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_task(patch, 1, StoreError("STORE_001", "no space left"))
        with pytest.raises(StoreError, match="no space left"):
            run(ready, toy(ready), 2)
    assert [trial.state for trial in run(ready, toy(ready), 2).trials] == ["complete"] * 2


def test_a_search_without_any_value_says_what_failed(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    break_task(monkeypatch, 0, ModelError("MODEL_008", "the loss left its range"))
    with pytest.raises(SearchError, match="MODEL_008") as caught:
        run(ready, toy(ready), 1)
    assert caught.value.code == "SEARCH_003"


def test_a_share_of_validation_that_gives_no_pair_is_refused(ready: Bench) -> None:
    recipe = toy(ready)
    tied = {row.prompt for row in ready.rows(ready.make(recipe, "prompts")) if row.split == "validation"}
    rows = [json.loads(line) for line in (ready.folder / "recipes" / "answers.jsonl").read_text().splitlines()]
    ready.write("answers.jsonl", [row | ({"gold_reward": 1} if row["prompt"] in tied else {}) for row in rows])
    ready.make(recipe, *ASSETS[:4])
    with pytest.raises(DataError, match=r"raise prompts\.split\.validation") as caught:
        run(ready, recipe, 1)
    assert caught.value.code == "DATA_005"


def test_a_hopeless_training_is_ended_and_leaves_nothing_to_resume(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process, which would take 3,000 steps; better than perfect trials stand before it."""
    save_causal(bench.folder / "recipes" / "base")
    recipe = toy(bench, space={"learning_rate": [0.01, 0.001]}, num_epochs=1000, validation={"every_steps": 20})
    with monkeypatch.context() as patch:
        in_this_process(patch)
        bench.make(recipe, *ASSETS[:4])
    assert recipe.search is not None
    found: list[str] = []
    with monkeypatch.context() as patch:
        # The study's name and file are those of the search, which is kept from beginning.
        patch.setattr(Study, "next_trial", lambda self, number: found.append(self._study.study_name))
        with pytest.raises(SearchError):
            run(bench, recipe, 1)
    (name,) = found
    with Study(bench.home / "search" / "toy" / f"{name}.db", name, recipe.search) as study:
        for _ in range(NUM_STARTUP_TRIALS):
            good = study.next_trial(99)
            assert good is not None and not any(good.is_hopeless(tenth, 2.0) for tenth in range(10))
            good.end("complete", 2.0)
    trial = run(bench, recipe, NUM_STARTUP_TRIALS + 1).trials[-1]
    assert (trial.state, trial.tenths) == ("pruned", 2) and trial.value is not None and trial.value <= 1
    folder = bench.home / "reward_model" / str(trial.digest)
    assert sorted(file.name for file in folder.iterdir()) == ["metrics.jsonl", "request.json"]
    ((shown, state),) = select(Compute(home=str(bench.home)).store(), [])
    assert (shown.recipe, state) == (f"toy (trial {NUM_STARTUP_TRIALS})", "pruned")
    assert shown.steps[-1]["step"] < shown.num_steps


def test_the_command_prints_the_trials_and_the_best_becomes_a_recipe_that_is_made(
    ready: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(ready)
    assert search_command("toy", 2, as_json=True)
    said = capsys.readouterr()
    found = json.loads(said.out[said.out.rindex('{\n  "recipe"') :])  # after what tasks in this process say
    assert [trial["number"] for trial in found["trials"]] == [0, 1] and found["best"] in (0, 1)
    assert "at most 2 trainings of" in said.err
    best = RecipeBook(ready.folder / "recipes", {}).load("toy-best")
    assert found["recipe_file"] == str(ready.folder / "recipes" / "toy-best.yaml")
    made = ready.make(best, "reward_model")
    assert made.was_there and made.manifest.digest == found["trials"][found["best"]]["digest"]
    assert search_command("toy", 2)
    assert f"best: trial {found['best']}" in capsys.readouterr().out


def test_nothing_is_trained_on_pairs_that_the_run_in_dagster_refuses(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(ready)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "build", lambda name, **options: asked.append({"name": name, **options}))
    started = ready.num_tasks_started()
    assert not search_command("toy", 2)
    assert asked == [{"name": "toy", "select": "*implicit_pairs", "smoke": False, "log_level": "INFO"}]
    assert ready.num_tasks_started() == started and not (ready.home / "search").exists()


def test_a_cancelled_search_says_how_to_go_on(
    ready: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(ready)
    break_task(monkeypatch, 0, KeyboardInterrupt())
    assert not search_command("toy", 2)
    assert "cancelled: what is committed stays, `rm-assets search toy` goes on" in capsys.readouterr().err
    assert not (ready.folder / "recipes" / "toy-best.yaml").exists()


def test_the_cost_is_that_of_as_many_trials_as_there_are_settings_of_the_longest(ready: Bench) -> None:
    recipe = toy(ready, space={"pairs_per_step": [1, 2], "num_epochs": [1, 3]})
    assert recipe.search is not None
    (pairs,) = (ready.home / "implicit_pairs").glob("*/manifest.json")
    num_pairs = json.loads(pairs.read_text())["counts"]["train_pairs"]
    line = command.cost_line(recipe, recipe.search, 20)
    assert line.startswith(f"at most 4 trainings of {3 * num_pairs} optimizer steps, {12 * num_pairs} in all; ")
    assert command.cost_line(recipe, recipe.search, 1).startswith("at most 1 training of ")


def test_a_recipe_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    file, kept = tmp_path / "r-best.yaml", tmp_path / "best.yaml"
    command.write_best(file, "one\n", kept, force=False)
    command.write_best(file, "two\n", kept, force=False)  # its own
    file.write_text("two\nand mine\n")
    with pytest.raises(SearchError, match=r"(?s)r-best\.yaml is there.*--force") as caught:
        command.write_best(file, "three\n", kept, force=False)
    assert caught.value.code == "SEARCH_004" and file.read_text() == "two\nand mine\n"
    command.write_best(file, "three\n", kept, force=True)
    assert file.read_text() == kept.read_text() == "three\n"


def test_a_recipe_without_a_search_and_a_machine_without_optuna_are_one_sentence(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.recipe("plain")
    with pytest.raises(SearchError, match="has no section search") as caught:
        search_command("plain")
    assert caught.value.code == "SEARCH_001"
    toy(ready)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SearchError, match=r"pip install 'rm-assets\[search\]'"):
        search_command("toy")


def test_trials_have_the_digests_of_their_settings(ready: Bench) -> None:
    """What the search makes of the recipe's own settings is what the recipe itself wants."""
    recipe = toy(ready, num_epochs=3)
    assert recipe.search is not None
    own = own_settings(recipe, recipe.search)
    assert own is not None
    made = ready.make(trial_recipe(recipe, 0, own), "reward_model")
    assert not made.was_there and ready.make(recipe, "reward_model").was_there


@pytest.mark.slow
def test_ctrl_c_ends_the_task_and_the_same_command_goes_on_to_a_recipe_that_runs(bench: Bench) -> None:
    save_causal(bench.folder / "recipes" / "base")
    toy(bench, space={"learning_rate": [0.01, 0.001]}, num_epochs=200, validation={"every_steps": 50})
    run_it = "import sys; from rm_assets.cli.main import main; main()"
    environment = {
        **os.environ, "RM_ASSETS_HOME": str(bench.home), "RM_ASSETS_RECIPES": str(bench.folder / "recipes"),
        "DAGSTER_HOME": "",
    }  # fmt: skip

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {run_it}", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=bench.folder,
        )  # fmt: skip

    first, log = start("search", "toy", "--trials", "2"), bench.home / "reward_model"
    while first.poll() is None and not list(log.glob("*/metrics.jsonl")):
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 1 and "`rm-assets search toy` goes on" in said, said
    assert not list(log.glob("*/manifest.json"))
    again = start("search", "toy", "--trials", "2", "--json")
    out, said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    found = json.loads(out)
    assert [(trial["number"], trial["state"]) for trial in found["trials"]] == [(0, "complete"), (1, "complete")]
    best = start("run", "toy-best", "--select", "reward_model")
    out, said = best.communicate(timeout=100)
    assert best.returncode == 0 and "made before" in out, said
