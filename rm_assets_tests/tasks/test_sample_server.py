"""sampled_responses from a server, through the task: what is asked once, what is kept, and what ends the work at once."""

from collections.abc import Iterator
from typing import Any

import pytest

from rm_assets.core.digests import sample_seed
from rm_assets.core.errors import ServerError
from rm_assets.core.recipe import Recipe
from rm_assets_tests.fake_server import FakeServer, Json, Reply, echo, serving
from rm_assets_tests.tasks.conftest import TOY, Bench

KEY = "sk-very-secret"
EXECUTION = {**TOY["execution"], "shard_prompts": 2, "server_concurrency": 2}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def with_prompts(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Six prompts, made once; the tests' recipes tell their results apart."""
    bench = Bench(tmp_path_factory.mktemp("server"))
    bench.write_toy(4, 2)
    bench.make(bench.recipe(), "prompts")
    return bench


def recipe(bench: Bench, server: FakeServer, revision: str, **changes: Any) -> Recipe:
    sampling = {"kind": "server", "base_url": server.base_url, "model": "toy", "revision": revision, **changes}
    return bench.recipe(sampling=sampling, execution=EXECUTION)


def refused(bench: Bench, of_recipe: Recipe) -> ServerError:
    with pytest.raises(ServerError) as caught:
        bench.make(of_recipe, "sampled_responses")
    return caught.value


def contents(posts: list[Json]) -> list[tuple[str, int]]:
    return sorted((post["messages"][-1]["content"], post["seed"]) for post in posts)


def test_responses_come_from_the_server_and_the_key_is_nowhere_kept(
    with_prompts: Bench, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = with_prompts
    monkeypatch.setenv("TOY_KEY", KEY)
    server.key = KEY
    made = bench.make(
        recipe(bench, server, "keyed", api_key_env="TOY_KEY", num_responses=3, num_test_responses=2),
        "sampled_responses",
    )
    rows = bench.rows(made)
    assert [r.sample_index for r in rows] == [0, 1, 2] * 4 + [0, 1] * 2
    assert [r.seed for r in rows] == [sample_seed(0, r.prompt_id, r.sample_index) for r in rows]
    assert [r.response for r in rows] == [f"{r.prompt} / {r.seed >> 32}" for r in rows]
    assert {(r.model, r.num_tokens, r.finished) for r in rows} == {("toy", 3, True)}
    assert made.manifest.work == {"responses sampled": 16} and len(server.posts) == 16
    assert made.manifest.facts["server"] == server.base_url
    assert made.manifest.facts["server_checkpoint"] == "org/toy-1b"
    assert set(server.authorizations) == {f"Bearer {KEY}"}
    kept = [f for f in bench.folder.rglob("*") if f.is_file()]
    assert len(kept) > 5 and [f for f in kept if KEY.encode() in f.read_bytes()] == []
    assert not [line for line in bench.said if KEY in line]


def test_the_same_model_elsewhere_is_the_same_and_a_new_revision_is_not(
    with_prompts: Bench, server: FakeServer
) -> None:
    bench = with_prompts
    first = bench.make(recipe(bench, server, "a"), "sampled_responses")
    num_posts = len(server.posts)
    with serving() as elsewhere:
        again = bench.make(recipe(bench, elsewhere, "a"), "sampled_responses")
        assert again.was_there and again.folder == first.folder and elsewhere.paths == []
    other = bench.make(recipe(bench, server, "b"), "sampled_responses")
    assert not other.was_there and len(server.posts) == 2 * num_posts


def test_a_failure_keeps_what_came_before_it_and_the_next_run_asks_only_for_the_rest(
    with_prompts: Bench, server: FakeServer
) -> None:
    bench = with_prompts

    def fails_at_the_eighth(body: Json) -> Reply:
        return echo(body) if len(server.posts) < 8 else Reply({"message": "out of cards"}, status=400)

    server.answer = fails_at_the_eighth
    of_recipe = recipe(bench, server, "broken")
    error = refused(bench, of_recipe)
    assert error.code == "SERVER_004" and "out of cards" in str(error)
    asked, server.posts, server.answer = list(server.posts), [], echo
    made = bench.make(of_recipe, "sampled_responses")
    # 12 in all, 4 a shard: of the seven that were answered, at most one was still under way when the eighth failed.
    assert made.manifest.work == {"responses sampled": len(server.posts)} and len(server.posts) in (5, 6)
    whole = [(r.prompt, r.seed >> 32) for r in bench.rows(made)]
    assert set(contents(server.posts)) | set(contents(asked[:7])) == set(whole)
    assert [r.response for r in bench.rows(made)] == [f"{prompt} / {seed}" for prompt, seed in whole]


def test_a_server_is_not_asked_for_what_is_there(with_prompts: Bench, server: FakeServer) -> None:
    bench = with_prompts
    bench.make(recipe(bench, server, "gone", num_responses=2), "sampled_responses")
    asked = list(server.paths)
    made = bench.make(recipe(bench, server, "gone", num_responses=1), "sampled_responses")
    assert made.manifest.work == {"responses sampled": 0} and made.manifest.counts["responses"] == 6
    assert server.paths == asked


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model": "toyy"}, "SERVER_003", "did you mean 'toy'?"),
        ({"api_key_env": "TOY_KEY"}, "SERVER_002", "refuses the API key"),
        ({"api_key_env": "NO_SUCH_KEY"}, "SERVER_002", "NO_SUCH_KEY is not set"),
    ],
)
def test_what_is_wrong_with_the_server_is_told_before_anything_is_sampled(
    with_prompts: Bench, server: FakeServer, changes: Json, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)
    server.key = "another" if "api_key_env" in changes else None
    error = refused(with_prompts, recipe(with_prompts, server, "wrong", **changes))
    assert error.code == code and words in str(error) and KEY not in str(error)
    assert server.posts == []
