"""Tasks as processes: what they say arrives while they work, and nothing of them outlives its reason."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rm_assets.executors import local
from rm_assets.executors.local import run_local
from rm_assets.executors.output import TaskEnd
from rm_assets.executors.warm import WarmServer
from rm_assets_tests.processes import is_alive

REPOSITORY = Path(__file__).parents[2]
BEGIN = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from rm_assets.core.events import event_line
folder = Path(sys.argv[1])
def say(message):
    print(event_line(event="log", message=message), flush=True)
def wait_for(name):
    for _ in range(300):
        if (folder / name).exists():
            return
        time.sleep(0.05)
    sys.exit(9)
def start_grandchild():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid
"""
RUN_IT = """
import sys, time
from pathlib import Path
from rm_assets.executors import local
from rm_assets.executors.local import run_local
from rm_assets.executors.warm import WarmServer
if sys.argv[2] == "forked":
    server = WarmServer(())
    while not server.is_ready:
        time.sleep(0.02)
    local.start_warm = server.start
run_local("fake", Path(sys.argv[1]), lambda event: print(event["message"], flush=True))
"""
Start = Callable[..., TaskEnd]


@pytest.fixture(params=["started", "forked"])
def how(request: pytest.FixtureRequest) -> str:
    """Whether tasks are processes of their own or forked from a warm one."""
    if request.param == "forked" and sys.platform != "linux":
        pytest.skip("tasks are forked on Linux alone")
    return str(request.param)


@pytest.fixture
def fake(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes `rm_assets.tasks.fake` of a piece of code; its argument is the folder `tmp_path`."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(
        f"import rm_assets.tasks\nrm_assets.tasks.__path__.append({str(modules)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(modules), str(REPOSITORY)]))
    with contextlib.ExitStack() as stack:
        start = None
        if how == "forked":
            server = WarmServer(preloaded=())
            stack.callback(server.close)
            wait_for(lambda: server.is_ready)
            start = server.start
        monkeypatch.setattr(local, "start_warm", start or (lambda *task: None))
        yield lambda code: (modules / "fake.py").write_text(BEGIN + code) and None


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(folder: Path, on_event: Callable[[dict[str, Any]], None] | None = None, **options: Any) -> TaskEnd:
    return run_local("fake", folder, on_event or (lambda event: None), **options)


def wait_until_gone(pid: int) -> None:
    wait_for(lambda: not is_alive(pid))


def test_events_arrive_while_the_task_works(fake: Callable[[str], None], tmp_path: Path) -> None:
    fake("say('one')\nwait_for('seen')\nsay('two')\n")
    said: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        said.append(event["message"])
        (tmp_path / "seen").touch()  # without this the task ends with 9

    assert run(tmp_path, on_event) == TaskEnd(0, False, "")
    assert said == ["one", "two"]


def test_other_output_is_an_event_and_the_last_words_are_kept(fake: Callable[[str], None], tmp_path: Path) -> None:
    fake("for n in range(40): print('line', n)\nprint('@rm {cut')\nsys.stdout.buffer.write(b'\\xff no line end')")
    events: list[dict[str, Any]] = []
    end = run(tmp_path, events.append)
    assert {e["event"] for e in events} == {"output"} and len(events) == 42
    assert end.tail.splitlines() == [*(f"line {n}" for n in range(12, 40)), "@rm {cut", "\ufffd no line end"]


def test_the_exit_status_and_the_errors_words_come_back(fake: Callable[[str], None], tmp_path: Path) -> None:
    fake("sys.exit('it broke')\n")
    assert run(tmp_path) == TaskEnd(1, False, "it broke")


def test_a_task_that_does_not_exist_fails_with_words(tmp_path: Path) -> None:
    end = run_local("no_such_task", tmp_path, lambda event: None)
    assert end.status == 1 and "No module named rm_assets.tasks.no_such_task" in end.tail


def test_a_signal_is_the_exit_status(fake: Callable[[str], None], tmp_path: Path) -> None:
    fake("os.kill(os.getpid(), signal.SIGKILL)\n")
    assert run(tmp_path).status == -signal.SIGKILL


def test_a_timeout_ends_the_task_and_its_children(fake: Callable[[str], None], tmp_path: Path) -> None:
    fake("say(str(start_grandchild()))\ntime.sleep(60)\n")
    pids: list[int] = []
    began = time.monotonic()
    end = run(tmp_path, lambda event: pids.append(int(event["message"])), timeout_seconds=1.5)
    assert end.timed_out and end.status == -signal.SIGKILL and time.monotonic() - began < 20
    wait_until_gone(pids[0])


def test_a_task_in_time_is_not_timed_out(fake: Callable[[str], None], tmp_path: Path) -> None:
    fake("")
    assert run(tmp_path, timeout_seconds=60) == TaskEnd(0, False, "")


def test_the_time_limit_stands_still_while_a_task_waits_for_another(
    fake: Callable[[str], None], tmp_path: Path
) -> None:
    fake(
        "print(event_line(event='waiting'), flush=True)\ntime.sleep(2.5)\nprint(event_line(event='working'), flush=True)\n"
        "say('it is its turn')\ntime.sleep(60)\n"
    )
    heard: list[str] = []
    end = run(tmp_path, lambda event: heard.append(event["message"]), timeout_seconds=2)
    assert end.timed_out and heard == ["it is its turn"]


def test_a_child_that_a_task_leaves_behind_ends_with_it(fake: Callable[[str], None], tmp_path: Path) -> None:
    fake("say(str(start_grandchild()))\n")
    pids: list[int] = []
    began = time.monotonic()
    assert run(tmp_path, lambda event: pids.append(int(event["message"]))).status == 0
    assert time.monotonic() - began < 20  # it holds the output open for a minute
    wait_until_gone(pids[0])


def test_a_listener_that_fails_ends_the_task(fake: Callable[[str], None], tmp_path: Path) -> None:
    fake("say(str(os.getpid()))\ntime.sleep(60)\n")
    pids: list[int] = []

    def interrupted(event: dict[str, Any]) -> None:
        pids.append(int(event["message"]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupted)
    wait_until_gone(pids[0])


def test_the_death_of_the_caller_ends_the_task_and_its_children(
    fake: Callable[[str], None], how: str, tmp_path: Path
) -> None:
    fake(
        "from rm_assets.tasks.session import _end_with_parent\n"
        "threading.Thread(target=_end_with_parent, daemon=True).start()\n"
        "say(str(os.getpid()))\nsay(str(start_grandchild()))\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", RUN_IT, str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        pids = [int(caller.stdout.readline()) for _ in range(2)]
        assert all(is_alive(pid) for pid in pids)
        caller.kill()
        for pid in pids:
            wait_until_gone(pid)


def test_a_real_task_without_its_request_fails_and_reads_nothing_from_the_terminal(tmp_path: Path) -> None:
    end = run_local("ingest", tmp_path / "none.json", lambda event: None)
    assert end.status == 1 and "none.json" in end.tail


def test_a_forked_task_has_the_environment_and_folder_of_now_and_the_modules_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import rm_assets.tasks\nrm_assets.tasks.__path__.append({str(tmp_path)!r})\n"
    )
    (tmp_path / "fake.py").write_text(
        "import os, sys\nprint(os.getcwd(), os.environ['RM_ASSETS_X'], 'colorsys' in sys.modules, os.getpgrp() == os.getpid())\n"
        "sys.exit(7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    server = WarmServer(preloaded=("colorsys", "no_such_module"))
    try:
        wait_for(lambda: server.is_ready)
        monkeypatch.setenv("RM_ASSETS_X", "of now")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(local, "start_warm", server.start)
        assert run(tmp_path) == TaskEnd(7, False, f"{tmp_path} of now True True")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # libraries have read it, so it would come too late
        assert not server.is_ready
    finally:
        server.close()
    assert server.start("fake", tmp_path) is None  # and the caller starts a process


@pytest.fixture
def server() -> Iterator[WarmServer]:
    if sys.platform != "linux":
        pytest.skip("tasks are forked on Linux alone")
    server = WarmServer(preloaded=())
    wait_for(lambda: server.is_ready)
    yield server
    server.close()


def test_who_asks_a_server_that_died_beside_a_task_does_not_wait_for_that_task(
    server: WarmServer, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "request")  # nobody writes it, so the task goes on reading
    task, found = server.start("ingest", tmp_path / "request"), []
    assert task is not None
    server._process.kill()
    server._process.wait()
    asking = threading.Thread(target=lambda: found.append(server.start("ingest", tmp_path / "request")), daemon=True)
    asking.start()
    asking.join(10)
    assert found == [None]
    task.stdin.close()  # its parent is gone
    assert task.wait() == -signal.SIGKILL
    task.stdout.close()


def test_an_interruption_while_a_task_begins_leaves_nothing_open(server: WarmServer, tmp_path: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    num_open = len(os.listdir("/proc/self/fd"))
    os.kill(server._process.pid, signal.SIGSTOP)  # so that the answer does not come first
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            server.start("ingest", tmp_path / "none.json")
        assert len(os.listdir("/proc/self/fd")) == num_open
    finally:
        os.kill(server._process.pid, signal.SIGCONT)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("waits_for", ["nothing", "its word"])
def test_a_server_ends_with_its_starter_whatever_it_has_imported(tmp_path: Path, waits_for: str) -> None:
    """Of a starter that dies without having read its server's word, the server hears by an error."""
    (tmp_path / "lingers.py").write_text("import atexit, time\natexit.register(time.sleep, 60)\n")
    code = (
        "import select, sys, time\nfrom rm_assets.executors.warm import WarmServer\nserver = WarmServer(['lingers'])\n"
        "if sys.argv[1] == 'its word':\n    select.select([server._control], [], [])\n"
        "print(server._process.pid, flush=True)\ntime.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    with subprocess.Popen([sys.executable, "-c", code, waits_for], stdout=subprocess.PIPE, env=environment) as starter:
        assert starter.stdout
        pid = int(starter.stdout.readline())
        starter.kill()
    wait_until_gone(pid)
