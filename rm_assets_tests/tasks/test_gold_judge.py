"""gold_rewards of a judge, through the task and a real server: each question is asked once, in both orders."""

from collections.abc import Iterator
from typing import Any

import pytest

from rm_assets.core.checks.data import DATA_CHECKS
from rm_assets.core.checks.finding import Finding
from rm_assets.core.errors import ServerError
from rm_assets.core.gold.judging import INSTRUCTIONS
from rm_assets.core.recipe import ChecksSection, Recipe
from rm_assets.core.smoke import smoke_recipe
from rm_assets.resources.compute import Made
from rm_assets_tests.fake_server import FakeServer, Json, Reply, completion, judge, responses_in, serving
from rm_assets_tests.tasks.conftest import TOY, Bench

KEY = "sk-very-secret"
EXECUTION = {**TOY["execution"], "shard_prompts": 2, "server_concurrency": 2, "server_retries": 0}
BEATS = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock"), ("gold", "rock"), ("gold", "paper"), ("gold", "scissors")}  # fmt: skip
ANSWERS = {
    "a": ["rock", "paper", "scissors"],  # a cycle
    "b": ["gold", "rock", "gold"],
    "c": ["paper", "rock"],
    "d": ["rock"],
    "e": ["paper", "paper"],
    "f": ["gold", "scissors", "paper", "rock"],
}
REWARDS = {
    "a": [0.5, 0.5, 0.5],
    "b": [0.75, 0.0, 0.75],  # a win and a tie with its like, of two others
    "c": [1.0, 0.0],
    "d": [0.5],
    "e": [0.5, 0.5],
    "f": [1.0, 0.333333333, 0.333333333, 0.333333333],
}
NUM_PAIRS = 3 + 1 + 1 + 0 + 0 + 6


def by_rule(first: str, second: str) -> str:
    return "[[1]]" if (first, second) in BEATS else "[[2]]" if (second, first) in BEATS else "[[tie]]"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        running.answer = judge(by_rule)
        yield running


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Six prompts with their answers, made once; the revisions of the tests' judges tell their results apart."""
    bench = Bench(tmp_path_factory.mktemp("judge"))
    bench.write_toy(0, 0)
    write_answers(bench, ANSWERS)
    bench.make(bench.recipe(), "prompts", "sampled_responses")
    return bench


def write_answers(bench: Bench, answers: dict[str, list[str]]) -> None:
    bench.write("prompts.jsonl", [{"prompt": p} for p in answers if p != "f"])
    bench.write("test.jsonl", [{"prompt": "f"}])
    bench.write("answers.jsonl", [{"prompt": p, "response": r} for p, group in answers.items() for r in group])


def judged_by(bench: Bench, server: FakeServer, revision: str, **changes: Any) -> Recipe:
    gold = {"kind": "judge", "base_url": server.base_url, "model": "toy", "revision": revision, **changes}
    return bench.recipe(gold=gold, execution=EXECUTION)


def rewards(bench: Bench, made: Made) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in bench.rows(made):
        found.setdefault(row.prompt, []).append(row.gold_reward)
    return found


def check(name: str, made: Made) -> Finding:
    return DATA_CHECKS[name].find(made.manifest.counts, getattr(ChecksSection(), name).limit)


def questions(posts: list[Json]) -> list[tuple[str, str]]:
    return sorted(responses_in(post) for post in posts)


def test_rewards_are_shares_of_wins_and_the_key_is_nowhere_kept(
    answered: Bench, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)
    server.key = KEY
    made = answered.make(judged_by(answered, server, "keyed", api_key_env="TOY_KEY"), "gold_rewards")
    assert rewards(answered, made) == REWARDS
    assert made.manifest.counts == {
        "gold_rewards": 15, "truncated": 0, "judged_pairs": NUM_PAIRS, "unreadable_judgements": 0, "refused_judgements": 0,
        "unreadable_pairs": 0, "orders_disagree": 0,
    }  # fmt: skip
    assert made.manifest.work == {"judgements": 2 * NUM_PAIRS} and len(server.posts) == 2 * NUM_PAIRS
    pairs = questions(server.posts)
    assert pairs == sorted((b, a) for a, b in pairs) and all(a != b for a, b in pairs)
    body = server.posts[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["n"]) == ("toy", 0, 64, 1)
    facts = made.manifest.facts
    assert facts["share_orders_disagree"] == facts["share_unreadable"] == 0 and facts["share_first_preferred"] == 0.5
    assert (facts["server"], facts["server_checkpoint"]) == (server.base_url, "org/toy-1b")
    assert check("judge_agrees_with_itself", made).passed and check("judge_is_readable", made).passed
    assert set(server.authorizations) == {f"Bearer {KEY}"}
    kept = [f for f in answered.folder.rglob("*") if f.is_file()]
    assert len(kept) > 5 and [f for f in kept if KEY.encode() in f.read_bytes()] == []
    assert not [line for line in answered.said if KEY in line]


def test_a_judge_that_prefers_what_stands_first_gives_ties_and_is_found_out(
    answered: Bench, server: FakeServer
) -> None:
    server.answer = judge(lambda *_: "[[1]]")
    made = answered.make(judged_by(answered, server, "biased"), "gold_rewards")
    assert all(set(found) == {0.5} for found in rewards(answered, made).values())
    assert made.manifest.facts["share_first_preferred"] == made.manifest.facts["share_orders_disagree"] == 1.0
    found = check("judge_agrees_with_itself", made)
    assert not found.passed and f"({1:.1%})" in found.sentence and check("judge_is_readable", made).passed


def test_unreadable_answers_are_ties_and_are_read_otherwise_without_asking_again(
    answered: Bench, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chats(body: Json) -> Reply:
        first, second = responses_in(body)
        if {first, second} == {"gold", "rock"}:
            return Reply(completion(f"Winner: {'A' if first == 'gold' else 'B'}"))
        cut = "length" if {first, second} == {"gold", "paper"} else "stop"
        return Reply(completion(by_rule(first, second), finish_reason=cut))

    server.answer, server.key = chats, KEY
    monkeypatch.setenv("TOY_KEY", KEY)
    recipe = judged_by(answered, server, "chatty", api_key_env="TOY_KEY")
    made = answered.make(recipe, "gold_rewards")
    monkeypatch.delenv("TOY_KEY")
    assert rewards(answered, made) == {**REWARDS, "b": [0.5, 0.5, 0.5], "f": [0.666666667, 0.333333333, 0.5, 0.5]}
    counts = made.manifest.counts
    assert (counts["unreadable_judgements"], counts["unreadable_pairs"], counts["orders_disagree"]) == (6, 3, 0)
    assert not check("judge_is_readable", made).passed and check("judge_agrees_with_itself", made).passed
    num_asked = len(server.posts)
    words = ["Winner: A", "Winner: B", "neither"]
    again = answered.make(judged_by(answered, server, "chatty", verdicts=words, api_key_env="TOY_KEY"), "gold_rewards")
    assert rewards(answered, again)["b"] == [0.75, 0.0, 0.75] and rewards(answered, again)["c"] == [0.5, 0.5]
    assert again.manifest.work == {"judgements": 0} and len(server.posts) == num_asked


def test_a_refused_question_makes_its_pair_a_tie_and_is_not_asked_again(
    answered: Bench, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the key kept, which this server echoes."""
    monkeypatch.setenv("TOY_KEY", KEY)

    def too_long(body: Json) -> Reply:
        first, second = responses_in(body)
        if (first, second) == ("gold", "rock"):
            return Reply("longer than the context", status=400)
        return Reply(completion(f"{KEY} {by_rule(first, second)}"))

    server.answer = too_long
    made = answered.make(judged_by(answered, server, "short", api_key_env="TOY_KEY"), "gold_rewards")
    assert rewards(answered, made)["b"] == [0.5, 0.5, 0.5]
    counts = made.manifest.counts
    assert counts["refused_judgements"] == counts["unreadable_judgements"] == counts["unreadable_pairs"] == 2
    assert not check("judge_is_readable", made).passed  # 2 of 22
    kept = [f for f in answered.home.rglob("*") if f.is_file()]
    assert [f for f in kept if KEY.encode() in f.read_bytes()] == []
    num_asked = len(server.posts)
    changed = judged_by(answered, server, "short", api_key_env="TOY_KEY", verdicts=["a", "b", "c"])
    assert answered.make(changed, "gold_rewards").manifest.work == {"judgements": 0} and len(server.posts) == num_asked


def test_a_failure_keeps_the_judgements_before_it_and_the_next_run_asks_exactly_the_rest(
    answered: Bench, server: FakeServer
) -> None:
    answers: list[Json] = []

    def fails_at_the_tenth(body: Json) -> Reply:
        if len(answers) == 9:
            return Reply("out of cards", status=500)
        answers.append(body)
        return judge(by_rule)(body)

    server.answer = fails_at_the_tenth
    recipe = judged_by(answered, server, "broken")
    with pytest.raises(ServerError, match="out of cards") as caught:
        answered.make(recipe, "gold_rewards")
    assert caught.value.code == "SERVER_001"
    server.posts, server.answer = [], judge(by_rule)
    made = answered.make(recipe, "gold_rewards")
    # Of the nine that were answered, one may still have been under way when the tenth failed.
    assert made.manifest.work == {"judgements": len(server.posts)} and len(server.posts) in (13, 14)
    assert {str(post) for post in server.posts} | {str(post) for post in answers} == every_question(answered, server)
    assert rewards(answered, made) == REWARDS


def every_question(bench: Bench, server: FakeServer) -> set[str]:
    """What another revision of the judge is asked."""
    server.posts = []
    bench.make(judged_by(bench, server, "asks all"), "gold_rewards")
    return {str(post) for post in server.posts}


def test_a_new_prompt_asks_only_its_own_and_another_judge_asks_all(tmp_path: Any, server: FakeServer) -> None:
    bench = Bench(tmp_path)
    bench.write_toy(0, 0)
    write_answers(bench, {"c": ["paper", "rock"], "f": ["gold", "rock"]})

    def asked(revision: str = "grows", **changes: Any) -> list[tuple[str, str]]:
        server.posts = []
        recipe = judged_by(bench, server, revision, **changes)
        made = bench.make(recipe, "prompts", "sampled_responses", "gold_rewards")
        assert made.was_there or made.manifest.work == {"judgements": len(server.posts)}
        return questions(server.posts)

    both = [("gold", "rock"), ("paper", "rock"), ("rock", "gold"), ("rock", "paper")]
    assert asked() == both
    write_answers(bench, {"c": ["paper", "rock"], "new": ["paper", "scissors"], "f": ["gold", "rock"]})
    assert asked() == [("paper", "scissors"), ("scissors", "paper")]
    paths = len(server.paths)
    write_answers(bench, {"c": ["paper", "rock"], "f": ["gold", "rock"]})
    assert asked() == [] and len(server.paths) == paths
    with serving() as elsewhere:
        assert bench.make(judged_by(bench, elsewhere, "grows"), "gold_rewards").was_there
    assert asked(instructions=INSTRUCTIONS + "\nThink well.") == both


def test_a_judge_is_one_of_several_scorers(answered: Bench, server: FakeServer) -> None:
    part = {"kind": "judge", "base_url": server.base_url, "model": "toy", "revision": "part"}
    answered.write(
        "labels.jsonl", [{"prompt": p, "response": r, "gold_reward": len(r)} for p in ANSWERS for r in set(ANSWERS[p])]
    )
    lengths = {"kind": "recorded", "source": {"kind": "files", "files": ["labels.jsonl"]}, "response_field": "response"}
    scorers = [{"name": "judge", "gold": part, "weight": 10}, {"name": "length", "gold": lengths}]
    gold = {"kind": "combined", "scorers": scorers, "combine": "weighted", "standardize": False}
    made = answered.make(answered.recipe(gold=gold, execution=EXECUTION), "gold_rewards")
    for r in answered.rows(made):
        assert r.components == pytest.approx({"judge": REWARDS[r.prompt][r.sample_index], "length": len(r.response)})
    assert rewards(answered, made)["c"] == pytest.approx([15 / 11, 4 / 11])
    assert made.manifest.work == {"judgements by judge": 2 * NUM_PAIRS}
    counts, facts = made.manifest.counts, made.manifest.facts
    assert (
        counts["judge_judged_pairs"] == NUM_PAIRS
        and counts["length_recorded_rows"] == 13
        and "over_length" not in counts
    )
    assert facts["judge_share_orders_disagree"] == 0.0 and -1 <= facts["spearman_judge_length"] <= 1
    # Of 14 pairs: gold beats the longer scissors and the longer paper of prompt f.
    assert facts["share_of_pairs_scorers_disagree_on"] == round(2 / 14, 4)
    assert check("judge_agrees_with_itself", made).passed


def test_the_smoke_form_asks_the_same_judge(answered: Bench, server: FakeServer) -> None:
    recipe = smoke_recipe(judged_by(answered, server, "smoke"))
    assert recipe.gold == judged_by(answered, server, "smoke").gold
    assert Recipe.model_validate(recipe.model_dump()) == recipe
