"""SNPR-style (after Zhang et al., CIKM 2021): two heads, one trade-off.

No official code was found, and the paper's places, hours and categories do
not exist here. What is kept is the idea: a Transformer over the history, a
relevance head and an unexpectedness head, supervised jointly, mixed by a
weight. Both heads see the candidate; in the re-implementations that were
read the unexpectedness head does not, so that it cannot change a ranking.

Shapes: B users, n history length, C candidates, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines import layers
from serendifflib.baselines.sampling import expected_share
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.scores import CoOccurrence

NEGATIVES = 4  # per positive
SESSION = 5  # items; a history carries no times to cut at
INNER = 16  # width of the candidate's attention over the history


class SNPRNetwork(nn.Module):
    """Shared encoder, relevance head, unexpectedness head."""

    def __init__(
        self, encoder: layers.ItemEncoder, length: int, dropout: float
    ):
        super().__init__()
        d = encoder.width
        self.states = layers.SequenceEncoder(
            encoder, length, dropout, activation="gelu"
        )
        self.session = nn.Linear(d, d)
        self.sessions = nn.Linear(d, d)
        self.of_state = nn.Linear(d, INNER)
        self.of_item = nn.Linear(d, INNER, bias=False)
        self.weigh = nn.Linear(INNER, 1, bias=False)
        self.relevance = layers.perceptron(3 * d, 64, 32, nn.GELU)
        self.unexpectedness = layers.perceptron(2 * d, 64, 32, nn.GELU)

    def forward(
        self, histories: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Relevance and unexpectedness logits of candidates, [B, C] each."""
        real = histories != 0
        states, encoder = self.states(histories), self.states.encoder
        items = (
            layers.encode_distinct(encoder, candidates) * encoder.width**0.5
        )
        usual = self.usual(states, real).unsqueeze(1).expand_as(items)
        mean = states.sum(1) / real.sum(1, keepdim=True)
        relevance = self.relevance(
            torch.cat(
                [
                    mean.unsqueeze(1).expand_as(items),
                    self.attend(items, states, real),
                    items,
                ],
                dim=-1,
            )
        )
        unexpected = self.unexpectedness(torch.cat([usual, items], dim=-1))
        return relevance.squeeze(-1), unexpected.squeeze(-1)

    def usual(self, states: Tensor, real: Tensor) -> Tensor:
        """What the user usually does: mean over sessions, [B, d].

        Sessions are runs of five items, counted from the newest backwards.
        """
        short = -states.shape[1] % SESSION
        states = F.pad(states, (0, 0, short, 0)).unflatten(1, (-1, SESSION))
        real = F.pad(real, (short, 0)).unflatten(1, (-1, SESSION))
        count = real.sum(2, keepdim=True)
        sessions = states.sum(2) / count.clamp(min=1)
        sessions = F.gelu(self.session(sessions)) * (count > 0)
        mean = sessions.sum(1) / (count > 0).sum(1)
        return F.gelu(self.sessions(mean))

    def attend(self, items: Tensor, states: Tensor, real: Tensor) -> Tensor:
        """Additive attention of items [B, C, d] over [B, n, d]."""
        mixed = self.of_item(items).unsqueeze(2)
        mixed = mixed + self.of_state(states).unsqueeze(1)
        logits = self.weigh(torch.tanh(mixed)).squeeze(-1)
        # -1e9, not 0: with 0, padding would attract weight
        logits = logits.masked_fill(~real.unsqueeze(1), -1e9)
        return logits.softmax(dim=-1) @ states


@dataclass(eq=False, kw_only=True)
class SNPR(TorchRival):
    """SNPR-style: score = lambda relevance + (1 - lambda) unexpectedness.

    Its learning rate is its own under a small budget, too: a hastened one
    leaves it lower, and at another place for every seed (on validation users).

    Attributes:
        mix: lambda before it is chosen on validation.
        supervision: gamma, weight of each head's own squared error.
    """

    name = "SNPR-style"
    hasty = False
    users_at_once = 8
    max_history: int = 20
    mix: float = 0.5
    supervision: float = 0.5

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        self.counts = CoOccurrence.fit(
            fold.training_histories(), fold.interactions.n_items
        )
        self.vectors, self.pool = vectors.numpy(), fold.catalogue
        encoder = layers.ItemEncoder(vectors, self.width, self.inputs)
        return SNPRNetwork(encoder, self.max_history, self.dropout)

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """Next items of all training users, then the labelled targets."""

        def loss(histories: Tensor, items: Tensor, own: Tensor) -> Tensor:
            wanted = [
                self.lesson(past[past > 0], mine[mine > 0], some)
                for past, mine, some in zip(
                    histories.numpy(), own.numpy(), items.numpy(), strict=True
                )
            ]
            taught = torch.from_numpy(np.array(wanted, dtype=np.float32))
            heads = self.network(
                histories.to(self.place), items.to(self.place)
            )
            score = self._mixed(*heads)
            total = layers.first_against_rest(score)
            for logit, value in zip(heads, taught.unbind(1), strict=True):
                error = F.mse_loss(logit.sigmoid(), value.to(self.place))
                total = total + self.supervision * error
            return total

        return self.stages_of_cases(fold, NEGATIVES, generator, loss)

    def lesson(
        self, history: np.ndarray, own: np.ndarray, items: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Relevance and unexpectedness of items [K], both in [0, 1].

        Relevance is the largest cosine to the history [n], mapped from
        [-1, 1], unexpectedness 1 minus :func:`expected_share`.
        """
        cosine = (self.vectors[items] @ self.vectors[history].T).max(axis=1)
        below = expected_share(self.counts, history, items, self.pool, own=own)
        return (1.0 + cosine) / 2.0, 1.0 - below

    def _mixed(self, relevance: Tensor, unexpectedness: Tensor) -> Tensor:
        mix = self.option("mix")
        return mix * relevance + (1 - mix) * unexpectedness

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """The mixed heads, [B, C]."""
        return self._mixed(*self.network(histories, candidates))

    def tuning(self) -> dict[str, tuple[float, ...]]:
        """Lambda."""
        return {"mix": (0.5, 0.3, 0.7)}
