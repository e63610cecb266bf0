"""Data sets by id, file or table: find, fetch, load, check them.

Of the data sets of the world outside ``$SERENDIFF_DATA`` comes first, then
earlier downloads in the cache, then the publisher. What has a published size
and SHA-256 is compared with them every time it is loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from serendifflib.data import grouplens, human, layouts, table1
from serendifflib.data.download import download, unpack, verify
from serendifflib.data.interactions import Interactions
from serendifflib.data.schema import shown
from serendifflib.errors import (
    ConfigError,
    DataError,
    DownloadError,
    UnknownDatasetError,
)
from serendifflib.io import cache_dir, data_dir, read_json, sha256_file
from serendifflib.profiles import Profile, current_profile

T = TypeVar("T")
LARGEST = 4 << 30  # bytes of an unpacked file of somebody's own archive
WORLDS: dict[str, dict] = read_json(Path(__file__).with_name("worlds.json"))


@dataclass(frozen=True)
class Source:
    """Where one data set of the world outside comes from.

    Attributes:
        id: the data id.
        what: one line about it.
        url: https address of one file.
        file: name of that file, ``.csv`` or ``.zip``.
        places: where a copy may lie below ``$SERENDIFF_DATA``: the file, or
            the folder with the unpacked ``members``.
        limit: most bytes to download, and most that a member may unpack to.
        size, sha256: of the file, where the publisher keeps them fixed.
        members: files to take from the archive; in a folder their names may
            lack the blanks.
        member_sha256: checksums of the members, where they are fixed.
        optional: files to take if they are there.
        licence: what the publisher allows.
        n_users: number of users that its publisher states.
    """

    id: str
    what: str
    url: str
    file: str
    places: Sequence[str]
    limit: int
    size: int | None = None
    sha256: str | None = None
    members: Sequence[str] = ()
    member_sha256: Sequence[str] = ()
    optional: Sequence[str] = ()
    licence: str = ""
    n_users: int | None = None

    @property
    def env(self) -> str:
        """The environment variable that replaces :attr:`url`."""
        return "SERENDIFF_URL_" + self.id.upper().replace("-", "_")

    @property
    def address(self) -> str:
        """The address in use: the environment's, else the publisher's."""
        return os.environ.get(self.env) or self.url

    @property
    def downloaded(self) -> Path:
        """Where a download of the file lies, or would."""
        return cache_dir() / "data" / self.file


SOURCES = {
    entry["id"]: Source(**entry)
    for entry in read_json(Path(__file__).with_name("sources.json"))
}


def load_dataset(
    what: str | Path | pd.DataFrame,
    *,
    seed: int = 0,
    profile: Profile | str | None = None,
    **options: object,
) -> Interactions:
    """Load interactions by data id, from a file, or from a table in memory.

    Args:
        what: a data id (see :func:`list_datasets`), the path of a file, or
            a table, in our columns or in others
            (:mod:`serendifflib.data.layouts`).
        seed: seed of a simulated world.
        profile: sizes of a simulated world; the current profile if None.
        **options: of :class:`~serendifflib.data.world.World`, or of a file
            or table (:func:`~serendifflib.data.layouts.read_table`).

    Raises:
        UnknownDatasetError: neither an id nor a file.
        ConfigError: an option that this data set does not have.
        DataError: a file breaks the schema or differs from its checksum.
        DownloadError: the data are not here and cannot be downloaded.
    """
    name = "a table" if isinstance(what, pd.DataFrame) else str(what)
    if name in WORLDS:
        return _load_world(name, seed, profile, options)
    if name in SURVEYS:
        raise ConfigError(
            f"{name} is a survey: it has no histories to learn from; "
            f"serendifflib.data.sources.load_survey({name!r}) reads it"
        )
    if name in SOURCES:
        read = _taking(options, name, _READERS[name])
        return read(source_path(SOURCES[name]), **options)
    read = _taking(options, name, layouts.read_table)
    if not isinstance(what, pd.DataFrame):
        what = user_path(name)
        if (folder := _movielens(what, options.get("layout"))) is not None:
            name = str(options.get("name") or what.name)
            return grouplens.read_movielens(folder, name=name)
    data = read(what, **options)
    for note in data.notes:
        if note.startswith("Warning: "):
            warnings.warn(f"{data.name}: {note[9:]}", stacklevel=2)
    return data


def _movielens(path: Path, layout: object) -> Path | None:
    """The folder of a release of MovieLens, unpacked if it is an archive."""
    if layout not in (None, "movielens"):
        return None
    if path.is_dir():
        if grouplens.release_of(os.listdir(path)):
            return path
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).name for name in archive.namelist()}
        if release := grouplens.release_of(names):
            files = grouplens.RELEASES[release]
            more = {"optional": files[2:], "limit": LARGEST}
            return _unpacked(path, path.stem, files[:2], **more)
    if layout is None:
        return None
    raise DataError(
        f"{path}: is no folder or zip archive with the files of MovieLens, "
        "e.g. ratings.csv and movies.csv"
    )


def load_survey(name: str) -> pd.DataFrame:
    """Find or download one of :data:`SURVEYS`; a row per answer.

    The readers in :mod:`serendifflib.data.human` tell the columns.
    """
    if name not in SURVEYS:
        raise UnknownDatasetError(
            f"unknown survey {name!r} (known: {', '.join(SURVEYS)})"
        )
    return SURVEYS[name](source_path(SOURCES[name]))


def _load_world(
    name: str,
    seed: int,
    profile: Profile | str | None,
    options: dict[str, object],
) -> Interactions:
    from serendifflib.data.world import World

    made = {k: v for k, v in WORLDS[name].items() if k != "what"}
    if "like" in made:
        draw = _taking(options, name, World.like)
        return draw(made["like"], seed=seed, **options).interactions()
    if not isinstance(profile, Profile):
        profile = current_profile(profile)
    sizes = {"n_users": profile.world_users, "n_items": profile.world_items}
    draw = _taking(options, name, World)
    return draw(seed=seed, **(sizes | made | options)).interactions()


def _taking(
    options: Mapping[str, object], name: str, loader: Callable[..., T]
) -> Callable[..., T]:
    """The loader of a data set; refuses options that it does not take."""
    taken = [
        parameter.name
        for parameter in inspect.signature(loader).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.name not in ("seed", "data_id")
    ]
    for option in options:
        if option not in taken:
            known = ", ".join(taken) or "none"
            raise ConfigError(
                f"{name} has no option {option!r}; its options: {known}"
            )
    return loader


def user_path(name: str) -> Path:
    """A path that a user wrote, or a helpful refusal of an unknown id."""
    try:
        path = Path(name).expanduser()
        if path.exists() or path.suffix or path.name != name:
            return path  # if it does not exist, reading says so
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(name)}: cannot be read: {reason}") from error
    known = [*WORLDS, *SOURCES]
    close = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UnknownDatasetError(
        f"unknown data set {name!r}{hint} (known: {', '.join(known)}, or "
        "the path of a file)"
    )


def find_source(source: Source) -> Path | None:
    """A copy that is here: a file, or a folder of the members; unverified."""
    for place in source.places:
        path = data_dir() / place
        if path.is_file():
            return path
        if source.members and all(_member_files(source, path)):
            return path
    return source.downloaded if source.downloaded.is_file() else None


def fetch_source(source: Source) -> Path:
    """Path of a verified copy of a data set, downloaded if need be.

    Raises:
        DataError: the copy that is here differs from size or checksum.
        DownloadError: there is none, and where to put it by hand.
    """
    known = {"size": source.size, "sha256": source.sha256}
    if (path := find_source(source)) is not None:
        if path.is_file():
            verify(path, **known)
        return path
    path, limit = source.downloaded, source.limit
    try:
        return download(source.address, path, limit=limit, **known)
    except DownloadError as error:
        raise DownloadError(
            f"{error}. To do it by hand, get {source.url} elsewhere and put "
            f"it at {path}, or set SERENDIFF_DATA to its folder"
        ) from error


def source_path(source: Source) -> Path:
    """A verified CSV file, or the folder with the members of an archive."""
    path, limit = fetch_source(source), source.limit
    if source.members and path.is_file():
        members, more = source.members, {"optional": source.optional}
        path = _unpacked(path, source.id, members, limit=limit, **more)
    if source.member_sha256:
        files = _member_files(source, path)
        for file, sha256 in zip(files, source.member_sha256, strict=True):
            verify(file or path, sha256=sha256)
    return path


def _member_files(source: Source, folder: Path) -> list[Path | None]:
    """Each member's file in a folder; None where it is not there."""
    pairs = [(name, name.replace(" ", "")) for name in source.members]
    return [
        next((folder / n for n in pair if (folder / n).is_file()), None)
        for pair in pairs
    ]


def _unpacked(
    path: Path, name: str, members: Sequence[str], **options: Any
) -> Path:
    """Folder of the cache with the members of an archive."""
    folder = cache_dir() / "data" / f"{name}-{sha256_file(path)[:12]}"
    return unpack(path, members, folder, **options)


def _read_serenlens(path: Path, *, data_id: str) -> Interactions:
    data = layouts.read_table(path, layout="serendiff", name=data_id)
    part = "book" if data_id.endswith("books") else "film"
    source = (
        f"SerenLens (Fu et al., 2023): {part} reviews from Amazon with "
        "serendipity labels by crowd workers."
    )
    return dataclasses.replace(data, source=source)


_READERS: dict[str, Callable[..., Interactions]] = {
    "movielens-small": grouplens.read_movielens,
    "serendipity-2018": grouplens.read_serendipity_2018,
    "goodreads-surprise": human.read_goodreads_surprise,
    **{
        name: partial(_read_serenlens, data_id=name)
        for name in ("serenlens-books", "serenlens-movies")
    },
}
SURVEYS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "taobao-serendipity": human.read_taobao,
    "movielens-beliefs-2024": human.read_beliefs,
    "personality-2018": human.read_personality,
}


def fetch(name: str) -> Path | None:
    """Bring a data set here: its verified file or folder; None for a world."""
    if name in WORLDS:
        return None
    if name in SOURCES:
        return fetch_source(SOURCES[name])
    path = user_path(name)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    return path


def check(
    name_or_path: str | Path, **options: object
) -> tuple[pd.DataFrame, Interactions | None]:
    """Load a data set and report what was found, without downloading.

    Returns:
        One row per finding, columns ``what``, ``found``, ``expected`` (empty
        where nothing is), ``ok``; and the data, unless they are a survey.

    Raises:
        DataError: the data are not here, or broken.
    """
    name = str(name_or_path)
    rows: list[tuple[str, object, object]] = []
    data = None
    stated: object = ""
    if (source := SOURCES.get(name)) is not None:
        path = find_source(source)
        if path is None:
            raise DataError(
                f"{name}: not here; `data fetch {name}` downloads it, or put "
                f"it in $SERENDIFF_DATA as {source.places[0]}"
            )
        rows.append(("place", str(path), ""))
        if path.is_file():
            rows.append(("bytes", path.stat().st_size, source.size or ""))
            rows.append(("SHA-256", sha256_file(path), source.sha256 or ""))
        stated = source.n_users or ""
    if name in SURVEYS:
        rows.append(("answers", len(load_survey(name)), stated))
    else:
        data = load_dataset(name, **options)
        rows.append(("users", data.n_users, stated))
        rows += _counted(data, name)
        rows.append(("content checksum", data.checksum, ""))
        rows += [("note", note, "") for note in data.notes]
    report = pd.DataFrame(rows, columns=["what", "found", "expected"])
    report["ok"] = [expected in ("", found) for _, found, expected in rows]
    return report, data


def _counted(data: Interactions, name: str) -> list[tuple[str, int, object]]:
    """Lines of a report: the counts of Table 1, beside those of the paper."""
    expected: dict[str, object] = {}
    if name.startswith("serenlens"):
        with contextlib.suppress(DataError):  # installed without results/
            expected = table1.paper_table1()[name].astype(int).to_dict()
    found = table1.counts(data)
    labels = {
        "reviews": "rows",
        "items": "items",
        "reviews_serendipity": "rows with label 1",
        "users_serendipity": "users with label 1",
        "items_serendipity": "items with label 1",
    }
    return [(labels[k], found[k], expected.get(k, "")) for k in labels]


def list_datasets() -> pd.DataFrame:
    """All data ids: what they are, whether they are here, where from."""
    worlds = [
        (name, world["what"], "made by code", "", "")
        for name, world in WORLDS.items()
    ]
    sources = [
        (one.id, one.what, str(find_source(one) or "not here yet"),
         one.address, one.licence)
        for one in SOURCES.values()
    ]  # fmt: skip
    return pd.DataFrame(
        worlds + sources, columns=["id", "what", "here", "address", "licence"]
    )
