"""The composition root: the one place that wires assets, checks, jobs and resources together."""

import os

import dagster as dg

from rm_assets.assets.evaluation_report import evaluation_report
from rm_assets.assets.gold_rewards import gold_rewards
from rm_assets.assets.hub_release import hub_release
from rm_assets.assets.implicit_pairs import implicit_pairs
from rm_assets.assets.model_comparison import model_comparison
from rm_assets.assets.prompts import prompts
from rm_assets.assets.recipe_sections import RECIPE_SECTIONS
from rm_assets.assets.reward_model import reward_model
from rm_assets.assets.sampled_responses import sampled_responses
from rm_assets.automation.alerts import alerts
from rm_assets.automation.dead_runs import dead_runs
from rm_assets.automation.hub_revisions import hub_revisions
from rm_assets.automation.jobs import build_reward_model, compare_with_production, prune_store
from rm_assets.automation.mail import mail_sensors
from rm_assets.automation.rebuild import rebuild
from rm_assets.automation.recipe_changes import recipe_changes
from rm_assets.automation.schedules import nightly_comparison, retention, weekly_rebuild
from rm_assets.checks.data import table_checks
from rm_assets.checks.inputs import input_checks
from rm_assets.checks.model import better_than_length, gate_checks, release_gives_the_reported_rewards
from rm_assets.resources.compute import Compute
from rm_assets.resources.console import plain
from rm_assets.resources.tracker import Tracker

defs = dg.Definitions(
    assets=[
        *RECIPE_SECTIONS,
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
    jobs=[build_reward_model, compare_with_production, prune_store],
    schedules=[nightly_comparison, weekly_rebuild, retention],
    sensors=[rebuild, dead_runs, recipe_changes, hub_revisions, alerts, *mail_sensors(os.environ)],
    resources={"compute": Compute(), "tracker": Tracker()},
    loggers={"plain": plain},
    # Tasks are processes of their own; a process per step on top would only cost its start.
    executor=dg.in_process_executor,
)
