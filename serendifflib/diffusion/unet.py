"""The conditional U-Net (App. B): from a noisy portrait to an estimate.

No schedule in here. The paper's sizes are the defaults (181 million
parameters); ``widths`` scales everything down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serendifflib.errors import check_choice

CONDITIONS = ("concat", "film", "cross", "global")
TYPICAL = 0.1  # temperature of the weights of typical cells
PRODUCTS_UP_TO = 20  # side of a grid on which matrix products win
POOL_SIDE = 10  # the occupancy map is summarised on a grid of this side


@dataclass(frozen=True)
class UNetSettings:
    """Shape of the network.

    Attributes:
        channels: d, width of the item vectors.
        widths: channels of the three stages; the bottleneck has twice the
            last (App. B: 384, 768, 1536).
        condition: how the portrait enters. ``concat``: as further input
            channels (the paper's plain reading). ``film``: also pooled over
            the whole grid into the time embedding, which scales and shifts
            every stage. ``cross``: also attention from the bottleneck to the
            occupied cells (Rombach et al. 2022). ``global``: as ``film``,
            and one vector for the whole user, linear in the pooled portrait,
            is added to the output cells that a learned map picks.
        norm: ``batch`` (App. B) or ``group``.
        dropout: probability, App. B: 0.2.
        output_relu: the final ReLU of App. B.
    """

    channels: int = 384
    widths: tuple[int, int, int] = (384, 768, 1536)
    condition: str = "concat"
    norm: str = "batch"
    dropout: float = 0.2
    output_relu: bool = True

    def __post_init__(self):
        check_choice("condition", self.condition, CONDITIONS)
        check_choice("norm", self.norm, ("batch", "group"))


class UNet(nn.Module):
    """Three stages down, a bottleneck, three stages up, with skips.

    Poolings round up (10 - 5 - 3 - 2) and the way up is cropped, because
    three halvings of 10 do not come back to 10. The stage that is told the
    time gets it as a scale and a shift of its channels.
    """

    def __init__(self, settings: UNetSettings):
        super().__init__()
        self.settings = settings
        d, widths = settings.channels, settings.widths
        time_width = max(widths[0], 64)
        self.time_width = time_width
        self.time = nn.Sequential(
            nn.Linear(time_width, time_width),
            nn.GELU(),
            nn.Linear(time_width, time_width),
        )
        if settings.condition != "concat":
            self.pool = PortraitPooling(d, time_width)
        ins = (2 * d, *widths[:2])
        self.down = nn.ModuleList(
            Stage(a, b, time_width, settings)
            for a, b in zip(ins, widths, strict=True)
        )
        deep = widths[-1]
        self.bottleneck = nn.ModuleList(
            [
                Stage(deep, 2 * deep, time_width, settings),
                Stage(2 * deep, deep, time_width, settings),
            ]
        )
        if settings.condition == "cross":
            self.attend = CrossAttention(deep, d)
        lows = (deep, widths[2], widths[1])
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(a, b, kernel_size=2, stride=2)
            for a, b in zip(lows, reversed(widths), strict=True)
        )
        self.up = nn.ModuleList(
            Stage(2 * skip, skip, time_width, settings, norm=False)
            for skip in reversed(widths)
        )
        self.out = GridConv2d(widths[0], d, kernel_size=3, padding=1)
        if settings.condition == "global":
            self.point = GlobalPoint(widths[0], d, settings.dropout)

    def forward(
        self, x: Tensor, t: Tensor, portrait: Tensor, counts: Tensor
    ) -> Tensor:
        """Estimate noise, x_0 or v (whatever it was trained for).

        Args:
            x: noisy generated portrait, [B, d, L, L], as what is returned.
            t: steps, [B], 0..T-1.
            portrait: the user's portrait M^u, [B, d, L, L].
            counts: history items per cell, [B, L, L].
        """
        code = self.time(sinusoid(t, self.time_width))
        if self.settings.condition != "concat":
            code = code + self.pool(portrait, counts)
        h = torch.cat([x, portrait], dim=1)
        skips = []
        for stage in self.down:
            h = stage(h, code)
            skips.append(h)
            h = F.max_pool2d(h, 2, ceil_mode=True)
        h = self.bottleneck[0](h, code)
        h = self.bottleneck[1](h, code)
        if self.settings.condition == "cross":
            h = h + self.attend(h, portrait, counts)
        for rise, stage in zip(self.rise, self.up, strict=True):
            skip = skips.pop()
            h = rise(h)[..., : skip.shape[-2], : skip.shape[-1]]
            h = stage(torch.cat([h, skip], dim=1), code)
        output = self.out(h)
        if self.settings.condition == "global":
            output = output + self.point(h, portrait, counts)
        return F.relu(output) if self.settings.output_relu else output


class GridConv2d(nn.Conv2d):
    """A 3x3 convolution; on a processor and a small grid a matrix product.

    A convolution multiplies every patch of the grid with the same weights.
    Write the patches one below the other, and it is one product of two
    matrices, which a processor does best on grids as small as 10 x 10. Where
    many channels become few, the nine weights of each cell are multiplied
    first and their products put in place, for the patches would be large.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, L, L] to [B, C', L, L], as ``nn.Conv2d`` does."""
        height, width = x.shape[2:]
        if x.is_cuda or height * width > PRODUCTS_UP_TO**2:
            return super().forward(x)
        x = x.permute(0, 2, 3, 1)
        shifts = [
            (slice(i, i + height), slice(j, j + width))
            for i in range(3)
            for j in range(3)
        ]
        if self.in_channels > 2 * self.out_channels:
            weights = self.weight.flip(2, 3).permute(1, 2, 3, 0).flatten(1)
            products = (x @ weights).unflatten(-1, (9, -1)).unbind(-2)
            out = x.new_zeros(len(x), height + 2, width + 2, self.out_channels)
            for (rows, columns), product in zip(shifts, products, strict=True):
                out[:, rows, columns] += product
            out = out[:, 1:-1, 1:-1] + self.bias
        else:
            x = F.pad(x, (0, 0, 1, 1, 1, 1))
            patches = torch.cat(
                [x[:, rows, cols] for rows, cols in shifts], -1
            )
            weights = self.weight.permute(0, 2, 3, 1).flatten(1)  # [C', 9 C]
            out = F.linear(patches, weights, self.bias)
        return out.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Conv 3x3, norm, GELU, then scale and shift by the time code."""

    def __init__(self, ins, outs, time_width, settings, norm=True):
        super().__init__()
        self.conv = GridConv2d(ins, outs, kernel_size=3, padding=1)
        self.norm = _norm(settings.norm, outs) if norm else nn.Identity()
        self.code = nn.Linear(time_width, 2 * outs)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, h, code):
        """[B, ins, l, l], [B, time_width] -> [B, outs, l, l]."""
        h = F.gelu(self.norm(self.conv(h)))
        scale, shift = self.code(F.gelu(code))[..., None, None].chunk(2, 1)
        return self.dropout(h * (1.0 + scale) + shift)


class PortraitPooling(nn.Module):
    """The whole portrait as one vector: what is in it, and where.

    A convolution sees its neighbourhood only; on a grid of mostly empty
    cells it hardly sees the user at all.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.mix = nn.Sequential(
            nn.Linear(channels + POOL_SIDE**2, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, portrait, counts):
        """[B, d, L, L], [B, L, L] -> [B, width]."""
        total = counts.sum(dim=(1, 2)).clamp(min=1.0)
        mean = (portrait * counts[:, None]).sum(dim=(2, 3)) / total[:, None]
        side = counts.shape[-1]
        share = counts / total[:, None, None]
        # sums of the share per coarse cell, whatever L is
        where = F.adaptive_avg_pool2d(share[:, None], POOL_SIDE)
        where = where.flatten(1) * (side / POOL_SIDE) ** 2
        return self.mix(torch.cat([mean, where * 10.0], dim=1))


class GlobalPoint(nn.Module):
    """One vector for the whole user, placed where a learned map says.

    The vector is linear in the mean of the user's typical cells (those that
    are close to the mean of all). A convolutional output has to learn the
    same map from user to point once per place; this learns it once.
    """

    def __init__(self, width: int, channels: int, dropout: float):
        super().__init__()
        self.place = nn.Conv2d(width, 1, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.vector = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.vector.weight)
        nn.init.zeros_(self.place.weight)
        nn.init.constant_(self.place.bias, 0.5)

    @torch.no_grad()
    def start_from(self, typical: Tensor, points: Tensor) -> None:
        """Add the ridge regression from users to points.

        From the :func:`typical_mean` of training users to the vectors of their
        targets, both [M, d]. There are few labels and many weights: training
        then only has to improve on the best linear map instead of finding it.
        The map is shrunk towards the one that stands here, so that what
        pre-training has learned is not thrown away.
        """
        left = points - typical @ self.vector.weight.T
        square = typical.T @ typical
        ridge = torch.eye(len(square)) * typical.square().sum(dim=1).mean()
        solution = torch.linalg.solve(square + ridge, typical.T @ left)
        self.vector.weight += solution.T

    def forward(self, h, portrait, counts):
        """[B, width, L, L], [B, d, L, L], [B, L, L] -> [B, d, L, L]."""
        typical = typical_mean(portrait, counts)
        vector = self.vector(self.dropout(typical))
        return self.place(h) * vector[..., None, None]


def typical_mean(portrait: Tensor, counts: Tensor):
    """Mean of the occupied cells, weighted by how typical each is, [B, d].

    The weight is the number of items of a cell (counts [B, L, L]) times
    exp(cosine / 0.1), the cosine being that of the cell of the portrait
    [B, d, L, L] to the plain mean of the history.
    """
    cells = portrait.flatten(2)
    items = counts.flatten(1)
    mean = (cells * items[:, None]).sum(dim=2)
    cosine = F.cosine_similarity(cells, mean[..., None], dim=1)
    logits = items.clamp(min=1e-9).log() + cosine / TYPICAL
    weights = logits.masked_fill(items == 0, -1e9).softmax(dim=1)
    return (cells * weights[:, None]).sum(dim=2)


class CrossAttention(nn.Module):
    """Attention from every place of the bottleneck to the occupied cells."""

    def __init__(self, width: int, channels: int, heads: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.token = nn.Linear(channels + 2, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, h, portrait, counts):
        """[B, width, l, l], [B, d, L, L], [B, L, L] -> [B, width, l, l]."""
        tokens, empty = occupied_cells(portrait, counts)
        places = h.flatten(2).transpose(1, 2)
        tokens = self.token(tokens)
        mixed, _ = self.attention(
            self.norm(places),
            tokens,
            tokens,
            key_padding_mask=empty,
            need_weights=False,
        )
        return mixed.transpose(1, 2).view_as(h)


def occupied_cells(portrait: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The cells with history items, as a padded set.

    Of a portrait [B, d, L, L] with counts [B, L, L]: tokens [B, K, d + 2]
    (mean vector, then the two cell centres in [0, 1]) and the padding mask
    [B, K] (True = no cell).
    """
    side = counts.shape[-1]
    flat = counts.flatten(1)
    most = int((flat > 0).sum(dim=1).max().clamp(min=1))
    order = (flat > 0).float().argsort(dim=1, descending=True, stable=True)
    order = order[:, :most]
    vectors = portrait.flatten(2).transpose(1, 2)
    vectors = vectors.gather(
        1, order[..., None].expand(-1, -1, vectors.shape[-1])
    )
    centres = torch.stack([order // side, order % side], dim=-1)
    centres = (centres.to(portrait.dtype) + 0.5) / side
    return torch.cat([vectors, centres], dim=-1), flat.gather(1, order) == 0


def sinusoid(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of time steps, [B] -> [B, width]."""
    half = width // 2
    rates = torch.exp(
        torch.arange(half, device=t.device) * (-math.log(10_000.0) / half)
    )
    angles = t[:, None].float() * rates
    code = torch.cat([angles.sin(), angles.cos()], dim=1)
    return F.pad(code, (0, width - 2 * half))


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)
