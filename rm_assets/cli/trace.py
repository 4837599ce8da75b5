"""`rm-assets trace`: from a pair, response or prompt back to everything that it was made from."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from rm_assets.core.errors import StoreError
from rm_assets.core.planning.cost import cost_of, total_cost
from rm_assets.core.planning.prices import DevicePrice
from rm_assets.core.records import GoldReward, Pair, Prompt
from rm_assets.core.stages import STAGES
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.home import find_home
from rm_assets.storage.lineage import wanted
from rm_assets.storage.price_list import price_list
from rm_assets.storage.store import Manifest, Store
from rm_assets.storage.tables import read_table

TRACED = ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs", "reward_model")


@dataclass(frozen=True)
class Trace:
    """What was found: the rows, from pair to prompt, and the assets that hold them."""

    pair: Pair | None
    was_trained_on: bool | None
    rewards: list[GoldReward]
    prompt: Prompt
    assets: dict[str, Manifest]
    prices: tuple[DevicePrice, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "pair": asdict(self.pair) if self.pair else None,
            "was_trained_on": self.was_trained_on,
            "gold_rewards": [asdict(reward) for reward in self.rewards],
            "prompt": asdict(self.prompt),
            "assets": {
                name: {
                    "digest": m.digest, "data_version": m.data_version, "stage_version": m.stage_version,
                    "settings": m.settings, "made": m.made, "cost": cost_of(m.made, self.prices).as_json(), "dataset_commits": m.facts.get("dataset_commits", {}),
                }
                for name, m in self.assets.items()
            },
        }  # fmt: skip

    def print(self, console: Console) -> None:
        """For people, from what was asked for to where it came from."""
        if self.pair:
            seen = {True: "trained on", False: "not trained on", None: "no model was trained here on such pairs yet"}[
                self.was_trained_on
            ]
            console.print(f"[bold]pair[/bold] {self.pair.pair_id}: {self.pair.split}, {seen}", highlight=False)
            console.print(f"  gold margin {self.pair.gold_margin:g}", highlight=False)
        for reward in self.rewards:
            side = {self.pair.chosen_id: "chosen ", self.pair.rejected_id: "rejected "} if self.pair else {}
            console.print(
                f"[bold]{side.get(reward.response_id, '')}response[/bold] {reward.response_id}: {escape(repr(reward.response))}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            console.print(f"  {'; '.join(_of_reward(reward))}", highlight=False, markup=False, soft_wrap=True)
        prompt = self.prompt
        text = escape(repr(prompt.prompt))
        console.print(f"[bold]prompt[/bold] {prompt.prompt_id}: {text}", highlight=False, soft_wrap=True)
        turns = f", after {len(prompt.history)} earlier turns" if prompt.history else ""
        console.print(
            f"  row {prompt.row + 1} of source '{prompt.source}', split {prompt.split}{turns}",
            highlight=False, markup=False,
        )  # fmt: skip
        for name, manifest in self.assets.items():
            console.print(f"[bold]{name}[/bold] {manifest.digest[:12]}", highlight=False)
            for line in (*_of_asset(name, manifest), str(cost_of(manifest.made, self.prices))):
                console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        total = total_cost([cost_of(manifest.made, self.prices) for manifest in self.assets.values()])
        console.print(f"all of these took {total}", highlight=False, markup=False, soft_wrap=True)


def _of_asset(name: str, manifest: Manifest) -> Iterator[str]:
    made = manifest.made
    in_run = f" in run {str(made['run_id'])[:8]}" if made.get("run_id") else ""
    yield f"made {str(made.get('at', 'at an unknown time'))[:19]}{in_run}, version {manifest.stage_version} of the stage"
    if by := _maker(name, manifest.settings):
        yield f"by {by}"
    for dataset, commit in manifest.facts.get("dataset_commits", {}).items():
        yield f"dataset {dataset} at commit {commit[:12]}"


def _of_reward(reward: GoldReward) -> Iterator[str]:
    yield f"gold reward {reward.gold_reward:g}"
    if reward.components:
        yield ", ".join(f"{name} {value:g}" for name, value in reward.components.items())
    if reward.comparison is not None:
        yield f"judgement {int(reward.comparison) + 1} of this prompt"
    yield f"sample {reward.sample_index} of {reward.model}" + (
        f", seed {reward.seed}" if reward.seed is not None else ""
    )
    if reward.num_tokens is not None:
        yield f"{reward.num_tokens} tokens" + ("" if reward.finished else ", cut by the length limit")
    if reward.truncated:
        yield "too long for the gold model, which saw its beginning"


def _maker(asset: str, settings: dict[str, Any]) -> str:
    """Whose work the asset is: a model with its revision, a server, rules, files by the hash of their content, or several scorers."""
    if settings.get("kind") == "combined":
        return "; ".join(f"{part['name']}: {_maker(asset, part['gold'])}" for part in settings["scorers"])
    key = {"sampled_responses": "policy", "gold_rewards": "model", "reward_model": "base"}.get(asset, "")
    found = settings.get("model" if settings.get("kind") == "existing" else key)
    if isinstance(found, dict):
        return (
            f"{found['hub_id']} at {found['revision'] or 'an unpinned revision'}"
            if found["hub_id"]
            else f"weights {found['path']}"
        )
    if isinstance(settings.get("model"), str):
        return f"{settings['model']}, {settings['revision']}"
    source = settings.get("source")
    if isinstance(source, dict):
        return f"{source['kind']} {source.get('dataset') or ', '.join(source.get('files', []))}".strip()
    return str(settings.get("kind") or settings.get("policy") or "")


def assets_of(recipe: str | None, release: Path | None) -> dict[str, Manifest]:
    """The committed assets of a recipe as it is now, or those that a release names in its lineage.

    Raises: StoreError STORE_002 if one of a release is in this store no more, or a recipe's prompts are not made.
    """
    store = Store(find_home())
    if release is None:
        loaded, found = recipe_book().load(str(recipe)), {}
        for asset in TRACED:
            try:
                manifest = wanted(store, loaded, asset).manifest
            except StoreError as error:
                if error.code != "STORE_002":
                    raise
                break
            if manifest is None:
                break
            found[asset] = manifest
        if "gold_rewards" not in found:
            raise StoreError(
                "STORE_002",
                f"gold_rewards of recipe '{recipe}' has not been made as the recipe wants it now (store: {store.home})",
                fix=f"run `rm-assets run {recipe}`, or trace a release with --release FOLDER",
            )
        return found
    try:
        lineage = json.loads((release / "lineage.json").read_text("utf-8"))
        digests = {asset: lineage[asset]["digest"] for asset in TRACED}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            "STORE_002", f"{release} holds no lineage.json of a release", why=repr(error), fix="name a release's folder"
        ) from None
    manifests = {asset: store.manifest(asset, digest) for asset, digest in digests.items()}
    if gone := [f"{asset} {digests[asset]}" for asset, manifest in manifests.items() if manifest is None]:
        raise StoreError(
            "STORE_002",
            f"the store {store.home} does not hold {', '.join(gone)}",
            fix="set RM_ASSETS_HOME to the store that the release was made in",
        )
    return {asset: manifest for asset, manifest in manifests.items() if manifest}


def trace(assets: dict[str, Manifest], *, pair: str | None, response: str | None, prompt: str | None) -> Trace:
    """The chain of the one that is given. Raises: StoreError STORE_002 if there is none of that id."""
    store = Store(find_home())

    def table(asset: str, file: str, record: type[Any]) -> Iterator[Any]:
        return read_table(store.folder(asset, assets[asset].digest) / file, record)

    found: Pair | None = None
    trained: bool | None = None
    if pair is not None:
        if "implicit_pairs" in assets:
            found = next((p for p in table("implicit_pairs", "pairs.parquet", Pair) if p.pair_id == pair), None)
        if found is None:
            raise _unknown("pair", pair)
        if "reward_model" in assets and assets["reward_model"].settings.get("kind") != "existing":
            ids = store.folder("reward_model", assets["reward_model"].digest) / "trained_pair_ids.txt"
            with open(ids, encoding="utf-8") as lines:
                trained = any(line.strip() == pair for line in lines)
    wanted_ids = {found.chosen_id: 0, found.rejected_id: 1} if found else {response: 0}
    rewards = [
        reward
        for reward in table("gold_rewards", "gold_rewards.parquet", GoldReward)
        if reward.response_id in wanted_ids or (prompt is not None and reward.prompt_id == prompt)
    ]
    rewards.sort(key=lambda reward: wanted_ids.get(reward.response_id, reward.sample_index))
    prompt_id = prompt or (rewards[0].prompt_id if rewards else None)
    origin = next((p for p in table("prompts", "prompts.parquet", Prompt) if p.prompt_id == prompt_id), None)
    if origin is None:
        raise _unknown("prompt" if prompt else "response", str(prompt or response))
    return Trace(
        found, trained, rewards, origin, {name: assets[name] for name in STAGES if name in assets}, price_list()
    )


def _unknown(what: str, identity: str) -> StoreError:
    return StoreError(
        "STORE_002",
        f"there is no {what} '{identity}' in these assets",
        fix="take an id from `rm-assets show`, the tables, the exports or the report; it belongs to one version of the data",
    )
