"""Planted faults of tokenizers and chat templates: each makes the declared checks fail and no other; on sound ones none fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from rm_assets.backends.torch.examination import examine
from rm_assets.core.checks.inputs import INPUT_CHECKS, Examination, judge
from rm_assets.core.recipe import ChecksSection, LimitedCheck, ModelRef, TrainingSection
from rm_assets.core.records import Pair, conversation
from rm_assets_tests.fakes import (
    BOS_TEMPLATE,
    TEMPLATE,
    build_tokenizer,
    save_causal,
    save_classifier,
    save_encoder,
    toy_pairs,
)

torch.set_num_threads(1)
Base = Callable[[Path], ModelRef]
DATED = "{{- strftime_now('%d %b %Y') -}}"
NO_END = "{%- for m in messages -%}{{- '<|' + m['role'] + '|>' + m['content'] -}}{%- endfor -%}"


def llama(template: str | None = None, **tokens: Any) -> Base:
    """A base whose tokenizer writes the start token; its template does so, too, unless the recipe gives another."""
    return lambda folder: ModelRef(path=str(save_causal(folder, "llama")), chat_template=template, **tokens)


def qwen(template: str = TEMPLATE, pad: str | None = "<|pad|>", **tokens: Any) -> Base:
    """A base whose tokenizer writes no special tokens."""
    return lambda folder: ModelRef(
        path=str(save_causal(folder, tokenizer=build_tokenizer(template, pad=pad))), **tokens
    )


def adding_end(template: str) -> Base:
    """A base whose tokenizer ends a plain text with its end token."""

    def save(folder: Path) -> ModelRef:
        tokenizer: PreTrainedTokenizerFast = build_tokenizer(template)
        ending = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 2)])
        tokenizer.backend_tokenizer.post_processor = ending
        return ModelRef(path=str(save_causal(folder, tokenizer=tokenizer)))

    return save


def encoder(folder: Path) -> ModelRef:
    return ModelRef(path=str(save_encoder(folder)))


def examined(ref: ModelRef, max_length: int, some: list[Pair], **settings: Any) -> Examination:
    return examine(TrainingSection(base=ref, max_length=max_length, learning_rate=0.1, **settings), some)


def failing(found: Examination) -> set[str]:
    """The checks that fail at the limits that every recipe begins with."""
    failed = set()
    for name in INPUT_CHECKS:
        finding = judge(name, found, getattr(ChecksSection(), name))
        assert finding.sentence
        if not finding.passed:
            failed.add(name)
    return failed


def pairs() -> list[Pair]:
    return [*toy_pairs(8), *toy_pairs(4, "test")]


SOUND: dict[str, Base] = {
    "a template that writes the start token, which the tokenizer writes, too": llama(),
    "neither writes a start token": qwen(),
    "a template with a line end after the turn": qwen(TEMPLATE.replace("<|end|>'", "<|end|>\\n'")),
    "a template that strips the response": qwen(TEMPLATE.replace("m['content']", "m['content'] | trim")),
    "a template that sets thoughts apart": qwen(
        TEMPLATE.replace("m['content']", "m['content'].replace(' ', '\\n\\n')")
    ),
    "a template that looks at the clock only if it gets no date": llama(
        "{{- bos_token -}}{%- if not date_string is defined -%}{%- set date_string = strftime_now('%d') -%}{%- endif -%}"
        "{{- date_string -}}" + TEMPLATE
    ),
    "pad tokens and templates from the recipe": qwen("", None, pad_token="<|spare|>", chat_template=TEMPLATE),
    "an encoder": encoder,
}
FAULTS: dict[str, tuple[Base, set[str]]] = {
    "double start token": (llama("{{- bos_token -}}" + BOS_TEMPLATE), {"one_start_token"}),
    "forgotten start token": (llama(TEMPLATE), {"one_start_token"}),
    "dated template": (llama("{{- bos_token -}}" + DATED + TEMPLATE), {"template_ignores_the_clock"}),
    "pad = eos": (qwen(pad="<|end|>"), {"pad_is_not_the_end", "reward_is_read_at_the_end"}),
    "pad = eos, which no text ends with": (qwen(NO_END, "<|end|>"), {"pad_is_not_the_end"}),
    "no pad token": (qwen(pad=None), {"pad_is_not_the_end"}),
    "a pad token that ends every text": (qwen(TEMPLATE + "<|pad|>"), {"reward_is_read_at_the_end"}),
    "a template that leaves out the response": (
        qwen("{%- for m in messages if m['role'] != 'assistant' -%}{{- m['content'] -}}{%- endfor -%}<|end|>"),
        {"reward_is_read_at_the_end", "pairs_fit_the_model"},  # both sides are the same then
    ),
    "a template that cuts the response": (
        qwen(TEMPLATE.replace("m['content']", "m['content'][:18]")), {"reward_is_read_at_the_end"},
    ),
    "a template that asks for another turn": (
        qwen(TEMPLATE + "{%- if messages[0]['content'][-1] in '02468' -%}{{- '<|assistant|>' -}}{%- endif -%}"),
        {"reward_is_read_at_the_end"},
    ),
    "an end token in scoring that training does not have": (adding_end(NO_END), {"scoring_ends_as_training"}),
    "the end token twice in scoring": (adding_end(TEMPLATE), {"scoring_ends_as_training"}),
    "no chat template": (qwen(""), {"base_can_read_pairs"}),
    "a template that refuses a conversation": (qwen("{{ raise_exception('no') }}"), {"base_can_read_pairs"}),
    "a context that is too short": (
        lambda folder: ModelRef(path=str(save_causal(folder, max_position_embeddings=64))), {"base_can_read_pairs"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("base", SOUND)
def test_no_check_fails_on_a_sound_base(base: str, tmp_path: Path) -> None:
    found = examined(SOUND[base](tmp_path), 100 if base != "an encoder" else 64, pairs())
    assert failing(found) == set()
    assert (found.num_rows, found.num_train_pairs, found.num_test_rows) == (24, 8, 8)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_its_checks_and_no_other(fault: str, tmp_path: Path) -> None:
    plant, expected = FAULTS[fault]
    found = examined(plant(tmp_path), 100, pairs())
    assert failing(found) == expected


def test_every_input_check_has_a_fault_that_it_finds() -> None:
    assert set().union(*(expected for _, expected in FAULTS.values())) == set(INPUT_CHECKS)


@pytest.mark.parametrize(("pad", "is_read_early"), [(0, False), (2, True)])
def test_transformers_reads_a_reward_before_the_tokens_that_pad(tmp_path: Path, pad: int, is_read_early: bool) -> None:
    """What `reward_is_read_at_the_end` takes for granted: 2 is the end token, with which the row ends."""
    model = AutoModelForSequenceClassification.from_pretrained(save_classifier(tmp_path, pad_token_id=pad))
    whole, before = [4, 40, 41, 5, 50, 2], [4, 40, 41, 5, 50]
    with torch.no_grad():
        rewards = [model(torch.tensor([ids])).logits.item() for ids in (whole, before)]
    assert (abs(rewards[0] - rewards[1]) < 1e-6) == is_read_early


def test_pairs_that_are_the_same_up_to_max_length_are_lost_and_add_up(tmp_path: Path) -> None:
    """Of eight pairs one is the same where it would be cut, one only too long, one the same tokens: three eighths are lost."""
    same = conversation("a", None, "good " * 60)
    planted = pairs()
    planted[0] = Pair(**{**vars(planted[0]), "chosen": same, "rejected": conversation("a", None, "good " * 60 + "not")})
    planted[1] = Pair(**{**vars(planted[1]), "rejected": same})
    planted[2] = Pair(**{**vars(planted[2]), "rejected": planted[2].chosen})
    found = examined(qwen()(tmp_path), 100, planted)
    assert (found.num_over_length, found.num_same_when_cut, found.num_identical) == (2, 1, 1)
    finding = judge("pairs_fit_the_model", found, ChecksSection().pairs_fit_the_model)
    assert (
        "of 8 sampled training pairs training takes 5 and leaves out 2 over max_length (1 of them" in finding.sentence
    )
    assert finding.numbers["data/share_pairs_unusable"] == 3 / 8
    assert (
        failing(found) == {"pairs_fit_the_model"}
        and judge("pairs_fit_the_model", found, LimitedCheck(severity="warn", limit=3 / 8)).passed
    )


def test_test_conversations_that_scoring_would_cut_are_too_long(tmp_path: Path) -> None:
    planted = pairs()
    planted[-1] = Pair(**{**vars(planted[-1]), "chosen": conversation("a", None, "good " * 60)})
    found = examined(qwen()(tmp_path), 100, planted)
    assert (found.num_test_rows, found.num_test_rows_over_length) == (8, 1)
    assert failing(found) == {"pairs_fit_the_model"}


def test_a_pair_over_length_that_would_stop_the_training_is_a_fault(tmp_path: Path) -> None:
    ref = qwen()(tmp_path)
    assert failing(examined(ref, 100, pairs(), over_length="error")) == set()
    found = examined(ref, 30, pairs(), over_length="error")
    assert failing(found) == {"base_can_read_pairs"} and "training.over_length to drop" in found.fault


def test_a_base_on_a_hub_that_cannot_be_reached_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = examined(ModelRef(hub_id="no-such-org/no-such-model"), 100, pairs())
    assert "MODEL_001" in found.missing and failing(found) == set()


def test_a_local_base_without_a_tokenizer_is_a_fault(tmp_path: Path) -> None:
    ref = qwen()(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    assert failing(examined(ref, 100, pairs())) == {"base_can_read_pairs"}
