"""The command ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.record import BENCHES, run_bench
from serendifflib.errors import SerenDiffError


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for; 2 says that it could not be done."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=None)
    parser.add_argument(
        "what", nargs="?", default="all", help=f"all, {', '.join(BENCHES)}"
    )
    parser.add_argument(
        "--device", help="cpu or cuda; default: CUDA where there is one"
    )
    parser.add_argument(
        "--json",
        type=Path,
        help="write the record here; what it holds already stays",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to try it"
    )
    asked = parser.parse_args(arguments)
    try:
        run_bench(
            asked.what, asked.json, device=asked.device, quick=asked.quick
        )
    except SerenDiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
