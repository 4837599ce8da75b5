"""A store with results that nobody made: committed by real code, with contents that say what they stand for."""

import os
import time
from pathlib import Path
from typing import Any

from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.storage.files import write_json
from rm_assets.storage.lineage import wanted
from rm_assets.storage.registry import Registry, Release, release_name
from rm_assets.storage.store import Store
from rm_assets_tests.tasks.conftest import TOY, Bench

DAY = 86_400.0


class Planted(Bench):
    """A bench that commits in milliseconds what tasks would make."""

    @property
    def store(self) -> Store:
        return Store(self.home)

    @property
    def book(self) -> RecipeBook:
        return RecipeBook(self.folder / "recipes", {})

    def build(self, key: str, *, to: str = "hub_release", days_ago: float = 100.0) -> str:
        """Commits all assets of a recipe up to one, as made and last written so many days ago, and returns its digest."""
        recipe = self.book.load(key)
        for asset, stage in STAGES.items():
            for name, of in {**stage.reads(recipe), asset: recipe}.items():
                want = wanted(self.store, of, asset_of(name))
                folder = self.store.folder(want.asset, want.digest)
                if want.manifest is None:
                    content = folder / ("release/lineage.json" if asset == "hub_release" else "rows")
                    write_json(content, self.lineage(want.inputs) if asset == "hub_release" else want.digest)
                    inputs = {n: {"digest": m.digest, "data_version": m.data_version} for n, m in want.inputs.items()}
                    made = {"at": f"{1e6 - days_ago:012.3f}"}
                    record = {
                        "asset": want.asset, "digest": want.digest, "recipe": of.name, "stage_version": stage.version,
                        "settings": want.settings, "inputs": inputs, "counts": {}, "work": {}, "made": made,
                    }  # fmt: skip
                    self.store.commit(record, folder, [str(content.relative_to(folder))])
                    age(folder, days_ago)
            if asset == to:
                return want.digest
        raise AssertionError(to)

    def lineage(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """As a release names what it comes from."""
        found: dict[str, Any] = {}
        for name, manifest in inputs.items():
            known = self.store.manifest(asset_of(name), manifest.digest)
            assert known
            reads = {n: self.store.manifest(asset_of(n), e["digest"]) for n, e in known.inputs.items()}
            found |= self.lineage(reads) | {name: {"digest": manifest.digest}}
        return found

    def release(self, key: str, **how: float) -> Release:
        """Builds and registers."""
        digest = self.build(key, **how)  # type: ignore[arg-type]
        manifest = self.store.manifest("hub_release", digest)
        assert manifest
        report, rate = manifest.inputs["evaluation_report"]["digest"], {"value": 0.8, "low": 0.7, "high": 0.9}
        release = Release(release_name(key, digest), key, digest, report, "whole", rate, "2026-01-01")
        Registry(self.store).add(release)
        return release


def age(path: Path, days: float) -> None:
    """Everything in `path` was last written so many days ago."""
    for each in (path, *path.rglob("*")):
        os.utime(each, (time.time() - days * DAY,) * 2, follow_symlinks=False)


def training(rate: float, **more: Any) -> dict[str, Any]:
    return {"training": {**TOY["training"], "learning_rate": rate, **more}}
