"""Checks of the trained model: those of the gate, behind which a release is built, and of the release itself."""

import json
from typing import Any

import dagster as dg

from rm_assets.checks.recipe_check import SEVERITIES, check_result, made_asset, recipe_check
from rm_assets.core.checks.data import advantage_over_length
from rm_assets.core.checks.finding import Finding
from rm_assets.core.recipe import GateSection
from rm_assets.resources.compute import Compute
from rm_assets.resources.gate import judge


@recipe_check(
    "evaluation_report",
    description="The model agrees with gold more often than the length of the responses does.",
)
def better_than_length(context: dg.AssetCheckExecutionContext, compute: Compute) -> dg.AssetCheckResult:
    """Passes where the lower end of the advantage's interval is above 0; warns otherwise."""
    if compute.smoke:
        return check_result(Finding(True, "a smoke run's model is no model", looked=False))
    store = compute.store()
    want = made_asset(context, store, compute.recipe(context.partition_key), "evaluation_report")
    report = json.loads((store.folder("evaluation_report", want.digest) / "report.json").read_text("utf-8"))
    return check_result(advantage_over_length(report), dg.AssetCheckSeverity.WARN)


@recipe_check(
    "hub_release",
    blocking=True,
    description="The released files score the canaries as the report does.",
)
def release_gives_the_reported_rewards(context: dg.AssetCheckExecutionContext, compute: Compute) -> dg.AssetCheckResult:
    """Reads what the release task saw when it loaded the release folder."""
    want = made_asset(context, compute.store(), compute.recipe(context.partition_key), "hub_release")
    facts = want.manifest.facts if want.manifest else {}
    difference = facts.get("largest_canary_difference")
    return check_result(
        Finding(
            difference is not None,
            f"largest difference of a canary's reward: {difference}",
            {"rm/largest_canary_difference": difference if difference is not None else -1.0},
        )
    )


def _declare(name: str, field: Any) -> dg.AssetChecksDefinition:
    def run(context: dg.AssetCheckExecutionContext, compute: Compute) -> dg.AssetCheckResult:
        recipe = compute.recipe(context.partition_key)
        severity = getattr(recipe.gate, name).severity
        return check_result(judge(compute.store(), recipe, name), SEVERITIES.get(severity, SEVERITIES["warn"]))

    run.__name__ = name
    description = str(field.description).partition(": ")[2]
    return recipe_check("evaluation_report", blocking=True, description=description[:1].upper() + description[1:])(run)


gate_checks = [_declare(name, field) for name, field in GateSection.model_fields.items()]
