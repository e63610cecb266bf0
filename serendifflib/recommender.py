"""The one protocol that everything that recommends speaks.

Shapes: B users in a batch, n history length, C candidates, N items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import torch

from serendifflib.errors import ModelError

if TYPE_CHECKING:
    from serendifflib.portrait.fold import FoldData


@runtime_checkable
class Recommender(Protocol):
    """Learn from a fold, then score candidates given histories.

    A user is known only by the history (the *inductive* rule): no table is
    indexed by user, so a user of the test fold, a new user and a user of
    the training fold with the same history get the same scores.
    :func:`check_inductive` tries that on a fitted model.
    """

    @property
    def name(self) -> str:
        """How tables and errors call the model."""
        ...

    def fit(self, fold: FoldData, *, generator: torch.Generator) -> Self:
        """Learn from the training and validation part of ``fold``."""
        ...

    def score(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores of ``candidates``; higher is better.

        Args:
            histories: LongTensor [B, n], left-padded with 0.
            candidates: LongTensor [B, C], item numbers 1..N.

        Returns:
            FloatTensor [B, C].

        Raises:
            ModelError: see :func:`check_request` and :func:`check_scores`.
        """
        ...


def check_request(
    model_name: str,
    histories: torch.Tensor,
    candidates: torch.Tensor,
    n_items: int,
) -> None:
    """Refuse what no model may be asked to score.

    Args:
        model_name: the model that was asked, for the message.
        histories: LongTensor [B, n], left-padded with 0.
        candidates: LongTensor [B, C].
        n_items: N; item numbers are 1..N.

    Raises:
        ModelError: wrong shapes or types, an empty history, padding to the
            right of an item, or a padding id or unknown item among the
            candidates or in a history.
    """
    for what, ids in (("histories", histories), ("candidates", candidates)):
        if ids.dim() != 2 or ids.is_floating_point():
            raise ModelError(
                f"{model_name}: {what} must be whole numbers of shape "
                f"[users, items], got {ids.dtype} {tuple(ids.shape)}"
            )
    if len(histories) != len(candidates):
        raise ModelError(
            f"{model_name}: {len(histories)} histories but "
            f"{len(candidates)} rows of candidates; give one row each"
        )
    _refuse(
        model_name,
        (candidates == 0).any(dim=1),
        "padding id 0 among the candidates; drop it before scoring",
    )
    for what, ids in (("history", histories), ("candidates", candidates)):
        _refuse(
            model_name,
            ((ids < 0) | (ids > n_items)).any(dim=1),
            f"unknown item in the {what}; item numbers are 1..{n_items}",
        )
    _refuse(
        model_name,
        (histories == 0).all(dim=1),
        "empty history; a user is known only by the history, so give at "
        "least one item",
    )
    real = histories != 0
    _refuse(
        model_name,
        (real[:, :-1] & ~real[:, 1:]).any(dim=1),
        "padding to the right of an item; pad histories on the left",
    )


def _refuse(model_name: str, bad: torch.Tensor, message: str) -> None:
    """Raise with the first row where ``bad`` [B] holds."""
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ModelError(f"{model_name}: row {row}: {message}")


def check_scores(model_name: str, scores: torch.Tensor) -> torch.Tensor:
    """Return ``scores`` [B, C] unless one of them is not a number.

    Raises:
        ModelError: NaN among the scores; they could not be ranked.
    """
    _refuse(
        model_name,
        torch.isnan(scores).any(dim=1),
        "NaN among the scores; the model diverged, fit it again with a "
        "smaller learning rate",
    )
    return scores


def check_inductive(
    model: Recommender,
    histories: torch.Tensor,
    candidates: torch.Tensor,
    *,
    tolerance: float = 1e-4,
) -> None:
    """Try the inductive rule on a fitted model; for tests and new models.

    The score of a candidate may not change with the other rows of the
    batch, with the order or the number of the candidates, or with further
    padding on the left.

    Args:
        model: a fitted model.
        histories: LongTensor [B, n], B >= 2.
        candidates: LongTensor [B, C], C >= 2.
        tolerance: largest difference allowed, relative to the largest
            absolute score (float32 sums differ with the batch's shape).

    Raises:
        ModelError: the rule is broken; names what changed the scores.
    """
    expected = model.score(histories, candidates)
    padding = histories.new_zeros(len(histories), 3)
    longer = torch.cat([padding, histories], dim=1)
    backwards = model.score(histories.flip(0), candidates.flip(0)).flip(0)
    changes = {
        "being asked twice": model.score(histories, candidates),
        "the order of the rows": backwards,
        "the other rows of the batch": torch.cat(
            [
                model.score(
                    histories[row : row + 1], candidates[row : row + 1]
                )
                for row in range(len(histories))
            ]
        ),
        "the order of the candidates": model.score(
            histories, candidates.flip(1)
        ).flip(1),
        "padding on the left": model.score(longer, candidates),
    }
    scale = float(expected.abs().max().clamp(min=1e-6))
    for what, scores in changes.items():
        difference = float((scores - expected).abs().max())
        if not difference <= tolerance * scale:
            raise ModelError(
                f"{model.name}: {what} changes its scores by up to "
                f"{difference:.3g}; a user must be known only by the history"
            )
