"""Prototypes of a catalogue, and how much each item belongs to each.

Sentence vectors of one theme are close, but those of neighbouring themes are
hardly less so: a regression from users to vectors ends between themes. A
membership is sharp where a vector is blurred, and costs no label.

Shapes: N items, d width of the item vectors, P prototypes.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans
from torch.nn import functional as F

SHARP = 0.05  # temperature of a membership, in cosines
ITEMS_PER_PROTOTYPE = 8
TREE_ITEMS = 4_000  # Ward's tree needs the square of this in memory


def prototypes(known: np.ndarray, count: int) -> np.ndarray:
    """Centres of k-means that starts from the cut of Ward's tree.

    Started at random, k-means of many clusters splits some themes and joins
    others; Ward's tree, which joins what is closest, seldom does. For large
    catalogues the tree is grown on a sample.

    Args:
        known: unit item vectors, float64 [N, d].
        count: P, at most N.

    Returns:
        [P, d], not unit length; the same for the same input.
    """
    sample = known
    if len(known) > TREE_ITEMS:
        chosen = np.random.default_rng(0).permutation(len(known))[:TREE_ITEMS]
        sample = known[np.sort(chosen)]
    cluster = np.zeros(len(sample), dtype=np.int64)
    if count > 1:
        cluster = AgglomerativeClustering(count).fit_predict(sample)
    centres = np.stack([sample[cluster == c].mean(0) for c in range(count)])
    return KMeans(count, init=centres, n_init=1).fit(known).cluster_centers_


def memberships(
    vectors: torch.Tensor, count: int, sharp: float = SHARP
) -> torch.Tensor:
    """How much each item belongs to each prototype of the catalogue.

    A membership is a softmax of cosines over ``sharp``, minus its mean over
    the catalogue. No label and no user is used.

    Args:
        vectors: unit item vectors, [N + 1, d]; rows of zeros are no items.
        count: at most this many prototypes, and at most one per eight items;
            0 is none.
        sharp: temperature; small is hard.

    Returns:
        [N + 1, P] with rows of mean square length 1; what is no item has
        zeros.
    """
    if not count:
        return vectors.new_zeros(len(vectors), 0)
    real = vectors.norm(dim=1) > 0
    # float64: the rounding of parallel sums must not move an item
    known = vectors[real].double()
    count = max(1, min(count, len(known) // ITEMS_PER_PROTOTYPE))
    centres = torch.from_numpy(prototypes(known.numpy(), count))
    shares = (known @ F.normalize(centres, dim=1).T / sharp).softmax(dim=1)
    shares = shares - shares.mean(dim=0)
    length = shares.square().sum(dim=1).mean().sqrt()
    found = vectors.new_zeros(len(vectors), count)
    found[real] = (shares / length.clamp(min=1e-9)).float()
    return found


def join(vectors: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Item vectors [N + 1, d] and memberships [N + 1, P] side by side.

    Both weigh the same. Without any prototype (P = 0) these are the vectors.

    Returns:
        [N + 1, d + P] with rows of mean square length 1.
    """
    if not shares.shape[1]:
        return vectors
    return torch.cat([vectors, shares], dim=1) / 2**0.5
