"""What is told of work that is done shard by shard."""

from rm_assets.core.protocols import LogReporter, Reporter


class RunProgress(LogReporter):
    """A backend's progress within its shard, passed on as that of the whole run."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter)
        self.before, self.total = 0, 0

    def progress(self, done: int, total: int, unit: str) -> None:
        """`done` of this shard are finished."""
        self._reporter.progress(self.before + done, self.total, unit)
