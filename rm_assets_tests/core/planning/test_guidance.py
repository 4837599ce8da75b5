"""The planner's warnings and prices."""

import pytest

from rm_assets.core.errors import PlanError
from rm_assets.core.planning import guidance
from rm_assets.core.planning.prices import LIST_PRICES, parse_prices


@pytest.mark.parametrize(("num_pairs", "expected"), [(999, ["few_pairs"]), (1_000, ["few_comparisons"]), (2_000, [])])
def test_too_few_pairs_give_the_stronger_warning(num_pairs: int, expected: list[str]) -> None:
    assert [warning.name for warning in guidance.pair_warnings(num_pairs)] == expected


@pytest.mark.parametrize(
    ("reward_epochs", "rl_epochs", "expected"),
    [
        (30, 10, []), (20, 20, []), (31, 10, ["reward_epochs"]), (19, 15, ["reward_epochs"]),
        (25, 21, ["rl_epochs"]), (25, 5, ["few_rl_epochs"]),
    ],
)  # fmt: skip
def test_epochs_outside_the_services_guidance_warn(reward_epochs: float, rl_epochs: float, expected: list[str]) -> None:
    found = guidance.service_warnings(
        reward_epochs=reward_epochs, rl_epochs=rl_epochs, model="llama-2-7b", reward_steps=1_410
    )
    assert [warning.name for warning in found] == expected


def test_steps_outside_a_models_guidance_warn() -> None:
    found = guidance.service_warnings(reward_epochs=25, rl_epochs=None, model="llama-2-13b", reward_steps=1_410)
    assert [warning.name for warning in found] == ["service_steps"]


def test_the_services_table_is_kept_as_data() -> None:
    rows = {
        name: (e.steps, e.learning_rate_multiplier, e.kl_coefficient) for name, e in guidance.SERVICE_GUIDANCE.items()
    }
    assert rows == {
        "llama-2-7b": ((1_000, 5_000), 1.0, 0.1),
        "llama-2-13b": ((2_000, 8_000), 0.5, 0.1),
        "t5x": ((500, 2_000), 1.0, 0.05),
        "text-bison@001": ((1_000, 3_000), 0.8, 0.1),
    }


@pytest.mark.parametrize(
    ("num_parameters", "learning_rate", "expected"),
    [
        (853_504, 3e-4, []), (853_504, 1e-5, ["learning_rate_low"]), (135_000_000, 5e-5, []),
        (135_000_000, 1e-3, ["learning_rate_high"]), (4_000_000_000, 5e-6, []), (4_000_000_000, 5e-5, []),
        (4_000_000_000, 3e-4, ["learning_rate_high"]), (8_000_000_000, 1e-8, ["learning_rate_low"]), (None, 0.5, []),
    ],
)  # fmt: skip
def test_a_learning_rate_far_from_usual_warns(
    num_parameters: int | None, learning_rate: float, expected: list[str]
) -> None:
    found = guidance.training_warnings(
        num_parameters=num_parameters, learning_rate=learning_rate, num_epochs=1, warmup_steps=5
    )
    assert [warning.name for warning in found] == expected


@pytest.mark.parametrize(
    ("num_parameters", "num_epochs", "expected"),
    [(4_000_000_000, 3, []), (4_000_000_000, 4, ["many_epochs"]), (100_000_000, 4, []), (None, 4, [])],
)
def test_many_epochs_of_a_large_model_warn(num_parameters: int | None, num_epochs: float, expected: list[str]) -> None:
    found = guidance.training_warnings(
        num_parameters=num_parameters, learning_rate=1e-5, num_epochs=num_epochs, warmup_steps=None
    )
    assert [warning.name for warning in found] == expected


def test_each_warning_is_one_sentence_with_a_remedy() -> None:
    found = [
        *guidance.pair_warnings(10), *guidance.pair_warnings(1_500),
        *guidance.service_warnings(reward_epochs=1, rl_epochs=50, model="t5x", reward_steps=1),
        *guidance.service_warnings(reward_epochs=None, rl_epochs=1, model=None, reward_steps=None),
        *guidance.training_warnings(num_parameters=10**10, learning_rate=0.1, num_epochs=9, warmup_steps=0),
        *guidance.length_warnings(max_length=9, max_new_tokens=9, mean_response_tokens=10, share_over_length=0.5),
    ]  # fmt: skip
    assert len({warning.name for warning in found}) == 12
    for warning in found:
        assert warning.text.endswith(".") and ": " in warning.text and ". " not in warning.text.replace("et al. ", "")


def test_list_prices_are_dated_and_named() -> None:
    for price in LIST_PRICES:
        assert price.source and (price.as_of or price.usd_per_hour == 0)


def test_a_users_price_list_replaces_the_whole_table() -> None:
    text = "- {device: mine, usd_per_hour: 1.5, memory_gb: 48, as_of: 2026-01-31, source: contract}\n- {device: lent, usd_per_hour: 0}\n"
    mine, lent = parse_prices(text, "prices.yaml")
    assert (mine.device, mine.usd_per_hour, mine.memory_gb, mine.as_of) == ("mine", 1.5, 48, "2026-01-31")
    assert (lent.device, lent.memory_gb) == ("lent", None)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: 1", "- {device: a}", "- {device: a, usd_per_hour: -1}", "- {device: a, usd_per_hour: 1, x: 2}",
     "- {device: a, usd_per_hour: 1}\n- {device: a, usd_per_hour: 2}", "- [", "- 3"],
)  # fmt: skip
def test_a_faulty_price_list_is_plan_002(text: str) -> None:
    with pytest.raises(PlanError, match=r"prices\.yaml") as caught:
        parse_prices(text, "prices.yaml")
    assert caught.value.code == "PLAN_002"
