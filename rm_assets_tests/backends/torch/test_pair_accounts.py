"""The training's account of its pairs against token lists that are counted here, over any lengths and limits."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_assets.backends.pair_store import encode_pairs
from rm_assets.backends.rendering import Renderer
from rm_assets.backends.tokenization import load_renderer
from rm_assets.core.errors import DataError
from rm_assets.core.recipe import ModelRef, TrainingSection
from rm_assets.core.records import Pair, conversation
from rm_assets_tests.fakes import ListReporter, save_causal, save_encoder

WORDS = ["apple", "Apple", "pears", "two", " ", "Ärger", "<|end|>", "good"]
"""The encoder's tokenizer writes small letters and counts no white space, so different texts can be the same tokens."""


@pytest.fixture(scope="module", params=["decoder", "encoder"])
def renderer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("base")
    return load_renderer(
        ModelRef(path=str(save_causal(folder) if request.param == "decoder" else save_encoder(folder)))
    )


responses = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
drawn_pairs = st.lists(st.tuples(st.integers(0, 4), responses, responses), max_size=25)


def pair(index: int, prompt: int, chosen: str, rejected: str) -> Pair:
    return Pair(
        pair_id=f"pair{index}", prompt_id=f"p{prompt}", source="s", split="train",
        chosen=conversation("make " * prompt + "pie", None, chosen), rejected=conversation("make " * prompt + "pie", None, rejected),
        chosen_id=f"c{index}", rejected_id=f"r{index}", chosen_gold_reward=1.0, rejected_gold_reward=0.0, gold_margin=1.0,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(drawn_pairs, st.integers(6, 60), st.one_of(st.none(), st.integers(1, 20)))
def test_pairs_in_are_the_trained_and_each_reason_for_loss(
    renderer: Renderer, drawn: list[tuple[int, str, str]], max_length: int, most: int | None
) -> None:
    pairs = [pair(index, *each) for index, each in enumerate(drawn)]
    training = TrainingSection.model_validate(
        {"base": {"path": "unused"}, "learning_rate": 0.1, "max_length": max_length, "max_train_pairs": most}
    )

    @cache
    def tokens(prompt: int, text: str) -> tuple[int, ...]:
        (encoded,) = renderer.encode([conversation("make " * prompt + "pie", None, text)])
        return tuple(encoded.ids)

    sides = [(tokens(prompt, chosen), tokens(prompt, rejected)) for prompt, chosen, rejected in drawn]
    num_over = sum(max(map(len, both)) > max_length for both in sides)
    num_identical = sum(both[0] == both[1] and len(both[0]) <= max_length for both in sides)
    usable = {
        p.pair_id
        for p, both in zip(pairs, sides, strict=True)
        if both[0] != both[1] and max(map(len, both)) <= max_length
    }
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.tokens"
        if not usable:
            with pytest.raises(DataError, match=f"None of {len(pairs)} training pairs is left"):
                encode_pairs(pairs, renderer, training, 0, file, ListReporter())
            return
        store = encode_pairs(pairs, renderer, training, 0, file, ListReporter())
        num_trained = min(len(usable), most or len(usable))
        assert store.counts == {
            "in": len(pairs), "trained": num_trained, "over_length": num_over,
            "identical_after_tokenization": num_identical, "set_aside": len(usable) - num_trained,
        }  # fmt: skip
        assert store.counts["in"] == sum(number for name, number in store.counts.items() if name != "in")
        trained = list(store.pair_ids())
        assert len(set(trained)) == len(trained) == len(store) == num_trained and set(trained) <= usable
