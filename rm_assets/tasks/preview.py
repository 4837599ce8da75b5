"""What a person sees of a table without opening it: its columns, and texts cut to a readable length."""

import typing

EXCERPT_CHARS = 240


def columns_of(record: type) -> dict[str, str]:
    """Column names and types of a record class."""
    return {
        name: getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
        for name, hint in typing.get_type_hints(record).items()
    }


def excerpt(text: str, limit: int = EXCERPT_CHARS) -> str:
    """`text` on one line, cut to `limit` characters."""
    line = " ⏎ ".join(part.strip() for part in text.strip().splitlines())
    return line if len(line) <= limit else line[: limit - 1] + "…"
