"""Greedy re-ranking of a ranker's list: variety without several answers.

Both take the best items of a ranker and pick them anew, one after another,
giving up some of the ranker's score for what the list lacks.

Shapes: B users in a batch, n history length, C candidates, L items that are
picked anew, D numbers per item, P prototypes.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines.ranker import SetRanker
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import shares, with_memberships


@dataclass(eq=False, kw_only=True)
class Reranker(SetRanker):
    """A set ranker with one answer, and the greedy choice among its best.

    The first L items are picked anew, the others keep their order behind
    them. Picks go by ``(1 - trade) * relevance + trade * gain``: relevance is
    the ranker's score, scaled to 0..1 within the L, and the gain is what a
    subclass says. ``trade`` is chosen on the validation users; 0, the
    ranker as it is, is among the choices.

    Attributes:
        prototypes: what the gain is counted in, and the ranker sees.
        length: L.
        trade: before it is chosen.
        trades: to choose from.
    """

    name: ClassVar[str] = "a re-ranker"
    prototypes: int = 100
    length: int = 50
    trade: float = 0.0
    trades: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4)

    def build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        """The network of the ranker; also what the gain needs to know."""
        self.prepare(vectors)
        return super().build(fold, vectors)

    def tuning(self) -> dict[str, tuple[float, ...]]:
        """How much of the ranker's score to give up."""
        return {"trade": self.trades}

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """The ranker's scores, or those of the greedy choice."""
        rated = super().score_batch(histories, candidates)
        trade = self.option("trade")  # 0 while the ranker is trained
        if not trade:
            return rated
        known = (rated.cpu(), histories.cpu(), candidates.cpu())
        return self.pick(*known, trade)

    @abstractmethod
    def prepare(self, vectors: Tensor) -> None:
        """Note what the gain needs to know of the items [N + 1, d]."""

    @abstractmethod
    def begin(
        self, histories: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Facts and state of lists without any item.

        Returns:
            of histories [B, n] and items [B, L]: what is known of each item
            [B, L, D]; what it gains whatever is listed [B, L]; the state,
            what the list has already.
        """

    @abstractmethod
    def gain(self, known: Tensor, state: Tensor) -> Tensor:
        """What each item adds to the lists, [B, L]."""

    @abstractmethod
    def add(self, known: Tensor, state: Tensor, new: Tensor) -> Tensor:
        """The state once items with facts ``new`` [B, D] are listed."""

    def pick(
        self,
        rated: Tensor,
        histories: Tensor,
        candidates: Tensor,
        trade: float,
    ) -> Tensor:
        """Scores whose order is that of the greedy choice, [B, C].

        Args:
            rated: scores of the ranker, [B, C].
            histories: LongTensor [B, n].
            candidates: LongTensor [B, C].
            trade: what the gain weighs.
        """
        length = min(self.length, candidates.shape[1])
        top, places = rated.topk(length, dim=1)
        low, high = top[:, -1:], top[:, :1]
        relevance = (top - low) / (high - low).clamp(min=1e-9)
        known, always, state = self.begin(
            histories, candidates.gather(1, places)
        )
        rows = torch.arange(len(rated))
        scores = rated - high - 1.0  # whoever is not picked stands behind
        free = torch.zeros_like(top)
        for step in range(length):
            gain = always + self.gain(known, state)
            value = (1 - trade) * relevance + trade * gain + free
            best = value.argmax(dim=1)
            scores[rows, places[rows, best]] = float(length - step)
            free[rows, best] = -torch.inf
            state = self.add(known, state, known[rows, best])
        return scores


@dataclass(eq=False, kw_only=True)
class MMR(Reranker):
    """Maximal marginal relevance (Carbonell and Goldstein 1998).

    The gain is one minus the highest cosine with an item of the list.
    Content is the item vector and its memberships, as for SerenDiff.
    """

    name: ClassVar[str] = "Set ranker + MMR"

    def prepare(self, vectors: Tensor) -> None:
        """Unit points of the items."""
        points = with_memberships(vectors, self.prototypes)
        self.points = F.normalize(points.float(), dim=1)

    def begin(
        self, histories: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points; the state is the highest cosine so far, [B, L]."""
        nothing = torch.zeros(items.shape)
        return self.points[items], nothing, nothing

    def gain(self, known: Tensor, state: Tensor) -> Tensor:
        """One minus the highest cosine."""
        return 1.0 - state

    def add(self, known: Tensor, state: Tensor, new: Tensor) -> Tensor:
        """Cosines with the new item, where they are higher."""
        return state.maximum((known @ new[:, :, None])[:, :, 0])


@dataclass(eq=False, kw_only=True)
class SOG(Reranker):
    """After the serendipity-oriented greedy algorithm of Kotkov et al. (2020).

    It wants features that the list lacks and features that the user has not
    met. Their features are the genres of a film; ours are the shares in
    prototypes, so that a count of features becomes a sum of shares:

        gain = sum over p of s_p (1 - listed_p) + weight s_p (1 - met_p),

    where listed and met are the largest shares in the list and the history.

    Attributes:
        weight: of what the user has not met.
    """

    name: ClassVar[str] = "Set ranker + SOG"
    weight: float = 1.0

    def prepare(self, vectors: Tensor) -> None:
        """Shares of the items in prototypes."""
        self.shares = shares(vectors, self.prototypes).float()

    def begin(
        self, histories: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shares; the state is what is listed, [B, P]."""
        known = self.shares[items]
        met = self.shares[histories].amax(dim=1, keepdim=True)
        unmet = self.weight * (known * (1.0 - met)).sum(dim=2)
        return known, unmet, torch.zeros(len(items), known.shape[2])

    def gain(self, known: Tensor, state: Tensor) -> Tensor:
        """Shares in what is not listed."""
        return (known * (1.0 - state[:, None])).sum(dim=2)

    def add(self, known: Tensor, state: Tensor, new: Tensor) -> Tensor:
        """The larger of the listed and the new shares."""
        return state.maximum(new)


RERANKERS: dict[str, type[Reranker]] = {"mmr": MMR, "sog": SOG}
