"""reward_model without training: a checkpoint that is there already, kept in the form of a trained one."""

from importlib.metadata import version
from itertools import islice

from rm_assets.core.recipe import ExistingModel
from rm_assets.core.records import Pair
from rm_assets.storage.files import write_json, write_lines
from rm_assets.storage.tables import read_table
from rm_assets.tasks.session import Product, Task
from rm_assets.tasks.train import TRAINED_PAIRS_FILE, TRAINING_FILE

PACKAGES = ("torch", "transformers", "tokenizers")
NUM_PAIRS = 64
"""Test pairs among which some are looked for that fit the model, to compare its rewards alone and in a batch."""


def take(task: Task, section: ExistingModel) -> Product:
    """Writes the checkpoint, and in rm_assets.json what stands there of a training: nothing is known of this one's."""
    from rm_assets.backends.torch.existing_model import take_model

    checkpoint = task.folder / "checkpoint"
    task.reporter.log(f"taking the existing reward model {section.model.location}")
    table = read_table(task.input("implicit_pairs", "pairs.parquet"), Pair)
    pairs = list(islice((pair for pair in table if pair.split == "test"), NUM_PAIRS))
    with task.store.device(task.reporter.waiting):
        commit, comparison = take_model(
            section, pairs, execution=task.recipe.execution, checkpoint=checkpoint, work=task.folder / "work"
        )
    summary = {
        "kind": "existing",
        "settings": task.settings,
        "max_length": section.max_length,
        "commit": commit,
        "history": [],
        "versions": {package: version(package) for package in PACKAGES},
    }
    write_json(checkpoint / TRAINING_FILE, summary)
    write_lines(task.folder / TRAINED_PAIRS_FILE, [])
    files = sorted(checkpoint.iterdir())
    return Product(
        files=[TRAINED_PAIRS_FILE, *(f"checkpoint/{file.name}" for file in files)],
        counts={"optimizer_steps": 0, "bytes": sum(file.stat().st_size for file in files)},
        work={"checkpoints taken": 1},
        facts={"model": section.model.hub_id or "a local checkpoint", "commit": commit, "batch_comparison": comparison},
    )
