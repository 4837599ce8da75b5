"""A committed asset as Dagster shows it: data version, counts, facts, schema, examples, plots."""

import base64
from typing import Any

import dagster as dg

from rm_assets.resources.compute import Made
from rm_assets.storage.store import Manifest

OWNERS = ["team:reward-models"]


def materialize_result(made: Made) -> dg.MaterializeResult[Any]:
    """The result of an asset, from its manifest.

    `work/*` is what this run computed: all zero when the asset had been made before.
    """
    manifest = made.manifest
    metadata: dict[str, Any] = {
        **{f"rm/{name}": _value(fact) for name, fact in manifest.facts.items() if fact is not None},
        **{f"data/num_{name}": count for name, count in manifest.counts.items()},
        **{f"work/{name.replace(' ', '_')}": 0 if made.was_there else count for name, count in manifest.work.items()},
        **{f"plot/{plot.removesuffix('.png')}": _picture(made, plot) for plot in manifest.plots},
        **_examples(manifest),
        **_schema(manifest),
        "rm/was_made_before": dg.MetadataValue.bool(made.was_there),
        "rm/seconds": manifest.made["seconds"],
        "rm/made_at": manifest.made["at"],
        "rm/digest": manifest.digest,
        "rm/folder": dg.MetadataValue.path(made.folder),
    }
    if manifest.columns:
        metadata["dagster/row_count"] = next(iter(manifest.counts.values()))
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(manifest.data_version))


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


def _picture(made: Made, plot: str) -> Any:
    data = base64.b64encode((made.folder / plot).read_bytes()).decode()
    return dg.MetadataValue.md(f"![{plot}](data:image/png;base64,{data})")
