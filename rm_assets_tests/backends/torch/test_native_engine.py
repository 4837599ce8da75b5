"""What only the native engine does: objectives, weights, validation, adapters, guards, memory."""

import csv
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BartConfig,
    FalconConfig,
    GPT2Config,
    OPTConfig,
    PretrainedConfig,
)

from rm_assets.backends import training_state
from rm_assets.backends.step_control import LossGuard, rate_factor
from rm_assets.backends.torch import memory, native_engine
from rm_assets.backends.torch.native_engine import disable_dropout
from rm_assets.backends.torch.trained_weights import OPTIMIZER, WEIGHTS
from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import Regression, SoftBradleyTerry
from rm_assets.core.training_order import StepPlan
from rm_assets_tests.backends.torch.test_trainer import EXECUTION, settings, train
from rm_assets_tests.fakes import ListReporter, StopAfter, save_causal, toy_pairs

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_causal(tmp_path_factory.mktemp("base"))


def test_the_engines_train_the_same_pairs_in_the_same_order(base: Path, tmp_path: Path) -> None:
    results = {}
    for engine in ("native", "trl"):
        section = settings(base, engine, num_epochs=3, pairs_per_step=8, learning_rate=1e-3)
        results[engine] = train(tmp_path / engine, section, pairs=toy_pairs(21))
    native, trl = results["native"].history, results["trl"].history
    assert len(native) == len(trl) == 9
    for one, other in zip(native, trl, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-4)
        assert (one["accuracy"], one["learning_rate"]) == pytest.approx((other["accuracy"], other["learning_rate"]))


@pytest.mark.parametrize("centering", [0.0, 0.05])
def test_soft_targets_bring_reward_margins_to_gold_margins(base: Path, tmp_path: Path, centering: float) -> None:
    soft = SoftBradleyTerry(kind="soft_bradley_terry", temperature=2.0)
    pairs = [replace(p, chosen_gold_reward=3.0, gold_margin=3.0) for p in toy_pairs(40)]
    result = train(tmp_path, settings(base, num_epochs=12, objective=soft, centering=centering), pairs=pairs)
    assert result.history[-1]["margin"] == pytest.approx(1.5, abs=0.3)


def test_regression_learns_the_gold_rewards_themselves(base: Path, tmp_path: Path) -> None:
    pairs = [replace(p, chosen_gold_reward=5.0, rejected_gold_reward=4.0) for p in toy_pairs(40)]
    result = train(tmp_path, settings(base, num_epochs=20, objective=Regression(kind="regression")), pairs=pairs)
    assert result.history[0]["loss"] > 5 and result.final_loss < 0.1
    assert result.history[-1]["margin"] == pytest.approx(1.0, abs=0.25)


def test_every_prompt_can_weigh_the_same(base: Path, tmp_path: Path) -> None:
    """Three copies of a pair under one prompt weigh as much as one pair of another prompt."""
    one, other = toy_pairs(2)
    pairs = [one, *(replace(other, pair_id=f"copy{i}") for i in range(3))]
    options: dict[str, Any] = {"max_optimizer_steps": 1, "pairs_per_step": 4, "learning_rate": 1e-9}
    losses = {}
    for weighting, used in (("pair", pairs), ("prompt", pairs), ("plain", [one, other])):
        section = settings(base, weighting="pair" if weighting == "plain" else weighting, **options)
        losses[weighting] = train(tmp_path / weighting, section, pairs=used).final_loss
    assert losses["prompt"] == pytest.approx(losses["plain"], rel=1e-6)
    assert losses["pair"] != pytest.approx(losses["plain"], rel=1e-3)


def test_low_rank_matrices_and_the_head_are_trained_and_merged(base: Path, tmp_path: Path) -> None:
    reporter = ListReporter()
    section = settings(base, num_epochs=8, lora={"rank": 4, "alpha": 8})
    result = train(tmp_path, section, reporter=reporter)
    assert result.history[0]["loss"] > 0.3 and result.final_loss < 0.2
    state = load_file(next((tmp_path / "work").glob("checkpoint-*/weights.safetensors")))
    assert "score.weight" in state and all("lora_" in name for name in state if name != "score.weight")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    trained, plain = dict(model.named_parameters()), load_file(base / "model.safetensors")
    assert not any("lora" in name for name in trained)
    assert not torch.equal(
        trained["model.layers.0.self_attn.q_proj.weight"], plain["model.layers.0.self_attn.q_proj.weight"]
    )
    assert torch.equal(trained["model.embed_tokens.weight"], plain["model.embed_tokens.weight"])
    assert result.validation_accuracy == 1.0  # of the merged model


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["c_attn"], r"names c_attn, which .*\n.*its linear layers are down_proj, gate_proj, k_proj, .*v_proj"),
        (["q_proj", "v_prj"], r"names v_prj, which .*\n.*its closest linear layers are .*v_proj"),
        (["self_attn"], "cannot be adapted"),
    ],
)
def test_an_adapter_for_layers_that_are_not_there_is_an_error(
    base: Path, tmp_path: Path, names: list[str], said: str
) -> None:
    with pytest.raises(ModelError, match=rf"MODEL_002.*target_modules.*{said}"):
        train(tmp_path, settings(base, lora={"target_modules": names}))


def test_an_adapter_can_be_for_one_layer_by_its_whole_name(base: Path, tmp_path: Path) -> None:
    section = settings(base, max_optimizer_steps=1, lora={"target_modules": ["model.layers.0.self_attn.q_proj"]})
    train(tmp_path, section)
    assert len(load_file(tmp_path / "work" / "checkpoint-1" / WEIGHTS)) == 3  # two matrices and the head


def test_the_best_weights_are_kept_and_training_stops_without_better_ones(base: Path, tmp_path: Path) -> None:
    """Validation pairs with the labels turned round get worse with every step, so the first look is the best."""
    wrong = [replace(p, chosen=p.rejected, rejected=p.chosen) for p in toy_pairs(12, "validation")]
    section = settings(base, num_epochs=10, validation={"every_steps": 2, "patience": 3})
    reporter = ListReporter()
    result = train(tmp_path, section, validation_pairs=wrong, reporter=reporter)
    assert reporter.lines[-1] == "kept the weights of step 2"
    looks = [entry for entry in result.history if "validation_loss" in entry]
    losses = [look["validation_loss"] for look in looks]
    assert [look["step"] for look in looks] == [2, 4, 6, 8] and min(losses) == losses[0]
    assert result.num_optimizer_steps == 8
    first = train(tmp_path / "short", settings(base, num_epochs=10, max_optimizer_steps=50), validation_pairs=wrong)
    assert result.validation_accuracy == looks[0]["validation_accuracy"]
    assert first.num_optimizer_steps == 50


def test_a_resumed_training_remembers_its_best_weights(base: Path, tmp_path: Path) -> None:
    section = settings(base, num_epochs=4, validation={"every_steps": 3, "metric": "accuracy"})
    whole = train(tmp_path / "whole", section)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", section, reporter=StopAfter(7))
    resumed = train(tmp_path / "cut", section)
    timings = ("tokens_per_second", "eta_seconds")
    plain = [[{k: v for k, v in e.items() if k not in timings} for e in r.history] for r in (whole, resumed)]
    assert plain[0] == plain[1]
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_best_weights_that_a_state_lacks_are_not_read(base: Path, tmp_path: Path) -> None:
    section = settings(base, num_epochs=4, learning_rate=1e-3, validation={"every_steps": 3})
    whole = train(tmp_path / "whole", section)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", section, reporter=StopAfter(10))
    work = tmp_path / "cut" / "work"
    assert {file.name for file in work.glob("best*")} == {"best-6.safetensors", "best-9.safetensors"}
    best = work / "best-9.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    again = ListReporter()
    resumed = train(tmp_path / "cut", section, reporter=again)
    assert again.steps[0][0] == 7 and again.lines[-1] == "kept the weights of step 20"
    assert resumed.validation_accuracy == whole.validation_accuracy
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_look_that_is_no_number_is_never_the_best(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([float("nan"), 0.5, 0.4, float("inf"), 0.6])
    monkeypatch.setattr(native_engine, "pair_figures", lambda *_: {"loss": next(looks), "accuracy": 0.5})
    reporter = ListReporter()
    train(tmp_path, settings(base, validation={"every_steps": 1}), reporter=reporter)
    assert reporter.lines[-1] == "kept the weights of step 3"


def rename_a_weight(state: Path) -> None:
    tensors = load_file(state / WEIGHTS)
    tensors["model.norm.scale"] = tensors.pop("model.norm.weight")
    save_file(tensors, state / WEIGHTS)


def reshape_a_weight(state: Path) -> None:
    tensors = load_file(state / WEIGHTS)
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:1]
    save_file(tensors, state / WEIGHTS)


def drop_a_moment(state: Path) -> None:
    tensors = load_file(state / OPTIMIZER)
    del tensors["model.norm.weight/exp_avg"]
    save_file(tensors, state / OPTIMIZER)


def rename_a_field(state: Path) -> None:
    progress = json.loads((state / "progress.json").read_text("utf-8"))
    progress["num_steps"] = progress.pop("step")
    (state / "progress.json").write_text(json.dumps(progress), "utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename_a_weight, "weights.safetensors and the model differ in model.norm.scale, model.norm.weight"),
        (reshape_a_weight, "weights.safetensors and the model differ in model.norm.weight"),
        (drop_a_moment, "optimizer.safetensors and the model differ in model.norm.weight/exp_avg"),
        (rename_a_field, "progress.json and the training differ in num_steps, step"),
    ],
)
def test_a_state_that_does_not_fit_is_dropped(
    base: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    whole = train(tmp_path / "whole", settings(base))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", settings(base), reporter=StopAfter(4))
    state = tmp_path / "cut" / "work" / "checkpoint-3"
    change(state)
    (state / training_state.MARKER).unlink()
    training_state.mark_complete(state)
    again = ListReporter()
    resumed = train(tmp_path / "cut", settings(base), reporter=again)
    assert f"starting from step 0, because checkpoint-3 does not fit: {said}" in again.lines
    assert again.steps[0][0] == 1 and resumed.num_tokens == whole.num_tokens
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_spike_is_skipped_and_three_in_a_row_are_an_error() -> None:
    guard = LossGuard(10.0)
    assert all(guard.accepts(step, 0.7, 1.0) for step in range(1, 5))
    assert guard.accepts(5, 6.9, 1.0) and not guard.accepts(6, 7.1, 1.0)
    assert not guard.accepts(7, 90.0, 1.0)
    again = LossGuard(10.0, guard.state(), guard.num_spikes)
    with pytest.raises(ModelError, match=r"MODEL_008.*step 8"):
        again.accepts(8, 8.0, 1.0)
    assert guard.accepts(8, 0.5, 1.0) and guard.num_spikes == 0


def test_small_losses_late_in_a_training_are_no_measure_of_a_spike() -> None:
    guard = LossGuard(10.0)
    assert all(guard.accepts(step, loss, 1.0) for step, loss in enumerate([0.7, *[0.001] * 40, 0.5], 1))


@pytest.mark.parametrize(("loss", "norm", "name"), [(float("nan"), 1.0, "loss"), (1.0, float("inf"), "gradient norm")])
def test_what_is_no_number_stops_the_training(loss: float, norm: float, name: str) -> None:
    with pytest.raises(ModelError, match=f"MODEL_006.*{name} of optimizer step 3"):
        LossGuard(10.0).accepts(3, loss, norm)


def test_activations_are_recomputed_where_keeping_them_would_not_fit(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = settings(base, num_epochs=2)
    plain, tight = ListReporter(), ListReporter()
    kept = train(tmp_path / "kept", section, reporter=plain)
    monkeypatch.setattr(memory, "free_memory", lambda device: 200_000)
    recomputed = train(tmp_path / "recomputed", section, reporter=tight)
    assert any("activations are recomputed" in line for line in tight.lines)
    assert not any("activations are recomputed" in line for line in plain.lines)
    assert recomputed.final_loss == pytest.approx(kept.final_loss, rel=1e-5)


def test_the_schedule_rises_from_nothing_and_falls_to_nothing() -> None:
    plan = StepPlan(num_pairs=80, pairs_per_step=8, num_optimizer_steps=10, num_warmup_steps=2)
    rates = {name: [rate_factor(step, plan, name) for step in (0, 1, 2, 6, 10)] for name in ("linear", "cosine")}
    assert rates["linear"] == [0, 0.5, 1, 0.5, 0]
    assert rates["cosine"] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert rate_factor(9, plan, "constant") == 1


def test_a_step_needs_no_more_than_its_micro_batches(base: Path, tmp_path: Path) -> None:
    """The update is the same whatever the token budget cuts the step into."""
    losses = []
    for budget in (30, 100_000):
        execution = EXECUTION.model_copy(update={"training_token_budget": budget})
        section = settings(base, num_epochs=2, learning_rate=1e-3)
        losses.append([e["loss"] for e in train(tmp_path / str(budget), section, execution=execution).history])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_profile_says_what_takes_the_time(base: Path, tmp_path: Path) -> None:
    reporter = ListReporter()
    execution = EXECUTION.model_copy(update={"profile": True, "training_token_budget": 100})
    train(tmp_path, settings(base, num_epochs=2), execution=execution, reporter=reporter)
    folder = tmp_path / "work" / "profile"
    (sentence,) = [line for line in reporter.lines if "s a step:" in line]
    assert (folder / "operators.txt").read_text("utf-8").startswith(sentence)
    shares = {kind: int(share) for kind, share in re.findall(r"([a-z ]+) (\d+)%", sentence.split(": ", 1)[1])}
    assert len(shares) == 5 and 97 <= sum(shares.values()) <= 103
    assert "attention" in " ".join(shares) and "aten::" in (folder / "operators.txt").read_text("utf-8")
    with gzip.open(folder / "trace.json.gz") as trace:
        assert json.load(trace)["traceEvents"]
    with open(folder / "memory.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["after"] for row in rows} == {"input", "forward", "backward", "update"}
    assert sum(row["after"] == "update" for row in rows) == 4
    assert all(int(row["bytes"]) > 1_000_000 for row in rows)


def test_a_training_too_short_for_a_profile_says_so(base: Path, tmp_path: Path) -> None:
    reporter = ListReporter()
    execution = EXECUTION.model_copy(update={"profile": True})
    train(tmp_path, settings(base, max_optimizer_steps=2), execution=execution, reporter=reporter)
    assert any(line.startswith("no profile") for line in reporter.lines)


@pytest.mark.parametrize(
    "config",
    [
        OPTConfig(vocab_size=30, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16),
        BartConfig(
            vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, activation_dropout=0.1,
        ),
        FalconConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, hidden_dropout=0.3),
        AlbertConfig(vocab_size=30, hidden_size=16, num_attention_heads=2, intermediate_size=16, hidden_dropout_prob=0.3),
        GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_no_model_keeps_any_dropout(config: PretrainedConfig) -> None:
    config.num_labels, config.pad_token_id, config.eos_token_id = 1, 0, 2
    model = AutoModelForSequenceClassification.from_config(config).train()
    ids = torch.tensor([[5, 6, 7, 2]])
    assert model(ids).logits.item() != model(ids).logits.item()
    disable_dropout(model)
    assert model(ids).logits.item() == model(ids).logits.item()


def test_a_loss_of_nothing_makes_no_spike_of_what_follows() -> None:
    guard = LossGuard(10.0)
    assert all(guard.accepts(step, loss, 1.0) for step, loss in enumerate([0.0, 0.05, 0.0, 0.09]))
