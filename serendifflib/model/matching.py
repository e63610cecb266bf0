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
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from serendifflib.errors import ConfigError
from serendifflib.portrait.portrait import cell_number

MATCHES = ("own-cell", "zone", "field")


def match(
    generated: torch.Tensor,
    vectors: torch.Tensor,
    cells: torch.Tensor,
    how: str,
) -> torch.Tensor:
    """Score candidates against a generated portrait.

    Args:
        generated: generated portraits, [B, d, L, L].
        vectors: unit vectors of the candidates, [B, C, d].
        cells: grid indices of the candidates for this user, [B, C, 2].
        how: ``own-cell``, ``zone`` or ``field``.

    Returns:
        [B, C], higher is better. ``own-cell``: cosine in [-1, 1]. ``zone``:
        cosine minus 2 per ring. ``field``: any real number.

    Raises:
        ConfigError: ``how`` is not known.
    """
    side = generated.shape[-1]
    points = generated.flatten(2).transpose(1, 2)  # [B, L*L, d]
    if how == "zone":
        best = zone_cell(generated)
        point = points[torch.arange(len(points)), best]
        cosine = F.cosine_similarity(point[:, None], vectors, dim=-1)
        centre = torch.stack([best // side, best % side], dim=-1)
        ring = (cells - centre[:, None]).abs().amax(dim=-1)
        return cosine - 2.0 * ring
    flat = cell_number(cells, side)
    own = points.gather(1, flat[..., None].expand(-1, -1, points.shape[-1]))
    if how == "own-cell":
        return F.cosine_similarity(own, vectors, dim=-1)
    if how == "field":
        return (own * vectors).sum(dim=-1)
    raise ConfigError(
        f"unknown matching {how!r}: choose one of {', '.join(MATCHES)}"
    )


def zone_cell(generated: torch.Tensor) -> torch.Tensor:
    """Flat index of the cell with the longest vector, [B]."""
    return generated.norm(dim=1).flatten(1).argmax(dim=1)


def zone_map(generated: torch.Tensor) -> torch.Tensor:
    """How strongly each cell is generated: vector length, [B, L, L]."""
    return generated.norm(dim=1)
