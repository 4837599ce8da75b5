"""From a pair of a released model back to its prompt, seeds, gold and versions."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from rm_assets.cli.trace import assets_of, trace
from rm_assets.core.errors import StoreError
from rm_assets.resources.compute import Made
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
    found.print(Console(file=out, width=200))
    for text in ("trained on", "chosen response", "rejected response", found.prompt.prompt, "gold reward 1"):
        assert text in out.getvalue()


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
