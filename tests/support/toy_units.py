"""Units of work and records that several test files store, kill or damage."""

from serendifflib.experiments import runner as runs
from serendifflib.profiles import PROFILES


def make_unit(row="alpha", fold=0, **changes):
    given = {
        "table": "table4",
        "data": "toy",
        "data_checksum": "d" * 64,
        "source": "Invented for a test.",
        "profile": PROFILES["smoke"],
        "code": ("serendifflib.errors",),
    }
    return runs.Unit(row=row, fold=fold, **{**given, **changes})


def old_record():
    """Version 0 had no checksum and knew one task."""
    return {
        "schema_version": 0,
        "table": "table4",
        "data": "toy",
        "row": "alpha",
        "fold": 3,
        "data_checksum": "d" * 64,
        "profile": "smoke",
        "seed": 7,
        "commit": "abc",
        "seconds": 1.5,
        "created": "2026-11-01T00:00:00+00:00",
        "users": [4, 5],
        "targets": [9, 8],
        "ranks": [1, 12],
    }
