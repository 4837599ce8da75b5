"""`rm-assets stats`: the statistics of a recipe's data assets."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rm_assets.cli.results import Found, find
from rm_assets.core.errors import StoreError
from rm_assets.core.table_statistics.describe import LEVELS, distribution_rows, level_rows, section_rows
from rm_assets.core.table_statistics.numbers import FEATURES
from rm_assets.storage.tables import STATISTICS

ROWS = {"prompts": "prompt", "sampled_responses": "response", "gold_rewards": "response"}
"""What the id of an extreme row names."""
COLUMNS = 4
"""Of figures in one table; more are printed below it, so that 80 characters are enough."""


def read_statistics(recipe: str, asset: str | None) -> list[dict[str, Any]]:
    """stats.json of the asset, or of every data asset that is made; of those without it, the error output says so.

    Raises: StoreError STORE_002 if it has not been made, or is no data asset; RecipeError RECIPE_001.
    """
    if asset is not None:
        return [_statistics(_find(recipe, asset))]
    made = [_find(recipe, "prompts")]
    for name in list(FEATURES)[1:]:
        try:
            made.append(_find(recipe, name))
        except StoreError as error:
            if error.code != "STORE_002":
                raise
            break  # what follows it is not made either
    found = []
    for each in made:
        try:
            found.append(_statistics(each))
        except StoreError as error:
            Console(stderr=True).print(f"{error.what}; {error.fix}", markup=False, highlight=False, soft_wrap=True)
    return found


def _find(recipe: str, asset: str) -> Found:
    if asset not in FEATURES:
        raise StoreError("STORE_002", f"'{asset}' has no statistics", fix=f"one of {', '.join(FEATURES)}")
    return find(recipe, asset)


def _statistics(found: Found) -> dict[str, Any]:
    if STATISTICS not in found.manifest.extras:
        raise StoreError(
            "STORE_002",
            f"{found.asset} was made without statistics",
            why="an earlier rm_assets made it, or they failed; its log says so",
            fix=f"remove {found.folder} and run again",
        )
    stats: dict[str, Any] = json.loads((found.folder / STATISTICS).read_text("utf-8"))
    return stats


def print_statistics(stats: Mapping[str, Any], console: Console) -> None:
    """Distributions, splits, sources, rates by level and outliers of one asset."""
    console.print(f"[bold]{stats['asset']}[/bold]")
    _print("", distribution_rows(stats["all"]), console)
    _print("by split", section_rows(stats, "by_split"), console)
    if len(stats["by_source"]) > 1:
        _print("by source", section_rows(stats, "by_source"), console)
    for name in LEVELS.values():
        if stats.get(name):
            _print(name.replace("_", " "), level_rows(stats[name]), console)
    outliers = stats["outliers"]
    if outliers:
        console.print(
            f"{outliers['num_outside']:,} of {outliers['n']:,} have {outliers['feature'].replace('_', ' ')} outside of the usual "
            f"{outliers['usual_from']:.4g} to {outliers['usual_to']:.4g}", highlight=False,
        )  # fmt: skip
        for row in (*outliers["highest"], *outliers["lowest"]):
            line = f"  {ROWS[stats['asset']]} {row['id']}  {row['value']:g}  {row['excerpt']!r}"
            console.print(line, highlight=False, markup=False, no_wrap=True, overflow="crop")


def _print(title: str, rows: Sequence[Mapping[str, str | int]], console: Console) -> None:
    if not rows:
        return
    first, *names = rows[0]
    for start in range(0, len(names), COLUMNS):
        table = Table(title="" if start else title, title_justify="left")
        for name in (first, *names[start : start + COLUMNS]):
            table.add_column(escape(name), overflow="fold", justify="left" if name == first else "right")
        for row in rows:
            cells = (row[name] for name in (first, *names[start : start + COLUMNS]))
            table.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(cell) for cell in cells))
        console.print(table)
