"""A profile of a few training steps: a trace, the costliest operators, memory over time, and one sentence about it all."""

import csv
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

FIRST_STEP, NUM_STEPS = 3, 4
"""The first steps are slower than the rest: memory is allocated and kernels are chosen."""
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear", "matmul"),
    "attention": ("scaled_dot_product", "flash_attn", "flash_attention", "efficient_attention"),
    "the optimizer": ("fused_adamw", "optimizer.step", "foreach", "clip_grad"),
}
REMEDIES = {
    "matrix products": "this is the work itself; bfloat16, fewer tokens or a faster device would shorten it",
    "attention": "long texts dominate; a lower max_length would shorten it",
    "the optimizer": "weights, not tokens, dominate; more pairs a step or low-rank adaptation would shorten it",
    "other operations": "small operations dominate; a larger training_token_budget puts more tokens into each of them",
    "input": "the device waits for tokens; a faster disk for the store would shorten it",
}


class StepProfile:
    """Profiles steps 3 to 6 of a training and writes what it saw into `folder`."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profiler: Any = profile(activities=activities, profile_memory=True)
        self._num_steps = self._num_profiled = 0
        self._is_on = False
        self._began = self._step_began = self._seconds = self._waited = 0.0
        self._memory: list[tuple[float, str, int]] = []
        self.sentence: str | None = None

    def step_begins(self) -> None:
        """To be called before each step."""
        self._num_steps += 1
        if self._num_steps == FIRST_STEP:
            self._profiler.start()
            self._is_on, self._began = True, time.perf_counter()
        self._step_began = time.perf_counter()

    def step_ended(self) -> None:
        """To be called after each step."""
        if not self._is_on:
            return
        self._num_profiled += 1
        self._seconds += time.perf_counter() - self._step_began  # without validation and saving between the steps
        if self._num_profiled == NUM_STEPS:
            self.finish()

    def mark(self, what: str) -> None:
        """Notes how much memory is in use at this point of a step."""
        if self._is_on:
            self._memory.append((time.perf_counter() - self._began, what, used_memory(self._device)))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which nothing is computed because the next tokens are not there yet."""
        began = time.perf_counter()
        yield
        if self._is_on:
            self._waited += time.perf_counter() - began

    def finish(self) -> None:
        """Writes the files; also called where a training ends before the last step to be profiled."""
        if not self._is_on:
            return
        self._is_on = False
        self._profiler.stop()
        temporary = self._folder.with_name(f".{self._folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        self._write(temporary)
        shutil.rmtree(self._folder, ignore_errors=True)
        temporary.rename(self._folder)

    def _write(self, folder: Path) -> None:
        self._profiler.export_chrome_trace(str(folder / "trace.json.gz"))
        averages = self._profiler.key_averages()
        sort_by = "self_device_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        self.sentence = self._bottleneck(averages)
        operators = averages.table(sort_by=sort_by, row_limit=20, max_name_column_width=50)
        (folder / "operators.txt").write_text(f"{self.sentence}\n\n{operators}\n", "utf-8")
        with open(folder / "memory.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["seconds", "after", "bytes"])
            rows.writerows((f"{seconds:.6f}", what, used) for seconds, what, used in self._memory)

    def _bottleneck(self, averages: Any) -> str:
        on_gpu = self._device.type == "cuda"
        seconds = dict.fromkeys([*KINDS, "other operations"], 0.0)
        for event in averages:
            own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            seconds[_kind(event.key)] += own / 1e6
        seconds["input"] = self._waited
        total = max(sum(seconds.values()), 1e-9)
        shares = sorted(((value / total, kind) for kind, value in seconds.items()), reverse=True)
        listed = ", ".join(f"{kind} {share:.0%}" for share, kind in shares)
        top = shares[0][1]
        return f"Of {self._seconds / self._num_profiled:.3f} s a step: {listed}. Most goes to {top}: {REMEDIES[top]}."


def _kind(operator: str) -> str:
    name = operator.removeprefix("aten::").lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other operations")


def memory_figures(device: torch.device) -> dict[str, float]:
    """Megabytes in use now and at most so far, as a training reports them."""
    return {"memory_mb": used_memory(device) / 1e6, "peak_memory_mb": peak_memory() / 1e6}


def used_memory(device: torch.device) -> int:
    """Bytes in use: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux
        return peak_memory()


def peak_memory() -> int:
    """Most bytes in use so far: allocated on a GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
