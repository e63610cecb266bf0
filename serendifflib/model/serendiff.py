"""The SerenDiff model: from a history to serendipity recommendations.

It composes the rooms of the library and holds no mathematics of its own:
scores -> portrait -> diffusion -> points -> matching.
"""

from __future__ import annotations

import copy
import numbers
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from serendifflib.data.interactions import Interactions
from serendifflib.data.sources import load_dataset
from serendifflib.data.splits import Examples, make_examples, whole_split
from serendifflib.diffusion.base import Diffusion, PlacedItems, place
from serendifflib.diffusion.devices import usable_device
from serendifflib.diffusion.images import ImageDiffusion
from serendifflib.diffusion.points import PointDiffusion
from serendifflib.diffusion.sampling import check_sampler
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.tokens import TokenDiffusion
from serendifflib.diffusion.training import (
    StageReport,
    TrainingReport,
    TrainingSettings,
    train,
)
from serendifflib.diffusion.unet import UNetSettings
from serendifflib.diffusion.validation import Validation, mean_ndcg
from serendifflib.errors import ConfigError, ModelError
from serendifflib.io import content_hash
from serendifflib.model import explain as explaining
from serendifflib.model import storage
from serendifflib.model.catalogue import Catalogue
from serendifflib.model.matching import Matcher
from serendifflib.model.settings import Settings, make_settings
from serendifflib.portrait.fold import FoldData, prepare_fold
from serendifflib.portrait.items import (
    centred,
    join,
    memberships,
    shares,
)
from serendifflib.portrait.portrait import Portraits, PortraitSpace
from serendifflib.profiles import Profile, current_profile
from serendifflib.recommender import check_request, check_scores

PER_USER = 5  # next-item targets per user in pre-training
TOLD = 10  # draws that an explanation speaks of
BLOCK = 16  # users that are ranked at a time


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
        """Take settings; the model is then as if it were never fitted.

        Raises:
            ConfigError: the schedule or the sampler cannot be made.
        """
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
        self.memberships: torch.Tensor | None = None
        self.points: torch.Tensor | None = None
        self.diffusion: Diffusion | None = None
        self.network: nn.Module | None = None
        self.catalogue: Catalogue | None = None
        self.reports: list[StageReport] = []
        self.seconds = 0.0
        self.seed = 0
        self.kind = "serendipity"

    def prepare(
        self,
        space: PortraitSpace,
        shares: torch.Tensor,
        catalogue: Catalogue,
    ) -> None:
        """Take over all but the network.

        Args:
            space: fitted.
            shares: memberships of the items in prototypes, [N + 1, P]; for
                tokens the shares themselves, not centred.
            catalogue: what can be recommended, to whom.
        """
        self.space, self.memberships = space, shares
        tokens = self.settings.diffuse == "tokens"
        seen = centred(shares) if tokens else shares
        self.points = join(space.vectors, seen)
        self.catalogue = catalogue
        self.diffusion = self.make_diffusion()

    def make_diffusion(self) -> Diffusion:
        """What is generated; an ablation differs."""
        s = self.settings
        if s.diffuse == "tokens":
            return TokenDiffusion(
                space=self.space,
                points=self.points,
                shares=self.memberships,
                side=s.side,
                popularity_bins=s.popularity_bins,
                width=s.width,
                dropout=s.dropout,
                thinning=s.thinning,
                seed=self.seed,
                device=self.device,
            )
        common = {
            "space": self.space,
            "schedule": self.schedule,
            "side": s.side,
            "sampler": s.sampler,
            "calls": s.calls,
            "samples": s.samples,
            "aggregate": s.aggregate,
            "seed": self.seed,
            "device": self.device,
        }
        if s.diffuse == "points":
            return PointDiffusion(
                memberships=self.memberships,
                hidden=s.width,
                dropout=s.dropout,
                earliest=s.earliest,
                negatives=s.negatives,
                **common,
            )
        channels = self.points.shape[1]
        return ImageDiffusion(
            points=self.points,
            unet=UNetSettings(
                channels=channels,
                widths=(s.width, 2 * s.width, 4 * s.width),
                condition=s.condition,
                norm=s.norm,
                dropout=s.dropout,
                output_relu=s.output_relu,
            ),
            predict=s.predict,
            loss_kind=s.loss,
            data_scale=channels**0.5 if s.unit_scale else 1.0,
            matcher=Matcher(self.points, s.match),
            **common,
        )

    # ------------------------------------------------------------- fitting

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
            keep_checkpoint: leave both files, so that a fit that was killed
                before it was saved need not be done again.

        Raises:
            ConfigError: there is nothing to train on.
            CheckpointError: the checkpoint does not belong to this run.
            ModelError: the training diverged.
        """
        started = time.perf_counter()
        fold = self._fold_of(data)
        self.seed, self.kind = _seed_from(generator), fold.kind
        s = self.settings
        # an interrupted fit must not leave what looks like a fitted model
        self.network, self.reports = None, []
        space = PortraitSpace.fit(
            fold,
            bins=s.bins,
            isotropy=s.isotropy,
            weights=s.weights,
            mu=s.mu,
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
            self._stages(fold), (files[0], files[1]), strict=True
        ):
            if examples is not None:
                self._train(network, fold, stage, examples, steps, path)
        if not keep_checkpoint:
            for path in filter(None, files):
                path.unlink(missing_ok=True)
        self.network = network.to(self.device).eval()
        self.seconds = time.perf_counter() - started
        return self

    def _fold_of(self, data) -> FoldData:
        """The data of :meth:`fit` as a fold; say how much there is."""
        fold = data
        if not isinstance(fold, FoldData):
            if not isinstance(data, Interactions):
                data = load_dataset(data)
            fold = whole_fold(data, progress=self.progress)
        if self.progress:
            print(
                f"{fold.interactions.name}: {len(fold.train):,} {fold.kind} "
                "targets to train on",
                file=sys.stderr,
            )
        return fold

    def _stages(
        self, fold: FoldData
    ) -> list[tuple[str, Examples | None, int]]:
        """Name, examples and steps: next items (if asked), then targets."""
        s, first = self.settings, None
        if s.pretrain_steps and fold.kind == "serendipity":
            found = make_examples(
                fold.interactions,
                fold.split.train_users,
                "all-next",
                per_user=PER_USER,
                min_history=2,
            )
            first = _allowed(found, fold)
        return [
            ("next-item", first, s.pretrain_steps),
            (fold.kind, fold.train, s.steps),
        ]

    def _train(
        self,
        network: nn.Module,
        fold: FoldData,
        stage: str,
        examples: Examples,
        steps: int,
        checkpoint: Path | None,
    ) -> None:
        """One stage: place its users, start, descend."""
        s, seed = self.settings, self.seed + len(self.reports)
        placed = self.diffusion.examples(fold, examples, seed)
        self.diffusion.start(network.cpu(), placed)
        if not steps:
            return
        cases = self._cases(fold, stage) if s.patience else None
        validate = None if cases is None else self._validator(cases)
        report = train(
            network.to(self.device),
            self.diffusion.loss(network, placed),
            len(placed),
            TrainingSettings(
                steps=steps,
                batch_size=s.batch_size,
                learning_rate=s.learning_rate,
                weight_decay=s.weight_decay,
                optimizer=s.optimizer,
                ema=s.ema,
                patience=s.patience if validate else 0,
                validate_every=s.validate_every,
            ),
            seed=seed,
            name=self.name,
            stage=stage,
            device=self.device,
            validate=validate,
            checkpoint=checkpoint,
            keep_checkpoint=True,  # until the whole fit is done
            origin=content_hash(
                s.as_dict(),
                stage,
                self.points.numpy(),
                placed.portraits.items.numpy(),
                placed.portraits.positions.numpy(),
                placed.items.numpy(),
                placed.positions.numpy(),
            ),
            progress=self.progress,
        )
        self.reports.append(report)
        if cases is not None:
            self.diffusion.tune(network, cases)

    def _cases(self, fold: FoldData, stage: str) -> PlacedItems | None:
        """The common validation cases, placed once."""
        cases = Validation.of(
            fold,
            kind=stage,
            n_cases=self.settings.valid_users,
            n_candidates=self.settings.valid_candidates,
        )
        if cases is None:
            return None
        return place(self.space, cases.histories, cases.candidates)

    def _validator(self, cases: PlacedItems) -> Callable[[nn.Module], float]:
        """NDCG of a network on validation cases."""
        return lambda network: mean_ndcg(
            self.diffusion.score(network, cases, draws=1)
        )

    @property
    def report(self) -> TrainingReport:
        """What the last fit took.

        Raises:
            ModelError: not fitted.
        """
        self._require_fit()
        trained = (p for p in self.network.parameters() if p.requires_grad)
        return TrainingReport(
            model=self.name,
            parameters=sum(p.numel() for p in trained),
            stages=tuple(self.reports),
            seconds=self.seconds or sum(one.seconds for one in self.reports),
            settings=self.settings.as_dict(),
        )

    # ------------------------------------------------------------- scoring

    def score(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores of candidates for users known by their histories.

        Args:
            histories: item numbers, left-padded with 0, [B, n].
            candidates: item numbers, [B, C].

        Returns:
            [B, C], higher is better; the same in any batch and order, and with
            any number of threads, up to rounding: items whose scores nearly
            tie may change places.

        Raises:
            ModelError: not fitted, empty history, unknown or padding item.
        """
        self._require_fit()
        n_items = len(self.space.vectors) - 1
        check_request(self.name, histories, candidates, n_items)
        seen = place(self.space, histories, candidates)
        scores = self._score(seen)
        return check_scores(self.name, scores)

    @torch.no_grad()
    def _score(self, seen: PlacedItems) -> torch.Tensor:
        return self.diffusion.score(self.network, seen)

    def with_sampling(self, *, seed: int | None = None, **changes) -> Self:
        """The same trained model that generates or matches otherwise.

        Args:
            seed: of the noise.
            **changes: ``sampler``, ``calls``, ``samples``, ``aggregate``,
                ``match``.

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
        view.settings = replace(self.settings, **changes)
        check_sampler(
            view.settings.sampler, view.settings.calls, view.settings.timesteps
        )
        view.seed = self.seed if seed is None else seed
        view.diffusion = view.make_diffusion()
        return view

    # ------------------------------------- one step at a time, for portraits

    def training_set(self, fold: FoldData, examples: Examples) -> PlacedItems:
        """Training examples with their targets, placed."""
        return self.diffusion.examples(fold, examples, self.seed)

    def look_at(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> tuple[Portraits, torch.Tensor]:
        """What the network is told, and cells of candidates [B, C, 2]."""
        seen = place(self.space, histories, candidates)
        told = self.diffusion.represent(seen.portraits)
        return told, seen.cells(self.settings.side)

    def generate(self, portraits: Portraits, **changes) -> torch.Tensor:
        """See ``ImageDiffusion.generate`` of ``diffusion.images``."""
        return self.diffusion.generate(self.network, portraits, **changes)

    def match(
        self,
        generated: torch.Tensor,
        candidates: torch.Tensor,
        cells: torch.Tensor,
        how: str | None = None,
    ) -> torch.Tensor:
        """Scores [B, C]; see :class:`serendifflib.model.matching.Matcher`."""
        how = how or self.settings.match
        return Matcher(self.points, how)(generated, candidates, cells)

    # ----------------------------------------------------------- for readers

    def portrait(
        self,
        user: object = None,
        *,
        items: Sequence[object] | None = None,
    ) -> explaining.UserPortrait:
        """Portrait of a user, with ``plot()``.

        Args:
            user: id of a user of the fitted data.
            items: instead, the item ids of somebody new, oldest first.

        Raises:
            UnknownUserError, UnknownItemError: no such id.
            ConfigError: neither a user nor items, or both.
        """
        self._require_fit()
        name, history, own = self._reader(user, items)
        return self.portrait_of(history, name=name, own=own)

    def portrait_of(
        self,
        history: np.ndarray,
        *,
        name: str = "somebody new",
        own: np.ndarray | None = None,
    ) -> explaining.UserPortrait:
        """Portrait of somebody known by item numbers alone.

        Args:
            history: item numbers in time order, [n], n >= 1.
            name: how the portrait calls the user.
            own: items of a training user, whose rows are then not counted.
        """
        history = np.asarray(history, dtype=np.int64)
        space = self._require_fit().space
        seen = space.view(history, own=own)
        log_exp, cosine = space.scores(history, own=own)
        return explaining.UserPortrait(
            user=name,
            items=history,
            titles=[self.catalogue.title(item) for item in history],
            positions=seen.past,
            expectedness=np.exp(log_exp),
            relevance=space.relevance_range.apply(cosine),
            side=self.settings.side,
            catalogue_positions=seen.positions,
            catalogue_scores=seen.scores,
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
        return self._best(portrait, k, self._numbers(exclude))

    def recommend_all(
        self, k: int = 10, *, exclude: Sequence[object] = ()
    ) -> pd.DataFrame:
        """The ``k`` best new items of every user, one below the other.

        Returns:
            columns user and rank (1 is best), then those of
            :meth:`recommend`.

        Raises:
            see :meth:`recommend`.
        """
        k = _at_least_one("k", k)
        users = self._require_fit().catalogue.users
        left_out = self._numbers(exclude)
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
        cells = self.diffusion.draw_cells(
            self.network, self._everything(portrait), TOLD
        )
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
        """How strongly each cell of the plane is generated, [L, L].

        Args:
            user: an id, or a portrait.
        """
        if not isinstance(user, explaining.UserPortrait):
            user = self.portrait(user)
        seen = self._everything(user)
        return self.diffusion.zone(self.network, seen)[0].cpu().numpy()

    def rank(self, portrait: explaining.UserPortrait) -> np.ndarray:
        """Scores of all items, [N + 1]; -inf for what cannot be given.

        That is item 0, what the user has, and items without a vector.
        """
        scores = np.full(len(self._require_fit().space.vectors), -np.inf)
        scores[1:] = self._score(self._everything(portrait))[0].numpy()
        scores[portrait.items] = -np.inf
        scores[(self.space.vectors.norm(dim=1) == 0).numpy()] = -np.inf
        return scores

    def _reader(
        self, user: object, items: Sequence[object] | None
    ) -> tuple[str, np.ndarray, np.ndarray | None]:
        """Name, history, and the items that the counts know of a reader."""
        if (user is None) == (items is None):
            raise ConfigError("name either a user or items, e.g. items=['a']")
        if items is None:
            number = self.catalogue.user_number(user)
            history = self.catalogue.histories[number]
            counted = history[: self.catalogue.counted[number]]
            return str(user), history, counted if len(counted) else None
        history = self._numbers(items)
        if not len(history):
            raise ConfigError("items is empty: name at least one item id")
        return "somebody new", history, None

    def _numbers(self, items: Iterable[object]) -> np.ndarray:
        """Item numbers of item ids, int64."""
        if isinstance(items, str):
            raise ConfigError(f"{items!r} is one text; give a list of ids")
        known = [self.catalogue.item_number(item) for item in items]
        return np.array(list(dict.fromkeys(known)), dtype=np.int64)

    def _everything(self, portrait: explaining.UserPortrait) -> PlacedItems:
        """One user and the whole catalogue."""
        scores = portrait.catalogue_scores
        if scores is None:  # a portrait that was made by hand
            found = self.space.catalogue_scores(portrait.items)
            scores = np.stack(found, axis=1)
        return PlacedItems(
            Portraits(
                torch.from_numpy(portrait.items)[None],
                torch.from_numpy(portrait.positions)[None],
            ),
            torch.arange(1, len(self.space.vectors))[None],
            torch.from_numpy(portrait.catalogue_positions[1:])[None],
            torch.from_numpy(scores[1:])[None],
        )

    def _require_fit(self) -> Self:
        if self.space is None or self.network is None:
            raise ModelError(f"{self.name}: fit it before use")
        return self

    # --------------------------------------------------------------- storage

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


def _allowed(examples: Examples, fold: FoldData) -> Examples:
    """Those before the cutoff of the fold whose target has a vector."""
    has_vector = ~np.isin(examples.targets.numpy(), fold.missing_items)
    in_time = np.isin(examples.rows, fold.training_rows)
    return examples.subset(has_vector & in_time)


def whole_fold(
    interactions: Interactions, *, progress: bool = True
) -> FoldData:
    """All users train, but every tenth, who validates; nobody tests."""
    return prepare_fold(
        interactions,
        whole_split(interactions),
        progress=progress,
        train_per_user=PER_USER,
    )


def _seed_from(generator: torch.Generator | None) -> int:
    if generator is None:
        return 0
    return int(torch.randint(2**31 - 1, (1,), generator=generator))


def _at_least_one(name: str, value: object) -> int:
    if isinstance(value, numbers.Integral) and value >= 1:
        return int(value)
    raise ConfigError(
        f"{name} must be a whole number, at least 1, got {value!r}"
    )
