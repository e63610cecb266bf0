"""Training and sampling on several devices or machines, by accelerate.

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

import torch
from accelerate import PartialState
from accelerate.utils import gather

from serendifflib.diffusion.team import Team, training_as


@contextmanager
def together(*, cpu: bool = False) -> Iterator[Team]:
    """Join the processes that the launcher started; train as one team.

    Args:
        cpu: use processors even where there are GPUs.

    Yields:
        this process's place in the team.
    """
    state = PartialState(cpu=cpu)
    with training_as(Team(state.process_index, state.num_processes)) as team:
        yield team


def shared_score(
    model, histories: torch.Tensor, candidates: torch.Tensor
) -> torch.Tensor:
    """Scores of candidates, each process computing its share of the users.

    Args:
        model: anything with ``score(histories, candidates)``.
        histories: item numbers, left-padded with 0, [B, n].
        candidates: item numbers, [B, C].

    Returns:
        [B, C] in every process, as ``model.score`` would give it.
    """
    state = PartialState()
    size, users = state.num_processes, len(histories)
    if size == 1:
        return model.score(histories, candidates)
    # dealt out like cards, the last user repeated so that shares are equal
    rows = torch.arange(-(-users // size) * size).clamp(max=users - 1)
    mine = rows[state.process_index :: size]
    scores = model.score(histories[mine], candidates[mine])
    parts = gather(scores.to(state.device)).cpu()
    shares = parts.view(size, len(mine), -1).transpose(0, 1).flatten(0, 1)
    return shares[:users]
