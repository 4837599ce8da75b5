"""Every fault of a recipe as one clear sentence, in the words of who wrote it."""

import difflib
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from rm_assets.core.recipe import Recipe

FILE_ONLY_KEYS = ("extends", "seeds")
TAGS = ("kind", "dialect")
"""Keys that say which of a union's models a mapping is."""
SECRET_WORDS = ("key", "secret", "environment")
"""In the names of keys that take the name of a secret, where somebody may have written the secret itself."""


def sentences(error: ValidationError) -> Iterator[str]:
    """One for each fault: where it is, what stands there, and what to write."""
    for fault in error.errors(include_url=False):
        keys, known, models, meaning = _walk(fault["loc"])
        where = ".".join(keys) or "the recipe"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            yield f"{where}: {_shown(keys, fault['input'])}unknown key; " + (
                _elsewhere(keys[-1]) or suggestion(keys[-1], known) or f"known here: {', '.join(sorted(known))}"
            )
        elif fault["type"] == "missing":
            yield f"{where}: is missing; it is required"
        elif fault["type"].startswith("union_tag"):
            tag, kinds = _kinds(models)
            kind = fault["input"].get(tag) if isinstance(fault["input"], dict) else None
            hint = suggestion(str(kind), kinds)
            given = "is missing" if kind is None else f"{kind!r:.80}"
            yield f"{where}.{tag}: {given}; it must be one of {', '.join(kinds)}" + (f"; {hint}" if hint else "")
        elif fault["type"] in ("model_type", "model_attributes_type"):
            tag, kinds = _kinds(models)
            kind = fault["input"] if fault["input"] in kinds else " or ".join(kinds)
            yield f"{where}: {_shown(keys, fault['input'])}" + (
                f"write {{{tag}: {kind}}}" if kinds else "write a mapping of its keys"
            )
        elif keys[-1:] == ["[key]"] and fault["type"] == "literal_error":
            names = re.findall(r"'(\w+)'", message)
            hint = suggestion(keys[-2], names) or f"known here: {', '.join(names)}"
            yield f"{'.'.join(keys[:-1])}: unknown key; {hint}"
        else:
            shown = "" if isinstance(fault["input"], dict) else _shown(keys, fault["input"])
            hint = ""
            if fault["type"] == "literal_error":
                allowed = re.findall(r"'([^']*)'", message)
                hint = suggestion(str(fault["input"]), allowed, cutoff=0.75)  # not cpu for gpu
            elif fault["type"] == "string_pattern_mismatch":
                hint = f"what belongs here: {meaning}"
            yield f"{where}: {shown}{message[:1].lower()}{message[1:]}" + (f"; {hint}" if hint else "")


def _kinds(models: list[type[BaseModel]]) -> tuple[str, list[str]]:
    """The tag of a union's models, and what each of them writes there; none where there is nothing to choose."""
    tag = next((tag for tag in TAGS if any(tag in m.model_fields for m in models)), TAGS[0])
    return tag, [get_args(m.model_fields[tag].annotation)[0] for m in models if tag in m.model_fields]


def _elsewhere(key: str) -> str:
    """Names the section that has this very key, if it is one alone."""
    sections = [
        name
        for name, field in Recipe.model_fields.items()
        if any(key in model.model_fields for model in _models_in(field.annotation))
    ]
    return f"it is a key of '{sections[0]}'" if len(sections) == 1 else ""


def _shown(keys: list[str], value: Any) -> str:
    # Who writes the key itself where its variable's name belongs must not find it in a log.
    return "" if any(word in key.lower() for key in keys for word in SECRET_WORDS) else f"{value!r:.80}: "


def _walk(loc: tuple[int | str, ...]) -> tuple[list[str], set[str], list[type[BaseModel]], str]:
    """The key path as the user wrote it (pydantic adds the tag of a union), the keys known beside its last, the models it may hold, and what it means."""
    meaning = ""
    models: list[type[BaseModel]] = [Recipe]
    keys: list[str] = []
    known: set[str] = set()
    for part in loc:
        if isinstance(part, int):  # a place in a list
            keys.append(str(part))
            continue
        tagged = [
            m
            for m in models
            if any(part in get_args(m.model_fields[tag].annotation) for tag in TAGS if tag in m.model_fields)
        ]
        if tagged and len(models) > 1:
            models = tagged
            continue
        known = {name for m in models for name in m.model_fields}
        if models == [Recipe]:
            known = known - {"name"} | set(FILE_ONLY_KEYS)
        keys.append(part)
        if part in known:  # else it is a name that the user has given, in a mapping of names to the models here
            fields = [m.model_fields[part] for m in models if part in m.model_fields]
            meaning = (fields[0].description or "").rstrip(".")
            models = [n for field in fields for n in _models_in(field.annotation)]
    return keys, known, models, meaning


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [] if get_origin(annotation) is Literal else [m for a in get_args(annotation) for m in _models_in(a)]


def suggestion(word: str, known: Any, cutoff: float = 0.6) -> str:
    """Asks for the known word that is nearest; empty if none is near."""
    close = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=cutoff)
    return f"did you mean '{close[0]}'?" if close else ""
