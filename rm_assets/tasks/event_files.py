"""TensorBoard's event files of a training, written while it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class EventFiles:
    """Writes each figure as a scalar. The writer opens with the first figures, in the process that has them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def training_begins(self, num_steps: int, device: str) -> None:
        """Nothing: TensorBoard shows figures alone."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one optimizer step; those that an earlier process wrote of this step and later ones are taken back."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
