"""The graph as Dagster sees it: every key is pinned, because a lost asset or check would otherwise go unnoticed."""

import subprocess
import sys
from pathlib import Path

import dagster as dg

from rm_assets.core.stages import STAGES
from rm_assets.definitions import defs
from rm_assets.resources.comparison import VERSION

HEAVY = ("torch", "transformers", "trl", "datasets", "jax", "wandb", "ray", "pandas", "scipy", "matplotlib")


def test_the_definitions_hold_exactly_these_assets_checks_jobs_sensors_and_schedules() -> None:
    graph = defs.resolve_asset_graph()
    executable = [key for key in graph.toposorted_asset_keys if key in graph.executable_asset_keys]
    assert [key.to_user_string() for key in executable] == [
        "prompts",
        "sampled_responses",
        "gold_rewards",
        "implicit_pairs",
        "reward_model",
        "evaluation_report",
        "hub_release",
        "model_comparison",
    ]
    assert {key.to_user_string() for key in graph.external_asset_keys} == {
        f"recipe_{section}" for section in ("prompts", "sampling", "gold", "pairs", "training", "evaluation", "release")
    }
    assert sorted((key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys) == [
        ("evaluation_report", "better_than_length"),
        ("evaluation_report", "confidence_is_calibrated"),
        ("evaluation_report", "length_is_not_the_reason"),
        ("evaluation_report", "match_rate_is_high"),
        ("evaluation_report", "no_worse_than_release"),
        ("gold_rewards", "gold_saw_whole_responses"),
        ("gold_rewards", "gold_tells_responses_apart"),
        ("gold_rewards", "judge_agrees_with_itself"),
        ("gold_rewards", "judge_is_readable"),
        ("gold_rewards", "rewards_are_usual"),
        ("gold_rewards", "rewards_follow_responses"),
        ("gold_rewards", "rewards_have_not_drifted"),
        ("gold_rewards", "rewards_stay_in_their_split"),
        ("hub_release", "release_gives_the_reported_rewards"),
        ("implicit_pairs", "base_can_read_pairs"),
        ("implicit_pairs", "enough_pairs"),
        ("implicit_pairs", "length_does_not_decide"),
        ("implicit_pairs", "one_start_token"),
        ("implicit_pairs", "pad_is_not_the_end"),
        ("implicit_pairs", "pairs_add_up"),
        ("implicit_pairs", "pairs_agree_with_gold"),
        ("implicit_pairs", "pairs_are_distinct"),
        ("implicit_pairs", "pairs_fit_the_model"),
        ("implicit_pairs", "pairs_have_not_drifted"),
        ("implicit_pairs", "pairs_stay_in_their_split"),
        ("implicit_pairs", "reward_is_read_at_the_end"),
        ("implicit_pairs", "scoring_ends_as_training"),
        ("implicit_pairs", "template_ignores_the_clock"),
        ("implicit_pairs", "ties_are_few"),
        ("prompts", "prompt_lengths_are_usual"),
        ("prompts", "prompts_have_not_drifted"),
        ("prompts", "sources_are_balanced"),
        ("prompts", "splits_are_disjoint"),
        ("prompts", "test_prompts_are_new"),
        ("reward_model", "evaluation_is_not_trained_on"),
        ("reward_model", "rewards_ignore_the_batch"),
        ("reward_model", "training_pairs_add_up"),
        ("sampled_responses", "response_lengths_are_usual"),
        ("sampled_responses", "responses_are_not_empty"),
        ("sampled_responses", "responses_are_whole"),
        ("sampled_responses", "responses_have_not_drifted"),
        ("sampled_responses", "responses_stay_in_their_split"),
    ]
    assert sorted(job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")) == [
        "build_reward_model",
        "compare_with_production",
        "prune_store",
    ]
    assert [(s.name, s.default_status.value) for s in defs.sensors or []] == [
        ("rebuild", "RUNNING"),
        ("dead_runs", "RUNNING"),
        ("recipe_changes", "RUNNING"),
        ("hub_revisions", "RUNNING"),
        ("alerts", "RUNNING"),
    ]
    assert [(s.name, s.default_status.value) for s in defs.schedules or []] == [
        ("nightly_comparison", "STOPPED"),
        ("weekly_rebuild", "STOPPED"),
        ("retention", "STOPPED"),
    ]


def test_dagsters_edges_are_the_inputs_of_the_stages() -> None:
    graph = defs.resolve_asset_graph()
    edges = {
        key.to_user_string(): {p.to_user_string() for p in graph.get(key).parent_keys}
        for key in graph.executable_asset_keys
    }
    comparison = {"model_comparison": {"evaluation_report"}}
    stages = {asset: {*stage.inputs, f"recipe_{stage.section}"} for asset, stage in STAGES.items()}
    assert edges == stages | comparison


def test_every_asset_has_an_owner_a_kind_a_group_and_a_description() -> None:
    for spec in defs.resolve_all_asset_specs():
        assert spec.owners and spec.kinds and spec.description, spec.key
        assert spec.group_name == "reward_modeling"  # one group, so that the UI shows the whole lineage at once
        if spec.key.path[0].startswith("recipe_"):  # observed, never made
            assert isinstance(spec.partitions_def, dg.StaticPartitionsDefinition)
            continue
        if spec.key.to_user_string() == "model_comparison":  # of several recipes, so of none
            assert spec.partitions_def is None and spec.code_version == str(VERSION)
            continue
        assert spec.code_version == str(STAGES[spec.key.to_user_string()].version)
        assert isinstance(spec.partitions_def, dg.StaticPartitionsDefinition)
        code = Path(spec.metadata["code"].path)
        assert code.is_file() and spec.tags["task"] == code.stem


def test_the_job_of_one_recipe_leaves_the_comparison_of_several_alone() -> None:
    job = defs.resolve_job_def("build_reward_model")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(STAGES)


def test_loading_the_definitions_imports_nothing_heavy_and_takes_at_most_three_seconds() -> None:
    code = (
        "import sys, time; import rm_assets.definitions; "
        f"print([m for m in {HEAVY!r} if m in sys.modules], time.process_time())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    modules, seconds = out.rsplit(" ", 1)
    assert modules == "[]"
    assert float(seconds) < 3.0
