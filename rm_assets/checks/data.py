"""Checks of the data assets, one for each entry of core/data_checks.py and core/drift.py. With severity `error`, what would be built on a fault is not built."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from rm_assets.checks.recipe_check import check_result, recipe_check
from rm_assets.core.data_checks import DATA_CHECKS, DataCheck, Finding
from rm_assets.core.drift import DRIFT_CHECKS
from rm_assets.core.recipe import ChecksSection, LimitedCheck, Recipe
from rm_assets.resources.compute import Compute
from rm_assets.storage.lineage import Wanted, earlier, wanted
from rm_assets.storage.store import Store
from rm_assets.storage.tables import TABLES, read_table

ASSETS = {
    "prompts": "prompts",
    "responses": "sampled_responses",
    "rewards": "gold_rewards",
    "pairs": "implicit_pairs",
}
"""By what a check calls its table."""
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
    """The manifest's counts, or the rows of a table that the asset is or reads, now or in the version before."""
    if source == "counts":
        return want.manifest.counts if want.manifest else {}
    if source.startswith("earlier "):
        before = earlier(store, recipe, want)
        return _rows(store, want.asset, before.digest) if before else None
    asset = ASSETS[source]
    return _rows(store, asset, want.digest if asset == want.asset else want.inputs[asset].digest)


def _rows(store: Store, asset: str, digest: str) -> Iterator[Any]:
    file, record = TABLES[asset]
    return read_table(store.folder(asset, digest) / file, record)


data_checks = [_declare(name, check) for name, check in {**DATA_CHECKS, **DRIFT_CHECKS}.items()]
