"""stats.json and a picture of histograms beside a table that a task wrote, in one further pass over it."""

from pathlib import Path

from rm_assets.core.table_statistics.describe import describe
from rm_assets.core.table_statistics.histograms import histograms_svg
from rm_assets.core.table_statistics.numbers import gather
from rm_assets.storage.files import write_json, write_text
from rm_assets.storage.tables import HISTOGRAMS, STATISTICS, TABLES, read_table


def write_statistics(asset: str, folder: Path) -> list[str]:
    """Writes both for a data asset, and returns their names; none for other assets."""
    if asset not in TABLES:
        return []
    file, record = TABLES[asset]
    stats = describe(gather(asset, read_table(folder / file, record)))
    picture = histograms_svg(stats)
    write_json(folder / STATISTICS, stats)
    write_text(folder / HISTOGRAMS, picture)
    return [STATISTICS, HISTOGRAMS]
