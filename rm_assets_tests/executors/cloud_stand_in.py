"""A cloud that is a folder: stands in for the commands `gcloud`, `sky` and `ssh`, records each call and really runs what is to be run.

`python cloud_stand_in.py CLOUD COMMAND ARGUMENTS...`. A machine is a folder of CLOUD/machines, with a cache of its own for the store
and the processes that run on it; it is gone, with all of them, when it is deleted, taken away (`take_away`), or its time is over.
CLOUD/fault says what goes wrong: stock, quota, queue (the machine comes later), delete (once each), login (always), hang (while a machine
is made). With CLOUD/hurry a machine's time is
over ten times as fast.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CLOUD = Path(sys.argv[1]) if len(sys.argv) > 2 else Path()
WORDS = {
    "login": "ERROR: (gcloud.compute.instances.create) You do not currently have an active account selected.\nPlease run:\n\n"
    "  $ gcloud auth login\n\nto obtain new credentials.\n\nIf you have already logged in with a different account, run:\n\n"
    "  $ gcloud config set account ACCOUNT\n\nto select an already authenticated account to use.",
    "stock": "ERROR: (gcloud.compute.instances.create) Could not fetch resource:\n - The zone 'z' does not have enough resources available",
    "quota": "ERROR: (gcloud.compute.instances.create) Could not fetch resource:\n - Quota 'GPUS' exceeded. Limit: 0.0",
    "queue": "ERROR: (gcloud.compute.instances.create) Did not create the following resources within 1800s: m. These operations may still be "
    "underway remotely and may still succeed",
    "delete": "ERROR: (gcloud.compute.instances.delete) HTTPError 503: The service is currently unavailable.",
}


def install(cloud: Path, variables: dict[str, str]) -> None:
    """Makes CLOUD/bin with the commands, and machines that have `variables`."""
    (cloud / "bin").mkdir(parents=True)
    (cloud / "machines").mkdir()
    (cloud / "variables.json").write_text(json.dumps(variables))
    for command in ("gcloud", "sky", "ssh"):
        file = cloud / "bin" / command
        file.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} {cloud} {command} "$@"\n')
        file.chmod(0o755)


def take_away(cloud: Path, name: str) -> None:
    """Ends what runs on a machine, and the machine."""
    with suppress(FileNotFoundError):
        for pid in (cloud / "machines" / name / "processes").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    shutil.rmtree(cloud / "machines" / name, ignore_errors=True)


def _fail(fault: str) -> None:
    """Ends with the words of a fault that is to happen now."""
    file = CLOUD / "fault"
    if file.is_file() and file.read_text() == fault:
        if fault != "login":
            file.unlink()
        sys.exit(WORDS[fault])


def _create(name: str, seconds: float) -> None:
    _fail("login")
    _fail("stock")
    _fail("quota")
    machine = CLOUD / "machines" / name
    if (CLOUD / "fault").is_file() and (CLOUD / "fault").read_text() == "queue":
        subprocess.Popen(["sh", "-c", f"sleep 3; mkdir {machine}"], stdin=-3, stdout=-3, stderr=-3)
        _fail("queue")
    machine.mkdir()
    if (CLOUD / "hurry").exists():
        seconds /= 10
    if seconds <= 60:
        code = f"import time; time.sleep({seconds}); import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        code += (
            f"from pathlib import Path; import cloud_stand_in; cloud_stand_in.take_away(Path({str(CLOUD)!r}), {name!r})"
        )
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code], start_new_session=True, stdin=-3, stdout=-3, stderr=-3
        )
    while (CLOUD / "fault").is_file() and (CLOUD / "fault").read_text() == "hang":
        time.sleep(0.05)


def _delete(name: str) -> None:
    _fail("login")
    _fail("delete")
    if not (CLOUD / "machines" / name).is_dir():
        sys.exit(f"ERROR: the resource '{name}' was not found")
    take_away(CLOUD, name)


def _run(name: str, command: str) -> None:
    machine = CLOUD / "machines" / name
    if not machine.is_dir():
        print(f"ssh: Could not resolve hostname {name}: Name or service not known", file=sys.stderr)
        sys.exit(255)
    with open(machine / "processes", "a") as processes:
        print(os.getpid(), file=processes)
    variables = {"PATH": os.environ["PATH"], **json.loads((CLOUD / "variables.json").read_text())}
    os.chdir(machine)
    os.execve(
        "/bin/sh", ["sh", "-c", command], variables | {"HOME": str(machine), "RM_ASSETS_CACHE": str(machine / "cache")}
    )


def _copy(files: list[str], name: str) -> None:
    for file in files:
        shutil.copy(file, CLOUD / "machines" / name)


def _gcloud(arguments: list[str]) -> None:
    options = dict(word.removeprefix("--").split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
    plain = [word for word in arguments if not word.startswith("--")]
    match plain:
        case ["compute", "instances", "create", name]:
            _create(name, float(options["max-run-duration"].removesuffix("s")))
        case ["compute", "instances", "delete", name]:
            _delete(name)
        case ["compute", "instances", "list"]:
            found = [
                {
                    "name": machine.name,
                    "zone": "https://www.googleapis.com/zones/z",
                    "creationTimestamp": "now",
                    "status": "RUNNING",
                }
                for machine in sorted((CLOUD / "machines").iterdir())
            ]
            print(json.dumps(found))
        case ["compute", "scp", *files, target]:
            _copy(files, target.removesuffix(":"))
        case ["compute", "ssh", name, *_]:
            _run(name, options["command"])
        case _:
            sys.exit(f"not known: {plain}")


def _sky(arguments: list[str]) -> None:
    options = dict(word.removeprefix("--").split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
    plain = [word for word in arguments if not word.startswith("--")]
    match plain:
        case ["launch", file]:
            shutil.copy(file, CLOUD / "task.yaml")
            task = json.loads(Path(file).read_text())
            _create(options["cluster"], 60 * float(options["idle-minutes-to-autostop"]) + 1)
            _copy(list(task.get("file_mounts", {}).values()), options["cluster"])
            if "setup" in task:
                _run(options["cluster"], task["setup"])
        case ["down", name]:
            _delete(name)
        case ["status"]:
            found = [{"name": m.name, "launched_at": 0, "status": "UP"} for m in sorted((CLOUD / "machines").iterdir())]
            print(json.dumps(found))
        case _:
            sys.exit(f"not known: {plain}")


if __name__ == "__main__":
    command, arguments = sys.argv[2], sys.argv[3:]
    with open(CLOUD / "calls", "a") as calls:
        print(json.dumps([command, *arguments]), file=calls)
    if command == "gcloud":
        _gcloud(arguments)
    elif command == "sky":
        _sky(arguments)
    else:
        _run(arguments[-2], arguments[-1])
