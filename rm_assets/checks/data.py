"""Checks of assets, one for each entry of TABLE_CHECKS. With severity `error`, what would be built on a fault is not built."""

from typing import Any

import dagster as dg

from rm_assets.checks.recipe_check import SEVERITIES, check_result, made_asset, recipe_check
from rm_assets.core.checks.data import DATA_CHECKS
from rm_assets.core.checks.drift import DRIFT_CHECKS
from rm_assets.core.checks.finding import TURNED_OFF, DataCheck, EarlierTable, Finding
from rm_assets.core.checks.inputs import TRAINING_CHECKS
from rm_assets.core.checks.splits import SPLIT_CHECKS
from rm_assets.core.recipe import ChecksSection, Recipe
from rm_assets.resources.compute import Compute
from rm_assets.storage.lineage import Wanted, earlier
from rm_assets.storage.store import Store
from rm_assets.storage.tables import TABLES, Table
from rm_assets.tasks.train import TRAINED_PAIRS_FILE

ASSETS = {
    "prompts": "prompts",
    "responses": "sampled_responses",
    "rewards": "gold_rewards",
    "pairs": "implicit_pairs",
}
"""By what a check calls its table."""
TABLE_CHECKS = {**SPLIT_CHECKS, **DATA_CHECKS, **DRIFT_CHECKS, **TRAINING_CHECKS}
CHECKS_OF_TRAINING = ("enough_pairs", "length_does_not_decide", "training_pairs_add_up", "evaluation_is_not_trained_on")
"""What they look at is known only of a model that the recipe trains."""
NOT_TRAINED_HERE = Finding(
    True, "not known: the recipe takes an existing model, and what it was trained on is not known here", looked=False
)


def _declare(name: str, check: DataCheck) -> dg.AssetChecksDefinition:
    def run(context: dg.AssetCheckExecutionContext, compute: Compute) -> dg.AssetCheckResult:
        recipe, store = compute.recipe(context.partition_key), compute.store()
        settings = getattr(recipe.checks, name)
        if settings.severity == "ignore":
            return check_result(TURNED_OFF)
        if recipe.training.kind == "existing" and name in CHECKS_OF_TRAINING:
            return check_result(NOT_TRAINED_HERE)
        want = made_asset(context, store, recipe, check.asset)
        finding = check.find(*(check_input(store, recipe, want, source) for source in check.reads), *settings.limits)
        return check_result(finding, SEVERITIES[settings.severity])

    run.__name__ = name
    return recipe_check(check.asset, blocking=True, description=description_of(name))(run)


def description_of(name: str) -> str:
    """What the check looks at, as the recipe's section says."""
    description = str(ChecksSection.model_fields[name].description).partition(": ")[2]
    return description[:1].upper() + description[1:]


def check_input(store: Store, recipe: Recipe, want: Wanted, source: str) -> Any:
    """A value as `DataCheck` names it, or a table that the asset is or is made from, now or in the version before."""
    if source in ("counts", "facts"):
        return getattr(want.manifest, source, {})
    if source == "pair_counts":
        return want.inputs["implicit_pairs"].counts
    if source == "near_duplicates":
        return recipe.prompts.near_duplicates
    if source == "pairs_section":
        return recipe.pairs
    if source == "trained_pair_ids":
        return (store.folder(want.asset, want.digest) / TRAINED_PAIRS_FILE).read_text("utf-8").split()
    if source.startswith("earlier "):
        before = earlier(store, recipe, want)
        return EarlierTable(_table(store, want.asset, before.digest), before.made["at"]) if before else None
    return _table(store, ASSETS[source], _digest(want, ASSETS[source]))


def _digest(want: Wanted, asset: str) -> str:
    """Of the asset itself, of one that it reads, or of one that this was made from."""
    if asset == want.asset:
        return want.digest
    if asset in want.inputs:
        return want.inputs[asset].digest
    return next(m.inputs[asset]["digest"] for m in want.inputs.values() if asset in m.inputs)


def _table(store: Store, asset: str, digest: str) -> Table[Any]:
    file, record = TABLES[asset]
    return Table(store.folder(asset, digest) / file, record)


table_checks = [_declare(name, check) for name, check in TABLE_CHECKS.items()]
