"""Training and scoring on several devices or machines, by accelerate.

``accelerate launch script.py`` or accelerate's ``notebook_launcher`` starts
the processes; inside each of them::

    with together():
        model = SerenDiff(preset="tuned").fit(data)
        scores = shared_score(model, histories, candidates)

Every process runs the same lines and ends with the same weights and scores.
On one process all of this is as usual.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from serendifflib.errors import ConfigError


@dataclass(frozen=True)
class Team:
    """The process number ``rank``, 0..size-1, among ``size``.

    Every process draws the random numbers of the whole batch and keeps the
    rows ``rank, rank + size, ...``, so that together they take the step that
    one process would take. Dropout alone differs.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it writes files and shows progress."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Refuse a batch that cannot be dealt out evenly."""
        if batch_size % self.size:
            raise ConfigError(
                f"batch_size is {batch_size}, but {self.size} processes "
                "train: choose a multiple"
            )

    def share(self, rows: Tensor) -> Tensor:
        """The rows of a batch [B, ...] that belong to this process."""
        return rows[self.rank :: self.size] if self.size > 1 else rows

    def wrap(self, network: nn.Module) -> nn.Module:
        """A view of ``network`` whose gradients are those of the team.

        Parameters are the same objects; those of process 0 are sent to all.
        """
        return network if self.size == 1 else DistributedDataParallel(network)

    def mean(self, loss: Tensor) -> Tensor:
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


ALONE = Team()
_current: ContextVar[Team] = ContextVar("team", default=ALONE)


def current_team() -> Team:
    """The team that trains now; by default one process alone."""
    return _current.get()


@contextmanager
def together(*, cpu: bool = False) -> Iterator[Team]:
    """Join the processes that the launcher started; train as one team.

    ``cpu`` uses processors even where there are GPUs.
    """
    from accelerate import PartialState  # takes seconds; few need it

    state = PartialState(cpu=cpu)
    team = Team(state.process_index, state.num_processes)
    token = _current.set(team)
    try:
        yield team
    finally:
        _current.reset(token)


def shared_score(model, histories: Tensor, candidates: Tensor) -> Tensor:
    """``model.score(histories, candidates)``, shared out by users.

    Every process computes its share, and returns all, [B, C].
    """
    team, users = current_team(), len(histories)
    if team.size == 1:
        return model.score(histories, candidates)
    from accelerate import PartialState
    from accelerate.utils import gather

    # dealt out like cards, the last user repeated so that shares are equal
    rows = torch.arange(-(-users // team.size) * team.size)
    mine = team.share(rows.clamp(max=users - 1))
    scores = model.score(histories[mine], candidates[mine])
    parts = gather(scores.to(PartialState().device)).cpu()
    shares = parts.view(team.size, len(mine), -1).transpose(0, 1).flatten(0, 1)
    return shares[:users]
