"""Rewards alone and in a batch: equal for sound models, and the planted ways in which they are not."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, GPT2Config

from rm_assets.backends.pair_store import encode_pairs
from rm_assets.backends.tokenization import load_renderer
from rm_assets.backends.torch.batch_comparison import compare_batches
from rm_assets.backends.torch.checkpoints import load_classifier
from rm_assets.backends.torch.reward_forward import RewardForward
from rm_assets.core.checks.inputs import batch_dependence
from rm_assets.core.recipe import ModelRef, TrainingSection
from rm_assets_tests.fakes import ListReporter, build_tokenizer, save_classifier, save_encoder, toy_pairs

torch.set_num_threads(1)


def encoder(folder: Path) -> Path:
    return save_encoder(folder, classifier=True)


def gpt2(folder: Path) -> Path:
    """A decoder whose positions are learned, each an embedding of its own."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=300, n_positions=128, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3, num_labels=1, pad_token_id=0
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def nothing(model: Any, tokenizer: Any) -> None:
    """Leaves the model as it is."""


def pads_on_the_left(model: Any, tokenizer: Any) -> None:
    tokenizer.padding_side = "left"


def keeps_dropout(model: Any, tokenizer: Any) -> None:
    model.train()


def reads_the_last_column(model: Any, tokenizer: Any) -> None:
    """The reward of a shorter row is then read at its padding."""
    model.forward = lambda **inputs: SimpleNamespace(logits=model.score(model.model(**inputs)[0][:, -1]))


def pads_with_the_end(model: Any, tokenizer: Any) -> None:
    model.config.pad_token_id = tokenizer.eos_token_id


def compared(folder: Path, save: Callable[[Path], Path], change: Callable[[Any, Any], None]) -> dict[str, float]:
    """Four pairs of as many prompts, in rows of several lengths."""
    ref = ModelRef(path=str(save(folder)))
    renderer = load_renderer(ref)
    model = load_classifier(ref, "float32", torch.device("cpu"), renderer.tokenizer)
    change(model, renderer.tokenizer)
    settings = TrainingSection(base=ref, max_length=100, learning_rate=0.1)
    store = encode_pairs(toy_pairs(7), renderer, settings, 0, folder / "pairs.bin", ListReporter())
    forward = RewardForward(model, int(renderer.tokenizer.pad_token_id))
    return compare_batches(forward, renderer.tokenizer, store, 1000)


@pytest.mark.parametrize(
    ("save", "change"),
    [(save_classifier, nothing), (save_classifier, pads_on_the_left), (encoder, nothing), (gpt2, nothing)],
)
def test_a_reward_of_a_sound_model_does_not_depend_on_its_batch(tmp_path: Path, save: Any, change: Any) -> None:
    found = compared(tmp_path, save, change)
    assert found["conversations"] == 8 and found["spread"] > 0.01 and found["largest_difference"] < 1e-5
    assert batch_dependence({"batch_comparison": found}, 0.01).passed


@pytest.mark.parametrize(
    ("save", "change"),
    [
        (save_classifier, reads_the_last_column),
        (save_classifier, pads_with_the_end),
        (encoder, keeps_dropout),
        (gpt2, pads_on_the_left),
    ],
)
def test_a_reward_that_depends_on_its_batch_is_found(tmp_path: Path, save: Any, change: Any) -> None:
    finding = batch_dependence({"batch_comparison": compared(tmp_path, save, change)}, 0.01)
    assert not finding.passed and finding.numbers["rm/batch_difference_per_spread"] > 0.05


def test_the_model_computes_as_before_when_it_has_been_compared(tmp_path: Path) -> None:
    ref = ModelRef(path=str(save_classifier(tmp_path)))
    renderer = load_renderer(ref)
    forward = RewardForward(load_classifier(ref, "float32", torch.device("cpu"), renderer.tokenizer), 0)
    settings = TrainingSection(base=ref, max_length=100, learning_rate=0.1)
    store = encode_pairs(toy_pairs(3), renderer, settings, 0, tmp_path / "pairs.bin", ListReporter())
    implementation = forward.model.config._attn_implementation
    assert compare_batches(forward, renderer.tokenizer, store, 20)["conversations"] == 6
    assert forward.model.config._attn_implementation == implementation
