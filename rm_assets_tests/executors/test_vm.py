"""Machines that are made for a task: none is left, whatever happens, and what a lost one had committed is not done again.

The commands are stand-ins (cloud_stand_in.py) that really run what they are to run; no cloud has been asked.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from rm_assets import __version__
from rm_assets.cli.machines import machines
from rm_assets.core.recipe import VmExecutor
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.executors import gcloud
from rm_assets.executors import machines as shared
from rm_assets.executors.vm import provider_of
from rm_assets.resources.compute import Compute, Made
from rm_assets_tests.executors.cloud_stand_in import take_away
from rm_assets_tests.executors.conftest import GCLOUD, REPOSITORY, SKYPILOT, Place
from rm_assets_tests.executors.test_contract import DRIVER, WORK_FOR_LONG, Driver, wait_until_gone
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.processes import wait_for
from rm_assets_tests.tasks.conftest import TOY

SLOW = pytest.mark.slow
EXAMPLES = ("smoke-on-tpu", "smoke-on-gpu")


@pytest.fixture(params=["gcloud_place", pytest.param("skypilot_place", marks=SLOW)], ids=["gcloud", "skypilot"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def driver(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setattr(shared, "SECONDS_BETWEEN_TRIES", 0.1)
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache_here"))
    monkeypatch.setenv("RM_ASSETS_SECRET", "s")
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return Driver(place, tmp_path)


def machine_names(cloud: Path) -> list[str]:
    """Names of the machines that are there."""
    return sorted(machine.name for machine in (cloud / "machines").iterdir())


def calls(cloud: Path) -> list[list[str]]:
    return [json.loads(line) for line in (cloud / "calls").read_text().splitlines()]


def section(driver: Driver, **changes: Any) -> dict[str, Any]:
    return driver.place.section | changes


@pytest.mark.parametrize(("fault", "words"), [("stock", "none is in stock"), ("quota", "the quota is used up")])
def test_a_machine_that_cannot_be_had_is_said(driver: Driver, cloud: Path, fault: str, words: str) -> None:
    (cloud / "fault").write_text(fault)
    error = driver.refusal()
    assert error.code == "EXECUTOR_004" and words in error.what and machine_names(cloud) == []


@SLOW
@pytest.mark.parametrize("place", ["gcloud_place"], indirect=True)
def test_a_machine_that_comes_after_gcloud_gave_up_is_used_and_deleted(
    driver: Driver, cloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcloud, "SECONDS_BETWEEN_LOOKS", 0.2)
    (cloud / "fault").write_text("queue")
    assert not driver.make().was_there and machine_names(cloud) == []


@SLOW
@pytest.mark.parametrize("ending", ["well", "an error", "a failed setup", "cancelled while it is made"])
def test_no_machine_is_left_however_it_ends(driver: Driver, cloud: Path, ending: str) -> None:
    wheel = driver.folder / "rm_assets.whl"
    wheel.write_text("")
    install = section(driver, files=[str(wheel)], setup="test -e ~/rm_assets.whl && echo it is installed > ~/setup")
    if ending == "well":
        driver.make("note('setup', Path('~/setup').expanduser().read_text())\n", executor=install)
        assert driver.noted("setup") == "it is installed\n"
    elif ending == "an error":
        assert driver.refusal("os._exit(3)\n").code == "TASK_002"
    elif ending == "a failed setup":
        error = driver.refusal(executor=install | {"setup": "echo no such wheel; exit 1"})
        assert error.code == "EXECUTOR_003" and "no such wheel" in error.why
    else:
        (cloud / "fault").write_text("hang")
        main = threading.current_thread().ident
        assert main is not None

        def interrupt() -> None:
            wait_for(lambda: machine_names(cloud), 20)
            signal.pthread_kill(main, signal.SIGINT)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            driver.make()
        interrupting.join()
    assert machine_names(cloud) == [] and len(calls(cloud)) >= 2


@SLOW
def test_a_machine_that_cannot_be_deleted_is_named_with_the_command_to_type(
    driver: Driver, cloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cloud / "fault").write_text("delete")
    driver.make(asset="prompts")  # it is tried again
    assert machine_names(cloud) == []
    monkeypatch.setattr(shared, "NUM_TRIES", 1)
    (cloud / "fault").write_text("delete")
    with pytest.raises(shared.ExecutorError) as caught:
        driver.make(asset="sampled_responses")
    (name,) = machine_names(cloud)
    assert caught.value.code == "EXECUTOR_005" and name in caught.value.what
    command = "gcloud compute instances delete" if driver.place.section["machine"] is GCLOUD else "sky down --yes"
    assert f"type: {command} {name}" in caught.value.fix


@SLOW
def test_a_machine_that_is_taken_away_is_followed_by_one_that_goes_on_from_its_shards(
    driver: Driver, cloud: Path
) -> None:
    code = (
        "shard = task.store.home / 'shards' / 'kind' / 'identity' / 'a.parquet'\n"
        "if not shard.exists():\n    shard.parent.mkdir(parents=True)\n    shard.write_text('rows')\n"
        "    note('committed')\n    wait_until('never')\n"
        "note('found', shard.read_text())\n"
    )

    def take_it_away() -> None:
        driver.noted("committed")
        wait_for(
            lambda: list((driver.folder / "bucket" / "work").rglob("kind-identity-a.json")),
            20,
        )
        (name,) = machine_names(cloud)
        take_away(cloud, name)

    taking = threading.Thread(target=take_it_away)
    taking.start()
    made = driver.make(code)
    taking.join()
    assert driver.noted("found") == "rows" and not made.was_there
    assert "prompts: goes on from 1 committed shards or states of another machine" in driver.said
    assert machine_names(cloud) == []
    assert [file for file in (driver.folder / "bucket" / "work").rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("place", ["gcloud_place"], indirect=True)
@pytest.mark.parametrize("what", ["a machine that goes", "a setup that fails"])
def test_only_a_machine_that_goes_while_it_is_made_ready_is_followed_by_another(
    driver: Driver, cloud: Path, what: str
) -> None:
    goes = 'rm -rf "$PWD";' if what == "a machine that goes" else ""
    first = driver.folder / "first"
    executor = section(driver, setup=f"test -e {first} && exit 0; touch {first}; {goes} echo no more disk; exit 1")
    if goes:
        assert not driver.make(executor=executor).was_there
        assert [line for line in driver.said if "was taken away before the task began: another one goes on" in line]
    else:
        assert "no more disk" in driver.refusal(executor=executor).why
    assert len([line for line in driver.said if "making the machine" in line]) == (2 if goes else 1)
    assert machine_names(cloud) == []


@SLOW
def test_machines_that_are_taken_away_again_and_again_are_given_up(driver: Driver, cloud: Path) -> None:
    code = "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)\n"  # as if the machine had gone
    error = driver.refusal(code, executor=section(driver, max_machines=2))
    assert error.code == "EXECUTOR_003" and "the connection broke" in error.what and machine_names(cloud) == []
    assert len([line for line in driver.said if "making the machine" in line]) == 2


def trained(driver: Driver, url: str, executor: dict[str, Any]) -> Made:
    """A model of 80 steps, trained by `executor`."""
    recipe = driver.bench.recipe(
        training={**TOY["training"], "num_epochs": 40},
        execution={**TOY["execution"], "save_every_steps": 5, "executors": {"train": executor}},
    )
    for asset in ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs", "reward_model"):
        made = Compute(home=url).make_asset(recipe, asset, say=driver.said.append, debug=driver.said.append)
    return made


@SLOW
@pytest.mark.parametrize("place", ["gcloud_place"], indirect=True)
def test_a_training_that_is_taken_away_gives_the_model_of_an_undisturbed_one(driver: Driver, cloud: Path) -> None:
    save_causal(driver.folder / "recipes" / "base")

    def take_it_away() -> None:
        wait_for(lambda: list((driver.folder / "bucket" / "work").rglob("checkpoint-*.json")), 120)
        (name,) = machine_names(cloud)
        take_away(cloud, name)

    taking = threading.Thread(target=take_it_away)
    taking.start()
    made = trained(driver, driver.url, driver.place.section)
    taking.join()
    assert [line for line in driver.said if "goes on from" in line] and machine_names(cloud) == []
    undisturbed = trained(driver, (driver.folder / "other").as_uri(), {"kind": "local"})
    assert made.manifest.data_version == undisturbed.manifest.data_version


@pytest.fixture
def killed(driver: Driver, cloud: Path) -> list[int]:
    """Processes of a task whose driver was killed."""
    (cloud / "hurry").touch()  # so that 3 minutes are 18 seconds
    driver.recipe(WORK_FOR_LONG, executor=section(driver, max_hours=3 / 60))
    command = [sys.executable, "-c", DRIVER, str(driver.folder / "recipes"), driver.url]
    with subprocess.Popen(command, stdout=-3, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}) as process:
        pids = driver.pids()
        process.kill()
    assert len(machine_names(cloud)) == 1
    return pids


@SLOW
def test_what_a_killed_driver_leaves_is_found_and_deleted(
    driver: Driver, cloud: Path, killed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(driver.folder / "recipes"))
    (cloud / "machines" / shared.name_of("rm-train-0123456789abcdef-abcdef", 1)).mkdir()  # of this process, which lives
    (cloud / "machines" / "rm-train-0123456789abcdef-abcdef-elsewhere-1-1").mkdir()
    console = Console(record=True, width=200)
    machines(remove=False, in_use=False, console=console)
    assert len(machine_names(cloud)) == 3 and console.export_text(clear=False).count("left over") == 1
    machines(remove=True, in_use=False, console=console)
    assert len(machine_names(cloud)) == 2 and not [name for name in machine_names(cloud) if "ingest" in name]
    machines(remove=True, in_use=True, console=console)
    assert machine_names(cloud) == []
    wait_until_gone(killed)


@SLOW
@pytest.mark.parametrize("place", ["gcloud_place"], indirect=True)
def test_a_command_that_is_not_there_hides_no_machine_of_another(
    driver: Driver, cloud: Path, killed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"kind": "vm", "machine": SKYPILOT | {"command": "/nowhere/sky"}}
    driver.recipe(WORK_FOR_LONG, executors={"train": absent, "score": driver.place.section})
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(driver.folder / "recipes"))
    with pytest.raises(shared.ExecutorError, match="/nowhere/sky"):
        machines(remove=True, in_use=False, console=Console())
    assert machine_names(cloud) == []
    wait_until_gone(killed)


@SLOW
@pytest.mark.parametrize("place", ["gcloud_place"], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP], ids=["kill", "closed terminal"])
def test_a_run_that_is_ended_politely_leaves_no_machine(driver: Driver, cloud: Path, how: signal.Signals) -> None:
    driver.recipe(WORK_FOR_LONG)
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY), "RM_ASSETS_HOME": driver.url, "DAGSTER_HOME": "",
        "RM_ASSETS_RECIPES": str(driver.folder / "recipes"),
    }  # fmt: skip
    command = [sys.executable, "-m", "rm_assets.cli.main", "run", "toy", "--select", "prompts"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=driver.folder) as run:
        pids = driver.pids()
        run.send_signal(how)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 1 and "cancelled" in said and machine_names(cloud) == []
    wait_until_gone(pids)


@SLOW
def test_what_a_killed_driver_leaves_ends_by_itself(cloud: Path, killed: list[int]) -> None:
    wait_for(lambda: not machine_names(cloud), 30, "the end of the machine")
    wait_until_gone(killed)


def test_a_tpu_is_asked_for_in_gclouds_words(cloud: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{cloud / 'bin'}{os.pathsep}{os.environ['PATH']}")
    machine = GCLOUD | {
        "machine_type": "ct6e-standard-4t",
        "provisioning": "flex_start",
        "project": "p",
        "container": "image:1",
        "tunnel_through_iap": True,
    }
    executor = VmExecutor.model_validate({"kind": "vm", "machine": machine, "max_hours": 2})
    provider = provider_of(executor.machine)
    provider.create("m", executor)
    provider.prepare("m", executor)
    create, wait = calls(cloud)
    assert create == [
        "gcloud", "compute", "instances", "create", "m", "--zone=us-central1-a", "--project=p", "--machine-type=ct6e-standard-4t",
        "--provisioning-model=FLEX_START", "--request-valid-for-duration=2h", "--reservation-affinity=none",
        "--max-run-duration=7200s", "--instance-termination-action=DELETE", "--maintenance-policy=TERMINATE", "--no-restart-on-failure",
        "--image-family=f", "--image-project=p", "--boot-disk-size=200GB", "--labels=rm-assets=task", "--scopes=cloud-platform",
        "--quiet",
    ]  # fmt: skip
    assert wait[:5] == ["gcloud", "compute", "ssh", "m", "--quiet"]
    assert {"--tunnel-through-iap", "--command=true"} <= set(wait)
    remote = next(word for word in provider.command("m", "exec python3 -m x") if word.startswith("--command="))
    assert remote == (
        "--command=exec docker run --rm --init --interactive --privileged --network=host --ipc=host image:1 "
        "sh -c 'exec python3 -m x'"
    )
    with_gpu = executor.machine.model_copy(update={"machine_type": "g2-standard-8"})
    assert any(" --gpus=all " in word for word in provider_of(with_gpu).command("m", "true"))


def test_a_gpu_is_asked_for_in_skypilots_words(cloud: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{cloud / 'bin'}{os.pathsep}{os.environ['PATH']}")
    machine = SKYPILOT | {"infra": "gcp", "memory": "64+", "spot": True, "container": "image:1"}
    executor = VmExecutor.model_validate({"kind": "vm", "machine": machine, "max_hours": 1.5, "setup": "true"})
    provider_of(executor.machine).create("m", executor)
    assert calls(cloud)[0][:-1] == [
        "sky", "launch", "--yes", "--cluster=m", "--idle-minutes-to-autostop=90", "--wait-for=none", "--down",
    ]  # fmt: skip
    assert json.loads((cloud / "task.yaml").read_text()) == {
        "resources": {
            "infra": "gcp", "accelerators": "L4:1", "memory": "64+", "use_spot": True, "disk_size": 256,
            "labels": {"rm-assets": "task"}, "image_id": "docker:image:1",
        },
        "setup": "true",
    }  # fmt: skip


def test_without_the_command_it_is_said(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver.refusal().code == "EXECUTOR_002"


def test_without_a_login_it_is_said_why_no_machine_was_made(driver: Driver, cloud: Path) -> None:
    (cloud / "fault").write_text("login")
    error = driver.refusal()
    assert error.code == "EXECUTOR_005" and "failed, and whether the machine rm-ingest-" in error.what
    assert "do not currently have an active account" in error.why and "rm-assets machines" in error.fix
    assert machine_names(cloud) == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_copy_the_wheel_that_their_page_says_to_build(example: str) -> None:
    executor = (
        RecipeBook(REPOSITORY / "docs" / "examples" / "machines", {}).load(example).execution.executor_of("train")
    )
    assert isinstance(executor, VmExecutor)
    assert executor.files == [str(REPOSITORY / "dist" / f"rm_assets-{__version__}-py3-none-any.whl")]
    assert executor.setup is not None and f"~/rm_assets-{__version__}-py3-none-any.whl" in executor.setup
    assert "pip wheel --no-deps --wheel-dir dist ." in (REPOSITORY / "docs" / "executors.md").read_text("utf-8")


@SLOW
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_smoke_run_of_the_examples_trains_ten_steps_on_a_machine(
    example: str, cloud: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = yaml.safe_load((REPOSITORY / "docs" / "examples" / "machines" / f"{example}.yaml").read_text("utf-8"))
    recipe["execution"]["executors"]["train"] |= {
        "files": [],
        "setup": "true",
        "python": sys.executable,
        "environment": [],
    }
    (tmp_path / f"{example}.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setenv("PATH", f"{cloud / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(tmp_path))
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache_here"))
    compute, said = Compute(home=(tmp_path / "bucket").as_uri(), smoke=True), list[str]()
    for asset in ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs", "reward_model"):
        made = compute.make_asset(compute.recipe(example), asset, say=said.append, debug=said.append)
    assert made.manifest.counts["optimizer_steps"] == 10
    assert [name for name in made.manifest.files if name.endswith("/model.safetensors")]
    assert len([line for line in said if "making the machine" in line]) == 1 and machine_names(cloud) == []
