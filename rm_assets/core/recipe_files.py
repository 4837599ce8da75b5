"""Reads recipe files: finds them, follows `extends`, expands `seeds`; recipe_faults.py says what is wrong with one."""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_faults import TAGS, sentences, suggestion

PACKAGE_FOLDER = Path(__file__).parent.parent
SHIPPED_FOLDER = PACKAGE_FOLDER / "recipes"
PATH_KEYS = ("path", "files", "rankings")
MODEL_KEYS = ("policy", "model", "base")


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
        found = suggestion(word, self.partition_keys())
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
                "\n  ".join([f"{file} is not a valid recipe:", *sentences(error)]),
                fix="`rm-assets recipes schema` lists every key",
            ) from None

    def _raw(self, name: str, chain: tuple[str, ...]) -> dict[str, Any]:
        files = self._files
        if name not in files:
            if chain:
                raise RecipeError(
                    "RECIPE_004",
                    f"{files[chain[-1]]}: extends: there is no recipe '{name}'",
                    fix=suggestion(name, files) or f"one of {', '.join(files)}",
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
        """Makes the values of PATH_KEYS, and the `config` of SSH, absolute, with ${VAR} filled in."""
        if isinstance(value, dict):
            of_key = {"config": "path"} if value.get("kind") == "ssh" else {}  # a dataset's `config` is a name
            return {k: v if k == "columns" else self._resolve(v, file, of_key.get(k, str(k))) for k, v in value.items()}
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


def _unknown_recipe(key: str, known: list[str]) -> RecipeError:
    return RecipeError(
        "RECIPE_001",
        f"there is no recipe '{key}'",
        fix=suggestion(re.sub(r"^.*/|\.ya?ml$", "", key), known)
        or f"one of {', '.join(known)}; your own lie in the folder RM_ASSETS_RECIPES",
    )


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
