"""The metrics log of a training: `metrics.jsonl` beside the asset's files, one JSON object a line, only ever appended to.

begin  {recipe, asset, digest, run_id, device, num_steps, time}    once for each process that worked on it
step   {step, time, loss, accuracy, margin, learning_rate, grad_norm, tokens_per_second, eta_seconds, memory}
end    {status: finished, failed or pruned, error, time}           none where the process was killed

Times are ISO 8601 in UTC. The log is no content of the asset: nothing depends on it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

METRICS_LOG = "metrics.jsonl"


class MetricsLog:
    """Appends to the log of one asset. Can be handed to another process, and is on the disk after each call."""

    def __init__(self, file: Path, *, recipe: str, asset: str, digest: str, run_id: str) -> None:
        self._file = file
        self._about = {"recipe": recipe, "asset": asset, "digest": digest, "run_id": run_id}
        self._has_begun = False

    def training_begins(self, num_steps: int, device: str) -> None:
        """A process starts to train, or goes on after another."""
        self._has_begun = True
        self._append("begin", {**self._about, "device": device, "num_steps": num_steps})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one optimizer step."""
        self._append("step", {"step": step, **values})

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Writes how the work in the block ended, where a training had begun in it."""
        try:
            yield
        except Exception as error:
            self.ended(str(error) or repr(error))
            raise
        self.ended(None)

    def ended(self, error: str | None) -> None:
        """How the work ended, by its error if it failed; nothing where no training had begun."""
        if self._has_begun:
            said = {"status": "finished"} if error is None else {"status": "failed", "error": error.splitlines()[0]}
            self._append("end", said)

    def pruned(self) -> None:
        """A search has ended the training, whose process could not say so."""
        self._append("end", {"status": "pruned"})

    def _append(self, event: str, values: Mapping[str, Any]) -> None:
        line = json.dumps({"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **values})
        log = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(log).st_size
            # A line that a killed process left torn stays a line of its own.
            torn = size > 0 and os.pread(log, 1, size - 1) != b"\n"
            os.write(log, f"{chr(10) if torn else ''}{line}\n".encode())
        finally:
            os.close(log)


@dataclass
class Run:
    """What a metrics log says: `steps` in order, each optimizer step at most once; `end` is the last one, if it is over."""

    recipe: str
    asset: str
    digest: str
    run_id: str
    device: str
    num_steps: int
    started_at: str
    num_resumed: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None

    @property
    def last_time(self) -> str:
        """When the log was last written to."""
        return str((self.end or (self.steps[-1] if self.steps else {})).get("time", self.started_at))


def read_run(file: Path) -> Run | None:
    """The run of a log, also while it is written; None where no training has begun.

    A torn line is left out. A training that was resumed repeats steps: the later ones replace the earlier ones and all
    that came after them.
    """
    run: Run | None = None
    for line in file.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            event, time = entry.pop("event"), entry["time"]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if event == "begin" and run is None:
            run = Run(started_at=entry.pop("time"), **entry)
        elif event == "begin" and run is not None:
            run.num_resumed, run.end = run.num_resumed + 1, None
            run.run_id, run.device, run.num_steps = entry["run_id"], entry["device"], entry["num_steps"]
        elif event == "step" and run is not None:
            while run.steps and run.steps[-1]["step"] >= entry["step"]:
                run.steps.pop()
            run.steps.append(entry)
        elif event == "end" and run is not None:
            run.end = {**entry, "time": time}
    return run
