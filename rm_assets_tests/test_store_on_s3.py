"""A store on an S3-compatible server on this machine: one machine makes, a second one finds everything made."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from rm_assets.core.records import Pair
from rm_assets.core.stages import STAGES
from rm_assets.storage.tables import read_table
from rm_assets_tests.processes import free_port
from rm_assets_tests.test_dagster_commands import RECIPE

MISSING = [name for name in ("s3fs", "moto", "flask") if importlib.util.find_spec(name) is None]
COMMAND = str(Path(sys.executable).parent / "rm-assets")

needs_s3 = pytest.mark.skipif(
    bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install -c constraints.txt s3fs 'moto[server]'"
)
pytestmark = [pytest.mark.slow, needs_s3]


COMMIT = """
import sys
from rm_assets.storage.home import find_home
from rm_assets.storage.store import Store
store = Store(find_home())
if sys.argv[1] == "commit":
    folder = store.folder("prompts", "d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "large").write_bytes(bytes(120_000_000))
    record = {"asset": "prompts", "digest": "d", "recipe": "r", "stage_version": 1}
    empty = {"settings": {}, "inputs": {}, "counts": {}, "work": {}}
    store.commit(record | empty, folder, ["large"])
found = store.manifest("prompts", "d")
print(found and (store.folder("prompts", "d") / "large").stat().st_size)
"""
"""Commits a file that is uploaded in parts, or looks for it."""


@dataclass
class Bucket:
    """A server with the bucket `models`, and machines that use it."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    folder: Path

    def environment(self) -> dict[str, str]:
        """Credentials for the server, and for no other."""
        return {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME" and not k.startswith("AWS_")} | {
            "AWS_ENDPOINT_URL": self.address, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """What a command says."""
        return subprocess.run(
            command, capture_output=True, text=True, env=self.environment() | variables, cwd=self.folder, check=False
        )

    def rm_assets(
        self, machine: str, *arguments: str, url: str = "s3://models/team"
    ) -> subprocess.CompletedProcess[str]:
        """What our command says on a machine: a machine is a cache, and an instance of Dagster in it."""
        return self.run(
            COMMAND, *arguments, RM_ASSETS_HOME=url, RM_ASSETS_CACHE=str(self.folder / machine),
            RM_ASSETS_RECIPES=str(self.folder / "recipes"), OMP_NUM_THREADS="1", COLUMNS="200",
        )  # fmt: skip

    def requests(self) -> Counter[str]:
        """Requests since the last time, by what they ask for."""
        lines = re.findall(r'"(?:\x1b\[\d+m)*([A-Z]+) /models(\S*) HTTP', self.log.read_text("utf-8"))
        self.log.write_text("")
        kinds = ("list-type", "/manifests/", "/files/", "/registry/")
        return Counter(f"{verb} {next((kind for kind in kinds if kind in path), path)}" for verb, path in lines)


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[Bucket]:
    """A server and a recipe, `tiny`."""
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes" / "tiny.yaml").write_text(RECIPE.format(num_prompts=24))
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | variables)
    try:
        for _ in range(120):
            with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.5)
        yield Bucket(process, f"http://127.0.0.1:{port}", folder / "log", folder)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def bucket_served(folder: Path) -> Iterator[Bucket]:
    """A server with the bucket `models`, empty."""
    with serving(folder) as served:
        made = served.run(sys.executable, "-c", "import s3fs; s3fs.S3FileSystem().mkdir('models')")
        assert made.returncode == 0, made.stderr
        yield served


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with bucket_served(tmp_path_factory.mktemp("s3")) as served:
        yield served


@pytest.mark.timeout(600)
def test_a_second_machine_finds_everything_made_and_traces_it(bucket: Bucket) -> None:
    made = bucket.rm_assets("one", "run", "tiny")
    assert made.returncode == 0, made.stdout + made.stderr
    of_making = bucket.requests()
    assert "uploading to s3://models/team" in made.stderr

    said = bucket.rm_assets("two", "outdated", "tiny")
    assert "every recipe in use is up to date" in said.stdout, said.stdout + said.stderr
    of_looking = bucket.requests()
    assert of_looking["GET list-type"] == of_looking["GET /manifests/"] == len(STAGES)
    assert of_looking.total() == 2 * len(STAGES)  # what is made is known by its manifest alone
    assert not list(bucket.folder.glob("two/*/*/*/manifest.json"))

    again = bucket.rm_assets("two", "run", "tiny")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("made before") == len(STAGES) and " starts" not in again.stderr
    (release,) = (line.split()[-1] for line in again.stdout.splitlines() if line.startswith("release:"))
    assert Path(release).is_dir() and Path(release).is_relative_to(bucket.folder / "two")
    of_finding = bucket.requests()
    assert not any(verb.startswith("PUT") for verb in of_finding), of_finding
    for command in (("show", "implicit_pairs", "--recipe", "tiny", "--json"), ("release", "list", "--json")):
        one, two = (json.loads(bucket.rm_assets(machine, *command).stdout) for machine in ("one", "two"))
        assert json.dumps(one).replace("/one/", "/two/") == json.dumps(two)
    (pairs,) = bucket.folder.glob("two/*/implicit_pairs/*/pairs.parquet")
    pair = next(iter(read_table(pairs, Pair)))
    traced = bucket.rm_assets("three", "trace", "--pair", pair.pair_id, "--recipe", "tiny", "--json")
    assert len(json.loads(traced.stdout)["gold_rewards"]) == 2, traced.stderr
    bucket.requests()
    assert "every recipe in use is up to date" in bucket.rm_assets("two", "outdated", "tiny").stdout
    assert bucket.requests().total() == 0
    print(f"requests: to make {of_making}; to look {of_looking}; to find made and read {of_finding}")


def test_a_process_that_is_killed_while_it_uploads_leaves_nothing_that_counts(bucket: Bucket) -> None:
    command = (sys.executable, "-c", COMMIT)
    places = {
        machine: {"RM_ASSETS_HOME": "s3://models/cut", "RM_ASSETS_CACHE": str(bucket.folder / machine)}
        for machine in ("killed", "other")
    }
    bucket.requests()
    with subprocess.Popen([*command, "commit"], env=bucket.environment() | places["killed"]) as process:
        while process.poll() is None and "uploads" not in bucket.log.read_text("utf-8"):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -9
    for machine in ("killed", "other"):
        assert bucket.run(*command, "look", **places[machine]).stdout == "None\n"
    assert bucket.run(*command, "commit", **places["killed"]).stdout == "120000000\n"
    assert bucket.run(*command, "look", **places["other"]).stdout == "120000000\n"


def test_what_is_wrong_with_a_bucket_is_said(bucket: Bucket, tmp_path: Path) -> None:
    assert "can be written" in bucket.rm_assets("one", "health").stdout
    missing = bucket.rm_assets("four", "outdated", "tiny", "--json", url="s3://nowhere/team").stdout
    assert "STORE_005" in missing and "The specified bucket does not exist" in missing
    with serving(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="0") as refusing:
        refused = refusing.rm_assets("one", "outdated", "tiny", "--json").stdout
        assert "STORE_005" in refused and "PermissionError" in refused
    bucket.process.terminate()
    bucket.process.wait(30)
    silent = bucket.rm_assets("five", "run", "tiny")
    assert silent.returncode == 1 and "STORE_006" in silent.stderr and "Traceback" not in silent.stderr
