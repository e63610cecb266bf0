"""How things are timed, counted and described, the same for every benchmark.

A time on a shared machine says little alone. So every benchmark repeats its
work, keeps the median and the spread, and divides by a reference that was
measured in the same run. Beside the seconds of the clock stand those that the
processor worked for this process: with several threads they add up, and on a
busy machine they do not count the waiting.
"""

from __future__ import annotations

import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.benchmark import Timer, timer
from torch.utils.flop_counter import FlopCounterMode

PAPER_SECONDS = 1.63  # Table 6: SerenDiff, inference per instance


@dataclass(frozen=True)
class Setting:
    """Where and how thoroughly to measure.

    Attributes:
        device: of the network benchmarks; the others use the processor.
        quick: small sizes and few repeats, to try the command.
    """

    device: torch.device = torch.device("cpu")
    quick: bool = False


def timed(
    work: Callable[[], object], seconds: float = 0.5
) -> dict[str, float]:
    """Seconds of ``work``, warmed up, on all threads of torch.

    Args:
        work: what to time; work on a GPU is waited for.
        seconds: how long to measure, by each of two clocks.

    Returns:
        ``median_s, q1_s, q3_s, repeats`` by the clock on the wall, and
        ``cpu_median_s``, by that of the processor.
    """
    work()
    clocks = [
        Timer(
            "work()",
            globals={"work": work},
            timer=clock,
            num_threads=torch.get_num_threads(),
        ).blocked_autorange(min_run_time=seconds)
        for clock in (timer, time.process_time)
    ]
    low, high = np.quantile(clocks[0].times, [0.25, 0.75])
    return {
        "median_s": clocks[0].median,
        "q1_s": float(low),
        "q3_s": float(high),
        "repeats": len(clocks[0].times),
        "cpu_median_s": clocks[1].median,
    }


def once(work: Callable[[], object]) -> dict[str, float]:
    """Seconds and peak memory of what takes minutes and runs once."""
    start, before = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - before,
        "peak_gib": peak_gib(),
    }


def matrix_rate(
    device: torch.device, dtype: torch.dtype, *, quick: bool = False
) -> dict[str, float]:
    """Measured floating-point operations per second of a square product.

    This is the roof: what the device really gives, on this machine and at
    this hour, to the operation that suits it best.

    Returns:
        ``wall``, per second of the clock, and ``cpu``, per second of the
        processor's work.
    """
    size = 512 if quick else 2048 if device.type == "cpu" else 8192
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    found = timed(lambda: left @ right)
    flops = 2.0 * size**3
    return {
        "wall": flops / found["median_s"],
        "cpu": flops / found["cpu_median_s"],
    }


def copy_rate(device: torch.device, *, quick: bool = False) -> float:
    """Measured bytes per second that pass to and from the memory."""
    count = 2**22 if quick else 2**26
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    found = timed(lambda: target.copy_(source))
    return 2.0 * source.nbytes / found["median_s"]


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and convolutions."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return int(counter.get_total_flops())


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent p of ``value ~ size ** p``: least squares of the logarithms.

    >>> round(slope([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def machine() -> dict[str, object]:
    """What the processor is and how busy it was."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(_memory_gib(), 1),
        "system": platform.system(),
    }


def load_average() -> float | None:
    """Processes that wanted to run in the last minute; None if unknown."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return pages / 2**30
    return math.nan


def peak_gib() -> float:
    """Highest memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def say(what: str, value: float, limit: float | None = None) -> None:
    """One line, with its limit where it has one."""
    line = f"  {what}: {value:.4g}"
    if limit is not None:
        line += f" (limit {limit:g}, ratio {value / limit:.2f})"
    print(line, flush=True)
