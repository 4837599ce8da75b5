"""Checks of the data assets, one for each entry of core/data_checks.py. With severity `error`, what would be built on a fault is not built."""

from typing import Any

import dagster as dg

from rm_assets.checks.recipe_check import check_result, recipe_check
from rm_assets.core.data_checks import DATA_CHECKS, DataCheck, Finding
from rm_assets.core.recipe import ChecksSection, LimitedCheck
from rm_assets.core.records import GoldReward, Pair, Prompt, Response
from rm_assets.resources.compute import Compute
from rm_assets.storage.lineage import Wanted, wanted
from rm_assets.storage.store import Store
from rm_assets.storage.tables import Table

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
        finding = check.find(*(table_or_counts(store, want, source) for source in check.reads), *limit)
        return check_result(finding, SEVERITIES[settings.severity])

    run.__name__ = name
    return recipe_check(check.asset, blocking=True, description=description[:1].upper() + description[1:])(run)


def table_or_counts(store: Store, want: Wanted, source: str) -> Any:
    """The manifest's counts, or a table that the asset is or reads."""
    if source == "counts":
        return want.manifest.counts if want.manifest else {}
    asset, file, record = TABLES[source]
    digest = want.digest if asset == want.asset else want.inputs[asset].digest
    return Table(store.folder(asset, digest) / file, record)


data_checks = [_declare(name, check) for name, check in DATA_CHECKS.items()]
