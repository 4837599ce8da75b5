"""`rm-assets prune`: what of the store nobody needs any more, why the rest stays, and its removal."""

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.home import find_home
from rm_assets.storage.retention import Plan, plan_retention
from rm_assets.storage.retention import prune as remove
from rm_assets.storage.store import Store


def prune(older_than: int, *, gone_recipes: bool, apply: bool, console: Console) -> None:
    """Shows the plan, and carries it out with `apply`. Raises: as `plan_retention` and `retention.prune`."""
    store = Store(find_home())
    plan = plan_retention(store, recipe_book(), older_than_days=older_than, gone_recipes=gone_recipes)
    console.print(f"store: {store}", soft_wrap=True, markup=False)
    _show(plan, console)
    if apply:
        done = remove(store, plan, lambda line: console.print(line, soft_wrap=True, markup=False))
        console.print(f"{done} of {len(plan.removals)} removed")
    elif plan.removals:
        console.print("Nothing was removed; `rm-assets prune --apply` removes it.")


def _show(plan: Plan, console: Console) -> None:
    if plan.removals:
        table = Table("goes", "size", "why")
        for removal in plan.removals:
            table.add_row(escape(removal.what), decimal(removal.num_bytes), escape(removal.why))
        console.print(table)
    stays = Table("stays", "results", "size")
    for why, (number, size) in sorted(plan.kept.items()):
        stays.add_row(escape(why), str(number), decimal(size))
    console.print(stays)
    console.print(f"{len(plan.removals)} would go, which frees {decimal(plan.freed_bytes)}.")
