"""`rm-assets health` as a user would type it: its lines, its JSON, its exit status, and what it never says."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from rm_assets_tests.fake_server import serving as serving_models
from rm_assets_tests.loopback_hub import as_json, fault, serving
from rm_assets_tests.tasks.conftest import TOY, Bench
from rm_assets_tests.test_health_network import HubOfReplies

COMMAND = [str(Path(sys.executable).parent / "rm-assets"), "health"]
CREDENTIALS = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "TOY_KEY",
)  # fmt: skip


def health(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("DAGSTER_HOME", "RM_ASSETS_RECIPES", *CREDENTIALS)}
    given = {"RM_ASSETS_HOME": str(home / "store"), "HOME": str(home), "COLUMNS": "160", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=kept | given | environment, cwd=home, check=False
    )


def conditions(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(result.stdout)["conditions"]}


def test_a_machine_without_network_and_account_is_healthy_and_nothing_is_left_behind(tmp_path: Path) -> None:
    started = time.monotonic()
    result = health(home=tmp_path)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert lines[-1].startswith("0 errors, 0 warnings, ") or "SETUP_005" in result.stdout
    assert any(line.startswith("ok") and "8 assets" in line for line in lines)
    assert time.monotonic() - started < 30  # 5 s on two quiet cores
    assert not (tmp_path / "store").exists()


def test_a_recipe_with_a_typo_is_named_with_its_code_and_the_others_load(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.recipe("sound")
    (tmp_path / "recipes" / "mine.yaml").write_text(yaml.safe_dump(TOY | {"sampling": {"kind": "recordet"}}))
    result = health("--json", home=tmp_path, RM_ASSETS_RECIPES=str(tmp_path / "recipes"))
    assert result.returncode == 1 and json.loads(result.stdout)["status"] == "error"
    found = conditions(result)
    assert found["recipe mine"]["code"] == "RECIPE_003" and "did you mean 'recorded'?" in found["recipe mine"]["what"]
    assert found["recipes"]["what"] == "8 of 9 load"
    assert health("sound", home=tmp_path, RM_ASSETS_RECIPES=str(tmp_path / "recipes")).returncode == 1  # no base
    gone = health("sund", home=tmp_path, RM_ASSETS_RECIPES=str(tmp_path / "recipes"))
    assert gone.returncode == 1 and "RECIPE_001" in gone.stdout and "did you mean 'sound'?" in gone.stdout


def test_a_folder_of_recipes_and_a_store_that_are_not_there_are_errors_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = health(
        "--json", home=tmp_path, RM_ASSETS_HOME=str(tmp_path / "file"), RM_ASSETS_RECIPES=str(tmp_path / "absent")
    )
    assert result.returncode == 1 and result.stderr == ""
    found = conditions(result)
    assert {name: found[name]["code"] for name in ("store", "definitions", "recipes")} == {
        "store": "STORE_001", "definitions": "RECIPE_001", "recipes": "RECIPE_001",
    }  # fmt: skip


def test_no_part_of_a_credential_is_ever_printed(tmp_path: Path) -> None:
    """Each in its variable or address, told to servers that echo what they were sent, in good times and in bad ones."""
    bench, secrets = (
        Bench(tmp_path),
        {name: f"{number}Zq7secretXv-{name.lower()}" for number, name in enumerate(CREDENTIALS)},
    )
    with serving_models() as server, serving(HubOfReplies()) as hub:
        server.key = "another"
        place = {"base_url": server.base_url, "model": "toy", "revision": "1", "api_key_env": "TOY_KEY"}
        bench.recipe(
            sampling={"kind": "server", **place},
            gold={"kind": "verifier"},
            tracking={"wandb": {"mode": "online"}},
            training={"base": {"hub_id": "me/base"}, "learning_rate": 0.01},
            release={"hub_id": "me/toy"},
        )
        said = fault(401, "", f"no such token: {secrets['HF_TOKEN']}")
        address = hub.endpoint.replace("http://", f"http://me:{secrets['KAGGLE_KEY']}@")
        environment = secrets | {
            "HF_HUB_OFFLINE": "0", "RM_ASSETS_RECIPES": str(tmp_path / "recipes"), "HF_HOME": str(tmp_path / "hf"),
            "WANDB_BASE_URL": hub.endpoint, "HF_ENDPOINT": hub.endpoint, "NO_PROXY": "127.0.0.1",
            "HTTPS_PROXY": f"http://me:{secrets['AWS_SESSION_TOKEN']}@127.0.0.1:9",
        }  # fmt: skip
        runs = []
        for replies in ({"graphql": as_json({"data": {"viewer": {"id": "1"}}})}, {"": said}):
            hub.replies = replies
            runs += [health(*arguments, home=tmp_path, **environment) for arguments in (["--json"], ["toy"])]
        hub.replies = {"": fault(401, "", "no such user")}
        environment |= {"WANDB_BASE_URL": address, "HF_ENDPOINT": address}
        runs.append(health("toy", "--json", home=tmp_path, **environment))
    assert any("Bearer" in str(sent) for sent in hub.authorizations)  # the token was sent where it belongs
    for run in runs:
        assert "credential HF_TOKEN" in run.stdout and "SERVER_002" in run.stdout
        assert "Zq7" not in run.stdout + run.stderr and "secretXv" not in run.stdout + run.stderr
