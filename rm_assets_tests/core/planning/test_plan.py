"""The planner's arithmetic, by hand: steps, operations, bytes, counts of a recipe."""

from dataclasses import replace
from typing import Any

import pytest

from rm_assets.core.errors import ModelError
from rm_assets.core.planning.arithmetic import (
    Probe,
    forward_flops,
    layer_activation_bytes,
    num_optimizer_steps,
    num_pairs_per_forward,
    num_warmup_steps,
    probed_seconds,
    sampling_flops,
    sampling_memory,
    scoring_memory,
    training_flops,
    training_memory,
)
from rm_assets.core.planning.model_shape import KNOWN_CONFIGS, ModelShape, num_adapted_parameters, shape_from_config
from rm_assets.core.planning.prices import parse_prices
from rm_assets.core.planning.recipe_counts import Count, Known, Made, pairs_per_prompt
from rm_assets.core.planning.recipe_plan import RecipePlan, operations_left, plan_recipe
from rm_assets.core.recipe import Recipe

PRICES = parse_prices(
    "[{device: local, usd_per_hour: 0}, {device: small, usd_per_hour: 0.71, memory_gb: 24},"
    " {device: large, usd_per_hour: 4.92, memory_gb: 80}]",
    "prices",
)
TINY = ModelShape(
    num_parameters=1_000, hidden_size=4, num_layers=2, intermediate_size=10, num_heads=2, num_kv_heads=1, head_dim=3,
    vocab_size=50,
)  # fmt: skip


def test_steps_of_the_replaced_calculator() -> None:
    assert num_optimizer_steps(3_000, 64, 30) == 1_410  # 47 a pass
    assert num_optimizer_steps(2_000, 64, 10) == 320  # 32 a pass


@pytest.mark.parametrize(
    ("pairs", "a_step", "epochs", "steps"), [(64, 64, 1, 1), (65, 64, 1, 2), (10, 64, 0.1, 1), (128, 64, 1.5, 3)]
)
def test_a_partial_step_counts_and_there_is_at_least_one(pairs: int, a_step: int, epochs: float, steps: int) -> None:
    assert num_optimizer_steps(pairs, a_step, epochs) == steps


def test_warmup_is_rounded_and_never_the_whole_training() -> None:
    assert [num_warmup_steps(steps, 0.05) for steps in (1, 9, 10, 11, 330)] == [0, 0, 0, 1, 16]
    assert num_warmup_steps(2, 0.9) == 1


def test_pairs_of_a_forward_pass_divide_a_step() -> None:
    assert [num_pairs_per_forward(64, most) for most in (16, 17, 100, 1)] == [16, 16, 64, 1]
    assert num_pairs_per_forward(7, 3) == 1


@pytest.mark.parametrize(
    ("hub_id", "of_policy"),
    [
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
        ("HuggingFaceTB/SmolLM2-360M", 361_821_120),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
    ],
)
def test_known_models_have_their_published_number_of_parameters(hub_id: str, of_policy: int) -> None:
    assert shape_from_config(KNOWN_CONFIGS[hub_id]).num_policy_parameters == of_policy


def test_a_reward_model_has_no_head_over_the_vocabulary() -> None:
    shape = shape_from_config(KNOWN_CONFIGS["meta-llama/Llama-3.1-8B"])
    assert shape.num_parameters == 8_030_261_248 - 128_256 * 4_096 + 4_096


def test_an_unknown_kind_of_model_or_a_config_without_sizes_is_model_002() -> None:
    for config in ({"model_type": "mamba"}, {}, {"model_type": "llama"}, {"model_type": "qwen3", "hidden_size": "x"}):
        with pytest.raises(ModelError) as caught:
            shape_from_config(config)
        assert caught.value.code == "MODEL_002"


def test_forward_operations_are_two_a_weight_and_the_attention_term() -> None:
    # Without embeddings 1000 - 50 * 4 = 800 weights: 1600 a token; attention 2 * 2 layers * 8 tokens * 6 wide = 192.
    assert forward_flops(TINY, num_tokens=10, row_length=8) == 10 * (1_600 + 192)
    assert forward_flops(replace(TINY, family="bert"), num_tokens=10, row_length=8) == 10 * (1_600 + 384)
    assert sampling_flops(TINY, num_new_tokens=10, row_length=8) == 10 * (1_600 + 192 + 400)


def test_training_is_three_forward_passes_and_a_fourth_when_recomputed() -> None:
    once = forward_flops(TINY, num_tokens=10, row_length=8)
    assert training_flops(TINY, num_tokens=10, row_length=8, gradient_checkpointing=False) == 3 * once
    assert training_flops(TINY, num_tokens=10, row_length=8, gradient_checkpointing=True) == 4 * once


def test_a_layer_keeps_its_norms_attention_and_mlp() -> None:
    # Norms 2 * 4 * (4 + 4 + b), attention 4 * 6 * b, MLP 4 * 10 * b; Qwen3 norms queries and keys: (6 + 3) * (4 + b).
    assert layer_activation_bytes(TINY, 4) == 96 + 96 + 160
    assert layer_activation_bytes(TINY, 2) == 80 + 48 + 80
    assert layer_activation_bytes(replace(TINY, family="qwen3"), 2) == 80 + 48 + 80 + 54
    assert layer_activation_bytes(replace(TINY, family="bert"), 4) == 64 + 96 + 80


def test_memory_of_a_full_training_in_float32() -> None:
    memory = training_memory(TINY, tokens_per_forward=10, activation_bytes=4, gradient_checkpointing=False)
    assert (memory.weights, memory.gradients, memory.optimizer) == (4_000, 4_000, 8_000)
    assert memory.activations == 10 * (2 * 352 + 4 * 12)
    assert memory.total == 16_000 + 7_520


def test_recomputing_keeps_the_input_of_each_layer_and_one_whole_layer() -> None:
    memory = training_memory(TINY, tokens_per_forward=10, activation_bytes=4, gradient_checkpointing=True)
    assert memory.activations == 10 * (2 * 4 * 4 + 352 + 48)


def test_autocast_keeps_a_copy_of_the_weights_that_multiply() -> None:
    memory = training_memory(TINY, tokens_per_forward=10, activation_bytes=2, gradient_checkpointing=True)
    assert memory.weights == 4_000 + 800 * 2


def test_adapters_alone_have_gradients_and_moments() -> None:
    memory = training_memory(
        TINY, tokens_per_forward=10, activation_bytes=2, gradient_checkpointing=True, trainable_parameters=30
    )
    assert (memory.weights, memory.gradients, memory.optimizer) == (2_000 + 120, 120, 240)


def test_memory_of_scoring_and_sampling() -> None:
    scoring = scoring_memory(TINY, tokens_per_forward=10, weight_bytes=2)
    assert scoring.weights == 2_000
    assert scoring.activations == 10 * (8 * 4 + 2 * (4 + 30))  # 5 * 6 of attention and 3 * 10 of the MLP are as wide
    sampling = sampling_memory(TINY, tokens_per_forward=10, cached_tokens=40, weight_bytes=2)
    assert sampling.weights == (1_000 - 4) * 2
    assert sampling.kv_cache == 2 * 2 * 3 * 2 * 40  # keys and values, layers, width, bytes, tokens
    assert sampling.total == sampling.weights + sampling.activations + sampling.kv_cache


def test_time_is_what_comes_before_the_steps_and_the_forward_passes_of_validation() -> None:
    probe = Probe(seconds_per_step=90, device="small", seconds_before=30)
    assert probed_seconds(probe, 10, 6, gradient_checkpointing=False) == 30 + 90 * (10 + 2)
    assert probed_seconds(probe, 10, 6, gradient_checkpointing=True) == 30 + 90 * (10 + 1.5)
    # 188 steps; 128 validation pairs are two steps, looked at after every 50, at the end, and once more.
    known = Known(
        made={"implicit_pairs": Made({"train_pairs": 6_000, "validation_pairs": 128, "test_pairs": 0})},
        shapes={"/base": TINY},
    )
    validated = recipe(training={"validation": {"every_steps": 50}}, execution={"gradient_checkpointing": "never"})
    assert plan(validated, known, probe).training.seconds == pytest.approx(30 + 90 * (188 + 2 * 5 / 3))


def test_the_most_pairs_of_a_prompt() -> None:
    assert [pairs_per_prompt("all", k) for k in (1, 2, 4)] == [0, 1, 6]
    assert [pairs_per_prompt("adjacent", k) for k in (1, 2, 4)] == [0, 1, 3]
    assert [pairs_per_prompt("best_worst", k) for k in (1, 2, 4)] == [0, 1, 1]


def recipe(**changes: Any) -> Recipe:
    sections: dict[str, Any] = {
        "prompts": {
            "source": {"kind": "generator", "num_prompts": 1_000}, "test": {"kind": "generator", "num_prompts": 100},
            "split": {"train": 1, "validation": 0, "test": 0},
        },
        "sampling": {
            "kind": "policy", "policy": {"path": "/base"}, "num_responses": 4, "num_test_responses": 2,
            "max_new_tokens": 50,
        },
        "gold": {"kind": "verifier"},
        "training": {"base": {"path": "/base"}, "learning_rate": 3e-4, "max_length": 100, "num_epochs": 2},
    }  # fmt: skip
    for section, values in changes.items():
        sections[section] = {**sections.get(section, {}), **values}
    return Recipe.model_validate({"name": "mine", **sections})


def plan(mine: Recipe, known: Known | None = None, probe: Probe | None = None) -> RecipePlan:
    return plan_recipe(mine, known or Known(shapes={"/base": TINY}), prices=PRICES, probe=probe, notes=[])


def names(of: RecipePlan) -> list[str]:
    return [warning.name for warning in of.warnings]


def test_what_is_not_made_is_bounded_by_the_recipe() -> None:
    found = plan(recipe())
    stages = {stage.asset: stage for stage in found.stages}
    assert stages["prompts"].items == Count(1_100, "at_most")
    assert stages["sampled_responses"].items == Count(4_200, "at_most")
    assert stages["sampled_responses"].tokens == Count(210_000, "at_most")
    assert stages["implicit_pairs"].items == Count(6_100, "at_most")  # 6 of each prompt, 1 of each test prompt
    assert stages["evaluation_report"].items == Count(200 + 1_000 + 8, "at_most")
    training = found.training
    assert training.pairs == Count(6_000, "at_most")
    assert training.steps_per_epoch == Count(94, "at_most") and training.optimizer_steps == Count(188, "at_most")
    assert training.warmup_steps == Count(9, "at_most")
    assert training.tokens == Count(6_000 * 2 * 2 * 100, "at_most")
    assert training.tokens_per_forward == 64 * 2 * 100  # a whole step, which is less than the budget
    assert str(training.optimizer_steps) == "at most 188"


def test_a_share_of_the_prompts_is_only_about_known() -> None:
    prompts = {"split": {"train": 0.8, "validation": 0.1, "test": 0.1}, "test": None}
    assert plan(recipe(prompts=prompts)).training.pairs == Count(4_800, "at_most_about")


def test_bounds_of_the_training_section_hold() -> None:
    training = plan(recipe(training={"max_train_pairs": 640, "max_optimizer_steps": 15})).training
    assert training.pairs == Count(640, "at_most") and training.optimizer_steps == Count(15, "at_most")
    assert training.tokens == Count(15 * 64 * 2 * 100, "at_most")


def test_a_share_of_the_training_prompts_is_only_about_known() -> None:
    training = plan(recipe(training={"share_of_prompts": 0.25})).training
    assert training.pairs == Count(1_500, "at_most_about") and training.optimizer_steps == Count(48, "at_most_about")


def test_the_trainings_of_a_learning_curve_are_counted_and_paid_for() -> None:
    mine = recipe(evaluation={"learning_curve": {"shares": [0.25, 0.5]}})
    counts = {"pairs_in": 6_000, "pairs_trained": 1_480, "pairs_over_length": 0, "tokens": 99, "optimizer_steps": 48}
    known = Known(shapes={"/base": TINY}, made={"reward_model at share 0.25": Made(counts)})
    found = plan(mine, known, Probe(seconds_per_step=90, device="small"))
    quarter, half = found.curve["reward_model at share 0.25"], found.curve["reward_model at share 0.5"]
    assert quarter.made and quarter.pairs == Count(1_480, "made") and quarter.optimizer_steps == Count(48, "made")
    assert not half.made and half.pairs == Count(3_000, "at_most_about")
    assert half.optimizer_steps == Count(94, "at_most_about")  # two passes of 47 steps
    assert found.training.pairs == Count(6_000, "at_most") and not found.training.made
    assert next(device.hours for device in found.devices if device.device == "small") == (188 + 48 + 94) * 90 / 3600
    stage = next(stage for stage in found.stages if stage.asset == "evaluation_report")
    assert stage.items.value == 3 * 200 + 3 * 1_000 + 8  # test responses and both sides of 500 pairs by each, canaries
    assert found.as_json()["learning_curve"]["reward_model at share 0.5"]["num_pairs"]["value"] == 3_000
    assert plan(recipe()).as_json()["learning_curve"] == {}


def test_operations_left_are_those_of_every_model_that_works() -> None:
    counts = {
        "train_prompts": 1_000, "validation_prompts": 0, "test_prompts": 100, "responses": 4_200, "gold_rewards": 4_200,
        "train_pairs": 6_000, "validation_pairs": 128, "test_pairs": 100,
    }  # fmt: skip
    data = {asset: Made(counts) for asset in ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs")}
    known = Known(shapes={"/base": TINY}, made=data)

    def forward(num_rows: int) -> int:
        return forward_flops(TINY, num_tokens=num_rows * 100, row_length=100)

    # 24,000 sides are trained on; 256 of validation are looked at once; 1,000 of training, 200 test responses, 8 canaries.
    whole = operations_left(recipe(), known)
    training = training_flops(TINY, num_tokens=24_000 * 100, row_length=100, gradient_checkpointing=True)
    assert whole == training + forward(256) + forward(1_208)
    validated = recipe(training={"validation": {"every_steps": 50}})  # of 188 steps
    assert operations_left(validated, known) == whole + forward(4 * 256)
    curve = recipe(evaluation={"learning_curve": {"shares": [0.25, 0.5]}})
    trained = sum(each.flops or 0 for each in plan(curve, known).curve.values())
    assert trained and operations_left(curve, known) == whole + trained + 2 * forward(256) + 2 * forward(1_200)
    rows = {"kind": "files", "files": ["/bench.jsonl"]}
    bench = recipe(evaluation={"benchmarks": [{"kind": "reward_bench", "source": rows}]})
    assert operations_left(bench, known) is None  # nobody knows how many rows
    assert operations_left(bench, replace(known, num_benchmark_responses=30)) == training + forward(256) + forward(
        1_238
    )
    taken = recipe().model_dump(mode="json") | {
        "training": {"kind": "existing", "model": {"path": "/base"}, "max_length": 100}
    }
    assert operations_left(Recipe.model_validate(taken), known) == forward(208)


def test_what_is_made_replaces_the_bound() -> None:
    known = Known(
        made={
            "prompts": Made({"train_prompts": 900, "validation_prompts": 0, "test_prompts": 90}),
            "sampled_responses": Made({"responses": 3_780}, {"mean_response_tokens": 20.5}),
            "implicit_pairs": Made({"train_pairs": 2_000, "validation_pairs": 0, "test_pairs": 70}),
        },
        shapes={"/base": TINY},
    )
    found = plan(recipe(), known)
    stages = {stage.asset: stage for stage in found.stages}
    assert stages["prompts"].made and stages["prompts"].items == Count(990, "made")
    assert stages["sampled_responses"].tokens == Count(77_490, "made")
    assert stages["implicit_pairs"].items == Count(2_070, "made")
    assert not stages["gold_rewards"].made and stages["gold_rewards"].items == Count(3_780, "made")
    # Of the pairs that are made, some may be over length.
    assert found.training.pairs == Count(2_000, "at_most")


def test_a_trained_model_has_its_real_steps_and_tokens() -> None:
    counts = {"pairs_in": 200, "pairs_over_length": 50, "pairs_trained": 130, "tokens": 7_777, "optimizer_steps": 5}
    found = plan(recipe(), Known(made={"reward_model": Made(counts)}))
    assert found.training.made and found.training.tokens == Count(7_777, "made")
    assert found.training.optimizer_steps == Count(5, "made")
    assert names(found) == ["few_pairs", "no_warmup", "over_length"]


def test_an_evaluation_that_is_made_says_what_it_scored() -> None:
    made = {"evaluation_report": Made({}, {}, {"responses scored by the reward model": 321})}
    stage = next(s for s in plan(recipe(), Known(made=made)).stages if s.asset == "evaluation_report")
    assert stage.made and stage.items == Count(321, "made") and stage.tokens == Count(32_100, "at_most")


def test_people_may_leave_responses_unranked() -> None:
    mine, made = recipe(gold={"kind": "human", "rankings": "/r.jsonl"}), {"sampled_responses": Made({"responses": 90})}
    for found, wanted in ((made, Count(90, "at_most")), (made | {"gold_rewards": Made({"gold_rewards": 8})}, Count(8, "made"))):  # fmt: skip
        assert next(s for s in plan(mine, Known(made=found)).stages if s.asset == "gold_rewards").items == wanted


def test_recorded_responses_and_unknown_models_stay_unknown() -> None:
    mine = recipe(sampling={})
    mine = mine.model_validate(
        {**mine.model_dump(), "sampling": {"kind": "recorded", "source": {"kind": "files", "files": ["/a.jsonl"]}}}
    )
    found = plan(mine, Known())
    assert found.training.pairs.value is None and found.training.flops is None and found.training.memory is None
    assert {device.fits for device in found.devices} == {None}
    assert str(found.training.optimizer_steps) == "unknown" and found.warnings == []


def test_a_probe_gives_time_and_the_cost_of_its_own_device_alone() -> None:
    found = plan(recipe(), probe=Probe(seconds_per_step=90, device="small"))
    assert found.training.seconds == 188 * 90  # 4.7 hours
    cost = {device.device: (device.hours, device.usd) for device in found.devices}
    assert cost["small"] == (pytest.approx(4.7), pytest.approx(4.7 * 0.71))
    assert cost["large"] == (None, None)
    assert plan(recipe()).training.seconds is None


def test_a_training_fits_a_device_by_the_sum_of_its_parts() -> None:
    shape = shape_from_config(KNOWN_CONFIGS["Qwen/Qwen3-4B"])
    training = {"learning_rate": 5e-6, "dtype": "bfloat16", "max_length": 2_048}

    def planned(token_budget: int) -> RecipePlan:
        execution = {"training_token_budget": token_budget}
        return plan(recipe(training=training, execution=execution), Known(shapes={"/base": shape}))

    memory = planned(65_536).training.memory
    assert memory is not None and memory == planned(65_536).training.memory_recomputed
    # 16 bytes a weight, 2 more for each that multiplies; 32 rows of 2,048 tokens, each 36 inputs of 2,560 in float32,
    # one whole layer of 192,512 bytes and the last norm of 25,600.
    assert memory.total == 16 * 4_022_470_656 + 2 * 3_633_514_496 + 32 * 2_048 * (368_640 + 192_512 + 25_600)
    fits = {device.device: device.fits for device in planned(65_536).devices}
    assert fits == {"local": None, "small": False, "large": False}
    assert {device.device for device in planned(8_192).devices if device.fits} == {"large"}


def test_no_warmup_and_no_room_warn() -> None:
    assert names(plan(recipe(training={"warmup_ratio": 0}))) == ["no_warmup"]
    assert names(plan(recipe(sampling={"max_new_tokens": 100}))) == ["no_room"]
    assert names(plan(recipe())) == []
    long = Known(made={"sampled_responses": Made({"responses": 9}, {"mean_response_tokens": 101.0})})
    assert names(plan(recipe(), long)) == ["long_responses"]


def test_a_server_is_counted_like_a_policy_and_its_weights_are_not_ours() -> None:
    server = {
        "kind": "server", "base_url": "http://127.0.0.1:8000/v1", "model": "m", "revision": "1", "num_responses": 4,
        "num_test_responses": 2, "max_new_tokens": 100,
    }  # fmt: skip
    mine = Recipe.model_validate({**recipe().model_dump(), "sampling": server})
    found = plan(mine)
    stage = next(stage for stage in found.stages if stage.asset == "sampled_responses")
    assert (stage.items, stage.unit) == (Count(4_200, "at_most"), "responses, from a server")
    assert stage.tokens == Count(420_000, "at_most") and stage.model is stage.flops is stage.memory is None
    assert found.training.pairs == Count(6_000, "at_most")
    assert names(found) == ["no_room"]


def test_each_scorer_is_planned_and_a_judge_is_asked_for_each_two_responses_in_both_orders() -> None:
    judge = {"kind": "judge", "base_url": "http://127.0.0.1:8000/v1", "model": "m", "revision": "1", "max_new_tokens": 10}  # fmt: skip
    scorers = [
        {"name": "big", "gold": {"kind": "classifier", "model": {"path": "/base"}, "max_length": 70}},
        {"name": "rules", "gold": {"kind": "verifier"}},
        {"name": "judge", "gold": judge},
    ]
    mine = Recipe.model_validate({**recipe().model_dump(), "gold": {"kind": "combined", "scorers": scorers}})
    gold = [stage for stage in plan(mine).stages if stage.asset == "gold_rewards"]
    assert [stage.unit for stage in gold] == [
        "gold rewards of big", "gold rewards of rules, verifier", "judgements of judge, from a server"
    ]  # fmt: skip
    most = [Count(number, "at_most") for number in (4_200, 4_200 * 70, 2 * 6_100, 2 * 6_100 * 10)]
    assert (gold[0].items, gold[0].tokens) == (most[0], most[1]) and gold[0].model == "/base" and gold[0].memory
    assert gold[1].items == most[0] and gold[1].tokens is None
    assert (gold[2].items, gold[2].tokens) == (most[2], most[3]) and gold[2].model is gold[2].flops is None
    known = Known(made={"gold_rewards": Made({"judge_judged_pairs": 7}), "sampled_responses": Made({"responses": 9})})
    assert [s.items for s in plan(mine, known).stages if s.asset == "gold_rewards"][2] == Count(14, "made")
    # Which pairs are trained on does not change what the judge is asked.
    alone = Recipe.model_validate({**recipe(pairs={"policy": "best_worst"}).model_dump(), "gold": judge})
    (asked,) = [stage for stage in plan(alone).stages if stage.asset == "gold_rewards"]
    assert (asked.items, asked.unit) == (most[2], "judgements, from a server")
    labelled = Known(made={"gold_rewards": Made({"judged_pairs": 7}), "sampled_responses": Made({"responses": 9})})
    (asked,) = [stage for stage in plan(alone, labelled).stages if stage.asset == "gold_rewards"]
    assert asked.made and asked.items == Count(14, "made") and asked.tokens == Count(140, "at_most")


def test_adapters_have_rank_times_inputs_and_outputs_and_the_score_head_is_trained_beside_them() -> None:
    shape = replace(TINY, num_head_parameters=4)
    # A layer: queries and output 4 to 6 and back, keys and values 4 to 3, MLP three times 4 to 10 or back.
    assert num_adapted_parameters(shape, rank=2, target_modules=None) == 4 + 2 * 2 * (2 * 10 + 2 * 7 + 3 * 14)
    assert num_adapted_parameters(shape, rank=2, target_modules=["q_proj", "mlp.up_proj"]) == 4 + 2 * 2 * (10 + 14)
    assert num_adapted_parameters(shape, rank=2, target_modules=["proj"]) == 4


def test_lora_trains_few_weights_and_has_no_band_of_learning_rates() -> None:
    lora = {"lora": {"rank": 2}, "learning_rate": 0.02, "dtype": "bfloat16"}
    found = plan(recipe(training=lora))
    assert found.training.num_trained_parameters == 304
    memory = found.training.memory
    assert memory is not None
    assert (memory.weights, memory.gradients, memory.optimizer) == (2_000 + 4 * 304, 4 * 304, 8 * 304)
    assert names(found) == []
    assert names(plan(recipe(training={"learning_rate": 0.02}))) == ["learning_rate_high"]


def test_processes_share_all_but_activations_and_each_is_paid_for() -> None:
    probe = Probe(seconds_per_step=90, device="small")
    alone, shared = (
        plan(recipe(execution={"num_processes": number}), probe=probe) for number in (1, 3)
    )  # fmt: skip
    one, third = alone.training.memory, shared.training.memory
    assert one is not None and third is not None
    assert (third.weights, third.gradients, third.optimizer) == (1_334, 1_334, 2_667)
    assert third.activations == one.activations
    cost = {device.device: (device.hours, device.usd) for device in shared.devices}
    assert cost["small"] == (pytest.approx(4.7), pytest.approx(3 * 4.7 * 0.71))


def test_devices_along_fsdp_share_what_copies_along_data_do_not() -> None:
    mesh = {"jax_mesh": {"data": 2, "fsdp": 4}}
    training = plan(recipe(training={"backend": "jax"}, execution=mesh)).training
    assert training.num_devices == 8 and training.memory is not None
    assert (training.memory.weights, training.memory.optimizer) == (1_000, 2_000)
    scored_by_jax = recipe(evaluation={"backend": "jax"}, execution=mesh)
    assert plan(scored_by_jax).training.num_devices == 1  # torch has no mesh


@pytest.mark.parametrize(("setting", "recomputes"), [("auto", False), ("never", False), ("always", True)])
def test_engine_trl_recomputes_by_the_recipes_word_alone_in_one_process(setting: str, recomputes: bool) -> None:
    execution = {"gradient_checkpointing": setting, "num_processes": 2}
    training = plan(recipe(training={"engine": "trl"}, execution=execution)).training
    assert training.memory == (training.memory_recomputed if recomputes else training.memory_kept)
    assert training.num_devices == 1 and training.memory is not None and training.memory.weights == 4_000


def test_recorded_responses_of_files_are_the_most_there_can_be() -> None:
    recorded = {"kind": "recorded", "source": {"kind": "files", "files": ["/a.jsonl"]}}
    mine = Recipe.model_validate({**recipe().model_dump(), "sampling": recorded})
    found = plan(mine, Known(recorded=([4, 2, 1], [3]), shapes={"/base": TINY}))
    stages = {stage.asset: stage for stage in found.stages}
    assert stages["sampled_responses"].items == Count(10, "at_most")
    assert stages["implicit_pairs"].items == Count(6 + 1 + 0 + 3, "at_most")
    assert found.training.pairs == Count(7, "at_most")
    fewer = mine.model_copy(update={"prompts": mine.prompts.model_copy(update={"max_prompts": 2})})
    assert plan(fewer, Known(recorded=([1, 2, 4], [3]))).training.pairs == Count(7, "at_most")


def test_operations_of_auto_are_a_bound_that_recomputing_keeps() -> None:
    never, auto, always = (
        plan(recipe(execution={"gradient_checkpointing": setting})).training.flops
        for setting in ("never", "auto", "always")
    )
    assert never is not None and auto == always == never * 4 // 3
