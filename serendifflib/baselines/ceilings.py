"""Ceilings: how much could be reached by who knew the truth.

Shapes: B users in a batch, C candidates.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Generator, Tensor

from serendifflib.baselines.base import Control
from serendifflib.data.law import ForkedLaw
from serendifflib.data.splits import Examples
from serendifflib.data.world import World
from serendifflib.errors import ConfigError, ModelError
from serendifflib.portrait.fold import FoldData


@dataclass(eq=False, kw_only=True)
class CaseControl(Control):
    """A ceiling: it knows which case it is asked about.

    The one exception to the rule that a user is known only by the history.
    Before it scores it is given the cases (:meth:`for_cases`); it then
    recognises each by its history (and target, where two cases share a
    history) and refuses any other.
    """

    examples: Examples | None = field(default=None, init=False)

    def for_cases(self, examples: Examples) -> Self:
        """A copy that knows these cases."""
        known = copy.copy(self)
        known.examples = examples
        known._cases = {}
        for case, history in enumerate(examples.histories):
            known._cases.setdefault(_key(history), []).append(case)
        return known

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        if self.examples is None:
            raise ModelError(f"{self.name}: call for_cases(examples) first")
        pairs = zip(histories, candidates, strict=True)
        rows = [
            self._rate_case(self._case(row, *pair), pair[1].numpy())
            for row, pair in enumerate(pairs)
        ]
        return torch.from_numpy(np.array(rows))

    @abstractmethod
    def _rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        """Scores [C] for one of the known cases."""

    def _case(self, row: int, history: Tensor, candidates: Tensor) -> int:
        for case in self._cases.get(_key(history), []):
            if bool((candidates == self.examples.targets[case]).any()):
                return case
        raise ModelError(
            f"{self.name}: row {row} is none of its cases; give it the "
            "examples of these candidates with for_cases"
        )


def _key(history: Tensor) -> bytes:
    return history[history > 0].numpy().tobytes()


class OracleCell(CaseControl):
    """Knows the true cell of the target, and nothing within the cell."""

    name = "Oracle cell"
    needs_grid = True

    def _rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        history = self.examples.histories[case].numpy()
        cells = self.grid.look(history).cells
        target = cells[int(self.examples.targets[case])]
        return (cells[candidates] == target).astype(np.float64)


class Oracle(CaseControl):
    """The law that drew the labels (simulated worlds only)."""

    name = "Oracle"

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        """Find the world; refuse real data, and targets without labels."""
        data = fold.interactions
        if data.world is None or fold.kind != "serendipity":
            raise ConfigError(
                f"{self.name}: {data.name} with {fold.kind} targets follows "
                "no known law; leave the oracle out"
            )
        self.world: World = data.world

    def _rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        """True log-probabilities, up to a constant."""
        user = int(self.examples.users[case])
        labels = self.world.label_rows(user)
        which = int(np.searchsorted(labels, self.examples.rows[case]))
        return self.world.oracle_scores(user, candidates, which=which)


class OraclePortrait(Oracle):
    """The law of a forked world, with places as the portrait shows them.

    The law measures expectedness in the ordinary rows of everybody, a portrait
    in the rows of its training users, labelled ones among them unless the fold
    leaves them out. A model may find more: which items were labels before
    tells something too. Where the law has no places it is the oracle.
    """

    name = "Oracle on the portrait"
    needs_grid = True

    def _rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        if not isinstance(self.world.law, ForkedLaw):
            return super()._rate_case(case, candidates)
        history = self.examples.histories[case].numpy()
        history = history[history > 0]
        # a position rises with expectedness, a place falls
        seen = 1.0 - self.grid.space.catalogue_positions(history)[1:, 0]
        parts = self.world.bridge_log_chances(
            int(self.examples.users[case]), history, seen
        )
        return np.logaddexp.reduce(parts, axis=0)[candidates - 1]


class OracleProtocol(Oracle):
    """The law and how the lists were drawn: Bayes' rule, the true ceiling.

    A list holds m_k of the n_k items of cell k. Had item c been the label,
    a list with these members would have been drawn with probability
    proportional to n_k / m_k of its cell, so log p(c) + log(n_k / m_k)
    orders the candidates best. Exact where no cell lends items to another.
    """

    name = "Oracle + protocol"
    needs_grid = True

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        super()._learn(fold, generator)
        self.data = fold.interactions

    def _rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        history = self.examples.histories[case].numpy()
        cells = self.grid.look(history).cells
        rows = self.data.rows(int(self.examples.users[case]))
        own = self.data.item_index[rows]
        target = int(self.examples.targets[case])
        eligible = np.union1d(np.setdiff1d(self.pool, own), target)
        size = self.grid.side**2
        held = np.bincount(cells[eligible], minlength=size)
        listed = np.bincount(cells[candidates], minlength=size)
        weight = held[cells[candidates]] / listed[cells[candidates]]
        return super()._rate_case(case, candidates) + np.log(weight)
