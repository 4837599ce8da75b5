"""Weights and moments on disk: one tensor at a time, all of them, and none of another model."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rm_assets.backends.torch import trained_weights
from rm_assets.backends.torch.trained_weights import load_optimizer, load_weights, save_optimizer, save_weights
from rm_assets.backends.training_progress import Misfit


def build() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
    """Two weights of which one gets a gradient, and three steps taken."""
    weights = {name: torch.nn.Parameter(torch.ones(2, 3)) for name in ("used", "unused")}
    optimizer = torch.optim.AdamW(list(weights.values()), lr=0.1, fused=True)
    for _ in range(3):
        weights["used"].grad = torch.arange(6.0).reshape(2, 3)
        optimizer.step()
    return weights, optimizer


def step(weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    for weight in weights.values():
        weight.grad = torch.full((2, 3), 0.5)
    optimizer.step()
    return {name: weight.detach().clone() for name, weight in weights.items()}


def test_what_was_saved_goes_on_the_same_also_for_a_weight_without_moments(tmp_path: Path) -> None:
    weights, optimizer = build()
    save_weights(weights, tmp_path / "weights")
    save_optimizer(optimizer, weights, tmp_path / "moments")
    expected = step(weights, optimizer)
    again = {name: torch.nn.Parameter(torch.zeros(2, 3)) for name in weights}
    fresh = torch.optim.AdamW(list(again.values()), lr=0.1, fused=True)
    load_weights(again, tmp_path / "weights")
    load_optimizer(fresh, again, tmp_path / "moments")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in step(again, fresh).items())
    assert len(load_file(tmp_path / "moments")) == 6


def test_a_file_of_other_weights_changes_nothing(tmp_path: Path) -> None:
    weights, optimizer = build()
    save_weights(weights, tmp_path / "weights")
    save_optimizer(optimizer, weights, tmp_path / "moments")
    other = {"used": torch.nn.Parameter(torch.zeros(2, 3)), "new": torch.nn.Parameter(torch.zeros(2, 3))}
    fresh = torch.optim.AdamW(list(other.values()))
    with pytest.raises(Misfit, match="differ in new, unused"):
        load_weights(other, tmp_path / "weights")
    with pytest.raises(Misfit, match="differ in new/exp_avg, new/exp_avg_sq, new/step"):
        load_optimizer(fresh, other, tmp_path / "moments")
    assert not other["used"].any() and not fresh.state
    (tmp_path / "weights").write_bytes((tmp_path / "weights").read_bytes()[:-1])
    with pytest.raises(Misfit, match="weights cannot be read"):
        load_weights(weights, tmp_path / "weights")


def test_only_one_gathered_tensor_is_alive_where_another_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[Any] = []

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        assert sum(reference() is not None for reference in gathered) <= 1
        copy = tensor.clone()
        gathered.append(weakref.ref(copy))
        return copy

    weights, optimizer = build()
    monkeypatch.setattr(trained_weights, "whole", gather)
    monkeypatch.setattr(trained_weights.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(trained_weights.dist, "get_rank", lambda: 1)
    save_optimizer(optimizer, weights, tmp_path / "moments")
    assert len(gathered) == 6 and not list(tmp_path.iterdir())
