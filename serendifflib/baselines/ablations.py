"""What the portrait is worth: the same diffusion, told something else.

Table 5 replaces the portrait as the condition of the U-Net by a user
embedding or by the user's sequence, and nothing else. In particular the
*generated* grid stays the plane of expectedness and relevance, and a
candidate is still matched with the cell that it has there.

Shapes: B users, n history length, d item-vector width, L side, k factors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from serendifflib.baselines.layers import Blocks, Positions, masked_mean
from serendifflib.baselines.mf import MODES, MatrixFactorization
from serendifflib.baselines.trainer import Budget
from serendifflib.data.interactions import Interactions
from serendifflib.diffusion.base import Diffusion
from serendifflib.diffusion.devices import own_randomness
from serendifflib.diffusion.images import ImageDiffusion
from serendifflib.diffusion.unet import UNet, typical_mean
from serendifflib.errors import ConfigError, ModelError, check_choice
from serendifflib.model.serendiff import SerenDiff
from serendifflib.portrait.fold import FoldData, whole_fold
from serendifflib.portrait.portrait import Portraits

READINGS = ("encoder", "grid")


class Ablation(SerenDiff):
    """A SerenDiff with another condition.

    With the same seed it starts from the same U-Net weights and sees the same
    batches and noise as the ``preset`` that it is compared with. Steps and
    batch size are the budget's, other settings may be changed.
    """

    title = "SerenDiff without its portrait"

    def __init__(
        self,
        *,
        budget: Budget,
        preset: str = "tuned",
        device: str | None = None,
        **changes: Any,
    ):
        size = {
            "steps": budget.max_steps,
            "pretrain_steps": budget.pretrain_steps,
            "batch_size": budget.batch_size,
        }
        super().__init__(
            preset, device=device, progress=False, **(size | changes)
        )
        self.name = self.title

    def make_diffusion(self) -> Diffusion:
        """The diffusion of the preset, but for what it is told."""
        return replace(super().make_diffusion(), represent=self.represent)

    def represent(self, portraits: Portraits) -> Portraits:
        """What the network is told about users in place of portraits."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """An ablation is there to be compared, not to be kept."""
        raise ModelError(
            f"{self.name}: an ablation is not saved; fit it again"
        )


@dataclass(frozen=True)
class SpreadVectors(Portraits):
    """One vector per user, [M, d], the same in every cell of the grid."""

    spread: Tensor

    def part(self, index: Tensor, device: torch.device | str) -> SpreadVectors:
        """The users of the rows ``index``, on ``device``."""
        return SpreadVectors(
            self.items[index].to(device),
            self.positions[index].to(device),
            self.spread[index].to(device),
        )

    def dense(
        self, index: Tensor, vectors: Tensor, side: int
    ) -> tuple[Tensor, Tensor]:
        """The vectors as grids [B, d, L, L] with one item in every cell."""
        return spread_out(self.spread[index], side)


def spread_out(vectors: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Vectors [B, d] in every cell, [B, d, L, L], and counts of one."""
    grid = vectors[..., None, None].expand(-1, -1, side, side)
    return grid.contiguous(), vectors.new_ones(len(vectors), side, side)


class UserEmbedding(Ablation):
    """Told a user embedding from matrix factorisation.

    A user is folded in from the history alone
    (:meth:`~serendifflib.baselines.mf.MatrixFactorization.embed`); the item
    factors know the rows of training users, which can only help this row while
    training. The k factors are standardised, padded to the width of the item
    vectors and given to the same network in every cell: all that reads the
    portrait begins with a full linear layer, so that a learned map from k to d
    would add nothing.

    Args:
        mode: ``implicit`` factorises who had what; ``ratings`` the ratings, as
            the paper words it. A history carries none, so that an item counts
            with its mean; a fair comparison needs the first.
        factors: k, at most the width of the item vectors.
        **settings: see :class:`Ablation`.
    """

    title = "SerenDiff (user embedding)"

    def __init__(
        self, *, mode: str = "implicit", factors: int = 64, **settings: Any
    ):
        check_choice("mode", mode, MODES, "user embedding")
        self.mode, self.factors = mode, factors
        self.factorization: MatrixFactorization | None = None
        super().__init__(**settings)
        if mode != "implicit":
            self.name = f"SerenDiff (user embedding, {mode})"

    def fit(
        self,
        data: Interactions | FoldData,
        *,
        generator: Generator | None = None,
        **options: Any,
    ) -> Self:
        """Factorise, then train; see :meth:`SerenDiff.fit`.

        Raises:
            ConfigError: more factors than the item vectors have numbers.
        """
        fold = data if isinstance(data, FoldData) else whole_fold(data)
        width = fold.raw_vectors.shape[1]
        if self.factors > width:
            raise ConfigError(
                f"{self.name}: {self.factors} factors do not fit in item "
                f"vectors of width {width}; choose at most that many"
            )
        # a copy: the network must draw what it draws with a portrait
        generator = generator or torch.Generator().manual_seed(0)
        self.factorization = MatrixFactorization(
            mode=self.mode, factors=self.factors
        ).fit(fold, generator=generator.clone_state())
        return super().fit(fold, generator=generator, **options)

    def represent(self, portraits: Portraits) -> SpreadVectors:
        """The embeddings of users known by their histories."""
        width = self.points.shape[1]
        spread = torch.zeros(len(portraits), width)
        for rows in torch.arange(len(portraits)).split(2_000):
            found = self.factorization.embed(portraits.items[rows])
            # as large as an item vector per number, whose length is 1
            spread[rows, : found.shape[1]] = found / width**0.5
        return SpreadVectors(portraits.items, portraits.positions, spread)


class SequenceUNet(nn.Module):
    """A U-Net told one vector that an encoder reads off a sequence.

    The sequence comes as a grid with the newest item in its first cell, the
    one before in the next, row by row. The vector is the typical mean of the
    items plus what the encoder adds, which is nothing at first: this network,
    too, begins with the best linear map from users to points.
    """

    def __init__(
        self, unet: UNet, side: int, *, width: int = 64, dropout: float = 0.2
    ):
        super().__init__()
        d = unet.settings.channels
        self.unet = unet
        self.side = side
        self.enter = nn.Linear(d, width)
        self.places = Positions(side * side, width)
        self.blocks = Blocks(2, width, 2, 2 * width, dropout)
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, d)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def point(self) -> nn.Module:
        """The U-Net's head that the fit starts from a linear map."""
        return self.unet.point

    def forward(
        self, x: Tensor, t: Tensor, portrait: Tensor, counts: Tensor
    ) -> Tensor:
        """As :meth:`UNet.forward`, the sequence in place of the portrait."""
        told = typical_mean(portrait, counts) + self.read(portrait, counts)
        return self.unet(x, t, *spread_out(told, self.side))

    def read(self, portrait: Tensor, counts: Tensor) -> Tensor:
        """What the encoder makes of sequences [B, d, L, L]; [B, d]."""
        real = counts.flatten(1) > 0
        longest = max(int(real.sum(dim=1).max()), 1)
        # newest last, as everywhere
        real = real[:, :longest].flip(1)
        tokens = portrait.flatten(2)[..., :longest].flip(2).transpose(1, 2)
        h = self.blocks(self.enter(tokens) + self.places(longest), real)
        return self.leave(masked_mean(self.norm(h), real))


class SequenceDiffusion(ImageDiffusion):
    """The preset's U-Net, behind an encoder of the sequence."""

    def new_network(self, seed: int) -> nn.Module:
        """Both begin with the same seed."""
        unet = super().new_network(seed)
        with own_randomness(seed):
            return SequenceUNet(unet, self.side, dropout=self.unet.dropout)


class UserSequence(Ablation):
    """Told the user's items in the order of time.

    Args:
        reading: ``encoder`` (:class:`SequenceUNet`: positions in time, two
            Transformer blocks, one vector) or ``grid`` (the items fill the
            grid row by row, newest first: only the geometry differs).
        **settings: see :class:`Ablation`.
    """

    title = "SerenDiff (user sequence)"

    def __init__(self, *, reading: str = "encoder", **settings: Any):
        check_choice("reading", reading, READINGS, "user sequence")
        self.reading = reading
        super().__init__(**settings)
        if reading != "encoder":
            self.name = f"SerenDiff (user sequence, {reading})"

    def make_diffusion(self) -> Diffusion:
        """The diffusion of the preset, with an encoder if asked."""
        own = super().make_diffusion()
        if self.reading == "encoder":
            own = SequenceDiffusion(**vars(own))
        return own

    def represent(self, portraits: Portraits) -> Portraits:
        """The items of histories [B, n], one per cell, the newest first."""
        side, histories = self.settings.side, portraits.items
        age = torch.arange(histories.shape[1]).flip(0)
        places = torch.stack([age // side, age % side], dim=1)
        # in the middle of a cell, where no rounding can move it
        positions = (places.double() + 0.5) / side
        return Portraits(
            histories * (age < side * side),
            positions.clamp(max=1.0).repeat(len(histories), 1, 1),
        )
