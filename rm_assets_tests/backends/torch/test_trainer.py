from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from rm_assets.backends import tokenization, training_preparation, training_state
from rm_assets.backends.tokenization import load_renderer
from rm_assets.backends.torch.scorer import TorchScorer
from rm_assets.backends.torch.trainer import TorchTrainer
from rm_assets.core.errors import DataError, ModelError, RecipeError
from rm_assets.core.protocols import TrainingResult
from rm_assets.core.recipe import ExecutionSection, ModelRef, TrainingSection
from rm_assets.core.records import conversation
from rm_assets_tests.fakes import ListReporter, StopAfter, save_causal, save_encoder, toy_pairs

torch.set_num_threads(1)
EXECUTION = ExecutionSection(device="cpu", pairs_per_forward=4, save_every_steps=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_causal(tmp_path_factory.mktemp("base"))


@pytest.fixture(params=["native", "trl"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings(base: Path, engine: str = "native", **changes: Any) -> TrainingSection:
    values = {
        "base": ModelRef(path=str(base)), "engine": engine, "max_length": 100, "pairs_per_step": 8,
        "learning_rate": 0.01,
    }  # fmt: skip
    return TrainingSection(**{**values, **changes})


def train(folder: Path, section: TrainingSection, **changes: Any) -> TrainingResult:
    options: dict[str, Any] = {
        "pairs": toy_pairs(40), "validation_pairs": toy_pairs(10, "validation"), "execution": EXECUTION, "seed": 1,
        "checkpoint": folder / "model", "work": folder / "work", "reporter": ListReporter(), **changes,
    }  # fmt: skip
    return TorchTrainer().train(options.pop("pairs"), options.pop("validation_pairs"), settings=section, **options)


def test_training_learns_a_separable_toy_set_and_writes_a_loadable_checkpoint(
    base: Path, tmp_path: Path, engine: str
) -> None:
    reporter = ListReporter()
    result = train(tmp_path, settings(base, engine, num_epochs=6), reporter=reporter)
    assert result.history[0]["loss"] > 0.3
    assert result.final_loss < 0.1
    assert result.validation_accuracy == 1.0
    assert result.num_optimizer_steps == 30 and reporter.steps[-1][0] == 30
    assert set(reporter.steps[0][1]) == {
        "loss", "accuracy", "margin", "grad_norm", "learning_rate", "tokens_per_second", "eta_seconds",
        "memory_mb", "peak_memory_mb",
    }  # fmt: skip
    assert reporter.progresses[-1] == (30, 30, "steps")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float32 and model.config.pad_token_id == 0 and model.config.id2label == {0: "reward"}
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template


@pytest.mark.parametrize(("kind", "options"), [("qwen3", {}), ("llama", {"add_special_tokens": False})])
def test_the_trained_checkpoint_scores_in_a_plain_pipeline_as_in_the_scorer(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    """A tokenizer that adds BOS by itself must be told that the chat template has written it."""
    train(tmp_path, settings(save_causal(tmp_path / "base", kind), max_optimizer_steps=2))
    ref = ModelRef(path=str(tmp_path / "model"))
    scorer = TorchScorer(
        ref, max_length=100, dtype="float32", device=torch.device("cpu"), token_budget=200, reporter=ListReporter()
    )
    rows = [pair.chosen for pair in toy_pairs(6)]
    classify = pipeline("text-classification", model=str(tmp_path / "model"), device="cpu")
    renderer = load_renderer(ref)
    for messages, score in zip(rows, scorer.score(rows), strict=True):
        assert classify(renderer.text(messages), **options)[0]["score"] == pytest.approx(score.reward, abs=1e-5)


def test_the_trained_model_pads_on_the_right_whatever_its_base_does(tmp_path: Path) -> None:
    base = save_causal(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(base)
    train(tmp_path, settings(base, max_optimizer_steps=1))
    assert AutoTokenizer.from_pretrained(tmp_path / "model").padding_side == "right"


def test_every_pair_is_accounted_for(base: Path, tmp_path: Path) -> None:
    pairs = toy_pairs(12)
    pairs[3] = replace(pairs[3], rejected=pairs[3].chosen)
    pairs[5] = replace(pairs[5], chosen=conversation("a", None, "good " * 200))
    result = train(tmp_path, settings(base, max_train_pairs=7), pairs=pairs)
    assert result.num_pairs == {
        "in": 12, "trained": 7, "over_length": 1, "identical_after_tokenization": 1, "set_aside": 3,
    }  # fmt: skip


def test_a_share_of_the_prompts_takes_all_their_pairs_and_no_others(base: Path, tmp_path: Path) -> None:
    # Of p0 to p9, seed 1 draws p5, p6, p7 and p9 for a quarter (rm_assets_tests/core/test_shares.py).
    reporter = ListReporter()
    pairs = [replace(p, prompt_id=f"p{n % 10}", pair_id=f"{n}") for n, p in enumerate(toy_pairs(20))]
    result = train(
        tmp_path, settings(base, share_of_prompts=0.25, max_optimizer_steps=1), pairs=pairs, reporter=reporter
    )
    assert result.num_pairs == {
        "in": 20, "trained": 8, "over_length": 0, "identical_after_tokenization": 0, "set_aside": 12,
    }  # fmt: skip
    assert list(result.trained_pair_ids) == ["5", "6", "7", "9", "15", "16", "17", "19"]
    assert any(line.startswith("validation pairs: 10 in, 10 kept") for line in reporter.lines)


def test_a_share_that_no_prompt_is_in_is_refused_and_says_so(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"20 are of prompts outside share_of_prompts 0.001[\s\S]*raise training.share"):
        train(tmp_path, settings(base, share_of_prompts=0.001), pairs=toy_pairs(20))


def shared(first: list[int], second: list[int]) -> int:
    return next(i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)


def test_tokens_are_counted_as_computed_and_as_pairs_have_them(base: Path, tmp_path: Path, engine: str) -> None:
    pairs = toy_pairs(9)
    encode = load_renderer(ModelRef(path=str(base))).encode
    rows = [encode([pair.chosen, pair.rejected]) for pair in pairs]
    of_pairs = sum(len(chosen.ids) + len(rejected.ids) for chosen, rejected in rows)
    saved = sum(shared(chosen.ids, rejected.ids) for chosen, rejected in rows)
    result = train(tmp_path, settings(base, engine, num_epochs=2), pairs=pairs)
    assert result.num_pair_tokens == 2 * of_pairs
    assert result.num_tokens == 2 * (of_pairs - saved if engine == "native" else of_pairs)


def test_an_over_length_pair_can_be_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"MODEL_005.*Pair train0"):
        train(tmp_path, settings(base, max_length=5, over_length="error"))


def test_no_pair_left_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="DATA_005"):
        train(tmp_path, settings(base, max_length=5))


def test_a_context_below_max_length_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="MODEL_005"):
        train(tmp_path, settings(base, max_length=4096))


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path, engine: str) -> None:
    base = save_causal(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"MODEL_006.*optimizer step 1 is nan"):
        train(tmp_path, settings(base, engine))


@pytest.mark.parametrize("stop", [2, 4, 8])
def test_a_resumed_training_gives_the_same_weights(base: Path, tmp_path: Path, engine: str, stop: int) -> None:
    section = settings(base, engine, num_epochs=2, pairs_per_step=8)
    pairs = toy_pairs(37)
    whole = train(tmp_path / "whole", section, pairs=pairs)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", section, pairs=pairs, reporter=StopAfter(stop))
    again = ListReporter()
    resumed = train(tmp_path / "cut", section, pairs=pairs, reporter=again)
    assert again.steps[0][0] == stop // 3 * 3 + 1
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert resumed.num_tokens == whole.num_tokens
    assert [entry["loss"] for entry in resumed.history] == [entry["loss"] for entry in whole.history]


def test_a_finished_training_is_not_trained_further(base: Path, tmp_path: Path, engine: str) -> None:
    section = settings(base, engine, max_optimizer_steps=3, schedule="constant")
    first = train(tmp_path, section)
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    again = ListReporter()
    assert train(tmp_path, section, reporter=again).final_loss == first.final_loss
    assert not again.steps and (tmp_path / "model" / "model.safetensors").read_bytes() == weights


def test_a_half_written_state_is_skipped(base: Path, tmp_path: Path, engine: str) -> None:
    section = settings(base, engine, num_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, section, reporter=StopAfter(7))
    (state,) = (tmp_path / "work" / "checkpoint-6").glob("optimizer.*")
    state.write_bytes(state.read_bytes()[:100])
    again = ListReporter()
    train(tmp_path, section, reporter=again)
    assert again.steps[0][0] == 4


def test_a_state_of_another_training_is_not_resumed(base: Path, tmp_path: Path, engine: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, settings(base, engine), reporter=StopAfter(4))
    again = ListReporter()
    train(tmp_path, settings(base, engine), reporter=again, seed=2)
    assert again.steps[0][0] == 1


@pytest.mark.parametrize("changed", ["version of the state", "version of a package", "commit of the base"])
def test_a_state_of_other_software_or_another_base_is_not_resumed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, settings(base), reporter=StopAfter(4))
    load_config = tokenization.load_config

    def load_moved(ref: ModelRef) -> Any:
        config: Any = load_config(ref)
        config._commit_hash = "a1b2"
        return config

    match changed:
        case "version of the state":
            monkeypatch.setattr(training_state, "STATE_VERSION", training_state.STATE_VERSION + 1)
        case "version of a package":
            monkeypatch.setattr(training_preparation, "version", lambda package: "9.9" if package == "peft" else "1.0")
        case _:
            monkeypatch.setattr(tokenization, "load_config", load_moved)
    again = ListReporter()
    train(tmp_path, settings(base), reporter=again)
    assert again.steps[0][0] == 1


def test_what_another_training_left_is_removed(base: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for name in ("profile", "best-3.safetensors", "checkpoint-3"):
        (work / name).mkdir(parents=True)
    train(tmp_path, settings(base, max_optimizer_steps=1))
    assert {path.name for path in work.iterdir()} == {
        "checkpoint-1", "training.json", "pairs.bin", "pairs.index", "validation.bin", "validation.index",
    }  # fmt: skip


def test_a_model_that_was_half_written_is_not_left_behind(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = settings(base, max_optimizer_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedTokenizerFast, "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("full")))
        for _ in range(2):
            with pytest.raises(OSError, match="full"):
                train(tmp_path, section)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert len(list(tmp_path.rglob("model.safetensors"))) == 1
    again = ListReporter()
    train(tmp_path, section, reporter=again)
    assert not again.steps and not (tmp_path / "work" / ".checkpoint").exists()
    assert len(list(tmp_path.rglob("model.safetensors"))) == 1


def test_pairs_of_a_last_step_that_is_not_full_weigh_the_same(base: Path, tmp_path: Path, engine: str) -> None:
    section = settings(base, engine, pairs_per_step=16)
    logs = []
    for size in (16, 4):  # 13 pairs are one forward pass, or several
        execution = EXECUTION.model_copy(update={"pairs_per_forward": size, "training_token_budget": 40 * size})
        (log,) = train(tmp_path / str(size), section, pairs=toy_pairs(13), execution=execution).history
        logs.append([log[name] for name in ("loss", "accuracy", "margin", "grad_norm")])
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {}])
def test_other_precisions_and_checkpointing_train(
    base: Path, tmp_path: Path, engine: str, changes: dict[str, Any]
) -> None:
    execution = EXECUTION.model_copy(update={"gradient_checkpointing": "never" if changes else "always"})
    assert train(tmp_path, settings(base, engine, num_epochs=4, **changes), execution=execution).final_loss < 0.4


def test_an_encoder_trains_on_text_pairs(tmp_path: Path, engine: str) -> None:
    base = save_encoder(tmp_path / "base")
    result = train(tmp_path, settings(base, engine, num_epochs=6, max_length=64))
    assert result.final_loss < 0.2 and result.validation_accuracy == 1.0


@pytest.mark.parametrize("changes", [{"profile": True}, {"num_processes": 2}, {"deterministic": True}])
def test_what_the_trl_engine_does_not_carry_out_is_refused_by_name(
    base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError, match=f"execution.{next(iter(changes))} to .*engine to native") as caught:
        train(tmp_path, settings(base, "trl"), execution=EXECUTION.model_copy(update=changes))
    assert caught.value.code == "RECIPE_003"
