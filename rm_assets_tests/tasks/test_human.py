"""gold.kind human: gold_rewards waits for people, builds with what is there where it may, and again with each ranking."""

import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_assets.core.checks.data import order_of_rewards
from rm_assets.core.digests import prompt_id
from rm_assets.core.errors import DataError
from rm_assets.core.gold.rankings import Action, Entry, parse_ranking, text_id
from rm_assets.core.recipe import HumanGold, Recipe
from rm_assets.core.records import GoldReward, Response
from rm_assets.resources.compute import Made
from rm_assets.storage.rankings import append_entry
from rm_assets.tasks.gold.human import label
from rm_assets_tests.tasks.conftest import ASSETS, Bench

TEXTS = {"a": "first", "b": "second", "c": "third"}
PROMPTS = [*(f"what is {n} and 1" for n in range(3)), "is 0 even"]


@pytest.fixture
def ranked(bench: Bench) -> Bench:
    """Three training prompts and a test prompt with the three TEXTS each; the third of a prompt stands twice."""
    bench.write_toy(3, 1)
    bench.write("answers.jsonl", [{"prompt": p, "response": t} for p in PROMPTS for t in (*TEXTS.values(), "third")])
    return bench


def recipe(bench: Bench, pending: str = "wait") -> Recipe:
    return bench.recipe(gold={"kind": "human", "rankings": "ranked.jsonl", "pending": pending})


def rank(bench: Bench, prompt: str, typed: str, *, by: str | None = None, action: Action = "rank") -> Path:
    """One line as `rm-assets rank` writes it, with TEXTS under their letters."""
    of_prompt, file = prompt_id(prompt, None), bench.folder / "recipes" / "ranked.jsonl"
    letters = parse_ranking(typed, list(TEXTS)) if action == "rank" else ()
    ranking = tuple(tuple(text_id(of_prompt, TEXTS[letter]) for letter in group) for group in letters)
    append_entry(file, Entry(prompt_id=of_prompt, action=action, ranking=ranking, annotator=by, at="t"))
    return file


def golds(bench: Bench, made: Made) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in bench.rows(made):
        found.setdefault(row.prompt, []).append(row.gold_reward)
    return found


def test_gold_waits_says_how_many_are_pending_and_leaves_no_table(ranked: Bench) -> None:
    ranked.make(recipe(ranked), *ASSETS[:2])
    for num_ranked in range(3):
        with pytest.raises(DataError) as waiting:
            ranked.make(recipe(ranked), "gold_rewards")
        assert waiting.value.code == "DATA_013"
        assert waiting.value.what == f"{4 - num_ranked} of 4 prompts wait for a person ({num_ranked} ranked, 0 skipped)"
        assert "rm-assets rank toy" in waiting.value.fix
        rank(ranked, PROMPTS[num_ranked], "a > b > c")
    assert not list(ranked.home.glob("gold_rewards/*/*.parquet"))


def test_each_ranking_rebuilds_gold_and_what_follows_alone(ranked: Bench) -> None:
    for prompt in PROMPTS:
        rank(ranked, prompt, "b > a = c")
    first = ranked.make(recipe(ranked), *ASSETS[:4])
    assert golds(ranked, ranked.make(recipe(ranked), "gold_rewards")) == {p: [-2.5, -1, -2.5, -2.5] for p in PROMPTS}
    assert first.manifest.counts["pairs"] == 8  # b against a and c; the third text stands twice, and counts once
    num_before = ranked.num_tasks_started()
    again = ranked.make(recipe(ranked), *ASSETS[:4])
    assert again.was_there and ranked.num_tasks_started() == num_before
    rank(ranked, PROMPTS[0], "c > b > a")
    made = [ranked.make(recipe(ranked), asset) for asset in ASSETS[:4]]
    assert [m.was_there for m in made] == [True, True, False, False]
    assert golds(ranked, made[2])[PROMPTS[0]] == [-3, -2, -1, -1]
    assert ranked.num_tasks_started() == num_before + 2


def test_what_is_ranked_is_built_and_the_rest_is_counted_where_the_recipe_drops_it(ranked: Bench) -> None:
    responses = ranked.make(recipe(ranked, "drop"), *ASSETS[:2])
    with pytest.raises(DataError, match=r"DATA_013.*4 of 4 prompts wait"):
        ranked.make(recipe(ranked, "drop"), "gold_rewards")
    rank(ranked, PROMPTS[0], "a > b > c")
    rank(ranked, PROMPTS[1], "", action="skip")
    rank(ranked, PROMPTS[3], "a = b > c")
    rank(ranked, "a prompt of before", "a > b > c")
    made = ranked.make(recipe(ranked, "drop"), "gold_rewards")
    assert golds(ranked, made) == {PROMPTS[0]: [-1, -2, -3, -3], PROMPTS[3]: [-1.5, -1.5, -3, -3]}
    counts = made.manifest.counts
    assert counts == {
        "gold_rewards": 8, "truncated": 0, "ranked_prompts": 2, "pending_prompts": 1, "skipped_prompts": 1,
        "one_text_prompts": 0, "responses_pending": 4, "responses_skipped": 4, "stale_rankings": 0, "rankings_of_unknown_prompts": 1,
    }  # fmt: skip
    assert order_of_rewards(ranked.rows(responses), ranked.rows(made), counts).passed
    assert not order_of_rewards(ranked.rows(responses), ranked.rows(made), counts | {"responses_skipped": 0}).passed
    assert ranked.make(recipe(ranked, "drop"), "implicit_pairs").manifest.counts["train_pairs"] == 3


def test_a_skipped_prompt_and_one_of_equal_texts_keep_nobody_waiting(ranked: Bench) -> None:
    answers = [{"prompt": p, "response": t} for p in PROMPTS[1:] for t in TEXTS.values()]
    ranked.write("answers.jsonl", [*answers, *[{"prompt": PROMPTS[0], "response": "same"}] * 2])
    for prompt in (PROMPTS[1], PROMPTS[3]):
        rank(ranked, prompt, "a > b > c")
    rank(ranked, PROMPTS[2], "", action="skip")
    made = ranked.make(recipe(ranked), *ASSETS[:3])
    assert golds(ranked, made) == {PROMPTS[0]: [-1, -1], PROMPTS[1]: [-1, -2, -3], PROMPTS[3]: [-1, -2, -3]}
    counts = made.manifest.counts
    assert [counts[f"{state}_prompts"] for state in ("ranked", "pending", "skipped", "one_text")] == [2, 0, 1, 1]


def test_two_annotators_give_the_mean_rank_and_their_agreement(ranked: Bench) -> None:
    for prompt in PROMPTS:
        rank(ranked, prompt, "b > a = c")
    rank(ranked, PROMPTS[0], "a > b > c", by="anna")
    made = ranked.make(recipe(ranked), *ASSETS[:3])
    assert golds(ranked, made)[PROMPTS[0]] == [-1.75, -1.5, -2.75, -2.75]
    # a b: opposite; b c: same; a c: tied by one of them
    facts = made.manifest.facts
    assert (facts["annotator_agreement"], facts["annotator_agreement_n"]) == (0.5, 2)


def test_a_ranking_of_responses_that_have_changed_since_is_pending_again(ranked: Bench) -> None:
    for prompt in PROMPTS:
        rank(ranked, prompt, "a > b > c")
    ranked.make(recipe(ranked), *ASSETS[:3])
    rows = [{"prompt": p, "response": t} for p in PROMPTS for t in ("third", "second")]
    ranked.write("answers.jsonl", [*rows, {"prompt": PROMPTS[0], "response": "new"}])
    with pytest.raises(DataError) as waiting:
        ranked.make(recipe(ranked), *ASSETS[:3])
    assert waiting.value.what == "1 of 4 prompts wait for a person (3 ranked, 0 skipped)"
    assert waiting.value.why == "rankings of responses that have changed since: 1"
    made = ranked.make(recipe(ranked, "drop"), "gold_rewards")
    # in another order, and one less: the rankings of the others hold
    assert golds(ranked, made) == {p: [-2, -1] for p in PROMPTS[1:]}


def test_a_damaged_file_of_rankings_is_refused_by_line_and_leaves_no_table(ranked: Bench) -> None:
    file = rank(ranked, PROMPTS[0], "a > b > c")
    file.write_text(file.read_text() + '{"prompt_id": "p", "act')
    with pytest.raises(DataError, match=r"DATA_002.*ranked.jsonl, line 2 is not JSON"):
        ranked.make(recipe(ranked, "drop"), *ASSETS[:3])
    assert not list(ranked.home.glob("gold_rewards/*/*.parquet"))


@given(
    st.dictionaries(st.sampled_from("pqrs"), st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1),
    st.lists(st.tuples(st.sampled_from("pqrst"), st.permutations("abc"), st.sampled_from(["x", None]), st.sampled_from(["rank", "skip", "undo"]))),
)  # fmt: skip
def test_every_response_has_a_reward_or_is_counted(
    prompts: dict[str, list[str]], said: list[tuple[str, list[str], str | None, Action]]
) -> None:
    responses = [response(p, index, text) for p, texts in prompts.items() for index, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        section = HumanGold(kind="human", rankings=f"{folder}/ranked.jsonl", pending="drop")
        for p, order, by, action in said:
            ranking = tuple((text_id(p, text),) for text in order[:2]) if action == "rank" else ()
            append_entry(
                Path(section.rankings), Entry(prompt_id=p, action=action, ranking=ranking, annotator=by, at="t")
            )
        labels = label(SimpleNamespace(recipe=SimpleNamespace(name="mine")), section, {}, responses)  # type: ignore[arg-type]
        account, rewards = labels.account, list[GoldReward]()
        with suppress(DataError):  # as nobody ranked anything
            rewards.extend(labels.rewards)
            assert account["ranked_prompts"]
    assert len(rewards) + account["responses_pending"] + account["responses_skipped"] == len(responses)
    assert sum(account[f"{s}_prompts"] for s in ("ranked", "pending", "skipped", "one_text")) == len(prompts)
    assert not rewards or order_of_rewards(responses, rewards, account).passed


def response(of_prompt: str, index: int, text: str) -> Response:
    return Response(
        prompt_id=of_prompt, prompt=of_prompt, system=None, reference=None, source="all", split="train", external_id=None,
        row=0, response_id=f"{of_prompt}{index}", sample_index=index, response=text, model="m", seed=None,
        num_tokens=None, finished=None,
    )  # fmt: skip
