"""`rm-assets health`: what is as it should be, what is not, and how to mend it."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rm_assets.cli.json_output import print_json
from rm_assets.cli.run import default_dagster_home
from rm_assets.core.health import Condition, worst
from rm_assets.resources.health import examine
from rm_assets.storage.home import find_home

STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


def report(recipe: str | None, *, as_json: bool) -> bool:
    """Prints every condition; False if one is an error."""
    named = os.environ.get("DAGSTER_HOME")
    dagster_home = Path(named).expanduser() if named else default_dagster_home()
    with Console(stderr=True).status("looking at installation, machine, network and recipes"):
        found = examine(
            recipe, home=find_home(), dagster_home=dagster_home, is_set=bool(named), load_definitions=_load_definitions
        )
        conditions = list(found)
    status = worst(conditions)
    if as_json:
        as_data = [asdict(condition) for condition in conditions]
        print_json({"status": status, "recipe": recipe, "conditions": as_data})
    else:
        _print(conditions, Console(highlight=False))
    return status != "error"


def _load_definitions() -> str:
    import dagster as dg

    from rm_assets.definitions import defs

    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    return f"{len(graph.executable_asset_keys)} assets and {len(graph.asset_check_keys)} checks load"


def _print(conditions: Sequence[Condition], console: Console) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for column in ("status", "name"):
        table.add_column(column, no_wrap=True)
    table.add_column("what", overflow="fold")
    for each in conditions:
        lines = [f"{each.what}  [{each.code}]" if each.code else each.what]
        lines += [f"why: {each.why}"] if each.why else []
        lines += [f"fix: {each.fix}"] if each.fix else []
        table.add_row(Text(each.status, style=STYLES[each.status]), Text(each.name), Text("\n".join(lines)))
    console.print(table)
    counts = Counter(condition.status for condition in conditions)
    trouble = [f"{counts[status]} {status}{'s' if counts[status] != 1 else ''}" for status in ("error", "warning")]
    console.print(
        f"{', '.join(trouble)}, {counts['ok']} ok"
        + ("; docs/errors.md lists every code" if counts.total() > counts["ok"] else "")
    )
