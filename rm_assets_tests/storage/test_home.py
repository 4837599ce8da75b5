"""Where the store lies."""

from pathlib import Path

import pytest

from rm_assets.storage.home import find_home, find_workspace


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RM_ASSETS_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workspace.yaml").touch()
    monkeypatch.setenv("RM_ASSETS_HOME", "elsewhere")
    assert find_home() == tmp_path / "elsewhere"


def test_a_tilde_in_the_variable_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RM_ASSETS_HOME", "~/store")
    assert find_home() == tmp_path / "store"


def test_the_store_lies_beside_the_nearest_workspace_upward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workspace.yaml").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert find_home() == tmp_path / ".rm_assets"
    (tmp_path / "a" / "workspace.yaml").touch()
    assert find_home() == tmp_path / "a" / ".rm_assets"
    assert find_workspace(tmp_path) == tmp_path


def test_without_a_workspace_the_store_lies_in_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_workspace() is None
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert find_home() == tmp_path / "me" / ".local" / "share" / "rm_assets"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert find_home() == tmp_path / "data" / "rm_assets"


def test_finding_the_store_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RM_ASSETS_HOME", str(tmp_path / "store"))
    assert not find_home().exists()
