"""From a trained model to a release: what the gate and the validation refuse and why, and what passes; real small models."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from rm_assets.cli.release import app
from rm_assets.core.errors import ReleaseError, StoreError
from rm_assets.resources.comparison import compare_on
from rm_assets.resources.compute import Compute, Made
from rm_assets.resources.releases import make_release
from rm_assets.storage.files import write_json
from rm_assets.storage.lineage import wanted
from rm_assets.storage.registry import Registry
from rm_assets.storage.store import Store
from rm_assets.tasks import release as task
from rm_assets_tests.fake_model_hub import FakeModelHub
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.loopback_hub import serving
from rm_assets_tests.storage.test_registry import built
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, in_this_process

UNTRAINED = {**TOY["training"], "learning_rate": 1e-9}
NOT_THE_SUBJECT = {"severity": "ignore"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """40 test prompts, of which the better response is longer in every second one; a good model, in production."""
    made = Bench(tmp_path_factory.mktemp("releases"))
    made.write_toy(24, 40)
    save_causal(made.folder / "recipes" / "base")
    answers = [json.loads(line) for line in (made.folder / "recipes" / "answers.jsonl").read_text().splitlines()]
    for number, answer in enumerate(answers):
        if answer["gold_reward"] == number // 2 % 2:
            answer["response"] += " ramble on and on"
    made.write("answers.jsonl", answers)
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        make(made)
    registry = Registry(Store(made.home))
    registry.move(registry.find("toy"), "production", why="the first")
    return made


@pytest.fixture
def bench(sources: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    in_this_process(monkeypatch)
    return sources


def make(bench: Bench, **changes: Any) -> Made:
    """TOY with `changes` up to its release, as the asset makes it."""
    recipe = bench.recipe(**changes)
    bench.make(recipe, *ASSETS[:6])
    compute = Compute(home=str(bench.home))
    return make_release(compute, recipe, "hub_release", say=bench.said.append, debug=bench.said.append)


def prepare(bench: Bench, **changes: Any) -> None:
    """Everything before the release, without the seconds that task processes take to start."""
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        bench.make(bench.recipe(**changes), *ASSETS[:6])


def refused(bench: Bench, **changes: Any) -> tuple[str, str, list[str]]:
    """Code and message of a refusal, and the checks that were noted; nothing is released, and production stays."""
    registry = Registry(Store(bench.home))
    before, noted = registry.releases(), len(list(registry.events("refused")))
    with pytest.raises(ReleaseError) as caught:
        make(bench, **changes)
    assert registry.releases() == before
    new = list(registry.events("refused"))[noted:]
    return caught.value.code, str(caught.value), [event["check"] for event in new]


def test_a_model_that_is_worse_than_production_is_refused_for_that(bench: Bench) -> None:
    gate = dict.fromkeys(
        ("match_rate_is_high", "confidence_is_calibrated", "length_is_not_the_reason"), NOT_THE_SUBJECT
    )
    code, says, checks = refused(bench, training=UNTRAINED, gate=gate)
    assert (code, checks) == ("RELEASE_004", ["no_worse_than_release"])
    assert "(production) 1.000: difference -" in says


def test_a_model_that_knows_nothing_is_refused_by_its_match_rate_too(bench: Bench) -> None:
    code, says, checks = refused(bench, training=UNTRAINED, seed=1)
    assert code == "RELEASE_004" and checks[:2] == ["match_rate_is_high", "no_worse_than_release"]
    assert "its lower end must be above 0.5" in says


def test_a_model_that_is_right_and_not_sure_of_it_is_refused_as_miscalibrated(bench: Bench) -> None:
    timid = {**TOY["training"], "objective": {"kind": "soft_bradley_terry", "temperature": 1}, "num_epochs": 4}
    code, says, checks = refused(bench, training=timid)
    assert (code, checks) == ("RELEASE_004", ["confidence_is_calibrated"])
    assert "beyond chance; at most 0.15 is allowed" in says


def test_a_tighter_limit_refuses_and_a_wider_one_lets_pass_without_a_new_report(bench: Bench) -> None:
    made = make(bench)
    num_tasks = bench.num_tasks_started()
    tight = {"confidence_is_calibrated": {"limit": 0.0}, "match_rate_is_high": {"limit": 0.999}}
    code, _, checks = refused(bench, gate=tight)
    assert code == "RELEASE_004" and "match_rate_is_high" in checks
    assert make(bench).manifest == made.manifest and bench.num_tasks_started() == num_tasks


def test_a_report_that_is_not_committed_is_not_judged(bench: Bench) -> None:
    recipe = bench.recipe(evaluation={"seed": 5})
    bench.make(recipe, *ASSETS[:5])
    store, compute = Store(bench.home), Compute(home=str(bench.home))
    for _ in range(2):
        with pytest.raises(StoreError, match="has no evaluation report as it wants it now") as caught:
            make_release(compute, recipe, "hub_release", say=bench.said.append, debug=bench.said.append)
        assert caught.value.code == "STORE_002"
        folder = store.folder("evaluation_report", wanted(store, recipe, "evaluation_report").digest)
        write_json(folder / "report.json", {"match_rate": "cut here by a kill"})


def without_tokenizer(target: Path) -> None:
    target.unlink()


def pickled(target: Path) -> None:
    target.unlink()
    target.write_bytes(pickle.dumps({"weights": [1.0]}))


def other_weights(target: Path) -> None:
    weights = load_file(target)
    target.unlink()
    save_file({**weights, "score.weight": weights["score.weight"] * 1.01}, target, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "spoil", "code", "says"),
    [
        ("tokenizer.json", without_tokenizer, "RELEASE_001", "missing ['tokenizer.json']"),
        ("model.safetensors", pickled, "RELEASE_005", "model.safetensors"),
        ("model.safetensors", other_weights, "RELEASE_002", "a canary scores"),
    ],
)
def test_a_release_that_is_not_what_was_evaluated_is_refused_for_its_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, spoil: Callable[[Path], None], code: str, says: str
) -> None:
    copy = task.link_or_copy

    def spoiled(source: Path, target: Path) -> None:
        copy(source, target)
        if target.name == name:
            spoil(target)

    monkeypatch.setattr(task, "link_or_copy", spoiled)
    found, message, checks = refused(bench, release={"tags": [code]})
    assert found == code and says in message and checks == [code]


def test_a_better_model_passes_and_is_in_staging_until_somebody_promotes_it(bench: Bench) -> None:
    registry = Registry(Store(bench.home))
    before = registry.aliases("toy")["production"]
    better = make(bench, training={**TOY["training"], "num_epochs": 3})
    name = better.manifest.facts["release"]
    assert registry.aliases("toy") == {"production": before, "staging": name}
    assert registry.find(name).match_rate["value"] == 1.0


def test_production_is_scored_anew_where_the_test_prompts_are_others(bench: Bench) -> None:
    prompts = {**TOY["prompts"], "test": {"kind": "files", "files": ["fewer.jsonl"]}}
    bench.write("fewer.jsonl", [{"prompt": f"what is {n} and 1" if n < 5 else f"is {n} even"} for n in range(30)])
    gate = dict.fromkeys(
        ("match_rate_is_high", "confidence_is_calibrated", "length_is_not_the_reason"), NOT_THE_SUBJECT
    )
    code, says, _ = refused(bench, prompts=prompts, training=UNTRAINED, gate=gate)
    assert code == "RELEASE_004" and "(production) 1.000" in says and "n = 30)" in says
    assert "was trained or tuned on 5 of the 30 test prompts of toy: here it looks better than it is" in says
    assert len(list((bench.home / "registry" / "rewards").glob("*.parquet"))) == 1


@pytest.mark.parametrize("command", [["rollback", "toy"], ["promote", "toy-c", "--to", "production"]])
def test_no_alias_moves_where_dagster_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    registry = Registry(Store(tmp_path))
    for digest in "abc":
        registry.add(built(Store(tmp_path), digest))
        registry.move(registry.find(f"toy-{digest}"), "production", why="") if digest != "c" else None
    monkeypatch.setenv("RM_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "none"))
    assert CliRunner().invoke(app, command).exit_code == 1
    assert registry.aliases("toy")["production"] == "toy-b"
    (tmp_path / "none").mkdir()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert registry.aliases("toy")["production"] == ("toy-a" if command[0] == "rollback" else "toy-c")


@pytest.mark.slow
def test_in_a_run_of_dagster_the_gate_stops_the_release_and_the_command_moves_aliases(
    tmp_path: Path, sources: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (
        ("RM_ASSETS_RECIPES", sources.folder / "recipes"), ("RM_ASSETS_HOME", tmp_path / "home"),
        ("DAGSTER_HOME", tmp_path), ("COLUMNS", 200),
    ):  # fmt: skip
        monkeypatch.setenv(variable, str(value))

    def rm_assets(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "rm_assets.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    bench = Bench(sources.folder, home=tmp_path / "home")
    prepare(bench, training=UNTRAINED, seed=1)
    says = rm_assets("run", "toy", status=1)
    assert "error: evaluation_report, match_rate_is_high: match rate" in says
    assert "DagsterAssetCheckFailedError" not in says  # its reason is said, not what Dagster calls it
    assert not list((tmp_path / "home" / "hub_release").glob("*/manifest.json"))
    assert "RELEASE_004" in rm_assets("run", "toy", "--select", "hub_release", status=1)  # no way around it
    listed = json.loads(rm_assets("release", "list", "toy", "--json"))
    assert not listed["releases"] and "match_rate_is_high" in {event["check"] for event in listed["refused"]}

    names = []
    for num_epochs in (2, 3):
        prepare(bench, training={**TOY["training"], "num_epochs": num_epochs})
        rm_assets("run", "toy")
        names.append(json.loads(rm_assets("release", "show", "toy", "--json"))["name"])
        rm_assets("release", "promote", "toy@staging", "--to", "production", "--why", "passed")
    assert "RELEASE_008" in rm_assets("release", "rollback", "nobody", status=1)
    assert f"{names[1]} -> {names[0]}" in rm_assets("release", "rollback", "toy", "--why", "it flatters")
    shown = json.loads(rm_assets("release", "show", "toy@production", "--json"))
    assert shown["name"] == names[0] and shown["moves"][-1]["why"] == "it flatters"
    assert "is whole" in rm_assets("release", "publish", "toy@production", "--validate-only")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        events = instance.fetch_observations(dg.AssetKey("hub_release"), limit=5).records
    latest = events[0].asset_observation
    assert latest is not None and latest.partition == "toy"
    told = {key: value.value for key, value in latest.metadata.items()}
    assert (told["release/before"], told["release/now"], told["release/why"]) == (names[1], names[0], "it flatters")


@pytest.mark.slow
def test_to_the_hub_and_back_with_an_upload_that_is_cut_and_a_rollback(
    tmp_path: Path, sources: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(sources.folder, home=tmp_path / "home")
    with serving(FakeModelHub()) as hub:
        hub.token = "hf_never_to_be_seen"
        for variable, value in (
            ("HF_ENDPOINT", hub.endpoint), ("HF_HUB_DISABLE_XET", 1), ("HF_HUB_OFFLINE", 0), ("HF_TOKEN", hub.token),
            ("HF_HOME", tmp_path / "hf"), ("RM_ASSETS_RECIPES", bench.folder / "recipes"),
            ("RM_ASSETS_HOME", bench.home), ("DAGSTER_HOME", tmp_path), ("COLUMNS", 200),
        ):  # fmt: skip
            monkeypatch.setenv(variable, str(value))

        def python(*arguments: str, **options: Any) -> str:
            done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        def rm_assets(*arguments: str) -> str:
            return python("-m", "rm_assets.cli.main", "release", *arguments)

        release = {"hub_id": "me/toy", "revision": "v1"}
        longer = {**TOY["training"], "num_epochs": 3}
        for changes in ({}, {"training": longer}):
            prepare(bench, **changes)
        hub.cut = lambda method, path: path.startswith("/lfs/")
        with pytest.raises(ReleaseError, match=r"cannot be pushed to me/toy") as caught:
            make(bench, release=release)
        assert caught.value.code == "RELEASE_003" and not list(Registry(Store(bench.home)).events("built", "refused"))
        hub.cut = lambda method, path: False
        first = make(bench, release=release)
        repo, name = hub.repos["me/toy"], first.manifest.facts["release"]
        assert repo.log("v1") == [f"Reward model {name}", "initial commit"]
        assert first.manifest.facts["hub"] == {"repo": "me/toy", "tag": "v1", "commit": repo.tags["v1"]}
        here = {file.name: file.read_bytes() for file in (first.folder / "release").iterdir()}
        assert {n: c for n, c in repo.files("v1").items() if n != ".gitattributes"} == here

        # Somebody who has nothing but the card gets the reported reward.
        canary = json.loads(here["report.json"])["canaries"][0]
        code = here["README.md"].decode().partition("```python\n")[2].partition("```")[0]
        assert 'path = "me/toy"' in code and 'revision="v1"' in code
        placeholder = 'messages = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
        asked = code.replace(placeholder, f"messages = {canary['messages']!r}") + "\nprint(reward)"
        assert float(python("-c", asked, cwd=tmp_path)) == pytest.approx(canary["reward"], abs=1e-5)

        second = make(bench, training=longer, release={"validate_only": True})
        rm_assets("promote", name, "--to", "production")
        assert len(repo.tags) == 1
        rm_assets("publish", "toy@staging", "--to", "me/toy")
        other = second.manifest.facts["release"]
        assert set(repo.tags) == {"v1", other}
        rm_assets("promote", other, "--to", "production")
        assert repo.files("main")["model.safetensors"] == repo.files(other)["model.safetensors"]
        said = rm_assets("rollback", "toy", "--why", "worse in use")
        assert "me/toy: main is v1" in said and f"{other} -> {name}" in said
        assert repo.files("main") == repo.files("v1") != repo.files(other)
        assert repo.log("main") == ["Production is v1", f"Production is {other}", "Production is v1", "initial commit"]
        kept = "".join(f.read_text("utf-8", errors="replace") for f in bench.home.rglob("*") if f.is_file())
        assert hub.token not in kept + "".join(bench.said) + said


@pytest.mark.slow
def test_what_was_built_since_is_compared_with_production_by_its_alias(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    store = Store(bench.home)
    served = Registry(store).find("toy@production")
    bench.make(bench.recipe(training=UNTRAINED), "reward_model")
    found = compare_on(store, "toy", ["toy", "toy@production"], say=bench.said.append).found
    assert found["warnings"] == []
    rates = {model["model"]: model["match_rate"]["value"] for model in found["models"]}
    assert rates["toy@production"] == served.match_rate["value"] > rates["toy"]
    assert found["best"] == "toy@production"
    with pytest.raises(ReleaseError, match=r"RELEASE_007.*there is no release 'nobody@production'"):
        compare_on(store, "toy", ["nobody@production"], say=bench.said.append)
