"""The workflows of templates/repository and our own: valid, careful, and a TPU machine deleted whatever happens, by a gcloud that takes notes."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from rm_assets_tests.workflows import ROOT, TEMPLATE, WORKFLOWS, command, jobs, put_on_path, run_job

TPU = TEMPLATE / ".github" / "workflows" / "tpu.yml"
PINNED = re.compile(r"^ +-? ?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")

GCLOUD = f"""#!{sys.executable} -SE
import os, pathlib, re, sys, time
said = " ".join(sys.argv[1:])
with open("calls.txt", "a") as calls:
    calls.write(" ".join(said.split()) + "\\n")
machine = pathlib.Path("machine")
if "instances create" in said:
    machine.write_text(sys.argv[4])
if os.environ.get("FAILS") and re.search(os.environ["FAILS"], said, re.DOTALL):
    sys.exit("refused: " + said)
if "rm-assets run" in said:
    time.sleep(float(os.environ.get("SECONDS", "0")))
if "instances delete" in said:
    machine.unlink(missing_ok=True)
if "instances list" in said and machine.exists():
    print(machine.read_text())
if said.endswith("results results"):
    pathlib.Path("results").mkdir()
"""


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="needs check-jsonschema (in the extra dev)")
def test_workflows_are_what_github_takes() -> None:
    schema = ("--builtin-schema", "vendor.github-workflows")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema, *WORKFLOWS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(find_spec("pre_commit") is None, reason="needs pre-commit (in the extra dev)")
def test_hooks_are_what_pre_commit_takes() -> None:
    files = [folder / ".pre-commit-config.yaml" for folder in (ROOT, TEMPLATE)]
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", *files], check=True)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_pins_its_actions_limits_its_rights_and_its_time_and_puts_no_expression_into_a_script(
    file: Path,
) -> None:
    text = file.read_text("utf-8")
    whole = yaml.safe_load(text)
    uses = [line for line in text.splitlines() if "uses:" in line]
    assert uses and all(PINNED.match(line) for line in uses)
    assert whole["permissions"] in ({}, {"contents": "read"}) and "concurrency" in whole
    for job in whole["jobs"].values():
        assert "timeout-minutes" in job
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")  # what a person wrote would run there
            if "run" in step:
                subprocess.run(["bash", "-n", "-c", step["run"]], check=True)
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
    # A secret goes to the steps that need it and nowhere else.
    of_steps = [step for job in whole["jobs"].values() for step in job["steps"]]
    assert text.count("secrets.") == sum(str(step.get("env", {})).count("secrets.") for step in of_steps)


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """A checkout with a commit, and a gcloud that takes notes."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "requirements.txt").write_text("rm-assets\n")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.example")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "first")):
        subprocess.run([*git, *words], cwd=folder, check=True)
    put_on_path(tmp_path / "bin", "gcloud", GCLOUD)
    return folder


def tpu_values(recipe: str = "mine", steps: str = "ten") -> dict[str, str]:
    return {
        "vars.GCP_PROJECT": "p", "vars.TPU_ZONE": "z", "github.run_id": "12", "github.run_attempt": "1", "inputs.recipe": recipe,
        "inputs.steps == 'ten' && '--smoke' || ''": "--smoke" if steps == "ten" else "",
        "inputs.steps == 'ten' && '90m' || '6h'": "90m" if steps == "ten" else "6h",
        "vars.TPU_MACHINE_TYPE || 'ct6e-standard-1t'": "ct6e-standard-1t", "vars.TPU_IMAGE_FAMILY": "f", "vars.TPU_IMAGE_PROJECT": "i",
    }  # fmt: skip


def cloud_environment(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": f"{folder.parent / 'bin'}:{os.environ['PATH']}", "SECONDS_BETWEEN_TRIES": "0", **more}


def verbs(folder: Path) -> list[str]:
    """What was asked of the cloud, a word each."""
    lines = (folder / "calls.txt").read_text().splitlines()
    return [
        "run" if "rm-assets run" in line else line.removeprefix("compute ").removeprefix("instances ").split()[0]
        for line in lines
    ]


@pytest.mark.parametrize(("steps", "limit"), [("ten", "90m"), ("full", "6h")])
def test_a_tpu_machine_is_created_used_and_deleted(cloud: Path, steps: str, limit: str) -> None:
    passed, said = run_job(jobs(TPU)["run"], cloud, tpu_values(steps=steps), cloud_environment(cloud))
    assert passed, said
    assert verbs(cloud) == ["create", "ssh", "scp", "run", "scp", "delete", "list"]
    calls = (cloud / "calls.txt").read_text().splitlines()
    assert f"--max-run-duration={limit} --instance-termination-action=DELETE" in calls[0]
    assert ("--smoke" in calls[3]) is (steps == "ten") and "run 'mine' --select '*evaluation_report'" in calls[3]


@pytest.mark.parametrize(
    ("fails", "asked"),
    [
        ("rm-assets run", ["create", "ssh", "scp", "run", "delete", "list"]),
        ("instances create", ["create", "delete", "list"]),  # it may have come into being all the same
        ("scp --recurse", ["create", "ssh", "scp", "run", "scp", "delete", "list"]),
        ("--command=true", ["create", *["ssh"] * 30, "delete", "list"]),
    ],
)
def test_a_tpu_machine_is_deleted_whatever_fails(cloud: Path, fails: str, asked: list[str]) -> None:
    passed, _ = run_job(jobs(TPU)["run"], cloud, tpu_values(), cloud_environment(cloud, FAILS=fails))
    assert not passed and verbs(cloud) == asked and not (cloud / "machine").exists()


def test_a_tpu_machine_that_cannot_be_deleted_is_named_as_an_error(cloud: Path) -> None:
    passed, said = run_job(jobs(TPU)["run"], cloud, tpu_values(), cloud_environment(cloud, FAILS="instances delete"))
    assert not passed and "::error::rm-assets-12-1 may still exist" in said
    assert verbs(cloud)[-11:] == ["delete", *["list", "delete"] * 5]


def test_a_list_that_fails_does_not_pass_for_a_machine_that_is_gone(cloud: Path) -> None:
    passed, said = run_job(jobs(TPU)["run"], cloud, tpu_values(), cloud_environment(cloud, FAILS="instances list"))
    assert not passed and "may still exist" in said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_tpu_machine_is_deleted_when_the_workflow_is_cancelled(cloud: Path, how: signal.Signals) -> None:
    job = jobs(TPU)["run"]
    step = next(step for step in job["steps"] if step.get("name") == "Create, run, fetch")
    env = {
        **os.environ,
        **cloud_environment(cloud, SECONDS="60"),
        "MACHINE": "m",
        "RECIPE": "mine",
        "SMOKE": "",
        "MAX_RUN": "6h",
    }
    env |= {"MACHINE_TYPE": "t", "IMAGE_FAMILY": "f", "IMAGE_PROJECT": "i"}
    process = subprocess.Popen(
        command(step["run"]), cwd=cloud, env=env, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            if (cloud / "calls.txt").exists() and "rm-assets run" in (cloud / "calls.txt").read_text():
                break
            time.sleep(0.05)
        os.killpg(process.pid, how)
        assert process.wait(20) != 0
    finally:
        process.kill()
    assert verbs(cloud)[-1] == "delete" and not (cloud / "machine").exists()


def test_a_name_that_is_no_recipe_reaches_no_machine(cloud: Path) -> None:
    passed, said = run_job(jobs(TPU)["run"], cloud, tpu_values("a; rm -rf /"), cloud_environment(cloud))
    assert not passed and "not the name of a recipe" in said and verbs(cloud) == ["list"]
