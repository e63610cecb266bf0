"""What a result is valid for, and where it comes from.

Whoever changes what a part computes raises its number here; a guard test
per part notices when somebody forgot. A cached model or a record is valid
for its settings, its data, the versions of the parts on its path, and those
of the libraries that decide numbers.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from serendifflib.io import project_root

PARTS = {
    "world": 1,  # data.world: the simulated users and their law
    "splits": 1,  # data.splits: folds, and targets with their histories
    "items": 1,  # portrait.items: item vectors and memberships
    "fold": 1,  # portrait.fold: which reviews and targets are allowed
    "portrait": 1,  # portrait: scores, positions, cells
    "candidates": 1,  # evaluation.candidates
    "protocol": 1,  # evaluation.protocol: ranks of the positives
    "training": 2,  # diffusion.training: the loop of all trained models
}
"""Parts that models share."""

MODELS = {
    "serendiff": 2,  # 2: the common loop and validation
    "control": 1,
    "ranker": 2,
    "rival": 2,
}
"""Kinds of models; a change of one row's model raises :data:`ROWS`."""

ROWS = {
    "linear-map": 2,  # 2: the common validation
    "linear-radius": 2,
    "tokens": 2,  # 2: no token of popularity, more dropout
}
"""Presets, controls and rivals by name, where they are above 1."""

COMMON = ("splits", "items", "fold", "portrait", "candidates", "protocol")

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "sentence-transformers",
)
"""Libraries that decide numbers."""

PACKAGE = Path(__file__).resolve().parent.parent


def of_model(model: str, name: str) -> list[Any]:
    """Kind, name and declared version of a model, as JSON values."""
    return [model, name, f"{MODELS.get(model, 0)}.{ROWS.get(name, 1)}"]


def parts_of(
    model: str, name: str, *, simulated: bool, encoder: str
) -> dict[str, Any]:
    """Version of every part on the way to a row's ranks, as JSON values.

    ``model`` is one of :data:`MODELS`, ``name`` a preset, control or rival,
    ``encoder`` the fingerprint of the sentence encoder.
    """
    names = [*COMMON]
    if simulated:
        names.append("world")
    if model != "control":
        names.append("training")
    parts: dict[str, Any] = {part: PARTS[part] for part in sorted(names)}
    return parts | {"encoder": encoder[:16], "model": of_model(model, name)}


@functools.cache
def libraries() -> dict[str, str]:
    """Installed versions of :data:`LIBRARIES`."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def differences(
    parts: Mapping[str, Any], versions: Mapping[str, str]
) -> tuple[str, ...]:
    """What has another version now, e.g. ``"portrait 1, now 2"``.

    ``parts`` (:func:`parts_of`) and library versions are those of the result.
    """
    pairs: list[tuple[str, Any, Any]] = [
        (part, was, PARTS[part])
        for part, was in parts.items()
        if part in PARTS
    ]
    if "model" in parts:
        model, name, was = parts["model"]
        pairs.append((f"model {name}", was, of_model(model, name)[-1]))
    pairs += [
        (name, versions.get(name, "unknown"), now)
        for name, now in libraries().items()
    ]
    return tuple(
        f"{p} {was}, now {now}" for p, was, now in pairs if was != now
    )


@functools.cache
def commit(root: Path | None = None) -> tuple[str, bool]:
    """Commit of a checkout, this project's, and whether its code was changed.

    Returns:
        ("unknown", True) outside a checkout or without git.
    """
    root = root or project_root()
    top = _git(root, "rev-parse", "--show-toplevel")
    # an installed copy may lie inside somebody else's repository
    if top is None or Path(top).resolve() != root.resolve():
        return "unknown", True
    head = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--", PACKAGE.name)
    if head is None or status is None:
        return "unknown", True
    return head, status != ""


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def installed() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a result."""
    found = {"python": platform.python_version()}
    for library in ("serendifflib", "pandas", *LIBRARIES):
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def device_name(device: torch.device | str = "cpu") -> str:
    """What the computation runs on, e.g. ``cpu (x86_64)`` or a GPU's name."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"
