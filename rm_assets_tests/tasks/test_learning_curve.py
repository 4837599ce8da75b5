"""A learning curve from recipe to report: what is trained for it and when, what is read, what is shown; real tiny models."""

import json
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import StoreError, TaskError
from rm_assets.core.planning.recipe_counts import Count
from rm_assets.core.planning.recipe_plan import plan_recipe
from rm_assets.core.recipe import Recipe
from rm_assets.resources import compute, judgement
from rm_assets.resources.compute import Made
from rm_assets.resources.known import find_known
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, in_this_process

SHARES = [0.25, 0.5]
SCORED, TRAINED = "responses scored by the reward model", "pairs trained on"


def with_curve(bench: Bench, name: str = "toy", *, training: dict[str, Any] | None = None, **evaluation: Any) -> Recipe:
    section = {"num_canaries": 3, "learning_curve": {"shares": SHARES}, **evaluation}
    return bench.recipe(name, evaluation=section, training={**TOY["training"], **(training or {})})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Made]:
    """24 prompts of one pair each and 6 test prompts, up to the release."""
    bench = Bench(tmp_path_factory.mktemp("curve"))
    bench.write_toy(24, 6)
    save_causal(bench.folder / "recipes" / "base")
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        report = bench.make(with_curve(bench), *ASSETS[:6])
        bench.make(with_curve(bench), "hub_release")
    return bench, report


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Tasks run in this process."""
    in_this_process(monkeypatch)
    return monkeypatch


def trained_ids(bench: Bench, made: Made, name: str) -> set[str]:
    folder = Store(bench.home).folder("reward_model", made.manifest.inputs[name]["digest"])
    return set((folder / "trained_pair_ids.txt").read_text().split())


def test_each_share_is_trained_on_pairs_of_the_next(made: tuple[Bench, Made]) -> None:
    names = ("reward_model at share 0.25", "reward_model at share 0.5", "reward_model")
    quarter, half, whole = (trained_ids(*made, name) for name in names)
    assert 0 < len(quarter) < len(half) < len(whole) == 24
    assert quarter < half < whole
    report = json.loads((made[1].folder / "report.json").read_text("utf-8"))["learning_curve"]
    assert [point["num_pairs"] for point in report["points"]] == [len(quarter), len(half), 24]
    # Two passes of four pairs a step each.
    assert [point["num_optimizer_steps"] for point in report["points"]] == [
        2 * -(-len(ids) // 4) for ids in (quarter, half, whole)
    ]


def test_the_work_of_the_report_is_what_was_trained_and_scored_for_it(made: tuple[Bench, Made]) -> None:
    few = [len(trained_ids(*made, f"reward_model at share {share}")) for share in SHARES]
    # Twelve test responses by each of three models, and both sides of the pairs that each was trained on.
    assert made[1].work == {SCORED: 3 * 12 + 2 * (24 + sum(few)), TRAINED: sum(few)}
    assert made[1].manifest.counts["test_responses"] == 12


def test_the_whole_point_is_the_report_s_own_match_rate(made: tuple[Bench, Made]) -> None:
    report = json.loads((made[1].folder / "report.json").read_text("utf-8"))
    point, match = report["learning_curve"]["points"][-1], report["match_rate"]
    assert point["match_rate"] == {key: match[key] for key in ("value", "low", "high", "n")}
    assert point["train_accuracy"] == report["train_accuracy"]


def test_the_answer_is_in_every_form_of_the_report(made: tuple[Bench, Made]) -> None:
    folder, manifest = made[1].folder, made[1].manifest
    answer = manifest.facts["label_more_or_train_longer"]
    assert "cannot be told with 6 test pairs" in answer
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text("utf-8")
        assert "Learning curve: label more or train longer?" in text and "cannot be told with 6 test pairs" in text
    assert "learning_curve.png" in manifest.plots and (folder / "learning_curve.png").is_file()
    assert list(manifest.facts["match_rate_by_training_pairs"])[-1] == "24 training pairs"


def test_the_release_names_the_models_of_its_report(made: tuple[Bench, Made]) -> None:
    (lineage,) = (made[0].home / "hub_release").glob("*/release/lineage.json")
    found = json.loads(lineage.read_text("utf-8"))
    assert found["reward_model at share 0.5"]["settings"]["share_of_prompts"] == 0.5
    assert found["reward_model"]["settings"]["share_of_prompts"] == 1


def test_the_plan_counts_what_is_made(made: tuple[Bench, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RM_ASSETS_HOME", str(made[0].home))
    recipe = with_curve(made[0])
    plan = plan_recipe(recipe, find_known(recipe, None, []), prices=(), notes=[])
    half = plan.curve["reward_model at share 0.5"]
    assert half.made and half.pairs == Count(len(trained_ids(*made, "reward_model at share 0.5")), "made")
    assert plan.training.pairs == Count(24, "made")


def test_a_second_run_does_no_work(made: tuple[Bench, Made]) -> None:
    bench, _ = made
    started = bench.num_tasks_started()
    again = bench.make(with_curve(bench), *ASSETS[:6])
    assert again.was_there and again.work == {SCORED: 0, TRAINED: 0}
    assert bench.num_tasks_started() == started


def test_a_curve_that_was_cut_short_goes_on_where_it_was(made: tuple[Bench, Made], here: pytest.MonkeyPatch) -> None:
    bench, run = made[0], compute.run_local
    recipe = with_curve(bench, learning_curve={"shares": [0.3, 0.6]})

    def fails_at_the_second(task: str, request: Path, *args: Any, **options: Any) -> Any:
        if json.loads(request.read_text("utf-8"))["recipe"]["name"] == "toy (share 0.6)":
            raise TaskError("TASK_001", "killed")
        return run(task, request, *args, **options)

    with here.context() as patch:
        patch.setattr(compute, "run_local", fails_at_the_second)
        with pytest.raises(TaskError):
            bench.make(recipe, "evaluation_report")
    found = bench.make(recipe, "evaluation_report")
    assert found.work[TRAINED] == len(trained_ids(bench, found, "reward_model at share 0.6")) > 0


@pytest.mark.usefixtures("here")
def test_another_evaluation_trains_nothing_and_a_new_share_is_trained_alone(made: tuple[Bench, Made]) -> None:
    bench, before = made
    changed = bench.make(with_curve(bench, max_train_pairs=5), "evaluation_report")
    assert changed.work == {SCORED: 3 * (12 + 2 * 5), TRAINED: 0}
    found = bench.make(with_curve(bench, learning_curve={"shares": [*SHARES, 0.75]}), "evaluation_report")
    assert found.work[TRAINED] == len(trained_ids(bench, found, "reward_model at share 0.75")) > 0
    assert {name: found.manifest.inputs[name] for name in before.manifest.inputs} == before.manifest.inputs


def test_nothing_is_trained_for_a_report_whose_own_model_is_not_there(made: tuple[Bench, Made]) -> None:
    bench, started = made[0], made[0].num_tasks_started()
    other = with_curve(bench, training={"learning_rate": 0.02})
    with pytest.raises(StoreError, match="needs reward_model, which has not been made"):
        bench.make(other, "evaluation_report")
    assert bench.num_tasks_started() == started


def test_a_model_can_be_compared_before_its_curve_is_made(
    made: tuple[Bench, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = made[0]
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    mine = with_curve(bench, "later", learning_curve={"shares": [0.4, 0.5]})
    (found,) = judgement.find_models(Store(bench.home), mine, ["later"])
    assert found.report is None and found.training is not None


@pytest.mark.usefixtures("here")
def test_a_report_without_a_curve_says_nothing_of_one(made: tuple[Bench, Made]) -> None:
    plain = made[0].make(made[0].recipe(), "evaluation_report")
    assert plain.work == {SCORED: 12 + 2 * 24} and "learning_curve.png" not in plain.manifest.plots
    assert "learning_curve" not in json.loads((plain.folder / "report.json").read_text("utf-8"))
    assert "Learning curve" not in (plain.folder / "report.html").read_text("utf-8")
    assert "label_more_or_train_longer" not in plain.manifest.facts
