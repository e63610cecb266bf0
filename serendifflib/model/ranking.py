"""Ranking the whole catalogue for many users (Sec. 4.4, Eq. 11).

``match`` gathers the vectors of every candidate
of every user: right for lists of 1,000, but 175 MB per user for the catalogue
of SerenLens-Books. Here all users share one pass over the item vectors.

On a processor the products are sampled: of the N x L^2 inner products between
items and cells of a user, only the N that are asked for are computed. On a
GPU all of them are, because a dense product is what it does best.
"""

from __future__ import annotations

import warnings

import torch

from serendifflib.errors import ConfigError
from serendifflib.model.matching import MATCHES, zone_cell

USERS = 8  # users per block: their points stay in the processor's cache


def score_catalogue(
    generated: torch.Tensor,
    vectors: torch.Tensor,
    cells: torch.Tensor,
    how: str,
) -> torch.Tensor:
    """What ``match`` gives when every item is a candidate.

    Args:
        generated: generated portraits, [B, d, L, L].
        vectors: unit item vectors (zero where there is none), [N, d], on
            the same device.
        cells: flat cell ``row * L + column`` of every item for every user,
            [B, N], any integer type.
        how: ``own-cell``, ``zone`` or ``field``.

    Returns:
        [B, N], higher is better.

    Raises:
        ConfigError: ``how`` is not known.
    """
    if how not in MATCHES:
        raise ConfigError(
            f"unknown matching {how!r}: choose one of {', '.join(MATCHES)}"
        )
    if not len(generated):
        return vectors.new_zeros(0, len(vectors))
    parts = [
        _score_block(points, vectors, places, how)
        for points, places in zip(
            generated.split(USERS), cells.split(USERS), strict=True
        )
    ]
    return torch.cat(parts)


def top_items(
    generated: torch.Tensor,
    vectors: torch.Tensor,
    cells: torch.Tensor,
    how: str,
    k: int,
) -> torch.Tensor:
    """Rows of ``vectors`` with the ``k`` best scores per user, best first.

    Args are those of :func:`score_catalogue`; no [B, N] of floats is kept.

    Returns:
        int64, [B, k].

    Raises:
        ConfigError: ``how`` is not known, or ``k`` is not in 1..N.
    """
    if not 1 <= k <= len(vectors):
        raise ConfigError(f"k must be in 1..{len(vectors)}, got {k}")
    blocks = [
        score_catalogue(points, vectors, places, how).topk(k).indices
        for points, places in zip(
            generated.split(USERS), cells.split(USERS), strict=True
        )
    ]
    return torch.cat(blocks)


def _score_block(generated, vectors, cells, how) -> torch.Tensor:
    """Scores of a few users, [B, N]."""
    side = generated.shape[-1]
    points = generated.flatten(2).transpose(1, 2)  # [B, L*L, d]
    if how == "zone":
        best = zone_cell(generated)
        point = points[torch.arange(len(points)), best]
        cosine = _unit(point) @ vectors.T
        row, column = (cells // side).long(), (cells % side).long()
        ring = torch.maximum(
            (row - (best // side)[:, None]).abs(),
            (column - (best % side)[:, None]).abs(),
        )
        return cosine - 2.0 * ring
    if how == "own-cell":
        points = _unit(points)  # the items are unit vectors already
    products = _all_products if vectors.is_cuda else _sampled_products
    return products(points.contiguous(), vectors, cells)


def _all_products(points, vectors, cells) -> torch.Tensor:
    everything = points.flatten(0, 1) @ vectors.T  # [B*L*L, N]
    everything = everything.view(len(points), -1, len(vectors))
    return everything.gather(1, cells.long()[:, None])[:, 0]


def _sampled_products(points, vectors, cells) -> torch.Tensor:
    """As :func:`_all_products`: row i of the pattern holds item i's cells."""
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


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Rows scaled to length 1; zero rows stay zero."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-8)
