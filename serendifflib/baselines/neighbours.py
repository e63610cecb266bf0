"""Nearest labelled users: an answer with many places and no network.

The first thing to try where users have several right answers: what people
with a similar history called serendipitous.

Shapes: B users in a batch, n history length, C candidates, M labelled users,
S of them who are asked, D numbers per item.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from serendifflib.baselines.base import UserControl
from serendifflib.diffusion.linear import history_means
from serendifflib.diffusion.validation import Validation, mean_ndcg
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import with_memberships


@dataclass(eq=False, kw_only=True)
class NearestUsers(UserControl):
    """The labels of the nearest users, used as if they were draws.

    Of S labelled users whose mean histories have the highest cosine, label
    m has the content t_m and lay at the place q_m of its own user's plane.
    A candidate of content v at the place p of this user's plane scores::

        log sum over m of exp(cos(v, t_m) / tau - |p - q_m|^2 / (2 h^2))

    that is the log-mean-exp of draws, up to a constant. Content is the item
    vector and, as for SerenDiff, its memberships in prototypes. S, tau and h
    are chosen on the validation users.

    Attributes:
        prototypes: how many at most.
        users, temperatures, widths: S, tau and h to choose from; a width of
            infinity leaves the place out.
    """

    name: ClassVar[str] = "Nearest users"
    needs_grid: ClassVar[bool] = True
    prototypes: int = 100
    users: tuple[int, ...] = (20, 60, 200)
    temperatures: tuple[float, ...] = (0.05, 0.1, 0.2)
    widths: tuple[float, ...] = (0.1, 0.2, np.inf)

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Keep the labelled users; choose S, tau and h."""
        train = fold.train
        points = with_memberships(self.vectors, self.prototypes)
        self.points = F.normalize(points.float(), dim=1)
        self.known = self._users(train.histories)
        self.targets = train.targets
        placed = self.grid.place_training(
            fold, train, train.targets.numpy()[:, None]
        )
        self.places = torch.from_numpy(placed.positions[:, 0]).float()
        self.parameters = self.known.numel()
        middle = [sorted(o)[len(o) // 2] for o in self._options()]
        self._choose(tuple(middle))
        validation = Validation.of(fold)
        if validation is not None:
            self._choose(self._best(validation))

    def _options(self) -> tuple[tuple[float, ...], ...]:
        return self.users, self.temperatures, self.widths

    def _choose(self, option: tuple[float, ...]) -> None:
        names = ("users", "temperature", "width")
        self.chosen = dict(zip(names, option, strict=True))

    def _best(self, validation: Validation) -> tuple[float, ...]:
        """The option with the best NDCG@10; all are tried user by user."""
        found: dict[tuple[float, ...], list[Tensor]] = {}
        for row in range(len(validation)):
            apart = self._apart(
                validation.histories[row : row + 1],
                validation.candidates[row : row + 1],
                max(self.users),
            )
            for option in itertools.product(*self._options()):
                found.setdefault(option, []).append(_log_sum(*apart, *option))
        return max(found, key=lambda o: mean_ndcg(torch.stack(found[o])))

    def _users(self, histories: Tensor) -> Tensor:
        """What users are compared by, unit rows [B, D]."""
        return F.normalize(history_means(histories, self.points), dim=1)

    def _apart(
        self, histories: Tensor, candidates: Tensor, most: int
    ) -> tuple[Tensor, Tensor]:
        """Cosines and squared distances of one user's candidates [1, C].

        Returns:
            Two tensors [C, S], the nearest user first.
        """
        near = (self._users(histories) @ self.known.T)[0]
        order = near.argsort(descending=True, stable=True)[:most]
        placed = self.grid.place(histories, candidates)
        place = torch.from_numpy(placed.positions[0]).float()
        cosines = (
            self.points[candidates[0]] @ self.points[self.targets[order]].T
        )
        return cosines, torch.cdist(place, self.places[order]).square()

    def rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Log-sums over the nearest users' labels."""
        option = tuple(self.chosen.values())
        known = torch.from_numpy(history)[None], torch.from_numpy(items)[None]
        return _log_sum(*self._apart(*known, int(option[0])), *option).numpy()


def _log_sum(
    cosines: Tensor,
    apart: Tensor,
    users: float,
    temperature: float,
    width: float,
) -> Tensor:
    """The score of :class:`NearestUsers` [C] from its parts [C, S]."""
    kept = slice(int(users))
    near = cosines[:, kept] / temperature - apart[:, kept] / (2 * width**2)
    return near.logsumexp(dim=1)
