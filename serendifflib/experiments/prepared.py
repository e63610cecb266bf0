"""The bench that all notebooks share: one fold, its candidates, its models.

What one notebook trains, the next one loads. Everything on the bench is
cached under the hash of what it was made from - data, settings, seed, the
declared versions of the parts on the way, and those of the libraries - so
that a change in any of them makes it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serendifflib.data.interactions import Interactions
from serendifflib.data.sources import load_dataset
from serendifflib.data.splits import (
    Examples,
    Split,
    temporal_split,
    user_folds,
)
from serendifflib.errors import CheckpointError, ConfigError
from serendifflib.evaluation.candidates import Candidates, fold_candidates
from serendifflib.experiments import versions
from serendifflib.io import cache_dir, content_hash, locked
from serendifflib.model.serendiff import (
    SerenDiff,
    checkpoint_files,
)
from serendifflib.model.settings import make_settings
from serendifflib.model.storage import FILE
from serendifflib.portrait import encoding
from serendifflib.portrait.encoding import Encoder
from serendifflib.portrait.fold import FoldData, prepare_fold, whole_fold
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.profiles import Profile, current_profile


@dataclass(frozen=True)
class PreparedFold:
    """One fold of one data set with everything that a table needs.

    Attributes:
        data: the interactions.
        fold: examples and item vectors of the fold.
        space: the portrait space in which candidates were spread over the
            grid (catalogue bins, centred vectors; the same for all models).
        test, valid: the examples that are ranked (test is cut to the
            profile's number of users).
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
    reviews: str = "unlabelled",
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
        reviews: see :func:`serendifflib.portrait.fold.prepare_fold`.
        n_candidates: C; at most the items of the catalogue.

    Raises:
        ConfigError: no such fold.
        SerenDiffError: see the loaders.
    """
    profile = profile or current_profile()
    if not isinstance(data, Interactions):
        data = load_dataset(data, seed=seed, profile=profile)
    split = _split(data, fold, n_folds, seed)
    prepared = prepare_fold(
        data,
        split,
        kind=kind,
        encoder=encoder or encoding.reference_encoder(),
        reviews=reviews,
    )
    space = PortraitSpace.fit(prepared, bins="catalogue")
    parts = {}
    for name, most in (("test", profile.test_users), ("valid", 0)):
        examples = getattr(prepared, name)
        if most:
            examples = examples.subset(np.arange(min(most, len(examples))))
        parts[name] = (
            examples,
            _candidates(prepared, space, name, n_candidates, seed).subset(
                np.arange(len(examples))
            ),
        )
    return PreparedFold(
        data,
        prepared,
        space,
        parts["test"][0],
        parts["valid"][0],
        parts["test"][1],
        parts["valid"][1],
        profile,
    )


def load_or_fit(
    bench: PreparedFold,
    preset: str = "tuned",
    *,
    seed: int = 0,
    progress: bool = True,
    device: str | None = None,
    **changes,
) -> SerenDiff:
    """The fitted model, from the cache if this very run was done before.

    A training that was interrupted goes on where its last checkpoint was.

    Args:
        bench: what to fit on.
        preset: one of :data:`serendifflib.model.settings.PRESETS`.
        seed: of the weights and of all draws.
        progress: show progress bars.
        device: ``cpu``, ``cuda`` or None (CUDA where there is one).
        **changes: settings that replace those of the preset.
    """
    return _load_or_fit(
        bench.fold, bench.profile, preset, seed, progress, device, changes
    )


def fit_on_all(
    data: Interactions,
    preset: str = "tuned",
    *,
    profile: Profile | None = None,
    seed: int = 0,
    progress: bool = True,
    device: str | None = None,
    **changes,
) -> SerenDiff:
    """A model fitted on all users of a data set, to be used, not judged.

    Args: see :func:`load_or_fit`.
    """
    return _load_or_fit(
        whole_fold(data),
        profile or current_profile(),
        preset,
        seed,
        progress,
        device,
        changes,
    )


def _load_or_fit(
    fold: FoldData, profile, preset, seed, progress, device, changes
) -> SerenDiff:
    settings = make_settings(preset, profile, **changes)
    data = fold.interactions
    key = content_hash(
        settings.as_dict(),
        seed,
        data.checksum,
        # shown by a loaded model, though no number depends on them
        [data.name, data.source, dict(sorted(data.titles.items()))],
        fold.raw_vectors.numpy(),
        fold.split.train_users,
        fold.train.histories.numpy(),
        fold.train.targets.numpy(),
        fold.valid.histories.numpy(),
        fold.valid.targets.numpy(),
        _versions("items", "portrait", "training"),
        versions.of_model("serendiff", preset),
    )
    folder = cache_dir() / "models" / key[:32]
    saved = _load_saved(folder, progress, device)
    if saved is not None:  # needs no lock, so the cache may be read-only
        return saved
    # two notebooks that want the same model: one trains it, one waits
    checkpoint = folder / "training.safetensors"
    with locked(checkpoint):
        saved = _load_saved(folder, progress, device)
        if saved is not None:
            return saved

        def fit() -> SerenDiff:
            return SerenDiff(
                preset,
                profile=profile,
                progress=progress,
                device=device,
                **changes,
            ).fit(
                fold,
                generator=torch.Generator().manual_seed(seed),
                checkpoint=checkpoint,
                keep_checkpoint=True,
            )

        try:
            model = fit()
        except CheckpointError:  # damaged from outside: start again
            _remove(checkpoint)
            model = fit()
        model.save(folder)
        _remove(checkpoint)  # not before the model is safe
    return model


def _load_saved(
    folder: Path, progress: bool, device: str | None
) -> SerenDiff | None:
    """A model of the cache; None if there is none, or a damaged one."""
    if not (folder / FILE).exists():
        return None
    try:
        return SerenDiff.load(folder, progress=progress, device=device)
    except CheckpointError:
        return None  # damaged from outside: train it again


def _remove(checkpoint: Path) -> None:
    for path in checkpoint_files(checkpoint):
        path.unlink(missing_ok=True)


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
    if path.exists():
        try:
            return Candidates.load(path)
        except CheckpointError:
            pass  # damaged from outside: draw them again

    drawn = fold_candidates(
        fold,
        _positions_of(space, examples),
        part=part,
        n_candidates=n_candidates,
        seed=seed,
    )
    drawn.save(path)
    return drawn


def _versions(*parts: str) -> list[dict[str, Any]]:
    """Declared versions of parts, and of the libraries that decide."""
    declared = {part: versions.PARTS[part] for part in parts}
    return [declared, versions.libraries()]


def _positions_of(
    space: PortraitSpace, examples: Examples
) -> Callable[[int], np.ndarray]:
    def positions_of(row: int) -> np.ndarray:
        history = examples.histories[row].numpy()
        return space.catalogue_positions(history[history > 0])

    return positions_of
