"""Fetch one file over https: resumed, limited, verified, whole or absent.

The bytes go to ``NAME.part`` beside the final file. A download that breaks
off goes on from there the next time; the file takes its name only after its
size and SHA-256 (or, for an archive, the checksum of each member) are right.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import requests
from tqdm.auto import tqdm

from serendifflib.errors import DataError, DownloadError
from serendifflib.io import atomic_path, locked, sha256_file, writing

BLOCK = 1 << 18  # bytes read from a disk at a time
RECEIVED = 1 << 14  # bytes from the net, which a kill loses at most
ATTEMPTS = 3
WAIT_S = 1.0  # before the second attempt; it doubles each time
TIMEOUT_S = 30.0  # longest silence of the server
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
TRY_AGAIN = (429, 500, 502, 503, 504)


class _TryAgain(Exception):
    """The connection broke; another attempt may help."""


def download(
    url: str,
    path: Path | str,
    *,
    limit: int,
    size: int | None = None,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Download ``url`` to ``path`` unless it is there already.

    Two processes may ask for the same file at the same time: one fetches it,
    the other waits and finds it.

    Args:
        url: an https address, or http to this very machine.
        path: the file to write.
        limit: most bytes to accept.
        size: expected bytes, where they are known.
        sha256: expected checksum, where it is known. A name that ends in
            ``.zip`` is also tested as an archive.
        progress: show a progress bar.

    Returns:
        ``path``.

    Raises:
        DownloadError: not https, no connection, too large, or not the file
            that was expected (what arrived is removed then).
        CacheError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    session = _session(url)
    part = path.with_name(path.name + ".part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if path.exists():
            return path
        if size is None or _length(part) != size:
            _fetch(session, url, part, limit, progress)
        try:
            verify(part, size=size, sha256=sha256)
            if path.suffix == ".zip":
                _test_archive(part)
        except DataError as error:
            part.unlink(missing_ok=True)
            raise DownloadError(
                f"{url}: not the expected file, it was removed: {error}"
            ) from error
        with writing(path):
            with open(part, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(part, path)
    return path


def _session(url: str) -> requests.Session:
    """A session that no redirect leads away from https.

    Raises:
        DownloadError: the address is not https, nor this very machine.
    """
    address = urllib.parse.urlsplit(url)
    local = address.scheme == "http" and address.hostname in LOCAL_HOSTS
    if not local and not (address.scheme == "https" and address.hostname):
        raise DownloadError(f"{url}: only https addresses are fetched")
    session = requests.Session()
    plain = session.adapters.pop("http://")
    if local:
        session.mount(f"http://{address.netloc}/", plain)
    session.headers["Accept-Encoding"] = "identity"
    session.headers["User-Agent"] = "serendifflib"
    return session


def _fetch(
    session: requests.Session, url: str, part: Path, limit: int, progress: bool
) -> None:
    """Bring the rest of a file to ``part``, in several attempts."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        try:
            with _answer(session, url, _length(part)) as answer:
                return _receive(answer, url, part, limit, progress)
        except _TryAgain as error:
            last = error
    kept = _length(part)
    again = f"; {kept:,} bytes are kept, try again to go on" if kept else ""
    raise DownloadError(f"{url}: cannot be fetched: {last}{again}") from last


def _answer(
    session: requests.Session, url: str, have: int
) -> requests.Response:
    """What the server says when asked for all but the first bytes.

    Raises:
        DownloadError: a status that another attempt will not change.
        _TryAgain: anything else that is no file.
    """
    wanted = {"Range": f"bytes={have}-"} if have else {}
    try:
        answer = session.get(
            url, headers=wanted, stream=True, timeout=TIMEOUT_S
        )
    except requests.exceptions.InvalidSchema as error:
        raise DownloadError(
            f"{url}: only https addresses are fetched: {error}"
        ) from error
    except requests.RequestException as error:
        raise _TryAgain(_reason(error)) from error
    beyond = requests.codes.requested_range_not_satisfiable
    if answer.ok or answer.status_code == beyond:
        return answer
    answer.close()
    words = f"the server says {answer.status_code} {answer.reason}"
    if answer.status_code in TRY_AGAIN:
        raise _TryAgain(words)
    raise DownloadError(f"{url}: {words}")


def _receive(
    answer: requests.Response,
    url: str,
    part: Path,
    limit: int,
    progress: bool,
) -> None:
    """Append to ``part`` what it lacks, or start it anew.

    Raises:
        DownloadError: more than ``limit`` bytes. CacheError: the disk.
        _TryAgain: the connection broke off.
    """
    have = _length(part)
    place = answer.headers.get("Content-Range", "")
    if not answer.ok:  # nothing lies beyond what is here
        if place.rpartition("/")[2] == str(have):
            return  # it was complete already
        part.unlink(missing_ok=True)
        raise _TryAgain("the unfinished file was of no use")
    if not place.startswith(f"bytes {have}-"):
        have = 0  # the server sends the whole file
    length = answer.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else None
    bar = tqdm(
        desc=part.stem,
        total=total,
        initial=have,
        unit="B",
        unit_scale=True,
        disable=not progress,
    )
    with writing(part), open(part, "ab" if have else "wb") as stream, bar:
        for block in _blocks(answer):
            have += len(block)
            if max(have, total or 0) > limit:
                stream.close()
                part.unlink()
                raise DownloadError(
                    f"{url}: {max(have, total or 0):,} bytes or more, above "
                    f"the limit of {limit:,}"
                )
            stream.write(block)
            stream.flush()
            bar.update(len(block))
    if total is not None and have < total:
        raise _TryAgain(f"it ended at {have:,} of {total:,} bytes")


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(RECEIVED)
    except (requests.RequestException, OSError) as error:
        raise _TryAgain(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What happened, shorter than requests says it."""
    for kind, words in (
        (requests.Timeout, "the server is silent"),
        (requests.exceptions.SSLError, "its certificate is not accepted"),
        (
            requests.exceptions.ChunkedEncodingError,
            "the connection broke off",
        ),
        (requests.ConnectionError, "there is no connection"),
    ):
        if isinstance(error, kind):
            return words
    return " ".join(str(error).split()) or type(error).__name__


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def verify(
    path: Path | str, *, size: int | None = None, sha256: str | None = None
) -> None:
    """Compare a file with the size and the checksum it should have.

    Raises:
        DataError: one of them differs, or the file cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            start = stream.read(40)
        found = path.stat().st_size
        if size is not None and found != size:
            if start.startswith(b"version https://git-lfs"):
                raise DataError(
                    f"{path}: is only the git-LFS pointer to the data: run "
                    "`git lfs pull` where it came from"
                )
            cut = "; it is cut short" if found < size else ""
            raise DataError(
                f"{path}: has {found:,} bytes instead of {size:,}{cut}"
            )
        if sha256 is not None and (digest := sha256_file(path)) != sha256:
            raise DataError(
                f"{path}: SHA-256 is {digest[:16]}... instead of "
                f"{sha256[:16]}...; the content differs"
            )
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}"
        ) from error


@contextlib.contextmanager
def _whole(archive: Path) -> Iterator[None]:
    """Turn whatever reading an archive raises into one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{archive}: cannot be read: no such file") from error
    except Exception as error:  # one wrong byte can raise anything
        raise DataError(f"{archive}: no whole zip file: {error}") from error


def _test_archive(path: Path) -> None:
    """Check every member's checksum.

    Raises:
        DataError: no zip file, or a member is damaged.
    """
    with _whole(path), zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise DataError(f"{path}: the member {bad!r} is damaged")


def unpack(
    archive: Path | str,
    names: Sequence[str],
    folder: Path | str,
    *,
    limit: int,
    optional: Sequence[str] = (),
) -> Path:
    """Write some members of a zip file into ``folder``.

    Members are found by their last name and written under that name alone,
    so no path inside the archive decides where a file goes.

    Args:
        archive: the zip file.
        names: file names that must be in it, at any depth.
        folder: where they go; files that are right already stay.
        limit: most bytes that a member may unpack to.
        optional: names that may be absent.

    Returns:
        ``folder``.

    Raises:
        DataError: no zip file, damaged, encrypted, a name missing or there
            twice, a member above the limit, or a path that leads out.
        CacheError: the folder cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    with _whole(archive):
        stored = zipfile.ZipFile(archive)
    with stored:
        members = _members(archive, stored, {*names, *optional})
        for name in names:
            if name not in members:
                raise DataError(f"{archive}: holds no file {name!r}")
        for name, info in members.items():
            if info.file_size > limit:
                raise DataError(
                    f"{archive}: {name!r} unpacks to {info.file_size:,} "
                    f"bytes, above the limit of {limit:,}"
                )
        if all(_is_there(folder / n, info) for n, info in members.items()):
            return folder  # without a lock: it may be read-only
        with locked(folder):
            for name, info in members.items():
                if _is_there(folder / name, info):
                    continue
                with (
                    atomic_path(folder / name) as path,
                    open(path, "wb") as stream,
                ):
                    for block in _unpacked(archive, stored, info):
                        stream.write(block)
    return folder


def _unpacked(
    archive: Path, stored: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Iterator[bytes]:
    """Bytes of a member; what is wrong with it is no fault of the disk."""
    with _whole(archive), stored.open(info) as source:
        while block := source.read(BLOCK):
            yield block


def _members(
    archive: Path, stored: zipfile.ZipFile, names: set[str]
) -> dict[str, zipfile.ZipInfo]:
    """Regular files by last name; the one nearest the top wins."""
    members: dict[str, zipfile.ZipInfo] = {}
    depths: dict[str, int] = {}
    for info in stored.infolist():
        # Windows writes other slashes
        place = PurePosixPath(info.filename.replace("\\", "/"))
        name, depth = place.name, len(place.parts)
        drive = ":" in "".join(place.parts[:1])
        if place.is_absolute() or ".." in place.parts or drive:
            raise DataError(
                f"{archive}: holds the unsafe path {info.filename!r}"
            )
        is_link = stat.S_ISLNK(info.external_attr >> 16)
        if info.is_dir() or is_link or name not in names:
            continue
        if depth == depths.get(name):
            raise DataError(
                f"{archive}: holds {name!r} twice; unpack it and keep one of "
                "them"
            )
        if depth < depths.get(name, depth + 1):
            members[name], depths[name] = info, depth
    return members


def _is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a member's file has its length and checksum."""
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    checksum = 0
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == info.CRC
