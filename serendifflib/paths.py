"""Where files live: the cache, local data, and the project's own folders."""

from __future__ import annotations

import os
from pathlib import Path

import pooch


def cache_dir() -> Path:
    """Folder of everything that can be made again (``$SERENDIFF_CACHE``)."""
    configured = os.environ.get("SERENDIFF_CACHE")
    return (
        Path(configured) if configured else Path(pooch.os_cache("serendiff"))
    )


def data_dir() -> Path:
    """Folder with local copies of data sets (``$SERENDIFF_DATA``)."""
    configured = os.environ.get("SERENDIFF_DATA")
    return Path(configured) if configured else cache_dir() / "data"


def project_root() -> Path:
    """The checkout that holds ``results/`` and ``notebooks/``."""
    return Path(__file__).resolve().parent.parent


def results_dir() -> Path:
    """Recorded runs (``$SERENDIFF_RESULTS`` or ``results/`` here)."""
    configured = os.environ.get("SERENDIFF_RESULTS")
    return Path(configured) if configured else project_root() / "results"
