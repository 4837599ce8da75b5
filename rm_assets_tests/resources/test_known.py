"""What is known of a recipe's devices without running it."""

from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.planning.training_plan import plan_training
from rm_assets.core.recipe import Recipe
from rm_assets.resources import known
from rm_assets.resources.known import find_known, small_batches
from rm_assets.storage.store import Store

GCLOUD = {"dialect": "gcloud", "zone": "z", "image_family": "f", "image_project": "p"}
RAY, KUBERNETES = {"kind": "ray", "address": "http://head:8265"}, {"kind": "kubernetes", "image": "i"}
VERTEX = {"kind": "vertex", "project": "p", "region": "r", "image": "i"}


def recipe(**execution: Any) -> Recipe:
    """Its steps have more tokens than any budget."""
    return Recipe.model_validate({
        "name": "mine", "prompts": {"source": {"kind": "generator", "num_prompts": 9}},
        "sampling": {"kind": "policy", "policy": {"path": "/base"}}, "gold": {"kind": "verifier"},
        "training": {"base": {"path": "/base"}, "learning_rate": 3e-4, "max_length": 64, "backend": "jax", "pairs_per_step": 256},
        "execution": execution,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("executor", "has_accelerator"),
    [
        (RAY, False),
        (RAY | {"gpus": 0.5}, True),
        (RAY | {"resources": {"TPU": 4}}, True),
        (KUBERNETES, False),
        (KUBERNETES | {"gpus": 1}, True),
        (KUBERNETES | {"tpu": {"type": "tpu-v6e-slice", "topology": "2x2"}}, True),
        (VERTEX, False),
        (VERTEX | {"machine": "g2-standard-12"}, True),
        (VERTEX | {"accelerator": "NVIDIA_L4"}, True),
        (VERTEX | {"machine": "custom", "tpu_topology": "2x2"}, True),
        ({"kind": "vm", "machine": GCLOUD | {"machine_type": "n1-standard-8"}}, False),
        ({"kind": "vm", "machine": GCLOUD | {"machine_type": "g1-small"}}, False),
        ({"kind": "vm", "machine": GCLOUD | {"machine_type": "a3-highgpu-1g"}}, True),
        ({"kind": "vm", "machine": GCLOUD | {"machine_type": "ct6e-standard-4t"}}, True),
        ({"kind": "vm", "machine": GCLOUD | {"machine_type": "tpu7x-standard-4t"}}, True),
        ({"kind": "vm", "machine": GCLOUD | {"machine_type": "n1-standard-8", "accelerator": "type=t4"}}, True),
        ({"kind": "vm", "machine": {"dialect": "skypilot"}}, False),
        ({"kind": "vm", "machine": {"dialect": "skypilot", "accelerators": "tpu-v6e-8"}}, True),
    ],
)
def test_each_task_is_planned_for_what_its_executor_asks_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, executor: dict[str, Any], has_accelerator: bool
) -> None:
    # Here is the opposite, which only what runs here has.
    monkeypatch.setattr(known, "has_gpu", lambda: not has_accelerator)
    monkeypatch.setattr(known, "SYSTEM", "linux")
    mine, notes = recipe(executors={"train": executor}), list[str]()
    found = find_known(mine, None, notes, Store(tmp_path))
    assert plan_training(mine, found, None).tokens_per_forward == (16_384 if has_accelerator else 2_048)
    assert ("train" in found.small_batches, "score" in found.small_batches) == (not has_accelerator, has_accelerator)
    said = f"the training is given no GPU or TPU (by {executor['kind']}), so its plan is for a CPU"
    assert (said in notes) != has_accelerator


@pytest.mark.parametrize(("device", "are_small"), [("cpu", True), ("mps", True), ("cuda", False)])
def test_a_device_that_the_recipe_names_is_that_of_all_tasks(device: str, are_small: bool) -> None:
    mine, notes = recipe(device=device, executors={"train": KUBERNETES | {"gpus": 1}}), list[str]()
    small = small_batches(mine, notes)
    assert ("train" in small, "score" in small, notes) == (are_small, are_small, [])


def test_what_a_training_elsewhere_has_is_not_taken_for_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "has_gpu", lambda: False)
    notes = list[str]()
    assert "train" in small_batches(recipe(executors={"train": {"kind": "ssh", "host": "box"}}), notes)
    assert "what the training has there (by ssh) is not known here" in notes[0]
