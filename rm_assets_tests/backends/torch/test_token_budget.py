"""A device without memory: refused before the work begins where that is certain, halved once where it shows later."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rm_assets.backends.room import require_room_for_weights
from rm_assets.backends.token_budget import TokenBudget
from rm_assets.backends.torch import fit, memory, native_engine, trainer
from rm_assets.backends.torch.reward_forward import RewardForward
from rm_assets.backends.torch.sampler import TorchSampler
from rm_assets.core.errors import ModelError
from rm_assets_tests.backends.torch.test_sampler import make_sampler, requests
from rm_assets_tests.backends.torch.test_scorer import CONVERSATIONS, make_scorer
from rm_assets_tests.backends.torch.test_trainer import EXECUTION, settings, train
from rm_assets_tests.fakes import ListReporter, save_causal, save_classifier

torch.set_num_threads(1)
SMALL = EXECUTION.model_copy(update={"training_token_budget": 120})
"""Several micro-batches a step, so that the memory can run out in the middle of one."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_causal(tmp_path_factory.mktemp("base"))


def failing(real: Callable[..., Any], *numbers: int, said: str = "CUDA out of memory.") -> Callable[..., Any]:
    """`real`, which finds no memory at these of its calls, counted from 1."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in numbers:
            raise torch.OutOfMemoryError(said)
        return real(*arguments, **options)

    return call


def test_a_step_without_memory_is_computed_again_in_smaller_parts(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, reporter = settings(base, num_epochs=2, learning_rate=1e-3), ListReporter()
    whole = train(tmp_path / "whole", section, execution=SMALL)
    monkeypatch.setattr(native_engine, "pair_rewards", failing(native_engine.pair_rewards, 5))
    halved = train(tmp_path / "halved", section, execution=SMALL, reporter=reporter)
    weights, others = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "halved"))
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < 1e-5
    assert [e["loss"] for e in halved.history] == pytest.approx([e["loss"] for e in whole.history], abs=1e-5)
    assert halved.num_pair_tokens == whole.num_pair_tokens  # the first attempt counts for nothing
    assert halved.facts == {"token_budget_halved_to": 60} and whole.facts == {}
    said = [line for line in reporter.lines if "token budget" in line]
    assert said == ["the token budget is halved to 60, since the device has no memory left: CUDA out of memory."]


def test_validation_without_memory_is_computed_again_in_smaller_parts(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, reporter = settings(base, num_epochs=1, validation={"every_steps": 2}), ListReporter()
    whole = train(tmp_path / "whole", section, execution=SMALL)
    monkeypatch.setattr(fit, "pair_rewards", failing(fit.pair_rewards, 2))
    halved = train(tmp_path / "halved", section, execution=SMALL, reporter=reporter)
    budget = SMALL.forward_tokens("scoring", on_cpu=True)
    assert halved.facts == {"validation_token_budget_halved_to": budget // 2} and whole.facts == {}
    assert any(f"the validation token budget is halved to {budget // 2:,}, since" in line for line in reporter.lines)
    looks = [[e["validation_loss"] for e in r.history if "validation_loss" in e] for r in (whole, halved)]
    assert looks[1] == pytest.approx(looks[0], abs=1e-6) and len(looks[0]) > 1
    assert halved.validation_accuracy == whole.validation_accuracy


def test_a_second_lack_of_memory_ends_the_training(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_engine, "pair_rewards", failing(native_engine.pair_rewards, 2, 4))
    with pytest.raises(torch.OutOfMemoryError):
        train(tmp_path, settings(base), execution=SMALL)


def test_scoring_goes_on_from_the_rewards_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reporter = save_classifier(tmp_path / "model"), ListReporter()
    whole = list(make_scorer(model, token_budget=64).score(CONVERSATIONS))
    real, computed = RewardForward.rewards, list[int]()

    def counting(self: RewardForward, groups: Any) -> torch.Tensor:
        computed.append(sum(map(len, groups)))
        return real(self, groups)

    monkeypatch.setattr(RewardForward, "rewards", failing(counting, 2))
    scorer = make_scorer(model, token_budget=64, reporter=reporter)
    scores = list(scorer.score(CONVERSATIONS))
    assert [s.reward for s in scores] == pytest.approx([s.reward for s in whole], abs=1e-5)
    assert sum(computed) == len(CONVERSATIONS)  # none twice
    assert scorer.facts == {"token_budget_halved_to": 32} and len(reporter.lines) == 1


def test_sampling_goes_on_with_the_same_texts(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_sampler(base, token_budget=80).sample(requests())
    monkeypatch.setattr(TorchSampler, "_sample_group", failing(TorchSampler._sample_group, 2))
    sampler = make_sampler(base, token_budget=80)
    assert sampler.sample(requests()) == whole
    assert sampler.facts == {"token_budget_halved_to": 40}


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("anything"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_only_a_lack_of_memory_halves(error: RuntimeError, is_memory: bool) -> None:
    seen: list[int] = []

    def work(tokens: int) -> None:
        seen.append(tokens)
        if len(seen) == 1:
            raise error

    budget = TokenBudget(9, ListReporter())
    if is_memory:
        budget.spend(work)
    else:
        with pytest.raises(RuntimeError, match="shapes"):
            budget.spend(work)
    assert seen == ([9, 4] if is_memory else [9])


def num_bytes(model: Path) -> int:
    return sum(weight.nbytes for weight in load_file(model / "model.safetensors").values())


def test_a_training_that_cannot_fit_is_refused_before_the_model_is_loaded(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = 4 * (num_bytes(base) + 4 * 16)  # the score head is new; weights, gradients and two moments
    monkeypatch.setattr(trainer, "_engine", lambda name: pytest.fail("the training began"))
    monkeypatch.setattr(memory, "free_memory", lambda device: least - 1)
    with pytest.raises(ModelError, match=r"MODEL_010.*takes at least 0\.0 GB.*free on cpu") as refused:
        train(tmp_path / "full", settings(base))
    assert "gradients" in refused.value.why and "training.lora" in refused.value.fix
    monkeypatch.setattr(memory, "free_memory", lambda device: least)
    with pytest.raises(pytest.fail.Exception, match="the training began"):
        train(tmp_path / "fits", settings(base))
    monkeypatch.setattr(memory, "free_memory", lambda device: least // 2)
    with pytest.raises(pytest.fail.Exception, match="the training began"):
        train(tmp_path / "lora", settings(base, lora={"rank": 1}))


def test_weights_that_cannot_fit_are_not_loaded(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_classifier(tmp_path / "model")
    monkeypatch.setattr(memory, "free_memory", lambda device: num_bytes(model) - 1)
    with pytest.raises(ModelError, match="MODEL_010"):
        make_scorer(model)
    make_scorer(model, dtype="bfloat16")
    monkeypatch.setattr(memory, "free_memory", lambda device: num_bytes(base) - 1)
    with pytest.raises(ModelError, match="MODEL_010"):
        make_sampler(base)


def test_what_is_only_recommended_is_said_and_not_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig

    reporter, device = ListReporter(), torch.device("mps")
    monkeypatch.setattr(memory, "free_memory", lambda device: 10)
    require_room_for_weights(AutoConfig.from_pretrained(base), "base", "float32", memory.room_on(device), reporter)
    assert len(reporter.lines) == 1 and "free on mps" in reporter.lines[0]
