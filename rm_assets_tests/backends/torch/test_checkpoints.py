import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from rm_assets.backends.tokenization import load_renderer, load_tokenizer
from rm_assets.backends.torch.checkpoints import (
    load_base_for_reward,
    load_classifier,
    load_policy,
)
from rm_assets.backends.torch.devices import pick_device
from rm_assets.core.errors import ModelError, RecipeError
from rm_assets.core.recipe import ModelRef
from rm_assets.core.records import conversation
from rm_assets_tests.fakes import BOS_TEMPLATE, TEMPLATE, build_tokenizer, save_causal, save_classifier, save_encoder

torch.set_num_threads(1)
CPU = torch.device("cpu")


def ref_of(path: Path, **fields: Any) -> ModelRef:
    return ModelRef(path=str(path), **fields)


def base(ref: ModelRef, seed: int = 0) -> Any:
    return load_base_for_reward(ref, seed=seed, device=CPU, tokenizer=load_renderer(ref).tokenizer)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_base_gets_a_seeded_head_and_keeps_its_weights(tmp_path: Path) -> None:
    ref = ref_of(save_causal(tmp_path))
    one, same, other = base(ref, 1), base(ref, 1), base(ref, 2)
    assert torch.equal(one.score.weight, same.score.weight)
    assert not torch.equal(one.score.weight, other.score.weight)
    policy = load_policy(ref, "float32", CPU)
    assert torch.equal(one.model.embed_tokens.weight, policy.model.embed_tokens.weight)
    config = one.config
    assert (config.num_labels, config.problem_type) == (1, "regression")
    assert (config.use_cache, config.pad_token_id) == (False, 0)


def test_an_encoder_becomes_a_base(tmp_path: Path) -> None:
    assert base(ref_of(save_encoder(tmp_path))).config.num_labels == 1


def test_a_decoder_reads_exactly_what_its_template_says(tmp_path: Path) -> None:
    renderer = load_renderer(ref_of(save_causal(tmp_path, "llama")))
    messages = conversation("one", None, "two")
    (encoded,) = renderer.encode([messages])
    assert encoded.ids.count(1) == 1 and encoded.ids[0] == 1
    assert renderer.tokenizer.decode(encoded.ids) == renderer.text(messages)
    assert renderer.text(messages) == "<|bos|><|user|>one<|end|><|assistant|>two<|end|>"


@pytest.mark.parametrize(("starts", "number"), [("{{ bos_token }}{{ bos_token }}", 2), ("", 0)])
def test_a_template_that_doubles_or_forgets_the_start_token_is_refused(
    tmp_path: Path, starts: str, number: int
) -> None:
    folder = save_causal(tmp_path, "llama")
    with pytest.raises(ModelError, match=rf"MODEL_003.*{number} start tokens"):
        load_renderer(ref_of(folder, chat_template=starts + TEMPLATE))


def test_a_tokenizer_that_writes_no_start_token_needs_none(tmp_path: Path) -> None:
    renderer = load_renderer(ref_of(save_causal(tmp_path)))
    assert renderer.tokenizer.bos_token_id == 1
    assert renderer.encode([conversation("one", None, "two")])[0].ids[0] != 1


def test_a_prompts_ids_begin_the_conversations_ids(tmp_path: Path) -> None:
    renderer = load_renderer(ref_of(save_causal(tmp_path)))
    (prompt,) = renderer.encode_prompts([conversation("one", "be good")])
    (whole,) = renderer.encode([conversation("one", "be good", "two")])
    assert whole.ids[: len(prompt)] == prompt


def test_a_template_with_a_given_date_is_fixed_and_one_with_a_clock_is_refused(tmp_path: Path) -> None:
    folder = save_causal(tmp_path)
    polite = "{% if not date_string is defined %}{% set date_string = strftime_now('%d') %}{% endif %}{{ date_string }}"
    assert load_renderer(ref_of(folder, chat_template=polite)).text(conversation("a", None)) == "26 Jul 2024"
    with pytest.raises(ModelError, match=r"MODEL_003.*depends on the date"):
        load_renderer(ref_of(folder, chat_template="{{ strftime_now('%d %b') }}" + TEMPLATE))


def test_a_template_that_refuses_a_conversation_is_an_error(tmp_path: Path) -> None:
    template = "{{ raise_exception('no system message') }}"
    with pytest.raises(ModelError, match=r"(?s)MODEL_003.*no system message"):
        load_renderer(ref_of(save_causal(tmp_path), chat_template=template)).text(conversation("a", "b"))


def test_a_missing_folder_or_file_is_model_001(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"MODEL_001.*does not exist"):
        load_renderer(ref_of(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=r"(?s)MODEL_001.*no config.json"):
        load_renderer(ref_of(tmp_path))
    folder = save_causal(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"(?s)MODEL_001.*no \*.safetensors"):
        load_policy(ref_of(folder), "float32", CPU)


def test_a_missing_tokenizer_is_model_001(tmp_path: Path) -> None:
    folder = save_causal(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="MODEL_001"):
        load_tokenizer(ref_of(folder), needs_chat_template=True)


def test_damaged_weights_are_model_001(tmp_path: Path) -> None:
    folder = save_causal(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"(?s)MODEL_001.*weights cannot be read"):
        load_policy(ref_of(folder), "float32", CPU)


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    folder = save_causal(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"(?s)MODEL_001.*pickled"):
        base(ref_of(folder))


def test_a_hub_that_cannot_be_reached_is_model_001(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"(?s)MODEL_001.*Hub cannot be reached.*needs the network.*`path`"):
        load_renderer(ModelRef(hub_id="no-such-org/no-such-model"))


def test_an_unknown_model_type_is_model_002(tmp_path: Path) -> None:
    folder = save_causal(tmp_path)
    edit_config(folder, model_type="unheard_of")
    with pytest.raises(ModelError, match=r"MODEL_002.*does not know"):
        load_renderer(ref_of(folder))


def test_remote_code_is_not_run_unasked(tmp_path: Path) -> None:
    folder = save_causal(tmp_path)
    edit_config(folder, model_type="unheard_of", auto_map={"AutoConfig": "code.Config"})
    with pytest.raises(ModelError, match=r"(?s)MODEL_002.*trust_remote_code"):
        load_renderer(ref_of(folder))


def test_a_type_without_a_classifier_is_model_002(tmp_path: Path) -> None:
    folder = save_causal(tmp_path)
    tokenizer = load_renderer(ref_of(folder)).tokenizer
    edit_config(folder, model_type="musicgen_melody_decoder")
    with pytest.raises(ModelError, match=r"(?s)MODEL_002.*AutoModelForSequenceClassification"):
        load_base_for_reward(ref_of(folder), seed=0, device=CPU, tokenizer=tokenizer)


def test_a_causal_checkpoint_needs_a_chat_template(tmp_path: Path) -> None:
    folder = save_causal(tmp_path, tokenizer=build_tokenizer(None))
    with pytest.raises(ModelError, match="MODEL_003"):
        load_renderer(ref_of(folder))
    assert load_renderer(ref_of(folder, chat_template=BOS_TEMPLATE)).tokenizer.chat_template == BOS_TEMPLATE


@pytest.mark.parametrize("pad", [None, "<|end|>"])
def test_a_causal_base_needs_a_pad_token_of_its_own(tmp_path: Path, pad: str | None) -> None:
    folder = save_causal(tmp_path, tokenizer=build_tokenizer(pad=pad))
    with pytest.raises(ModelError, match="MODEL_004"):
        base(ref_of(folder))
    assert base(ref_of(folder, pad_token="<|spare|>")).config.pad_token_id == 6
    with pytest.raises(ModelError, match=r"MODEL_004.*not in the vocabulary"):
        base(ref_of(folder, pad_token="<|new|>"))


def test_a_classifier_with_two_outputs_is_model_002(tmp_path: Path) -> None:
    ref = ref_of(save_classifier(tmp_path, num_labels=2))
    with pytest.raises(ModelError, match=r"MODEL_002.*2 outputs"):
        load_classifier(ref, "float32", CPU, load_renderer(ref).tokenizer)


def test_a_causal_lm_is_no_classifier(tmp_path: Path) -> None:
    ref = ref_of(save_causal(tmp_path))
    edit_config(tmp_path, id2label={"0": "reward"})
    with pytest.raises(ModelError, match=r"MODEL_002.*score.weight"):
        load_classifier(ref, "float32", CPU, load_renderer(ref).tokenizer)


def test_an_encoder_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"MODEL_002.*cannot write"):
        load_policy(ref_of(save_encoder(tmp_path)), "float32", CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_a_recipe_error() -> None:
    assert pick_device("cpu") == CPU
    with pytest.raises(RecipeError, match="RECIPE_003"):
        pick_device("cuda")
