"""Two processes that share one training (FSDP over gloo) against one process."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from rm_assets.backends import training_state
from rm_assets.backends.torch import native_engine
from rm_assets.backends.torch.distributed import World
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import TrainingResult
from rm_assets_tests.backends.torch.test_trainer import EXECUTION, settings, train
from rm_assets_tests.fakes import ListReporter, save_causal, save_encoder, toy_pairs


def run(folder: Path, base: Path, num_processes: int, **changes: object) -> TrainingResult:
    """Seven micro-batches a step or so: an odd number, which two processes cannot share evenly."""
    execution = EXECUTION.model_copy(update={"num_processes": num_processes, "training_token_budget": 60})
    section = settings(base, num_epochs=2, pairs_per_step=16, learning_rate=1e-3, max_length=64, **changes)
    return train(folder, section, pairs=toy_pairs(37), execution=execution, reporter=ListReporter())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3", "encoder", "lora"])
def test_two_processes_give_the_losses_and_weights_of_one(tmp_path: Path, kind: str) -> None:
    base = save_encoder(tmp_path / "base") if kind == "encoder" else save_causal(tmp_path / "base")
    changes = {"lora": {"rank": 4}} if kind == "lora" else {}
    one, two = (run(tmp_path / str(n), base, n, **changes) for n in (1, 2))
    assert [e["step"] for e in two.history] == [e["step"] for e in one.history] == [1, 2, 3, 4, 5, 6]
    # The first step sees equal weights; later ones see what AdamW made of rounding.
    assert two.history[0]["loss"] == pytest.approx(one.history[0]["loss"], rel=1e-5)
    assert two.history[0]["grad_norm"] == pytest.approx(one.history[0]["grad_norm"], rel=1e-5)
    assert [e["loss"] for e in two.history] == pytest.approx([e["loss"] for e in one.history], rel=1e-5)
    assert (two.num_tokens, two.num_pair_tokens) == (one.num_tokens, one.num_pair_tokens)
    weights = [load_file(tmp_path / n / "model" / "model.safetensors") for n in ("1", "2")]
    for name, weight in weights[0].items():
        if name.endswith("k_lin.bias"):
            continue  # softmax does not see it: its gradient is rounding, of which AdamW makes whole steps
        assert float((weights[1][name] - weight).norm()) <= 1e-3 * float(weight.norm()), name


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Path, before: int, after: int) -> None:
    base = save_causal(tmp_path / "base")
    whole = run(tmp_path / "whole", base, 1)
    section = {"max_optimizer_steps": 6}
    run(tmp_path / "cut", base, before, **section)
    for state in (tmp_path / "cut" / "work").glob("checkpoint-6"):
        (state / "complete.json").unlink()
    resumed = run(tmp_path / "cut", base, after, **section)
    losses, expected = ([e["loss"] for e in result.history] for result in (resumed, whole))
    assert losses == pytest.approx(expected, rel=1e-5)
    if after == 2:
        assert losses[:3] == expected[:3]  # read from the state, not computed again


@pytest.mark.slow
def test_the_best_weights_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_causal(tmp_path / "base")
    section = {"validation": {"every_steps": 2}}
    one = run(tmp_path / "1", base, 1, **section)
    # The moments are of no use to the process that only writes the model.
    monkeypatch.setattr(native_engine, "load_optimizer", None)
    two = run(tmp_path / "2", base, 2, **section)
    looks = [[e["validation_loss"] for e in result.history if "validation_loss" in e] for result in (one, two)]
    assert len(looks[0]) == 3 and looks[1] == pytest.approx(looks[0], rel=1e-5)
    best = [{file.name for file in (tmp_path / n / "work").glob("best-*")} for n in ("1", "2")]
    assert best[0] == best[1] and best[0]


@pytest.mark.slow
def test_a_state_that_does_not_fit_is_dropped_by_all_processes(tmp_path: Path) -> None:
    base = save_causal(tmp_path / "base")
    first = run(tmp_path, base, 2)
    state = tmp_path / "work" / "checkpoint-6"
    tensors = load_file(state / "optimizer.safetensors")
    del tensors["score.weight/step"]
    save_file(tensors, state / "optimizer.safetensors")
    (state / training_state.MARKER).unlink()
    training_state.mark_complete(state)
    newest = training_state.newest(tmp_path / "work")
    assert newest is not None and newest.folder == state
    assert [e["loss"] for e in run(tmp_path, base, 2).history] == [e["loss"] for e in first.history]
    assert "score.weight/step" in load_file(state / "optimizer.safetensors")


def decide(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    value = World().of_first(0.1 + rank, torch.device("cpu"))
    (folder / str(rank)).write_text(str(value), "utf-8")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_all_processes_decide_by_the_number_of_the_first(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(decide, (tmp_path,), nprocs=2, start_method="spawn")
    assert [(tmp_path / rank).read_text("utf-8") for rank in ("0", "1")] == ["0.1", "0.1"]


@pytest.mark.slow
def test_an_error_of_a_process_keeps_its_code(tmp_path: Path) -> None:
    base = save_causal(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"MODEL_006.*optimizer step 1 is nan"):
        run(tmp_path, base, 2)
