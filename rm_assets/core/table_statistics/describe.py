"""The statistics of a data asset (stats.json): over all rows, by split and by source.

Plain data without NaN. A figure is {"value", "n"}, its value None where it is not defined; a distribution is that of
statistics.summarize.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rm_assets.core.records import SPLITS
from rm_assets.core.statistics import QUANTILES, summarize
from rm_assets.core.table_statistics import within_prompts
from rm_assets.core.table_statistics.numbers import FEATURES, WATCHED, TableNumbers
from rm_assets.core.table_statistics.outliers import outliers

NUM_SOURCES = 20
NUM_LEVELS = 5
NUM_TELLING_MEANS = 3
"""With fewer different means, gold rewards say nothing across prompts."""
NUM_BARS = 40
LEVELS = {"gold_rewards": "tie_rate_by_mean_gold", "implicit_pairs": "chosen_longer_by_margin"}
"""The rate by level that an asset's statistics have."""
Mask = NDArray[np.bool_]


def describe(table: TableNumbers) -> dict[str, Any]:
    """All that stats.json says of a table."""
    features = FEATURES[table.asset]
    return {
        "asset": table.asset,
        "meaning": {name: feature.meaning for name, feature in features.items()},
        "all": _section(table, np.ones(len(table.group), dtype=bool)),
        "by_split": {
            split: _section(table, table.split == place)
            for place, split in enumerate(SPLITS)
            if (table.split == place).any()
        },
        "by_source": {name: _section(table, mask) for name, mask in _sources(table)},
        **({LEVELS[table.asset]: _by_level(table)} if table.asset in LEVELS else {}),
        "outliers": asdict(outliers(table)) if table.asset in WATCHED else None,
        "histograms": {
            name: _histogram(table.known(name), on_log=feature.kind == "length")
            for name, feature in features.items()
            if feature.kind != "share" and len(table.known(name))
        },
    }


def key_figures(stats: Mapping[str, Any]) -> dict[str, float]:
    """The figures of all rows, and the median of each distribution, by name."""
    section = stats["all"]
    values = {name: figure["value"] for name, figure in section["figures"].items()}
    values |= {f"{name}_median": d["quantiles"]["0.5"] for name, d in section["distributions"].items()}
    return {name: value for name, value in values.items() if value is not None}


def distribution_rows(section: Mapping[str, Any]) -> list[dict[str, str | int]]:
    """A section's distributions for people: a column each, a row for n, mean, sd, the ends and each quantile."""
    found = section["distributions"]
    lines: dict[str, list[float | None]] = {
        name: [d[key] for d in found.values()]
        for name, key in (("n", "n"), ("mean", "mean"), ("sd", "sd"), ("least", "min"))
    }
    lines |= {f"{at:.0%}": [d["quantiles"][str(at)] for d in found.values()] for at in QUANTILES}
    lines["greatest"] = [d["max"] for d in found.values()]
    return [
        {"": line, **{_words(name): _number(value) for name, value in zip(found, values, strict=True)}}
        for line, values in lines.items()
    ]


def section_rows(stats: Mapping[str, Any], by: str) -> list[dict[str, str | int]]:
    """All rows beside each split or source (`by`: "by_split", "by_source") for people: a row a figure, then the medians."""
    sections: dict[str, Any] = {"all rows": stats["all"], **stats[by]}
    whole = stats["all"]
    rows: list[dict[str, str | int]] = [{"": "rows", **{name: f"{of['n']:,}" for name, of in sections.items()}}]
    rows += [
        {"": _words(figure), **{name: _number(of["figures"][figure]["value"]) for name, of in sections.items()}}
        for figure in whole["figures"]
    ]
    return rows + [
        {
            "": f"{_words(feature)}, median",
            **{name: _number(of["distributions"][feature]["quantiles"]["0.5"]) for name, of in sections.items()},
        }
        for feature in whole["distributions"]
    ]


def level_rows(levels: Sequence[Mapping[str, Any]]) -> list[dict[str, str | int]]:
    """What `rate_by_level` found for people, a row a bin."""
    return [
        {"from": _number(bin["from"]), "to": _number(bin["to"]), "share": f"{bin['value']:.1%}", "n": bin["n"]}
        for bin in levels
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    """Whole from a thousand on, where it is not too long for that; else four digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) or 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def _sources(table: TableNumbers) -> Iterator[tuple[str, Mask]]:
    """The largest sources, and the others together, with the rows of each."""
    sizes = np.bincount(table.source, minlength=len(table.sources))
    largest = np.argsort(-sizes, kind="stable")[:NUM_SOURCES]
    for place in largest:
        yield table.sources[place], table.source == place
    if len(table.sources) > NUM_SOURCES:
        yield f"{len(table.sources) - NUM_SOURCES} other sources", ~np.isin(table.source, largest)


def _section(table: TableNumbers, rows: Mask) -> dict[str, Any]:
    num_rows = int(rows.sum())
    figures: dict[str, Any] = {
        "duplicates": {"value": num_rows - len(np.unique(table.text[rows])), "n": num_rows},
    }
    distributions: dict[str, Any] = {}
    for name, feature in FEATURES[table.asset].items():
        values = table.values[name][rows]
        known = values[~np.isnan(values)]
        if feature.kind == "share":
            figures[f"share_{name}"] = {"value": float(known.mean()) if len(known) else None, "n": len(known)}
        elif len(table.known(name)):  # in any row, so that all sections have the same distributions
            distributions[name] = summarize(known)
    if table.asset == "gold_rewards":
        figures |= _gold_figures(table, rows & ~np.isnan(table.values["gold_reward"]))
    return {"n": num_rows, "figures": figures, "distributions": distributions}


def _gold_figures(table: TableNumbers, rows: Mask) -> dict[str, Any]:
    gold, lengths, group = table.values["gold_reward"][rows], table.values["response_chars"][rows], table.group[rows]
    pairs, ties = within_prompts.ties(gold, group)
    num_pairs = int(pairs.sum())
    overall = within_prompts.rank_correlation(gold, lengths, np.zeros_like(group))
    return {
        "tie_rate": {"value": int(ties.sum()) / num_pairs if num_pairs else None, "n": num_pairs},
        "gold_sd_within_prompts": within_prompts.spread(gold, group),
        "length_correlation": {"value": overall["value"], "n": len(gold)},
        "length_correlation_within": within_prompts.rank_correlation(gold, lengths, group),
    }


def _by_level(table: TableNumbers) -> list[dict[str, Any]]:
    """Gold rewards: tie rate by the prompt's mean reward, where a saturated gold shows. Pairs: longer one chosen, by margin.

    The mean of rewards that only say how the responses to one prompt compare is the same for all, and says nothing.
    """
    if table.asset == "gold_rewards":
        rows = ~np.isnan(table.values["gold_reward"])
        gold, group = table.values["gold_reward"][rows], table.group[rows]
        pairs, ties = within_prompts.ties(gold, group)
        means = np.bincount(group, weights=gold / np.bincount(group)[group])[pairs > 0]
        if table.has_comparisons or len({round(mean, 9) for mean in means.tolist()}) < NUM_TELLING_MEANS:
            return []
        return rate_by_level(means, ties[pairs > 0], pairs[pairs > 0])
    if table.asset == "implicit_pairs":
        rows = ~np.isnan(table.values["chosen_longer"])
        longer = table.values["chosen_longer"][rows]
        return rate_by_level(table.values["gold_margin"][rows], longer, np.ones_like(longer))
    return []


def rate_by_level(levels: NDArray[Any], hits: NDArray[Any], totals: NDArray[Any]) -> list[dict[str, Any]]:
    """Sum of hits / sum of totals in up to five bins of levels with about as many each, with the bin's least and greatest level."""
    if not len(levels):
        return []
    edges = np.unique(np.quantile(levels, np.linspace(0, 1, NUM_LEVELS + 1)[1:]))
    places = np.searchsorted(edges, levels, side="left")
    bins = (places == place for place in np.unique(places))
    return [
        {
            "from": float(levels[of_bin].min()),
            "to": float(levels[of_bin].max()),
            "value": float(hits[of_bin].sum() / totals[of_bin].sum()),
            "n": int(totals[of_bin].sum()),
        }
        for of_bin in bins
    ]


def _histogram(values: NDArray[np.float64], *, on_log: bool) -> dict[str, Any]:
    """Counts between edges: bars of equal width, for lengths on the scale log(1 + x); one bar where the range has no parts."""
    scaled = np.log1p(values) if on_log else values
    with np.errstate(over="ignore", invalid="ignore"):
        edges = np.linspace(scaled.min(), scaled.max(), NUM_BARS + 1)
        if not (np.diff(edges) > 0).all() or not np.isfinite(np.diff(edges)).all():
            return {"on_log": on_log, "edges": [float(values.min()), float(values.max())], "counts": [len(values)]}
    counts, _ = np.histogram(scaled, edges)
    return {"on_log": on_log, "edges": (np.expm1(edges) if on_log else edges).tolist(), "counts": counts.tolist()}
