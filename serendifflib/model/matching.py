"""From generated points to existing items (Sec. 4.4, Eq. 11).

The output of the diffusion is dense: every cell holds a vector. The paper
leaves open which cells are "points"; the three readings are:

``own-cell``
    each candidate meets the vector of its own cell, by cosine;
``zone``
    the cell with the longest vector is the point; candidates of that cell
    come first, then those of the ring of cells around it, and so on; within
    a ring the cosine decides;
``field``
    each candidate meets the vector of its own cell, by inner product, so
    that a cell with a longer vector weighs more.

Letters: B users, C candidates, N items, D channels of a point, L side.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from serendifflib.errors import check_choice
from serendifflib.portrait.portrait import cell_number

MATCHES = ("own-cell", "zone", "field")
USERS = 8  # users per block: their points stay in the processor's cache


def match(
    generated: Tensor, vectors: Tensor, cells: Tensor, how: str
) -> Tensor:
    """Score candidates against a generated portrait, [B, C].

    Args:
        generated: generated portraits, [B, D, L, L].
        vectors: of the candidates, [B, C, D].
        cells: grid indices of the candidates for this user, [B, C, 2].
        how: ``own-cell`` (cosine in [-1, 1]), ``zone`` (cosine minus 2 per
            ring) or ``field`` (any real number); higher is better.

    Raises:
        ConfigError: ``how`` is not known.
    """
    check_choice("matching", how, MATCHES)
    side = generated.shape[-1]
    points = generated.flatten(2).transpose(1, 2)  # [B, L*L, D]
    if how == "zone":
        best = zone_cell(generated)
        point = points[torch.arange(len(points)), best]
        cosine = F.cosine_similarity(point[:, None], vectors, dim=-1)
        return cosine - 2.0 * _rings(best, cells, side)
    flat = cell_number(cells, side)
    own = points.gather(1, flat[..., None].expand(-1, -1, points.shape[-1]))
    if how == "own-cell":
        return F.cosine_similarity(own, vectors, dim=-1)
    return (own * vectors).sum(dim=-1)


def match_catalogue(
    generated: Tensor, vectors: Tensor, cells: Tensor, how: str
) -> Tensor:
    """What :func:`match` gives when every item is a candidate, [B, N].

    ``match`` gathers the vectors of every candidate of every user: right
    for lists of 1,000, but 175 MB a user for a catalogue of 114,000. Here
    all users share one pass over the item vectors [N, D], zero where there is
    none. Cells are [B, N, 2].
    """
    check_choice("matching", how, MATCHES)
    if not len(generated):
        return vectors.new_zeros(0, len(vectors))
    if how != "field":
        vectors = F.normalize(vectors, dim=-1, eps=1e-8)
    parts = [
        _match_block(points, vectors, places, how)
        for points, places in zip(
            generated.split(USERS), cells.split(USERS), strict=True
        )
    ]
    return torch.cat(parts)


def zone_cell(generated: Tensor) -> Tensor:
    """Flat index of the cell with the longest vector, [B]."""
    return generated.norm(dim=1).flatten(1).argmax(dim=1)


def zone_map(generated: Tensor) -> Tensor:
    """How strongly each cell is generated: vector length, [B, L, L]."""
    return generated.norm(dim=1)


def _rings(best: Tensor, cells: Tensor, side: int) -> Tensor:
    """Rings between each item's cell [B, C, 2] and the best one [B]."""
    centre = torch.stack([best // side, best % side], dim=-1)
    return (cells - centre[:, None]).abs().amax(dim=-1)


def _match_block(generated, vectors, cells, how) -> Tensor:
    """Scores of a few users, [B, N]."""
    side = generated.shape[-1]
    points = generated.flatten(2).transpose(1, 2)  # [B, L*L, D]
    if how != "field":
        points = F.normalize(points, dim=-1, eps=1e-8)
    if how == "zone":
        best = zone_cell(generated)
        point = points[torch.arange(len(points)), best]
        return point @ vectors.T - 2.0 * _rings(best, cells, side)
    flat = cell_number(cells, side)
    products = _all_products if vectors.is_cuda else _sampled_products
    return products(points.contiguous(), vectors, flat)


def _all_products(points, vectors, cells) -> Tensor:
    """A GPU computes every inner product and keeps those asked for."""
    everything = points.flatten(0, 1) @ vectors.T  # [B*L*L, N]
    everything = everything.view(len(points), -1, len(vectors))
    return everything.gather(1, cells.long()[:, None])[:, 0]


def _sampled_products(points, vectors, cells) -> Tensor:
    """A processor computes only these: row i of a sparse pattern, item i."""
    users, places, _ = points.shape
    items = len(vectors)
    offset = torch.arange(users, dtype=torch.int32) * places
    columns = (cells.T.int() + offset).reshape(-1)
    starts = torch.arange(0, items * users + 1, users, dtype=torch.int32)
    with warnings.catch_warnings():
        # torch says so for every sparse tensor of this layout
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        pattern = torch.sparse_csr_tensor(
            starts,
            columns,
            vectors.new_zeros(items * users),
            size=(items, users * places),
            check_invariants=False,
        )
    sampled = torch.sparse.sampled_addmm(
        pattern, vectors, points.flatten(0, 1).T, beta=0.0
    )
    return sampled.values().view(items, users).T.contiguous()


@dataclass(frozen=True)
class Matcher:
    """Scores items by generated portraits, whatever lists they stand in.

    ``points`` are those of all items, [N + 1, D].
    """

    points: Tensor
    how: str

    def __call__(
        self, generated: Tensor, items: Tensor, cells: Tensor
    ) -> Tensor:
        """Scores of items [B, C] in cells [B, C, 2]; [B, C].

        Portraits are on the scale of ``points``, [B, D, L, L]. Rows of items
        that are all the same are ranked in one pass.
        """
        if len(items) == 1 or bool((items == items[:1]).all()):
            vectors = self.points[items[0]]
            return match_catalogue(generated, vectors, cells, self.how)
        return torch.cat(
            [
                match(some, self.points[listed], places, self.how)
                for some, listed, places in zip(
                    generated.split(32),
                    items.split(32),
                    cells.split(32),
                    strict=True,
                )
            ]
        )
