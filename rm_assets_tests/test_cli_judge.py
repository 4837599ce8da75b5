"""`rm-assets evaluate`, `rm-assets compare` and the asset model_comparison, on tiny real models."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from typer.testing import CliRunner, Result

from rm_assets.assets.evaluation_report import evaluation_report
from rm_assets.assets.model_comparison import ComparisonConfig, model_comparison
from rm_assets.cli.main import app
from rm_assets.core.errors import ModelError, RmAssetsError, StoreError
from rm_assets.core.evaluation.comparison import LENGTH
from rm_assets.core.recipe import ModelRef
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.records import Pair, conversation
from rm_assets.executors import side_task
from rm_assets.executors.output import TaskEnd
from rm_assets.resources import judgement
from rm_assets.resources.comparison import compare_on
from rm_assets.resources.compute import Compute
from rm_assets.storage.store import Store, is_locked
from rm_assets.storage.tables import write_table
from rm_assets.tasks import judge
from rm_assets.tasks.session import LineReporter
from rm_assets_tests.fakes import save_causal, save_classifier, save_encoder
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, in_this_process


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A recipe with two seeds and one with another model, all evaluated; another checkpoint, an encoder and a causal LM."""
    made = Bench(tmp_path_factory.mktemp("judge"))
    made.write_toy(8, 30)
    recipes = made.folder / "recipes"
    for number in range(3):
        save_classifier(recipes / f"rm{number}", seed=number)
    save_encoder(recipes / "encoder", classifier=True)
    save_causal(recipes / "causal")
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        for number, seeds in enumerate(({"seeds": [1, 2]}, {})):
            training = {"kind": "existing", "model": {"path": f"rm{number}"}, "max_length": 60}
            name = ("twice", "other")[number]
            (recipes / f"{name}.yaml").write_text(yaml.safe_dump({**TOY, "training": training, **seeds}))
        book = RecipeBook(recipes, {})
        for key in ("twice@1", "twice@2", "other"):
            made.make(book.load(key), *ASSETS[:6])
    return made


@pytest.fixture
def computed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process says, which is run here without its seconds of start."""
    said: list[str] = []

    class Said(LineReporter):
        def log(self, message: str) -> None:
            said.append(message)

    def run(task: str, request: Path, on_event: Any, **options: object) -> TaskEnd:
        assert task == "judge" and is_locked(request.parent / "lock")  # so retention leaves it
        try:
            judge.judge(json.loads(request.read_text("utf-8")), Said())
        except RmAssetsError as error:
            on_event({"event": "error", "error": error.to_dict()})
        return TaskEnd(0, False, "")

    monkeypatch.setattr(side_task, "run_local", run)
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.chdir(bench.folder / "recipes")
    return said


def rm_assets(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def found(*arguments: str) -> dict[str, Any]:
    result = rm_assets(*arguments, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    read: dict[str, Any] = json.loads(result.stdout)
    return read


def test_a_second_evaluation_computes_nothing_and_says_the_same(computed: list[str]) -> None:
    once, again = (found("evaluate", "other", "rm2", "encoder", "--on", "twice") for _ in range(2))
    # `other` has a committed report on these very responses; it is not even looked at.
    assert computed == [
        *(f"{name}: 60 rewards computed, the others were kept from before" for name in ("rm2", "encoder")),
        *(f"{name}: 0 rewards computed, the others were kept from before" for name in ("rm2", "encoder")),
    ]
    reports = [{m["model"]: m["report"]["match_rate"] for m in each["models"]} for each in (once, again)]
    assert reports[0] == reports[1] and all(rate["n"] == 30 for rate in reports[0].values())


@pytest.mark.usefixtures("computed")
def test_a_judgement_that_takes_too_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_task, "run_local", lambda *task, **options: TaskEnd(-9, timed_out=True, tail=""))
    refused = rm_assets("evaluate", "rm2", "--on", "twice").exception
    assert isinstance(refused, RmAssetsError) and refused.code == "TASK_003"


def test_a_copy_of_an_evaluated_model_gets_the_report_of_its_recipe(computed: list[str]) -> None:
    # rm1 is the checkpoint that `other` takes: read from disk and scored anew, it must come out the same.
    by_name = {each["model"]: each["report"] for each in found("evaluate", "other", "rm1", "--on", "other")["models"]}
    keys = ("match_rate", "length_baseline", "calibration", "best_of_n", "distributions", "without_length")
    for key in keys:
        assert json.dumps(by_name["rm1"][key]) == json.dumps(by_name["other"][key]), key


def test_accuracy_on_training_pairs_is_known_of_models_with_an_earlier_report(
    computed: list[str], bench: Bench, tmp_path: Path
) -> None:
    # A release as our own training leaves one: its summary of the training and its report lie beside the weights.
    release = save_classifier(tmp_path / "release", seed=7)
    accuracy = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    summary = {
        "max_length": 60,
        "final_loss": 0.9,
        "history": [],
        "validation_accuracy": 0.25,
        "num_pairs": {"trained": 5000},
    }
    (release / "rm_assets.json").write_text(json.dumps(summary))
    (release / "report.json").write_text(json.dumps({"train_accuracy": accuracy}))
    (model,) = found("evaluate", str(release), "--on", "other")["models"]
    report = model["report"]
    assert (report["train_accuracy"], report["validation_accuracy"]["value"]) == (accuracy, 0.25)
    assert report["num_train_pairs"] == 5000  # not those of `other`
    signs = [sign["sign"] for sign in report["diagnosis"]]
    assert "training failed" in signs and "the loss has hardly fallen" in signs
    assert "what it was trained on is not known" not in signs and "few training pairs" not in signs


def test_evaluate_prints_a_row_and_a_diagnosis_for_each_model(computed: list[str], bench: Bench) -> None:
    (bench.folder / "recipes" / "bench.jsonl").write_text(
        json.dumps({"prompt": "p", "chosen": "a", "rejected": "a", "subset": "donotanswer"}) + "\n"
    )
    result = rm_assets("evaluate", "other", "rm2", "--on", "twice@2", "--reward-bench", "bench.jsonl")
    assert result.exit_code == 0, result.output
    for said in ("match rate", "length-balanced", "longer is better", "RewardBench", "0.0 % (0.0 to 79.3 %)"):
        assert said in result.stdout, said
    assert result.stdout.count("The model agrees with gold on") == 2
    assert "what it was trained on is not known" in result.stdout


def test_only_training_and_validation_pairs_count_as_seen(computed: list[str], bench: Bench) -> None:
    store, recipe = Store(bench.home), RecipeBook(bench.folder / "recipes", {}).load("other")
    model = judgement.find_models(store, recipe, ["other"])[0]
    (trained, tuned, tested, *_) = sorted(
        {row.prompt_id for row in judgement.judge(store, recipe, [model], needs_reports=False, say=print)[0].rewards}
    )
    pairs = [pair_of("train", trained), pair_of("validation", tuned), pair_of("test", tested), pair_of("train", "new")]
    write_table(bench.folder / "pairs.parquet", Pair, pairs)
    said: list[str] = []
    foreign = replace(model, other_pairs=bench.folder / "pairs.parquet")
    for candidate in (model, foreign):
        judgement.judge(store, recipe, [candidate], needs_reports=False, say=said.append)
    assert len(said) == 1 and "was trained or tuned on 2 of the" in said[0]


def pair_of(split: str, prompt_id: str) -> Pair:
    return Pair(
        pair_id=prompt_id, prompt_id=prompt_id, source="s", split=split, chosen=conversation("p", None, "a"),
        rejected=conversation("p", None, "b"), chosen_id="a", rejected_id="b", chosen_gold_reward=1.0,
        rejected_gold_reward=0.0, gold_margin=1.0,
    )  # fmt: skip


def test_recipes_with_reports_are_compared_without_scoring(computed: list[str]) -> None:
    comparison = found("compare", "twice", "other", "--on", "twice")
    assert computed == []
    # Both seeds hold the same model, so that an ensemble of them orders every pair as each does.
    ensembles = [f"twice ({kind} of 2)" for kind in ("mean", "worst case", "uncertainty weighted")]
    rates = {model["model"]: model["match_rate"]["value"] for model in comparison["models"]}
    assert set(rates) == {"twice@1", "twice@2", "other", LENGTH, *ensembles}
    assert {rates[name] for name in ("twice@1", *ensembles)} == {rates["twice@2"]}
    assert comparison["ensembles"]["twice"]["disagreement"] == {"mean_sd": 0.0, "num_pairs_disputed": 0, "n": 30}


def test_a_model_that_was_trained_on_the_test_prompts_is_named(
    computed: list[str], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It trains on the 30 prompts that `other` tests on, and is tested on the 8 that `other` has pairs of.
    in_this_process(monkeypatch)
    prompts = {**TOY["prompts"], "source": TOY["prompts"]["test"], "test": TOY["prompts"]["source"]}
    swapped = bench.recipe("swapped", prompts=prompts, training={**TOY["training"], "base": {"path": "causal"}})
    model = bench.make(swapped, *ASSETS[:5]).folder / "checkpoint"
    (bench.folder / "recipes" / "swapped on main").symlink_to(model)  # as a pull request names it
    for name in ("swapped", "swapped on main"):
        for command in ("evaluate", "compare"):
            result = rm_assets(command, name, "other", "--on", "other")
            assert result.exit_code == 0, result.output
            assert f"{name} was trained or tuned on 30 of the 30 test prompts of other" in result.stderr
            assert result.stderr.count("was trained or tuned") == 1
        says = f"Warning: {name} was trained or tuned on 30 of the 30 test prompts of other"
        assert says in rm_assets("compare", name, "other", "--on", "other", "--markdown").stdout
    assert len(found("compare", "swapped", "other", "--on", "other")["warnings"]) == 1
    (bench.folder / "recipes" / "swapped.yaml").unlink()


def test_compare_writes_csv_and_plot_and_prints_a_table(computed: list[str], tmp_path: Path) -> None:
    table, plot = tmp_path / "table.csv", tmp_path / "plot.png"
    result = rm_assets("compare", "other", "rm2", "rm0", "--on", "twice", "--csv", str(table), "--plot", str(plot))
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(table.read_text("utf-8"))))
    assert {row["model"] for row in rows} == {"other", "rm2", "rm0", LENGTH}
    assert [float(row["value"]) for row in rows] == sorted((float(row["value"]) for row in rows), reverse=True)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "more pairs to tell" in result.stdout and f"not told apart from {LENGTH}: about" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("compare", "causal", "--on", "twice"), ModelError, "is a Qwen3ForCausalLM, which gives no reward"),
        (("compare", "nowhere", "--on", "twice"), ModelError, "no recipe, no folder with a config.json"),
        (("evaluate", "rm0", "--on", "embedded"), StoreError, "--select '\\*gold_rewards'"),
        (("compare", "embedded", "--on", "twice"), StoreError, "rm-assets run embedded"),
    ],
)
def test_what_cannot_be_judged_is_one_sentence_with_its_cure(
    computed: list[str], arguments: tuple[str, ...], error: type[Exception], says: str
) -> None:
    result = rm_assets(*arguments)
    assert isinstance(result.exception, error)
    with pytest.raises(error, match=says):
        raise result.exception


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("someone/model", {"hub_id": "someone/model"}),
        ("someone/model@v1.0", {"hub_id": "someone/model", "revision": "v1.0"}),
        ("someone/model@refs/pr/3", {"hub_id": "someone/model", "revision": "refs/pr/3"}),
    ],
)
def test_a_model_on_the_hub_is_named_with_its_revision(
    computed: list[str], bench: Bench, name: str, wanted: dict[str, str]
) -> None:
    recipe = RecipeBook(bench.folder / "recipes").load("other")
    (candidate,) = judgement.find_models(Store(bench.home), recipe, [name], max_length=77)
    assert candidate.model == ModelRef(**wanted) and candidate.max_length == 77


@pytest.mark.parametrize("name", ["./someone/model", "/someone/model", "~/model", "a/b/c", "model"])
def test_a_folder_that_is_not_there_is_no_model_on_the_hub(computed: list[str], bench: Bench, name: str) -> None:
    recipe = RecipeBook(bench.folder / "recipes").load("other")
    with pytest.raises(ModelError, match="no recipe, no folder"):
        judgement.find_models(Store(bench.home), recipe, [name])


def test_the_asset_compares_all_recipes_of_the_newest_report_and_commits_once(
    computed: list[str], bench: Bench
) -> None:
    def make(**config: Any) -> dict[str, Any]:
        with dg.DagsterInstance.ephemeral() as instance:
            made = dg.materialize(
                [model_comparison, dg.AssetSpec(evaluation_report.key)],
                instance=instance,
                resources={"compute": Compute(home=str(bench.home))},
                run_config=dg.RunConfig(ops={"model_comparison": ComparisonConfig(**config)}),
            )
            (event,) = made.get_asset_materialization_events()
        assert event.materialization
        return {key: value.value for key, value in event.materialization.metadata.items()}

    metadata, again = make(), make()
    assert metadata["rm/folder"] == again["rm/folder"] and metadata["data/num_test_pairs"] == 30
    assert len(list(Store(bench.home).manifests("model_comparison"))) == 1
    folder = Path(str(metadata["rm/folder"]))
    comparison = json.loads((folder / "comparison.json").read_text("utf-8"))
    assert {model["model"] for model in comparison["models"]} >= {"twice@1", "twice@2", "other"}
    assert "data:image/png;base64," in str(metadata["plot/comparison"])
    chosen = make(on="twice", models=["other", str(bench.folder / "recipes" / "rm2")])
    assert chosen["rm/folder"] != metadata["rm/folder"] and chosen["rm/on"] == "twice@1"
    assert chosen["rm/warnings"] == "none"


def test_other_rewards_of_models_of_the_same_names_are_another_comparison(
    computed: list[str], bench: Bench, tmp_path: Path
) -> None:
    folders = []
    for seed in (5, 6):
        model = save_classifier(tmp_path / "model", seed=seed)
        folders.append(compare_on(Store(bench.home), "other", ["other", str(model)], say=print).folder)
    assert folders[0] != folders[1]


def test_benchmarks_are_read_where_the_user_stands(computed: list[str], bench: Bench) -> None:
    result = rm_assets("evaluate", "rm0", "--on", "other", "--reward-bench-2", "nothing.jsonl")
    assert isinstance(result.exception, RmAssetsError) and "DATA_001" in str(result.exception)
