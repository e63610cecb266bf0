"""Command line: ``python -m serendifflib --help``."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

from serendifflib.errors import ConfigError, DataError, SerenDiffError
from serendifflib.profiles import PROFILES, current_profile
from serendifflib.terminal import (
    harmless,
    print_lines,
    print_notes,
    print_table,
)

EXAMPLES = """examples:
  python -m serendifflib data list
  python -m serendifflib data fetch movielens-small
  python -m serendifflib data check my_reviews.csv
  python -m serendifflib recommend --data synthetic --user u00007 -k 5
  python -m serendifflib recommend --data my_reviews.csv --user anna -k 10
  python -m serendifflib recommend --data my_reviews.csv --items b1,b2
  python -m serendifflib recommend --data my_reviews.csv --all --out all.csv
  python -m serendifflib run controls --data synthetic-null
  python -m serendifflib run table4 --models sasrec,purs --folds 0,1 --jobs 2
  python -m serendifflib run all --profile paper --minutes 9
  python -m serendifflib trace table4 synthetic/sasrec/H@10

Local copies of data sets are found below $SERENDIFF_DATA. Sizes come from
--profile or $SERENDIFF_PROFILE (smoke, laptop, paper).
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
        with warnings.catch_warnings():
            # what is said of the data is printed as a note
            warnings.simplefilter("ignore", UserWarning)
            status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except SerenDiffError as error:
        return _refused(str(error))
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
        return 141
    except (MemoryError, ImportError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        return _refused("there is not enough memory for this")
    except OSError as error:
        _drop_output()
        place = f"{error.filename}: " if error.filename else ""
        return _refused(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130


def _lacks_memory(error: Exception) -> bool:
    """Whether memory ran out; torch and the loader have no type for it."""
    said = "map segment|allocate memory|out of memory|start new thread"
    known = re.search(said, str(error))
    return isinstance(error, MemoryError) or known is not None


def _refused(message: str) -> int:
    """Say in one line what the user can mend; exit status 2."""
    line = " ".join(message.split())
    print(f"error: {harmless(line)}", file=sys.stderr)
    return 2


def _drop_output() -> None:
    """Keep Python from writing again to what takes no more."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serendifflib",
        description="Serendipity recommendation by diffusion.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="list, fetch or check data sets")
    actions = data.add_subparsers(dest="action", required=True)
    _command(actions, "list", _data_list, "all data ids and where from")
    one = _command(actions, "fetch", _data_fetch, "download and verify")
    one.add_argument("id")
    about = "verify, count, say whether it can be fitted"
    one = _command(actions, "check", _data_check, about)
    one.add_argument("id")
    _add_file_options(one.add_argument)
    about = "fit on a data set and recommend to one reader, or to all"
    _add_recommend(_command(commands, "recommend", _recommend, about))
    about = "compute the rows of a table, or what of them is missing"
    one = _command(commands, "run", _run, about)
    one.description = (
        "Fits and judges models, one record per row and fold. Units with an "
        "up-to-date record are skipped: the same command goes on where it "
        "was stopped."
    )
    add = one.add_argument
    add("table", metavar="TABLE", help="e.g. controls, table4; or all")
    add("--minutes", type=float, help="of all: stop then")
    add("--data", help="data id or CSV path (the table's own)")
    add("--profile", choices=list(PROFILES))
    add("--models", help="rows, with commas between (all)")
    add("--folds", help="0 to 4, with commas between")
    add("--seed", type=int, default=0, help="of the models")
    add("--jobs", type=int, default=1, help="processes")
    live = "keep the records in the cache, not among the recorded runs"
    add("--live", action="store_true", help=live)
    about = "where a number of the book comes from"
    one = _command(commands, "trace", _trace, about)
    one.add_argument("table", help="e.g. table4")
    one.add_argument("cell", help="row/metric as printed in the table")
    return parser


def _command(group, name: str, run, about: str) -> argparse.ArgumentParser:
    parser = group.add_parser(name, help=about)
    parser.set_defaults(run=run)
    return parser


def _add_file_options(add) -> None:
    describe = "the texts of a file are descriptions, not reviews"
    add("--layout", help="of a file; found out if left out")
    add("--columns", help="of a file, e.g. user_id=reviewerID,label=y")
    add("--texts-describe-items", action="store_true", help=describe)


def _add_recommend(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fits (or loads the same fit), prints the k best items and writes "
        "the user's portrait as PNG."
    )
    add = parser.add_argument
    add("--data", required=True, help="data id or file")
    add("--out", type=Path, help="CSV file to write")
    add("--exclude", help="item ids to leave out")
    add("-k", type=int, default=10, help="how many items")
    add("--preset", default="tuned")
    add("--profile", choices=list(PROFILES))
    add("--seed", type=int, default=0)
    add("--picture", type=Path, help="PNG file (portrait-USER.png)")
    _add_file_options(add)
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    add("--user", help="user id")
    add("--items", help="instead, item ids of somebody new, oldest first")
    add("--all", action="store_true", help="every user, into --out")


def _data_list(options) -> None:
    from serendifflib.data.sources import list_datasets

    print_table(list_datasets())


def _data_fetch(options) -> None:
    from serendifflib.data.sources import fetch

    print(fetch(options.id) or f"{options.id} is made by code: no file needed")


def _data_check(options) -> None:
    from serendifflib.data.sources import check
    from serendifflib.portrait.fold import outlook

    report, data = check(options.id, **_file_options(options))
    reason = ""
    if data is not None:
        found, reason = outlook(data)
        for what, value in found:
            report.loc[len(report)] = [what, value, "", True]
        answer = ["can be fitted", "no" if reason else "yes", "", not reason]
        report.loc[len(report)] = answer
    is_note = report["what"] == "note"
    print_table(report[~is_note])
    print_notes(report["found"][is_note])
    if reason:
        raise DataError(f"cannot be fitted: {reason}")


def _file_options(options) -> dict[str, object]:
    """What was said about a file, for ``load_dataset``."""
    said = {
        "layout": options.layout,
        "columns": _columns(options.columns or ""),
        "texts_describe_items": options.texts_describe_items,
    }
    return {name: value for name, value in said.items() if value}


def _columns(text: str) -> dict[str, str]:
    """The option ``--columns user_id=reviewerID,...`` as a mapping.

    >>> _columns("user_id=who, item_id=what")
    {'user_id': 'who', 'item_id': 'what'}
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for ours, mark, theirs in pairs:
        if not (mark and ours.strip() and theirs.strip()):
            raise ConfigError(
                f"--columns {text!r}: write user_id=reviewerID,item_id=asin"
            )
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def _recommend(options) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from serendifflib.experiments.prepared import fit_on_all

    profile, picture = _check_options(options)
    data = _load(options, profile)
    items = _ids(options.items) if options.items is not None else None
    exclude = _ids(options.exclude or "")
    if options.user is not None:
        data.user_number(options.user)
    for item in (*(items or ()), *exclude):
        data.item_number(item)
    how = {"profile": profile, "seed": options.seed}
    model = fit_on_all(data, options.preset, **how)
    if data.has_labels:
        count = _trained_labels(model, data)
        print(f"Trained on {count:,} serendipity labels.")
    if options.all:
        table = model.recommend_all(options.k, exclude=exclude)
        _write_table(table, options.out)
        return
    who = {"user": options.user, "items": items}
    table = model.recommend(**who, k=options.k, exclude=exclude)
    if table.empty:
        raise DataError(
            f"{data.name}: nothing is left to recommend to user "
            f"{options.user or options.items!r}, who has every item that has "
            "a review and is not excluded"
        )
    print_table(table.drop(columns="item"))
    if options.out:
        _write_table(table, options.out)
    best = model.explain(**who, item=table["item"].iloc[0])
    print(f"\n{harmless(best.text)}")
    _save_picture(best, picture)
    print(f"portrait: {picture}")


def _check_options(options):
    """Refuse what can be refused before the work; profile and picture."""
    from serendifflib.model.settings import make_settings

    if options.k < 1:
        raise ConfigError(f"-k is {options.k}: choose at least 1")
    if not 0 <= options.seed < 2**63:
        raise ConfigError(f"--seed is {options.seed}: choose 0 to 2^63 - 1")
    profile = current_profile(options.profile)
    make_settings(options.preset, profile)
    if options.all and not options.out:
        raise ConfigError("--all needs a file to write: --out FILE")
    name = "new" if options.user is None else options.user
    name = re.sub(r"[^\w-]", "_", name)[:40]
    picture = options.picture or Path(f"portrait-{name}.png")
    for option, path in (("--picture", picture), ("--out", options.out)):
        if path is not None:
            _check_writable(option, path)
    return profile, picture


def _load(options, profile):
    """The data, and what is to be known of them before the wait."""
    from serendifflib.data.sources import load_dataset

    data = load_dataset(
        options.data, profile=profile, **_file_options(options)
    )
    print(harmless(data.source))
    print(f"times: {data.span}")
    print_notes(data.notes)
    if not data.has_labels:
        print(
            "These data have no serendipity labels. The model is trained on "
            "what users took next, so what follows are next-item "
            "recommendations placed on the portrait, not serendipity."
        )
    return data


def _ids(text: str) -> list[str]:
    """Ids with commas between; one that holds a comma stands in quotes."""
    rows = list(csv.reader([text], skipinitialspace=True))
    return [name.strip() for name in rows[0] if name.strip()] if rows else []


def _write_table(table, path: Path) -> None:
    from serendifflib.io import atomic_path

    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    print(harmless(f"{len(table):,} rows: {path}"))


def _trained_labels(model, data) -> int:
    """Labels of training users with a history and an item vector."""
    from serendifflib.data.splits import make_examples

    users = model.catalogue.is_training.nonzero()[0]
    targets = make_examples(data, users, "serendipity").targets
    return int(model.space.vectors[targets].any(dim=1).sum())


def _check_writable(option: str, path: Path) -> None:
    """Refuse a path that no file can be written to."""
    from serendifflib.io import is_stream

    if is_stream(path):
        raise ConfigError(f"{option} {path}: this is a pipe or a device")
    parent = next(p for p in path.absolute().parents if p.exists())
    if path.is_dir():
        raise ConfigError(f"{option} {path}: this is a folder; name a file")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(
            f"{option} {path}: {parent} is no folder that can be written"
        )


def _save_picture(explanation, path: Path) -> None:
    from serendifflib.io import atomic_path

    with atomic_path(path) as temporary:
        figure = explanation.plot().figure
        figure.savefig(temporary, format="png", dpi=150)


def _run(options) -> int:
    from serendifflib.experiments.records import live, recorded
    from serendifflib.experiments.tables import run_all, run_table

    if options.jobs < 1:
        raise ConfigError(f"--jobs is {options.jobs}: choose at least 1")
    profile = current_profile(options.profile)
    store = live() if options.live else recorded()
    how = {"n_jobs": options.jobs, "store": store, "progress": True}
    if options.table == "all":
        for option in ("data", "models", "folds", "seed"):
            if getattr(options, option):
                raise ConfigError(f"run all takes no --{option}")
        report, left = run_all(profile, minutes=options.minutes, **how)
    else:
        if options.minutes is not None:
            raise ConfigError("--minutes belongs to `run all`")
        left = Counter()
        report = run_table(
            options.table,
            options.data,
            profile=profile,
            models=options.models.split(",") if options.models else None,
            folds=_folds(options.folds) if options.folds else None,
            seed=options.seed,
            **how,
        )
    if report is not None:
        print_lines(report.text())
    for what, count in left.items():
        print(f"left: {what}: {count}")
    if report is None:
        print("the time is over: run the same command again to go on")
    return 0 if report is None or report.ok else 1


def _folds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(
            f"--folds is {text!r}: write numbers with commas between, e.g. 0,1"
        )
    return [int(part) for part in parts]


def _trace(options) -> None:
    from serendifflib.experiments.results import trace

    print_lines(trace(options.table, options.cell))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before main could say so
        sys.exit(130)
