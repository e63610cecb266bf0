"""DESR-style (after Li et al., WWW 2020): a serendipity direction.

No code was found; from the abstract come the parts (long-term preference by
a Gaussian mixture, short-term demand by capsules, a vector that combines
both into a direction), the formulas are ours.

Shapes: B users, n history length, C candidates, K components, J capsules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines.layers import inner_products
from serendifflib.baselines.sampling import expected_share
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.errors import ConfigError
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.scores import CoOccurrence

NEGATIVES = 100  # of the sampled softmax
ROUTING = 3  # rounds


class DESRNetwork(nn.Module):
    """Frozen item vectors and mixture; trained capsules."""

    def __init__(
        self,
        items: Tensor,
        shares: Tensor,
        centres: Tensor,
        capsules: int,
        recent: int,
    ):
        super().__init__()
        d = items.shape[1]
        self.recent = recent
        self.register_buffer("items", items, persistent=False)
        self.register_buffer("shares", shares, persistent=False)
        self.register_buffer("centres", centres, persistent=False)
        self.maps = nn.Parameter(
            torch.eye(d) + 0.5 * d**-0.5 * torch.randn(capsules, d, d)
        )
        # inner products of short vectors are small; a softmax needs more
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def long_term(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Mixture weights pi_u [B, K] and long-term vectors p_u [B, d]."""
        count = (histories != 0).sum(1, keepdim=True)
        weights = self.shares[histories].sum(1) / count
        return weights, weights @ self.centres

    def capsules(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Capsules v [B, J, d] and routing weights c [B, n, J].

        Three rounds: b = 0; c = softmax_j b; s_j = sum_i c_ij u_ij;
        v_j = squash(s_j); b += <u_ij, v_j>. Logits b carry no gradient, or
        training would bend the routing itself.
        """
        real = (histories != 0).unsqueeze(-1)
        votes = torch.einsum("bnd,jde->bnje", self.items[histories], self.maps)
        fixed = votes.detach()
        logits = fixed.new_zeros(votes.shape[:3])
        for _ in range(ROUTING - 1):
            made = squash(_route(logits, real, fixed))
            logits = logits + torch.einsum("bnje,bje->bnj", fixed, made)
        return squash(_route(logits, real, votes)), logits.softmax(dim=2)

    def demand(self, histories: Tensor) -> Tensor:
        """d_u: capsules of the newest items, weighted by length; [B, d]."""
        made, _ = self.capsules(histories[:, -self.recent :])
        weights = made.norm(dim=2).softmax(dim=1)
        return (weights.unsqueeze(2) * made).sum(1)


def _route(logits: Tensor, real: Tensor, votes: Tensor) -> Tensor:
    weights = logits.softmax(dim=2) * real
    return torch.einsum("bnj,bnje->bje", weights, votes)


def squash(x: Tensor) -> Tensor:
    """Same direction, length ``|x|^2 / (1 + |x|^2)``."""
    # a zero vector has no direction; the small number keeps its gradient
    length = (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    return x * length / (1.0 + length.square())


def direction(demand: Tensor, long_term: Tensor, elasticity: Tensor) -> Tensor:
    """s_u: the demand with part of its long-term component removed, [B, d].

    ``s = d / |d| - rho <d, p> p / (|d| |p|^2)`` of demand d [B, d], long-term
    vector p [B, d] and elasticity rho [B] in [0, 1]: with rho = 0 the
    demand's own direction, with rho = 1 what is new in it.
    """
    unit = F.normalize(demand, dim=1)
    along = F.normalize(long_term, dim=1)
    part = (unit * along).sum(1, keepdim=True) * along
    return unit - elasticity.unsqueeze(1) * part


def elasticity(weights: Tensor) -> Tensor:
    """Normalised entropy of mixture weights [B, K], in [0, 1]: [B].

    Users with broad interests are taken further from what they know.
    """
    entropy = -(weights * weights.clamp(min=1e-12).log()).sum(1)
    return entropy / np.log(max(weights.shape[1], 2))


@dataclass(eq=False, kw_only=True)
class DESR(TorchRival):
    """DESR-style.

    score = cos(s_u, e_i) (1 - q_i)^eta + kappa cos(p_u, e_i), with q_i the
    expectedness of the item as a quantile of the catalogue; ``eta`` and
    ``kappa`` are chosen on validation.

    Attributes:
        components: K of the mixture.
        capsules: J.
        recent: newest items that make the demand.
    """

    name = "DESR-style"
    max_history: int = 100
    components: int = 20
    capsules: int = 4
    recent: int = 10
    eta: float = 0.5
    kappa: float = 0.3

    def __post_init__(self):
        if self.inputs != "text":
            raise ConfigError(
                f"DESR-style: item inputs {self.inputs!r} are not possible; "
                "its mixture needs inputs='text'"
            )

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        """Fit PCA and mixture on training items; fresh capsules."""
        known = torch.from_numpy(fold.train_items)
        known = known[vectors[known].norm(dim=1) > 0]
        width = min(self.width, vectors.shape[1], len(known))
        pca = PCA(width, svd_solver="full").fit(vectors[known].numpy())
        reduced = pca.transform(vectors.numpy())
        # a mixture in 384 raw dimensions fails; equal scales help EM
        reduced = reduced / np.sqrt(pca.explained_variance_[:width].mean())
        seed = int(torch.randint(2**31, (1,)))
        mixture = GaussianMixture(
            min(self.components, max(1, len(known) // 5)),
            covariance_type="diag",
            init_params="k-means++",
            reg_covar=1e-4,
            random_state=seed,
        ).fit(reduced[known.numpy()])
        shares = mixture.predict_proba(reduced).astype(np.float32)
        shares[0] = 0.0
        items = F.normalize(torch.from_numpy(reduced).float(), dim=1)
        items[0] = 0.0
        self.counts = CoOccurrence.fit(
            fold.training_histories(), fold.interactions.n_items
        )
        self.pool = fold.catalogue
        return DESRNetwork(
            items,
            torch.from_numpy(shares),
            torch.from_numpy(mixture.means_.astype(np.float32)),
            self.capsules,
            self.recent,
        )

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """Capsules learn next items, then labelled targets."""

        def next_item(histories: Tensor, items: Tensor, _: Tensor) -> Tensor:
            made, _ = self.network.capsules(histories.to(self.place))
            vectors = self.network.items[items.to(self.place)]
            scores = torch.einsum("bjd,bkd->bjk", made, vectors)
            best = scores[:, :, 0].detach().argmax(dim=1)
            return self._loss(scores[torch.arange(len(best)), best])

        def labelled(histories: Tensor, items: Tensor, _: Tensor) -> Tensor:
            # labels are about the direction, so the direction is trained
            wanted, _ = self._directions(histories.to(self.place))
            return self._loss(self._cosine(wanted, items.to(self.place)))

        return self.stages_of_cases(
            fold, NEGATIVES, generator, next_item, labelled, self.recent
        )

    def _loss(self, scores: Tensor) -> Tensor:
        """Cross-entropy of the first item of each row [B, 1 + K]."""
        logits = scores * self.network.log_scale.exp()
        return F.cross_entropy(logits, logits.new_zeros(len(logits)).long())

    def _cosine(self, users: Tensor, items: Tensor) -> Tensor:
        """Cosines of users [B, d] and items [B, C]; [B, C]."""
        known = self.network.items.__getitem__
        return inner_products(F.normalize(users, dim=1), items, known)

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """The score of the class's text, [B, C]."""
        wanted, long_term = self._directions(histories)
        surprise = 1.0 - self._expected(histories, candidates)
        near, usual = (
            self._cosine(vector, candidates) for vector in (wanted, long_term)
        )
        return near * surprise ** self.option("eta") + (
            self.option("kappa") * usual
        )

    def _directions(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """s_u and p_u of histories [B, n], [B, d] each."""
        weights, long_term = self.network.long_term(histories)
        wanted = direction(
            self.network.demand(histories), long_term, elasticity(weights)
        )
        # one item says nothing about a demand beside the preference
        alone = (histories != 0).sum(1, keepdim=True) < 2
        return torch.where(alone, long_term, wanted), long_term

    def _expected(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Expectedness quantile of candidates, [B, C]."""
        known = histories.cpu().numpy(), candidates.cpu().numpy()
        rows = [
            expected_share(self.counts, past[past != 0], items, self.pool)
            for past, items in zip(*known, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).float().to(self.place)

    def tuning(self) -> dict[str, tuple[float, ...]]:
        """Eta and kappa."""
        return {"eta": (0.5, 0.0, 1.0), "kappa": (0.3, 0.0, 1.0)}
