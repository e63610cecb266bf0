"""Command line: ``python -m serendifflib --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from serendifflib.errors import ConfigError, SerenDiffError
from serendifflib.profiles import PROFILES

EXAMPLES = """examples:
  python -m serendifflib data list
  python -m serendifflib data fetch movielens-small
  python -m serendifflib data check my_reviews.csv
  python -m serendifflib recommend --data synthetic --user u00007 -k 5
  python -m serendifflib recommend --data my_reviews.csv --user anna -k 10
  python -m serendifflib bench portraits
  python -m serendifflib trace table4 H@10

Local copies of data sets are found below $SERENDIFF_DATA. Sizes come from
--profile or $SERENDIFF_PROFILE (smoke, laptop, full).
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 2 after an error that the user can mend (one line on stderr).
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except SerenDiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serendifflib",
        description="Serendipity recommendation by diffusion.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_data(commands)
    _add_recommend(commands)
    _add_bench(commands)
    _add_trace(commands)
    return parser


def _add_data(commands) -> None:
    data = commands.add_parser("data", help="list, fetch or check data sets")
    actions = data.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="all data ids and where from")
    listing.set_defaults(run=_data_list)
    fetch = actions.add_parser("fetch", help="download and verify")
    fetch.add_argument("id", help="data id")
    fetch.set_defaults(run=_data_fetch)
    check = actions.add_parser("check", help="verify, count, say what is odd")
    check.add_argument("id", help="data id or path of a CSV file")
    check.set_defaults(run=_data_check)


def _add_recommend(commands) -> None:
    parser = commands.add_parser(
        "recommend",
        help="fit on a data set and recommend to one of its users",
        description="Fits (or loads the same fit), prints the k best items "
        "and writes the user's portrait as PNG.",
    )
    parser.add_argument("--data", required=True, help="data id or CSV path")
    parser.add_argument("--user", required=True, help="user id")
    parser.add_argument("-k", type=int, default=10, help="how many items")
    parser.add_argument("--preset", default="tuned")
    parser.add_argument("--profile", choices=list(PROFILES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--picture", type=Path, help="PNG file (portrait-USER.png)"
    )
    parser.set_defaults(run=_recommend)


def _add_bench(commands) -> None:
    parser = commands.add_parser("bench", help="time the parts, as ratios")
    parser.add_argument("what", nargs="?", default="all")
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.set_defaults(run=_bench)


def _add_trace(commands) -> None:
    parser = commands.add_parser(
        "trace", help="where a number of the book comes from"
    )
    parser.add_argument("table", help="e.g. table4")
    parser.add_argument("cell", help="row/metric as printed in the table")
    parser.set_defaults(run=_trace)


def _data_list(options) -> None:
    from serendifflib.data.sources import list_datasets

    _print(list_datasets())


def _data_fetch(options) -> None:
    from serendifflib.data.sources import fetch

    print(fetch(options.id) or f"{options.id} is made by code: no file needed")


def _data_check(options) -> None:
    from serendifflib.data.sources import check

    _print(check(options.id))


def _recommend(options) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from serendifflib.data.sources import load_dataset
    from serendifflib.profiles import current_profile
    from serendifflib.workbench import fit_on_all

    if options.k < 1:
        raise ConfigError(f"-k is {options.k}: choose at least 1")
    profile = current_profile(options.profile)
    data = load_dataset(options.data, profile=profile)
    data.user_number(options.user)  # before the work, not after it
    print(data.source)
    for note in data.notes:
        print(f"note: {note}")
    if not data.has_labels:
        print(
            "These data have no serendipity labels. The model is trained on "
            "what users took next, so what follows are next-item "
            "recommendations placed on the portrait, not serendipity."
        )
    model = fit_on_all(
        data, options.preset, profile=profile, seed=options.seed
    )
    table = model.recommend(options.user, options.k)
    _print(table.drop(columns="item"))
    best = model.explain(options.user, table["item"].iloc[0])
    print(f"\n{best.text}")
    picture = options.picture or Path(f"portrait-{_safe(options.user)}.png")
    _save_picture(best, picture)
    print(f"portrait: {picture}")


def _save_picture(explanation, path: Path) -> None:
    from serendifflib.io import atomic_path

    figure = explanation.plot().figure
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _safe(user: str) -> str:
    """A user id as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in user)[:60]


def _bench(options) -> None:
    from serendifflib.bench import run_bench

    run_bench(options.what, options.json)


def _trace(options) -> None:
    from serendifflib.runs import trace

    print(trace(options.table, options.cell))


def _print(table: pd.DataFrame) -> None:
    with pd.option_context(
        "display.max_columns", None,
        "display.max_rows", None,
        "display.max_colwidth", 60,
        "display.width", 250,
        "display.precision", 3,
    ):  # fmt: skip
        print(table.to_string(index=False))


if __name__ == "__main__":
    sys.exit(main())
