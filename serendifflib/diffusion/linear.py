"""Linear beginnings: ridge regression, conditional logit, plain means.

What a network has to improve on, and what the controls are made of.

Letters: B users, n history length, M examples, K negatives, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from serendifflib.diffusion.unet import TYPICAL

PENALTY = 1e-3  # of standardised weights of a logit
ROWS = 32  # users whose candidates' vectors are gathered at a time


def history_means(histories: Tensor, vectors: Tensor) -> Tensor:
    """Mean item vector of each history [B, n]; [B, d], not unit length."""
    count = (histories != 0).sum(1, keepdim=True).clamp(min=1)
    return vectors[histories].sum(1) / count  # row 0 of vectors is zero


def typical_means(
    histories: Tensor, vectors: Tensor, points: Tensor
) -> Tensor:
    """Mean of the history's points, typical items weighing more, [B, D].

    An item's weight is exp(cosine to the plain mean / 0.1), as for the cells
    in :func:`serendifflib.diffusion.unet.typical_mean`. Histories [B, n] are
    left-padded with 0; unit item vectors [N + 1, d]; points [N + 1, D].
    """
    mean = F.normalize(history_means(histories, vectors), dim=1)
    cosines = torch.einsum("bnd,bd->bn", vectors[histories], mean)
    logits = (cosines / TYPICAL).masked_fill(histories == 0, -1e9)
    return torch.einsum("bn,bnd->bd", logits.softmax(dim=1), points[histories])


def reaches(histories: Tensor, vectors: Tensor) -> Tensor:
    """How far users go: mean radius of an item from those before it, [B].

    The radius is 1 - cosine to the mean of the earlier items, by unit item
    vectors [N + 1, d]. Padding and the first item of a history [B, n] have
    none; a history of one item has reach 1.
    """
    known = vectors[histories]
    before = known.cumsum(1)[:, :-1]
    radius = 1.0 - F.cosine_similarity(before, known[:, 1:], dim=2)
    has_past = (histories[:, :-1] != 0).to(known.dtype)
    count = has_past.sum(1)
    mean = (radius * has_past).sum(1) / count.clamp(min=1.0)
    return torch.where(count > 0, mean, torch.ones_like(mean))


def inner(queries: Tensor, items: Tensor, vectors: Tensor) -> Tensor:
    """Inner products of queries [B, d] with vectors of items [B, C]; [B, C].

    Some rows at a time: neither [B, N] nor [B, C, d] is ever held.
    """
    parts = [
        torch.bmm(vectors[wanted], query[..., None])[..., 0]
        for query, wanted in zip(
            queries.split(ROWS), items.split(ROWS), strict=True
        )
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class Ridge:
    """Ridge regression with an unpenalised constant, for many strengths.

    Attributes:
        weights: [d + 1, d'], the last row is the constant.
        left_out: predictions of each training row by the regression without
            that row, [M, d'].
    """

    weights: np.ndarray
    left_out: np.ndarray

    @classmethod
    def fit(
        cls, inputs: np.ndarray, outputs: np.ndarray, alpha: float
    ) -> Ridge:
        """Minimise ``|X W - Y|^2 + alpha |W|^2``.

        Leaving row m out has a closed form: with H the hat matrix,
        y_m - (y_m - yhat_m) / (1 - H_mm).
        """
        ones = np.ones((len(inputs), 1))
        x = np.concatenate([inputs, ones], axis=1).astype(np.float64)
        penalty = alpha * np.eye(x.shape[1])
        penalty[-1, -1] = 1e-9
        solved = np.linalg.solve(x.T @ x + penalty, x.T)
        weights = solved @ outputs
        own = np.einsum("md,dm->m", x, solved)[:, None]
        rest = (outputs - x @ weights) / np.maximum(1.0 - own, 1e-9)
        return cls(weights, outputs - rest)


def conditional_logit(features: Tensor) -> Tensor:
    """Weights [F] of McFadden's conditional logit; column 0 is chosen.

    Minimises the mean of -log softmax(f w)[0] plus ``1e-3 / 2 |w|^2`` on
    standardised features: convex, so L-BFGS finds the one minimum. Features
    are [M, 1 + K, F]; the weights are for them as they came.
    """
    x = features.double()
    spread = x.flatten(0, 1).std(dim=0).clamp(min=1e-9)
    x = (x - x.mean(dim=1, keepdim=True)) / spread
    weights = torch.zeros(x.shape[2], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=200, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -(x @ weights).log_softmax(dim=1)[:, 0].mean()
        loss = loss + 0.5 * PENALTY * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (weights.detach() / spread).float()
