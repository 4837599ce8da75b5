"""Comparisons of reward models, committed in the store: HOME/model_comparison/<digest>/ with JSON, CSV and a plot."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rm_assets.core.digests import digest
from rm_assets.core.errors import RmAssetsError, StoreError
from rm_assets.core.recipe import Recipe
from rm_assets.core.report.comparison_table import as_csv, compare_all
from rm_assets.core.report.plots import forest
from rm_assets.resources.judgement import Judged, Say, find_models, judge, load_first, seeds_together
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.files import whole_file, write_json, write_text
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Manifest, Store

ASSET = "model_comparison"
VERSION = 4
"""To be raised when a comparison of the same rewards comes out otherwise."""
FILES = ("comparison.json", "comparison.csv", "comparison.png")


@dataclass(frozen=True)
class Comparison:
    """A committed comparison; `plot` is its PNG in base64."""

    on: str
    found: dict[str, Any]
    folder: Path
    data_version: str

    @property
    def plot(self) -> str:
        """The PNG in base64."""
        return base64.b64encode((self.folder / FILES[2]).read_bytes()).decode()


def compare_models_on(
    store: Store, on: Recipe, names: Sequence[str], *, max_length: int | None = None, say: Say
) -> tuple[dict[str, Any], list[Judged]]:
    """The comparison (see core.report.comparison_table.compare_all) of the models of these names with "warnings", and what it was made of."""
    judged = judge(store, on, find_models(store, on, names, max_length=max_length), needs_reports=False, say=say)
    rewards = {each.candidate.name: each.rewards for each in judged}
    warnings = [each.warning for each in judged if each.warning]
    return compare_all(rewards, seeds_together(judged), on.evaluation) | {"warnings": warnings}, judged


def compare_on(store: Store, on: str, names: Sequence[str], *, say: Say, run_id: str = "") -> Comparison:
    """Compares and commits; equal rewards give the same comparison. Without names, all recipes with a report on the responses.

    Raises: StoreError STORE_002 without a report, or as `find_models` and `judge`.
    """
    reported = _reported(store)
    recipe = load_first(on) if on else _newest(store, reported)
    gold = wanted(store, recipe, "gold_rewards").manifest
    data_version = gold.data_version if gold else None
    own = [name for name, report in reported.items() if report.inputs["gold_rewards"]["data_version"] == data_version]
    found, judged = compare_models_on(store, recipe, names or own or [recipe.name], say=say)
    rewards = {each.candidate.name: [[row.response_id, row.reward] for row in each.rewards] for each in judged}
    settings = {"on": recipe.name, "evaluation": recipe.evaluation.model_dump(mode="json"), "models": list(rewards)}
    name = digest({"version": VERSION, "gold": data_version, "settings": settings, "rewards": rewards})
    folder = store.folder(ASSET, name)
    with store.lease(ASSET, name):
        manifest = store.manifest(ASSET, name)
        if manifest is None:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / FILES[0], found)
            write_text(folder / FILES[1], as_csv(found))
            with whole_file(folder / FILES[2]) as temporary:
                temporary.write_bytes(forest(found, length=found["length"]))
            record = {
                "asset": ASSET, "digest": name, "recipe": recipe.name, "stage_version": VERSION, "settings": settings,
                "inputs": {"gold_rewards": {"digest": gold.digest, "data_version": gold.data_version}} if gold else {},
                "counts": {"test_pairs": found["num_pairs"], "models": len(found["models"])}, "work": {},
                "made": {
                    "at": datetime.now(UTC).isoformat(timespec="seconds"), "run_id": run_id,
                    "rm_assets": version("rm-assets"),
                },
            }  # fmt: skip
            manifest = store.commit(record, folder, list(FILES))
    return Comparison(recipe.name, found, store.folder(ASSET, name), manifest.data_version)


def _reported(store: Store) -> dict[str, Manifest]:
    """The committed report of each recipe that has one as it is now."""
    found, book = {}, recipe_book()
    for key in book.partition_keys():
        try:
            manifest = wanted(store, book.load(key), "evaluation_report").manifest
        except RmAssetsError:  # a recipe that is not valid, or not made up to there, is no candidate
            continue
        if manifest:
            found[key] = manifest
    return found


def _newest(store: Store, reported: dict[str, Manifest]) -> Recipe:
    if not reported:
        raise StoreError(
            "STORE_002",
            f"no recipe has an evaluation report (store: {store.home})",
            fix="run `rm-assets run RECIPE` first",
        )
    return recipe_book().load(max(reported, key=lambda name: reported[name].made["at"]))
