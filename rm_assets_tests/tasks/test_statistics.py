"""Statistics beside the tables of real tasks: noticed when they are gone, shown in Dagster, part of no data version."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rm_assets.assets.materialization import materialize_result
from rm_assets.cli.stats import read_statistics
from rm_assets.core.digests import digest
from rm_assets.core.errors import StoreError
from rm_assets.tasks import session
from rm_assets_tests.tasks.conftest import ASSETS, TABLES, Bench, in_this_process


def test_each_table_has_statistics_that_change_no_data_version(bench: Bench) -> None:
    recipe = bench.recipe()
    for asset in ASSETS[:4]:
        made = bench.make(recipe, asset)
        assert sorted(made.manifest.extras) == ["histograms.svg", "stats.json"]
        assert made.manifest.data_version == digest({f: e["sha256"] for f, e in made.manifest.files.items()})
        stats = json.loads((made.folder / "stats.json").read_text("utf-8"))
        assert stats["asset"] == asset and stats["all"]["n"] == len(bench.rows(made))
        assert sum(section["n"] for section in stats["by_split"].values()) == stats["all"]["n"]
    assert set(ASSETS[:4]) == set(TABLES)


def test_statistics_that_are_gone_are_store_003(bench: Bench) -> None:
    made = bench.make(bench.recipe(), "prompts")
    (made.folder / "stats.json").unlink()
    with pytest.raises(StoreError, match=r"stats\.json is missing") as caught:
        bench.make(bench.recipe(), "prompts")
    assert caught.value.code == "STORE_003"


def test_a_fault_in_statistics_costs_them_and_not_the_table(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(asset: str, folder: Path) -> list[str]:
        raise ValueError("Too many bins for data range")

    in_this_process(monkeypatch)
    monkeypatch.setattr(session, "write_statistics", fault)
    made = bench.make(bench.recipe(), "prompts")
    assert made.manifest.extras == {} and made.manifest.counts["prompts"] == 12
    assert "warning: prompts has no statistics: ValueError: Too many bins for data range" in capsys.readouterr().out
    assert not any(key.startswith("stats/") for key in materialize_result(made).metadata or {})


def test_dagster_shows_figures_tables_and_a_picture(bench: Bench) -> None:
    made = bench.make(bench.recipe(), *ASSETS[:3])
    shown: dict[str, Any] = dict(materialize_result(made).metadata or {})
    assert shown["stats/tie_rate"] == 0 and shown["stats/length_correlation_within"] == 1
    table = shown["stats/by_split"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [column.name for column in table.schema.columns] == ["", "all rows", "train", "test"]
    assert table.records[0].data == {"": "rows", "all rows": "24", "train": "16", "test": "8"}
    assert "stats/tie_rate_by_mean_gold" not in shown  # every prompt has the mean gold reward 0.5
    assert "](data:image/svg+xml;base64," in shown["plot/histograms"].value


def test_a_page_longer_than_the_web_ui_should_carry_ends_before_a_section(bench: Bench) -> None:
    made = bench.make(bench.recipe(), "prompts")
    (made.folder / "short.md").write_text("# Title\n\n## All\n", "utf-8")
    (made.folder / "long.md").write_text("# Title\n\n## First\nwords\n\n## Texts\n" + "word " * 20_000, "utf-8")
    pages = {name: (materialize_result(made, page=name).metadata or {})["page"] for name in ("short.md", "long.md")}
    assert pages["short.md"].value == "# Title\n\n## All\n"
    assert pages["long.md"].value == "# Title\n\n## First\nwords\n\n\nThe rest is in long.md, in the asset's folder.\n"


def test_assets_without_statistics_have_a_line_each_and_the_others_are_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch)
    made = bench.make(bench.recipe(), "prompts")
    manifest = made.folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text("utf-8")) | {"extras": {}}))
    bench.make(bench.recipe(), "sampled_responses", "gold_rewards")
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    assert [stats["asset"] for stats in read_statistics("toy", None)] == ["sampled_responses", "gold_rewards"]
    assert capsys.readouterr().err == f"prompts was made without statistics; remove {made.folder} and run again\n"
