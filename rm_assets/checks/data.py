"""Checks of the data, one for each entry of core/data_checks.py and core/split_checks.py. With severity `error`, what would be built on a fault is not built."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from rm_assets.checks.recipe_check import check_result, recipe_check
from rm_assets.core.data_checks import DATA_CHECKS, DataCheck, Finding
from rm_assets.core.recipe import ChecksSection, LimitedCheck, Recipe
from rm_assets.core.records import GoldReward, Pair, Prompt, Response
from rm_assets.core.split_checks import SPLIT_CHECKS
from rm_assets.resources.compute import Compute
from rm_assets.storage.lineage import Wanted, wanted
from rm_assets.storage.store import Store
from rm_assets.storage.tables import read_table
from rm_assets.tasks.train import TRAINED_PAIRS_FILE

TABLES: dict[str, tuple[str, str, type[Any]]] = {
    "prompts": ("prompts", "prompts.parquet", Prompt),
    "responses": ("sampled_responses", "responses.parquet", Response),
    "rewards": ("gold_rewards", "gold_rewards.parquet", GoldReward),
    "pairs": ("implicit_pairs", "pairs.parquet", Pair),
}
SEVERITIES = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def _declare(name: str, check: DataCheck) -> dg.AssetChecksDefinition:
    description = str(ChecksSection.model_fields[name].description).partition(": ")[2]

    def run(context: dg.AssetCheckExecutionContext, compute: Compute) -> dg.AssetCheckResult:
        recipe, store = compute.recipe(context.partition_key), compute.store()
        settings = getattr(recipe.checks, name)
        if settings.severity == "off":
            return check_result(Finding(True, "turned off by the recipe"))
        want = wanted(store, recipe, check.asset)
        limit = (settings.limit,) if isinstance(settings, LimitedCheck) else ()
        finding = check.find(*(_input(store, recipe, want, source) for source in check.reads), *limit)
        return check_result(finding, SEVERITIES[settings.severity])

    run.__name__ = name
    return recipe_check(check.asset, blocking=True, description=description[:1].upper() + description[1:])(run)


def _input(store: Store, recipe: Recipe, want: Wanted, source: str) -> Any:
    """A value as `DataCheck` names it, or the rows of a table that the asset is or is made from."""
    if source == "counts":
        return want.manifest.counts if want.manifest else {}
    if source == "near_duplicates":
        return recipe.prompts.near_duplicates
    if source == "trained_pair_ids":
        return _lines(store.folder(want.asset, want.digest) / TRAINED_PAIRS_FILE)
    asset, file, record = TABLES[source]
    rows: Iterator[Any] = read_table(store.folder(asset, _digest(want, asset)) / file, record)
    return rows


def _lines(file: Path) -> Iterator[str]:
    with open(file, encoding="utf-8") as lines:
        yield from (line.strip() for line in lines)


def _digest(want: Wanted, asset: str) -> str:
    """Of the asset itself, of one that it reads, or of one that this was made from."""
    if asset == want.asset:
        return want.digest
    if asset in want.inputs:
        return want.inputs[asset].digest
    return next(m.inputs[asset]["digest"] for m in want.inputs.values() if asset in m.inputs)


data_checks = [_declare(name, check) for name, check in (SPLIT_CHECKS | DATA_CHECKS).items()]
