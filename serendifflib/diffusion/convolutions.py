"""Convolutions as matrix products: faster training on a processor.

A convolution multiplies every patch of the grid with the same weights. Write
the patches one below the other, and it is one product of two matrices, which
is what a processor does best. On grids as small as 10 x 10 this takes less
time than the convolutions of torch, most of all on the way back::

    with matrix_training():
        model = SerenDiff("tuned").fit(data)

Results agree with those of the plain network up to rounding; dropout, where
there is any, drops other values, because they lie in another order.

Shapes: B examples, C channels, L x L cells, K x K kernel.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from serendifflib.diffusion.team import Team, current_team, training_as


class MatrixConv2d(nn.Conv2d):
    """A convolution of stride 1, computed as one product of two matrices."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, L, L] to [B, C', L, L], as ``nn.Conv2d`` does."""
        (rows, columns), (above, left) = self.kernel_size, self.padding
        height = x.shape[2] + 2 * above - rows + 1
        width = x.shape[3] + 2 * left - columns + 1
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, above, above))
        patches = torch.cat(
            [
                x[:, i : i + height, j : j + width]
                for i in range(rows)
                for j in range(columns)
            ],
            dim=-1,
        )  # [B, L, L, K K C]
        weights = self.weight.permute(0, 2, 3, 1).flatten(1)  # [C', K K C]
        return F.linear(patches, weights, self.bias).permute(0, 3, 1, 2)


def as_matrix_products(network: nn.Module) -> nn.Module:
    """A view of a network that computes its convolutions as products.

    The view shares its weights with ``network``, which stays as it is; it
    keeps the mode (training or not) that ``network`` has now. Convolutions
    with strides, groups, gaps or another padding than zeros are left alone.

    Args:
        network: e.g. a :class:`~serendifflib.diffusion.unet.UNet`.
    """
    tensors = itertools.chain(network.parameters(), network.buffers())
    view = copy.deepcopy(network, {id(one): one for one in tensors})
    for module in view.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = MatrixConv2d
    return view


def _is_plain(one: nn.Conv2d) -> bool:
    return (
        one.stride == one.dilation == (1, 1)
        and one.groups == 1
        and one.padding_mode == "zeros"
        and not isinstance(one.padding, str)
    )


@dataclass(frozen=True)
class MatrixTeam(Team):
    """A team that trains with convolutions as matrix products."""

    def wrap(self, network: nn.Module) -> nn.Module:
        """See :meth:`Team.wrap`; on a processor the view uses products."""
        if next(network.parameters()).device.type == "cpu":
            network = as_matrix_products(network)
        return super().wrap(network)


@contextmanager
def matrix_training() -> Iterator[Team]:
    """Within this context, a processor trains with matrix products.

    On CUDA nothing changes. It can be combined with several processes,
    within :func:`serendifflib.diffusion.distributed.together`.

    Yields:
        this process's place in the team.
    """
    team = current_team()
    with training_as(MatrixTeam(team.rank, team.size)) as found:
        yield found
