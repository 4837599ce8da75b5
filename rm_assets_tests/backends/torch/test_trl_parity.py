"""One optimizer step of the native engine against TRL's RewardTrainer as it comes, on the same 64 pairs."""

import copy
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import softplus
from transformers import PreTrainedModel
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rm_assets.backends.pair_store import PairStore, encode_pairs
from rm_assets.backends.tokenization import load_renderer
from rm_assets.backends.torch import native_engine
from rm_assets.backends.torch.checkpoints import load_base_for_reward
from rm_assets.backends.torch.fit import FitJob
from rm_assets.backends.torch.native_engine import TrainingLoop
from rm_assets.backends.torch.reward_forward import RewardForward
from rm_assets.backends.torch.training_batches import micro_batches
from rm_assets.backends.torch.trl_engine import as_dataset
from rm_assets.core.recipe import ExecutionSection, ModelRef, TrainingSection
from rm_assets.core.records import Pair, conversation
from rm_assets.core.training_order import make_plan
from rm_assets_tests.fakes import ListReporter, in_float64, save_causal, toy_pairs

torch.set_num_threads(1)
CPU = torch.device("cpu")
RATE = 0.01


def pairs_of(num_pairs: int) -> list[Pair]:
    """Sixteen prompts with four pairs each: responses are shared within and between the pairs of a prompt."""
    pairs = []
    for index, pair in enumerate(toy_pairs(num_pairs)):
        prompt, rank = index // 4, index % 4
        texts = [f"{'good ' * (rank + 1)}right {prompt}", f"bad {'ramble ' * (rank // 2)}{prompt}"]
        sides = [conversation(f"what is {prompt} and {prompt % 3}", None, text) for text in texts]
        pairs.append(replace(pair, prompt_id=f"p{prompt}", chosen=sides[0], rejected=sides[1]))
    return pairs


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FitJob, PreTrainedModel]:
    folder = tmp_path_factory.mktemp("parity")
    base = ModelRef(path=str(save_causal(folder / "base", request.param)))
    section = TrainingSection(
        base=base, max_length=100, pairs_per_step=64, learning_rate=RATE, max_grad_norm=1e9, warmup_ratio=0,
        schedule="constant", max_optimizer_steps=1,
    )  # fmt: skip
    renderer, reporter = load_renderer(base), ListReporter()
    store = encode_pairs(pairs_of(64), renderer, section, 0, folder / "pairs.bin", reporter)
    none = encode_pairs([], renderer, section, 0, folder / "none.bin", reporter, is_validation=True)
    execution = ExecutionSection(device="cpu", training_token_budget=300)
    job = FitJob(store, none, make_plan(64, section), section, execution, 0, CPU, renderer, folder, None, reporter)
    model = load_base_for_reward(base, seed=0, device=CPU, tokenizer=renderer.tokenizer)
    return job, model


def trl_step(job: FitJob, model: PreTrainedModel, optimizer: Any, folder: Path) -> None:
    """RewardTrainer takes one step on the 64 pairs; every default that has a say in the update is TRL's."""
    store = job.store
    rows = as_dataset(store).to_dict()
    config = RewardConfig(
        output_dir=str(folder), per_device_train_batch_size=16, gradient_accumulation_steps=4, max_steps=1,
        learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0.0, max_length=None, bf16=False, use_cpu=True,
        gradient_checkpointing=False, report_to="none", disable_tqdm=True, save_strategy="no", logging_steps=1,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = RewardTrainer(
        model=model, args=config, train_dataset=Dataset.from_dict(rows), processing_class=job.renderer.tokenizer,
        optimizers=(optimizer, None),
    )  # fmt: skip
    trainer.train()


def gradients_of_the_loop(job: FitJob, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the training loop's own step over all pairs leaves as gradients in (a copy of) the model."""
    ours = copy.deepcopy(model)
    monkeypatch.setattr(native_engine, "load_base_for_reward", lambda *_, **__: ours)
    loop = TrainingLoop(job)
    loop.backward(np.arange(len(job.store)))
    # A head in float32 under float64 weights would be the only float32 part.
    return {name: weight.grad for name, weight in ours.named_parameters() if weight.grad is not None}


def updates(before: PreTrainedModel, after: PreTrainedModel) -> dict[str, torch.Tensor]:
    old = dict(before.named_parameters())
    return {name: (weight - old[name]).detach() for name, weight in after.named_parameters()}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    scale = max(float(value.norm()) for value in expected.values())
    for name, value in expected.items():
        assert float((found[name] - value).norm()) <= tolerance * max(float(value.norm()), 1e-3 * scale), name


def test_responses_are_shared_in_these_pairs(setting: tuple[FitJob, PreTrainedModel]) -> None:
    store: PairStore = setting[0].store
    assert len(store) == 64 and int(store.prompt.max()) == 15
    forward = RewardForward(copy.deepcopy(setting[1]), 0)
    batches = list(micro_batches(forward, store, np.arange(64), 300))
    assert len(batches) > 1
    assert sum(b.rows.num_tokens for b in batches) < 0.6 * sum(b.num_pair_tokens for b in batches)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_gradients_and_an_sgd_update_equal_trl(
    setting: tuple[FitJob, PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, start = setting
    theirs, ours = copy.deepcopy(start), copy.deepcopy(start)
    trl_step(job, theirs, torch.optim.SGD(theirs.parameters(), lr=1.0), tmp_path)
    gradients = gradients_of_the_loop(job, start, monkeypatch)
    # With a rate of 1 the update is minus the gradient, up to the rounding of the weights.
    assert_close({name: -gradient for name, gradient in gradients.items()}, updates(start, theirs), 1e-5)
    apply(torch.optim.SGD(ours.parameters(), lr=1.0), ours, gradients)
    assert_close(updates(start, ours), updates(start, theirs), 1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_an_adamw_update_in_float64_equals_trl(
    setting: tuple[FitJob, PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 an AdamW step is nearly a sign step, which turns rounding into whole steps."""
    job, start = setting
    start = in_float64(copy.deepcopy(start))
    theirs, ours = copy.deepcopy(start), copy.deepcopy(start)
    trl_step(job, theirs, torch.optim.AdamW(theirs.parameters(), lr=RATE, weight_decay=0.0), tmp_path)
    gradients = gradients_of_the_loop(job, start, monkeypatch)
    apply(torch.optim.AdamW(ours.parameters(), lr=RATE, weight_decay=0.0), ours, gradients)
    assert_close(updates(start, ours), updates(start, theirs), 1e-8)


def apply(optimizer: torch.optim.Optimizer, model: PreTrainedModel, gradients: dict[str, torch.Tensor]) -> None:
    for name, weight in model.named_parameters():
        weight.grad = gradients.get(name)
    optimizer.step()


def test_the_loop_takes_the_step_that_its_gradients_say(
    setting: tuple[FitJob, PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, start = setting
    gradients = gradients_of_the_loop(job, start, monkeypatch)
    reference = copy.deepcopy(start)
    apply(torch.optim.AdamW(reference.parameters(), lr=RATE, weight_decay=0.0, fused=True), reference, gradients)
    monkeypatch.undo()
    loop = TrainingLoop(job)
    loop.take_step()
    (log,) = loop.progress.history
    assert log["learning_rate"] == RATE
    norm = math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in gradients.values()))
    assert log["grad_norm"] == pytest.approx(norm, rel=1e-4)
    # The order of the micro-batches differs, as the step shuffles: see the float64 test.
    assert_close(updates(start, loop.finish().model), updates(start, reference), 1e-2)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"weighting": "prompt"},
    {"objective": {"kind": "bradley_terry", "margin_scale": 0.5}},
    {"objective": {"kind": "soft_bradley_terry", "temperature": 0.7}, "weighting": "prompt"},
    {"objective": {"kind": "regression"}, "centering": 0.01},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_every_objective_and_weighting_is_the_mean_over_rows_computed_alone(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gold rewards differ from pair to pair and prompts have one to four pairs, so that a mix-up would show."""
    base = ModelRef(path=str(save_causal(tmp_path / "base")))
    section = TrainingSection.model_validate(
        {"base": base, "max_length": 100, "pairs_per_step": 10, "learning_rate": RATE, "max_grad_norm": 1e9, **changes}
    )
    pairs = [
        replace(pair, prompt_id=f"p{index * index % 4}", chosen_gold_reward=0.3 * index, rejected_gold_reward=0.1 * index - 1)
        for index, pair in enumerate(pairs_of(10))
    ]  # fmt: skip
    renderer, reporter = load_renderer(base), ListReporter()
    store = encode_pairs(pairs, renderer, section, 0, tmp_path / "pairs.bin", reporter)
    none = encode_pairs([], renderer, section, 0, tmp_path / "none.bin", reporter, is_validation=True)
    execution = ExecutionSection(device="cpu", training_token_budget=120)
    job = FitJob(store, none, make_plan(10, section), section, execution, 0, CPU, renderer, tmp_path, None, reporter)
    start = load_base_for_reward(base, seed=0, device=CPU, tokenizer=renderer.tokenizer)
    found = gradients_of_the_loop(job, start, monkeypatch)

    reference = copy.deepcopy(start).eval()
    num_pairs = Counter(pair.prompt_id for pair in pairs)
    terms = torch.zeros(())
    for pair in pairs:
        chosen, rejected = (
            reference(torch.tensor([encoded.ids])).logits[0, 0] for encoded in renderer.encode([pair.chosen, pair.rejected])
        )  # fmt: skip
        gold, other_gold = pair.chosen_gold_reward, pair.rejected_gold_reward
        match changes.get("objective", {}).get("kind", "bradley_terry"):
            case "soft_bradley_terry":
                target = 1 / (1 + math.exp(-(gold - other_gold) / 0.7))
                loss = softplus(rejected - chosen) * target + softplus(chosen - rejected) * (1 - target)
            case "regression":
                loss = ((chosen - gold) ** 2 + (rejected - other_gold) ** 2) / 2
            case _:
                margin = changes.get("objective", {}).get("margin_scale", 0.0) * (gold - other_gold)
                loss = softplus(rejected - chosen + margin)
        loss = loss + changes.get("centering", 0.0) * (chosen + rejected) ** 2
        terms = terms + loss / (num_pairs[pair.prompt_id] if changes.get("weighting") == "prompt" else 1)
    (terms / (len(num_pairs) if changes.get("weighting") == "prompt" else len(pairs))).backward()  # type: ignore[no-untyped-call]
    expected = {name: weight.grad for name, weight in reference.named_parameters() if weight.grad is not None}
    assert_close(found, expected, 1e-5)
