"""The composition root: the one place that wires assets, checks, jobs and resources together."""

import dagster as dg

from rm_assets.assets.evaluation_report import evaluation_report
from rm_assets.assets.gold_rewards import gold_rewards
from rm_assets.assets.hub_release import hub_release
from rm_assets.assets.implicit_pairs import implicit_pairs
from rm_assets.assets.model_comparison import model_comparison
from rm_assets.assets.prompts import prompts
from rm_assets.assets.reward_model import reward_model
from rm_assets.assets.sampled_responses import sampled_responses
from rm_assets.automation.dead_runs import dead_runs
from rm_assets.automation.jobs import build_reward_model
from rm_assets.automation.rebuild import rebuild
from rm_assets.checks.data import table_checks
from rm_assets.checks.inputs import input_checks
from rm_assets.checks.model import better_than_length, gate_checks, release_gives_the_reported_rewards
from rm_assets.resources.compute import Compute
from rm_assets.resources.console import plain
from rm_assets.resources.tracker import Tracker

defs = dg.Definitions(
    assets=[
        prompts,
        sampled_responses,
        gold_rewards,
        implicit_pairs,
        reward_model,
        evaluation_report,
        hub_release,
        model_comparison,
    ],
    asset_checks=[
        *table_checks,
        input_checks,
        better_than_length,
        *gate_checks,
        release_gives_the_reported_rewards,
    ],
    jobs=[build_reward_model],
    sensors=[rebuild, dead_runs],
    resources={"compute": Compute(), "tracker": Tracker()},
    loggers={"plain": plain},
    # Tasks are processes of their own; a process per step on top would only cost its start.
    executor=dg.in_process_executor,
)
