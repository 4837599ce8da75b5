"""Any reward models on the test responses of one recipe: found by name, scored in a process of their own, rewards kept."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rm_assets.core.errors import ModelError, StoreError
from rm_assets.core.recipe import ModelRef, Recipe
from rm_assets.core.records import ProxyReward
from rm_assets.core.stages import STAGES
from rm_assets.executors.side_task import run_side_task
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.lineage import committed, wanted
from rm_assets.storage.registry import ALIASES, Registry
from rm_assets.storage.store import Manifest, Store, locked
from rm_assets.storage.tables import read_table
from rm_assets.tasks.evaluate import REWARDS_FILE
from rm_assets.tasks.train import TRAINING_FILE

HUB_NAME = re.compile(r"^(?P<hub_id>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?$")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A model as it was named. `recipe` is the name without a seed where it comes from a recipe, else None.

    `report` is the folder of a committed report on the very test responses, `earlier_report` the report.json of whatever it
    was evaluated on, where there is one; `other_pairs` the pairs that it was trained on, where they come of other gold rewards.
    """

    name: str
    model: ModelRef
    max_length: int
    training: Path | None = None
    recipe: str | None = None
    report: Path | None = None
    earlier_report: Path | None = None
    is_same_evaluation: bool = False
    other_pairs: Path | None = None


@dataclass(frozen=True)
class _PromptOfRow:
    """What of a table says whether a prompt is in it."""

    prompt_id: str
    split: str


@dataclass(frozen=True)
class Judged:
    """A model with its rewards for the test responses, and its report; `warning` says why it may look better than it is."""

    candidate: Candidate
    rewards: list[ProxyReward]
    report: dict[str, Any]
    warning: str | None = None


def load_first(name: str) -> Recipe:
    """The recipe, or its first seed: test responses and gold rewards are the same for all. Raises: RecipeError."""
    book = recipe_book()
    return book.load(next((key for key in book.partition_keys() if key.partition("@")[0] == name), name))


def gold_of(store: Store, on: Recipe) -> Manifest:
    """The gold rewards that models are judged by. Raises: StoreError STORE_002 if they are not made."""
    return _required(store, on, "gold_rewards")


def _required(store: Store, recipe: Recipe, asset: str) -> Manifest:
    manifest = committed(store, recipe, asset)
    if manifest is None:
        raise StoreError(
            "STORE_002", f"{asset} of recipe '{recipe.name}' has not been made as the recipe wants it now",
            fix=f"run `rm-assets run {recipe.name} --select '*{asset}'`",
        )  # fmt: skip
    return manifest


def find_models(store: Store, on: Recipe, names: Sequence[str], *, max_length: int | None = None) -> list[Candidate]:
    """The models of these names: recipes (all seeds of one without @SEED), RECIPE@production or RECIPE@staging, folders, or OWNER/NAME[@REVISION] on the Hub.

    `max_length` is for models that do not say theirs; without it the recipe's own is taken.
    Raises: StoreError STORE_002 for a recipe whose model is not made, ReleaseError RELEASE_007 or RELEASE_008 for a release that is
    not there, ModelError MODEL_001 for a name that is none of these.
    """
    gold, book = gold_of(store, on), recipe_book()
    settings = STAGES["evaluation_report"].settings(on, Fingerprints(store.home / "fingerprints").of)
    found: list[Candidate] = []
    for name in dict.fromkeys(names):
        keys = [key for key in book.partition_keys() if name in (key, key.partition("@")[0])]
        if keys:
            found += [_of_recipe(store, book.load(key), gold, settings) for key in keys]
        elif "/" not in name and name.rpartition("@")[2] in ALIASES:
            model = Registry(store).model(Registry(store).find(name))
            found.append(
                replace(_of_checkpoint(store, gold, str(model), max_length or on.training.max_length), name=name)
            )
        else:
            found.append(_of_checkpoint(store, gold, name, max_length or on.training.max_length))
    return list({candidate.name: candidate for candidate in found}.values())


def _of_recipe(store: Store, recipe: Recipe, gold: Manifest, settings: dict[str, Any]) -> Candidate:
    model = _required(store, recipe, "reward_model")
    checkpoint = store.folder("reward_model", model.digest) / "checkpoint"
    report = committed(store, recipe, "evaluation_report")
    folder = store.folder("evaluation_report", report.digest) if report else None
    is_same = report is not None and report.inputs["gold_rewards"]["data_version"] == gold.data_version
    return Candidate(
        recipe.name, ModelRef(path=str(checkpoint)), _max_length(checkpoint) or recipe.training.max_length,
        training=checkpoint / TRAINING_FILE, recipe=recipe.name.partition("@")[0],
        report=folder if is_same else None,
        earlier_report=folder / "report.json" if folder else None,
        is_same_evaluation=report is not None and is_same and report.settings == settings,
        other_pairs=other_pairs(store, model, gold),
    )  # fmt: skip


def other_pairs(store: Store, model: Manifest, gold: Manifest) -> Path | None:
    """The pairs that a model was trained on, unless they are of these gold rewards, whose test prompts are in no training pair."""
    pairs = store.manifest("implicit_pairs", model.inputs["implicit_pairs"]["digest"])
    if pairs is None or model.settings["kind"] == "existing":
        return None
    if pairs.inputs["gold_rewards"]["data_version"] == gold.data_version:
        return None
    return store.folder("implicit_pairs", pairs.digest) / "pairs.parquet"


def _model_in(store: Store, folder: Path) -> Manifest | None:
    """The model whose checkpoint or release lies in this folder, where that is one of the store."""
    home = store.home.resolve()
    asset, name, *_ = (*folder.relative_to(home).parts, "", "") if folder.is_relative_to(home) else ("", "")
    if asset == "hub_release" and (release := store.manifest(asset, name)):
        asset, name = "reward_model", release.inputs["reward_model"]["digest"]
    return store.manifest(asset, name) if asset == "reward_model" else None


def _of_checkpoint(store: Store, gold: Manifest, name: str, max_length: int) -> Candidate:
    folder, hub = Path(name).expanduser(), HUB_NAME.match(name)
    if (folder / "config.json").is_file():
        path = folder.resolve()
        training, report = (path / TRAINING_FILE, path / "report.json")
        is_ours, model = training.is_file(), _model_in(store, path)
        return Candidate(
            name, ModelRef(path=str(path)), _max_length(path) or max_length, training=training if is_ours else None,
            earlier_report=report if is_ours and report.is_file() else None,
            other_pairs=other_pairs(store, model, gold) if model else None,
        )  # fmt: skip
    if hub and not folder.exists():
        return Candidate(name, ModelRef(hub_id=hub["hub_id"], revision=hub["revision"]), max_length)
    raise ModelError(
        "MODEL_001", f"'{name}' is no recipe, no folder with a config.json, and no OWNER/NAME on the Hub",
        fix=f"{recipe_book().did_you_mean(name)}`rm-assets recipes list` names the recipes; a release lies in its folder's `release`",
    )  # fmt: skip


def _max_length(checkpoint: Path) -> int | None:
    """What a checkpoint of ours says of itself."""
    file = checkpoint / TRAINING_FILE
    return int(json.loads(file.read_text("utf-8"))["max_length"]) if file.is_file() else None


def judge(store: Store, on: Recipe, candidates: Sequence[Candidate], *, needs_reports: bool, say: Say) -> list[Judged]:
    """Every candidate on the test responses of `on`, in order; what is committed is read and not scored again.

    With `needs_reports`, a committed report serves only if it was made with the evaluation settings of `on`. Without, a
    report may be another evaluation's or empty, and only the rewards are those of these responses.
    A model that was trained or tuned on some of the test prompts is named.
    Raises: the error of the process; TaskError if it fails without one, is killed, or takes too long.
    """
    warnings = {
        c.name: found
        for c in candidates
        if c.other_pairs and (found := trained_on_test(store, on.name, gold_of(store, on), c.name, c.other_pairs))
    }
    for warning in warnings.values():
        say(f"warning: {warning}")
    known = {
        c.name: Judged(c, list(read_table(c.report / REWARDS_FILE, ProxyReward)), _read(c.report / "report.json"))
        for c in candidates
        if c.report and (c.is_same_evaluation or not needs_reports)
    }
    if not needs_reports and on.evaluation.benchmarks:
        on = on.model_copy(update={"evaluation": on.evaluation.model_copy(update={"benchmarks": []})})
    missing = [c for c in candidates if c.name not in known]
    if missing:
        known |= {judged.candidate.name: judged for judged in _run(store, on, missing, say)}
    return [replace(known[c.name], warning=warnings.get(c.name)) for c in candidates]


def trained_on_test(store: Store, on: str, gold: Manifest, name: str, pairs: Path) -> str | None:
    """A sentence where the model `name` was trained or tuned on some of the test prompts, by its pairs; `on` is their recipe."""
    rewards = store.folder("gold_rewards", gold.digest) / "gold_rewards.parquet"
    tested = {row.prompt_id for row in read_table(rewards, _PromptOfRow) if row.split == "test"}
    seen = tested & {row.prompt_id for row in read_table(pairs, _PromptOfRow) if row.split != "test"}
    if not seen:
        return None
    return (
        f"{name} was trained or tuned on {len(seen):,} of the {len(tested):,} test prompts of {on}: "
        "here it looks better than it is; compare recipes whose sections prompts are the same"
    )


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def _run(store: Store, on: Recipe, candidates: Sequence[Candidate], say: Say) -> Iterator[Judged]:
    gold, fingerprints = gold_of(store, on), Fingerprints(store.home / "fingerprints")
    pairs = wanted(store, on, "implicit_pairs")

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "log":
            say(event["message"])

    with tempfile.TemporaryDirectory(dir=store.home, prefix=".judge-") as name, locked(Path(name) / "lock"):
        folder = Path(name)
        models = [
            {
                "name": c.name, "model": c.model.model_dump(mode="json"), "max_length": c.max_length,
                "weights": fingerprints.of(c.model.path) if c.model.path else None,
                "training": str(c.training) if c.training else None,
                "train_accuracy": _read(c.earlier_report)["train_accuracy"] if c.earlier_report else None,
            }
            for c in candidates
        ]  # fmt: skip
        request = {
            "recipe": on.model_dump(mode="json"), "home": str(store.home), "folder": name, "models": models,
            "gold": str(store.folder("gold_rewards", gold.digest) / "gold_rewards.parquet"),
            "pairs": str(store.folder("implicit_pairs", pairs.digest) / "pairs.parquet") if pairs.manifest else None,
        }  # fmt: skip
        run_side_task(
            "judge", request, folder, result=f"the judgement on '{on.name}'",
            timeout_seconds=on.execution.timeout_seconds, hear=hear,
        )  # fmt: skip
        for place, candidate in enumerate(candidates):
            rewards = list(read_table(folder / f"{place}.parquet", ProxyReward))
            yield Judged(candidate, rewards, _read(folder / f"{place}.json"))


def seeds_together(judged: Sequence[Judged]) -> dict[str, list[str]]:
    """The models of each recipe that are there with several seeds, by the recipe's name."""
    groups: dict[str, list[str]] = {}
    for each in judged:
        if each.candidate.recipe:
            groups.setdefault(each.candidate.recipe, []).append(each.candidate.name)
    return {name: members for name, members in groups.items() if len(members) > 1}
