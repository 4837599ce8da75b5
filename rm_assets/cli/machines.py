"""`rm-assets machines`: what was made for tasks by `execution.executor.kind: vm` and is still there, and its removal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rm_assets.core.errors import ExecutorError, RecipeError
from rm_assets.core.recipe import GcloudMachine, VmExecutor
from rm_assets.executors.machines import Found, Provider, delete
from rm_assets.executors.vm import provider_of
from rm_assets.resources.recipes import recipe_book


def machines(*, remove: bool, in_use: bool, console: Console) -> None:
    """Lists them, and with `remove` deletes those that are left over, `in_use` all.

    Raises: ExecutorError, as Provider and `delete`, when all is done that can be.
    """
    found, failed = list[Found](), None
    for provider in _providers(console):
        try:
            found += provider.machines()
        except ExecutorError as error:  # the others are looked for
            failed = error
    table = Table("machine", "made", "by", "")
    for machine in found:
        state = "left over: this process has ended" if machine.is_left_over else "in use, as far as is known here"
        table.add_row(escape(machine.name), escape(machine.created), escape(machine.driver), state)
    if found or failed is None:
        console.print(table if found else "No machine of the recipes here is there.")
    for machine in found if remove else ():
        if machine.is_left_over or in_use:
            try:
                delete(machine.provider, machine.name)
                console.print(f"deleted {machine.name}", soft_wrap=True)
            except ExecutorError as error:  # the others go first
                failed = error
    if failed:
        raise failed


def _providers(console: Console) -> list[Provider]:
    """One for every command and project that a recipe names."""
    book = recipe_book()
    sections = {}
    for key in book.partition_keys():
        try:
            execution = book.load(key).execution
        except RecipeError as error:
            console.print(f"{key} is left out: {error.what}", soft_wrap=True, markup=False)
            continue
        for executor in (execution.executor, *execution.executors.values()):
            if isinstance(executor, VmExecutor):
                machine = executor.machine
                where = machine.project if isinstance(machine, GcloudMachine) else machine.command
                sections[machine.dialect, where] = machine
    return [provider_of(section) for section in sections.values()]
