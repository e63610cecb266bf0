"""Data sets by id: where they come from, whether they are whole, how to load.

A data set is looked for in ``$SERENDIFF_DATA`` first, then among earlier
downloads in the cache; only then is it downloaded. Whatever has a published
size and SHA-256 is compared with them every time it is loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from serendifflib.data import table1
from serendifflib.data.download import download, unpack, verify
from serendifflib.data.grouplens import (
    RELEASES,
    movielens_parts,
    read_movielens,
    read_serendipity_2018,
    release_of,
)
from serendifflib.data.human import (
    read_beliefs,
    read_goodreads_surprise,
    read_personality,
    read_taobao,
)
from serendifflib.data.interactions import Interactions
from serendifflib.data.layouts import (
    Source as Opened,
)
from serendifflib.data.layouts import (
    checked_parts,
    read_file,
    read_frame,
    write_parts,
)
from serendifflib.data.schema import shown
from serendifflib.errors import (
    ConfigError,
    DataError,
    DownloadError,
    UnknownDatasetError,
)
from serendifflib.io import cache_dir, data_dir, sha256_file
from serendifflib.profiles import Profile, current_profile

MiB = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where one data set of the world outside comes from.

    Attributes:
        id: the data id.
        what: one line about it.
        url: https address of one file; ``env`` names the environment
            variable that replaces it.
        env: see ``url``.
        file: name of that file, ``.csv`` or ``.zip``.
        places: where a copy may lie below ``$SERENDIFF_DATA``: the file, or
            the folder with the unpacked ``members``.
        limit: most bytes to download, and most that a member may unpack to.
        size: bytes of the file, where the publisher keeps them fixed.
        sha256: its checksum, likewise.
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
    env: str
    file: str
    places: tuple[str, ...]
    limit: int
    size: int | None = None
    sha256: str | None = None
    members: tuple[str, ...] = ()
    member_sha256: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    licence: str = ""
    n_users: int | None = None

    @property
    def address(self) -> str:
        """The address in use: the environment's, else the publisher's."""
        return os.environ.get(self.env) or self.url


def _published() -> dict[str, Source]:
    """The entries of ``sources.json``, by id."""
    here = resources.files("serendifflib.data")
    entries = json.loads(here.joinpath("sources.json").read_text("utf-8"))
    for entry in entries:
        for name, value in entry.items():
            if isinstance(value, list):
                entry[name] = tuple(value)
    return {entry["id"]: Source(**entry) for entry in entries}


SOURCES = _published()

WORLDS = {
    "synthetic": ("strong", "simulated reviews; labels follow a strong law"),
    "synthetic-weak": ("weak", "the same with a weak law"),
    "synthetic-null": ("null", "the same with labels that follow nothing"),
    "synthetic-forked": ("forked", "every niche has four bridges"),
    **{
        f"synthetic-forked-{count}": (
            "forked",
            f"the same with {count} bridge{'s' if count > 1 else ''}",
        )
        for count in (1, 2, 6)
    },
    "synthetic-forked-null": ("forked-null", "its null version"),
    "synthetic-human": ("human", "labels weigh the axes as people said"),
    "synthetic-human-null": ("human-null", "its null version"),
    "synthetic-like-serenlens-books": (
        "serenlens-books",
        "the strong law in the sizes of SerenLens-Books",
    ),
    "synthetic-like-serenlens-movies": (
        "serenlens-movies",
        "the strong law in the sizes of SerenLens-Movies",
    ),
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
            a table. Files in other columns than ours are read too; see
            :mod:`serendifflib.data.layouts`.
        seed: seed of a simulated world; real data do not depend on it.
        profile: sizes of a simulated world; the current profile if None.
        **options: ``n_users``, ``n_items`` and other arguments of
            :class:`~serendifflib.data.world.World` for a simulated world;
            ``label_column`` and ``users`` for ``serendipity-2018``;
            ``layout``, ``columns``, ``texts_describe_items`` and ``name``
            for a file or a table
            (:func:`~serendifflib.data.layouts.read_file`).

    Raises:
        UnknownDatasetError: neither an id nor a file.
        ConfigError: an option that this data set does not have.
        DataError: a file breaks the schema or differs from its checksum.
        DownloadError: the data are not here and cannot be downloaded.
    """
    if isinstance(what, pd.DataFrame):
        _check_options("a table", read_frame, options)
        return _warned(read_frame(what, **options))
    name = str(what)
    if name in WORLDS:
        return _load_world(name, seed, profile, options)
    if name in SURVEYS:
        raise ConfigError(
            f"{name} is a survey: it has no histories to learn from; "
            f"serendifflib.data.sources.load_survey({name!r}) reads it"
        )
    if name in SOURCES:
        return load_source(SOURCES[name], **options)
    path = user_path(name)
    _check_options(name, read_file, options)
    if (folder := _movielens(path, options.get("layout"))) is not None:
        return read_movielens(folder, name=options.get("name") or path.name)
    return _warned(read_file(path, **options))


def _warned(data: Interactions) -> Interactions:
    """Say at once what is probably wrong; it stands in the notes too."""
    for note in data.notes:
        if note.startswith("Warning: "):
            warnings.warn(f"{data.name}: {note[9:]}", stacklevel=3)
    return data


def convert(
    path: Path | str,
    out: Path | str,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Write a file in the schema's columns, part by part.

    Args:
        path: file, or folder or archive of MovieLens.
        out: CSV file to write.
        layout: ``movielens`` or one of
            :data:`~serendifflib.data.layouts.LAYOUTS`; None finds out.
        columns: ours -> theirs, where the choice would be wrong.

    Returns:
        How many rows were written, and the notes.

    Raises:
        ConfigError, DataError: see :func:`load_dataset`.
        CacheError: ``out`` cannot be written.
    """
    path = user_path(str(path))
    parts: Iterator[pd.DataFrame]
    opened: Opened
    if (folder := _movielens(path, layout)) is not None:
        opened, parts = movielens_parts(folder)
    else:
        opened, parts = checked_parts(path, layout=layout, columns=columns)
    rows = write_parts(opened, parts, out)
    notes = opened.notes()
    if opened.describes or folder is not None:
        notes = (
            *notes,
            "The texts describe items: read the result with "
            "texts_describe_items=True (--texts-describe-items).",
        )
    return rows, notes


def _movielens(path: Path, layout: object) -> Path | None:
    """The folder of a release of MovieLens, unpacked if it is an archive.

    Raises:
        DataError: ``layout`` is ``movielens``, but ``path`` is not.
    """
    if layout not in (None, "movielens"):
        return None
    if path.is_dir():
        if release_of(os.listdir(path)):
            return path
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).name for name in archive.namelist()}
        if release := release_of(names):
            needed, optional = RELEASES[release][:2], RELEASES[release][2:]
            return _unpacked(path, path.stem, needed, optional, 4096 * MiB)
    if layout is None:
        return None
    raise DataError(
        f"{path}: is no folder or zip archive with the files of MovieLens "
        "(ratings.csv and movies.csv, ratings.dat and movies.dat, or u.data "
        "and u.item)"
    )


def load_source(
    source: Source, *, local_http: bool = False, **options: object
) -> Interactions:
    """Find or download a data set and read it.

    Args:
        source: its description.
        local_http: see :func:`~serendifflib.data.download.download`.
        **options: see :func:`load_dataset`.
    """
    reader = _READERS[source.id]
    _check_options(source.id, reader, options)
    path = fetch_source(source, local_http=local_http)
    return reader(_readable(source, path), **options)


def load_survey(name: str) -> pd.DataFrame:
    """Find or download a survey and read its answers.

    Args:
        name: an id of :data:`SURVEYS`.

    Returns:
        One row per answer; see the readers in
        :mod:`serendifflib.data.human` for the columns.

    Raises:
        UnknownDatasetError: no such survey.
        DataError: a file breaks its format or differs from its checksum.
        DownloadError: the file is not here and cannot be downloaded.
    """
    if name not in SURVEYS:
        raise UnknownDatasetError(
            f"unknown survey {name!r} (known: {', '.join(SURVEYS)})"
        )
    return SURVEYS[name](source_path(name))


def source_path(name: str) -> Path:
    """The verified file of a data set, or the folder of its members.

    Raises:
        UnknownDatasetError: no such id among :data:`SOURCES`.
        DataError, DownloadError: see :func:`fetch_source`.
    """
    if name not in SOURCES:
        raise UnknownDatasetError(
            f"unknown source {name!r} (known: {', '.join(SOURCES)})"
        )
    return _readable(SOURCES[name], fetch_source(SOURCES[name]))


def _load_world(
    name: str,
    seed: int,
    profile: Profile | str | None,
    options: dict[str, object],
) -> Interactions:
    from serendifflib.data.world import World

    preset = WORLDS[name][0]
    if name.startswith("synthetic-like-"):
        _check_options(name, World.like, options)
        return World.like(preset, seed=seed, **options).interactions()
    _check_options(name, World, options)
    if not isinstance(profile, Profile):
        profile = current_profile(profile)
    sizes = {"n_users": profile.world_users, "n_items": profile.world_items}
    if name[-1].isdigit():  # synthetic-forked-K
        sizes["bridges"] = int(name[-1])
    return World(preset, seed=seed, **(sizes | options)).interactions()


def _check_options(
    name: str,
    function: Callable[..., object],
    options: Mapping[str, object],
) -> None:
    """Refuse options that the loader of a data set does not take."""
    taken = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.name != "seed"
    ]
    for option in options:
        if option not in taken:
            known = ", ".join(taken) or "none"
            raise ConfigError(
                f"{name} has no option {option!r}; its options: {known}"
            )


def user_path(name: str) -> Path:
    """A path that a user wrote, or a helpful refusal of an unknown id.

    Raises:
        UnknownDatasetError: it looks like an id, and there is no such file.
        DataError: no file can be called so.
    """
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
    """A copy that is here already: a file, or a folder of the members.

    Looks in ``$SERENDIFF_DATA`` (or the cache) at ``source.places``, then
    among downloads. The content is not compared yet.
    """
    for place in source.places:
        path = data_dir() / place
        if path.is_file():
            return path
        if source.members and all(_member_files(source, path)):
            return path
    downloaded = _download_path(source)
    return downloaded if downloaded.is_file() else None


def fetch_source(
    source: Source, *, local_http: bool = False, progress: bool = True
) -> Path:
    """Path of a verified copy of a data set, downloaded if need be.

    Raises:
        DataError: the copy that is here differs from size or checksum.
        DownloadError: there is none and it cannot be downloaded; the message
            says where to put it by hand.
    """
    path = find_source(source)
    if path is not None:
        if path.is_file():
            verify(path, size=source.size, sha256=source.sha256)
        return path
    path = _download_path(source)
    try:
        return download(
            source.address,
            path,
            limit=source.limit,
            size=source.size,
            sha256=source.sha256,
            local_http=local_http,
            progress=progress,
        )
    except DownloadError as error:
        raise DownloadError(
            f"{error}. To do it by hand, get {source.url} elsewhere and put "
            f"it at {path}, or set SERENDIFF_DATA to its folder"
        ) from error


def _download_path(source: Source) -> Path:
    return cache_dir() / "data" / source.file


def _readable(source: Source, path: Path) -> Path:
    """The CSV file, or the folder with the members of an archive."""
    if not source.members:
        return path
    if path.is_file():
        path = _unpacked(
            path, source.id, source.members, source.optional, source.limit
        )
    if source.member_sha256:
        files = _member_files(source, path)
        for file, sha256 in zip(files, source.member_sha256, strict=True):
            verify(file, sha256=sha256)
    return path


def _member_files(source: Source, folder: Path) -> list[Path | None]:
    """Each member's file in a folder; None where it is not there."""
    names = ((name, name.replace(" ", "")) for name in source.members)
    return [
        next(
            (folder / name for name in pair if (folder / name).is_file()), None
        )
        for pair in names
    ]


def _unpacked(
    path: Path,
    name: str,
    members: Sequence[str],
    optional: Sequence[str],
    limit: int,
) -> Path:
    """Folder of the cache with the members of an archive."""
    folder = cache_dir() / "data" / f"{name}-{sha256_file(path)[:12]}"
    return unpack(path, members, folder, limit=limit, optional=optional)


def _read_serenlens(source_id: str) -> Callable[[Path], Interactions]:
    def read(path: Path) -> Interactions:
        data = read_file(path, layout="serendiff", name=source_id)
        differing = table1.differences(data, source_id)
        notes = tuple(f"Not as in Table 1: {line}." for line in differing)
        part = "book" if source_id.endswith("books") else "film"
        return dataclasses.replace(
            data,
            source=(
                f"SerenLens (Fu et al., 2023): {part} reviews from Amazon "
                "with serendipity labels by crowd workers."
            ),
            notes=(*data.notes, *notes),
        )

    return read


_READERS: dict[str, Callable[..., Interactions]] = {
    "movielens-small": read_movielens,
    "serenlens-books": _read_serenlens("serenlens-books"),
    "serenlens-movies": _read_serenlens("serenlens-movies"),
    "serendipity-2018": read_serendipity_2018,
    "goodreads-surprise": read_goodreads_surprise,
}
SURVEYS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "taobao-serendipity": read_taobao,
    "movielens-beliefs-2024": read_beliefs,
    "personality-2018": read_personality,
}


def fetch(name: str) -> Path | None:
    """Bring a data set here: its verified file or folder.

    Returns:
        The path; None for a simulated world, which needs no file.

    Raises:
        UnknownDatasetError: no such id.
    """
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

    Args:
        name_or_path: a data id or the path of a file.
        **options: see :func:`load_dataset`.

    Returns:
        One row per finding, columns ``what``, ``found``, ``expected`` (empty
        where nothing is), ``ok``; and the data, unless they are a survey.

    Raises:
        DataError: the data are not here, or broken; see also
            :func:`load_dataset`.
    """
    name = str(name_or_path)
    rows: list[tuple[str, object, object]] = []
    source = SOURCES.get(name)
    if source is not None:
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
    if source is not None and name in SURVEYS:
        rows.append(("answers", len(load_survey(name)), source.n_users or ""))
        return _report(rows), None
    data = load_dataset(name, **options)
    expected: dict[str, object] = {}
    if name.startswith("serenlens"):
        with contextlib.suppress(DataError):  # installed without results/
            paper = table1.paper_table1()
            expected = {row: int(paper.loc[row, name]) for row in paper.index}
    found = table1.counts(data)
    labels = {
        "reviews": "rows",
        "items": "items",
        "reviews_serendipity": "rows with label 1",
        "users_serendipity": "users with label 1",
        "items_serendipity": "items with label 1",
    }
    stated = source.n_users if source and not options else None
    rows.append(("users", data.n_users, stated or ""))
    rows += [
        (label, found[key], expected.get(key, ""))
        for key, label in labels.items()
    ]
    rows.append(("content checksum", data.checksum, ""))
    rows += [("note", note, "") for note in data.notes]
    return _report(rows), data


def _report(rows: list[tuple[str, object, object]]) -> pd.DataFrame:
    report = pd.DataFrame(rows, columns=["what", "found", "expected"])
    report["ok"] = [expected in ("", found) for _, found, expected in rows]
    return report


def list_datasets() -> pd.DataFrame:
    """All data ids: what they are, whether they are here, where from."""
    worlds = [
        (name, what, "made by code", "", "")
        for name, (_, what) in WORLDS.items()
    ]
    sources = [
        (
            source.id,
            source.what,
            str(find_source(source) or "not here yet"),
            source.address,
            source.licence,
        )
        for source in SOURCES.values()
    ]
    return pd.DataFrame(
        worlds + sources, columns=["id", "what", "here", "address", "licence"]
    )
