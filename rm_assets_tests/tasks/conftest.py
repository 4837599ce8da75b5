"""A bench for tasks: recipe files and source files in one folder, a store beside them, real task processes."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rm_assets.core import recipe_files
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.executors.local import run_local
from rm_assets.executors.output import TaskEnd
from rm_assets.resources import compute
from rm_assets.resources.compute import Compute, Made
from rm_assets.storage.tables import TABLES, read_table
from rm_assets.tasks import session
from rm_assets_tests.fakes import save_causal, save_classifier

ASSETS = (
    "prompts", "sampled_responses", "gold_rewards", "implicit_pairs", "reward_model", "evaluation_report",
    "hub_release",
)  # fmt: skip


def files(*names: str) -> dict[str, Any]:
    return {"kind": "files", "files": list(names)}


TOY: dict[str, Any] = {
    "prompts": {
        "source": files("prompts.jsonl"), "test": files("test.jsonl"),
        "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
    },
    "sampling": {"kind": "recorded", "source": files("answers.jsonl")},
    "gold": {"kind": "recorded", "source": files("answers.jsonl"), "response_field": "response"},
    "training": {
        "base": {"path": "base"}, "max_length": 100, "pairs_per_step": 4, "learning_rate": 0.01, "num_epochs": 2,
    },
    "evaluation": {"num_canaries": 3},
    "execution": {"device": "cpu", "num_threads": 1, "shard_prompts": 4},
}  # fmt: skip
"""Prompts and test prompts in files; `answers.jsonl` holds two responses to each, with their gold rewards."""


class Bench:
    """One folder with sources, recipes and a store."""

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self.folder, self.home = folder, home or folder / "home"
        self.said: list[str] = []
        (folder / "recipes").mkdir(parents=True, exist_ok=True)

    def write(self, name: str, rows: list[Any] | str) -> Path:
        """A source file beside the recipes: text as it is, rows as JSON lines."""
        path = self.folder / "recipes" / name
        path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    def write_toy(self, num_train: int = 8, num_test: int = 4) -> None:
        """The source files of TOY."""
        train, test = [f"what is {n} and 1" for n in range(num_train)], [f"is {n} even" for n in range(num_test)]
        self.write("prompts.jsonl", [{"prompt": p} for p in train])
        self.write("test.jsonl", [{"prompt": p} for p in test])
        answers = [(p, text, reward) for p in train + test for text, reward in ((f"good {p[:9]}", 1), ("bad bad", 0))]
        self.write("answers.jsonl", [{"prompt": p, "response": t, "gold_reward": r} for p, t, r in answers])

    def be_all(self, patch: pytest.MonkeyPatch) -> None:
        """Its recipes and its store are those of this process, and no recipe ships with the package."""
        (self.folder / "shipped").mkdir()
        patch.setattr(recipe_files, "SHIPPED_FOLDER", self.folder / "shipped")
        patch.setenv("RM_ASSETS_RECIPES", str(self.folder / "recipes"))
        patch.setenv("RM_ASSETS_HOME", str(self.home))

    def recipe(self, name: str = "toy", **changes: Any) -> Recipe:
        """TOY with `changes`, written as a file and read again; a change of a section replaces that section."""
        (self.folder / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump({**TOY, **changes}))
        return RecipeBook(self.folder / "recipes", {}).load(name)

    def make(self, recipe: Recipe, *assets: str) -> Made:
        """Makes the assets in order, and returns the last one."""
        for asset in assets:
            made = Compute(home=str(self.home)).make_asset(recipe, asset, say=self.said.append, debug=self.said.append)
        return made

    def rows(self, made: Made) -> list[Any]:
        """The rows of a made table."""
        file, record = TABLES[made.manifest.asset]
        return list(read_table(made.folder / file, record))

    def manifests(self) -> dict[str, bytes]:
        """Every manifest in the store, with its bytes."""
        return {str(f.relative_to(self.home)): f.read_bytes() for f in self.home.glob("*/*/manifest.json")}

    def num_tasks_started(self) -> int:
        return sum(line.endswith(" starts") for line in self.said)


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Tasks do what their processes do, without the seconds that a process takes to start."""

    def run(task: str, request: Path, on_event: object, **options: object) -> TaskEnd:
        work = getattr(importlib.import_module(f"rm_assets.tasks.{task}"), task)
        session._run(work, json.loads(request.read_text("utf-8")), session.LineReporter())
        return TaskEnd(0, False, "")

    patch.setattr(compute, "run_local", run)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.write_toy()
    return made


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[TaskEnd]:
    """How the task processes of this test ended."""
    found: list[TaskEnd] = []

    def noting(task: str, request: Path, on_event: Callable[[dict[str, Any]], None], **options: Any) -> TaskEnd:
        found.append(run_local(task, request, on_event, **options))
        return found[-1]

    monkeypatch.setattr(compute, "run_local", noting)
    return found


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, dict[str, Made]]:
    """TOY through all seven assets, trained from a tiny Qwen3; slow, so made once and only read."""
    made = Bench(tmp_path_factory.mktemp("chain"))
    made.write_toy()
    save_causal(made.folder / "recipes" / "base")
    return made, {asset: made.make(made.recipe(), asset) for asset in ASSETS}


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, list[Made], list[Made]]:
    """Responses of a policy and rewards of a gold model: of 90 prompts, and again with one changed and one added."""
    made = Bench(tmp_path_factory.mktemp("grown"))
    made.write_toy(80, 10)
    save_causal(made.folder / "recipes" / "policy")
    save_classifier(made.folder / "recipes" / "gold")
    policy = {"kind": "policy", "policy": {"path": "policy"}, "num_responses": 3, "num_test_responses": 2}
    recipe = made.recipe(
        sampling={**policy, "max_new_tokens": 8},
        gold={"kind": "classifier", "model": {"path": "gold"}, "max_length": 200},
    )
    before = [made.make(recipe, asset) for asset in ASSETS[:3]]
    changed = ["what is 39 and 2" if n == 39 else f"what is {n} and 1" for n in range(81)]
    made.write("prompts.jsonl", [{"prompt": prompt} for prompt in changed])
    return made, before, [made.make(recipe, asset) for asset in ASSETS[:3]]
