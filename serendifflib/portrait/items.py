"""Item vectors: mean of reviews, isotropy, memberships in prototypes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from serendifflib.errors import check_choice
from serendifflib.portrait.encoding import unit_rows

NOISE = 1e-5  # of a vector's length: what rounding in float32 may leave
SHARP = 0.05  # temperature of a membership, in cosines
ITEMS_PER_PROTOTYPE = 8
TREE_ITEMS = 4_000  # Ward's tree needs the square of this in memory


def mean_vectors(
    text_vectors: np.ndarray,
    text_index: np.ndarray,
    item_index: np.ndarray,
    allowed: np.ndarray,
    n_items: int,
) -> Tensor:
    """Item vector = unit-length mean over the item's allowed reviews.

    Args:
        text_vectors: vectors of the distinct texts, [K, d].
        text_index: text of each row, [R], values 0..K-1.
        item_index: item of each row, [R], values 1..N.
        allowed: rows whose review may be used, bool, [R].
        n_items: N.

    Returns:
        [N + 1, d]; padding, and items without an allowed review, are zero.
    """
    rows, columns = item_index[allowed], text_index[allowed]
    weights = scipy.sparse.csr_array(
        (np.ones(len(rows), dtype=np.float32), (rows, columns)),
        shape=(n_items + 1, len(text_vectors)),
    )
    vectors = unit_rows(np.asarray(weights @ text_vectors, dtype=np.float32))
    return torch.from_numpy(vectors)


@dataclass(frozen=True)
class Isotropy:
    """Removes the direction that all sentence vectors share.

    Raw sentence vectors sit in a narrow cone, so cosines are all high
    (Huang et al. 2021, cited in App. B). ``center`` subtracts the mean of
    the training items; ``whiten`` also projects on their first principal
    components and gives each the same variance. Results have length 1.

    Attributes:
        how: ``"none"``, ``"center"`` or ``"whiten"``.
        mean: mean of the training items, shape [d].
        basis: whitening matrix [d, d'], or None.
    """

    how: str
    mean: np.ndarray
    basis: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        vectors: Tensor,
        items: np.ndarray,
        how: str = "center",
        *,
        components: int = 64,
    ) -> Isotropy:
        """Fit on the rows ``items`` (training items) of ``vectors``."""
        check_choice("isotropy", how, ("none", "center", "whiten"))
        known = vectors[torch.as_tensor(items, dtype=torch.long)].numpy()
        known = known[np.linalg.norm(known, axis=1) > 0]
        if how == "none":
            return cls(how, np.zeros(vectors.shape[1], dtype=np.float32))
        mean = known.mean(axis=0)
        if how == "center":
            return cls(how, mean)
        components = min(components, *known.shape)
        pca = PCA(components, svd_solver="full").fit(known)
        # a direction without variance (there are at least d - n + 1 of them
        # when items are few) is rounding noise: it must not be blown up
        variance = pca.explained_variance_
        kept = variance > 1e-6 * variance[0]
        basis = pca.components_[kept].T / np.sqrt(variance[kept])
        return cls(how, mean, basis.astype(np.float32))

    def apply(self, vectors: Tensor) -> Tensor:
        """Transformed unit vectors [N + 1, d']; zero rows stay zero.

        A row at the mean has no direction of its own: it becomes zero too.
        """
        values = vectors.numpy()
        length = np.linalg.norm(values, axis=1)
        moved = values - self.mean
        known = np.linalg.norm(moved, axis=1) > NOISE * length
        known &= length > 0
        if self.basis is not None:
            moved = moved @ self.basis
        moved = unit_rows(moved.astype(np.float32))
        moved[~known] = 0.0
        return torch.from_numpy(moved)


def mean_cosine(vectors: Tensor) -> float:
    """Mean cosine between two different rows of unit ``vectors`` [M, d].

    Zero rows are left out. 0 means isotropic, 1 means all alike.
    """
    rows = vectors[vectors.norm(dim=1) > 0].double()
    count = len(rows)
    total = rows.sum(0).square().sum() - rows.square().sum()
    return float(total / (count * (count - 1)))


def prototypes(known: np.ndarray, count: int) -> np.ndarray:
    """Centres of k-means that starts from the cut of Ward's tree, [P, d].

    A random start splits some themes and joins others; Ward's tree, grown on a
    sample of a large catalogue, seldom does. ``known`` are unit item vectors,
    float64 [N, d], ``count`` is P.
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


def shares(vectors: Tensor, count: int) -> Tensor:
    """How much each item belongs to each prototype, float64 [N + 1, P].

    A softmax of cosines over 0.05; no label and no user is used. There are at
    most ``count`` prototypes, and at most one per eight items. Rows sum to 1;
    what is no item, a row of zeros in ``vectors``, has zeros.
    """
    if not count:
        return vectors.new_zeros(len(vectors), 0).double()
    real = vectors.norm(dim=1) > 0
    # float64: the rounding of parallel sums must not move an item
    known = vectors[real].double()
    count = max(1, min(count, len(known) // ITEMS_PER_PROTOTYPE))
    centres = torch.from_numpy(prototypes(known.numpy(), count))
    found = vectors.new_zeros(len(vectors), count).double()
    cosines = known @ F.normalize(centres, dim=1).T
    found[real] = (cosines / SHARP).softmax(dim=1)
    return found


def centred(shares: Tensor) -> Tensor:
    """Shares [N + 1, P] minus their mean over the catalogue, for a network.

    Rows have mean square length 1; what is no item has zeros.
    """
    real = shares.sum(dim=1) > 0
    known = shares[real]
    known = known - known.mean(dim=0)
    length = known.square().sum(dim=1).mean().sqrt()
    found = torch.zeros(shares.shape)
    found[real] = (known / length.clamp(min=1e-9)).float()
    return found


def memberships(vectors: Tensor, count: int) -> Tensor:
    """Centred shares of items in prototypes, [N + 1, P]."""
    return centred(shares(vectors, count))


def with_memberships(vectors: Tensor, count: int) -> Tensor:
    """Item vectors and their memberships in prototypes, [N + 1, d + P]."""
    return join(vectors, memberships(vectors, count))


def join(vectors: Tensor, shares: Tensor) -> Tensor:
    """Item vectors [N + 1, d] and memberships [N + 1, P], [N + 1, d + P].

    Both weigh the same; rows have mean square length 1.
    """
    if not shares.shape[1]:
        return vectors
    return torch.cat([vectors, shares], dim=1) / 2**0.5
