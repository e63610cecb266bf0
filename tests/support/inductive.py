"""A user is known only by the history: tried on a fitted model."""

import torch

from serendifflib.errors import ModelError
from serendifflib.recommender import Recommender


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
