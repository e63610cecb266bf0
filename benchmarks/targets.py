"""A record beside what this project promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.encode import TARGET_RATIO
from benchmarks.fit import LIMITS
from benchmarks.network import ANCESTRAL_TARGET, CALL_TARGET, TARGET_SHARE
from benchmarks.record import read_record
from serendifflib.io import project_root
from serendifflib.portrait.encoding import CLOSE

STEEPEST = 1.2  # a slope that still counts as linear


@dataclass(frozen=True)
class Target:
    """One promise.

    Attributes:
        part: which benchmark.
        quantity: what, with its unit.
        limit: number to stay below (or above).
        value: path of the number in the benchmark's result.
        worked: path of the same by processor time, if there is one.
        least: the limit is the least allowed value, not the largest.
    """

    part: str
    quantity: str
    limit: float
    value: tuple[str, ...]
    worked: tuple[str, ...] = ()
    least: bool = False


def targets(kind: str = "cpu") -> list[Target]:
    """What is promised on a ``cpu`` (two cores) or on ``cuda``."""
    tuned = ("presets", "tuned")
    found = [
        Target("sample", "one call per instance, s", CALL_TARGET[kind],
               (*tuned, "one_call_per_instance_s"),
               (*tuned, "one_call_per_instance_cpu_s")),
        Target("train", "share of the matrix rate", TARGET_SHARE[kind],
               (*tuned, "share"), (*tuned, "share_cpu"), least=True),
    ]  # fmt: skip
    if kind in ANCESTRAL_TARGET:
        path = ("presets", "paper", "ancestral_per_instance_s")
        found.append(
            Target("sample", "1,000 calls per instance, s",
                   ANCESTRAL_TARGET[kind], path)
        )  # fmt: skip
        return found
    fast = ("encoders", "OpenVINO bfloat16")
    return [
        Target("encode", "times as fast as sentence-transformers",
               TARGET_RATIO, (*fast, "ratio"), (*fast, "ratio_cpu"),
               least=True),
        Target("encode", "least cosine to its vectors", CLOSE,
               (*fast, "min_cosine"), least=True),
        *found,
        *(
            Target("fit", what, limit, (part, "seconds"),
                   (part, "cpu_seconds"))
            for part, (what, limit) in LIMITS.items()
        ),
        Target("fit", "peak memory of all these, GiB", 4.0, ("peak_gib",)),
        *(
            Target("scale", f"slope of {name}", STEEPEST,
                   ("world", name, "slope"))
            for name in ("co-occurrence", "portrait per user",
                         "catalogue scores per user")
        ),
    ]  # fmt: skip


def scorecard(
    record: Mapping[str, Any] | None, kind: str = "cpu"
) -> pd.DataFrame:
    """Every target beside its measured figure.

    Args:
        record: of :func:`benchmarks.record.run_bench`, or None.
        kind: ``cpu`` or ``cuda``.

    Returns:
        ``part, quantity, target, measured, by processor time, met``;
        numbers are NaN and ``met`` is "not recorded" where the record has
        nothing, or was made with ``--quick``. ``met`` is "by processor time"
        where only the clock, waiting included, misses the target.
    """
    lines = []
    results = (record or {}).get("results", {})
    for target in targets(kind):
        result = results.get(target.part, {})
        if result.get("run", {}).get("quick", True):
            result = {}
        value = _at(result, target.value)
        worked = _at(result, target.worked) if target.worked else math.nan
        lines.append(
            {
                "part": target.part,
                "quantity": target.quantity,
                "target": f"{'≥' if target.least else '≤'} {target.limit:g}",
                "measured": value,
                "by processor time": worked,
                "met": _verdict(value, worked, target),
            }
        )
    return pd.DataFrame(lines)


def recorded_bench(kind: str = "cpu") -> dict[str, Any] | None:
    """The record in ``results/bench``, or None where there is none.

    Args:
        kind: ``cpu``, ``cuda`` or ``cpu-bfloat16`` (a processor that
            computes in bfloat16; encoding alone).
    """
    path: Path = project_root() / "results" / "bench" / f"{kind}.json"
    return read_record(path) if path.exists() else None


def _at(result: Mapping[str, Any], path: tuple[str, ...]) -> float:
    found: Any = result
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return math.nan
        found = found[name]
    return float(found)


def _verdict(value: float, worked: float, target: Target) -> str:
    if math.isnan(value):
        return "not recorded"

    def met(number: float) -> bool:
        if target.least:
            return number >= target.limit
        return number <= target.limit

    if met(value):
        return "yes"
    return "by processor time" if met(worked) else "no"
