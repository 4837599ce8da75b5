"""RewardModel: the scores of the backend, and what is said of them."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rm_assets.backends.tokenization import load_renderer
from rm_assets.core.errors import DataError, ModelError
from rm_assets.core.recipe import ModelRef
from rm_assets.core.records import Messages, conversation
from rm_assets.serving import RewardModel, TruncatedResponse
from rm_assets.serving.judgements import best_of, compare
from rm_assets.serving.reward_model import TRAINING_RECORD
from rm_assets.tasks.train import TRAINING_FILE
from rm_assets_tests.fakes import TEXTS

DIALOGUE: Messages = [
    {"role": "system", "content": "be good"},
    {"role": "user", "content": "one apple"},
    {"role": "assistant", "content": "and two pears"},
    {"role": "user", "content": "three plums"},
]


def test_scores_are_those_of_transformers_for_the_rendered_conversation(model: RewardModel, checkpoint: Path) -> None:
    plain, renderer = (
        AutoModelForSequenceClassification.from_pretrained(checkpoint),
        load_renderer(ModelRef(path=str(checkpoint))),
    )
    rows = [conversation("one apple", None, text) for text in TEXTS]
    rows += [[*DIALOGUE, {"role": "assistant", "content": text}] for text in TEXTS]
    with torch.no_grad():
        expected = [plain(torch.tensor([each.ids])).logits.item() for each in renderer.encode(rows)]
    found = [*model.score("one apple", TEXTS), *model.score(DIALOGUE, TEXTS)]
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(reward, 4) for reward in found}) == 12
    stream = model.score_all([("one apple", TEXTS[0]), (DIALOGUE, TEXTS[1])])
    assert [score.reward for score in stream] == pytest.approx([expected[0], expected[7]], abs=1e-5)


def test_the_probability_is_the_sigmoid_of_the_margin() -> None:
    found = compare(3.0, 2.0)
    assert found.margin == 1.0 and found.probability == pytest.approx(0.7310585786)
    assert compare(2.0, 3.0).probability == pytest.approx(1 - 0.7310585786)
    assert compare(0.0, 0.0).probability == 0.5
    assert compare(-5_000.0, 5_000.0).probability == 0.0 and compare(5_000.0, -5_000.0).probability == 1.0


def test_compare_and_best_of_rest_on_the_scores(model: RewardModel) -> None:
    rewards = model.score("one apple", TEXTS)
    found = model.compare("one apple", TEXTS[0], TEXTS[1])
    assert found.margin == pytest.approx(rewards[0] - rewards[1], abs=1e-5)
    assert found.probability == pytest.approx(1 / (1 + math.exp(rewards[1] - rewards[0])), abs=1e-5)
    best = model.best_of("one apple", TEXTS)
    assert best.rewards == rewards and best.index == rewards.index(max(rewards))
    assert best.response == TEXTS[best.index]


def test_of_equally_good_responses_the_first_is_the_best() -> None:
    assert best_of(["a", "b", "c"], [0.5, 2.0, 2.0]).index == 1


def test_a_cut_response_is_a_warning_and_a_flag_of_the_stream(checkpoint: Path) -> None:
    short = RewardModel.load(checkpoint, device="cpu", max_length=40)
    with pytest.warns(TruncatedResponse, match=r"responses \[1\] are longer than the 40 tokens"):
        short.score("one", ["two", "two pears please " * 30])
    stream = short.score_all([("one", "two"), ("one", "two pears please " * 30)])
    assert [(score.truncated, score.num_tokens == 40) for score in stream] == [(False, False), (True, True)]


def test_max_length_is_what_is_given_else_as_trained_else_the_context(checkpoint: Path, tmp_path: Path) -> None:
    ours = shutil.copytree(checkpoint, tmp_path / "ours")
    (ours / TRAINING_RECORD).write_text(json.dumps({"max_length": 77}))
    assert RewardModel.load(ours, device="cpu").max_length == 77
    assert RewardModel.load(ours, device="cpu", max_length=50).max_length == 50
    assert RewardModel.load(str(checkpoint), device="cpu").max_length == 512
    (ours / TRAINING_RECORD).write_text("{")
    with pytest.raises(ModelError, match=r"MODEL_001.*rm_assets.json of .* is damaged"):
        RewardModel.load(ours, device="cpu")
    assert TRAINING_RECORD == TRAINING_FILE


@pytest.mark.parametrize(
    ("prompt", "responses", "says"),
    [
        ("  ", ["a"], "does not end with a user's message"),
        (DIALOGUE[:3], ["a"], "does not end with a user's message"),
        ([], ["a"], "neither a text nor a list of messages"),
        ([{"role": "tool", "content": "a"}], ["a"], "role 'tool'"),
        (None, ["a"], "neither a text nor a list of messages"),
        ("a", "text", "no list of texts"),
        ("a", [], "no list of texts"),
        ("a", ["b", None], "no list of texts"),
        ("a", ["\ud800"], "half a surrogate pair"),
        ("\ud800", ["a"], "half a surrogate pair"),
    ],
)
def test_what_is_no_prompt_or_no_response_is_data_003(
    model: RewardModel, prompt: Any, responses: Any, says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        model.score(prompt, responses)
    assert caught.value.code == "DATA_003"


def test_a_prompt_that_leaves_no_room_is_model_005(model: RewardModel) -> None:
    with pytest.raises(ModelError, match="MODEL_005"):
        model.score("two pears please " * 200, ["a", "b"])


@pytest.mark.parametrize(
    ("name", "revision", "says"),
    [
        ("./nowhere", None, "does not exist"),
        (Path("nowhere"), None, "does not exist"),
        ("org/nothing", None, "Hub cannot be reached"),  # the tests are offline
        ("three/part/name", None, "names no checkpoint"),
        ("./nowhere", "main", "at revision main"),
    ],
)
def test_what_is_no_checkpoint_is_model_001(name: str | Path, revision: str | None, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        RewardModel.load(name, revision=revision, device="cpu")
    assert caught.value.code == "MODEL_001"


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, rm_assets.serving; "
        "print([m for m in ('torch', 'transformers', 'fastapi', 'uvicorn', 'dagster') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
