"""Command line: ``python -m serendifflib --help``."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from pathlib import Path

import pandas as pd

from serendifflib.errors import ConfigError, DataError, SerenDiffError
from serendifflib.profiles import PROFILES

EXAMPLES = """examples:
  python -m serendifflib data list
  python -m serendifflib data fetch movielens-small
  python -m serendifflib data check my_reviews.csv
  python -m serendifflib recommend --data synthetic --user u00007 -k 5
  python -m serendifflib recommend --data my_reviews.csv --user anna -k 10
  python -m serendifflib run controls --data synthetic-null
  python -m serendifflib run table4 --models sasrec,purs --folds 0,1 --jobs 2
  python -m serendifflib trace table4 synthetic/sasrec/H@10

Local copies of data sets are found below $SERENDIFF_DATA. Sizes come from
--profile or $SERENDIFF_PROFILE (smoke, laptop, full).
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 if a unit of ``run`` failed; 2 after an error that the user
        can mend (one line on stderr).
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    # titles hold what a terminal or a pipe may not be able to show
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return options.run(options) or 0
    except SerenDiffError as error:
        line = " ".join(str(error).split())
        print(f"error: {harmless(line)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130


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
    _add_run(commands)
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


def _add_run(commands) -> None:
    parser = commands.add_parser(
        "run",
        help="compute the rows of a table, or what of them is missing",
        description="Fits and judges models, one record per row and fold. "
        "What is there and was made by the code at hand is skipped, so the "
        "same command goes on where it was stopped.",
    )
    parser.add_argument("table", metavar="TABLE", help="e.g. controls, table4")
    parser.add_argument("--data", help="data id or CSV path (the table's own)")
    parser.add_argument("--profile", choices=list(PROFILES))
    parser.add_argument("--models", help="rows, with commas between (all)")
    parser.add_argument("--folds", help="0 to 4, with commas between")
    parser.add_argument("--seed", type=int, default=0, help="of the models")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--live",
        action="store_true",
        help="keep the records in the cache, not among the recorded runs",
    )
    parser.set_defaults(run=_run)


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
    from serendifflib.experiments.prepared import fit_on_all
    from serendifflib.model.settings import make_settings
    from serendifflib.profiles import current_profile

    # what can be refused is refused before the work, not after it
    if options.k < 1:
        raise ConfigError(f"-k is {options.k}: choose at least 1")
    if not 0 <= options.seed < 2**63:
        raise ConfigError(f"--seed is {options.seed}: choose 0 to 2^63 - 1")
    profile = current_profile(options.profile)
    make_settings(options.preset, profile)
    picture = options.picture or Path(f"portrait-{_safe(options.user)}.png")
    _check_picture(picture)
    data = load_dataset(options.data, profile=profile)
    data.user_number(options.user)
    print(harmless(data.source))
    for note in data.notes:
        print(f"note: {harmless(note)}")
    if not data.has_labels:
        print(
            "These data have no serendipity labels. The model is trained on "
            "what users took next, so what follows are next-item "
            "recommendations placed on the portrait, not serendipity."
        )
    model = fit_on_all(
        data, options.preset, profile=profile, seed=options.seed
    )
    if data.has_labels:
        count = _trained_labels(model, data)
        print(f"Trained on {count:,} serendipity labels.")
    table = model.recommend(options.user, options.k)
    if table.empty:
        raise DataError(
            f"{data.name}: nothing is left to recommend to user "
            f"{options.user!r}, who has every item that has a review"
        )
    _print(table.drop(columns="item"))
    best = model.explain(options.user, table["item"].iloc[0])
    print(f"\n{harmless(best.text)}")
    _save_picture(best, picture)
    print(f"portrait: {picture}")


def _trained_labels(model, data) -> int:
    """Labels of training users with a history and an item vector."""
    from serendifflib.data.splits import make_examples

    users = model.catalogue.is_training.nonzero()[0]
    targets = make_examples(data, users, "serendipity").targets
    return int(model.space.vectors[targets].any(dim=1).sum())


def _check_picture(path: Path) -> None:
    """Refuse a path that cannot become a picture."""
    parent = next(p for p in path.absolute().parents if p.exists())
    if path.is_dir():
        raise ConfigError(f"--picture {path}: this is a folder; name a file")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(
            f"--picture {path}: {parent} is no folder that can be written"
        )


def _save_picture(explanation, path: Path) -> None:
    import matplotlib.pyplot as plt

    from serendifflib.io import atomic_path

    figure = explanation.plot().figure
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def _safe(user: str) -> str:
    """A user id as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in user)[:40]


def _run(options) -> int:
    from serendifflib.experiments.runner import live, recorded
    from serendifflib.experiments.tables import run_table
    from serendifflib.profiles import current_profile

    if options.jobs < 1:
        raise ConfigError(f"--jobs is {options.jobs}: choose at least 1")
    folds = None
    if options.folds:
        parts = options.folds.split(",")
        if not all(part.strip().isdigit() for part in parts):
            raise ConfigError(
                f"--folds is {options.folds!r}: write numbers with commas "
                "between, e.g. 0,1"
            )
        folds = [int(part) for part in parts]
    report = run_table(
        options.table,
        options.data,
        profile=current_profile(options.profile),
        models=options.models.split(",") if options.models else None,
        folds=folds,
        seed=options.seed,
        n_jobs=options.jobs,
        store=live() if options.live else recorded(),
        progress=True,
    )
    print(harmless(report.text()))
    return 0 if report.ok else 1


def _trace(options) -> None:
    from serendifflib.experiments.runner import trace

    print(harmless(trace(options.table, options.cell)))


# control characters, and those that turn the direction of writing
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


def harmless(text: str) -> str:
    r"""Text of a data set without what a terminal takes for a command.

    >>> harmless("red: \x1b[31m")
    'red: \ufffd[31m'
    """
    return _COMMANDS.sub("\ufffd", text)


def _print(table: pd.DataFrame) -> None:
    with pd.option_context(
        "display.max_columns", None,
        "display.max_rows", None,
        "display.max_colwidth", 60,
        "display.width", 250,
        "display.precision", 3,
    ):  # fmt: skip
        print(harmless(table.to_string(index=False)))


if __name__ == "__main__":
    sys.exit(main())
