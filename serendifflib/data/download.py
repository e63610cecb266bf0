"""Fetch one file over https: resumed, limited, verified, whole or absent.

The bytes arrive in ``NAME.part``, where a download that broke off goes on the
next time; the file takes its name only after size and SHA-256 (or, for an
archive, the checksum of each member) are right. Not by pooch: its temporary
files stay behind when a process is killed, and start anew.
"""

from __future__ import annotations

import contextlib
import os
import time
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

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
BUSY = (429, 500, 502, 503, 504)  # statuses that may pass
BEYOND = 416  # no bytes lie beyond those that are here


def download(
    url: str,
    path: Path | str,
    *,
    limit: int,
    size: int | None = None,
    sha256: str | None = None,
) -> Path:
    """Download ``url`` to ``path`` unless it is there already.

    Of two processes that ask for the same file, one fetches it and the other
    waits. A ``.zip`` is also tested as an archive.

    Args:
        url: an https address, or http to this very machine.
        path: the file to write.
        limit: most bytes to accept.
        size: expected bytes, where they are known.
        sha256: expected checksum, where it is known.

    Raises:
        DownloadError: not https, no connection, too large, or not the file
            that was expected (what arrived is removed then).
    """
    path = Path(path)
    session = _session(url)
    part = path.with_name(path.name + ".part")

    with writing(path), locked(path):
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        if size is None or _length(part) != size:
            _fetch(session, url, part, limit)
        try:
            verify(part, size=size, sha256=sha256)
            if path.suffix == ".zip":
                with _whole(part), zipfile.ZipFile(part) as archive:
                    bad = archive.testzip()
                if bad is not None:
                    raise DataError(f"{path}: member {bad!r} is damaged")
        except DataError as error:
            part.unlink()
            raise DownloadError(
                f"{url}: not the expected file, it was removed: {error}"
            ) from error
        with open(part, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    return path


def _session(url: str) -> requests.Session:
    """A session that no redirect leads away from https."""
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
    session: requests.Session, url: str, part: Path, limit: int
) -> None:
    """Bring the rest of a file to ``part``, in several attempts."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        have = _length(part)
        wanted = {"Range": f"bytes={have}-"} if have else {}
        try:
            with session.get(
                url, headers=wanted, stream=True, timeout=TIMEOUT_S
            ) as answer:
                return _receive(answer, part, limit)
        except requests.exceptions.InvalidSchema as error:
            raise DownloadError(
                f"{url}: only https addresses are fetched: {error}"
            ) from error
        except requests.RequestException as error:
            last = error
    kept = _length(part)
    again = f"; {kept:,} bytes are kept, try again to go on" if kept else ""
    reason = " ".join(str(last).split())
    raise DownloadError(f"{url}: cannot be fetched: {reason}{again}") from last


def _receive(answer: requests.Response, part: Path, limit: int) -> None:
    """Append to ``part`` what it lacks, or start it anew."""
    have, status = _length(part), answer.status_code
    place = answer.headers.get("Content-Range", "")
    if status == BEYOND:
        if place.rpartition("/")[2] == str(have):
            return  # it was complete already
        part.unlink(missing_ok=True)
        raise requests.RequestException("the unfinished file was of no use")
    if not answer.ok:
        words = f"the server says {status} {answer.reason}"
        if status in BUSY:
            raise requests.RequestException(words)
        raise DownloadError(f"{answer.url}: {words}")
    if not place.startswith(f"bytes {have}-"):
        have = 0  # the server sends the whole file
    length = answer.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else 0
    with (
        open(part, "ab" if have else "wb") as stream,
        tqdm(
            desc=part.stem,
            total=total or None,
            initial=have,
            unit="B",
            unit_scale=True,
        ) as bar,
    ):
        for block in answer.iter_content(RECEIVED):
            have += len(block)
            if max(have, total) > limit:
                stream.close()
                part.unlink()
                raise DownloadError(
                    f"{answer.url}: {max(have, total):,} bytes or more, "
                    f"above the limit of {limit:,}"
                )
            stream.write(block)
            stream.flush()
            bar.update(len(block))
    if have < total:
        raise requests.RequestException(
            f"it ended at {have:,} of {total:,} bytes"
        )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def verify(
    path: Path | str, *, size: int | None = None, sha256: str | None = None
) -> None:
    """Compare a file with the size and the checksum it should have."""
    path = Path(path)
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            with open(path, "rb") as stream:
                if stream.read(40).startswith(b"version https://git-lfs"):
                    raise DataError(
                        f"{path}: is only the git-LFS pointer to the data: "
                        "run `git lfs pull` where it came from"
                    )
            cut = "; it is cut short" if found < size else ""
            raise DataError(
                f"{path}: has {found:,} bytes instead of {size:,}{cut}"
            )
        if sha256 is not None and (digest := sha256_file(path)) != sha256:
            raise DataError(
                f"{path}: SHA-256 is {digest[:16]}... instead of "
                f"{sha256[:16]}..."
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


def unpack(
    archive: Path | str,
    names: Sequence[str],
    folder: Path | str,
    *,
    limit: int,
    optional: Sequence[str] = (),
) -> Path:
    """Write members of a zip file into ``folder``; those that are right stay.

    Members are found by their last name, the one nearest the top, and written
    under that name alone: no path in the archive decides where a file goes. A
    member unpacks to at most ``limit`` bytes; ``optional`` ones may be absent.

    Raises:
        DataError: damaged, encrypted, a name missing or there twice, or a
            member above the limit.
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
                with (
                    atomic_path(folder / name) as path,
                    open(path, "wb") as stream,
                ):
                    stream.writelines(_blocks(archive, stored, info))
    return folder


def _blocks(
    archive: Path, stored: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Iterator[bytes]:
    """Bytes of a member; what is wrong with it is no fault of the disk."""
    with _whole(archive), stored.open(info) as source:
        while block := source.read(BLOCK):
            yield block


def _members(
    archive: Path, stored: zipfile.ZipFile, names: set[str]
) -> dict[str, zipfile.ZipInfo]:
    """Files by last name; the one nearest the top wins."""
    members: dict[str, tuple[int, zipfile.ZipInfo]] = {}
    for info in stored.infolist():
        # Windows writes other slashes; a folder's name ends in one
        *above, name = info.filename.replace("\\", "/").split("/")
        depth, _ = members.get(name, (len(above) + 1, None))
        if name in names and len(above) == depth:
            raise DataError(
                f"{archive}: holds {name!r} twice; unpack it and keep one"
            )
        if name in names and len(above) < depth:
            members[name] = len(above), info
    return {name: info for name, (_, info) in members.items()}


def _is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a member's file has its length and checksum."""
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    checksum = 0
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == info.CRC
