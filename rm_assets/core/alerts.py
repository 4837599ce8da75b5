"""Alerts: what a person must know, as a webhook takes it, and which figures are out of their usual range."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MOST_CHARACTERS = 2_000
"""Of a text. Whoever wants all of it follows the link."""
LEAST_EARLIER = 5
"""Earlier values without which nothing is called unusual."""
FALSE_ALARMS = 0.01
"""Share of the reports of which something is called unusual though nothing has changed, if figures are normally distributed."""
LEAST_DEVIATION = 0.005
"""Taken where the standard deviation is smaller: after five equal rates, a sixth that differs by half a point is usual."""
Kind = Literal["run_failed", "check_failed", "released", "rebuild_proposed", "figure_unusual"]


@dataclass(frozen=True, kw_only=True)
class Alert:
    """`key` names what happened, and to what: alerts of the same key are the same. `path` is its page in the web UI."""

    key: str
    kind: Kind
    title: str
    text: str
    path: str
    recipe: str | None = None
    asset: str | None = None
    code: str | None = None


def as_json(alert: Alert, web_ui: str) -> dict[str, Any]:
    """The alert as plain data, with its link."""
    fields = {"key": alert.key, "kind": alert.kind, "title": alert.title, "text": _cut(alert.text)}
    about = {"recipe": alert.recipe, "asset": alert.asset, "code": alert.code}
    return {**fields, "url": web_ui.rstrip("/") + alert.path, **about}


def as_slack(alert: Alert, web_ui: str) -> dict[str, Any]:
    """The body of an incoming webhook of Slack. Source: docs.slack.dev, "Formatting message text"."""
    title, text = (_escaped(part) for part in (alert.title, _cut(alert.text)))
    return {"text": f"*{title}*\n{text}\n<{web_ui.rstrip('/')}{alert.path}|open>"}


def unusual(figures: Mapping[str, float], earlier: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Those of `figures` (on a scale of about 1) that are out of the range of the earlier ones, each with why.

    The range is the prediction interval of one more normal value, mean +- t sd sqrt(1 + 1/n) with n - 1 degrees of freedom, each
    figure at its part of FALSE_ALARMS (Bonferroni). Source: Hahn and Meeker, Statistical Intervals (1991), chapter 4.
    """
    from scipy.special import stdtrit

    found: dict[str, str] = {}
    for name, value in figures.items():
        known = [each[name] for each in earlier if name in each]
        if len(known) < LEAST_EARLIER:
            continue
        n, mean = len(known), statistics.mean(known)
        quantile = float(stdtrit(n - 1, 1 - FALSE_ALARMS / len(figures) / 2))
        reach = quantile * max(statistics.stdev(known), LEAST_DEVIATION) * math.sqrt(1 + 1 / n)
        if abs(value - mean) > reach:
            usual = f"{mean - reach:.4g} to {mean + reach:.4g}"
            found[name] = f"{name} {value:.4g}; the mean of {n} before is {mean:.4g}, usual would be {usual}"
    return found


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
