"""A comparison of models as people read it: ensembles beside their members, rows of a table, one sentence."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rm_assets.core import statistics
from rm_assets.core.evaluation.comparison import compare_models, ensemble
from rm_assets.core.evaluation.pairs import draw_pairs
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import ProxyReward
from rm_assets.core.report.texts import count_text, interval_text, percent, points

KINDS = {"mean": "mean", "worst_case": "worst case", "uncertainty_weighted": "uncertainty weighted"}
HEADER = ("model", "match rate", "95 % interval", "n", "behind by (points)", "95 % interval", "p", "more pairs to tell")

Rewards = Mapping[str, Sequence[ProxyReward]]


def compare_all(rewards: Rewards, groups: Mapping[str, Sequence[str]], settings: EvaluationSection) -> dict[str, Any]:
    """As `compare_models`, with a model for each kind of ensemble of a group (the seeds of a recipe), and "ensembles".

    Raises: as `compare_models`.
    """
    together, ensembles, families = dict(rewards), dict[str, Any](), dict[str, str]()
    for name, members in groups.items():
        made, disagreement = _ensemble(name, [rewards[member] for member in members], settings)
        together |= made
        families |= dict.fromkeys([*members, *made], name)
        ensembles[name] = {"members": list(members), "models": list(made), "disagreement": disagreement}
    return compare_models(together, settings, families) | {"ensembles": ensembles}


def _ensemble(
    name: str, members: Sequence[Sequence[ProxyReward]], settings: EvaluationSection
) -> tuple[dict[str, list[ProxyReward]], dict[str, Any]]:
    """The rewards of each kind of ensemble, and how far the members disagree."""
    tables = [{row.response_id: row for row in rows} for rows in members]
    common = [row for row in members[0] if all(row.response_id in table for table in tables)]
    values = [[table[row.response_id].reward for row in common] for table in tables]
    found = ensemble(values)
    made = {
        f"{name} ({kind} of {len(members)})": [
            replace(row, reward=r) for row, r in zip(common, found[key], strict=True)
        ]
        for key, kind in KINDS.items()
    }
    pairs, _ = draw_pairs(common, settings)
    credits = [{statistics.credit(of[better] - of[worse]) for of in values} for better, worse in pairs]
    disagreement = {
        "mean_sd": statistics.mean(found["disagreement"]),
        "num_pairs_disputed": sum(len(each) > 1 for each in credits),
        "n": len(pairs),
    }
    return made, disagreement


def conclusion(found: Mapping[str, Any]) -> str:
    """The best model, or from which others the leader is not told apart and what would tell; and whether length is ahead."""
    leader, behind = (
        found["leader"],
        {m["model"]: m["behind"] for m in found["models"] if m["model"] != found["leader"]},
    )
    if found["best"]:
        same = f"on the same {found['num_pairs']:,} pairs."
        if len(behind) == 1:
            return f"{leader} is significantly better than length alone {same}"
        others = (
            "every other" if all(each["is_rival"] for each in behind.values()) else "every one that is not of its seeds"
        )
        return f"{leader} is the best: significantly better than {others} {same}"
    near = {name: each["more_pairs"] for name, each in behind.items() if each["is_rival"] and not each["told_apart"]}
    said = []
    if near:
        more = [number for number in near.values() if number is not None]
        remedy = f"about {max(more):,} more test pairs would" if more else "they are equally often right"
        said.append(f"{leader} leads, but is not told apart from {', '.join(near)}: {remedy}.")
    elif len(behind) > 1:
        said.append(f"{leader} is significantly better than every other model.")
    length = behind[found["length"]]
    if length["told_apart"] and length["difference"]["value"] < 0:
        said.append(f"Length alone ({found['length']}) is significantly better than {leader}.")
    return " ".join(said)


def disagreement_texts(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each ensemble."""
    return [
        f"The {len(each['members'])} models of {name} disagree on {each['disagreement']['num_pairs_disputed']:,} of "
        f"{each['disagreement']['n']:,} pairs; their standardised rewards differ by {each['disagreement']['mean_sd']:.2f} "
        "(standard deviation, mean over responses)."
        for name, each in found["ensembles"].items()
    ]


def left_out_text(found: Mapping[str, Any]) -> list[str]:
    """One sentence where some model could not read all responses."""
    num = found["num_responses_left_out"]
    return [f"{num:,} responses that some model could not read are left out."] if num else []


def text_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table with HEADER, best first."""
    return [_text_row(model) for model in found["models"]]


def _text_row(model: Mapping[str, Any]) -> tuple[str, ...]:
    match, behind = model["match_rate"], model.get("behind")
    first = (model["model"], percent(match["value"]), interval_text(match), count_text(match["n"]))
    if behind is None:
        return (*first, "", "", "", "")
    gap = behind["difference"]
    value = behind["adjusted_p_value"]
    p = "\N{EN DASH}" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
    needed = (
        "told apart"
        if behind["told_apart"]
        else "never"
        if behind["more_pairs"] is None
        else count_text(behind["more_pairs"])
    )
    return (*first, points(gap["value"]).lstrip("+"), f"{points(gap['low'])} to {points(gap['high'])}", p, needed)


def flat_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table as numbers, for CSV: a row a model, empty where there is no number."""
    return [
        {
            "model": model["model"],
            **{key: match[key] for key in ("value", "low", "high", "n")},
            **{f"behind_{key}": behind["difference"][key] if behind else None for key in ("value", "low", "high")},
            **{
                key: behind[key] if behind else None
                for key in ("p_value", "adjusted_p_value", "told_apart", "pairs_needed", "more_pairs")
            },
        }
        for model in found["models"]
        for match, behind in [(model["match_rate"], model.get("behind"))]
    ]


def as_csv(found: Mapping[str, Any]) -> str:
    """The rows of the table as CSV."""
    text = io.StringIO()
    rows = flat_rows(found)
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
