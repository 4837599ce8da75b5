"""Compute: makes an asset for a recipe, in a task where the executor runs it, or finds it made already."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from rm_assets.core.errors import RmAssetsError
from rm_assets.core.recipe import LocalExecutor, Recipe, TaskName
from rm_assets.core.smoke import smoke_recipe
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.executors.local import run_local
from rm_assets.executors.output import OnEvent, TaskEnd, unfinished
from rm_assets.executors.remote import run_remote
from rm_assets.executors.warm import keep_warm
from rm_assets.resources.heartbeat import beating
from rm_assets.resources.recipes import recipe_book
from rm_assets.resources.remote_figures import keep_figures
from rm_assets.resources.sections import observe_made
from rm_assets.storage.files import write_json
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.home import find_home, home_of
from rm_assets.storage.lineage import wanted
from rm_assets.storage.outdated import aim
from rm_assets.storage.store import Manifest, Store

SECONDS_BETWEEN_PROGRESS = 5.0
FIGURES = ("loss", "accuracy", "margin", "grad_norm", "learning_rate")
AIM_TAG = "rm_assets/aim"
"""The tag of a run that names all that the recipe wants (storage.outdated.aim), as the run saw it last."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """A committed asset, whether it had been made before, and what no other asset makes and was made for it on the way."""

    manifest: Manifest
    folder: Path
    was_there: bool
    on_the_way: tuple["Made", ...] = ()

    @property
    def work(self) -> dict[str, int]:
        """What was computed now, all zero when it had been made before."""
        done: Counter[str] = Counter()
        for made in (self, *self.on_the_way):
            done.update({what: 0 if made.was_there else n for what, n in made.manifest.work.items()})
        return dict(done)


@contextmanager
def errors_as_failures(what: str, recipe: str) -> Iterator[None]:
    """An RmAssetsError becomes a Failure of the step, which shows its code, why and fix; dagster does not try again."""
    try:
        yield
    except RmAssetsError as error:
        raise dg.Failure(
            f"{what} of recipe '{recipe}': {error}", metadata={"rm/error_code": error.code}, allow_retries=False
        ) from None


class Compute(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Makes assets by their input digests: what is committed is never made again."""

    home: str = Field(
        default="",
        description="Folder or URL of the store; empty: RM_ASSETS_HOME, else .rm_assets beside workspace.yaml, else the user's data folder.",
    )
    smoke: bool = Field(default=False, description="Cut every recipe down to a few prompts and ten optimizer steps.")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Compute"]:
        """This, with a heartbeat for as long as the process of a run uses it."""
        if context.run is None or context.instance is None:
            yield self
        else:
            with beating(self.store().home, context.run.run_id, context.instance):
                yield self

    def store(self) -> Store:
        """The store that this resource writes to."""
        return Store(home_of(self.home) if self.home else find_home())

    def recipe(self, key: str) -> Recipe:
        """The recipe of a partition key. Raises: RecipeError."""
        recipe = recipe_book().load(key)
        return smoke_recipe(recipe) if self.smoke else recipe

    def make(self, context: dg.AssetExecutionContext, by: Callable[..., Made] | None = None) -> Made:
        """Makes the asset of `context` for its partition, or finds it: with `make_asset`, or `by` what is called as that is.

        Raises: dagster.Failure with the error's code and message.
        """
        asset = context.asset_key.to_user_string()
        with errors_as_failures(asset, context.partition_key):
            recipe = self.recipe(context.partition_key)
            if recipe.automation.rebuild == "auto":
                self._tag(context, recipe)
            made = (by or self.make_asset)(
                recipe,
                asset,
                say=context.log.info,
                debug=context.log.debug,
                run_id=context.run.run_id,
            )
        observe_made(context, asset, made.manifest)
        return made

    def _tag(self, context: dg.AssetExecutionContext, recipe: Recipe) -> None:
        """So that what a person cancels is not started again, whoever started it. Nothing if a source is missing."""
        with suppress(RmAssetsError):
            named = aim(recipe, Fingerprints(self.store().home / "fingerprints").of)
            context.instance.add_run_tags(context.run.run_id, {AIM_TAG: named})

    def make_asset(
        self,
        recipe: Recipe,
        asset: str,
        *,
        say: Say,
        debug: Say,
        run_id: str = "",
        watch: Callable[[], None] = lambda: None,
    ) -> Made:
        """As `make`, outside Dagster. `watch` is called at each of the task's events; what it raises ends the task.

        Raises: RmAssetsError.
        """
        store = self.store()
        on_the_way = tuple(self._make_at_shares(store, recipe, asset, say=say, debug=debug, run_id=run_id))
        want = wanted(store, recipe, asset)
        folder = store.folder(asset, want.digest)
        if want.manifest:
            # So that retention, which may have looked before, leaves it; not in a store that is only read.
            with suppress(OSError):
                os.utime(folder / "manifest.json")
            say(f"{asset}: nothing to do, made before as {want.digest[:12]}")
            return Made(want.manifest, folder, was_there=True, on_the_way=on_the_way)
        request = {
            "asset": asset,
            "digest": want.digest,
            "home": str(store.home),
            "inputs": {name: manifest.digest for name, manifest in want.inputs.items()},
            "settings": want.settings,
            "recipe": recipe.model_dump(mode="json"),
            "run_id": run_id,
        }
        task = STAGES[asset].task
        listener = _Listener(asset, say, debug)

        def hear(event: dict[str, Any]) -> None:
            listener(event)
            watch()

        end = _run(recipe, task, request, store, folder, hear, say=say)
        manifest = store.manifest(asset, want.digest)
        if listener.error:
            raise listener.error
        if manifest is None or end.status != 0:
            raise unfinished(task, end, asset, recipe.execution.timeout_of(task))
        if listener.found:
            say(f"{asset}: another run has made it in the meantime")
        else:
            work = [f"{n:,} {what}" for what, n in manifest.work.items()]
            say("; ".join([f"{asset}: made in {manifest.made['seconds']} s", *work]))
        # Asked for anew: what was made elsewhere is fetched.
        return Made(manifest, store.folder(asset, want.digest), was_there=listener.found, on_the_way=on_the_way)

    def _make_at_shares(self, store: Store, recipe: Recipe, asset: str, *, say: Say, **options: Any) -> Iterator[Made]:
        """The models of a learning curve, which no asset of the graph makes, once all else that `asset` reads is there."""
        reads = STAGES[asset].reads(recipe)
        others = {name: of for name, of in reads.items() if of is not recipe}
        if others and all(wanted(store, recipe, name).manifest for name in reads if name not in others):
            for name, of in others.items():
                say(f"{asset}: {name} of the training prompts")
                yield self.make_asset(of, asset_of(name), say=say, **options)


def _run(
    recipe: Recipe, task: TaskName, request: dict[str, Any], store: Store, folder: Path, hear: OnEvent, *, say: Say
) -> TaskEnd:  # fmt: skip
    """Runs the task where the recipe says."""
    executor, limit = recipe.execution.executor_of(task), recipe.execution.timeout_of(task)
    if isinstance(executor, LocalExecutor):
        say(f"{request['asset']}: task {task} starts")
        keep_warm()  # for the assets that follow
        write_json(folder / "request.json", request)
        return run_local(task, folder / "request.json", hear, timeout_seconds=limit)
    say(f"{request['asset']}: task {task} starts by {executor.kind}")
    elsewhere = partial(run_remote, executor, task, request, store, timeout_seconds=limit)
    return keep_figures(elsewhere, hear, store, recipe, request)


class _Listener:
    """Passes on a task's events: progress at most every few seconds, metrics as one line, output for those who debug."""

    def __init__(self, asset: str, say: Say, debug: Say) -> None:
        self._asset, self._say, self._debug = asset, say, debug
        self._started = self._said = time.monotonic()
        self.error: RmAssetsError | None = None
        self.found = False

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "error":
            self.error = RmAssetsError.from_dict(event["error"])
        elif kind == "found":
            self.found = True
        elif kind == "log":
            self._say(f"{self._asset}: {event['message']}")
        elif kind == "output":
            self._debug(f"{self._asset}: {event['message']}")
        elif kind in ("progress", "metrics") and time.monotonic() - self._said >= SECONDS_BETWEEN_PROGRESS:
            self._said = time.monotonic()
            self._say(f"{self._asset}: " + (self._progress(event) if kind == "progress" else _metrics(event)))

    def _progress(self, event: dict[str, Any]) -> str:
        done, total = event["done"], event["total"]
        left = (time.monotonic() - self._started) * (total - done) / max(done, 1)
        return f"{done:,} of {total:,} {event['unit']}, about {left:.0f} s left"


def _metrics(event: dict[str, Any]) -> str:
    """What tells how a training goes; `rm-assets monitor` shows the rest."""
    values = event["values"]
    shown = [f"{name.replace('_', ' ')} {values[name]:.4g}" for name in FIGURES if values.get(name) is not None]
    left = [f"about {values['eta_seconds']:.0f} s left"] if values.get("eta_seconds") is not None else []
    return f"step {event['step']}: " + ", ".join([*shown, *left])
