"""A released model in use: the scores of the report, whichever way it is asked."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rm_assets.cli.main import app
from rm_assets.core.records import GoldReward, prompt_messages
from rm_assets.resources.compute import Made
from rm_assets.serving import RewardModel
from rm_assets.serving.batching import Batcher
from rm_assets_tests.tasks.conftest import Bench

torch.set_num_threads(1)
Chain = tuple[Bench, dict[str, Made]]


@pytest.fixture
def released(chain: Chain) -> Path:
    return chain[1]["hub_release"].folder / "release"


def test_a_release_gives_the_canary_rewards_of_its_report_everywhere(released: Path) -> None:
    canaries = json.loads((released / "report.json").read_text("utf-8"))["canaries"]
    model = RewardModel.load(released, device="cpu")
    assert model.max_length == 100  # training.max_length of the recipe
    batcher = Batcher(model.scorer)
    for canary in canaries:
        prompt, response = canary["messages"][:-1], canary["messages"][-1]["content"]
        assert model.score(prompt, [response]) == pytest.approx([canary["reward"]], abs=1e-5)
        assert batcher.submit([canary["messages"]]).result(60)[0].reward == pytest.approx(canary["reward"], abs=1e-5)
    batcher.close()
    rows = [(canary["messages"][:-1], canary["messages"][-1]["content"]) for canary in canaries]
    together = [score.reward for score in model.score_all(rows)]
    assert together == pytest.approx([canary["reward"] for canary in canaries], abs=1e-5) and len(canaries) == 3


def test_a_recipe_names_its_reward_model_at_the_command_line(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, made = chain
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    row: GoldReward = bench.rows(made["gold_rewards"])[0]
    asked = ["score", "toy", "--prompt", row.prompt, "--response", row.response, "--json", "--device", "cpu"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    model = RewardModel.load(made["reward_model"].folder / "checkpoint", device="cpu")
    expected = model.score(prompt_messages(row), [row.response])
    assert [json.loads(result.stdout)["reward"]] == pytest.approx(expected, abs=1e-5)
