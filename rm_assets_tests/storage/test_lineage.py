"""What a recipe wants of an asset, from the committed state of what the asset reads."""

from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import DataError, StoreError
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import STAGES
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.lineage import earlier, wanted
from rm_assets.storage.outdated import find_outdated
from rm_assets.storage.store import Store


def recipe(folder: Path, name: str = "mine", **changes: Any) -> Recipe:
    sections: dict[str, Any] = {
        "prompts": {"source": {"kind": "generator", "num_prompts": 10}},
        "sampling": {"kind": "recorded", "source": {"kind": "files", "files": [str(folder / "responses.jsonl")]}},
        "gold": {"kind": "verifier"},
        "training": {"base": {"path": str(folder / "base")}, "learning_rate": 0.1},
    }
    return Recipe.model_validate({"name": name, **sections, **changes})


def commit(
    store: Store, mine: Recipe, asset: str, content: str = "rows", at: str = "", stage_version: int | None = None
) -> str:
    """Commits a result with this content as what `mine` wants of `asset`, and returns its digest."""
    want = wanted(store, mine, asset)
    folder = store.folder(asset, want.digest)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows").write_text(content)
    record: dict[str, Any] = {
        "asset": asset, "digest": want.digest, "recipe": mine.name, "stage_version": stage_version or STAGES[asset].version, "settings": want.settings,
        "inputs": {}, "counts": {}, "work": {}, "made": {"at": at},
    }  # fmt: skip
    store.commit(record, folder, ["rows"])
    return want.digest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "responses.jsonl").write_text("{}")
    return Store(tmp_path / "home")


def test_what_has_not_been_made_has_a_digest_and_no_manifest(tmp_path: Path, store: Store) -> None:
    want = wanted(store, recipe(tmp_path), "prompts")
    assert want.manifest is None and len(want.digest) == 32 and want.inputs == {}


def test_an_asset_whose_input_is_not_made_is_store_002(tmp_path: Path, store: Store) -> None:
    with pytest.raises(StoreError, match=r"sampled_responses of recipe 'mine' needs prompts.*") as caught:
        wanted(store, recipe(tmp_path), "sampled_responses")
    assert caught.value.code == "STORE_002"


def test_what_was_made_is_found_under_another_name_and_execution(tmp_path: Path, store: Store) -> None:
    of_digest = commit(store, recipe(tmp_path), "prompts")
    other = recipe(tmp_path, "other", description="words", execution={"num_threads": 3})
    found = wanted(store, other, "prompts")
    assert found.digest == of_digest and found.manifest is not None and found.manifest.recipe == "mine"


def test_another_section_is_another_digest_and_leaves_the_first(tmp_path: Path, store: Store) -> None:
    of_digest = commit(store, recipe(tmp_path), "prompts")
    changed = recipe(tmp_path, prompts={"source": {"kind": "generator", "num_prompts": 11}})
    assert wanted(store, changed, "prompts").manifest is None
    assert wanted(store, recipe(tmp_path), "prompts").digest == of_digest


def test_equal_content_upstream_changes_nothing_downstream(tmp_path: Path, store: Store) -> None:
    first, second = recipe(tmp_path), recipe(tmp_path, prompts={"source": {"kind": "generator", "num_prompts": 11}})
    other = recipe(tmp_path, prompts={"source": {"kind": "generator", "num_prompts": 12}})
    assert commit(store, first, "prompts", "same") != commit(store, second, "prompts", "same")
    commit(store, other, "prompts", "other")
    digests = [wanted(store, r, "sampled_responses").digest for r in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]


def test_the_state_of_what_is_out_of_date_names_what_it_is_made_from(tmp_path: Path, store: Store) -> None:
    states = []
    for number, content in ((10, "same"), (11, "same"), (12, "other")):
        of = recipe(tmp_path, prompts={"source": {"kind": "generator", "num_prompts": number}})
        commit(store, of, "prompts", content)
        found = find_outdated(store, of, Fingerprints(tmp_path / "fingerprints").of)
        assert found and found.assets[0] == "sampled_responses"
        states.append(found.state)
    assert states[0] == states[1] != states[2]


def test_the_content_of_a_source_counts_and_its_place_does_not(tmp_path: Path, store: Store) -> None:
    mine = recipe(tmp_path)
    commit(store, mine, "prompts")
    before = wanted(store, mine, "sampled_responses").digest
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "responses.jsonl").write_text("{}")
    assert wanted(store, recipe(tmp_path / "moved"), "sampled_responses").digest == before
    (tmp_path / "responses.jsonl").write_text("{ }")
    assert wanted(store, mine, "sampled_responses").digest != before


def test_a_source_that_is_gone_is_data_001(tmp_path: Path, store: Store) -> None:
    mine = recipe(tmp_path)
    commit(store, mine, "prompts")
    (tmp_path / "responses.jsonl").unlink()
    with pytest.raises(DataError, match=r"responses\.jsonl does not exist") as caught:
        wanted(store, mine, "sampled_responses")
    assert caught.value.code == "DATA_001"


def test_the_run_seed_enters_the_training_alone(tmp_path: Path, store: Store) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    one, two = recipe(tmp_path, seed=1), recipe(tmp_path, seed=2)
    for asset in ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs"):
        assert commit(store, one, asset) == wanted(store, two, asset).digest
    assert wanted(store, one, "reward_model").digest != wanted(store, two, "reward_model").digest


def test_the_data_before_is_that_of_any_seed_and_the_model_before_that_of_this_one(
    tmp_path: Path, store: Store
) -> None:
    def version(name: str, num_prompts: int, seed: int = 1) -> Recipe:
        return recipe(tmp_path, name, seed=seed, prompts={"source": {"kind": "generator", "num_prompts": num_prompts}})

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    commit(store, version("mine@1 (smoke)", 9), "prompts", "of a smoke run", "2026-01-04")
    for name, number, at in (("mine@1", 10, "2026-01-01"), ("mine@2", 11, "2026-01-02")):
        for asset in STAGES:
            commit(store, version(name, number, int(name[-1])), asset, f"{asset} {number}", at)
    first, second = version("mine@1", 10, 1), version("mine@2", 11, 2)
    before = earlier(store, version("mine@3", 11, 3), wanted(store, second, "prompts"))
    assert before and before.recipe == "mine@1"
    before = earlier(store, first, wanted(store, first, "implicit_pairs"))
    assert before and before.recipe == "mine@2"
    assert earlier(store, second, wanted(store, second, "reward_model")) is None
    smoke = version("mine@2 (smoke)", 11)
    before = earlier(store, smoke, wanted(store, smoke, "prompts"))
    assert before and before.recipe == "mine@1 (smoke)"


def test_the_version_before_is_what_the_recipe_made_last_of_other_content(tmp_path: Path, store: Store) -> None:
    def version(num_prompts: int, name: str = "mine") -> Recipe:
        return recipe(tmp_path, name, prompts={"source": {"kind": "generator", "num_prompts": num_prompts}})

    def before(of: Recipe) -> str | None:
        found = earlier(store, of, wanted(store, of, "prompts"))
        return found.digest if found else None

    first = commit(store, version(10), "prompts", "first", "2026-01-01")
    assert before(version(10)) is None
    commit(store, version(11, "other"), "prompts", "of another recipe", "2026-01-02")
    second = commit(store, version(12), "prompts", "second", "2026-01-03")
    assert before(version(12)) == first
    commit(store, version(13), "prompts", "second", "2026-01-04")
    assert before(version(13)) == first  # the same content by another way is no other version
    third = commit(store, version(14), "prompts", "third", "2026-01-05")
    assert (
        before(version(12)) == third and before(version(10)) == third
    )  # back to an old one: the last is the version before
    assert second != third
    commit(store, version(15), "prompts", "of an earlier stage", "2026-01-06", STAGES["prompts"].version + 1)
    assert before(version(12)) == third
