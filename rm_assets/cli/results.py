"""What a recipe's asset holds, read from the store."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from rm_assets.core.errors import StoreError
from rm_assets.core.stages import STAGES
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.home import find_home
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Manifest, Store
from rm_assets.storage.tables import TABLES, read_table

NUM_EXAMPLES = 3
IDENTITIES = {
    "prompts": "prompt_id", "sampled_responses": "response_id", "gold_rewards": "response_id", "implicit_pairs": "pair_id",
}  # fmt: skip
"""The column of a row's id."""


@dataclass(frozen=True)
class Found:
    """A committed asset."""

    asset: str
    manifest: Manifest
    folder: Path

    def as_json(self) -> dict[str, Any]:
        """report.json for evaluation_report, else manifest and path."""
        if self.asset == "evaluation_report":
            report: dict[str, Any] = json.loads((self.folder / "report.json").read_text("utf-8"))
            return report
        return {"path": str(self.path), **asdict(self.manifest)}

    @property
    def path(self) -> Path:
        """The folder that a user wants: the release or checkpoint itself where there is one."""
        inner = {"hub_release": "release", "reward_model": "checkpoint"}.get(self.asset)
        return self.folder / inner if inner else self.folder

    def print(self, console: Console) -> None:
        """For people."""
        if self.asset == "evaluation_report":
            console.print(Markdown((self.folder / "report.md").read_text("utf-8")))
            return
        table = Table("", self.asset, show_header=True)
        for name, value in {**self.manifest.counts, **self.manifest.facts}.items():
            table.add_row(name.replace("_", " "), escape(str(value)))
        console.print(table)
        console.print(f"path: {self.path}", highlight=False, markup=False, soft_wrap=True)
        for row in self._examples():
            lines = (f"[bold]{name}[/bold] {escape(str(value))}" for name, value in row.items())
            console.print("\n".join(lines), highlight=False, soft_wrap=True)
            console.print()

    def _examples(self) -> Iterator[dict[str, str]]:
        """The first ones; those of a table are its first rows, each with the id that `rm-assets trace` takes."""
        examples, identity = self.manifest.examples[:NUM_EXAMPLES], IDENTITIES.get(self.asset)
        if identity is None:
            yield from examples
            return
        file, record = TABLES[self.asset]
        for row, example in zip(read_table(self.folder / file, record), examples, strict=False):
            yield {identity: getattr(row, identity), **example}


def find(recipe: str, asset: str) -> Found:
    """The asset as the recipe wants it now. Raises: StoreError STORE_002 if it has not been made, RecipeError RECIPE_001."""
    if asset not in STAGES:
        raise StoreError("STORE_002", f"there is no asset '{asset}'", fix=f"one of {', '.join(STAGES)}")
    store = Store(find_home())
    not_made = StoreError(
        "STORE_002",
        f"{asset} of recipe '{recipe}' has not been made as the recipe wants it now (store: {store.home})",
        fix=f"run `rm-assets run {recipe}`",
    )
    try:
        want = wanted(store, recipe_book().load(recipe), asset)
    except StoreError as error:
        if error.code == "STORE_002":
            raise not_made from None
        raise
    if want.manifest is None:
        raise not_made
    return Found(asset, want.manifest, store.folder(asset, want.digest))
