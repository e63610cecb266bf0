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
    """

    @property
    def name(self) -> str:
        """How tables and errors call the model."""

    def fit(self, fold: FoldData, *, generator: torch.Generator) -> Self:
        """Learn from the training and validation part of ``fold``."""

    def score(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores of ``candidates``, FloatTensor [B, C]; higher is better.

        Args:
            histories: LongTensor [B, n], left-padded with 0.
            candidates: LongTensor [B, C], item numbers 1..N.
        """


def check_request(
    model_name: str,
    histories: torch.Tensor,
    candidates: torch.Tensor,
    n_items: int,
) -> None:
    """Refuse what no model may be asked to score, by a ModelError.

    Wrong shapes or types, an empty history, padding to the right of an item, a
    padding id or unknown item; for shapes see ``score``.
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
    numbers = f"item numbers are 1..{n_items}"
    past, wanted = (
        (ids < 0) | (ids > n_items) for ids in (histories, candidates)
    )
    real = histories != 0
    empty = ~real.any(dim=1, keepdim=True)
    padded_right = real[:, :-1] & ~real[:, 1:]
    for bad, message in (
        (candidates == 0, "padding id 0 among the candidates; drop it first"),
        (past, f"unknown item in the history; {numbers}"),
        (wanted, f"unknown item in the candidates; {numbers}"),
        (empty, "empty history; a user is known by one item at least"),
        (padded_right, "padding to the right of an item; pad on the left"),
    ):
        _refuse(model_name, bad, message)


def _refuse(model_name: str, bad: torch.Tensor, message: str) -> None:
    """Raise with the first row where ``bad`` [B, ...] holds."""
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ModelError(f"{model_name}: row {row}: {message}")


def check_scores(model_name: str, scores: torch.Tensor) -> torch.Tensor:
    """Return ``scores`` [B, C] unless one is NaN: it could not be ranked."""
    _refuse(
        model_name,
        torch.isnan(scores),
        "NaN among the scores; the model diverged, fit it again with a "
        "smaller learning rate",
    )
    return scores
