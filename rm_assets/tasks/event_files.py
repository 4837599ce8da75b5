"""TensorBoard's event files of a training, written while it runs."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter


class EventFiles:
    """Writes each figure as a scalar. The writer opens with the first figures, in the process that has them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EventFileWriter | None = None

    def training_begins(self, num_steps: int, device: str) -> None:
        """Nothing: TensorBoard shows figures alone."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one optimizer step; those that an earlier process wrote of this step and later ones are taken back."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        now = time.time()
        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder))
            begins = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=now, step=step, session_log=begins))
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._writer.add_event(Event(wall_time=now, step=step, summary=Summary(value=scalars)))
        self._writer.flush()
