"""Tasks on a machine that is made for them and deleted after them: always, also when the task fails or is cancelled.

If the process that asks for it is killed, the machine ends by itself after `max_hours`, and `rm-assets machines` finds it. What a
task commits there is kept at the store's URL (tasks/saved_work.py); where a machine is taken away, the next one goes on from it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rm_assets.core.errors import ExecutorError
from rm_assets.core.events import event_line
from rm_assets.core.recipe import GcloudMachine, SkyPilotMachine, VmExecutor
from rm_assets.executors.gcloud import Gcloud
from rm_assets.executors.machines import Provider, delete, name_of
from rm_assets.executors.remote import Order, variables_of
from rm_assets.executors.skypilot import SkyPilot
from rm_assets.executors.ssh import PipedTask, remote_command, start_piped


def provider_of(machine: GcloudMachine | SkyPilotMachine) -> Provider:
    """What makes such a machine."""
    return Gcloud(machine) if isinstance(machine, GcloudMachine) else SkyPilot(machine)


class VmTask:
    """A task on one machine after another, as long as they are taken away."""

    def __init__(self, executor: VmExecutor, order: Order) -> None:
        self._executor, self._order, self._provider = executor, order, provider_of(executor.machine)
        self._variables = variables_of(executor.environment)
        self._connection = ExitStack()
        self._num_machines, self._is_known = 0, True
        self._refusal: ExecutorError | None = None

    def begin(self) -> None:
        """Makes a machine and starts the task there; another one, where it is taken away before that.

        Raises: ExecutorError EXECUTOR_002 to EXECUTOR_005.
        """
        self._make()
        self._start()

    def _make(self) -> None:
        self._num_machines, self._is_known = self._num_machines + 1, False
        self._order.say(f"making the machine {self._name}")
        try:
            self._provider.create(self._name, self._executor)
        except ExecutorError as refusal:
            self._is_known, self._refusal = True, refusal  # whether it is there can be asked now
            raise
        self._is_known = True

    def _start(self) -> None:
        while not self._is_started():
            self._replace("was taken away before the task began")

    def _is_started(self) -> bool:
        """False where the machine was taken away and another one may be made. Raises: ExecutorError EXECUTOR_003 for other reasons."""
        try:
            self._provider.prepare(self._name, self._executor)
            command = self._provider.command(self._name, remote_command(self._executor.python, self._order))
            self._task: PipedTask = self._connection.enter_context(start_piped(command, self._variables, self._name))
        except ExecutorError as error:
            if error.code != "EXECUTOR_003" or not self._may_be_replaced or self._is_running:
                raise
            return False
        return True

    @property
    def _may_be_replaced(self) -> bool:
        return self._num_machines < self._executor.max_machines

    @property
    def _is_running(self) -> bool:
        """As far as is known."""
        try:
            return any(found.name == self._name and found.is_running for found in self._provider.machines())
        except ExecutorError:
            return True

    def _replace(self, why: str) -> None:
        self._order.say(f"the machine {self._name} {why}: another one goes on")
        self.delete()
        self._make()

    def lines(self) -> Iterator[str]:
        """As in RemoteTask; time stands still while another machine is made."""
        yield from self._task.lines()
        while self._task.is_cut_off and self._may_be_replaced:
            yield event_line(event="waiting")
            self._replace("was taken away, or its connection broke")
            self._start()
            yield event_line(event="working")
            yield from self._task.lines()

    def status(self) -> int:
        """As in RemoteTask."""
        return self._task.status()

    def end(self) -> None:
        """As in RemoteTask."""
        self._task.end()

    def delete(self) -> None:
        """Ends what is left of the task, and deletes the machine. Raises: ExecutorError EXECUTOR_005."""
        try:
            self._connection.close()
        finally:
            delete(self._provider, self._name, is_known=self._is_known, refusal=self._refusal)

    @property
    def _name(self) -> str:
        return name_of(self._order.name, self._num_machines)


@contextmanager
def start_on_vm(executor: VmExecutor, order: Order) -> Iterator[VmTask]:
    """As remote.Start. Raises: ExecutorError EXECUTOR_004 if no machine can be had, EXECUTOR_005 if it cannot be deleted."""
    task = VmTask(executor, order)
    try:
        task.begin()
        yield task
    finally:
        task.delete()
