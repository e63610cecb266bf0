"""Totals of the Taobao survey, as recorded: people, and surprised people."""

from serendifflib.experiments.premise import counts_of
from serendifflib.io import project_root, read_json

TAOBAO_PEOPLE, TAOBAO_SURPRISED = counts_of(
    read_json(project_root() / "results/human/premise.json")["totals"]
)
