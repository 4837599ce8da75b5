"""model_comparison: which of several reward models is best on the same test pairs, if any is."""

from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from rm_assets.assets.declaration import GROUP, OWNERS
from rm_assets.core.errors import RmAssetsError
from rm_assets.core.report.comparison_table import HEADER, conclusion, text_rows
from rm_assets.resources.comparison import VERSION, compare_on
from rm_assets.resources.compute import Compute


class ComparisonConfig(dg.Config):
    """What is compared."""

    on: str = Field(default="", description="Recipe whose test responses decide; empty: that of the newest report.")
    models: list[str] = Field(
        default=[],
        description="Recipes, RECIPE@production, checkpoint or release folders, OWNER/NAME[@REVISION]; empty: all recipes with a report on these responses.",
    )


@dg.asset(
    deps=["evaluation_report"],
    code_version=str(VERSION),
    group_name=GROUP,
    kinds={"matplotlib"},
    owners=OWNERS,
    freshness_policy=dg.FreshnessPolicy.time_window(warn_window=timedelta(days=2), fail_window=timedelta(days=8)),
)
def model_comparison(
    context: dg.AssetExecutionContext, config: ComparisonConfig, compute: Compute
) -> dg.MaterializeResult[Any]:
    """Which of several reward models is best on the same test pairs, if any is."""
    try:
        made = compare_on(compute.store(), config.on, config.models, say=context.log.info, run_id=context.run.run_id)
    except RmAssetsError as error:
        raise dg.Failure(str(error), metadata={"rm/error_code": error.code}, allow_retries=False) from None
    found = made.found
    columns = [f"{name} (difference)" if HEADER.index(name) != place else name for place, name in enumerate(HEADER)]
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in text_rows(found)]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in columns])
    return dg.MaterializeResult(
        metadata={
            "rm/conclusion": conclusion(found),
            "rm/on": made.on,
            "rm/warnings": "\n".join(found["warnings"]) or "none",
            "rm/best": found["best"] or "none is told apart from all others",
            "rm/models": dg.MetadataValue.table(records, schema),
            "data/num_test_pairs": found["num_pairs"],
            "plot/comparison": dg.MetadataValue.md(f"![match rates](data:image/png;base64,{made.plot})"),
            "rm/folder": dg.MetadataValue.path(made.folder),
        },
        data_version=dg.DataVersion(made.data_version),
    )
