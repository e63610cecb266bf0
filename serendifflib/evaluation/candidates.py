"""Candidate lists: one positive among items spread over the user's grid.

The paper ranks each held-out item among 1,000 candidates that lie evenly in
the 10 x 10 cells of that user's portrait (Sec. 5.4). Lists are drawn once,
stored with a checksum, and given to every model alike.
Letters: M examples, C candidates, N items, L side of the grid.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from serendifflib.data.interactions import derived_seed
from serendifflib.data.splits import Examples
from serendifflib.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ModelError,
)
from serendifflib.io import content_hash, write_bytes
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.portrait import PortraitSpace, cell_number, cell_of


@dataclass(frozen=True)
class Candidates:
    """Candidate lists of M examples.

    Attributes:
        items: item numbers, LongTensor [M, C], distinct within a row.
        positive: column of the held-out item, LongTensor [M].
    """

    items: torch.Tensor
    positive: torch.Tensor

    def __len__(self) -> int:
        return len(self.positive)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over both tensors."""
        return content_hash(self.items.numpy(), self.positive.numpy())

    def subset(self, index: np.ndarray | list[int] | slice) -> Candidates:
        """The lists at ``index``."""
        return Candidates(self.items[index], self.positive[index])

    def save(self, path: Path | str) -> None:
        """Write a compressed ``.npz`` file."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream, items=self.items.numpy(), positive=self.positive.numpy()
        )
        write_bytes(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path | str) -> Candidates:
        """Read a file that :meth:`save` wrote, or a CheckpointError."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                lists = (stored[name] for name in ("items", "positive"))
                return cls(*map(torch.from_numpy, lists))
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: no such candidate file") from error
        except Exception as error:  # one wrong byte can raise anything
            raise CheckpointError(
                f"{path}: the candidate file is damaged; delete it and the "
                "lists are drawn again"
            ) from error


def draw_candidates(
    positions_of: Callable[[int], np.ndarray | torch.Tensor],
    examples: Examples,
    *,
    n_candidates: int = 1000,
    side: int = 10,
    exclude: Callable[[int], np.ndarray],
    seed: int,
    user_ids: np.ndarray | None = None,
) -> Candidates:
    """Draw candidate lists that are as even over the cells as items allow.

    Every cell gives ``n_candidates // side**2`` items (cells drawn at random
    give one more if that leaves a remainder). What a cell lacks comes from the
    nearest ring of cells around it that has items left (Chebyshev distance),
    uniformly over the items of that ring. The positive takes a place of its
    own cell. Each list derives its own seed from ``seed``, the user's id and
    the target, so that the order of examples changes nothing.

    Args:
        positions_of: for example m, the (expectedness, relevance) position
            of every item, float [N + 1, 2] in [0, 1]; row 0 is ignored.
        examples: the examples, M of them.
        n_candidates: C, the positive included.
        side: cells per axis, L.
        exclude: for example m, item numbers that must not be drawn.
        seed: of all lists.
        user_ids: id of every user number; without it the number is the id.

    Raises:
        ConfigError: fewer than one candidate or cell.
        DataError: fewer items are eligible than the lists need.
        ModelError: a position is not a number or lies outside [0, 1].
    """
    if n_candidates < 1 or side < 1:
        raise ConfigError(
            f"n_candidates is {n_candidates} and side is {side}: both must "
            "be at least 1"
        )
    items = np.zeros((len(examples), n_candidates), dtype=np.int64)
    positive = np.zeros(len(examples), dtype=np.int64)
    rings = _ring_table(side)
    for row, user in enumerate(examples.users):
        target = int(examples.targets[row])
        user_id = str(user if user_ids is None else user_ids[user])
        cells = _cells(positions_of(row), side)
        left_out = np.asarray(exclude(row), dtype=np.int64)
        generator = np.random.default_rng(derived_seed(seed, user_id, target))
        drawn = _draw(
            cells, target, left_out, n_candidates, rings, generator, user_id
        )
        shuffled = generator.permutation(np.append(drawn, target))
        items[row] = shuffled
        positive[row] = np.flatnonzero(shuffled == target)[0]
    return Candidates(torch.from_numpy(items), torch.from_numpy(positive))


def fold_candidates(
    fold: FoldData,
    space: PortraitSpace,
    *,
    part: str = "test",
    n_candidates: int = 1000,
    seed: int = 0,
) -> Candidates:
    """Candidates of a fold's ``"test"`` or ``"valid"`` examples.

    Spread over the grid of each user's ``space``, without the items of that
    user and the missing items. See :func:`draw_candidates`.
    """
    examples = {"valid": fold.valid, "test": fold.test}[part]
    data = fold.interactions

    def positions_of(row: int) -> np.ndarray:
        history = examples.histories[row].numpy()
        return space.catalogue_positions(history[history > 0])

    def exclude(row: int) -> np.ndarray:
        own = data.item_index[data.rows(int(examples.users[row]))]
        return np.concatenate([own, fold.missing_items])

    return draw_candidates(
        positions_of,
        examples,
        n_candidates=n_candidates,
        exclude=exclude,
        seed=seed,
        user_ids=data.users,
    )


def _cells(positions: np.ndarray | torch.Tensor, side: int) -> np.ndarray:
    """Cell number (row-major) of every item, int64 [N + 1]."""
    places = torch.as_tensor(positions).numpy().astype(np.float64)  # a copy
    places[0] = 0  # of padding nothing is asked
    inside = (places >= 0) & (places <= 1)  # False for NaN
    if not inside.all():
        item = int(np.flatnonzero(~inside.all(axis=1))[0])
        raise ModelError(
            f"the position of item {item} is {places[item].tolist()}: both "
            "coordinates must lie in [0, 1]"
        )
    flat: np.ndarray = cell_number(cell_of(places, side), side)
    return flat


def _ring_table(side: int) -> list[list[np.ndarray]]:
    """Cells at Chebyshev distance 1, 2, ... of every cell."""
    place = np.stack(np.divmod(np.arange(side * side), side), axis=1)
    distance = np.abs(place[:, None] - place[None]).max(axis=2)
    return [
        [np.flatnonzero(row == ring) for ring in range(1, row.max() + 1)]
        for row in distance
    ]


def _draw(
    cells: np.ndarray,
    target: int,
    left_out: np.ndarray,
    n_candidates: int,
    rings: list[list[np.ndarray]],
    generator: np.random.Generator,
    user_id: str,
) -> np.ndarray:
    """The negatives of one example, shape [C - 1]."""
    n_cells = len(rings)
    eligible = np.ones(len(cells), dtype=bool)
    eligible[[0, target]] = False
    eligible[left_out] = False
    pool = np.flatnonzero(eligible)
    if len(pool) < n_candidates - 1:
        raise DataError(
            f"user {user_id!r} has {len(pool) + 1} items to draw candidates "
            f"from, fewer than n_candidates={n_candidates}: choose a smaller "
            "n_candidates"
        )
    # Shuffle once, then sort stably by cell: each cell's items lie together
    # in random order, and taking the next one is a uniform draw.
    pool = generator.permutation(pool)
    pool_cells = cells[pool].astype(np.int32)
    pool = pool[np.argsort(pool_cells, kind="stable")]
    held = np.bincount(pool_cells, minlength=n_cells)
    first = np.concatenate([[0], np.cumsum(held)[:-1]])
    wanted = _quota(n_candidates, n_cells, int(cells[target]), generator)
    taken = np.minimum(wanted, held)
    lacking = wanted - taken
    for ring in range(max(map(len, rings))):
        for cell in generator.permutation(np.flatnonzero(lacking)):
            if ring >= len(rings[cell]):
                continue
            near = rings[cell][ring]
            more = _share_out(
                held[near] - taken[near], lacking[cell], generator
            )
            taken[near] += more
            lacking[cell] -= more.sum()
    return np.concatenate(
        [
            pool[start : start + count]
            for start, count in zip(first, taken, strict=True)
        ]
    )


def _quota(
    n_candidates: int,
    n_cells: int,
    own_cell: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """How many negatives each cell should give; they sum to C - 1."""
    base, remainder = divmod(n_candidates, n_cells)
    wanted = np.full(n_cells, base)
    wanted[generator.permutation(n_cells)[:remainder]] += 1
    if wanted[own_cell] == 0:
        own_cell = int(generator.choice(np.flatnonzero(wanted)))
    wanted[own_cell] -= 1
    return wanted


def _share_out(
    left: np.ndarray, wanted: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw up to ``wanted`` of the items left; how many fall in each cell."""
    total = int(left.sum())
    if total <= wanted:
        return left
    picks = generator.choice(total, size=int(wanted), replace=False)
    owner = np.searchsorted(np.cumsum(left), picks, side="right")
    return np.bincount(owner, minlength=len(left))
