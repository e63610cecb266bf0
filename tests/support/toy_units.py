"""Units of work and records that several test files store, kill or damage."""

from serendifflib.experiments import records
from serendifflib.experiments.versions import PARTS
from serendifflib.profiles import PROFILES


def make_unit(row="alpha", fold=0, **changes):
    given = {
        "table": "table4",
        "data": "toy",
        "data_checksum": "d" * 64,
        "source": "Invented for a test.",
        "profile": PROFILES["smoke"],
        "parts": {"portrait": PARTS["portrait"]},
    }
    return records.Unit(row=row, fold=fold, **{**given, **changes})
