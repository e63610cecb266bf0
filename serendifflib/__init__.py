"""SerenDiff: serendipity recommendation by diffusion over user portraits.

The small public surface; everything else is reached through its module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serendifflib.data.sources import load_dataset
    from serendifflib.data.world import World
    from serendifflib.evaluation.protocol import evaluate
    from serendifflib.model.serendiff import SerenDiff
    from serendifflib.profiles import current_profile

__version__ = "0.1.0"
__all__ = [
    "SerenDiff",
    "World",
    "current_profile",
    "evaluate",
    "load_dataset",
]
_HOME = {
    "SerenDiff": "model.serendiff",
    "World": "data.world",
    "current_profile": "profiles",
    "evaluate": "evaluation.protocol",
    "load_dataset": "data.sources",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use: torch takes seconds to load."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
