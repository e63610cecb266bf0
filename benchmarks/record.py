"""Run benchmarks and keep their records."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.encode import bench_encode
from benchmarks.fit import bench_fit
from benchmarks.measure import Setting, load_average, machine
from benchmarks.network import bench_sample, bench_train
from benchmarks.scale import bench_scale
from serendifflib.errors import ConfigError
from serendifflib.experiments.versions import commit, device_name, installed
from serendifflib.io import read_json, write_json

SCHEMA_VERSION = 1

BENCHES: dict[str, Callable[[Setting], dict]] = {
    "fit": bench_fit,
    "encode": bench_encode,
    "train": bench_train,
    "sample": bench_sample,
    "scale": bench_scale,
}


def run_bench(
    what: str,
    path: Path | None = None,
    *,
    device: str | None = None,
    quick: bool = False,
) -> dict:
    """Run one benchmark (or all), print it, and return the record.

    Args:
        what: a name of :data:`BENCHES` or ``all``.
        path: JSON file of the record; None writes none. Results of the same
            machine and device that are in it stay.
        device: ``cpu``, ``cuda`` or None (CUDA where there is one).
        quick: small sizes, to try the command; such figures mean nothing.

    Raises:
        ConfigError: unknown benchmark or device, or the file holds something
            else.
    """
    if what != "all" and what not in BENCHES:
        raise ConfigError(
            f"unknown benchmark {what!r}: choose one of "
            f"{', '.join([*BENCHES, 'all'])}"
        )
    setting = Setting(_device(device), quick)
    record = {
        "schema_version": SCHEMA_VERSION,
        "device": device_name(setting.device),
        "machine": machine(),
        "results": {},
    }
    if path is not None and Path(path).exists():
        record["results"] |= _earlier(Path(path), record)
    for name in BENCHES if what == "all" else [what]:
        record["results"][name] = _measured(name, setting)
        if path is not None:
            write_json(path, record)
    return record


def read_record(path: Path | str) -> dict:
    """A record that :func:`run_bench` wrote.

    Raises:
        ConfigError: the file is no such record, or of another schema.
    """
    problem = "is no benchmark record"
    try:
        record = read_json(path)
        if record["schema_version"] == SCHEMA_VERSION:
            if isinstance(record["results"], dict):
                return record
        else:
            problem = f"is of schema {record['schema_version']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} {problem}: name another file") from error
    raise ConfigError(f"{path} {problem}: name another file")


def _measured(name: str, setting: Setting) -> dict:
    """One result and the circumstances of its run."""
    print(f"{name}", flush=True)
    code, changed = commit()
    before, start = load_average(), time.perf_counter()
    values = BENCHES[name](setting)
    return values | {
        "run": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - start,
            "load_average": [before, load_average()],
            "threads": torch.get_num_threads(),
            "quick": setting.quick,
            "commit": code,
            "changed": changed,
            "versions": installed(),
        }
    }


def _earlier(path: Path, record: dict) -> dict:
    known = read_record(path)
    same = all(known.get(key) == record[key] for key in ("device", "machine"))
    return known["results"] if same else {}


def _device(name: str | None) -> torch.device:
    if name not in (None, "cpu", "cuda"):
        raise ConfigError(f"unknown device {name!r}: choose cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here: choose cpu")
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
