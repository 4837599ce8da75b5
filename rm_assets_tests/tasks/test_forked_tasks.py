"""A task forked from a warm process makes the very bytes of one that is started."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rm_assets.executors import local, warm
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import ASSETS, Bench


@pytest.mark.slow
def test_all_assets_are_the_same(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[str] = []

    def fork(task: str, request: Path) -> warm.WarmTask | None:
        if found := warm.start_warm(task, request):
            forked.append(task)
        return found

    def made(start: Callable[[str, Path], warm.WarmTask | None]) -> list[str]:
        monkeypatch.setattr(local, "start_warm", start)
        bench = Bench(tmp_path_factory.mktemp("bench"))
        bench.write_toy()
        save_causal(bench.folder / "recipes" / "base")
        return [bench.make(bench.recipe(), asset).manifest.data_version for asset in ASSETS]

    started = made(lambda task, request: None)
    assert made(fork) == started
    assert len(forked) == len(ASSETS)
