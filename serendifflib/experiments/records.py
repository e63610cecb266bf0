"""Records of runs: what one unit of work computed, and where it came from.

A unit is one fold of one row of a table on one data set. Its record holds
the rank of every test case, so that every metric, interval and test can be
computed again, and everything needed to say where the numbers come from.

A store keeps one file of JSON lines per table, ``<root>/<table>.jsonl``.
Lines are only ever appended; the newest line of a unit counts. There are two
kinds: ``cases`` (users and targets, shared by all rows that ranked them) and
``run`` (one record). Each line holds its own checksum.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from serendifflib.errors import ConfigError, DataError
from serendifflib.experiments import versions
from serendifflib.io import append_lines, cache_dir, content_hash, results_dir
from serendifflib.profiles import Profile

SCHEMA_VERSION = 2
TINY_PROMPT = "SerenPrompt-style-tiny"
"""The row of the tiny language model."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
Place = tuple[str, str, str, int]  # data, profile, row, fold


@dataclass(frozen=True)
class Cases:
    """Numbers of users and targets, and ranks 1..C, of a fold's M cases."""

    users: tuple[int, ...]
    targets: tuple[int, ...]
    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.users) == len(self.targets) == len(self.ranks):
            raise DataError("cases: users, targets and ranks differ in length")
        if any(not isinstance(r, int) or r < 1 for r in self.ranks):
            raise DataError("cases: ranks must be whole numbers from 1 on")

    @classmethod
    def of(cls, table: pd.DataFrame) -> Cases:
        """From the frame that ``evaluate`` returns."""
        names = ("user_id", "target", "rank")
        return cls(*(tuple(map(int, table[name])) for name in names))

    @property
    def id(self) -> str:
        """Names users and targets, which many rows have in common."""
        return content_hash(list(self.users), list(self.targets))[:16]


@dataclass(frozen=True)
class Outcome:
    """What the computation of one unit returns.

    Attributes:
        cases: task ("serendipity", "relevance") -> ranks.
        extra: other numbers, e.g. ``train_seconds``; all finite.
        candidates: checksum of the candidate lists.
        device: what it ran on (``versions.device_name``).
    """

    cases: Mapping[str, Cases] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)
    candidates: str = ""
    device: str = ""


@dataclass(frozen=True)
class Unit:
    """One fold of one row of a table on one data set.

    Attributes:
        table, data, row: ids of letters, digits, ``.``, ``_`` and ``-``.
        fold: 0-based.
        data_checksum, source: of the ``Interactions``.
        profile: sizes of the execution.
        seed: of everything random in the unit.
        label: how the row prints; default the row id.
        settings: whatever else decides the result, as JSON values.
        parts: declared version of every part on the way from the data to
            the ranks (:func:`serendifflib.experiments.versions.parts_of`).
    """

    table: str
    data: str
    row: str
    fold: int
    data_checksum: str
    source: str
    profile: Profile
    seed: int = 0
    label: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.table, self.data, self.row):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r} cannot name results: use letters, digits, "
                    "'.', '_' and '-'"
                )

    def key(self) -> str:
        """Hash of all that decides the result.

        A finished unit is skipped only while this stays the same and the
        libraries that decide numbers have the versions of its record.
        """
        return content_hash(
            self.table,
            self.data,
            self.row,
            self.fold,
            self.data_checksum,
            asdict(self.profile),
            self.seed,
            dict(self.settings),
            dict(self.parts),
        )

    @property
    def place(self) -> Place:
        """What one record of a table belongs to; a newer one replaces it."""
        return self.data, self.profile.name, self.row, self.fold

    def __str__(self) -> str:
        return f"{self.table} {self.data} {self.row} fold {self.fold}"


@dataclass(frozen=True)
class Run:
    """The record of one finished unit, as stored; see also :class:`Unit`.

    Attributes:
        key: :meth:`Unit.key` at the time of the run.
        sizes: the profile's numbers.
        commit, dirty: git commit, and whether library code was changed.
        threads: CPU threads of torch.
        versions: of Python and of libraries.
        seconds: wall time of the unit.
        created: UTC, ISO 8601.
        line: where it stands, 1-based; 0 for a record that is not stored.
    """

    table: str
    data: str
    profile: str
    row: str
    fold: int
    seed: int
    label: str
    key: str
    parts: Mapping[str, Any]
    settings: Mapping[str, Any]
    sizes: Mapping[str, Any]
    data_checksum: str
    source: str
    candidates: str
    commit: str
    dirty: bool
    device: str
    threads: int
    versions: Mapping[str, str]
    seconds: float
    created: str
    extra: Mapping[str, float]
    cases: Mapping[str, Cases]
    line: int = field(default=0, compare=False)

    @property
    def outdated(self) -> tuple[str, ...]:
        """Parts and libraries that have another version now, in words.

        A run is current, if there are none.
        """
        return versions.differences(self.parts, self.versions)

    @property
    def place(self) -> Place:
        """See :attr:`Unit.place`."""
        return self.data, self.profile, self.row, self.fold


class _Table(NamedTuple):
    """What one file holds: the newest record of every unit."""

    runs: Mapping[Place, Run]
    cases: frozenset[str]
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class RecordStore:
    """A folder of records: the project's, or this machine's."""

    root: Path

    def path(self, table: str) -> Path:
        """File of a table's records."""
        return self.root / f"{table}.jsonl"

    def finished(self, unit: Unit) -> Run | None:
        """The unit's record if it was made from this very data and code."""
        run = self._read(unit.table).runs.get(unit.place)
        if run is None or run.key != unit.key() or run.outdated:
            return None
        return run

    def save(self, run: Run) -> None:
        """Append a record, and the users and targets if they are new.

        Raises:
            CacheError: the file cannot be written.
            DataError: a number is NaN or infinite.
        """
        known = self._read(run.table).cases
        lines: list[dict[str, Any]] = [
            {"record": "cases", "id": one.id}
            | {"users": one.users, "targets": one.targets}
            for one in run.cases.values()
            if one.id not in known
        ]
        content = {"record": "run", "schema": SCHEMA_VERSION} | {
            f.name: getattr(run, f.name)
            for f in fields(run)
            if f.name not in ("table", "line", "cases")
        }
        content["ranks"] = {
            task: {"cases": cases.id, "ranks": cases.ranks}
            for task, cases in run.cases.items()
        }
        self._append(run.table, *lines, content)

    def _append(self, table: str, *contents: Mapping[str, Any]) -> None:
        lines = []
        for content in contents:
            try:
                plain = json.loads(json.dumps(content, allow_nan=False))
            except ValueError as error:
                raise DataError(
                    f"{self.path(table).name}: a number is NaN or infinite"
                ) from error
            plain["checksum"] = content_hash(plain)[:16]
            lines.append(json.dumps(plain))
        append_lines(self.path(table), lines)

    def runs(
        self, table: str, data: str | None = None, profile: str | None = None
    ) -> list[Run]:
        """The newest record of every unit, by data, profile, row and fold.

        Raises:
            DataError: a line is damaged; the message names it.
        """
        content = self._read(table)
        if content.damaged:
            raise DataError(
                f"{content.damaged[0]} ({len(content.damaged)} damaged in "
                "all): restore the file, or delete the lines and run their "
                "units again"
            )
        return [
            run
            for place, run in sorted(content.runs.items())
            if data in (None, place[0]) and profile in (None, place[1])
        ]

    def _read(self, table: str) -> _Table:
        path = self.path(table)
        try:
            state = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return _Table({}, frozenset(), ())
        except OSError as error:  # an unreadable record is not a missing one
            raise DataError(
                f"{path}: cannot be read: {error.strerror}"
            ) from error
        return _parse(path, table, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _parse(path: Path, table: str, size: int, mtime: int) -> _Table:
    """The content of a file as it was at that size and time."""
    runs: dict[Place, Run] = {}
    cases: dict[str, tuple[Any, Any]] = {}
    damaged = []
    text = path.read_bytes().decode("utf-8", "replace")
    # the unfinished line of a killed writer is no line
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            content = _checked(line)
            kind = content.pop("record")
            if kind == "cases":
                cases[content["id"]] = content["users"], content["targets"]
            elif kind == "run":
                run = _run(content, table, cases, number)
                runs[run.place] = run
            elif kind != "failure":  # earlier versions wrote these, too
                raise DataError(f"unknown kind of line {kind!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            damaged.append(f"{path}: line {number} is no record ({error})")
        except DataError as error:
            damaged.append(f"{path}: line {number}: {error}")
    return _Table(runs, frozenset(cases), tuple(damaged))


def _checked(line: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    checksum = content.pop("checksum", None)
    if checksum != content_hash(content)[:16]:
        raise DataError("its content does not match its checksum")
    return content


def _run(
    content: dict[str, Any],
    table: str,
    cases: Mapping[str, tuple[Any, Any]],
    line: int,
) -> Run:
    schema = content.pop("schema")
    if schema != SCHEMA_VERSION:
        raise DataError(
            f"schema version {schema!r}, this package reads {SCHEMA_VERSION}"
        )
    ranked = {
        task: Cases(*map(tuple, (*cases[one["cases"]], one["ranks"])))
        for task, one in content.pop("ranks").items()
    }
    return Run(table=table, cases=ranked, line=line, **content)


def recorded() -> RecordStore:
    """The recorded runs that belong to the project (``results/``)."""
    return RecordStore(results_dir())


def live() -> RecordStore:
    """What executions on this machine computed (in the cache)."""
    return RecordStore(cache_dir() / "runs")
