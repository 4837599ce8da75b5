"""The reference of all commands as Markdown, made from the commands: `python -m rm_assets.cli.command_reference > docs/commands.md`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from rm_assets.cli.main import app

VALUES = {str: "TEXT", list[str]: "TEXT", int: "N", float: "X", Path: "FILE"}
"""What stands for a value of this type where the command does not say."""
INTRODUCTION = """# Commands

<!-- Made by `python -m rm_assets.cli.command_reference > docs/commands.md`. Change the commands in rm_assets/cli/, not this file. -->

`rm-assets COMMAND --help` prints the same. [cheat-sheet.md](cheat-sheet.md) has what one does most.

| exit status | when |
|---|---|
| 0 | done |
| 1 | an error, said in one message with its [code](errors.md); a run with an asset that was not made or a check that refused it; a recipe that is not valid; `health` with an error |
| 2 | the command was not written as it should be: an unknown option, an argument too few |

With `--json`, standard output is JSON alone; what is said on the way goes to standard error. The store is in
`RM_ASSETS_HOME`, else in `.rm_assets` beside the nearest workspace.yaml, else in the user's data folder; recipes of your own
are in the folder `RM_ASSETS_RECIPES`.
"""


def reference() -> str:
    """The whole page: one section a command, with its arguments and options."""
    root = typer.main.get_command(app)
    sections = [INTRODUCTION, "## Options of all commands", "", *_options(root)]
    for words, command in _commands(root, "rm-assets"):
        usage = " ".join([words, *(_usage(p) for p in command.params if not _is_hidden(p))])
        sections += ["", f"## {words}", "", str(command.help), "", "```sh", usage, "```"]
        if table := list(_options(command)):
            sections += ["", *table]
    return "\n".join(sections) + "\n"


def _commands(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


def _is_hidden(parameter: Any) -> bool:
    """`--help`, which every command has."""
    return bool(parameter.hidden) or "--help" in parameter.opts


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        word = str(parameter.metavar or parameter.name.upper())
        text = word if word.endswith("...") or parameter.nargs == 1 else f"{word}..."
    else:
        text = _written(parameter)
        text += "..." if parameter.multiple else ""
    return text if parameter.required or text.startswith("[") else f"[{text}]"


def _written(option: Any) -> str:
    """The option as it is typed."""
    names = "/".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    return f"{names} {option.metavar or VALUES[option.type_descriptor.annotation]}"


def _options(command: Any) -> Iterator[str]:
    shown = [parameter for parameter in command.params if not _is_hidden(parameter)]
    if not shown:
        return
    yield "| | meaning | default |"
    yield "|---|---|---|"
    for parameter in shown:
        is_argument = parameter.param_type_name == "argument"
        name = parameter.metavar or parameter.name.upper() if is_argument else _written(parameter)
        default = "required" if parameter.required else _default(parameter)
        cells = (f"`{name}`", _meaning(parameter), default)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meaning(parameter: Any) -> str:
    least, most = (getattr(parameter, name, None) for name in ("min", "max"))
    bounds = [f"at least {least}"] if least is not None else []
    bounds += [f"at most {most}"] if most is not None else []
    return f"{parameter.help} ({', '.join(bounds)})" if bounds else str(parameter.help)


def _default(parameter: Any) -> str:
    return "" if parameter.default is None or parameter.default is False else f"`{parameter.default}`"


if __name__ == "__main__":
    print(reference(), end="")
