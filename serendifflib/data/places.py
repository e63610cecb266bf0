"""Where the data sets of the world outside lie, here or at their publishers.

``$SERENDIFF_DATA`` comes first, then earlier downloads in the cache, then
the publisher. What has a published size and SHA-256 is compared with them
every time it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serendifflib.data.download import download, unpack, verify
from serendifflib.errors import DownloadError
from serendifflib.io import cache_dir, data_dir, read_json, sha256_file


@dataclass(frozen=True)
class Source:
    """Where one data set of the world outside comes from.

    Attributes:
        id: the data id.
        what: one line about it.
        url: https address of one file.
        env: name of the environment variable that replaces ``url``.
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
    env: str
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
    def address(self) -> str:
        """The address in use: the environment's, else the publisher's."""
        return os.environ.get(self.env) or self.url


SOURCES = {
    entry["id"]: Source(**entry)
    for entry in read_json(Path(__file__).with_name("sources.json"))
}


def find_source(source: Source) -> Path | None:
    """A copy that is here: a file, or a folder of the members; unverified."""
    for place in source.places:
        path = data_dir() / place
        if path.is_file():
            return path
        if source.members and all(_member_files(source, path)):
            return path
    downloaded = _download_path(source)
    return downloaded if downloaded.is_file() else None


def fetch_source(source: Source) -> Path:
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
        )
    except DownloadError as error:
        raise DownloadError(
            f"{error}. To do it by hand, get {source.url} elsewhere and put "
            f"it at {path}, or set SERENDIFF_DATA to its folder"
        ) from error


def _download_path(source: Source) -> Path:
    return cache_dir() / "data" / source.file


def readable(source: Source, path: Path) -> Path:
    """The CSV file, or the folder with the members of an archive."""
    if source.members and path.is_file():
        path = unpacked(
            path, source.id, source.members, source.optional, source.limit
        )
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


def unpacked(
    path: Path,
    name: str,
    members: Sequence[str],
    optional: Sequence[str],
    limit: int,
) -> Path:
    """Folder of the cache with the members of an archive."""
    folder = cache_dir() / "data" / f"{name}-{sha256_file(path)[:12]}"
    return unpack(path, members, folder, limit=limit, optional=optional)


def source_path(name: str) -> Path:
    """The verified file of one of :data:`SOURCES`, or its members' folder."""
    return readable(SOURCES[name], fetch_source(SOURCES[name]))
