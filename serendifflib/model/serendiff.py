"""The SerenDiff model: from a history to serendipity recommendations.

It composes the rooms of the library and holds no mathematics of its own:
scores -> portrait -> diffusion -> points -> matching.
"""

from __future__ import annotations

import copy
import numbers
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from serendifflib.data.interactions import Interactions
from serendifflib.data.splits import Examples
from serendifflib.diffusion.base import Diffusion, PlacedItems, place
from serendifflib.diffusion.devices import usable_device
from serendifflib.diffusion.reports import StageReport, TrainingReport
from serendifflib.diffusion.sampling import check_sampler
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.training import count_parameters
from serendifflib.errors import ConfigError, ModelError
from serendifflib.model import explain as explaining
from serendifflib.model import storage
from serendifflib.model.catalogue import Catalogue
from serendifflib.model.fitting import (
    fold_of,
    make_diffusion,
    stages_of,
    train_stage,
)
from serendifflib.model.matching import Matcher
from serendifflib.model.settings import Settings, make_settings
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import centred, join, memberships, shares
from serendifflib.portrait.portrait import Portraits, PortraitSpace
from serendifflib.profiles import Profile, current_profile
from serendifflib.recommender import check_request, check_scores

TOLD = 10  # draws that an explanation speaks of


class SerenDiff:
    """Serendipity recommendation by diffusion over user portraits.

    Args:
        preset: one of :data:`serendifflib.model.settings.PRESETS`.
        profile: sizes, or their name; None takes ``$SERENDIFF_PROFILE``.
        device: ``cpu``, ``cuda`` or None (CUDA where there is one).
        progress: show progress bars.
        **changes: any of :class:`serendifflib.model.settings.Settings`.

    Raises:
        ConfigError: unknown preset or setting.

    Attributes:
        settings: the settings in force.
        space: the fitted ``PortraitSpace``.
        memberships: of items in prototypes, [N + 1, P]; P may be 0.
        points: vector and memberships of each item, [N + 1, D].
        diffusion: what is generated, and how.
        network: the trained network.
        catalogue: ids, titles and histories of the data it was fitted on.
        reports: one report per stage of training.
    """

    def __init__(
        self,
        preset: str = "tuned",
        *,
        profile: Profile | str | None = None,
        device: str | None = None,
        progress: bool = True,
        **changes,
    ):
        if not isinstance(profile, Profile):
            profile = current_profile(profile)
        self.configure(make_settings(preset, profile, **changes))
        self.device = usable_device(device)
        self.progress = progress

    def configure(self, settings: Settings) -> None:
        """Take settings; the model is then as if it were never fitted."""
        self.settings = settings
        self.name = f"SerenDiff ({settings.preset})"
        if not settings.steps:
            starts = settings.preset in ("tuned", "points")
            words = "regression alone" if starts else "untrained"
            self.name = f"SerenDiff ({settings.preset}, {words})"
        self.schedule = DDPMSchedule.make(
            settings.schedule,
            settings.timesteps,
            rescale_betas=settings.rescale_betas,
        )
        check_sampler(settings.sampler, settings.calls, settings.timesteps)
        self.space: PortraitSpace | None = None
        self.memberships: Tensor | None = None
        self.points: Tensor | None = None
        self.diffusion: Diffusion | None = None
        self.network: nn.Module | None = None
        self.catalogue: Catalogue | None = None
        self.reports: list[StageReport] = []
        self.seconds = 0.0
        self.seed = 0
        self.kind = "serendipity"

    def prepare(
        self, space: PortraitSpace, shares: Tensor, catalogue: Catalogue
    ) -> None:
        """Take over all but the network.

        ``shares`` are memberships of the items in prototypes, [N + 1, P]; for
        tokens the shares themselves, not centred.
        """
        self.space, self.memberships = space, shares
        tokens = self.settings.diffuse == "tokens"
        seen = centred(shares) if tokens else shares
        self.points = join(space.vectors, seen)
        self.catalogue = catalogue
        self.diffusion = self.make_diffusion()

    def make_diffusion(self) -> Diffusion:
        """What is generated; an ablation differs."""
        return make_diffusion(self)

    def fit(
        self,
        data: Interactions | FoldData | pd.DataFrame | Path | str,
        *,
        generator: torch.Generator | None = None,
        checkpoint: Path | None = None,
        keep_checkpoint: bool = False,
    ) -> Self:
        """Fit on a fold, or on all users of a data set.

        Args:
            data: a fold of an experiment; or interactions, or what
                ``load_dataset`` takes: of these every tenth user validates
                and the others train.
            generator: source of the seed; None is seed 0.
            checkpoint: file to resume an interrupted training from; that
                of pre-training lies beside it (:func:`checkpoint_files`).
            keep_checkpoint: leave both files, in case that what follows is
                killed.

        Raises:
            ConfigError: there is nothing to train on.
            CheckpointError: the checkpoint does not belong to this run.
            ModelError: the training diverged.
        """
        started = time.perf_counter()
        fold = fold_of(data, progress=self.progress)
        self.seed, self.kind = 0, fold.kind
        if generator is not None:
            drawn = torch.randint(2**31 - 1, (1,), generator=generator)
            self.seed = int(drawn)
        s = self.settings
        # an interrupted fit must not leave what looks like a fitted model
        self.network, self.reports = None, []
        space = PortraitSpace.fit(
            fold, bins=s.bins, isotropy=s.isotropy, weights=s.weights, mu=s.mu
        )
        belonging = shares if s.diffuse == "tokens" else memberships
        self.prepare(
            space,
            belonging(space.vectors, s.prototypes).float(),
            Catalogue.from_interactions(fold.interactions, fold.training_rows),
        )
        network = self.diffusion.new_network(self.seed)
        files = checkpoint_files(checkpoint) if checkpoint else (None, None)
        for (stage, examples, steps), path in zip(
            stages_of(self.settings, fold), files, strict=True
        ):
            if examples is not None:
                train_stage(self, network, fold, stage, examples, steps, path)
        if not keep_checkpoint:
            for path in filter(None, files):
                path.unlink(missing_ok=True)
        self.network = network.to(self.device).eval()
        self.seconds = time.perf_counter() - started
        return self

    @property
    def report(self) -> TrainingReport:
        """What the last fit took."""
        self._require_fit()
        return TrainingReport(
            count_parameters(self.network),
            tuple(self.reports),
            self.seconds or sum(one.seconds for one in self.reports),
        )

    @torch.no_grad()
    def score(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Scores [B, C] of candidates; see the protocol.

        The same in any batch and order, and with any number of threads, up to
        rounding: items whose scores nearly tie may change places.

        Raises:
            ModelError: not fitted, empty history, unknown or padding item.
        """
        self._require_fit()
        n_items = len(self.space.vectors) - 1
        check_request(self.name, histories, candidates, n_items)
        seen = place(self.space, histories, candidates)
        scores = self.diffusion.score(self.network, seen)
        return check_scores(self.name, scores)

    def with_sampling(self, *, seed: int | None = None, **changes) -> Self:
        """The same trained model that generates or matches otherwise.

        What may change are ``sampler``, ``calls``, ``samples``, ``aggregate``,
        ``match`` and the seed of the noise.

        Raises:
            ConfigError: a setting that training depends on, or a bad value.
        """
        late = {"sampler", "calls", "samples", "aggregate", "match"}
        if set(changes) - late:
            raise ConfigError(
                f"{sorted(set(changes) - late)[0]} cannot be changed after "
                f"training; these can: {', '.join(sorted(late))}"
            )
        view = copy.copy(self._require_fit())
        view.settings = s = replace(self.settings, **changes)
        check_sampler(s.sampler, s.calls, s.timesteps)
        view.seed = self.seed if seed is None else seed
        view.diffusion = view.make_diffusion()
        return view

    def training_set(self, fold: FoldData, examples: Examples) -> PlacedItems:
        """Training examples with their targets, placed."""
        return self.diffusion.examples(fold, examples, self.seed)

    def look_at(
        self, histories: Tensor, candidates: Tensor
    ) -> tuple[Portraits, Tensor]:
        """What the network is told, and cells of candidates [B, C, 2]."""
        seen = place(self.space, histories, candidates)
        told = self.diffusion.represent(seen.portraits)
        return told, seen.cells(self.settings.side)

    def generate(self, portraits: Portraits, **changes) -> Tensor:
        """See ``ImageDiffusion.generate`` of ``diffusion.images``."""
        return self.diffusion.generate(self.network, portraits, **changes)

    def match(
        self,
        generated: Tensor,
        candidates: Tensor,
        cells: Tensor,
        how: str | None = None,
    ) -> Tensor:
        """Scores [B, C]; see :class:`serendifflib.model.matching.Matcher`."""
        how = how or self.settings.match
        return Matcher(self.points, how)(generated, candidates, cells)

    def portrait(
        self, user: object = None, *, items: Sequence[object] | None = None
    ) -> explaining.UserPortrait:
        """Portrait of a user of the fitted data, with ``plot()``.

        Or of somebody new, who is known by item ids, oldest first.

        Raises:
            UnknownUserError, UnknownItemError: no such id.
            ConfigError: neither a user nor items, or both.
        """
        self._require_fit()
        name, history, own = self.catalogue.reader(user, items)
        return self.portrait_of(history, name=name, own=own)

    def portrait_of(
        self,
        history: np.ndarray,
        *,
        name: str = "somebody new",
        own: np.ndarray | None = None,
    ) -> explaining.UserPortrait:
        """Portrait of somebody known by item numbers in time order, [n].

        ``own`` are items of a training user, whose rows are not counted.
        """
        self._require_fit()
        return explaining.UserPortrait.of(
            history,
            self.space,
            self.catalogue,
            self.settings.side,
            name=name,
            own=own,
        )

    def recommend(
        self,
        user: object = None,
        k: int = 10,
        *,
        items: Sequence[object] | None = None,
        exclude: Sequence[object] = (),
    ) -> pd.DataFrame:
        """The ``k`` best items that the user does not have yet.

        Args:
            user: id of a user of the fitted data.
            k: how many; there may be fewer items left.
            items: instead of ``user``, the item ids of somebody new, oldest
                first.
            exclude: item ids that are not to be recommended.

        Returns:
            columns item, title, score, expectedness and relevance (positions
            in [0, 1]), cell (expectedness, relevance; 1..L), distance and
            direction from the user's centre, nearest history item.

        Raises:
            UnknownUserError, UnknownItemError: no such id. ConfigError:
                ``k`` is not positive; neither user nor items, or both.
        """
        k = _at_least_one("k", k)
        portrait = self.portrait(user, items=items)
        return self._best(portrait, k, self.catalogue.item_numbers(exclude))

    def recommend_all(
        self, k: int = 10, *, exclude: Sequence[object] = ()
    ) -> pd.DataFrame:
        """The ``k`` best new items of every user, one below the other.

        Columns are user and rank (1 is best), then those of
        :meth:`recommend`, which also says what is raised.
        """
        k = _at_least_one("k", k)
        users = self._require_fit().catalogue.users
        left_out = self.catalogue.item_numbers(exclude)
        tables = []
        for user in tqdm(users, "recommend", disable=not self.progress):
            table = self._best(self.portrait(user), k, left_out)
            table.insert(0, "user", user)
            table.insert(1, "rank", np.arange(1, len(table) + 1))
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def _best(self, portrait, k, left_out) -> pd.DataFrame:
        scores = self.rank(portrait)
        scores[left_out] = -np.inf
        order = np.argsort(-scores, kind="stable")[:k]
        order = order[np.isfinite(scores[order])]  # there may be fewer than k
        return explaining.recommendation_table(
            portrait, order, scores, self.space.vectors, self.catalogue
        )

    def explain(
        self,
        user: object = None,
        item: object = None,
        *,
        items: Sequence[object] | None = None,
    ) -> explaining.Explanation:
        """Why this item: how far, in which direction, from what.

        ``items`` instead of ``user``: see :meth:`portrait`.

        Raises:
            UnknownUserError, UnknownItemError: no such id.
        """
        number = self._require_fit().catalogue.item_number(item)
        portrait = self.portrait(user, items=items)
        cells = self.diffusion.draw_cells(self.network, portrait.placed, TOLD)
        return explaining.Explanation.of(
            portrait,
            number,
            self.rank(portrait),
            self.zone(portrait),
            self.space,
            self.catalogue,
            None if cells is None else cells[0].numpy(),
        )

    @torch.no_grad()
    def zone(self, user: object) -> np.ndarray:
        """How strongly each cell of an id or portrait is generated, [L, L]."""
        if not isinstance(user, explaining.UserPortrait):
            user = self.portrait(user)
        zone = self.diffusion.zone(self.network, user.placed)[0]
        return zone.cpu().numpy()

    @torch.no_grad()
    def rank(self, portrait: explaining.UserPortrait) -> np.ndarray:
        """Scores of all items, [N + 1]; -inf for what cannot be given.

        That is item 0, what the user has, and items without a vector.
        """
        scores = np.full(len(self._require_fit().space.vectors), -np.inf)
        found = self.diffusion.score(self.network, portrait.placed)
        scores[1:] = found[0].numpy()
        scores[portrait.items] = -np.inf
        scores[(self.space.vectors.norm(dim=1) == 0).numpy()] = -np.inf
        return scores

    def _require_fit(self) -> Self:
        if self.space is None or self.network is None:
            raise ModelError(f"{self.name}: fit it before use")
        return self

    def save(self, path: Path | str) -> None:
        """Save to a folder: safetensors with a JSON header, never pickle.

        Raises:
            ModelError: not fitted. CacheError: the folder cannot be written.
        """
        folder = Path(os.path.expanduser(path))  # ~nobody stays as it is
        storage.save_model(self._require_fit(), folder)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str | None = None,
        progress: bool = True,
    ) -> Self:
        """Load what :meth:`save` wrote.

        Raises:
            CheckpointError: damaged, another version, or another shape.
        """
        model = cls.__new__(cls)
        model.device = usable_device(device)
        model.progress = progress
        storage.load_model(model, Path(os.path.expanduser(path)))
        return model


def checkpoint_files(checkpoint: Path) -> tuple[Path, Path]:
    """Files of an unfinished fit: pre-training, and training itself."""
    return checkpoint.with_name(f"pre-{checkpoint.name}"), checkpoint


def _at_least_one(name: str, value: object) -> int:
    if isinstance(value, numbers.Integral) and value >= 1:
        return int(value)
    raise ConfigError(
        f"{name} must be a whole number, at least 1, got {value!r}"
    )
