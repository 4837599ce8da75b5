"""200 recipes, all made, and 2,000 materializations: definitions, sensors and lineage page stay quick."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from rm_assets.automation import rebuild as rebuild_module
from rm_assets.automation import recipe_changes as changes_module
from rm_assets.core.digests import digest
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.sections import observation
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Store
from rm_assets_tests.web_ui import browser_page, instance_folder, needs_chromium, web_ui

NUM_RECIPES, NUM_MATERIALIZATIONS = 200, 2_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Recipes, a store where each of them is made, of files of one byte, and an instance that has seen it; in memory where
    the system has a place for that, since each of thousands of events waits for a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="many-", dir=memory if memory.is_dir() else None) as place:
        fill(Path(place))
        yield Path(place)


def fill(folder: Path) -> None:
    (folder / "recipes").mkdir()
    for number in range(NUM_RECIPES):
        text = f"extends: embedded\npairs: {{min_margin: {number / 1000}}}\nautomation: {{rebuild: auto}}\n"
        (folder / "recipes" / f"r{number:03}.yaml").write_text(text)
    store, book = Store(folder / "home"), RecipeBook(folder / "recipes")
    with dg.DagsterInstance.from_config(str(instance_folder(folder))) as instance:
        left = NUM_MATERIALIZATIONS
        for number in range(NUM_RECIPES):
            recipe = book.load(f"r{number:03}")
            for asset in STAGES:
                version = make(store, recipe, asset)
                instance.report_runless_asset_event(observation(asset, recipe.name, version))
        while left:
            for number in range(min(left, NUM_RECIPES)):
                asset = list(STAGES)[(left // NUM_RECIPES) % len(STAGES)]
                page = {"page": dg.MetadataValue.md("word " * 10_000)} if asset == "evaluation_report" else {}
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(asset, partition=f"r{number:03}", metadata=page)
                )
            left -= min(left, NUM_RECIPES)


def make(store: Store, recipe: Recipe, asset: str) -> str:
    """Commits an asset as the recipe wants it, with a file of one byte; the version of its section."""
    want = wanted(store, recipe, asset)
    if want.manifest is None:
        of = store.folder(asset, want.digest)
        of.mkdir(parents=True)
        (of / "content").write_text(recipe.name[-1])
        record = {
            "asset": asset, "digest": want.digest, "recipe": recipe.name, "stage_version": STAGES[asset].version,
            "settings": want.settings, "counts": {"rows": 1}, "work": {},
            "inputs": {name: {"digest": m.digest, "data_version": m.version_read_by(asset)} for name, m in want.inputs.items()},
        }  # fmt: skip
        store.commit(record, of, ["content"])
    return digest(want.settings)


def test_the_definitions_load_in_three_seconds(folder: Path) -> None:
    code = (
        "import time, json; from rm_assets.definitions import defs; defs.resolve_asset_graph();"
        "from rm_assets.resources.partitions import RECIPES;"
        "print(json.dumps([time.process_time(), len(RECIPES.get_partition_keys())]))"
    )
    environment = os.environ | {"RM_ASSETS_RECIPES": str(folder / "recipes")}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    seconds, recipes = json.loads(out.stdout)
    print(f"definitions: {seconds:.1f} s")
    assert recipes > NUM_RECIPES and seconds < 3


@pytest.mark.parametrize("name", ["rebuild", "recipe_changes"])
def test_a_look_of_a_sensor_takes_five_seconds_at_most(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(folder / "recipes"))
    monkeypatch.setenv("RM_ASSETS_HOME", str(folder / "home"))
    keys = dg.StaticPartitionsDefinition([f"r{number:03}" for number in range(NUM_RECIPES)])
    module = {"rebuild": rebuild_module, "recipe_changes": changes_module}[name]
    monkeypatch.setattr(module, "RECIPES", keys)
    with (
        dg.DagsterInstance.from_config(str(folder / "dagster")) as instance,
        dg.build_sensor_context(instance=instance, resources={"compute": Compute()}) as context,
    ):
        began = time.process_time()
        result = getattr(module, name)(context)
        seconds = time.process_time() - began
    assert isinstance(result, dg.SensorResult) and not result.run_requests and not result.asset_events
    assert result.skip_reason is not None
    print(f"{name}: {seconds:.1f} s, {result.skip_reason.skip_message[:80]}")
    assert seconds < 5


@needs_chromium
def test_the_lineage_page_opens_quickly(folder: Path, tmp_path: Path) -> None:
    with web_ui(folder, "dagster-webserver") as address, browser_page() as page:
        page.goto(f"{address}/asset-groups")
        page.get_by_text("hub_release").first.wait_for()  # the server has loaded the definitions
        began = time.monotonic()
        page.goto(f"{address}/asset-groups")
        page.get_by_text("recipe_training").first.wait_for()
        seconds = time.monotonic() - began
        page.screenshot(path=tmp_path / "lineage.png")
    print(f"lineage page: {seconds:.1f} s")
    assert seconds < 5
