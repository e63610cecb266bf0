"""DESR-style (after Li et al., WWW 2020): a serendipity direction.

No code was found; from the abstract come the parts (long-term preference by
a Gaussian mixture, short-term demand by capsules, a vector that combines
both into a direction, back-routing as explanation), the formulas are ours.

Shapes: B users, n history length, C candidates, K components, J capsules,
d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn import functional as F

from serendifflib.baselines.sampling import Cases, expected_share
from serendifflib.baselines.sequences import catalogue_items
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.errors import ConfigError
from serendifflib.portrait.scores import CoOccurrence

if TYPE_CHECKING:
    from serendifflib.portrait.fold import FoldData

NEGATIVES = 100  # of the sampled softmax
ROUTING = 3  # rounds


class DESRNetwork(nn.Module):
    """Frozen item vectors and mixture; trained capsules."""

    def __init__(
        self,
        items: torch.Tensor,
        shares: torch.Tensor,
        centres: torch.Tensor,
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

    def long_term(
        self, histories: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixture weights pi_u [B, K] and long-term vectors p_u [B, d]."""
        count = (histories != 0).sum(1, keepdim=True)
        weights = self.shares[histories].sum(1) / count
        return weights, weights @ self.centres

    def capsules(
        self, histories: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Capsules v [B, J, d] and routing weights c [B, n, J].

        Three rounds: b = 0; c = softmax_j b; s_j = sum_i c_ij u_ij;
        v_j = squash(s_j); b += <u_ij, v_j>. The routing logits carry no
        gradient, or training would bend the routing itself.
        """
        real = (histories != 0).unsqueeze(-1)
        votes = torch.einsum("bnd,jde->bnje", self.items[histories], self.maps)
        fixed = votes.detach()
        logits = fixed.new_zeros(votes.shape[:3])
        for _ in range(ROUTING - 1):
            made = squash(_route(logits, real, fixed))
            logits = logits + torch.einsum("bnje,bje->bnj", fixed, made)
        return squash(_route(logits, real, votes)), logits.softmax(dim=2)

    def demand(self, histories: torch.Tensor) -> torch.Tensor:
        """d_u: capsules of the newest items, weighted by length; [B, d]."""
        made, _ = self.capsules(histories[:, -self.recent :])
        weights = made.norm(dim=2).softmax(dim=1)
        return (weights.unsqueeze(2) * made).sum(1)


def _route(
    logits: torch.Tensor, real: torch.Tensor, votes: torch.Tensor
) -> torch.Tensor:
    weights = logits.softmax(dim=2) * real
    return torch.einsum("bnj,bnje->bje", weights, votes)


def squash(x: torch.Tensor) -> torch.Tensor:
    """Same direction, length ``|x|^2 / (1 + |x|^2)``."""
    # a zero vector has no direction; the small number keeps its gradient
    length = (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    return x * length / (1.0 + length.square())


def direction(
    demand: torch.Tensor, long_term: torch.Tensor, elasticity: torch.Tensor
) -> torch.Tensor:
    """s_u: the demand with part of its long-term component removed.

    ``s = d / |d| - rho <d, p> p / (|d| |p|^2)``: with rho = 0 the demand's own
    direction, with rho = 1 what is new in it.

    Args:
        demand: d_u, [B, d].
        long_term: p_u, [B, d].
        elasticity: rho in [0, 1], [B].

    Returns:
        [B, d].
    """
    unit = F.normalize(demand, dim=1)
    along = F.normalize(long_term, dim=1)
    part = (unit * along).sum(1, keepdim=True) * along
    return unit - elasticity.unsqueeze(1) * part


def elasticity(weights: torch.Tensor) -> torch.Tensor:
    """Normalised entropy of mixture weights [B, K], in [0, 1]: [B].

    Users with broad interests are taken further from what they know.
    """
    entropy = -(weights * weights.clamp(min=1e-12).log()).sum(1)
    return entropy / np.log(max(weights.shape[1], 2))


@dataclass(eq=False, kw_only=True)
class DESR(TorchRival):
    """DESR-style.

    score = cos(s_u, e_i) (1 - q_i)^eta + kappa cos(p_u, e_i), with q_i the
    expectedness of the item as a quantile of the catalogue. eta and kappa
    are chosen on validation.

    Attributes:
        components: K of the mixture.
        capsules: J.
        recent: newest items that make the demand.
        eta, kappa: see above.
        learn_labels: fine-tune the capsules so that s_u points at labelled
            targets, as all rivals may here; False keeps labels to choosing
            eta and kappa.
    """

    name: ClassVar[str] = "DESR-style"
    max_history: int = 100
    components: int = 20
    capsules: int = 4
    recent: int = 10
    eta: float = 0.5
    kappa: float = 0.3
    learn_labels: bool = True

    def __post_init__(self):
        if self.inputs != "text":
            raise ConfigError(
                f"DESR-style: item inputs {self.inputs!r} are not possible; "
                "its mixture needs inputs='text'"
            )

    def build(self, fold: FoldData, vectors: torch.Tensor) -> nn.Module:
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
        self.pool = catalogue_items(fold)
        return DESRNetwork(
            items,
            torch.from_numpy(shares),
            torch.from_numpy(mixture.means_.astype(np.float32)),
            self.capsules,
            self.recent,
        )

    def stages(
        self, fold: FoldData, generator: torch.Generator
    ) -> list[Stage]:
        """Capsules learn next items, then labelled targets."""

        def loss(cases: Cases, index: torch.Tensor) -> torch.Tensor:
            histories, items = cases.draw(index, NEGATIVES, generator)
            made, _ = self.network.capsules(histories.to(self.place))
            vectors = self.network.items[items.to(self.place)]
            scores = torch.einsum("bjd,bkd->bjk", made, vectors)
            best = scores[:, :, 0].detach().argmax(dim=1)
            logits = scores[torch.arange(len(best)), best]
            logits = logits * self.network.log_scale.exp()
            return F.cross_entropy(logits, torch.zeros_like(best))

        def labelled_loss(index: torch.Tensor) -> torch.Tensor:
            # labels are about the direction, so the direction is trained
            histories, items = labelled.draw(index, NEGATIVES, generator)
            wanted, _ = self._directions(histories.to(self.place))
            near = cosine(wanted, items.to(self.place), self.network.items)
            logits = near * self.network.log_scale.exp()
            first = logits.new_zeros(len(logits), dtype=torch.long)
            return F.cross_entropy(logits, first)

        everything = Cases.next_items(fold, self.recent)
        labelled = Cases.of(fold, fold.train, self.max_history)
        stages = self.two_stages(
            fold,
            (len(everything), lambda index: loss(everything, index)),
            labelled_loss,
        )
        return stages if self.learn_labels else stages[:1]

    def score_batch(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """The score of the class's text, [B, C]."""
        wanted, long_term = self._directions(histories)
        surprise = 1.0 - self._expected(histories, candidates)
        near = cosine(wanted, candidates, self.network.items)
        usual = cosine(long_term, candidates, self.network.items)
        eta, kappa = self.option("eta"), self.option("kappa")
        return near * surprise**eta + kappa * usual

    def _directions(
        self, histories: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """s_u and p_u of histories [B, n], [B, d] each."""
        weights, long_term = self.network.long_term(histories)
        wanted = direction(
            self.network.demand(histories), long_term, elasticity(weights)
        )
        # one item says nothing about a demand beside the preference
        alone = (histories != 0).sum(1, keepdim=True) < 2
        return torch.where(alone, long_term, wanted), long_term

    def _expected(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Expectedness quantile of candidates, [B, C]."""
        rows = [
            expected_share(
                self.counts,
                history[history != 0].numpy(),
                wanted.numpy(),
                self.pool,
            )
            for history, wanted in zip(
                histories.cpu(), candidates.cpu(), strict=True
            )
        ]
        return torch.from_numpy(np.stack(rows)).float().to(self.place)

    def tuning(self) -> dict[str, tuple[float, ...]]:
        """Eta and kappa."""
        return {"eta": (0.5, 0.0, 1.0), "kappa": (0.3, 0.0, 1.0)}

    def back_route(self, history: torch.Tensor, item: int) -> torch.Tensor:
        """How much each recent item speaks for ``item``: an explanation.

        Args:
            history: item numbers without padding, [n].
            item: item number.

        Returns:
            routing weights of the last L = ``recent`` items to the capsule
            that is closest to the item, FloatTensor [min(n, L)].
        """
        recent = history[-self.recent :].unsqueeze(0).to(self.place)
        with torch.no_grad():
            made, weights = self.network.capsules(recent)
        best = (made[0] @ self.network.items[item]).argmax()
        return weights[0, :, best].cpu()


def cosine(
    users: torch.Tensor, candidates: torch.Tensor, items: torch.Tensor
) -> torch.Tensor:
    """Cosine of users [B, d] and candidates [B, C] among unit items."""
    distinct, place = candidates.unique(return_inverse=True)
    return (F.normalize(users, dim=1) @ items[distinct].T).gather(1, place)
