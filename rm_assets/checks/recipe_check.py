"""What all checks share: they are partitioned by recipe, and turn a finding of the core into Dagster's result."""

import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg

from rm_assets.core.checks.finding import Finding
from rm_assets.resources.recipes import RECIPES

SEVERITIES = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def recipe_check(
    asset: str, *, description: str, blocking: bool = False
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Declares a check of one recipe's asset; `blocking` keeps what depends on the asset from being built."""

    def declare(check: Callable[..., Any]) -> dg.AssetChecksDefinition:
        with warnings.catch_warnings():
            # Partitions of checks are called a preview in the pinned Dagster; without this every command would say so.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(asset=asset, partitions_def=RECIPES, blocking=blocking, description=description)(
                check
            )

    return declare


def check_result(
    finding: Finding, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    """A finding of the core as Dagster's result; `severity` is that of a failure."""
    return dg.AssetCheckResult(
        passed=finding.passed, description=finding.sentence, metadata=finding.numbers, severity=severity
    )
