"""Names by content: pinned values, because a changed digest would orphan every stored result."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_assets.core.digests import asset_digest, digest, pair_id, prompt_id, response_id, sample_seed, unit_interval


def test_digest_is_the_start_of_the_sha256_of_canonical_json() -> None:
    # printf '{"a":1,"b":"é"}' | sha256sum
    assert digest({"b": "é", "a": 1}) == "09ad9fd2fb648cb2f62141215828ea00"
    assert digest({"a": 1, "b": "é"}) == digest({"b": "é", "a": 1})


def test_digest_tells_types_apart() -> None:
    values = [1, "1", True, 1.5, None, [], {}, [1], "", [None], "None"]
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_digest_refuses_what_is_not_plain_data(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        digest(value)


def test_digest_takes_half_of_a_surrogate_pair() -> None:
    assert len(digest("\ud800")) == 32


def test_prompt_id_depends_on_prompt_and_system_message() -> None:
    # printf '[null,"Hi"]' | sha256sum
    assert prompt_id("Hi", None) == "71778effb105ef22"
    assert len({prompt_id("Hi", None), prompt_id("Hi", ""), prompt_id("", "Hi"), prompt_id("hi", None)}) == 4


def test_equal_responses_at_two_indices_have_two_ids() -> None:
    assert response_id("p", 0, "x") != response_id("p", 1, "x")
    assert response_id("p", 0, "x") == response_id("p", 0, "x")


def test_pair_id_depends_on_the_order() -> None:
    assert pair_id("a", "b") != pair_id("b", "a")


def test_asset_digest_changes_with_each_of_its_parts() -> None:
    base = asset_digest("prompts", 1, {"a": 1}, {"x": "1"})
    assert base == asset_digest("prompts", 1, {"a": 1}, {"x": "1"})
    others = {
        asset_digest("pairs", 1, {"a": 1}, {"x": "1"}),
        asset_digest("prompts", 2, {"a": 1}, {"x": "1"}),
        asset_digest("prompts", 1, {"a": 2}, {"x": "1"}),
        asset_digest("prompts", 1, {"a": 1}, {"x": "2"}),
        asset_digest("prompts", 1, {"a": 1}, {}),
    }
    assert len(others - {base}) == 5


@given(st.integers(0, 2**40), st.text(), st.integers(0, 100))
def test_sample_seed_has_63_bits_and_follows_from_its_parts(seed: int, of_prompt: str, index: int) -> None:
    value = sample_seed(seed, of_prompt, index)
    assert 0 <= value < 2**63
    assert value == sample_seed(seed, of_prompt, index)
    assert value != sample_seed(seed, of_prompt, index + 1)


def test_unit_interval_is_uniform_enough_to_assign_splits() -> None:
    values = [unit_interval(0, i) for i in range(2000)]
    assert all(0 <= value < 1 for value in values)
    # 2,000 draws: the standard error of the share below 0.3 is 0.010
    assert abs(sum(value < 0.3 for value in values) / 2000 - 0.3) < 0.04
