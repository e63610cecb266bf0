"""Diffusion over portraits, the paper's way (Sec. 4.3, App. B).

A serendipity portrait is an image that is empty but for one cell, which
holds the vector of the serendipitous item. The conditional U-Net learns to
make it from noise, given the user's portrait.

Letters: B users, n history length, C candidates, N items, D channels of a
point, L side of the grid, T steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from serendifflib.diffusion import sampling
from serendifflib.diffusion.base import Diffusion, PlacedItems
from serendifflib.diffusion.devices import compiled, mixed_precision
from serendifflib.diffusion.distributed import current_team
from serendifflib.diffusion.points import log_mean_exp
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.training import draw_noise
from serendifflib.diffusion.unet import UNet, UNetSettings, typical_mean
from serendifflib.diffusion.validation import mean_ndcg
from serendifflib.errors import check_choice
from serendifflib.portrait.portrait import Portraits

LOSSES = ("uniform", "balanced")
TEMPERATURES = (0.03, 0.1, 0.3, 1.0)  # of draws, in deviations of scores
Matcher = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(generated [B, D, L, L], items [B, C], cells [B, C, 2]) -> [B, C]."""


def point_grid(
    targets: Tensor, cells: Tensor, vectors: Tensor, side: int
) -> Tensor:
    """M_seren [B, d, L, L]: the target's vector in its cell, zero elsewhere.

    Of targets [B] in cells [B, 2] with item vectors [N + 1, d].
    """
    grid = vectors.new_zeros(len(targets), vectors.shape[1], side, side)
    rows = torch.arange(len(targets), device=targets.device)
    grid[rows, :, cells[:, 0], cells[:, 1]] = vectors[targets]
    return grid


def grid_loss(
    output: Tensor, target: Tensor, cells: Tensor, kind: str
) -> Tensor:
    """Squared error per coordinate, averaged as ``kind`` says.

    ``uniform`` is Eq. 10. 99 of 100 cells of the target are empty, so that
    predicting nothing is nearly optimal; ``balanced`` gives the one cell
    with the point the same weight as all the others together.
    """
    errors = (output - target).square().mean(dim=1)  # [B, L, L]
    if kind == "uniform":
        return errors.mean()
    rows = torch.arange(len(cells), device=cells.device)
    point = errors[rows, cells[:, 0], cells[:, 1]]
    others = errors.shape[-1] * errors.shape[-2] - 1
    background = (errors.sum(dim=(1, 2)) - point) / max(others, 1)
    return 0.5 * (point.mean() + background.mean())


@dataclass(frozen=True)
class ImageLoss:
    """The loss of a batch of users (Eq. 10).

    Attributes:
        schedule: noise schedule.
        portraits: of all M training users.
        targets, cells: their serendipitous items [M], and where these lie,
            [M, 2].
        points: item vectors, [N + 1, D]; all tensors are on the device of
            the network.
        side: L.
        predict: ``noise`` (Eq. 10), ``x0`` or ``v``.
        kind: ``uniform`` or ``balanced``, see :func:`grid_loss`.
        scale: of the portraits, see :class:`ImageDiffusion`.
    """

    schedule: DDPMSchedule
    portraits: Portraits
    targets: Tensor
    cells: Tensor
    points: Tensor
    side: int
    predict: str
    kind: str
    scale: float = 1.0

    def __post_init__(self):
        check_choice("loss", self.kind, LOSSES)

    def __call__(
        self, network: nn.Module, index: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Noise a batch, predict, compare; each process takes its share."""
        device, team, size = self.points.device, current_team(), len(index)
        # 1. draw: users, their portraits, their serendipity portraits x_0
        t = torch.randint(
            self.schedule.timesteps, (size,), generator=generator
        )
        shape = (size, self.points.shape[1], self.side, self.side)
        noise = team.share(draw_noise(shape, generator, device))
        index, t = team.share(index).to(device), team.share(t).to(device)
        portrait, counts = self.portraits.dense(index, self.points, self.side)
        cells = self.cells[index]
        x0 = point_grid(self.targets[index], cells, self.points, self.side)
        portrait, x0 = portrait * self.scale, x0 * self.scale
        # 2. noise them to a random step: x_t in closed form (Eq. 1)
        x_t = self.schedule.q_sample(x0, t, noise)
        # 3. let the network predict, and measure how wrong it is (Eq. 10)
        with mixed_precision(device):
            output = network(x_t, t, portrait, counts)
        wanted = self.schedule.target(self.predict, x0, t, noise)
        return grid_loss(output.float(), wanted, cells, self.kind)


@dataclass(eq=False, kw_only=True)
class ImageDiffusion(Diffusion):
    """Generates serendipity portraits.

    Attributes:
        points: what is diffused of each item, [N + 1, D].
        unet: shape of the network.
        schedule: noise schedule.
        predict, loss_kind: see :class:`ImageLoss`.
        data_scale: points are multiplied by it before diffusion, so that
            they are not drowned in N(0, I); sqrt(D) gives variance 1.
        sampler, calls: see :func:`serendifflib.diffusion.sampling.sample`.
        samples: S, portraits per user.
        aggregate: what is done with them. ``mean``: they are averaged.
            ``draws``: each is matched on its own, and the score is the log
            of the mean over draws of exp(score / temperature), scores being
            divided by their deviation; chosen on validation users.
        matcher: scores items by a generated portrait.
        represent: what the network is told about users; an ablation differs.
    """

    points: Tensor
    unet: UNetSettings
    schedule: DDPMSchedule
    predict: str
    loss_kind: str
    data_scale: float
    sampler: str
    calls: int
    samples: int
    aggregate: str
    matcher: Matcher
    represent: Callable[[Portraits], Portraits] = lambda portraits: portraits

    def make_network(self) -> nn.Module:
        """A U-Net."""
        network = UNet(self.unet)
        if self.aggregate == "draws":
            network.register_buffer("temperature", torch.tensor(0.3))
        return network

    def start(self, network: nn.Module, data: PlacedItems) -> None:
        """Begin with the best linear map from users to their points."""
        if self.unet.condition != "global" or self.predict != "x0":
            return
        points = self.points * self.data_scale
        told = self.represent(data.portraits)
        typical = torch.cat(
            [
                typical_mean(*told.dense(rows, points, self.side))
                for rows in torch.arange(len(data)).split(256)
            ]
        )
        network.point.start_from(typical, points[data.targets])

    def loss(self, network: nn.Module, data: PlacedItems) -> ImageLoss:
        """Eq. 10 on these examples."""
        everybody = torch.arange(len(data))
        return ImageLoss(
            self.schedule,
            self.represent(data.portraits).part(everybody, self.device),
            data.targets.to(self.device),
            data.target_cells(self.side).to(self.device),
            self.points.to(self.device),
            self.side,
            self.predict,
            self.loss_kind,
            self.data_scale,
        )

    def score(
        self, network: nn.Module, seen: PlacedItems, draws: int | None = None
    ) -> Tensor:
        """Scores of the items against generated portraits, [B, C]."""
        if self.aggregate == "draws":
            each = self._match_each(network, seen, draws)
            return _joined(each, float(network.temperature))
        made = self.generate(network, seen.portraits, samples=draws)
        return self.matcher(made, seen.items, seen.cells(self.side))

    def _match_each(
        self, network: nn.Module, seen: PlacedItems, draws: int | None
    ) -> Tensor:
        """Scores of the items against every draw, [B, S, C]."""
        parts = []
        for rows in torch.arange(len(seen)).split(16):
            some = seen.part(rows)
            made = self.generate(
                network, some.portraits, samples=draws, each=True
            )
            cells = some.cells(self.side)
            scores = [
                self.matcher(one, some.items, cells) for one in made.unbind(1)
            ]
            parts.append(torch.stack(scores, dim=1))
        return torch.cat(parts)

    def zone(self, network: nn.Module, seen: PlacedItems) -> Tensor:
        """Lengths of the generated vectors, [B, L, L]."""
        return self.generate(network, seen.portraits).norm(dim=1)

    @torch.no_grad()
    def generate(
        self,
        network: nn.Module,
        portraits: Portraits,
        *,
        samples: int | None = None,
        sampler: str | None = None,
        calls: int | None = None,
        batch_size: int = 64,
        each: bool = False,
    ) -> Tensor:
        """Generate serendipity portraits from noise (Eq. 6, Figure 4).

        Of M users, and S samples for each; what is None is as in the settings.
        Order and batch size change the result by rounding alone. Returns the
        mean sample, on the scale of ``points``, [M, D, L, L], or ``each``,
        [M, S, D, L, L].
        """
        samples, calls = samples or self.samples, calls or self.calls
        told = self.represent(portraits)
        points = self.points.to(self.device)
        batches = torch.arange(len(portraits)).split(batch_size)
        view = compiled(network, samples * calls * len(batches))
        parts = []
        for rows in batches:
            users = portraits.items[rows]
            noise = sampling.user_noise(users, self.seed, self.device)
            grid, counts = told.part(rows, self.device).dense(
                torch.arange(len(rows)), points, self.side
            )
            grid = grid * self.data_scale

            def denoise(x, t, told=(grid, counts)):
                return view(x, t, *told)

            made = (
                sampling.sample(
                    denoise,
                    noise(grid.shape),
                    self.schedule,
                    sampler=sampler or self.sampler,
                    predict=self.predict,
                    calls=calls,
                    noise=noise,
                )
                for _ in range(samples)
            )
            # one sum, however many there are
            result = (
                torch.stack(list(made), 1) if each else sum(made) / samples
            )
            parts.append((result / self.data_scale).cpu())
        return torch.cat(parts)

    def tune(self, network: nn.Module, cases: PlacedItems) -> None:
        """Choose the temperature of draws on validation cases."""
        if self.aggregate == "draws":
            each = self._match_each(network, cases, None)
            values = [mean_ndcg(_joined(each, t)) for t in TEMPERATURES]
            network.temperature.fill_(TEMPERATURES[int(np.argmax(values))])


def _joined(each: Tensor, temperature: float) -> Tensor:
    """Scores of draws [B, S, C] as those of one density, [B, C]."""
    scale = each.std(dim=(1, 2), keepdim=True).clamp(min=1e-9)
    return log_mean_exp(each / scale, torch.zeros(()), temperature, 1.0)
