"""Several processes that train one network, each on its part of a batch.

The loop of :mod:`~serendifflib.diffusion.training` asks here who takes part;
:mod:`serendifflib.diffusion.distributed` starts the processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from serendifflib.errors import ConfigError


@dataclass(frozen=True)
class Team:
    """One process among ``size``.

    Every process draws the random numbers of the whole batch and keeps the
    rows ``rank, rank + size, ...``, so that together they take the step that
    one process would take. Dropout alone differs.

    Attributes:
        rank: number of this process, 0..size-1.
        size: number of processes; 1 is training as usual.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """The process that writes files and shows progress."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Refuse a batch that cannot be dealt out evenly.

        Raises:
            ConfigError: ``batch_size`` is no multiple of the size.
        """
        if batch_size % self.size:
            raise ConfigError(
                f"batch_size is {batch_size}, but {self.size} processes "
                "train: choose a multiple"
            )

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of a batch [B, ...] that belong to this process."""
        return rows[self.rank :: self.size] if self.size > 1 else rows

    def wrap(self, network: nn.Module) -> nn.Module:
        """A view of ``network`` whose gradients are those of the team.

        Parameters are the same objects; those of process 0 are sent to all.
        """
        return network if self.size == 1 else DistributedDataParallel(network)

    def mean(self, loss: torch.Tensor) -> torch.Tensor:
        """Mean of a scalar over the team: the loss of the whole batch."""
        if self.size > 1:
            loss = loss.clone()
            torch.distributed.all_reduce(loss)
            loss /= self.size
        return loss

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            torch.distributed.barrier()


_ALONE = Team()
_current: ContextVar[Team] = ContextVar("team", default=_ALONE)


def current_team() -> Team:
    """The team that trains now; by default one process alone."""
    return _current.get()


@contextmanager
def training_as(team: Team) -> Iterator[Team]:
    """Within this context, training is shared by ``team``."""
    token = _current.set(team)
    try:
        yield team
    finally:
        _current.reset(token)
