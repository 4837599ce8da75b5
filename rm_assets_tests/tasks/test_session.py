"""The frame of a task: what its errors become on the way to its parent."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rm_assets.backends.torch.devices import takes_small_batches
from rm_assets.core.events import event_line
from rm_assets.tasks.session import set_environment

TASK = """
from rm_assets.tasks.session import run_process

class OutOfMemoryError(RuntimeError):
    "Named as PyTorch's."

def work(request, reporter):
    try:
        raise {error}
    except Exception as error:
        raise ValueError("while training") from error

run_process(work)
"""


def ended(folder: Path, error: str) -> tuple[list[dict[str, Any]], str]:
    """The events and the standard error of a task process that ends with an error which came from `error`."""
    request = folder / "request.json"
    request.write_text(json.dumps({"recipe": {"execution": {"num_threads": 1}}}))
    with subprocess.Popen(
        [sys.executable, "-c", TASK.format(error=error), str(request)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        out, said = process.stdout.read(), process.stderr.read()
    assert process.returncode == 1
    return [json.loads(line[line.index("{") :]) for line in out.splitlines()], said


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ('OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")', "Tried to allocate 2.00 GiB"),
        ('RuntimeError("alloc_cpu.cpp:127] DefaultCPUAllocator: can\'t allocate memory")', "DefaultCPUAllocator"),
        ('RuntimeError("-- Process 1 ended:\\\\ntorch.OutOfMemoryError: CUDA out of memory.\\\\n")', "torch.OutOf"),
        ('RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 80000000000000 bytes.")', "RESOURCE_EXHAUSTED"),
        ("MemoryError()", "MemoryError"),
        ('ImportError("libtorch_cpu.so: failed to map segment from shared object")', "libtorch_cpu.so"),
        ('OSError(12, "Cannot allocate memory")', "Cannot allocate memory"),
    ],
)
def test_a_task_without_memory_names_the_settings_that_take_less(tmp_path: Path, error: str, why: str) -> None:
    (event,), _ = ended(tmp_path, error)
    assert event["error"]["code"] == "TASK_001" and why in event["error"]["why"]
    settings = ("execution.training_token_budget", "execution.gradient_checkpointing: always", "execution.token_budget")
    assert all(setting in event["error"]["fix"] for setting in settings)


def test_events_of_two_threads_are_two_lines() -> None:
    code = (
        "import sys, threading\nfrom rm_assets.tasks.session import LineReporter\nsys.setswitchinterval(1e-6)\n"
        "def say():\n    for _ in range(2_000):\n        LineReporter().log('working')\n"
        "threads = [threading.Thread(target=say) for _ in range(2)]\n"
        "for thread in threads:\n    thread.start()\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [event_line(event="log", message="working")] * 4_000


def test_any_other_error_stays_a_traceback(tmp_path: Path) -> None:
    events, said = ended(tmp_path, 'RuntimeError("a tensor of memory format 3")')
    assert events == [] and "ValueError: while training" in said


def test_on_a_mac_what_its_gpu_lacks_goes_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, wanted in (("linux", None), ("darwin", "1")):
        monkeypatch.setattr(os, "environ", {})
        monkeypatch.setattr(sys, "platform", platform)
        set_environment(3)
        assert os.environ["OMP_NUM_THREADS"] == "3" and os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == wanted
    monkeypatch.setattr(os, "environ", {"PYTORCH_ENABLE_MPS_FALLBACK": "0"})
    set_environment(3)
    assert os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "0"


def test_an_apple_gpu_has_the_small_batches_of_a_cpu() -> None:
    small = {name: takes_small_batches(torch.device(name)) for name in ("cpu", "mps", "cuda")}
    assert small == {"cpu": True, "mps": True, "cuda": False}
