"""The production instance of deploy/: a real Postgres, a code server and a daemon that empties the queue."""

import glob
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from rm_assets.core.stages import STAGES
from rm_assets.storage.home import find_home
from rm_assets.storage.registry import Registry
from rm_assets.storage.store import Store
from rm_assets_tests.processes import free_port, wait_for
from rm_assets_tests.test_dagster_commands import RECIPE
from rm_assets_tests.test_store_on_s3 import bucket_served, needs_s3

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
INITDB = next(iter([*glob.glob("/usr/lib/postgresql/*/bin/initdb"), *filter(None, [shutil.which("initdb")])]), None)
PASSWORD = "only for this test"
USER = "postgres"
"""Whose processes the database is where the tests run as root, which it refuses to run as."""


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to end, and waited for, when the block ends."""
    with open(log, "wb") as said, subprocess.Popen(command, stdout=said, stderr=said, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def postgres() -> Iterator[dict[str, str]]:
    """A new database on loopback, as the variables that name it."""
    assert INITDB is not None
    is_root = os.getuid() == 0
    folder, port = Path(tempfile.mkdtemp(prefix="rm-assets-postgres-")), free_port()
    owner: dict[str, Any] = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "cwd": folder} if is_root else {}
    try:
        (folder / "password").write_text(PASSWORD)
        if is_root:
            for path in (folder, folder / "password"):
                shutil.chown(path, USER)
        begin = ["--username", "dagster", "--auth", "scram-sha-256", "--pwfile", str(folder / "password")]
        subprocess.run(
            [INITDB, "--pgdata", str(folder / "data"), *begin], check=True, stdout=subprocess.DEVNULL, **owner
        )
        server = [str(Path(INITDB).parent / "postgres"), "-D", str(folder / "data"), "-k", str(folder)]
        with running([*server, "-h", "127.0.0.1", "-p", str(port)], folder / "log", **owner):
            ready = [str(Path(INITDB).parent / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 30)
            yield {
                "DAGSTER_POSTGRES_HOST": "127.0.0.1", "DAGSTER_POSTGRES_PORT": str(port),
                "DAGSTER_POSTGRES_DB": "postgres", "DAGSTER_POSTGRES_USER": "dagster",
                "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
            }  # fmt: skip
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def environment(postgres: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As deploy/docker-compose.yaml has it, in one folder of this machine."""
    for folder in ("dagster", "recipes"):
        (tmp_path / folder).mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path / "dagster")
    (tmp_path / "recipes" / "tiny.yaml").write_text(RECIPE.format(num_prompts=24))
    variables = postgres | {
        "DAGSTER_HOME": str(tmp_path / "dagster"), "DAGSTER_LOCAL_DIR": str(tmp_path / "local"),
        "RM_ASSETS_CODE_HOST": "127.0.0.1", "RM_ASSETS_CODE_PORT": str(free_port()),
        "RM_ASSETS_HOME": str(tmp_path / "store"), "RM_ASSETS_RECIPES": str(tmp_path / "recipes"),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def answers(*command: str) -> bool:
    return subprocess.run([str(BIN / command[0]), *command[1:]], capture_output=True, check=False).returncode == 0


def launch(priority: int) -> None:
    tags = f'{{"dagster/partition": "tiny", "dagster/priority": "{priority}"}}'
    where = ("-w", str(DEPLOY / "workspace.yaml"), "-j", "build_reward_model")
    subprocess.run(
        [str(BIN / "dagster"), "job", "launch", *where, "--tags", tags], check=True, capture_output=True, cwd=ROOT
    )


def test_a_checkout_and_a_place_without_one_have_the_same_instance() -> None:
    of_checkout, elsewhere = (ROOT / name for name in ("dagster.yaml", "rm_assets/cli/dagster.yaml"))
    assert yaml.safe_load(of_checkout.read_text()) == yaml.safe_load(elsewhere.read_text())


@pytest.mark.slow
@pytest.mark.skipif(INITDB is None, reason="needs Postgres (Debian: apt-get install postgresql)")
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("environment")
def test_the_daemon_takes_runs_from_the_queue_by_priority_and_one_of_a_recipe_at_a_time(tmp_path: Path) -> None:
    port, workspace = os.environ["RM_ASSETS_CODE_PORT"], str(DEPLOY / "workspace.yaml")
    code = ["code-server", "start", "--host", "127.0.0.1", "--port", port, "--module-name", "rm_assets.definitions"]
    with ExitStack() as stack:
        stack.enter_context(running([str(BIN / "dagster"), *code], tmp_path / "code.log", cwd=ROOT))
        wait_for(lambda: answers("dagster", "api", "grpc-health-check", "--port", port), 120)
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(tmp_path / "dagster")))
        assert type(instance.run_storage).__name__ == "PostgresRunStorage" and not instance.telemetry_enabled
        for priority in (-1, 5):
            launch(priority)
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.QUEUED] * 2
        daemon = [str(BIN / "dagster-daemon"), "run", "--workspace", workspace]
        stack.enter_context(running(daemon, tmp_path / "daemon.log", cwd=ROOT))
        wait_for(lambda: all(run.is_finished for run in instance.get_runs()), 400)
        assert answers("dagster-daemon", "liveness-check")
        records = sorted(instance.get_run_records(), key=lambda record: record.start_time or 0)
        assert [record.dagster_run.status for record in records] == [dg.DagsterRunStatus.SUCCESS] * 2
        assert [record.dagster_run.tags["dagster/priority"] for record in records] == ["5", "-1"]
        assert (records[0].end_time or 0) <= (records[1].start_time or 0)
    assert list((tmp_path / "local").iterdir()) and not list((tmp_path / "dagster").rglob("*.db"))


@pytest.mark.slow
@pytest.mark.skipif(INITDB is None, reason="needs Postgres (Debian: apt-get install postgresql)")
@needs_s3
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("environment")
def test_embedded_is_made_with_its_events_in_postgres_and_its_results_on_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bucket_served(tmp_path / "s3") as bucket:
        for name, value in bucket.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RM_ASSETS_HOME", "s3://models/team")
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
        build = [str(BIN / "dagster"), "job", "execute", "-m", "rm_assets.definitions", "-j", "build_reward_model"]
        for machine in ("one", "two"):
            monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / machine))
            ended = subprocess.run(
                [*build, "--tags", '{"dagster/partition": "embedded"}'], capture_output=True, text=True, cwd=ROOT, check=False,
            )  # fmt: skip
            assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stderr.count("nothing to do, made before") == len(STAGES)  # on the second machine
        with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
            assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
            made = instance.fetch_materializations(dg.AssetKey("evaluation_report"), limit=2).records
            rates = [record.asset_materialization.metadata["rm/match_rate"].value for record in made]  # type: ignore[union-attr]
            assert rates[0] == rates[1] > 0.85
            releases = Registry(Store(find_home())).releases()
            assert [(release.line, release.match_rate["value"]) for release in releases] == [
                ("embedded", pytest.approx(rates[0], abs=1e-6))
            ]


def test_containers_get_every_variable_that_the_instance_reads() -> None:
    read = re.findall(
        r"env: (\w+)", "".join((DEPLOY / f"{name}.yaml").read_text("utf-8") for name in ("dagster", "workspace"))
    )
    image = re.findall(r"^ +(?:ENV )?(\w+)=", (ROOT / "Dockerfile").read_text("utf-8").replace("ENV ", "    "), re.M)
    compose = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text("utf-8"))
    for service in ("code", "webserver", "daemon"):
        assert len(set(read)) == 8 and set(read) <= {*compose["services"][service]["environment"], *image}


def test_the_code_location_in_its_container_gets_every_variable_of_the_alerts() -> None:
    compose = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text("utf-8"))
    text = "".join(
        (ROOT / "rm_assets" / "automation" / f"{name}.py").read_text("utf-8") for name in ("webhook", "mail")
    )
    read = set(re.findall(r"\"(RM_ASSETS_\w+)\"", text))
    assert len(read) == 10 and read <= compose["services"]["code"]["environment"].keys()


def test_no_secret_is_in_a_file_of_deploy_and_each_image_has_its_version() -> None:
    text = "".join(path.read_text("utf-8") for path in DEPLOY.iterdir() if path.is_file())
    assert "PASSWORD:-" not in text and "PASSWORD=\n" in text
    images = re.findall(r"^ *image: (.*)$", text, re.M)
    assert images and all(re.search(r":\d+\.\d+", image) for image in images)
