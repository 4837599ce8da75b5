"""The reference of all recipe keys as Markdown, made from the models: `python -m rm_assets.core.recipe_reference > docs/recipes.md`."""

from collections.abc import Iterator
from typing import Any

from rm_assets.core.recipe import CheckSettings, Recipe
from rm_assets.core.recipe_files import json_schema

INTRODUCTION = """# Recipe keys

<!-- Made by `python -m rm_assets.core.recipe_reference > docs/recipes.md`. Change the models in rm_assets/core/recipe/, not this file. -->

A recipe is a YAML file; its name is the partition. `rm-assets recipes schema` prints the same as a JSON schema for editors.
`checks`, `gate`, `execution`, `tracking` and `description` change no result; every other key enters the digest of its asset.

With `extends: NAME` a recipe starts from another one and gives only what differs. Keys are merged one by one. A list
is replaced whole. So is a mapping whose `kind` changes, and a model (`policy`, `model`, `base`) that gets another
`path` or `hub_id`: a revision or pad token is never carried over to another model.

Relative paths start at the file they are written in, also when another recipe extends it. Numbers such as 5e-6 may be
written with or without a point. `yes`, `no`, `on` and `off` are truth values in YAML: quote them where a text is meant.
"""


def reference() -> str:
    """The whole page: one table a section, each union's models under their `kind`."""
    schema = json_schema()
    required = Recipe.model_json_schema()
    lines = [INTRODUCTION, "## Top level", "", *_table(schema["properties"], required["required"], required["$defs"])]
    for name, definition in required["$defs"].items():
        kind = definition["properties"].get("kind", {}).get("const")
        # The heading is the name alone, so that links find its anchor.
        lines += ["", f"## {name}", "", (f"`kind: {kind}`. " if kind else "") + definition["description"], ""]
        lines += _table(definition["properties"], definition.get("required", []), required["$defs"])
    return "\n".join(lines) + "\n"


def _table(properties: dict[str, Any], required: list[str], definitions: dict[str, Any]) -> Iterator[str]:
    yield "| key | type | default | bound | meaning |"
    yield "|---|---|---|---|---|"
    for key, schema in properties.items():
        default = "required" if key in required else _default(schema.get("default"))
        # pydantic leaves out a description that is the section's own docstring
        meaning = schema.get("description") or definitions[schema["$ref"].rsplit("/", 1)[1]]["description"]
        cells = [f"`{key}`", _type(schema), default, ", ".join(_bounds(schema)), meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(schema: dict[str, Any]) -> str:
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(option) for option in options if option.get("type") != "null")
    if not schema:
        return "anything"
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{value}`" for value in values)
    if schema["type"] == "array":
        places = schema.get("prefixItems", ())
        items = places[0] if places else schema["items"]
        return f"{'two' if len(places) == 2 else 'three' if places else 'list'} of {_type(items)}"
    if schema["type"] == "object":
        inner = schema["additionalProperties"]
        return "names and texts" if inner == {"type": "string"} else f"names, each with {_type(inner)}"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}[schema["type"]]


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        if value.keys() >= CheckSettings.model_fields.keys():
            return ", ".join(f"`{key}: {inner}`" for key, inner in value.items())
        if "kind" in value:
            return f"`kind: {value['kind']}`"
        return "each key's own" if value else "empty"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "\n" in text:
        return "a text of several lines"
    return f"`{text}`" if text else "empty"


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
        "minItems": "entries: at least",
    }
    for option in (schema, *schema.get("anyOf", ())):
        yield from (f"{word} {option[name]}" for name, word in words.items() if name in option)


if __name__ == "__main__":
    print(reference(), end="")
