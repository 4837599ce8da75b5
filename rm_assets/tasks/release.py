"""hub_release: a folder that can be used and checked by somebody who has nothing else, and its way to the Hub."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from rm_assets.core.errors import ReleaseError
from rm_assets.core.protocols import ADAPTER, QuietReporter
from rm_assets.core.recipe import Dtype, ModelRef, Recipe
from rm_assets.core.report.model_card import model_card
from rm_assets.storage.files import write_json, write_text
from rm_assets.storage.hub_models import push
from rm_assets.storage.lineage import ancestors
from rm_assets.storage.registry import release_name
from rm_assets.storage.release_files import check_files
from rm_assets.tasks.session import Product, Task, run_task
from rm_assets.tasks.train import CHECKPOINT

Device = Callable[[], AbstractContextManager[None]]
"""The lease on the device, held while a model is loaded."""
CANARY_TOLERANCE: dict[Dtype, float] = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
"""Largest difference of a canary's reward, in standard deviations of the rewards of the test responses.

In float32 batching and kernels move a reward by about 1e-5 of them. Weights in bfloat16 moved rewards by up to 0.08, and
float16 has three bits more.
"""
ROUNDING = 1e-6
"""What float32 may lose of a reward itself, where the rewards hardly differ."""


def release(task: Task) -> Product:
    """Builds the folder, validates it as its user would, and pushes it if the recipe says where to."""
    folder, section = task.folder / "release", task.recipe.release
    report = json.loads(task.input("evaluation_report", "report.json").read_text("utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _fill(task, folder, report)
    task.reporter.log("validating the release folder")
    device = partial(task.store.device, task.reporter.waiting)
    largest = validate(folder, report, task.recipe, device)
    name = release_name(task.recipe.name, task.digest)
    hub = None
    if section.hub_id and not section.validate_only:
        task.reporter.log(f"pushing to {section.hub_id}, tag {section.revision or name}")
        hub = publish(folder, section.hub_id, name, report, task.recipe, device)
    files = sorted(folder.iterdir())
    return Product(
        files=[f"release/{file.name}" for file in files],
        counts={
            "files": len(files),
            "bytes": sum(f.stat().st_size for f in files),
            "canaries": len(report["canaries"]),
        },
        work={"releases built": 1},
        facts={
            "release": name,
            "path": str(folder),
            "form": section.form,
            "hub": hub,
            "largest_canary_difference": largest,
            "match_rate": report["match_rate"]["value"],
            "verdict": report["verdict"],
        },
    )


def _fill(task: Task, folder: Path, report: dict[str, Any]) -> None:
    """The model, its report, where it comes from, and the card."""
    from rm_assets.backends.torch.released import template_options

    recipe, checkpoint = task.recipe, task.input("reward_model", CHECKPOINT)
    is_adapter = recipe.release.form == "adapter"
    left_out = _weights(checkpoint) if is_adapter else set()
    for file in sorted(checkpoint.iterdir()):
        if file.name not in left_out:
            link_or_copy(file, folder / file.name)
    if is_adapter:
        adapter = task.input("reward_model", ADAPTER)
        if not adapter.is_dir():
            raise ReleaseError(
                "RELEASE_009",
                f"recipe '{recipe.name}' has release.form adapter, and its model has no adapter",
                fix="set training.lora and train again, or release.form to whole",
            )
        for file in sorted(adapter.iterdir()):
            shutil.copyfile(file, folder / file.name)
        _name_base(folder, recipe.training.base)
    for name in ("report.json", "report.html"):
        link_or_copy(task.input("evaluation_report", name), folder / name)
    sources = ancestors(task.store, {name: manifest.digest for name, manifest in task.inputs.items()})
    write_json(
        folder / "lineage.json",
        {
            asset: {"digest": m.digest, "data_version": m.data_version, "settings": m.settings}
            for asset, m in sources.items()
        },
    )
    card = model_card(
        recipe,
        report,
        {asset: manifest.data_version for asset, manifest in sources.items()},
        reads_text_pairs=not any(canary["text"] for canary in report["canaries"]),
        template_options=template_options(folder),
        revision=recipe.release.revision or release_name(recipe.name, task.digest),
    )
    write_text(folder / "README.md", card)


def _weights(checkpoint: Path) -> set[str]:
    """What an adapter stands for: the weights, their index, and the configuration that would have them loaded."""
    return {f.name for f in checkpoint.iterdir() if "safetensors" in f.name or f.name == "config.json"}


def _name_base(folder: Path, base: ModelRef) -> None:
    """Writes into an adapter's configuration which base it belongs to."""
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text("utf-8"))
    write_json(file, config | {"base_model_name_or_path": base.location, "revision": base.revision})


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, so that a large model lies on the disk once."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def validate(folder: Path, report: dict[str, Any], recipe: Recipe, device: Device) -> float:
    """Checks files, loads the model and scores the canaries; returns the largest difference of a canary's reward.

    Raises: ReleaseError as `check_files`, RELEASE_002 (canaries), RELEASE_009 (adapter); ModelError if it does not load.
    """
    check_files(folder, recipe.release.form)
    return rescore_canaries(folder, report, recipe, device)


def rescore_canaries(folder: Path, report: dict[str, Any], recipe: Recipe, device: Device) -> float:
    """The largest difference of a canary's reward, each scored alone by the model in the folder.

    Raises: ReleaseError RELEASE_002 if one is larger than the tolerance.
    """
    from rm_assets.backends.torch.released import load_released, stored_dtype

    with device():
        scorer, dtype = load_released(folder, recipe.execution, QuietReporter()), stored_dtype(folder)
        rewards = [next(iter(scorer.score([canary["messages"]]))).reward for canary in report["canaries"]]
    spread, largest = report["distributions"]["reward"]["sd"], 0.0
    for canary, reward in zip(report["canaries"], rewards, strict=True):
        difference = abs(reward - canary["reward"])
        largest = max(largest, difference)
        tolerance = max(CANARY_TOLERANCE[dtype] * spread, ROUNDING * max(1.0, abs(canary["reward"])))
        if difference > tolerance:
            raise ReleaseError(
                "RELEASE_002",
                f"a canary scores {reward:.7f} in the release and {canary['reward']:.7f} in the report; in {dtype} they may differ by {tolerance:.2g}",
                why="the released files are not the evaluated model, or tokenizer or template changed",
                fix="rebuild evaluation_report and hub_release",
            )
    return largest


def publish(
    folder: Path, repo: str, name: str, report: dict[str, Any], recipe: Recipe, device: Device
) -> dict[str, str]:
    """Pushes a validated folder; what was downloaded again gives the canary rewards before it gets its tag.

    Returns {"repo", "tag", "commit"}. Raises: ReleaseError RELEASE_003, RELEASE_002.
    """
    section = recipe.release
    if section.form == "adapter" and not recipe.training.base.hub_id:
        raise ReleaseError(
            "RELEASE_009",
            f"the adapter of '{recipe.name}' cannot be pushed to {repo}",
            why="its base is a folder of this machine, and an adapter is nothing without its base",
            fix="set release.form to whole, or train on a base from the Hub",
        )
    tag = section.revision or name
    commit = push(
        folder, repo, name=name, tag=tag, private=section.private,
        check=lambda downloaded: rescore_canaries(downloaded, report, recipe, device),
    )  # fmt: skip
    return {"repo": repo, "tag": tag, "commit": commit}


if __name__ == "__main__":
    run_task(release)
