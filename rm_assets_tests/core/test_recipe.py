"""The recipe's models: documented, frozen, and sound between fields."""

import csv
import re
from contextlib import nullcontext
from typing import Any

import pytest
from pydantic import ValidationError

from rm_assets.core import recipe as recipe_module
from rm_assets.core.recipe import (
    ExecutionSection,
    HumanGold,
    ModelRef,
    PromptsSection,
    Recipe,
    Section,
    ServerSampling,
    SplitFractions,
    TrainingSection,
    VerifierGold,
)
from rm_assets.core.recipe_files import SHIPPED_FOLDER, RecipeBook
from rm_assets.core.report.model_card import describe_gold
from rm_assets.core.smoke import smoke_recipe
from rm_assets.core.stages import STAGES

MODELS = [
    m for m in vars(recipe_module).values() if isinstance(m, type) and issubclass(m, Section) and m is not Section
]
GENERATOR = {"kind": "generator", "num_prompts": 4}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_section_and_field_says_what_it_means(model: type[Section]) -> None:
    assert model.__doc__
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_recipes_are_frozen_and_refuse_unknown_keys() -> None:
    training = TrainingSection(base=ModelRef(hub_id="a/b"), learning_rate=0.1)
    with pytest.raises(ValidationError):
        training.learning_rate = 0.2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        ModelRef(hub_id="a/b", revison="c")  # type: ignore[call-arg]


@pytest.mark.parametrize("values", [{}, {"path": "a", "hub_id": "b/c"}, {"path": "a", "revision": "b"}])
def test_model_has_one_location_and_only_a_hub_model_a_revision(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ModelRef.model_validate(values)


def test_split_shares_sum_to_one() -> None:
    assert SplitFractions(train=0.7, validation=0.1, test=0.2).test == 0.2
    with pytest.raises(ValidationError, match="must be 1"):
        SplitFractions(train=0.7, validation=0.1, test=0.1)


@pytest.mark.parametrize(
    "values",
    [
        {"test": GENERATOR},  # the default split has test prompts too
        {"split": {"train": 1, "validation": 0, "test": 0}},  # no test prompts at all
    ],
)
def test_test_prompts_come_from_exactly_one_place(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give test prompts once"):
        PromptsSection.model_validate({"source": GENERATOR, **values})


def with_server(**changes: Any) -> Recipe:
    """The embedded recipe, sampled by a server."""
    sampling = {"kind": "server", "base_url": "http://127.0.0.1:8000/v1", "model": "m", "revision": "r", **changes}
    embedded = RecipeBook(environment={}).load("embedded")
    return Recipe.model_validate({**embedded.model_dump(), "sampling": sampling})


def test_where_a_server_runs_is_no_part_of_what_it_answers() -> None:
    def settings(recipe: Recipe) -> dict[str, Any]:
        return STAGES["sampled_responses"].settings(recipe, lambda path: path)

    here = settings(with_server())
    assert here == settings(with_server(base_url="https://example.org/v1", api_key_env="MY_KEY"))
    assert here != settings(with_server(revision="r2")) and here != settings(with_server(model="m2"))


def test_a_server_has_no_revision_unless_the_recipe_names_one() -> None:
    with pytest.raises(ValidationError, match="revision"):
        ServerSampling.model_validate({"kind": "server", "base_url": "http://127.0.0.1/v1", "model": "m"})


def test_smoke_form_cuts_down_what_a_server_is_asked() -> None:
    sampling = smoke_recipe(with_server(num_responses=8, max_new_tokens=512)).sampling
    assert isinstance(sampling, ServerSampling)
    assert (sampling.num_responses, sampling.num_test_responses, sampling.max_new_tokens) == (2, 2, 64)


def test_positional_rewards_need_recorded_responses() -> None:
    gold = {"kind": "recorded", "source": {"kind": "files", "files": ["a.jsonl"]}}
    with pytest.raises(ValidationError, match="taken by position"):
        Recipe.model_validate({**with_server().model_dump(), "gold": gold})


JUDGE = {"kind": "judge", "base_url": "http://127.0.0.1:8000/v1", "model": "m", "revision": "r"}


def with_gold(gold: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({**with_server().model_dump(), "gold": gold})


def combined(*golds: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"kind": "combined", "scorers": [{"name": f"s{n}", "gold": gold} for n, gold in enumerate(golds)], **changes}


def test_where_a_judge_runs_and_how_it_is_read_is_told_apart_from_what_it_is() -> None:
    def settings(**changes: Any) -> dict[str, Any]:
        gold = combined({**JUDGE, **changes}, {"kind": "verifier"})
        return STAGES["gold_rewards"].settings(with_gold(gold), lambda path: path)

    assert settings() == settings(base_url="https://example.org/v1", api_key_env="MY_KEY")
    assert settings() != settings(revision="r2") and settings() != settings(verdicts=["A", "B", "C"])


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ({**JUDGE, "instructions": "{first} or {second}"}, "'instructions' must hold {prompt}"),
        ({**JUDGE, "verdicts": ["1", "2", "12"]}, "part of another"),
        ({**JUDGE, "verdicts": ["A", "A", "B"]}, "part of another"),
        ({**JUDGE, "verdicts": ["A", "B", ""]}, "may be empty"),
        ({**JUDGE, "base_url": "http://example.org/v1", "api_key_env": "MY_KEY"}, "unencrypted"),
        (combined(JUDGE), "at least 2 items"),
        (combined(JUDGE, {"kind": "verifier"}, combine="weighted"), "give 'scorers' a weight, or set combine: mean"),
        (combined(JUDGE, {"kind": "preferences"}), "does not match any of the expected tags"),
        ({"kind": "combined", "scorers": [{"name": "a", "gold": JUDGE}] * 2}, "must be distinct"),
        ({"kind": "combined", "scorers": [{"name": n, "gold": JUDGE, "weight": 2} for n in "ab"]}, "set combine: weighted"),
        (combined(JUDGE, {"kind": "recorded", "source": {"kind": "files", "files": ["a.jsonl"]}}), "taken by position"),
    ],
)  # fmt: skip
def test_what_a_judge_or_several_scorers_need(gold: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        with_gold(gold)


def test_the_model_card_names_every_scorer() -> None:
    model = {"kind": "classifier", "model": {"hub_id": "org/gold"}}
    assert describe_gold(with_gold(JUDGE).gold) == "comparisons by m (r), each in both orders"
    assert describe_gold(with_gold(combined(model, JUDGE, combine="worst_case")).gold) == (
        "the worst case of standardized rewards (s0, rewards of org/gold; s1, comparisons by m (r), each in both orders)"
    )
    weighted = combined(model, {"kind": "verifier"}, combine="weighted", standardize=False)
    weighted["scorers"][0]["weight"] = 2
    assert describe_gold(with_gold(weighted).gold) == (
        "the weighted mean of rewards (s0, rewards of org/gold, weight 2; s1, a rule-based verifier, weight 1)"
    )


def test_verifier_needs_a_weight_and_patterns_that_compile() -> None:
    with pytest.raises(ValidationError, match="at least one of the weights"):
        VerifierGold(kind="verifier", exact=0)
    with pytest.raises(ValidationError, match="is no regular expression"):
        VerifierGold(kind="verifier", format_pattern="[")


def test_numbers_as_yaml_reads_them_are_taken_and_truth_values_are_not() -> None:
    values: dict[str, Any] = {"base": {"hub_id": "a/b"}, "learning_rate": "5e-6"}  # YAML 1.1 reads 5e-6 as text
    assert TrainingSection.model_validate(values).learning_rate == 5e-6
    assert ExecutionSection.model_validate({"deterministic": True}).deterministic
    with pytest.raises(ValidationError, match="truth value"):
        TrainingSection.model_validate({**values, "max_train_pairs": True})


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"objective": {"kind": "regression"}}, "objective to {kind: bradley_terry, margin_scale: 0}"),
        ({"objective": {"margin_scale": 1}}, "objective to {kind: bradley_terry, margin_scale: 0}"),
        ({"weighting": "prompt", "lora": {}}, "weighting to pair, lora to null"),
        ({"validation": {"every_steps": 1}}, "validation to null"),
        ({"max_loss_spike": 5}, "max_loss_spike to 10"),
    ],
)
def test_what_the_trl_engine_cannot_do_is_refused_with_what_to_set(changes: dict[str, Any], setting: str) -> None:
    values = {"base": {"hub_id": "a/b"}, "learning_rate": 0.1, "engine": "trl"}
    assert TrainingSection.model_validate(values).engine == "trl"
    if "objective" in changes:
        changes = {"objective": {"kind": "bradley_terry", **changes["objective"]}}
    with pytest.raises(ValidationError, match=re.escape(f"; set {setting}, or use engine native")):
        TrainingSection.model_validate({**values, **changes})


TPU = {"kind": "kubernetes", "image": "i", "tpu": {"type": "tpu-v6e-slice", "topology": "2x2"}}
JAX_SCORER = {"kind": "classifier", "model": {"path": "gold"}, "backend": "jax"}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"execution": {"jax_mesh": {"fsdp": 2}}}, "execution.jax_mesh divides the work of backend jax, which no section names"),
        ({"execution": {"jax_mesh": {"fsdp": 2}}, "evaluation": {"backend": "jax"}}, None),
        ({"execution": {"jax_mesh": {"fsdp": 2}}, "training": {"backend": "jax"}}, None),
        ({"execution": {"executors": {"train": TPU}}}, "task train is given a TPU, .* set training.backend to jax, or run train elsewhere"),
        ({"execution": {"executors": {"train": TPU}}, "training": {"backend": "jax"}}, None),
        ({"execution": {"executors": {"evaluate": TPU}}, "training": {"backend": "jax"}}, "set evaluation.backend to jax"),
        ({"execution": {"executors": {"sample": TPU}}}, "a policy is sampled with torch"),
        ({"execution": {"executors": {"score": TPU}}}, None),  # by rules, without a model
        ({"execution": {"executors": {"score": TPU}}, "gold": JAX_SCORER}, None),
        ({"execution": {"executors": {"score": TPU}}, "gold": JAX_SCORER | {"backend": "torch"}}, "set gold.backend to jax"),
    ],
)  # fmt: skip
def test_jax_alone_computes_on_tpus_and_on_a_mesh(sections: dict[str, Any], words: str | None) -> None:
    values: dict[str, Any] = {
        "name": "mine", "prompts": {"source": GENERATOR}, "sampling": {"kind": "policy", "policy": {"path": "a"}},
        "gold": {"kind": "verifier"}, "training": {"base": {"path": "a"}, "learning_rate": 0.1},
    }  # fmt: skip
    for name, section in sections.items():
        values[name] = section if "kind" in section else values.get(name, {}) | section
    with pytest.raises(ValidationError, match=words) if words else nullcontext():
        Recipe.model_validate(values)


@pytest.mark.parametrize("key", RecipeBook(environment={}).partition_keys())
def test_smoke_form_of_a_shipped_recipe_is_a_valid_recipe_that_pushes_nothing(key: str) -> None:
    smoke = smoke_recipe(RecipeBook(environment={}).load(key))
    assert Recipe.model_validate(smoke.model_dump()) == smoke
    assert smoke.name == f"{key} (smoke)"  # or the next real run would call it the version before
    assert smoke.release.validate_only
    assert smoke.training.max_optimizer_steps == 10


@pytest.mark.parametrize(("name", "num_prompts"), [("ranked-answers", 5), ("ranked-answers-test", 3)])
def test_ranked_answers_have_four_distinct_answers_and_ranks_a_prompt(name: str, num_prompts: int) -> None:
    with open(SHIPPED_FOLDER / f"{name}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    prompts = {row["prompt"] for row in rows}
    assert len(prompts) == num_prompts
    for prompt in prompts:
        assert [row["rank"] for row in rows if row["prompt"] == prompt] == ["1", "2", "3", "4"]
        assert len({row["answer"] for row in rows if row["prompt"] == prompt}) == 4


@pytest.mark.parametrize("rankings", ["s3://bucket/ranked.jsonl", "ranked.csv"])
def test_rankings_are_a_file_that_can_be_appended_to(rankings: str) -> None:
    with pytest.raises(ValidationError, match=r"name a path that ends in \.jsonl"):
        HumanGold(kind="human", rankings=rankings)
