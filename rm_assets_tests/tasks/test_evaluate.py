"""evaluation_report: test responses judged, in three forms."""

import json

from rm_assets.core.evaluation.comparison import compare_models
from rm_assets.core.records import ProxyReward
from rm_assets.resources.compute import Made
from rm_assets.storage.tables import read_table
from rm_assets_tests.tasks.conftest import Bench

Chain = tuple[Bench, dict[str, Made]]


def test_every_test_response_and_training_pair_is_scored_once(chain: Chain) -> None:
    made = chain[1]["evaluation_report"].manifest
    assert made.counts == {
        "test_pairs": 4,
        "test_ties": 0,
        "test_responses": 8,
        "test_responses_truncated": 0,
        "test_prompts_over_length": 0,
    }
    assert made.work == {"responses scored by the reward model": 8 + 2 * 8}


def test_the_report_has_the_figures_that_others_read(chain: Chain) -> None:
    report = json.loads((chain[1]["evaluation_report"].folder / "report.json").read_text("utf-8"))
    match = report["match_rate"]
    assert match["n"] == 4 and 0 <= match["low"] <= match["value"] <= match["high"] <= 1 and match["tie_rate"] == 0
    assert 0 <= report["length_baseline"]["value"] <= 1 and report["train_accuracy"]["n"] == 8
    assert [c["messages"][0]["content"] for c in report["canaries"]] == ["is 0 even", "is 1 even", "is 2 even"]


def test_the_report_is_there_as_page_text_and_pictures(chain: Chain) -> None:
    made = chain[1]["evaluation_report"]
    assert set(made.manifest.files) == {"report.json", "report.md", "report.html", "test_rewards.parquet"}
    names = ("score_plot", "gold_scatter", "reliability", "training_curve")  # no curve of two points
    assert made.manifest.plots == [f"{name}.png" for name in names]
    assert all((made.folder / plot).read_bytes().startswith(b"\x89PNG") for plot in made.manifest.plots)
    assert "match rate" in (made.folder / "report.md").read_text("utf-8").lower()


def test_the_kept_rewards_give_the_match_rate_again(chain: Chain) -> None:
    bench, made = chain[0], chain[1]["evaluation_report"]
    report = json.loads((made.folder / "report.json").read_text("utf-8"))
    rewards = list(read_table(made.folder / "test_rewards.parquet", ProxyReward))
    found = compare_models({"mine": rewards}, bench.recipe().evaluation)
    mine = next(model for model in found["models"] if model["model"] == "mine")
    assert mine["match_rate"]["value"] == report["match_rate"]["value"]
    assert (found["num_pairs"], found["num_ties"]) == (report["match_rate"]["n"], report["match_rate"]["num_ties"])
