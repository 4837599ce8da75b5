"""Trains and scores on meshes of four virtual devices, and prints what came of it: `... FOLDER 1x1 2x2 2x2-1x4`.

A mesh is data x fsdp; behind a hyphen stands the mesh on which a training goes on that was stopped on the first.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax

from rm_assets.backends.jax.architecture import read_architecture
from rm_assets.backends.jax.checkpoints import load_parameters
from rm_assets.backends.jax.devices import make_mesh
from rm_assets.backends.jax.trainer import JaxTrainer
from rm_assets.backends.jax.training_step import first_state
from rm_assets.backends.tokenization import load_config
from rm_assets.core.recipe import ExecutionSection, JaxMesh, ModelRef
from rm_assets.tasks.scorers import load_scorer
from rm_assets_tests.backends.jax.conftest import EXECUTION, SHAPES, train
from rm_assets_tests.fakes import ListReporter, StopAfter, save_classifier, toy_pairs

# Rewards stay near 1, where numbers in float32 are 1e-7 apart.
SETTINGS: dict[str, Any] = {"num_epochs": 3, "learning_rate": 0.003}


def on_mesh(mesh: str) -> ExecutionSection:
    data, fsdp = map(int, mesh.split("x"))
    return EXECUTION.model_copy(update={"jax_mesh": JaxMesh(data=data, fsdp=fsdp)})


def trained(folder: Path, base: Path, name: str) -> dict[str, Any]:
    """Losses of the steps, rewards of the trained model, and the share of weights and moments on a device."""
    first, *second = name.split("-")
    try:
        reporter = StopAfter(10) if second else ListReporter()
        result = train(JaxTrainer(), folder, base, **SETTINGS, execution=on_mesh(first), reporter=reporter)
    except KeyboardInterrupt:
        result = train(JaxTrainer(), folder, base, **SETTINGS, execution=on_mesh(second[0]))
    ref, execution = ModelRef(path=str(folder / "model")), on_mesh(name.rsplit("-", maxsplit=1)[-1])
    scorer = load_scorer(
        ref, "jax", max_length=100, dtype="float32", execution=execution, reporter=ListReporter()
    )  # fmt: skip
    rewards = [score.reward for score in scorer.score(pair.chosen for pair in toy_pairs(40))]
    return {
        "losses": [step["loss"] for step in result.history], "rewards": rewards,
        "share": share_of_a_device(ref, execution),
    }  # fmt: skip


def share_of_a_device(ref: ModelRef, execution: ExecutionSection) -> float:
    config, mesh = load_config(ref), make_mesh(execution)
    weights = load_parameters(ref, config, read_architecture(ref, config), dtype="float32", mesh=mesh)
    arrays = jax.tree.leaves((weights, first_state(mesh, 0.1, weights)))
    return sum(a.addressable_shards[0].data.nbytes for a in arrays) / sum(a.nbytes for a in arrays)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    base = save_classifier(folder / "base", **SHAPES["qwen3"], initializer_range=0.1)
    print(json.dumps({name: trained(folder / name, base, name) for name in sys.argv[2:]}))
