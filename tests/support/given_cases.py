"""The collection of given files, where it is at hand beside the project."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = [folder / "shared" / "cases" for folder in ROOT.parents[:2]]


def given(name):
    """A given file; without it the kind is tested on our own input alone."""
    found = [place / name for place in PLACES if (place / name).exists()]
    if not found:
        pytest.skip(f"{name}: the collection of given files is not here")
    return found[0]
