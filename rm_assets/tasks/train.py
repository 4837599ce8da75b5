"""reward_model: training of a sequence classifier on the training pairs."""

import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from rm_assets.core.errors import DataError
from rm_assets.core.protocols import ADAPTER, Trainer
from rm_assets.core.recipe import Backend, ExistingModel
from rm_assets.core.records import Pair
from rm_assets.storage.files import write_json, write_lines
from rm_assets.storage.tables import read_table
from rm_assets.tasks.session import Product, Task, run_task

TRAINING_FILE = "rm_assets.json"
TRAINED_PAIRS_FILE = "trained_pair_ids.txt"
CHECKPOINT = "checkpoint"
BACKEND_PACKAGES: dict[Backend, tuple[str, ...]] = {
    "torch": ("torch", "transformers", "trl", "accelerate", "tokenizers"),
    "jax": ("jax", "optax", "transformers", "tokenizers"),
}
TIMINGS = ("tokens_per_second", "eta_seconds")


def train(task: Task) -> Product:
    """Trains in this process; the checkpoint carries what it was trained on and how in rm_assets.json."""
    settings = task.recipe.training
    if isinstance(settings, ExistingModel):
        from rm_assets.tasks.existing import take

        return take(task, settings)
    recipe, checkpoint = task.recipe, task.folder / CHECKPOINT
    num_pairs = task.inputs["implicit_pairs"].counts
    if settings.validation is not None and not num_pairs["validation_pairs"]:
        raise DataError(
            "DATA_005",
            "training.validation is set, but there is no validation pair",
            why="without one nothing could stop the training early or choose the best weights",
            fix="give prompts.split.validation a share, or remove training.validation",
        )
    task.reporter.log(
        f"training on {num_pairs['train_pairs']:,} pairs with the {settings.engine} engine on {settings.backend}"
    )
    started = time.monotonic()
    with task.store.device(task.reporter.waiting):
        result = trainer_of(settings.backend).train(
            _pairs(task, "train"),
            _pairs(task, "validation"),
            settings=settings,
            execution=recipe.execution,
            seed=recipe.seed,
            checkpoint=checkpoint,
            work=task.folder / "work",
            reporter=task.reporter,
        )
    seconds = time.monotonic() - started
    summary = {
        "settings": task.settings,
        "max_length": settings.max_length,
        "num_pairs": result.num_pairs,
        "num_validation_pairs": num_pairs["validation_pairs"],
        "num_optimizer_steps": result.num_optimizer_steps,
        "num_tokens": result.num_tokens,
        "num_pair_tokens": result.num_pair_tokens,
        "final_loss": result.final_loss,
        "validation_accuracy": result.validation_accuracy,
        "history": [{k: v for k, v in step.items() if k not in TIMINGS} for step in result.history],
        "pairs_data_version": task.inputs["implicit_pairs"].version_read_by("reward_model"),
        "versions": {package: version(package) for package in BACKEND_PACKAGES[settings.backend]},
    }
    write_json(checkpoint / TRAINING_FILE, summary)
    write_lines(task.folder / TRAINED_PAIRS_FILE, result.trained_pair_ids)
    num_seen = min(result.num_pairs["trained"], result.num_optimizer_steps * settings.pairs_per_step)
    plots = _plots(task, result.history)
    return Product(
        files=[TRAINED_PAIRS_FILE, *_files(task.folder, CHECKPOINT), *_files(task.folder, ADAPTER)],
        counts={
            "optimizer_steps": result.num_optimizer_steps,
            "tokens": result.num_tokens,
            **{f"pairs_{k}": v for k, v in result.num_pairs.items()},
        },
        work={"pairs trained on": num_seen},
        facts={
            "final_loss": result.final_loss,
            "validation_accuracy": result.validation_accuracy,
            "batch_comparison": result.batch_comparison,
            **result.facts,
            **keep_profile(task.folder),
            "training_seconds": round(seconds, 1),
            "tokens_shared": round(1 - result.num_tokens / result.num_pair_tokens, 4),
            **{k: round(v, 5) for k, v in result.history[-1].items() if k in ("accuracy", "margin", "grad_norm")},
        },
        plots=plots,
    )


def trainer_of(backend: Backend) -> Trainer:
    """The trainer of a backend, whose libraries it imports when it trains."""
    if backend == "jax":
        from rm_assets.backends.jax.trainer import JaxTrainer

        return JaxTrainer()
    from rm_assets.backends.torch.trainer import TorchTrainer

    return TorchTrainer()


def _pairs(task: Task, split: str) -> Iterator[Pair]:
    """The pairs of a split, read as they are used."""
    return (pair for pair in read_table(task.input("implicit_pairs", "pairs.parquet"), Pair) if pair.split == split)


def _files(folder: Path, name: str) -> list[str]:
    """The files of a folder within the asset's; none where there is no such folder."""
    return [f"{name}/{file.name}" for file in sorted((folder / name).glob("*"))]


def keep_profile(folder: Path) -> dict[str, str]:
    """Moves the profile beside the model, where it stays; it is no part of the asset's content."""
    profile, kept = folder / "work" / "profile", folder / "profile"
    if profile.exists():
        shutil.rmtree(kept, ignore_errors=True)
        profile.rename(kept)
    if not kept.exists():  # it does without the former where an earlier process was killed after it had moved it
        return {}
    with open(kept / "operators.txt", encoding="utf-8") as file:
        return {"profile": file.readline().strip(), "profile_folder": str(kept)}


def _plots(task: Task, history: list[dict[str, float]]) -> list[str]:
    from rm_assets.core.report.training_plot import training_curve

    (task.folder / "training_curve.png").write_bytes(training_curve(history))
    return ["training_curve.png"]


if __name__ == "__main__":
    run_task(train)
