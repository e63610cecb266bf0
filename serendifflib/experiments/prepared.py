"""What all notebooks share: a prepared fold, its candidates, its models.

What one notebook trains, the next one loads. Everything is cached under the
hash of what it was made from - data, settings, seed, declared versions of the
parts on the way and of the libraries - and made again when that changes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serendifflib.data.interactions import Interactions
from serendifflib.data.law import THEMES_PER_GENRE
from serendifflib.data.sources import WORLDS, load_dataset
from serendifflib.data.splits import (
    Examples,
    Split,
    temporal_split,
    user_folds,
)
from serendifflib.errors import CheckpointError, ConfigError, DataError
from serendifflib.evaluation.candidates import Candidates, fold_candidates
from serendifflib.experiments import versions
from serendifflib.io import cache_dir, content_hash, locked
from serendifflib.model.explain import reach_of
from serendifflib.model.serendiff import SerenDiff, checkpoint_files
from serendifflib.model.settings import Settings, make_settings
from serendifflib.model.storage import FILE
from serendifflib.portrait import encoding
from serendifflib.portrait.encoding import Encoder
from serendifflib.portrait.fold import FoldData, prepare_fold, whole_fold
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.profiles import Profile, current_profile

AMONG = 200  # the first test users, whatever the profile
SHORTEST = 8  # items before the held-out one
FAR = 0.9  # quantile of the reach


@dataclass(frozen=True)
class PreparedFold:
    """One fold of one data set with everything that a table needs.

    Attributes:
        data: the interactions.
        fold: examples and item vectors of the fold.
        space: in which candidates were spread over the grid (catalogue bins,
            centred vectors; the same for all models).
        test, valid: what is ranked; test is cut to the profile's users.
        test_candidates, valid_candidates: their stored candidates.
        profile: sizes in force.
    """

    data: Interactions
    fold: FoldData
    space: PortraitSpace
    test: Examples
    valid: Examples
    test_candidates: Candidates
    valid_candidates: Candidates
    profile: Profile


def open_bench(
    data: str | Interactions = "synthetic",
    *,
    fold: int | str = 0,
    n_folds: int = 5,
    seed: int = 0,
    kind: str | None = None,
    profile: Profile | None = None,
    encoder: Encoder | None = None,
    n_candidates: int = 1000,
) -> PreparedFold:
    """Load data, make the fold, draw (or load) its candidates.

    Args:
        data: a data id, a CSV path, or interactions.
        fold: number of the fold, or ``"temporal"``.
        n_folds: folds of the cross-validation (paper: 5).
        seed: of folds and candidates.
        kind: ``serendipity`` or ``next-item``; None follows the labels.
        profile: sizes; None takes ``$SERENDIFF_PROFILE``.
        encoder: of the reviews; None is the packaged SentenceBERT.
        n_candidates: C; at most the items of the catalogue.
    """
    what = data, fold, n_folds, seed, kind, profile or current_profile()
    if encoder is None and isinstance(data, str) and data in WORLDS:
        return _remembered(*what, None, n_candidates)
    return _opened(*what, encoder, n_candidates)


def _opened(
    data: str | Interactions,
    fold: int | str,
    n_folds: int,
    seed: int,
    kind: str | None,
    profile: Profile,
    encoder: Encoder | None,
    n_candidates: int,
) -> PreparedFold:
    if not isinstance(data, Interactions):
        data = load_dataset(data, seed=seed, profile=profile)
    fold_data = prepare_fold(
        data,
        _split(data, fold, n_folds, seed),
        kind=kind,
        encoder=encoder or encoding.reference_encoder(),
    )
    space = PortraitSpace.fit(fold_data, bins="catalogue")
    test, valid = fold_data.test, fold_data.valid
    lists = {
        part: _candidates(fold_data, space, part, n_candidates, seed)
        for part in ("test", "valid")
    }
    few = slice(profile.test_users or None)
    return PreparedFold(
        data,
        fold_data,
        space,
        test.subset(few),
        valid,
        lists["test"].subset(few),
        lists["valid"],
        profile,
    )


_remembered = functools.lru_cache(maxsize=2, typed=True)(_opened)  # worlds


def cast(bench: PreparedFold) -> dict[str, int]:
    """The two readers whom the chapters follow: name -> row of a test user.

    Rules choose them, and the rules look at no result. Of the first 200 test
    users with at least eight items before the held-out one, Nora has the reach
    (mean distance of the items from the anchor) next to the 90% quantile. Otto
    has the smallest reach of those whose first five items share a genre while
    the sixth has another.

    Raises:
        DataError: real data, or a world without two such users.
    """
    world = bench.data.world
    reach, narrow = {}, {}
    if world is not None:
        genre = world.primary // THEMES_PER_GENRE
        for row, padded in enumerate(bench.test.histories[:AMONG]):
            history = padded[padded > 0].numpy()
            if len(history) < SHORTEST:
                continue
            reach[row] = reach_of(bench.space.positions(history))
            same = genre[history[:6]] == genre[history[0]]
            if same[:5].all() and not same[5]:
                narrow[row] = reach[row]
    if not narrow or len(reach) < 2:
        raise DataError(
            f"{bench.data.name}: no two test users with eight items, one of "
            "them with five items of one genre and then another; take a "
            "simulated world with more users"
        )
    wanted = np.quantile(list(reach.values()), FAR)
    nora = min(reach, key=lambda row: abs(reach[row] - wanted))
    return {"Nora": nora, "Otto": min(narrow, key=narrow.__getitem__)}


def load_or_fit(
    bench: PreparedFold, preset: str = "tuned", **options: Any
) -> SerenDiff:
    """The fitted model, from the cache if this very run was done before.

    A training that was interrupted goes on where its last checkpoint was.
    Options: ``seed`` of the weights and of all draws (0), ``progress`` (True),
    ``device`` (None: CUDA where there is one), and settings that replace those
    of the preset.
    """
    return _load_or_fit(bench.fold, bench.profile, preset, **options)


def fit_on_all(
    data: Interactions,
    preset: str = "tuned",
    *,
    profile: Profile | None = None,
    **options: Any,
) -> SerenDiff:
    """A model fitted on all users of a data set, to be used, not judged.

    Options: see :func:`load_or_fit`.
    """
    profile = profile or current_profile()
    return _load_or_fit(whole_fold(data), profile, preset, **options)


def _load_or_fit(
    fold: FoldData,
    profile: Profile,
    preset: str,
    *,
    seed: int = 0,
    progress: bool = True,
    device: str | None = None,
    **changes: Any,
) -> SerenDiff:
    settings = make_settings(preset, profile, **changes)
    key = _key_of_model(fold, preset, settings, seed)
    folder = cache_dir() / "models" / key[:32]
    checkpoint = folder / "training.safetensors"

    def saved() -> SerenDiff | None:
        return _cached(
            folder / FILE,
            lambda: SerenDiff.load(folder, progress=progress, device=device),
        )

    def fit() -> SerenDiff:
        model = SerenDiff(
            preset,
            profile=profile,
            progress=progress,
            device=device,
            **changes,
        )
        return model.fit(
            fold,
            generator=torch.Generator().manual_seed(seed),
            checkpoint=checkpoint,
            keep_checkpoint=True,
        )

    def forget() -> None:
        for path in checkpoint_files(checkpoint):
            path.unlink(missing_ok=True)

    if (model := saved()) is not None:
        return model  # without a lock: the cache may be read-only
    # two notebooks that want the same model: one trains it, one waits
    with locked(checkpoint):
        if (model := saved()) is not None:
            return model
        try:
            model = fit()
        except CheckpointError:  # damaged from outside: start again
            forget()
            model = fit()
        model.save(folder)
        forget()  # not before the model is safe
    return model


def _key_of_model(
    fold: FoldData, preset: str, settings: Settings, seed: int
) -> str:
    data = fold.interactions
    return content_hash(
        settings.as_dict(),
        seed,
        data.checksum,
        # shown by a loaded model, though no number depends on them
        [data.name, data.source, dict(sorted(data.titles.items()))],
        fold.raw_vectors.numpy(),
        fold.training_rows,
        fold.train.histories.numpy(),
        fold.train.targets.numpy(),
        fold.valid.histories.numpy(),
        fold.valid.targets.numpy(),
        _versions("items", "portrait", "training"),
        versions.of_model("serendiff", preset),
    )


def _cached(path: Path, load: Callable[[], Any]) -> Any:
    """What a file of the cache holds; None if it is missing or damaged."""
    if path.exists():
        with contextlib.suppress(CheckpointError):
            return load()
    return None


def _split(
    data: Interactions, fold: int | str, n_folds: int, seed: int
) -> Split:
    if fold == "temporal":
        return temporal_split(data)
    folds = user_folds(data, n_folds, seed=seed)
    if not isinstance(fold, int) or not 0 <= fold < n_folds:
        raise ConfigError(
            f"unknown fold {fold!r}: choose 0 to {n_folds - 1} or 'temporal'"
        )
    return folds[fold]


def _candidates(
    fold: FoldData,
    space: PortraitSpace,
    part: str,
    n_candidates: int,
    seed: int,
) -> Candidates:
    examples = getattr(fold, part)
    key = content_hash(
        "candidates",
        part,
        n_candidates,
        seed,
        fold.interactions.checksum,
        fold.raw_vectors.numpy(),
        examples.histories.numpy(),
        examples.targets.numpy(),
        fold.split.train_users,
        space.bins,
        space.vectors.numpy(),
        space.weights,
        space.co_occurrence.mu,
        _versions("items", "portrait", "candidates"),
    )
    path = cache_dir() / "candidates" / f"{key[:32]}.npz"
    stored = _cached(path, lambda: Candidates.load(path))
    if stored is not None:
        return stored
    drawn = fold_candidates(
        fold, space, part=part, n_candidates=n_candidates, seed=seed
    )
    drawn.save(path)
    return drawn


def _versions(*parts: str) -> list[dict[str, Any]]:
    """Declared versions of parts, and of the libraries that decide."""
    declared = {part: versions.PARTS[part] for part in parts}
    return [declared, versions.libraries()]
