"""Measures ten optimizer steps of a recipe for the planner."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from rm_assets.core.errors import PlanError, RmAssetsError, StoreError
from rm_assets.core.planning.arithmetic import Probe
from rm_assets.core.planning.training_plan import num_devices
from rm_assets.core.recipe import Recipe
from rm_assets.executors.local import run_local
from rm_assets.executors.output import unfinished
from rm_assets.storage.files import write_json
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.home import find_home
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Store, locked


def measure(recipe: Recipe, device: str) -> Probe:
    """Seconds of an optimizer step on this machine, called `device` in the price list.

    Raises: PlanError PLAN_001 if the training has several devices, the pairs are not made yet, or the probe fails;
    TaskError TASK_003 if it takes longer than a training may; or the error of the training itself.
    """
    if num_devices(recipe) > 1:
        raise PlanError(
            "PLAN_001", f"a probe measures one device, and the training of '{recipe.name}' has {num_devices(recipe)}",
            fix="set execution.num_processes to 1 for the probe, or take execution.jax_mesh out, or time a step of the real training and give it with --seconds-per-step",
        )  # fmt: skip
    store = Store(find_home())
    pairs = _pairs(store, recipe)
    found, limit = dict[str, Any](), recipe.execution.timeout_of("train")

    def listen(event: dict[str, Any]) -> None:
        found[event["event"]] = event
        if event["event"] == "progress":
            print(f"probe: step {event['done']} of {event['total']}", file=sys.stderr)

    # In the store, where a training has room; gone also when the probe is interrupted.
    with tempfile.TemporaryDirectory(dir=store.home, prefix=".probe-") as folder, locked(Path(folder) / "lock"):
        request = Path(folder) / "request.json"
        values = {
            "recipe": recipe.model_dump(mode="json"), "home": str(store.home), "pairs": str(pairs), "folder": folder,
        }  # fmt: skip
        write_json(request, values)
        end = run_local("probe", request, listen, timeout_seconds=limit)
    if "error" in found:
        raise RmAssetsError.from_dict(found["error"]["error"])
    if "probe" not in found and end.timed_out:
        raise unfinished("probe", end, f"the probe of '{recipe.name}'", limit)
    if "probe" not in found:
        raise PlanError(
            "PLAN_001", f"the probe of '{recipe.name}' ended with status {end.status}", why=end.tail,
            fix="if it was killed, it wanted more memory than there is: lower execution.training_token_budget",
        )  # fmt: skip
    measured = found["probe"]
    return Probe(measured["seconds_per_step"], device, measured["peak_bytes"], measured["seconds_before"])


def _pairs(store: Store, recipe: Recipe) -> Path:
    """The table of the recipe's pairs. Raises: PlanError PLAN_001 if they, or something they are made of, are not made."""
    try:
        want = wanted(store, recipe, "implicit_pairs", Fingerprints(store.home / "fingerprints", remembers=False).of)
    except StoreError as error:
        if error.code != "STORE_002":
            raise
    else:
        if want.manifest is not None:
            return store.folder("implicit_pairs", want.digest) / "pairs.parquet"
    raise PlanError(
        "PLAN_001", f"a probe trains on real pairs, and those of '{recipe.name}' are not made yet",
        fix=f"run `rm-assets run {recipe.name} --select '*implicit_pairs'` first",
    )  # fmt: skip
