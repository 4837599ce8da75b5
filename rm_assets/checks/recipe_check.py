"""What all checks share: they are partitioned by recipe, look at what their run made, and turn a finding of the core into Dagster's result."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg

from rm_assets.core.checks.finding import Finding
from rm_assets.core.errors import StoreError
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import asset_of
from rm_assets.resources.compute import errors_as_failures
from rm_assets.resources.partitions import RECIPES
from rm_assets.storage.lineage import Wanted, wanted
from rm_assets.storage.store import Manifest, Store

SEVERITIES = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def recipe_check(
    asset: str, *, description: str, blocking: bool = False
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Declares a check of one recipe's asset; `blocking` keeps what depends on the asset from being built."""

    def declare(check: Callable[..., Any]) -> dg.AssetChecksDefinition:
        @functools.wraps(check)
        def checked(context: dg.AssetCheckExecutionContext, **resources: Any) -> dg.AssetCheckResult:
            with errors_as_failures(f"check {check.__name__}", context.partition_key):
                result: dg.AssetCheckResult = check(context, **resources)
                return result

        with warnings.catch_warnings():
            # Partitions of checks are called a preview in the pinned Dagster; without this every command would say so.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(asset=asset, partitions_def=RECIPES, blocking=blocking, description=description)(
                checked
            )

    return declare


def made_asset(context: dg.AssetCheckExecutionContext, store: Store, recipe: Recipe, asset: str) -> Wanted:
    """What this run made or found of `asset`, else what the recipe wants now: a source may have changed since it was made.

    Raises: StoreError STORE_002 if it, or what it was made from, is not there.
    """
    digest = _digest_in_run(context, asset) or wanted(store, recipe, asset).digest
    manifest = _committed(store, recipe, asset, digest)
    inputs = {
        name: _committed(store, recipe, asset_of(name), entry["digest"]) for name, entry in manifest.inputs.items()
    }
    return Wanted(asset, digest, manifest.settings, inputs, manifest)


def _digest_in_run(context: dg.AssetCheckExecutionContext, asset: str) -> str | None:
    of_recipe = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[context.partition_key])
    for record in context.instance.fetch_materializations(of_recipe, limit=1).records:
        if record.run_id == context.run.run_id and record.asset_materialization:
            return str(record.asset_materialization.metadata["rm/digest"].value)
    return None


def _committed(store: Store, recipe: Recipe, asset: str, digest: str) -> Manifest:
    manifest = store.manifest(asset, digest)
    if manifest is None:
        raise StoreError(
            "STORE_002",
            f"{asset} of recipe '{recipe.name}' has not been made as the recipe wants it now, so there is nothing to check",
            fix=f"run `rm-assets run {recipe.name}`",
        )
    return manifest


def check_result(
    finding: Finding, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    """A finding of the core as Dagster's result; `severity` is that of a failure."""
    return dg.AssetCheckResult(
        passed=finding.passed,
        description=finding.sentence,
        metadata={**finding.numbers, "rm/looked": finding.looked},
        severity=severity,
    )
