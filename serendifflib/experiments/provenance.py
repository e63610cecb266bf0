"""Where a number comes from: commit, libraries, machine."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from serendifflib.io import project_root

PACKAGE = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "serendifflib",
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "sentence-transformers",
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


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a result."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
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
