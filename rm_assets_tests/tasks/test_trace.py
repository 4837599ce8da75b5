"""From a pair of a released model back to its prompt, seeds, gold and versions."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rm_assets.assets.materialization import lineage_cost, materialize_result
from rm_assets.cli.results import Found
from rm_assets.cli.trace import assets_of, trace
from rm_assets.core.errors import StoreError
from rm_assets.resources.compute import Compute, Made
from rm_assets_tests.tasks.conftest import Bench

Chain = tuple[Bench, dict[str, Made]]


@pytest.fixture
def released(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> Path:
    bench, made = chain
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    return made["hub_release"].folder / "release"


def test_a_trained_pair_leads_back_to_its_rows_and_versions(chain: Chain, released: Path) -> None:
    bench, made = chain
    (row, *_) = [p for p in bench.rows(made["implicit_pairs"]) if p.split == "train"]
    found = trace(assets_of(None, released), pair=row.pair_id, response=None, prompt=None)
    assert found.pair == row and found.was_trained_on is True
    assert [reward.response_id for reward in found.rewards] == [row.chosen_id, row.rejected_id]
    assert [reward.gold_reward for reward in found.rewards] == [1.0, 0.0]
    assert found.prompt.prompt_id == row.prompt_id
    assert {name: m.digest for name, m in found.assets.items()} == {
        name: made[name].manifest.digest
        for name in ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs", "reward_model")
    }
    assert found.as_json()["assets"]["gold_rewards"]["made"]["run_id"] == made["gold_rewards"].manifest.made["run_id"]
    out = io.StringIO()
    found.print(Console(file=out, width=80))
    for name, asset in found.assets.items():  # in 80 columns as in more
        at = asset.made["at"][:19]
        assert (
            f"{name} {asset.digest[:12]}\n  made {at}, version {asset.stage_version} of the stage\n" in out.getvalue()
        )
    for text in ("trained on", "chosen response", "rejected response", found.prompt.prompt, "gold reward 1"):
        assert text in out.getvalue()


def test_seconds_and_price_are_those_of_the_manifests_and_their_sum(
    chain: Chain, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, made = chain
    (tmp_path / "prices.yaml").write_text("- {device: local, usd_per_hour: 3600}\n")  # a dollar a second
    monkeypatch.setenv("RM_ASSETS_PRICES", str(tmp_path / "prices.yaml"))
    row = next(iter(bench.rows(made["gold_rewards"])))
    found = trace(assets_of(None, released), pair=None, response=row.response_id, prompt=None)
    seconds = {name: made[name].manifest.made["seconds"] for name in found.assets}
    costs = {name: entry["cost"] for name, entry in found.as_json()["assets"].items()}
    assert {name: cost["usd"] for name, cost in costs.items()} == pytest.approx(seconds)
    assert {(cost["executor"], cost["device"], cost["num_devices"]) for cost in costs.values()} == {("local", "cpu", 1)}
    out = io.StringIO()
    found.print(Console(file=out, width=200))
    assert f"all of these took {sum(seconds.values()):,.1f} s, {sum(seconds.values()):,.4f} USD" in out.getvalue()
    whole = lineage_cost(Compute(home=str(bench.home)).store(), made["hub_release"].manifest)
    assert whole["rm/lineage_seconds"] == pytest.approx(sum(m.manifest.made["seconds"] for m in made.values()))
    assert whole["rm/lineage_usd"] == pytest.approx(whole["rm/lineage_seconds"])
    own = materialize_result(made["reward_model"]).metadata
    assert own is not None and own["rm/device"] == "1 x cpu" and own["rm/usd"] == pytest.approx(seconds["reward_model"])
    monkeypatch.setenv("RM_ASSETS_PRICES", str(tmp_path / "nowhere.yaml"))
    own = materialize_result(made["reward_model"]).metadata
    assert own is not None and "rm/usd" not in own and "PLAN_002" in str(own["rm/price"])


def test_the_commits_of_datasets_are_said(chain: Chain, released: Path) -> None:
    bench, made = chain
    assets = assets_of(None, released)
    row = next(iter(bench.rows(made["gold_rewards"])))
    gold = replace(assets["gold_rewards"], facts={"dataset_commits": {"me/data": "0123456789abcdef"}})
    found = trace({**assets, "gold_rewards": gold}, pair=None, response=row.response_id, prompt=None)
    out = io.StringIO()
    found.print(Console(file=out, width=80))
    assert "\n  dataset me/data at commit 0123456789ab\n" in out.getvalue()
    assert found.as_json()["assets"]["gold_rewards"]["dataset_commits"] == {"me/data": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("asset", "column"), [("prompts", "prompt_id"), ("gold_rewards", "response_id"), ("implicit_pairs", "pair_id")]
)
def test_examples_are_shown_with_the_ids_that_are_traced(chain: Chain, asset: str, column: str) -> None:
    bench, made = chain
    out = io.StringIO()
    Found(asset, made[asset].manifest, made[asset].folder).print(Console(file=out, width=80))
    for row, example in zip(bench.rows(made[asset])[:3], made[asset].manifest.examples[:3], strict=True):
        first = next(iter(example))
        assert f"{column} {getattr(row, column)}\n{first} {example[first]}\n" in out.getvalue()


def test_a_test_pair_was_not_trained_on(chain: Chain, released: Path) -> None:
    bench, made = chain
    (row, *_) = [p for p in bench.rows(made["implicit_pairs"]) if p.split == "test"]
    assert trace(assets_of(None, released), pair=row.pair_id, response=None, prompt=None).was_trained_on is False


def test_responses_and_prompts_are_traced_too(chain: Chain, released: Path) -> None:
    bench, made = chain
    assets = assets_of(None, released)
    (row, *_) = bench.rows(made["gold_rewards"])
    assert trace(assets, pair=None, response=row.response_id, prompt=None).rewards == [row]
    of_prompt = trace(assets, pair=None, response=None, prompt=row.prompt_id)
    assert [reward.sample_index for reward in of_prompt.rewards] == [0, 1]


@pytest.mark.parametrize("what", ["pair", "response", "prompt"])
def test_an_unknown_id_is_store_002(what: str, released: Path) -> None:
    ids = {"pair": None, "response": None, "prompt": None} | {what: "nope"}
    with pytest.raises(StoreError, match=f"no {what} 'nope'") as caught:
        trace(assets_of(None, released), **ids)
    assert caught.value.code == "STORE_002"


def test_a_folder_that_is_no_release_is_store_002(tmp_path: Path, released: Path) -> None:
    with pytest.raises(StoreError, match="holds no lineage"):
        assets_of(None, tmp_path)
