"""SerenDiff: serendipity recommendation by diffusion over user portraits.

The small public surface; everything else is reached through its module.
"""

from serendifflib.data.sources import load_dataset
from serendifflib.data.world import World
from serendifflib.evaluation.protocol import evaluate
from serendifflib.profiles import current_profile
from serendifflib.serendiff import SerenDiff

__version__ = "0.1.0"
__all__ = [
    "SerenDiff",
    "World",
    "current_profile",
    "evaluate",
    "load_dataset",
]
