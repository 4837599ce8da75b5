"""Reads recipe files: finds them, follows `extends`, expands `seeds`, and turns every fault into one clear sentence."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import Recipe

PACKAGE_FOLDER = Path(__file__).parent.parent
SHIPPED_FOLDER = PACKAGE_FOLDER / "recipes"
FILE_ONLY_KEYS = ("extends", "seeds")
PATH_KEYS = ("path", "files", "rankings")
MODEL_KEYS = ("policy", "model", "base")
TAGS = ("kind", "dialect")
"""Keys that say which of a union's models a mapping is."""
SECRET_WORDS = ("key", "secret", "environment")
"""In the names of keys that take the name of a secret, where somebody may have written the secret itself."""


class RecipeBook:
    """The recipes that ship with the package and those in the user's folder.

    A file that is not valid does not hide the others: it keeps its name and fails when it is loaded. A book is one look:
    each file is read once, and a later change is seen by the next book.
    """

    def __init__(self, user_folder: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._folders = [SHIPPED_FOLDER] + ([user_folder] if user_folder else [])
        self._environment = os.environ if environment is None else environment
        self._contents: dict[Path, dict[str, Any]] = {}

    def files(self) -> dict[str, Path]:
        """Recipe files by name. Raises: RecipeError RECIPE_001 (no such folder), RECIPE_005 (name taken twice)."""
        return dict(self._files)

    @cached_property
    def _files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self._folders:
            if not folder.is_dir():
                raise RecipeError(
                    "RECIPE_001",
                    f"the recipe folder {folder} does not exist",
                    fix="create it, or correct RM_ASSETS_RECIPES",
                )
            for file in sorted(
                f for pattern in ("*.yaml", "*.yml") for f in folder.glob(pattern) if not f.name.startswith(".")
            ):
                if re.search(r"[@,]|\.\.\.", file.stem):
                    raise RecipeError(
                        "RECIPE_003",
                        f"{file}: a recipe's name cannot hold '@', ',' or '...'",
                        why="the name is the partition key",
                        fix="rename the file",
                    )
                if file.stem in found:
                    raise RecipeError(
                        "RECIPE_005",
                        f"two recipes are named '{file.stem}': {found[file.stem]} and {file}",
                        why="the name is the partition key",
                        fix="rename one of the files",
                    )
                found[file.stem] = file
        return found

    def is_shipped(self, key: str) -> bool:
        """Whether the recipe of a partition key ships with the package."""
        return self._files[key.partition("@")[0]].parent == SHIPPED_FOLDER

    def did_you_mean(self, word: str) -> str:
        """A question with the name that is close to `word` and a space after it; nothing where none is."""
        found = _suggestion(word, self.partition_keys())
        return found and f"{found} "

    def partition_keys(self) -> list[str]:
        """One key a recipe, or one a seed where a recipe has `seeds`."""
        keys: list[str] = []
        for name in self.files():
            try:
                seeds = self._raw(name, ()).get("seeds")
            except RecipeError:
                seeds = None
            keys += [f"{name}@{seed}" for seed in seeds or []] if _are_seeds(seeds) else [name]
        return keys

    def load(self, key: str) -> Recipe:
        """The recipe of a partition key.

        Raises: RecipeError with file, key, value, reason and fix.
        """
        name, _, seed = key.partition("@")
        raw = self._raw(name, ())
        file = self.files()[name]
        seeds = raw.pop("seeds", None)
        if seeds is not None and not _are_seeds(seeds):
            raise RecipeError(
                "RECIPE_003",
                f"{file}: seeds: {seeds!r} is not a list of distinct whole numbers of at least 0",
                fix="write for example `seeds: [1, 2, 3]`",
            )
        if (seed and seed not in [str(s) for s in seeds or []]) or (not seed and seeds):
            raise _unknown_recipe(key, self.partition_keys())
        if seed:
            raw["seed"] = int(seed)
        try:
            return Recipe.model_validate({**raw, "name": key})
        except ValidationError as error:
            raise RecipeError(
                "RECIPE_003",
                "\n  ".join([f"{file} is not a valid recipe:", *_sentences(error)]),
                fix="`rm-assets recipes schema` lists every key",
            ) from None

    def _raw(self, name: str, chain: tuple[str, ...]) -> dict[str, Any]:
        files = self._files
        if name not in files:
            if chain:
                raise RecipeError(
                    "RECIPE_004",
                    f"{files[chain[-1]]}: extends: there is no recipe '{name}'",
                    fix=_suggestion(name, files) or f"one of {', '.join(files)}",
                )
            raise _unknown_recipe(name, self.partition_keys())
        if name in chain:
            raise RecipeError(
                "RECIPE_004",
                f"recipes extend each other in a circle: {' -> '.join([*chain, name])}",
                fix="remove one `extends`",
            )
        if files[name] not in self._contents:
            self._contents[files[name]] = self._read(files[name])
        own = dict(self._contents[files[name]])
        base_name = own.pop("extends", None)
        if base_name is None:
            return own
        if not isinstance(base_name, str):
            raise RecipeError(
                "RECIPE_004",
                f"{files[name]}: extends: {base_name!r} is not the name of a recipe",
                fix="write for example `extends: embedded`",
            )
        return _merge(self._raw(base_name, (*chain, name)), own)

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            raw = yaml.load(file.read_text("utf-8"), _StrictLoader)
            resolved = self._resolve(raw, file)
        except (yaml.YAMLError, OSError, RecursionError, ValueError) as error:
            raise RecipeError(
                "RECIPE_002",
                f"{file} is not readable YAML",
                why=" ".join(str(error).split())[:500],
                fix="mind indentation, colons and repeated keys",
            ) from None
        if not isinstance(resolved, dict) or not all(isinstance(key, str) for key in resolved):
            raise RecipeError(
                "RECIPE_002",
                f"{file} does not hold a mapping of sections",
                fix="start from `rm-assets recipes show embedded`",
            )
        if "name" in resolved:
            raise RecipeError(
                "RECIPE_003",
                f"{file}: name: {resolved['name']!r} cannot be set",
                why="a recipe is named as its file",
                fix="remove the line",
            )
        return resolved

    def _resolve(self, value: Any, file: Path, key: str = "") -> Any:
        """Makes the values of PATH_KEYS absolute, with ${VAR} filled in."""
        if isinstance(value, dict):
            return {k: v if k == "columns" else self._resolve(v, file, str(k)) for k, v in value.items()}
        if isinstance(value, list):
            return [self._resolve(v, file, key) for v in value]
        if not (isinstance(value, str) and key in PATH_KEYS):
            return value
        for variable in re.findall(r"\$\{(\w+)\}", value):
            if variable not in self._environment:
                # Kept as written: only a run of this recipe needs the variable, listing or checking it does not.
                return value
            value = value.replace("${" + variable + "}", self._environment[variable])
        if value.startswith("package://"):
            return str(PACKAGE_FOLDER / value.removeprefix("package://"))
        if "://" in value:
            return value
        return os.path.normpath(file.parent / Path(value).expanduser())


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """SafeLoader that refuses a key given twice (YAML would silently keep the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        nodes = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in nodes]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.YAMLError(f"key {key!r} is given twice, line {nodes[i].start_mark.line + 1}")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `base`, key by key; a mapping whose `kind` or `dialect` changes, or that names a model, replaces the base's whole."""
    merged = dict(base)
    for key, value in own.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            # A model's revision, template and pad token are its own: they must not pass on to another model.
            is_other_model = key in MODEL_KEYS and not value.keys().isdisjoint(("path", "hub_id"))
            is_other = is_other_model or any(value.get(tag, old.get(tag)) != old.get(tag) for tag in TAGS)
            merged[key] = value if is_other else _merge(old, value)
        else:
            merged[key] = value
    return merged


def _are_seeds(seeds: Any) -> bool:
    return (
        isinstance(seeds, list)
        and bool(seeds)
        and all(type(s) is int and s >= 0 for s in seeds)
        and len(set(seeds)) == len(seeds)
    )


def _suggestion(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def _unknown_recipe(key: str, known: list[str]) -> RecipeError:
    return RecipeError(
        "RECIPE_001",
        f"there is no recipe '{key}'",
        fix=_suggestion(key, known) or f"one of {', '.join(known)}; your own lie in the folder RM_ASSETS_RECIPES",
    )


def _sentences(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        keys, known, models = _walk(fault["loc"])
        where = ".".join(keys) or "the recipe"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            yield f"{where}: {_shown(keys, fault['input'])}unknown key; " + (
                _elsewhere(keys[-1]) or _suggestion(keys[-1], known) or f"known here: {', '.join(sorted(known))}"
            )
        elif fault["type"] == "missing":
            yield f"{where}: is missing; it is required"
        elif fault["type"].startswith("union_tag"):
            tag, kinds = _kinds(models)
            kind = fault["input"].get(tag) if isinstance(fault["input"], dict) else None
            hint = _suggestion(str(kind), kinds)
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
            hint = _suggestion(keys[-2], names) or f"known here: {', '.join(names)}"
            yield f"{'.'.join(keys[:-1])}: unknown key; {hint}"
        else:
            shown = "" if isinstance(fault["input"], dict) else _shown(keys, fault["input"])
            yield f"{where}: {shown}{message[:1].lower()}{message[1:]}"


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


def _walk(loc: tuple[int | str, ...]) -> tuple[list[str], set[str], list[type[BaseModel]]]:
    """The key path as the user wrote it (pydantic adds the tag of a union), the keys known beside its last, and the models it may hold."""
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
            models = [n for m in models if part in m.model_fields for n in _models_in(m.model_fields[part].annotation)]
    return keys, known, models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [] if get_origin(annotation) is Literal else [m for a in get_args(annotation) for m in _models_in(a)]


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors. It asks for no key: with `extends`, any may come from the other recipe."""
    schema: dict[str, Any] = _without_required(Recipe.model_json_schema())
    schema["properties"].pop("name")
    schema["properties"]["extends"] = {"type": "string", "description": "Name of the recipe that this one starts from."}
    schema["properties"]["seeds"] = {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "minItems": 1,
        "uniqueItems": True,
        "description": "Train once for each seed: partitions NAME@SEED.",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "rm_assets recipe"}


def _without_required(schema: Any) -> Any:
    """Without `kind`, a mapping may fit two of a union's models: `anyOf` allows that, `oneOf` does not."""
    if isinstance(schema, list):
        return [_without_required(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        "anyOf" if key == "oneOf" else key: _without_required(inner)
        for key, inner in schema.items()
        if key not in ("required", "discriminator")
    }
