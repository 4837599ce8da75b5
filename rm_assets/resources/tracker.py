"""Tracker: hands finished trainings and reports to Weights & Biases, and says where their figures are.

Nothing depends on it: what goes wrong is one warning, and is tried again by the next run.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from pydantic import Field

from rm_assets.core.errors import RmAssetsError, TrackingError
from rm_assets.core.recipe import Recipe, WandbSettings
from rm_assets.resources.compute import Compute, Made, Say
from rm_assets.storage.files import write_json
from rm_assets.storage.metrics_log import METRICS_LOG, read_run
from rm_assets.storage.store import Store

WANDB_FILE = "wandb.json"
"""Beside the asset's files: where its run in W&B is. What has one is not logged again."""
API_KEY = "WANDB_API_KEY"  # pragma: allowlist secret
JOB_TYPES = {"reward_model": "train", "evaluation_report": "evaluate"}


class Tracker(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Tracks what a recipe's `tracking` asks for."""

    timeout_seconds: float = Field(
        default=120.0, description="Longest time that W&B may take for one run; then it is a warning."
    )

    def links(self, context: dg.AssetExecutionContext, compute: Compute, made: Made) -> dict[str, Any]:
        """Logs the asset of `context` to W&B where that is asked for and not done; metadata that lead to its figures."""
        return self.track(
            compute.recipe(context.partition_key), made, store=compute.store(), say=context.log.info, warn=context.log.warning
        )  # fmt: skip

    def track(self, recipe: Recipe, made: Made, *, store: Store, say: Say, warn: Say) -> dict[str, Any]:
        """As `links`, outside Dagster. Raises nothing that W&B is to blame for."""
        found: dict[str, Any] = {}
        if (made.folder / METRICS_LOG).is_file():
            found["tracking/metrics_log"] = dg.MetadataValue.path(made.folder / METRICS_LOG)
        events = store.event_files(made.manifest.recipe, made.manifest.digest)
        if events.is_dir() and made.manifest.asset == "reward_model":
            found["tracking/tensorboard"] = dg.MetadataValue.path(events)
        if recipe.tracking.wandb is not None:
            try:
                run = _wandb_run(recipe, recipe.tracking.wandb, made, store.home, say, self.timeout_seconds)
            except RmAssetsError as error:
                warn(f"{made.manifest.asset}: {error}")
            else:
                url, folder = run["url"], run["folder"]
                found["tracking/wandb"] = dg.MetadataValue.url(url) if url else dg.MetadataValue.path(folder)
        return found


def _wandb_run(
    recipe: Recipe, settings: WandbSettings, made: Made, home: Path, say: Say, timeout_seconds: float
) -> dict[str, Any]:
    """The run of an asset: the one that is there, or a new one. Raises: TrackingError TRACKING_001."""
    place = settings.model_dump(include={"project", "entity", "mode"})
    file = made.folder / WANDB_FILE
    if file.is_file() and (known := json.loads(file.read_text("utf-8")))["place"] == place:
        run: dict[str, Any] = known["run"]
        return run
    run = _log(_request(recipe, settings, made, home) | place, timeout_seconds)
    write_json(file, {"place": place, "run": run})
    where = run["url"] or f"{run['folder']}; send it with `wandb sync {run['folder']}`"
    say(f"{made.manifest.asset}: W&B run in {where}")
    return run


def _request(recipe: Recipe, settings: WandbSettings, made: Made, home: Path) -> dict[str, Any]:
    """What wandb_run.py is to log of an asset."""
    manifest = made.manifest
    run = read_run(made.folder / METRICS_LOG) if (made.folder / METRICS_LOG).is_file() else None
    facts = {**manifest.facts, **{f"num_{name}": count for name, count in manifest.counts.items()}}
    report = made.folder / "report.html"
    return {
        "home": str(home),
        "id": f"{manifest.asset}-{manifest.digest[:12]}",
        "name": f"{recipe.name} {manifest.digest[:8]}",
        "group": recipe.name,
        "job_type": JOB_TYPES[manifest.asset],
        "tags": settings.tags,
        "config": without_credentials(
            {"recipe": recipe.model_dump(mode="json"), "digest": manifest.digest, "inputs": manifest.inputs,
             "made": manifest.made}
        ),
        "steps": [
            {"step": step["step"], "figures": {name: step[name] for name in step.keys() - {"step", "time"}}}
            for step in (run.steps if run else [])
        ],
        "summary": {name: fact for name, fact in facts.items() if isinstance(fact, int | float | str)},
        "html": str(report) if report.is_file() else None,
    }  # fmt: skip


def without_credentials(value: Any) -> Any:
    """`value` with the user, password and query of each address in it left out: both may hold keys."""
    if isinstance(value, dict):
        return {key: without_credentials(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_credentials(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(://[^\s?]*)\?\S*", r"\1", re.sub(r"://[^/?\s]+@", "://", value))
    return value


def _log(request: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
    """Has a process of its own make the run. Raises: TrackingError TRACKING_001."""
    if request["mode"] == "online" and not os.environ.get(API_KEY):
        raise _failure(f"{API_KEY} is not set")
    with TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "result.json"
        write_json(asked, request)
        try:
            # Its output goes nowhere: a client that writes more than it should cannot write a key into a log.
            subprocess.run(
                [sys.executable, "-m", "rm_assets.resources.wandb_run", str(asked), str(answered)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                timeout=timeout_seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise _failure(f"no answer in {timeout_seconds:g} s") from None
        if not answered.is_file():
            raise _failure("its client ended without a word")
        result: dict[str, Any] = json.loads(answered.read_text("utf-8"))
    if "error" in result:
        raise _failure(result["error"])
    return result


def _failure(why: str) -> TrackingError:
    key, said = os.environ.get(API_KEY), " ".join(why.split())
    return TrackingError(
        "TRACKING_001",
        "W&B did not take the run; the asset is as it should be",
        why=(said.replace(key, "...") if key else said)[:300],
        fix=f"set {API_KEY} to a valid key and check the network, or set tracking.wandb.mode to offline; the next run of the "
        "recipe tries again",
    )
