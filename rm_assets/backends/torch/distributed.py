"""One training on several processes, weights and optimizer sharded between them (FSDP, Zhao et al. 2023).

Every process knows the whole step and computes its share of the micro-batches; gradients are summed. The last layer and
what surrounds the layers form one unit, because the last layer is only partly computed (shared_prefix.py).
"""

import os
import socket
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.fsdp import fully_shard

from rm_assets.backends import training_state
from rm_assets.backends.torch.fit import FitJob
from rm_assets.backends.torch.reward_forward import RewardForward
from rm_assets.backends.torch.training_batches import MicroBatch
from rm_assets.core.errors import ModelError, RmAssetsError
from rm_assets.core.protocols import QuietReporter

ERROR = "error.json"


class World:
    """The processes of a training: one alone, unless a process group is up."""

    def __init__(self) -> None:
        is_up = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if is_up else (0, 1)

    def shard(self, forward: RewardForward) -> None:
        """Spreads the weights over the processes, each layer a unit of its own."""
        if self.size == 1:
            return
        names = set(forward.model._no_split_modules or ())
        layers = [module for module in forward.model.modules() if type(module).__name__ in names]
        for layer in layers[:-1]:
            fully_shard(layer)
        fully_shard(forward)

    def share(self, batches: list[MicroBatch]) -> list[tuple[MicroBatch, bool]]:
        """This process's micro-batches, and whether each counts. All processes get as many: gathering weights is a
        meeting that nobody may miss, so one that has run out computes a batch that counts for nothing."""
        num_rounds = -(-len(batches) // self.size)
        own = batches[self.rank :: self.size]
        filled = islice(cycle(batches), num_rounds - len(own))
        return [(batch, True) for batch in own] + [(batch, False) for batch in filled]

    def total(self, values: list[float], device: torch.device) -> list[float]:
        """The sum of each number over all processes."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def of_first(self, value: float, device: torch.device) -> float:
        """The first process's number, for a decision that all have to take alike."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(tensor, 0)
        return float(tensor)


def run(job: FitJob) -> None:
    """Trains on `execution.num_processes` processes; the last state in `job.work` is the result.

    Raises: ModelError MODEL_009 without a GPU for each, and every error that a process can explain.
    """
    processes: Any = torch.multiprocessing
    num_processes = job.execution.num_processes
    if job.device.type == "cuda" and torch.cuda.device_count() < num_processes:
        raise ModelError(
            "MODEL_009",
            f"execution.num_processes is {num_processes}, but there are {torch.cuda.device_count()} GPUs",
            fix="lower execution.num_processes to the number of GPUs",
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (job.work / ERROR).unlink(missing_ok=True)
    try:
        # The processes are started anew: what this one has opened on a GPU cannot be inherited.
        processes.start_processes(_work, (job, port), nprocs=num_processes, start_method="spawn")
    except (processes.ProcessRaisedException, processes.ProcessExitedException) as ended:
        error = training_state.read_json(job.work / ERROR)
        if error is None:
            raise
        raise RmAssetsError.from_dict(error) from ended


def _work(rank: int, job: FitJob, port: int) -> None:
    from rm_assets.backends.torch.native_engine import train_to_the_end

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job.execution.num_processes))
    device = torch.device("cuda", rank) if job.device.type == "cuda" else job.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // job.execution.num_processes))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        reporter = job.reporter if rank == 0 else QuietReporter()
        train_to_the_end(replace(job, device=device, reporter=reporter))
    except RmAssetsError as error:
        # An exception crosses the border to the parent process as text only.
        training_state.write_json(job.work / ERROR, error.to_dict())
        raise
    finally:
        dist.destroy_process_group()
