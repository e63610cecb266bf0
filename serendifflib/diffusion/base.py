"""What every diffusion is asked: the few methods that tell them apart.

A portrait, a point or tokens can be diffused. The model around it - data,
fitting, ranking, saving - is the same (:class:`serendifflib.SerenDiff`).

Letters: B users, n history length, C candidates, N items, L side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from serendifflib.data.splits import Examples
from serendifflib.diffusion.devices import own_randomness
from serendifflib.diffusion.training import Loss
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.grid import place_training
from serendifflib.portrait.portrait import (
    Placement,
    Portraits,
    PortraitSpace,
    cell_of,
)


@dataclass(frozen=True)
class PlacedItems:
    """Users, and where some items lie for each of them.

    It needs no network: validation cases and training examples are placed
    once. Of a training example the first item is the target.

    Attributes:
        portraits: of the histories.
        items: item numbers, [B, C].
        positions: in [0, 1], float64 [B, C, 2].
        scores: log-expectedness and relevance, float64 [B, C, 2]; NaN where
            an item has no vector.
    """

    portraits: Portraits
    items: Tensor
    positions: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.items)

    @property
    def targets(self) -> Tensor:
        """The first item of each row, [B]."""
        return self.items[:, 0]

    def cells(self, side: int) -> Tensor:
        """Grid indices of the items, int64 [B, C, 2]."""
        return cell_of(self.positions, side)

    def target_cells(self, side: int) -> Tensor:
        """Grid indices of the targets, int64 [B, 2]."""
        return self.cells(side)[:, 0]

    def part(
        self, index: Tensor, device: torch.device | str = "cpu"
    ) -> PlacedItems:
        """The users of the rows ``index``, on ``device``."""
        return PlacedItems(
            self.portraits.part(index, device),
            self.items[index].to(device),
            self.positions[index].to(device),
            self.scores[index].to(device),
        )


def place(
    space: PortraitSpace, histories: Tensor, items: Tensor
) -> PlacedItems:
    """Place histories [B, n], and items [B, C] as their users see them."""
    rows = [history[history > 0] for history in histories.numpy()]
    return _placed_items(histories, items, space.place(rows, items.numpy()))


def pad_positions(pasts: Sequence[np.ndarray], length: int) -> Tensor:
    """Positions [n, 2] of each history, left-padded, [B, length, 2]."""
    table = torch.zeros(len(pasts), length, 2, dtype=torch.float64)
    for row, past in enumerate(pasts):
        table[row, length - len(past) :] = torch.from_numpy(past)
    return table


def training_placement(
    space: PortraitSpace,
    fold: FoldData,
    examples: Examples,
    items: Tensor | None = None,
) -> PlacedItems:
    """M training examples, placed as if their users had never been seen.

    Their own rows are left out of the counts. ``items`` are targets and, say,
    negatives, [M, C]; None places the targets.
    """
    placed = place_training(
        space, fold, examples, None if items is None else items.numpy()
    )
    if items is None:
        items = examples.targets[:, None]
    return _placed_items(examples.histories, items, placed)


def _placed_items(
    histories: Tensor, items: Tensor, placed: Placement
) -> PlacedItems:
    past = pad_positions(placed.past, histories.shape[1])
    return PlacedItems(
        Portraits(histories, past),
        items,
        torch.from_numpy(placed.positions),
        torch.from_numpy(placed.scores),
    )


@dataclass(eq=False, kw_only=True)
class Diffusion(ABC):
    """One way to generate serendipity points, for one fitted space.

    It holds the settings (side L, seed of the noise) and what is known of the
    items; the network comes and goes as an argument, for while it is trained
    there are two (the one that learns and its average).
    """

    space: PortraitSpace
    side: int
    seed: int
    device: torch.device

    def new_network(self, seed: int) -> nn.Module:
        """A fresh network, on the processor; its buffers may be empty."""
        with own_randomness(seed):
            return self.make_network()

    @abstractmethod
    def make_network(self) -> nn.Module:
        """The network with weights from torch's global random state."""

    def examples(
        self, fold: FoldData, examples: Examples, seed: int
    ) -> PlacedItems:
        """Training examples, the target of each in column 0."""
        return training_placement(self.space, fold, examples)

    def start(self, network: nn.Module, data: PlacedItems) -> None:
        """Fill the buffers from the labels; begin with a regression, say.

        Called before every stage of training, with the network on the
        processor; what an earlier stage has learned is not thrown away.
        """
        return None

    @abstractmethod
    def loss(self, network: nn.Module, data: PlacedItems) -> Loss:
        """What training minimises; the network is on its device now."""

    @abstractmethod
    def score(
        self, network: nn.Module, seen: PlacedItems, draws: int | None = None
    ) -> Tensor:
        """Scores of the items, higher is better, [B, C], on the processor.

        ``draws`` are generated per user; None is what the settings say.
        """

    @abstractmethod
    def zone(self, network: nn.Module, seen: PlacedItems) -> Tensor:
        """How strongly each cell is generated, [B, L, L], at least 0."""

    def tune(self, network: nn.Module, cases: PlacedItems) -> None:
        """Choose on validation cases what training does not decide.

        It is kept in the buffers of the network. The first item of a case is
        the target.
        """
        return None

    def draw_cells(
        self, network: nn.Module, seen: PlacedItems, draws: int
    ) -> Tensor | None:
        """Cells of drawn points, [B, S, 2]; None where none are drawn."""
        return None
