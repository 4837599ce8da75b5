"""A stage's output may not change without a new stage version: a fix cannot hide behind results that are already committed.

The golden file holds, for each asset, the stage version and a hash of the rows it makes of a fixed small input. When a
change is meant, raise the version in core/stages.py and write the new pair (version, hash) that the failure shows.
"""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from rm_assets.core.digests import digest
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.records import GoldReward, Pair, Prompt, Response
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.storage.tables import read_table

GOLDEN = Path(__file__).parent / "golden" / "stage_outputs.json"
TABLES = {
    "prompts": ("prompts.parquet", Prompt),
    "sampled_responses": ("responses.parquet", Response),
    "gold_rewards": ("gold_rewards.parquet", GoldReward),
    "implicit_pairs": ("pairs.parquet", Pair),
}
RECIPE = """
prompts: {source: {kind: generator, num_prompts: 40, seed: 0}, split: {train: 0.5, validation: 0.1, test: 0.4}}
sampling: {kind: recorded, source: {kind: files, files: [responses.jsonl]}}
gold: {kind: verifier, format_pattern: "(?:[a-z]+: [0-9]+\\n)+#### [0-9]+", partial_tolerance: 4, lines: 3, numerical: 1}
pairs: {policy: all}
training: {base: {path: unused}, learning_rate: 0.001}
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    folder = tmp_path_factory.mktemp("golden")
    recorded = json.loads((GOLDEN.parent / "responses.json").read_text())
    (folder / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in recorded))
    (folder / "golden.yaml").write_text(RECIPE)
    recipe = RecipeBook(folder).load("golden")
    compute = Compute(home=str(folder / "store"))
    found: dict[str, dict[str, object]] = {}
    for asset, (file, record) in TABLES.items():
        made = compute.make_asset(recipe, asset, say=print, debug=print)
        rows = [asdict(row) for row in read_table(made.folder / file, record)]  # type: ignore[call-overload]
        found[asset] = {"version": STAGES[asset].version, "rows": digest(rows)}
    return found


@pytest.mark.parametrize("asset", TABLES)
def test_output_changes_only_with_a_new_stage_version(asset: str, outputs: dict[str, dict[str, object]]) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert outputs[asset] == golden[asset], (
        f"the output of {asset} changed: raise its version in core/stages.py and set {GOLDEN.name} to {outputs[asset]}"
    )
