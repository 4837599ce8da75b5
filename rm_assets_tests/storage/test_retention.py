"""Retention: what goes, and that what a recipe or a release needs never does. Real stores, a clock that tests turn."""

import fcntl
import io
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from rm_assets.cli.prune import prune as prune_command
from rm_assets.cli.trace import assets_of
from rm_assets.core.errors import StoreError
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.resources.compute import Compute
from rm_assets.storage import retention as module
from rm_assets.storage.files import write_json
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.home import home_of
from rm_assets.storage.kept import results
from rm_assets.storage.lineage import earlier, wanted
from rm_assets.storage.outdated import find_outdated, reasons
from rm_assets.storage.registry import Registry, Release
from rm_assets.storage.remote import cache_of
from rm_assets.storage.retention import Plan, plan_retention, prune
from rm_assets.storage.store import locked
from rm_assets_tests.planted import DAY, Planted, age, training
from rm_assets_tests.tasks.conftest import TOY

DATA = ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs")


class Bench(Planted):
    """Prunes, and says what became of it."""

    def plan(self, days: float = 30, **options: Any) -> Plan:
        return plan_retention(self.store, self.book, older_than_days=days, **options)

    def prune(self, **options: Any) -> list[str]:
        """What was removed."""
        said: list[str] = []
        prune(self.store, self.plan(**options), said.append)
        return [line.removeprefix("removed ") for line in said]

    def states(self) -> dict[str, Any]:
        """Whether each recipe is out of date, and by what."""
        fingerprint = Fingerprints(self.home / "fingerprints").of
        return {key: find_outdated(self.store, self.book.load(key), fingerprint) for key in self.book.partition_keys()}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    made.write_toy()
    made.write("base", "weights")
    made.be_all(monkeypatch)
    return made


def grow(bench: Bench) -> list[Release]:
    """Recipes of every kind, changed and made again some times; the releases that were registered."""
    releases = []
    for n in range(4):
        bench.recipe("plain", **training(0.01 * (n + 1)))
        bench.build("plain", days_ago=100 - n)
        bench.recipe("released", **training(0.02 * (n + 1)), pairs={"min_margin": 0.1 * n})
        if n < 3:
            releases.append(bench.release("released", days_ago=100 - n))
        bench.recipe("half", **training(0.031 * (n + 1)))
        bench.build("half", to="implicit_pairs" if n == 3 else "evaluation_report", days_ago=100 - n)
        bench.recipe("curve", **training(0.04 * (n + 1)), evaluation={"learning_curve": {"shares": [0.25, 0.5]}})
        bench.build("curve", days_ago=100 - n)
        seeded = {**TOY, **training(0.05 * (n + 1)), "seeds": [1, 2]}
        (bench.folder / "recipes" / "seeded.yaml").write_text(yaml.safe_dump(seeded))
        for seed in (1, 2):
            bench.build(f"seeded@{seed}", days_ago=100 - n)
        bench.recipe("gone", **training(0.06 * (n + 1)))
        bench.build("gone", days_ago=100 - n)
    (bench.folder / "recipes" / "gone.yaml").unlink()
    return releases


def test_every_recipe_is_as_up_to_date_as_before_and_every_release_traces(bench: Bench) -> None:
    releases = grow(bench)
    states = bench.states()
    versions = {
        (key, asset): earlier(bench.store, bench.book.load(key), want)
        for key in bench.book.partition_keys()
        for asset in STAGES
        if (want := _wanted_or_none(bench, key, asset))
    }
    assert {key: state is None for key, state in states.items()} == {
        "plain": True, "released": False, "half": False, "curve": True, "seeded@1": True, "seeded@2": True,
    }  # fmt: skip
    for gone_recipes in (False, True):
        before = results(bench.store)
        removed = bench.prune(gone_recipes=gone_recipes)
        assert bench.states() == states
        for release in releases:
            found = assets_of(None, bench.store.folder("hub_release", release.digest) / "release")
            assert set(found) == {*DATA, "reward_model"}
        for (key, asset), version in versions.items():  # drift is still measured against the version before
            recipe = bench.book.load(key)
            assert earlier(bench.store, recipe, wanted(bench.store, recipe, asset)) == version
        left = results(bench.store)
        assert 0 < len(left) < len(before) and set(left) < set(before) and len(removed) == len(before) - len(left)
        for asset, digest in left:  # what is left was made from what is left
            manifest = bench.store.manifest(asset, digest)
            assert manifest and all((asset_of(n), e["digest"]) in left for n, e in manifest.inputs.items())
        assert bench.prune(gone_recipes=gone_recipes) == []


def _wanted_or_none(bench: Bench, key: str, asset: str) -> Any:
    try:
        return wanted(bench.store, bench.book.load(key), asset)
    except StoreError:
        return None


def test_models_that_nothing_needs_go_and_the_two_newest_stay(bench: Bench) -> None:
    digests = []
    for n in range(4):
        bench.recipe(**training(0.01 * (n + 1)))
        digests.append(bench.build("toy", to="reward_model", days_ago=100 - n))
    plan = bench.plan()
    assert [(r.what, r.why) for r in plan.removals] == [
        (f"reward_model {digest[:12]}", "recipe toy wants another") for digest in sorted(digests[:2], reverse=True)
    ]
    assert plan.kept.keys() == {"recipe toy", "recipe toy, the version before"}
    bench.prune()
    assert [digest for asset, digest in results(bench.store) if asset == "reward_model"] == sorted(digests[2:])


def test_the_data_that_a_seed_made_before_is_what_every_seed_is_measured_against(bench: Bench) -> None:
    def seeds(*numbers: int) -> None:
        (bench.folder / "recipes" / "s.yaml").write_text(yaml.safe_dump({**TOY, "seeds": list(numbers)}))

    seeds(1, 2)
    bench.build("s@1", to="prompts")
    (first,) = bench.store.manifests("prompts")
    seeds(2)
    bench.write("prompts.jsonl", [{"prompt": "another"}])
    recipe = bench.book.load("s@2")
    found = find_outdated(bench.store, recipe, Fingerprints(bench.home / "fingerprints").of)
    assert found and reasons(bench.store, recipe, found)[0].startswith("prompts.source.files: [")
    bench.build("s@2", to="prompts", days_ago=99)
    assert bench.prune(gone_recipes=True) == []
    assert earlier(bench.store, recipe, wanted(bench.store, recipe, "prompts")) == first


def test_what_is_young_stays(bench: Bench) -> None:
    for n in range(4):
        bench.recipe(**training(0.01 * (n + 1)))
        bench.build("toy", to="reward_model", days_ago=40 - 10 * n)
    assert len(bench.plan(35).removals) == 1 and len(bench.plan(25).removals) == 2
    assert "younger than 35 days" in bench.plan(35).kept
    assert len(bench.plan(35, now=time.time() + 10 * DAY).removals) == 2


def test_a_recipe_that_cannot_be_judged_keeps_all_that_it_made(bench: Bench) -> None:
    for n in range(4):
        bench.recipe(**training(0.01 * (n + 1)))
        bench.build("toy", days_ago=100 - n)
    assert bench.plan().removals
    (bench.folder / "recipes" / "test.jsonl").unlink()
    plan = bench.plan()
    assert plan.removals == [] and "recipe toy cannot be judged [DATA_001]" in plan.kept
    (bench.folder / "recipes" / "toy.yaml").write_text("prompts: 3\n")
    assert bench.plan().removals == []


def test_what_recipes_made_that_are_not_here_goes_when_asked_for(bench: Bench) -> None:
    bench.recipe()
    bench.build("toy")
    (bench.folder / "recipes" / "toy.yaml").unlink()
    bench.recipe("other", evaluation={"num_canaries": 2})

    def said(**options: bool) -> str:
        out = io.StringIO()
        given = {"gone_recipes": False, "apply": False, **options}
        prune_command(30, **given, console=Console(file=out, width=120))
        return out.getvalue()

    assert "0 would go" in said() and "recipe toy is not here" in said()
    assert "2 would go" in said(gone_recipes=True) and "Nothing was removed" in said(gone_recipes=True)
    assert len(results(bench.store)) == 7
    assert "2 of 2 removed" in said(gone_recipes=True, apply=True)
    left = results(bench.store)  # what `other` wants, too
    assert [asset for asset, _ in left] == [
        "prompts",
        "sampled_responses",
        "gold_rewards",
        "implicit_pairs",
        "reward_model",
    ]


def test_a_folder_that_a_recipe_names_stays_with_what_it_was_made_from(bench: Bench) -> None:
    bench.recipe("first")
    model = bench.build("first", to="reward_model")
    (bench.folder / "recipes" / "first.yaml").unlink()
    path = bench.store.folder("reward_model", model) / "rows"
    bench.write("others.jsonl", [{"prompt": "else"}])
    source = {"kind": "files", "files": ["others.jsonl"]}
    bench.recipe("second", prompts={"source": source}, training={**TOY["training"], "base": {"path": str(path)}})
    plan = bench.plan(gone_recipes=True)
    assert plan.removals == [] and plan.kept["recipe second names its folder"][0] == 5
    bench.recipe("second", prompts={"source": source})
    assert len(bench.plan(gone_recipes=True).removals) == 5


def test_what_is_being_made_and_what_it_reads_stays(bench: Bench) -> None:
    bench.recipe()
    model = bench.build("toy", to="reward_model")
    want = wanted(bench.store, bench.book.load("toy"), "reward_model")
    (bench.folder / "recipes" / "toy.yaml").unlink()
    folder, inputs = bench.store.folder("reward_model", model), {n: m.digest for n, m in want.inputs.items()}
    (folder / "manifest.json").unlink()
    write_json(folder / "request.json", {"inputs": inputs})
    age(folder, 100)
    with open(folder.with_name(f"{model}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        plan = bench.plan(gone_recipes=True)
        assert plan.removals == [] and plan.kept["being made"][0] == 5
    with bench.store.hearing("reward_model", model):  # made elsewhere, and its figures are kept here
        assert bench.plan(gone_recipes=True).removals == []
    later = bench.plan(gone_recipes=True)
    assert len(later.removals) == 5 and "never finished" in later.removals[0].why
    with open(folder.with_name(f"{model}.lock"), "w") as lock:  # since the plan was made
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune(bench.store, later) == 0
    assert len(results(bench.store)) == 5


def test_what_a_comparison_reads_while_it_runs_stays(bench: Bench) -> None:
    bench.recipe()
    gold = bench.build("toy", to="gold_rewards")
    bench.build("toy", to="implicit_pairs")
    (bench.folder / "recipes" / "toy.yaml").unlink()
    write_json(
        bench.home / ".judge-1" / "request.json", {"gold": str(bench.store.folder("gold_rewards", gold) / "rows")}
    )
    assert [line.partition("/")[0] for line in bench.prune(gone_recipes=True)] == ["implicit_pairs"]


def test_the_state_of_what_a_recipe_wants_and_was_cut_short_stays(bench: Bench) -> None:
    bench.recipe()
    bench.build("toy", to="implicit_pairs")
    want = wanted(bench.store, bench.book.load("toy"), "reward_model")
    state = bench.store.folder("reward_model", want.digest) / "work" / "step.json"
    write_json(state, 1)
    age(bench.home / "reward_model", 100)
    assert bench.prune(gone_recipes=True) == [] and state.is_file()
    bench.recipe(**training(0.9))
    assert len(bench.prune(gone_recipes=True)) == 1 and not state.exists()


def test_the_models_of_a_learning_curve_stay_while_its_report_is_not_made(bench: Bench) -> None:
    bench.recipe(evaluation={"learning_curve": {"shares": [0.25, 0.5]}})
    report = bench.build("toy", to="evaluation_report")
    shutil.rmtree(bench.store.folder("evaluation_report", report))
    assert len(results(bench.store)) == 7 and bench.prune() == []


def test_a_cache_of_a_bucket_is_pruned_without_fetching_what_stays(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/bucket"
    bench.home = cache_of(url)
    bench.recipe("released")
    bench.release("released")
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "another"))
    bench.home = cache_of(url)
    assert bench.prune() == [] and results(bench.store) == []
    want = wanted(bench.store, bench.book.load("released"), "reward_model")
    age(bench.store.folder("reward_model", want.digest), 100)  # here since somebody read it; the release of it is not
    (bench.folder / "recipes" / "released.yaml").unlink()
    assert bench.prune(gone_recipes=True) == [] and results(bench.store) == [("reward_model", want.digest)]


def test_what_was_written_since_the_plan_was_made_stays(bench: Bench) -> None:
    bench.recipe()
    digest = bench.build("toy", to="prompts")
    (bench.folder / "recipes" / "toy.yaml").unlink()
    plan, said = bench.plan(gone_recipes=True), []
    os.utime(bench.store.folder("prompts", digest) / "manifest.json")
    assert prune(bench.store, plan, said.append) == 0 and said[0].startswith("left, it is in use again")
    assert len(results(bench.store)) == 1


def test_what_was_released_or_found_made_since_the_plan_was_made_stays(bench: Bench) -> None:
    for n in range(5):
        bench.recipe(**training(0.01 * (n + 1)))
        bench.build("toy", days_ago=100 - n)
    plan = bench.plan()
    bench.recipe(**training(0.01))  # back to the first: all of it is there
    release = bench.release("toy")
    bench.recipe(**training(0.02))
    made = Compute(home=str(bench.home)).make_asset(bench.book.load("toy"), "reward_model", say=print, debug=print)
    assert made.was_there
    prune(bench.store, plan)
    assert Registry(bench.store).folder(release).is_dir() and Registry(bench.store).model(release).parent.is_dir()
    assert bench.store.manifest("reward_model", made.manifest.digest)
    assert len([asset for asset, _ in results(bench.store) if asset == "reward_model"]) == 4  # of five


@pytest.mark.parametrize("calls", [0, 2])
def test_a_kill_midway_leaves_a_store_that_can_be_pruned_again(
    bench: Bench, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        bench.recipe(**training(0.01 * (n + 1)))
        bench.build("toy", days_ago=100 - n)
    states, plan, whole = bench.states(), bench.plan(gone_recipes=True), module.shutil.rmtree
    left = [calls]

    def killed(path: Path) -> None:
        if left[0] == 0:
            (path / "rows").unlink(missing_ok=True)
            raise KeyboardInterrupt
        left[0] -= 1
        whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(bench.store, plan)
    assert bench.states() == states
    for asset in STAGES:  # no manifest names a file that is gone
        committed = list((bench.home / asset).glob("*/manifest.json"))
        assert len(list(bench.store.manifests(asset))) == len(committed)
    age(bench.home, 100)
    bench.prune(gone_recipes=True)
    assert bench.plan(gone_recipes=True).removals == [] and bench.states() == states


def test_nothing_outside_the_store_goes_and_no_link_is_followed(bench: Bench, tmp_path: Path) -> None:
    bench.recipe()
    digest = bench.build("toy", to="prompts")
    (bench.folder / "recipes" / "toy.yaml").unlink()
    outside = tmp_path / "outside"
    (outside / ("f" * 32)).mkdir(parents=True)
    (outside / ("f" * 32) / "file").write_text("mine")
    (bench.home / "gold_rewards").symlink_to(outside)
    (bench.home / "prompts" / ("e" * 32)).symlink_to(outside)
    (bench.store.folder("prompts", digest) / "link").symlink_to(outside)
    (bench.home / ".judge-x").symlink_to(outside)
    (bench.home / "prompts" / "my backup").mkdir()
    age(bench.home, 100)
    age(outside, 100)
    assert bench.prune(gone_recipes=True) == [f"prompts/{digest}"]
    assert (outside / ("f" * 32) / "file").read_text() == "mine"
    assert sorted(p.name for p in (bench.home / "prompts").iterdir() if p.suffix != ".lock") == ["e" * 32, "my backup"]


def test_what_killed_processes_left_goes_after_a_day(bench: Bench) -> None:
    bench.recipe()
    digest = bench.build("toy", to="reward_model")
    folder = bench.store.folder("reward_model", digest)
    left = [
        bench.home / ".judge-1" / "0.parquet", bench.home / ".rescore-2" / "request.json",
        bench.home / "shards" / "responses" / "abc" / ".def.parquet.12.tmp", folder / "work" / "step.json",
    ]  # fmt: skip
    stays = [bench.home / "shards" / "responses" / "abc" / "def.parquet", folder / ".hidden"]
    for file in (*left, *stays):
        write_json(file, {})
    for path in (*left, bench.home / ".judge-1", bench.home / ".rescore-2", folder / "work"):
        age(path, 0.9)
    assert bench.prune(gone_recipes=True) == []
    age(bench.home, 1.1)
    with locked(bench.home / ".judge-1" / "lock"):  # it waits for the device since
        age(bench.home, 1.1)
        assert ".judge-1" not in [removal.what for removal in bench.plan(gone_recipes=True).removals]
    assert sorted(bench.prune(gone_recipes=True)) == [
        ".judge-1", ".rescore-2", f"reward_model/{digest}/work", "shards/responses/abc/.def.parquet.12.tmp",
    ]  # fmt: skip
    assert all(file.is_file() for file in stays) and bench.store.manifest("reward_model", digest)


def test_a_manifest_that_cannot_be_read_of_what_must_stay_stops_it(bench: Bench) -> None:
    bench.recipe()
    release = bench.release("toy")
    (bench.store.folder("hub_release", release.digest) / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"STORE_003.*does not say what it was made from"):
        bench.plan(gone_recipes=True)


def test_an_unreadable_manifest_among_the_inputs_of_what_must_stay_stops_it(bench: Bench) -> None:
    bench.recipe(**training(0.1))
    bench.build("toy", to="reward_model")
    (pairs,) = bench.store.manifests("implicit_pairs")
    bench.recipe(**training(0.2), pairs={"min_margin": 0.1})
    bench.build("toy", to="implicit_pairs")
    (bench.store.folder("implicit_pairs", pairs.digest) / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="STORE_003"):
        bench.plan()


def test_a_release_keeps_its_lineage_though_a_file_of_it_is_damaged(bench: Bench) -> None:
    bench.recipe()
    release = bench.release("toy")
    (bench.folder / "recipes" / "toy.yaml").unlink()
    (bench.store.folder("reward_model", _inputs(bench, release)["reward_model"]) / "rows").write_text("short")
    assert bench.plan(gone_recipes=True).removals == []


def _inputs(bench: Bench, release: Release) -> dict[str, str]:
    file = bench.store.folder("hub_release", release.digest) / "manifest.json"
    return {name: entry["digest"] for name, entry in json.loads(file.read_text())["inputs"].items()}


def test_what_shares_its_files_with_what_stays_frees_nothing(bench: Bench) -> None:
    bench.recipe()
    digest = bench.build("toy", to="prompts")
    rows, other = bench.store.folder("prompts", digest) / "rows", bench.home / "elsewhere"
    (bench.folder / "recipes" / "toy.yaml").unlink()
    plan = bench.plan(gone_recipes=True)
    assert plan.freed_bytes == plan.removals[0].num_bytes
    os.link(rows, other)
    assert bench.plan(gone_recipes=True).freed_bytes == plan.freed_bytes - rows.stat().st_size


def test_the_event_files_of_a_training_go_with_its_model(bench: Bench) -> None:
    bench.recipe()
    digest = bench.build("toy", to="reward_model")
    events = bench.store.event_files("toy", digest)
    write_json(events / "events", 1)
    (bench.folder / "recipes" / "toy.yaml").unlink()
    bench.prune(gone_recipes=True)
    assert not events.exists() and results(bench.store) == []


def test_of_a_store_at_a_url_the_cache_alone_is_pruned_and_nothing_is_fetched(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_machine(name: str) -> None:
        monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / name))
        bench.home = home_of(f"file://{tmp_path}/bucket")

    on_machine("one")
    digests = []
    for n in range(4):
        bench.recipe(**training(0.01 * (n + 1)))
        if n == 1:
            bench.release("toy", days_ago=100 - n)
        digests.append(bench.build("toy", to="reward_model", days_ago=100 - n))
    assert bench.prune() == [f"reward_model/{digests[0]}"]
    assert bench.store.manifest("reward_model", digests[0])  # in the bucket
    on_machine("two")
    assert bench.store.manifest("reward_model", digests[1])  # heard of: from here on `folder` fetches it
    age(bench.store.folder("reward_model", digests[1]), 100)
    assert results(bench.store) == [("reward_model", digests[1])]
    assert bench.prune() == [] and results(bench.store) == [("reward_model", digests[1])]
