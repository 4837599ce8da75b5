import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rm_assets.backends.tokenization import load_renderer
from rm_assets.backends.torch import sampler as sampler_module
from rm_assets.backends.torch.sampler import TorchSampler, draw, uniforms
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import SampleRequest
from rm_assets.core.recipe import ModelRef
from rm_assets.core.records import conversation
from rm_assets_tests.fakes import TEXTS, ListReporter, build_tokenizer, save_causal

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_causal(tmp_path_factory.mktemp("policy"), request.param)


def make_sampler(policy: Path, **changes: Any) -> TorchSampler:
    options: dict[str, Any] = {
        "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 24, "dtype": "float32", "device": torch.device("cpu"),
        "token_budget": 2048, "reporter": ListReporter(), **changes,
    }  # fmt: skip
    return TorchSampler(ModelRef(path=str(policy)), **options)


def requests(num_samples: int = 2) -> list[SampleRequest]:
    return [
        SampleRequest(f"p{i}", conversation(text, None), tuple(1000 * i + k for k in range(num_samples)))
        for i, text in enumerate(TEXTS)
    ]


def test_greedy_sampling_equals_generate(policy: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(policy)
    renderer = load_renderer(ModelRef(path=str(policy)))
    samples = make_sampler(policy, temperature=0.0).sample(requests(1))
    for request, sample in zip(requests(1), samples, strict=True):
        ids = torch.tensor(renderer.encode_prompts([request.messages]))
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
        new = out[0, ids.shape[1] :]
        assert sample.response == renderer.tokenizer.decode(new, skip_special_tokens=True)
        assert sample.num_tokens == len(new)


def test_a_request_gives_the_same_texts_alone_and_in_company(policy: Path) -> None:
    together = make_sampler(policy).sample(requests(3))
    alone = [sample for request in requests(3) for sample in make_sampler(policy).sample([request])]
    assert together == alone
    assert make_sampler(policy, token_budget=1).sample(requests(3)) == together
    assert len({sample.response for sample in together}) > 15


def test_rows_that_end_early_leave_without_changing_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = save_causal(tmp_path, initializer_range=0.1)
    monkeypatch.setattr(sampler_module, "DROP_EVERY", 10_000)
    kept = make_sampler(policy, max_new_tokens=300).sample(requests(8))
    monkeypatch.setattr(sampler_module, "DROP_EVERY", 2)
    assert make_sampler(policy, max_new_tokens=300).sample(requests(8)) == kept
    assert 0 < sum(sample.finished for sample in kept) < len(kept)
    assert all(sample.finished == (sample.num_tokens < 300) for sample in kept)


def test_tokens_forwarded_are_each_prompt_once_and_each_further_token_of_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_module, "DROP_EVERY", 1)
    made = make_sampler(save_causal(tmp_path), max_new_tokens=6)
    one, two = requests(3)[0], SampleRequest("long", conversation(TEXTS[0] * 2, None), (7,))
    samples = made.sample([one, two])
    lengths = [
        len(ids) for ids in load_renderer(ModelRef(path=str(tmp_path))).encode_prompts([one.messages, two.messages])
    ]
    # Two prompts, padded to the longer; the last token of a sample is drawn and not read.
    assert lengths[0] < lengths[1]
    assert {sample.num_tokens for sample in samples} == {6}
    assert made.num_tokens_forwarded == 2 * lengths[1] + 4 * 5


def test_samples_come_in_the_order_of_requests_and_seeds(policy: Path) -> None:
    reporter = ListReporter()
    samples = make_sampler(policy, reporter=reporter).sample(requests(3))
    assert [(s.prompt_id, s.index) for s in samples] == [(f"p{i}", k) for i in range(len(TEXTS)) for k in range(3)]
    assert reporter.progresses[-1] == (18, 18, "responses")


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (2.0, 0.5)])
def test_drawn_tokens_follow_the_tempered_nucleus(temperature: float, top_p: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    weights = [math.exp(x / temperature) for x in logits.tolist()]
    nucleus, mass = [], 0.0
    for weight in weights:  # already in falling order
        nucleus.append(weight if mass < top_p else 0.0)
        mass += weight / sum(weights)
    num_draws = 20_000
    numbers = torch.from_numpy(uniforms(torch.arange(num_draws).numpy().astype("uint64"), 0)[:, 0])
    tokens = draw(logits.expand(num_draws, -1), numbers, temperature, top_p)
    shares = torch.bincount(tokens, minlength=5) / num_draws
    torch.testing.assert_close(shares, torch.tensor(nucleus) / sum(nucleus), atol=0.015, rtol=0)


def test_a_draw_never_leaves_the_tokens_with_probability() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0, -torch.inf]])
    for number, token in ((0.0, 0), (0.4999, 0), (0.5, 2), (1 - 1e-16, 2), (1.0, 2)):
        assert draw(logits, torch.tensor([number], dtype=torch.float64), 1.0, 1.0).item() == token


def test_sampled_first_tokens_follow_the_models_distribution(tmp_path: Path) -> None:
    policy = save_causal(tmp_path, initializer_range=0.6)
    sampler = make_sampler(policy, max_new_tokens=1, token_budget=4096)
    ids = torch.tensor(sampler._renderer.encode_prompts([conversation("one", None)]))
    probabilities = sampler._model(ids).logits[0, -1].softmax(-1)
    drawn = sampler.sample([SampleRequest("p", conversation("one", None), tuple(range(4000)))])
    empty = sum(sample.response == "" for sample in drawn) / 4000
    special = probabilities[:7].sum().item()
    assert empty == pytest.approx(special, abs=0.03)


def test_a_prompt_without_room_is_an_error(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    policy = save_causal(tmp_path, tokenizer=tokenizer, max_position_embeddings=30)
    with pytest.raises(ModelError, match=r"MODEL_005.*long"):
        make_sampler(policy).sample([SampleRequest("long", conversation("x y " * 40, None), (1,))])


def test_a_response_ends_at_the_context(tmp_path: Path) -> None:
    policy = save_causal(tmp_path, max_position_embeddings=30)
    sampler = make_sampler(policy, max_new_tokens=200)
    num_prompt_tokens = len(sampler._renderer.encode_prompts([conversation("one apple", None)])[0])
    short, long = sampler.sample([
        SampleRequest("a", conversation("one apple", None), (4,)), SampleRequest("b", conversation("o", None), (5,))
    ])  # fmt: skip
    assert short.num_tokens <= 30 - num_prompt_tokens and long.num_tokens <= 30
    assert short.finished or short.num_tokens == 30 - num_prompt_tokens


def test_the_identity_names_what_decides_a_response(policy: Path) -> None:
    identity = make_sampler(policy).identity
    assert {"backend", "chat_template", "torch", "transformers", "dtype", "device"} <= set(identity)
