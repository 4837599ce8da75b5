"""A committed asset as Dagster shows it: data version, counts, facts, statistics, schema, examples, plots."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from rm_assets.core.errors import PlanError
from rm_assets.core.planning.cost import cost_of, total_cost, unpriced
from rm_assets.core.planning.prices import DevicePrice
from rm_assets.core.table_statistics.describe import LEVELS, distribution_rows, key_figures, level_rows, section_rows
from rm_assets.resources.compute import Made
from rm_assets.storage.lineage import ancestors
from rm_assets.storage.price_list import price_list
from rm_assets.storage.store import Manifest, Store
from rm_assets.storage.tables import HISTOGRAMS, STATISTICS

PAGE_CHARACTERS = 50_000
"""A longer page is cut at the section before, to keep the instance small."""


def materialize_result(
    made: Made, links: Mapping[str, Any] | None = None, *, page: str = ""
) -> dg.MaterializeResult[Any]:
    """The result of an asset, from its manifest, with `links` to where else it is seen, and a Markdown file of it as its page.

    `work/*` is what this run computed: all zero when the asset had been made before.
    """
    manifest = made.manifest
    metadata: dict[str, Any] = {
        **({"page": _page(made.folder / page)} if page else {}),
        **{f"rm/{name}": _value(fact) for name, fact in manifest.facts.items() if fact is not None},
        **{f"plot/{Path(plot).stem}": _picture(made, plot) for plot in manifest.plots},
        **{f"data/num_{name}": count for name, count in manifest.counts.items()},
        **{f"work/{name.replace(' ', '_')}": count for name, count in made.work.items()},
        **_statistics(made),
        **_examples(manifest),
        **_schema(manifest),
        **(links or {}),
        "rm/was_made_before": dg.MetadataValue.bool(made.was_there),
        **_cost(manifest),
        "rm/made_at": manifest.made["at"],
        "rm/digest": manifest.digest,
        "rm/folder": dg.MetadataValue.path(made.folder),
    }
    if manifest.columns:
        metadata["dagster/row_count"] = next(iter(manifest.counts.values()))
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(manifest.data_version))


def _cost(manifest: Manifest) -> dict[str, Any]:
    """Seconds, where they were spent, and what they cost by the price list."""
    prices, fault = prices_or_fault()
    cost = cost_of(manifest.made, prices)
    price = (
        {"rm/usd": round(cost.usd, 6)} if cost.usd is not None else {"rm/price": fault or unpriced([cost.priced_as])}
    )
    return {
        "rm/seconds": manifest.made["seconds"],
        "rm/executor": cost.executor,
        "rm/device": f"{cost.num_devices} x {cost.device}",
        **price,
    }


def lineage_cost(store: Store, manifest: Manifest) -> dict[str, Any]:
    """Seconds and price of an asset and of all that it comes from, each counted once."""
    prices, fault = prices_or_fault()
    inputs = {name: entry["digest"] for name, entry in manifest.inputs.items()}
    total = total_cost([cost_of(m.made, prices) for m in [*ancestors(store, inputs).values(), manifest]])
    missing = {"rm/lineage_price": fault or unpriced(total.unpriced)} if total.unpriced else {}
    return {"rm/lineage_seconds": round(total.seconds, 2), "rm/lineage_usd": round(total.usd, 6), **missing}


def prices_or_fault() -> tuple[Sequence[DevicePrice], str]:
    """The price list, or none and why: a made asset is not lost for a fault in it."""
    try:
        return price_list(), ""
    except PlanError as error:
        return (), str(error)


def _page(file: Path) -> Any:
    text = file.read_text("utf-8")
    if len(text) > PAGE_CHARACTERS:
        shown = text[: text.rfind("\n## ", 0, PAGE_CHARACTERS)]
        text = f"{shown}\n\nThe rest is in {file.name}, in the asset's folder.\n"
    return dg.MetadataValue.md(text)


def _value(fact: Any) -> Any:
    if isinstance(fact, dict):
        return dg.MetadataValue.md("\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in fact.items())]))
    if isinstance(fact, list):
        return dg.MetadataValue.md("\n".join(f"- {item}" for item in fact) or "nothing")
    return round(fact, 6) if isinstance(fact, float) else fact


def _examples(manifest: Manifest) -> dict[str, Any]:
    if not manifest.examples:
        return {}
    records = [dg.TableRecord(dict(row)) for row in manifest.examples]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in manifest.examples[0]])
    return {"examples": dg.MetadataValue.table(records, schema)}


def _schema(manifest: Manifest) -> dict[str, Any]:
    if not manifest.columns:
        return {}
    return {
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(name, kind) for name, kind in manifest.columns.items()])
    }


def _statistics(made: Made) -> dict[str, Any]:
    """Figures, whose history the UI draws, and tables of distributions, splits and sources."""
    file = made.folder / STATISTICS
    if STATISTICS not in made.manifest.extras:
        return {}
    stats = json.loads(file.read_text("utf-8"))
    return {
        "stats/path": dg.MetadataValue.path(file),
        **{f"stats/{name}": round(value, 6) for name, value in key_figures(stats).items()},
        "stats/distributions": _table(distribution_rows(stats["all"])),
        "stats/by_split": _table(section_rows(stats, "by_split")),
        "stats/by_source": _table(section_rows(stats, "by_source")),
        **{f"stats/{name}": _table(level_rows(stats[name])) for name in LEVELS.values() if stats.get(name)},
        "plot/histograms": _picture(made, HISTOGRAMS),
    }


def _table(rows: list[dict[str, str | int]]) -> Any:
    columns = [dg.TableColumn(name, "int" if isinstance(value, int) else "string") for name, value in rows[0].items()]
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], dg.TableSchema(columns))


def _picture(made: Made, plot: str) -> Any:
    data = base64.b64encode((made.folder / plot).read_bytes()).decode()
    kind = {".png": "png", ".svg": "svg+xml"}[Path(plot).suffix]
    return dg.MetadataValue.md(f"![{plot}](data:image/{kind};base64,{data})")
