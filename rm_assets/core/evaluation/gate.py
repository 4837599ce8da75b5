"""The gate: what a model's report must show before its release is built. One finding for each check of the section `gate`.

A value that cannot be told does not pass: whoever accepts that says so in the recipe, with severity `warn` or `ignore`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rm_assets.core import statistics
from rm_assets.core.checks.finding import Finding
from rm_assets.core.evaluation.comparison import compare
from rm_assets.core.evaluation.pairs import draw_pairs
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import ProxyReward


@dataclass(frozen=True)
class Released:
    """The release that a candidate is compared with, under its alias; `rewards` is None where they are in this store no more.

    `warning` says why it may look better than it is.
    """

    name: str
    alias: str
    rewards: Sequence[ProxyReward] | None
    warning: str = ""


def high_match_rate(report: Mapping[str, Any], limit: float) -> Finding:
    """Passes if the whole interval of the match rate is above the limit."""
    rate = report["match_rate"]
    return Finding(
        rate["low"] > limit,
        f"match rate {_interval(rate)}; its lower end must be above {limit:g}",
        {"rm/match_rate": rate["value"], "rm/match_rate_low": rate["low"]},
    )


def calibrated(report: Mapping[str, Any], limit: float) -> Finding:
    """Passes if the expected calibration error is at most the limit above what chance alone gives."""
    error = report["calibration"]["expected_calibration_error"]
    beyond = error["value"] - error["by_chance"]
    return Finding(
        beyond <= limit,
        f"expected calibration error {error['value']:.3f} (n = {error['n']}), {beyond:.3f} beyond chance; at most {limit:g} is allowed",
        {"rm/calibration_error": error["value"], "rm/calibration_error_beyond_chance": beyond},
    )


def not_by_length(report: Mapping[str, Any], limit: float) -> Finding:
    """Passes if the whole interval of the length-balanced match rate is above the limit."""
    rate = report["without_length"]["balanced"]
    if rate is None:
        return Finding(
            False,
            "it cannot be told whether the model goes by length: in the test pairs the better response is always the longer one, or always the shorter one",
        )
    return Finding(
        rate["low"] > limit,
        f"length-balanced match rate {_interval(rate)}; its lower end must be above {limit:g}",
        {"rm/length_balanced_match_rate": rate["value"], "rm/length_balanced_match_rate_low": rate["low"]},
    )


def no_worse(rewards: Sequence[ProxyReward], released: Released | None, settings: EvaluationSection) -> Finding:
    """Passes if the release is not significantly better on the pairs of the test responses that both have rewards for."""
    if released is None:
        return Finding(True, "there is no release yet")
    name = f"{released.name} ({released.alias})"
    if released.rewards is None:
        return Finding(False, f"it cannot be told: the test rewards of {name} are in this store no more")
    of_release = {row.response_id: row.reward for row in released.rewards}
    rows = [row for row in rewards if row.response_id in of_release]
    drawn, _ = draw_pairs(rows, settings)
    if not drawn:
        return Finding(
            False, f"it cannot be told: {name} was judged on other test responses, no pair is common to both"
        )
    before = [statistics.credit(of_release[rows[a].response_id] - of_release[rows[b].response_id]) for a, b in drawn]
    after = [statistics.credit(rows[a].reward - rows[b].reward) for a, b in drawn]
    found = compare(before, after, [rows[a].prompt_id for a, _ in drawn], seed=settings.seed)
    difference = found["difference"]
    p_value = "" if found["p_value"] is None else f", p = {found['p_value']:.2g}"
    return Finding(
        difference["value"] >= 0 or not found["significant"],
        f"match rate {math.fsum(after) / len(after):.3f}, that of {name} {math.fsum(before) / len(before):.3f}: "
        f"difference {_interval(difference)}{p_value}" + (released.warning and f". Warning: {released.warning}"),
        {"rm/difference_to_release": difference["value"], "rm/difference_to_release_low": difference["low"]},
    )


def _interval(rate: Mapping[str, Any]) -> str:
    return f"{rate['value']:.3f} ({rate['low']:.3f} to {rate['high']:.3f}, n = {rate['n']})"


REPORT_CHECKS: dict[str, Callable[[Mapping[str, Any], float], Finding]] = {
    "match_rate_is_high": high_match_rate,
    "confidence_is_calibrated": calibrated,
    "length_is_not_the_reason": not_by_length,
}
"""The checks of a report alone, by their names in the section `gate`."""
