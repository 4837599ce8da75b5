from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from rm_assets.backends.tokenization import load_renderer
from rm_assets.backends.torch.scorer import TorchScorer
from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import ModelRef
from rm_assets.core.records import Messages, conversation
from rm_assets_tests.fakes import TEXTS, ListReporter, save_classifier, save_encoder

torch.set_num_threads(1)
CONVERSATIONS: list[Messages] = [
    conversation(text, "be good" if i % 2 else None, " ".join(TEXTS[: i % 4]) or "yes") for i, text in enumerate(TEXTS)
]


@pytest.fixture(scope="module", params=["decoder", "encoder"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return save_classifier(folder) if request.param == "decoder" else save_encoder(folder, classifier=True)


def make_scorer(model: Path, **changes: Any) -> TorchScorer:
    options: dict[str, Any] = {
        "max_length": 64, "dtype": "float32", "device": torch.device("cpu"), "token_budget": 1000,
        "reporter": ListReporter(), **changes,
    }  # fmt: skip
    return TorchScorer(ModelRef(path=str(model)), **options)


def test_a_score_is_the_same_alone_and_in_a_padded_batch(model: Path) -> None:
    reporter = ListReporter()
    together = list(make_scorer(model, reporter=reporter).score(CONVERSATIONS))
    alone = [score for row in CONVERSATIONS for score in make_scorer(model).score([row])]
    assert [s.reward for s in together] == pytest.approx([s.reward for s in alone], abs=1e-5)
    assert [s.num_tokens for s in together] == [s.num_tokens for s in alone]
    assert len({round(s.reward, 4) for s in together}) == len(together)
    assert reporter.progresses[-1] == (6, 6, "conversations")


def test_tokens_forwarded_count_a_shared_prompt_once(tmp_path: Path) -> None:
    scorer = make_scorer(save_classifier(tmp_path))
    rows = [conversation("make apple pies", None, text) for text in ("yes", "no two")]
    first, second = (score.num_tokens for score in scorer.score(rows))
    prompt = len(load_renderer(ModelRef(path=str(tmp_path))).encode_prompts([rows[0][:-1]])[0])
    assert scorer.num_tokens_forwarded == first + second - prompt
    list(scorer.score(rows[:1]))
    assert scorer.num_tokens_forwarded == 2 * first + second - prompt


@pytest.mark.parametrize("token_budget", [25, 60, 1000])
def test_responses_of_interleaved_prompts_score_as_each_alone_in_transformers(
    tmp_path: Path, token_budget: int
) -> None:
    """A budget that cuts a prompt's responses apart, one that cuts between prompts, and one that takes all."""
    model = save_classifier(tmp_path)
    answers = ["yes", "two pears please", "no", "fine two apples", "yes two"]
    rows = [conversation(f"make {prompt} pies", None, f"{text} {prompt}") for text in answers for prompt in range(4)]
    renderer, plain = (
        load_renderer(ModelRef(path=str(model))),
        AutoModelForSequenceClassification.from_pretrained(model),
    )
    with torch.no_grad():
        expected = [plain(torch.tensor([encoded.ids])).logits.item() for encoded in renderer.encode(rows)]
    assert len({round(reward, 4) for reward in expected}) == len(rows)
    scores = make_scorer(model, token_budget=token_budget).score(rows)
    assert [score.reward for score in scores] == pytest.approx(expected, abs=1e-5)


def test_a_plain_pipeline_gives_the_same_reward_for_the_rendered_text(tmp_path: Path) -> None:
    model = save_classifier(tmp_path)
    renderer = load_renderer(ModelRef(path=str(model)))
    classify = pipeline("text-classification", model=str(model), device="cpu")
    for row, score in zip(CONVERSATIONS, make_scorer(model, max_length=200).score(CONVERSATIONS), strict=True):
        assert classify(renderer.text(row))[0]["score"] == pytest.approx(score.reward, abs=1e-5)


def test_an_encoder_reads_a_text_pair(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, classifier=True)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    plain = model(**tokenizer("be good\n\none apple", "yes", return_tensors="pt")).logits.item()
    (score,) = make_scorer(folder).score([conversation("one apple", "be good", "yes")])
    assert score.reward == pytest.approx(plain, abs=1e-5)


def test_a_long_response_is_cut_at_the_end_and_says_so(model: Path) -> None:
    row = conversation("one", None, "two pears please " * 30)
    (score,) = make_scorer(model, max_length=40).score([row])
    assert score.truncated and score.num_tokens == 40
    (short,) = make_scorer(model, max_length=40).score([conversation("one", None, "two")])
    assert not short.truncated


def test_a_prompt_that_fills_max_length_is_an_error(model: Path) -> None:
    with pytest.raises(ModelError, match=r"MODEL_005.*two pears"):
        list(make_scorer(model, max_length=20).score([conversation("two pears please " * 20, None, "yes")]))


def test_a_reward_that_is_not_finite_names_its_row(tmp_path: Path) -> None:
    model = save_classifier(tmp_path)
    weights = load_file(model / "model.safetensors")
    weights["score.weight"][0, 0] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"MODEL_006.*conversation 0"):
        list(make_scorer(model).score(CONVERSATIONS[:1]))


def test_a_text_that_ends_with_the_pad_token_is_an_error(tmp_path: Path) -> None:
    model = save_classifier(tmp_path)
    ref = ModelRef(path=str(model), chat_template="{% for m in messages %}{{ m['content'] }}<|pad|>{% endfor %}")
    scorer = TorchScorer(
        ref, max_length=64, dtype="float32", device=torch.device("cpu"), token_budget=99, reporter=ListReporter()
    )
    with pytest.raises(ModelError, match="MODEL_004"):
        list(scorer.score(CONVERSATIONS[:1]))
