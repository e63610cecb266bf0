"""The SerenDiff model: from a history to serendipity recommendations.

It composes the rooms of the library and holds no mathematics of its own:
scores -> portrait -> diffusion -> points -> matching.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from serendifflib.data.interactions import Interactions
from serendifflib.data.sources import load_dataset
from serendifflib.data.splits import Examples, make_examples, whole_split
from serendifflib.diffusion import sampling
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.training import (
    TrainingReport,
    TrainingSet,
    TrainingSettings,
    train,
)
from serendifflib.diffusion.unet import (
    UNet,
    UNetSettings,
    typical_mean,
)
from serendifflib.errors import ConfigError, ModelError
from serendifflib.io import content_hash
from serendifflib.model import explain as explaining
from serendifflib.model import storage
from serendifflib.model.catalogue import Catalogue
from serendifflib.model.matching import match
from serendifflib.model.settings import Settings, make_settings
from serendifflib.portrait.fold import FoldData, prepare_fold
from serendifflib.portrait.items import join, memberships
from serendifflib.portrait.portrait import (
    Portraits,
    PortraitSpace,
    cell_of,
    place_training,
)
from serendifflib.profiles import Profile, current_profile
from serendifflib.recommender import check_request, check_scores

PER_USER = 5  # next-item targets per user in pre-training


class SerenDiff:
    """Serendipity recommendation by diffusion over user portraits.

    Args:
        preset: ``paper``, ``corrected`` or ``tuned``.
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
        points: what is diffused of each item, [N + 1, d + P]: its vector
            and its memberships.
        network: the trained :class:`~serendifflib.diffusion.unet.UNet`.
        catalogue: ids, titles and histories of the data it was fitted on.
        reports: one training report per stage.
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
        self._prepare(make_settings(preset, profile, **changes))
        self.device = usable_device(device)
        self.progress = progress

    def _prepare(self, settings: Settings) -> None:
        self.settings = settings
        self.name = f"SerenDiff ({settings.preset})"
        self.schedule = DDPMSchedule.make(
            settings.schedule,
            settings.timesteps,
            rescale_betas=settings.rescale_betas,
        )
        sampling.check_sampler(
            settings.sampler, settings.calls, settings.timesteps
        )
        self.space: PortraitSpace | None = None
        self.memberships: torch.Tensor | None = None
        self.points: torch.Tensor | None = None
        self.network: UNet | None = None
        self.catalogue: Catalogue | None = None
        self.reports: list[TrainingReport] = []
        self.seed = 0
        self.kind = "serendipity"

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
        """
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
        self.seed = _seed_from(generator)
        self.kind = fold.kind
        s = self.settings
        self.catalogue = Catalogue.from_interactions(
            fold.interactions, fold.training_rows
        )
        self.space = PortraitSpace.fit(
            fold,
            bins=s.bins,
            isotropy=s.isotropy,
            weights=s.weights,
            mu=s.mu,
        )
        self.take_memberships(memberships(self.space.vectors, s.prototypes))
        # an interrupted fit must not leave what looks like a fitted model
        self.network = None
        network = self._new_network(self.points.shape[1])
        validate = None
        if s.patience and len(fold.valid):
            validate = self._validator(fold)
        self.reports = []
        first: Path | None = None
        files: tuple[Path, ...] = ()
        if checkpoint is not None:
            first, _ = files = checkpoint_files(checkpoint)
        if s.pretrain_steps and fold.kind == "serendipity":
            examples = make_examples(
                fold.interactions,
                fold.split.train_users,
                "all-next",
                per_user=PER_USER,
                min_history=2,
            )
            pretraining = self.training_set(fold, _allowed(examples, fold))
            self._train(network, pretraining, s.pretrain_steps, None, first)
        labelled = self.training_set(fold, fold.train)
        if s.condition == "global" and s.predict == "x0":
            self._start_linear(network, labelled)
        self._train(network, labelled, s.steps, validate, checkpoint)
        if not keep_checkpoint:
            for path in files:
                path.unlink(missing_ok=True)
        self.network = network
        return self

    def take_memberships(self, shares: torch.Tensor) -> None:
        """Put memberships [N + 1, P] beside the vectors of the space."""
        self.memberships = shares
        self.points = join(self.space.vectors, shares)

    def _start_linear(self, network: UNet, data: TrainingSet) -> None:
        """Begin with the best linear map from users to their points."""
        points = self.points * self.data_scale
        typical = torch.cat(
            [
                typical_mean(
                    *data.portraits.dense(rows, points, self.settings.side)
                )
                for rows in torch.arange(len(data)).split(256)
            ]
        )
        network.point.start_from(typical, points[data.targets])

    def _train(self, network, data, steps, validate, checkpoint) -> None:
        s = self.settings
        report = train(
            network,
            self.schedule,
            data,
            self.points,
            s.side,
            TrainingSettings(
                steps=steps,
                batch_size=s.batch_size,
                learning_rate=s.learning_rate,
                weight_decay=s.weight_decay,
                optimizer=s.optimizer,
                predict=s.predict,
                loss=s.loss,
                data_scale=self.data_scale,
                ema=s.ema,
                patience=s.patience if validate else 0,
                validate_every=s.validate_every,
            ),
            seed=self.seed + len(self.reports),
            device=self.device,
            validate=validate,
            checkpoint=checkpoint,
            keep_checkpoint=True,  # until the whole fit is done
            origin=content_hash(s.as_dict(), len(self.reports)),
            progress=self.progress,
        )
        self.reports.append(report)

    def _new_network(self, channels: int) -> UNet:
        s = self.settings
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return UNet(
                UNetSettings(
                    channels=channels,
                    widths=(s.width, 2 * s.width, 4 * s.width),
                    condition=s.condition,
                    norm=s.norm,
                    dropout=s.dropout,
                    output_relu=s.output_relu,
                )
            )

    @property
    def data_scale(self) -> float:
        """Factor between points and what the network sees of them."""
        if not self.settings.unit_scale:
            return 1.0
        return float(self.points.shape[1]) ** 0.5

    def training_set(self, fold: FoldData, examples: Examples) -> TrainingSet:
        """Portraits and target positions of training examples.

        The user's own rows are left out of the co-occurrence counts, so that
        a training user looks like a user never seen.
        """
        placed = place_training(self.space, fold, examples)
        return TrainingSet(
            self.represent(examples.histories, placed.past),
            examples.targets,
            torch.from_numpy(placed.positions[:, 0]),
        )

    def _validator(self, fold: FoldData):
        """Score on the validation users: NDCG over the whole ranking.

        Each positive is ranked among 300 random items; a smooth measure is
        better for early stopping than a hit rate over few users.
        """
        examples = fold.valid.subset(np.arange(min(300, len(fold.valid))))
        random = np.random.default_rng(self.seed)
        known = np.setdiff1d(
            np.arange(1, fold.interactions.n_items + 1), fold.missing_items
        )
        others = random.choice(known, size=(len(examples), 300))
        items = torch.cat(
            [examples.targets[:, None], torch.from_numpy(others)], dim=1
        )
        portraits, cells = self.look_at(examples.histories, items)

        def validate(network) -> float:
            generated = self.generate(
                portraits, network=network, samples=1, batch_size=64
            )
            scores = self.match(generated, items, cells)
            better = (scores[:, 1:] > scores[:, :1]).sum(dim=1)
            return float((1.0 / torch.log2(better + 2.0)).mean())

        return validate

    # ------------------------------------------------------------- scoring

    def score(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores of candidates for users known by their histories.

        Args:
            histories: item numbers, left-padded with 0, [B, n].
            candidates: item numbers, [B, C].

        Returns:
            [B, C], higher is better; the same in any batch and order.

        Raises:
            ModelError: not fitted, empty history, unknown or padding item.
        """
        self._require_fit()
        n_items = len(self.space.vectors) - 1
        check_request(self.name, histories, candidates, n_items)
        portraits, cells = self.look_at(histories, candidates)
        generated = self.generate(portraits)
        scores = self.match(generated, candidates, cells)
        return check_scores(self.name, scores)

    def look_at(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> tuple[Portraits, torch.Tensor]:
        """Portraits of users and the cells of their candidates [B, C, 2]."""
        rows = [history[history > 0] for history in histories.numpy()]
        placed = self.space.place(rows, candidates.numpy())
        cells = cell_of(placed.positions, self.settings.side)
        portraits = self.represent(histories, placed.past)
        return portraits, torch.from_numpy(cells)

    def represent(
        self, histories: torch.Tensor, placed: Sequence[np.ndarray]
    ) -> Portraits:
        """What the network is told about users: their portraits.

        An ablation tells it something else
        (:mod:`serendifflib.baselines.ablations`).

        Args:
            histories: item numbers, left-padded with 0, [B, n].
            placed: positions of each history's items, B times [n_b, 2].
        """
        return _pad(histories, placed)

    @torch.no_grad()
    def generate(
        self,
        portraits: Portraits,
        *,
        network: torch.nn.Module | None = None,
        samples: int | None = None,
        batch_size: int = 64,
        **changes,
    ) -> torch.Tensor:
        """Generate serendipity portraits from noise (Eq. 6, Figure 4).

        The noise of a user derives from the history and the model's seed:
        order and batch size change nothing.

        Args:
            portraits: of M users.
            network: another network than the fitted one.
            samples: portraits that are averaged per user.
            batch_size: users per network call.
            **changes: ``sampler`` and ``calls``, if other than the preset's.

        Returns:
            on the scale of ``points``, [M, D, L, L].
        """
        network = network or self.network
        s = self.settings
        points = self.points.to(self.device)
        samples = samples or s.samples
        parts = []
        for rows in torch.arange(len(portraits)).split(batch_size):
            noises = [self._noise(portraits.items[row]) for row in rows]
            grid, counts = portraits.part(rows, self.device).dense(
                torch.arange(len(rows)), points, s.side
            )
            total = torch.zeros_like(grid)
            for _ in range(samples):
                total += sampling.sample(
                    _denoiser(network, grid * self.data_scale, counts),
                    torch.stack([draw(grid.shape[1:]) for draw in noises]).to(
                        self.device
                    ),
                    self.schedule,
                    sampler=changes.get("sampler", s.sampler),
                    predict=s.predict,
                    calls=changes.get("calls", s.calls),
                    noise=lambda shape, noises=noises: torch.stack(
                        [draw(shape[1:]) for draw in noises]
                    ).to(self.device),
                )
            parts.append((total / samples / self.data_scale).cpu())
        return torch.cat(parts)

    def match(
        self,
        generated: torch.Tensor,
        candidates: torch.Tensor,
        cells: torch.Tensor,
        how: str | None = None,
    ) -> torch.Tensor:
        """Scores [B, C] of candidates against generated portraits."""
        how = how or self.settings.match
        return torch.cat(
            [
                match(g, self.points[c], cell, how)
                for g, c, cell in zip(
                    generated.split(32),
                    candidates.split(32),
                    cells.split(32),
                    strict=True,
                )
            ]
        )

    def _noise(self, items: torch.Tensor):
        """Draws N(0, 1) noise of one user, [shape] per call."""
        history = items[items > 0].long().numpy()
        seed = int(content_hash(self.seed, history)[:15], 16)
        generator = torch.Generator().manual_seed(seed)
        return lambda shape: torch.randn(tuple(shape), generator=generator)

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
        past, everything = self.space.both_positions(history, own=own)
        log_exp, cosine = self.space.scores(history, own=own)
        return explaining.UserPortrait(
            user=name,
            items=history,
            titles=[self.catalogue.title(item) for item in history],
            positions=past,
            expectedness=np.exp(log_exp),
            relevance=self.space.relevance_range.apply(cosine),
            side=self.settings.side,
            catalogue_positions=everything,
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
        portrait, scores, _ = self._rank(self.portrait(user, items=items))
        return self._best(portrait, scores, k, self._numbers(exclude))

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
            portrait, scores, _ = self._rank(self.portrait(user))
            table = self._best(portrait, scores, k, left_out)
            table.insert(0, "user", user)
            table.insert(1, "rank", np.arange(1, len(table) + 1))
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def _best(self, portrait, scores, k, left_out) -> pd.DataFrame:
        scores = scores.copy()
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
        ranked = self._rank(self.portrait(user, items=items))
        portrait, scores, generated = ranked
        return explaining.Explanation.of(
            portrait, number, scores, generated, self.space, self.catalogue
        )

    def _rank(self, portrait: explaining.UserPortrait):
        """Scores of the whole catalogue, -inf for what cannot be given."""
        items = torch.from_numpy(portrait.items)[None]
        sparse = self.represent(items, [portrait.positions])
        generated = self.generate(sparse)
        everything = np.arange(1, len(self.space.vectors))
        cells = cell_of(
            portrait.catalogue_positions[everything], self.settings.side
        )
        scores = self.match(
            generated,
            torch.from_numpy(everything)[None],
            torch.from_numpy(cells)[None],
        )
        full = np.full(len(self.space.vectors), -np.inf)
        full[1:] = scores[0].numpy()
        full[portrait.items] = -np.inf
        full[(self.space.vectors.norm(dim=1) == 0).numpy()] = -np.inf
        return portrait, full, generated[0]

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

    def _require_fit(self) -> Self:
        if self.space is None or self.network is None:
            raise ModelError(f"{self.name}: fit it before use")
        return self

    # --------------------------------------------------------------- storage

    def save(self, path: Path | str) -> None:
        """Save to a folder: safetensors and JSON, never pickle.

        Raises:
            ModelError: not fitted. CacheError: the folder cannot be written.
        """
        storage.save_model(self._require_fit(), Path(path).expanduser())

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
        storage.load_model(model, Path(path).expanduser())
        return model


def checkpoint_files(checkpoint: Path) -> tuple[Path, Path]:
    """Files of an unfinished fit: pre-training, and training itself."""
    return checkpoint.with_name(f"pre-{checkpoint.name}"), checkpoint


def _denoiser(network, portrait, counts):
    return lambda x, t: network(x, t, portrait, counts)


def _pad(items: torch.Tensor, placed: Sequence[np.ndarray]) -> Portraits:
    """Left-padded positions beside left-padded ``items`` [B, n]."""
    positions = torch.zeros(*items.shape, 2, dtype=torch.float64)
    for row, values in enumerate(placed):
        if len(values):
            positions[row, -len(values) :] = torch.from_numpy(values)
    return Portraits(items, positions)


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


def usable_device(name: str | None) -> torch.device:
    """A device of this machine; CUDA where there is one if None.

    Raises:
        ConfigError: no such device here.
    """
    has_cuda = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if has_cuda else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used here; leave it out, or say cpu"
        ) from error
    return device


def _at_least_one(name: str, value: object) -> int:
    if isinstance(value, numbers.Integral) and value >= 1:
        return int(value)
    raise ConfigError(
        f"{name} must be a whole number, at least 1, got {value!r}"
    )
