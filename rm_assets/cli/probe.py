"""Measures ten optimizer steps of a recipe for the planner."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from rm_assets.core.errors import PlanError, RmAssetsError
from rm_assets.core.plan import Probe
from rm_assets.core.recipe import Recipe
from rm_assets.executors.local import run_local
from rm_assets.storage.files import write_json
from rm_assets.storage.home import find_home
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Store


def measure(recipe: Recipe, device: str) -> Probe:
    """Seconds of an optimizer step on this machine, called `device` in the price list.

    Raises: PlanError PLAN_001 if the pairs are not made yet or the probe fails, or the error of the training itself.
    """
    store = Store(find_home())
    want = wanted(store, recipe, "implicit_pairs")
    if want.manifest is None:
        raise PlanError(
            "PLAN_001", f"a probe trains on real pairs, and those of '{recipe.name}' are not made yet",
            fix=f"run `rm-assets run {recipe.name} --select '*implicit_pairs'` first",
        )  # fmt: skip
    found: dict[str, Any] = {}

    def listen(event: dict[str, Any]) -> None:
        found[event["event"]] = event
        if event["event"] == "progress":
            print(f"probe: step {event['done']} of {event['total']}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request.json"
        pairs = store.folder("implicit_pairs", want.digest) / "pairs.parquet"
        values = {"recipe": recipe.model_dump(mode="json"), "home": str(store.home), "pairs": str(pairs)}
        write_json(request, values)
        end = run_local("probe", request, listen, timeout_seconds=recipe.execution.timeout_seconds)
    if "error" in found:
        raise RmAssetsError.from_dict(found["error"]["error"])
    if "probe" not in found:
        raise PlanError(
            "PLAN_001", f"the probe of '{recipe.name}' ended with status {end.status}", why=end.tail,
            fix="if it was killed, it wanted more memory than there is: lower execution.training_token_budget",
        )  # fmt: skip
    return Probe(found["probe"]["seconds_per_step"], device, found["probe"]["peak_bytes"])
