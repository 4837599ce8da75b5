"""hub_release: a folder that can be used and checked by somebody who has nothing else, and its way to the Hub."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from rm_assets.core.errors import ReleaseError
from rm_assets.core.model_card import model_card
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import ModelRef, Recipe
from rm_assets.storage.files import file_sha256, write_json, write_text
from rm_assets.tasks.session import Product, Task, run_task

REQUIRED = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "rm_assets.json",
    "README.md",
    "report.json",
    "lineage.json",
)
ALLOWED_SUFFIXES = (".json", ".safetensors", ".md", ".txt", ".jinja", ".model", ".html")
CANARY_TOLERANCE = 1e-5


def release(task: Task) -> Product:
    """Builds the folder, validates it as its user would, and pushes it if the recipe says where to."""
    folder, checkpoint = task.folder / "release", task.input("reward_model", "checkpoint")
    report = json.loads(task.input("evaluation_report", "report.json").read_text("utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in sorted(checkpoint.iterdir()):
        link_or_copy(file, folder / file.name)
    for name in ("report.json", "report.html"):
        link_or_copy(task.input("evaluation_report", name), folder / name)
    lineage = {asset: manifest.data_version for asset, manifest in _ancestors(task).items()}
    write_json(
        folder / "lineage.json",
        {
            asset: {"digest": m.digest, "data_version": m.data_version, "settings": m.settings}
            for asset, m in _ancestors(task).items()
        },
    )
    reads_text_pairs = not any(canary["text"] for canary in report["canaries"])
    write_text(folder / "README.md", model_card(task.recipe, report, lineage, reads_text_pairs=reads_text_pairs))
    task.reporter.log("validating the release folder")
    largest = validate(folder, report, task.recipe)
    section = task.recipe.release
    url = push(folder, task.recipe) if section.hub_id and not section.validate_only else None
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
            "path": str(folder),
            "hub_url": url,
            "largest_canary_difference": largest,
            "match_rate": report["match_rate"]["value"],
            "verdict": report["verdict"],
        },
    )


def _ancestors(task: Task) -> dict[str, Any]:
    """The manifests of all assets that this release comes from, first ones first."""
    found: dict[str, Any] = {}

    def visit(asset: str, of_digest: str) -> None:
        manifest = task.store.manifest(asset, of_digest)
        if manifest and asset not in found:
            for name, entry in manifest.inputs.items():
                visit(name, entry["digest"])
            found[asset] = manifest

    for asset, manifest in task.inputs.items():
        visit(asset, manifest.digest)
    return found


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, so that a large model lies on the disk once."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def validate(folder: Path, report: dict[str, Any], recipe: Recipe) -> float:
    """Checks files, loads the model and scores the canaries; returns the largest difference of a canary's reward.

    Raises: ReleaseError RELEASE_001 (files), RELEASE_002 (canaries); ModelError if it does not load.
    """
    from rm_assets.backends.torch.checkpoints import pick_device
    from rm_assets.backends.torch.scorer import TorchScorer

    names = {file.name for file in folder.iterdir()}
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    required = [name for name in REQUIRED if name != "tokenizer.json" or "vocab.txt" not in names]
    missing = [name for name in required if name not in names] + ([] if weights else ["*.safetensors"])
    foreign = [name for name in sorted(names) if not name.endswith(ALLOWED_SUFFIXES)]
    empty = [name for name in sorted(names) if not (folder / name).stat().st_size]
    if missing or foreign or empty:
        raise ReleaseError(
            "RELEASE_001",
            f"{folder} is no complete release: missing {missing or 'nothing'}, of a kind that is not released {foreign or 'none'}, empty {empty or 'none'}",
            fix="rebuild reward_model and release again",
        )
    device = pick_device(recipe.execution.device)
    scorer = TorchScorer(
        ModelRef(path=str(folder)),
        max_length=json.loads((folder / "rm_assets.json").read_text("utf-8"))["max_length"],
        dtype="float32",
        device=device,
        token_budget=recipe.execution.forward_tokens("scoring", on_cpu=device.type == "cpu"),
        reporter=QuietReporter(),
    )
    largest = 0.0
    for canary in report["canaries"]:
        reward = next(iter(scorer.score([canary["messages"]]))).reward
        difference = abs(reward - canary["reward"])
        largest = max(largest, difference)
        if not math.isclose(reward, canary["reward"], rel_tol=CANARY_TOLERANCE, abs_tol=CANARY_TOLERANCE):
            raise ReleaseError(
                "RELEASE_002",
                f"a canary scores {reward:.7f} in the release and {canary['reward']:.7f} in the report",
                why="the released files are not the evaluated model, or tokenizer or template changed",
                fix="rebuild evaluation_report and hub_release",
            )
    return largest


def push(folder: Path, recipe: Recipe) -> str:
    """One commit with the whole folder; returns its address. The token comes from the environment (HF_TOKEN).

    Raises: ReleaseError RELEASE_003.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    repo = str(recipe.release.hub_id)
    try:
        api = HfApi()
        api.create_repo(repo, private=recipe.release.private, exist_ok=True)
        weights = file_sha256(next(folder.glob("*.safetensors")))[:12]
        return str(
            api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=f"Reward model {recipe.name}, weights {weights}",
                delete_patterns="*",
            ).commit_url
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ReleaseError(
            "RELEASE_003",
            f"the release cannot be pushed to {repo}",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="set HF_TOKEN to a token that may write there, check the network; the local folder is complete",
        ) from None


if __name__ == "__main__":
    run_task(release)
