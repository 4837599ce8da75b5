"""Jobs over the asset graph."""

import dagster as dg

from rm_assets.core.stages import STAGES

build_reward_model = dg.define_asset_job(
    "build_reward_model",
    selection=dg.AssetSelection.assets(*STAGES),
    executor_def=dg.in_process_executor,
    description="All seven assets and their checks for one recipe. What is up to date takes no time.",
)
