"""Records of runs: what one unit of work computed, and where it came from.

A unit is one fold of one row of a table on one data set. Its record holds
the rank of every test case, so that every metric, interval and test can be
computed again, and everything needed to say where the numbers come from.

Layout of a store: ``<root>/<table>/<data>/<profile>/<row>/fold<k>.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from serendifflib.errors import ConfigError, DataError
from serendifflib.experiments import provenance
from serendifflib.io import (
    cache_dir,
    content_hash,
    read_json,
    results_dir,
    write_bytes,
    write_json,
)
from serendifflib.profiles import Profile

SCHEMA_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Cases:
    """Rank of the positive in every test case of one fold.

    Attributes:
        users: user numbers, [M].
        targets: item numbers of the positives, [M].
        ranks: 1..C, [M].
    """

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
        """From the frame that ``evaluate`` returns (without ``user_ids``)."""
        return cls(
            users=tuple(int(user) for user in table["user_id"]),
            targets=tuple(int(item) for item in table["target"]),
            ranks=tuple(int(rank) for rank in table["rank"]),
        )


@dataclass(frozen=True)
class Outcome:
    """What the computation of one unit returns.

    Attributes:
        cases: task ("serendipity", "relevance") -> ranks.
        extra: other numbers, e.g. ``train_seconds``; all finite.
        candidates: checksum of the candidate lists.
        device: what it ran on (``provenance.device_name``).
    """

    cases: Mapping[str, Cases] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)
    candidates: str = ""
    device: str = ""


@dataclass(frozen=True)
class Unit:
    """One fold of one row of a table on one data set.

    Attributes:
        table, data, row: ids that become folder names.
        fold: 0-based.
        data_checksum: ``Interactions.checksum``.
        source: one sentence about the data (``Interactions.source``).
        profile: sizes of the execution.
        seed: seed of everything random in the unit.
        label: how the row prints; default the row id.
        settings: whatever else decides the result, as JSON values.
        code: modules whose sources decide the result, with all that they
            import (see ``provenance.code_files``).
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
    code: tuple[str, ...] = ("serendifflib",)

    def __post_init__(self) -> None:
        for name in (self.table, self.data, self.row):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r} cannot name a folder of results: use letters, "
                    "digits, '.', '_' and '-'"
                )

    def key(self) -> str:
        """Hash of all that decides the result: data, settings, sizes, code.

        A finished unit is skipped only while this stays the same, so that
        no result outlives a change of the data or the code.
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
            provenance.code_hash(self.code),
        )

    def __str__(self) -> str:
        return f"{self.table} {self.data} {self.row} fold {self.fold}"


@dataclass(frozen=True)
class Run:
    """The record of one finished unit, as stored.

    Attributes:
        key: :meth:`Unit.key` at the time of the run.
        sizes: the profile's numbers.
        commit, dirty: git commit, and whether library code was changed.
        code, code_roots: hash of the sources and the modules it covers.
        threads: CPU threads of torch.
        seconds: wall time of the unit.
        created: UTC, ISO 8601.
        cases: task -> ranks.
        extra: other numbers.
    """

    table: str
    data: str
    row: str
    label: str
    fold: int
    key: str
    data_checksum: str
    source: str
    profile: str
    sizes: Mapping[str, Any]
    seed: int
    settings: Mapping[str, Any]
    commit: str
    dirty: bool
    code: str
    code_roots: tuple[str, ...]
    device: str
    threads: int
    versions: Mapping[str, str]
    seconds: float
    created: str
    candidates: str
    cases: Mapping[str, Cases]
    extra: Mapping[str, float]
    schema_version: int = SCHEMA_VERSION

    @property
    def code_current(self) -> bool:
        """Whether the code that made this record is the code at hand."""
        try:
            return provenance.code_hash(tuple(self.code_roots)) == self.code
        except ConfigError:  # the module is gone
            return False

    def save(self, path: Path) -> None:
        """Write the record whole or not at all, with its own checksum.

        Raises:
            CacheError: the folder cannot be written.
            DataError: a number is NaN or infinite.
        """
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content["cases"] = {k: asdict(v) for k, v in self.cases.items()}
        try:
            content = json.loads(json.dumps(content, allow_nan=False))
        except ValueError as error:
            raise DataError(
                f"{path.name}: a number is NaN or infinite"
            ) from error
        content["checksum"] = content_hash(content)
        # one line per field: small, and a diff still reads well
        lines = [
            f" {json.dumps(name)}: {json.dumps(value, sort_keys=True)}"
            for name, value in content.items()
        ]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        write_bytes(path, text.encode())

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read a record of this or an older schema version.

        Raises:
            DataError: damaged, edited by hand, or of a newer version.
        """
        try:
            raw = read_json(path)
        except (ValueError, OSError) as error:
            raise DataError(
                f"{path}: not a readable record ({error}); run the unit again"
            ) from error
        try:
            checksum = raw.pop("checksum", None)
            if raw["schema_version"] > 0 and checksum != content_hash(raw):
                raise DataError(
                    f"{path}: the content does not match its checksum; "
                    "restore the file or run the unit again"
                )
            raw = migrate(raw)
            raw["cases"] = {
                task: Cases(**{k: tuple(v) for k, v in cases.items()})
                for task, cases in raw["cases"].items()
            }
            raw["code_roots"] = tuple(raw["code_roots"])
            return cls(**raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: not a record of a run ({error}); run the unit again"
            ) from error


def _from_version_0(raw: dict[str, Any]) -> dict[str, Any]:
    """Version 0 knew one task and no provenance beyond the commit."""
    new = {
        "label": raw["row"],
        "key": "",
        "sizes": {},
        "settings": {},
        "dirty": True,
        "code": "unknown",
        "code_roots": ["serendifflib"],
        "device": "unknown",
        "threads": 0,
        "versions": {},
        "candidates": "",
        "extra": {},
        "source": "unknown",
        **raw,
    }
    names = ("users", "targets", "ranks")
    new["cases"] = {"serendipity": {name: new.pop(name) for name in names}}
    new["schema_version"] = 1
    return new


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    0: _from_version_0,
}


def migrate(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the content of a record to the current schema version.

    Args:
        raw: the JSON object of a record, without its checksum.

    Raises:
        DataError: the version is newer than this package, or unknown.
    """
    content = dict(raw)
    while content["schema_version"] != SCHEMA_VERSION:
        version = content["schema_version"]
        if version not in _MIGRATIONS:
            raise DataError(
                f"a record has schema version {version!r}, this package "
                f"reads up to {SCHEMA_VERSION}: update the package"
            )
        content = _MIGRATIONS[version](content)
    return content


@dataclass(frozen=True)
class Failure:
    """Why a unit has no result.

    Attributes:
        unit: its table, data, row and fold in words.
        error: type of the error.
        message: what it said.
        where: the library's lines it passed, outermost first.
        created: UTC, ISO 8601.
    """

    unit: str
    error: str
    message: str
    where: tuple[str, ...] = ()
    created: str = ""


@dataclass(frozen=True)
class RecordStore:
    """A folder of records.

    Attributes:
        root: the folder; :func:`recorded` and :func:`live` give the two
            that the book uses.
        keep_old: keep a record that a new one replaces, as
            ``fold<k>.<key>.old.json``: hours of work are not overwritten.
    """

    root: Path
    keep_old: bool = True

    def path(self, unit: Unit) -> Path:
        """File of a unit's record."""
        return (
            self.root
            / unit.table
            / unit.data
            / unit.profile.name
            / unit.row
            / f"fold{unit.fold}.json"
        )

    def finished(self, unit: Unit) -> Run | None:
        """The unit's record if it was made from this very data and code."""
        path = self.path(unit)
        if not path.is_file():
            return None
        try:
            run = Run.load(path)
        except DataError:
            return None  # it will be replaced, and kept as old
        return run if run.key == unit.key() else None

    def save(self, unit: Unit, run: Run) -> None:
        """Store a record; a different older one is kept beside it."""
        path = self.path(unit)
        if self.keep_old and path.is_file():
            old = path.read_bytes()
            try:
                name = Run.load(path).key[:8]
            except DataError:
                name = content_hash(old)[:8]
            if name != run.key[:8]:
                write_bytes(path.with_suffix(f".{name or '0'}.old.json"), old)
        run.save(path)
        self._failure_path(unit).unlink(missing_ok=True)

    def save_failure(self, unit: Unit, failure: Failure) -> None:
        """Store why a unit failed; an earlier record stays."""
        write_json(self._failure_path(unit), asdict(failure))

    def _failure_path(self, unit: Unit) -> Path:
        return self.path(unit).with_suffix(".failed.json")

    def runs(
        self, table: str, data: str | None = None, profile: str | None = None
    ) -> list[Run]:
        """All records of a table, in the order of their paths.

        Raises:
            DataError: a record is damaged.
        """
        pattern = f"{data or '*'}/{profile or '*'}/*/fold*.json"
        return [
            Run.load(path)
            for path in sorted((self.root / table).glob(pattern))
            if re.fullmatch(r"fold\d+\.json", path.name)
        ]

    def failures(self, table: str) -> list[Failure]:
        """Units of a table whose last attempt failed.

        Raises:
            DataError: the note about a failure is damaged.
        """
        paths = (self.root / table).glob("*/*/*/fold*.failed.json")
        return [_load_failure(path) for path in sorted(paths)]


def _load_failure(path: Path) -> Failure:
    try:
        raw = read_json(path)
        return Failure(**{**raw, "where": tuple(raw["where"])})
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a note about a failure ({error}); delete it"
        ) from error


def recorded() -> RecordStore:
    """The recorded runs that belong to the project (``results/``)."""
    return RecordStore(results_dir())


def live() -> RecordStore:
    """What executions on this machine computed (in the cache)."""
    return RecordStore(cache_dir() / "runs", keep_old=False)
