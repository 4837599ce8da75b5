"""The import contracts hold, and breaking one is seen."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
BREACHES = {
    "core/pairing.py": "from rm_assets.storage.store import Store\n",
    "executors/local.py": "import dagster\n",
    "core/digests.py": "import torch\n",
    "serving/batching.py": "from rm_assets.tasks.session import Task\n",
    "storage/store.py": "from rm_assets.embedded.task import generate_prompts\n",
    "resources/search.py": "import optuna\n",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "rm_assets", copy / "rm_assets", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint(checkout: Path) -> subprocess.CompletedProcess[str]:
    # Without PYTHONPATH the linter would find the installed package instead of the copy.
    return subprocess.run(
        LINT, cwd=checkout, env={"PYTHONPATH": str(checkout), "PATH": ""}, capture_output=True, text=True, check=False
    )


def test_the_contracts_hold(checkout: Path) -> None:
    assert lint(checkout).returncode == 0, lint(checkout).stdout


@pytest.mark.parametrize("file", BREACHES)
def test_a_breach_fails_the_check(checkout: Path, file: str) -> None:
    path = checkout / "rm_assets" / file
    kept = path.read_text()
    path.write_text(kept + BREACHES[file])
    try:
        result = lint(checkout)
        assert result.returncode == 1, result.stdout
        assert "BROKEN" in result.stdout
    finally:
        path.write_text(kept)


def test_make_check_runs_the_contracts() -> None:
    recipe = (ROOT / "Makefile").read_text().split("check: install", 1)[1].split("\n\n", 1)[0]
    assert "lint-imports" in recipe and "mypy" in recipe and "ruff" in recipe
