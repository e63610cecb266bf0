"""Fetch one file over https: resumed, limited, verified, whole or absent.

The bytes go to ``NAME.part`` beside the final file. A download that breaks
off goes on from there the next time; the file takes its name only after its
size and SHA-256 (or, for an archive, the checksum of each member) are right.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from filelock import FileLock
from tqdm.auto import tqdm

from serendifflib.errors import CacheError, DataError, DownloadError
from serendifflib.io import atomic_path, sha256_file

BLOCK = 1 << 18
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
TRY_AGAIN = (429, 500, 502, 503, 504)


def download(
    url: str,
    path: Path | str,
    *,
    limit: int,
    size: int | None = None,
    sha256: str | None = None,
    attempts: int = 3,
    wait_s: float = 1.0,
    timeout_s: float = 30.0,
    local_http: bool = False,
    progress: bool = True,
) -> Path:
    """Download ``url`` to ``path`` unless it is there already.

    Two processes may ask for the same file at the same time: one fetches it,
    the other waits and finds it.

    Args:
        url: an https address.
        path: the file to write.
        limit: most bytes to accept.
        size: expected bytes, where they are known.
        sha256: expected checksum, where it is known. A name that ends in
            ``.zip`` is also tested as an archive.
        attempts: how often a broken connection is tried, at least once.
        wait_s: pause before the second attempt; it doubles each time.
        timeout_s: longest silence of the server.
        local_http: also accept plain http from this very machine.
        progress: show a progress bar.

    Returns:
        ``path``.

    Raises:
        DownloadError: not https, no connection, too large, or not the file
            that was expected (what arrived is removed then).
        CacheError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    check_address(url, local_http=local_http)
    part = path.with_name(path.name + ".part")
    with locked(path):
        if path.exists():
            return path
        for attempt in range(attempts):
            if attempt:
                time.sleep(wait_s * 2 ** (attempt - 1))
            try:
                if size is None or _length(part) != size:
                    _transfer(
                        url, part, limit, timeout_s, local_http, progress
                    )
                break
            except (http.client.HTTPException, OSError) as error:
                last = attempt == attempts - 1
                if last or not _may_pass(error):
                    raise _broken_off(url, part, error) from error
        try:
            verify(part, size=size, sha256=sha256)
            if path.suffix == ".zip":
                _test_archive(part)
        except DataError as error:
            part.unlink(missing_ok=True)
            raise DownloadError(
                f"{url}: not the expected file, it was removed: {error}"
            ) from error
        with _on_disk(path):
            with open(part, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(part, path)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; a killed process lets go of it at once.

    Raises:
        CacheError: the folder cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with _on_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_address(url: str, *, local_http: bool = False) -> None:
    """Refuse every address that is not https.

    Raises:
        DownloadError: another scheme, unless it is http to this very machine
            and ``local_http`` allows that.
    """
    address = urllib.parse.urlsplit(url)
    if address.scheme == "https" and address.hostname:
        return
    is_local = address.scheme == "http" and address.hostname in LOCAL_HOSTS
    if not (local_http and is_local):
        raise DownloadError(f"{url}: only https addresses are fetched")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never away from https."""

    def __init__(self, local_http: bool) -> None:
        self._local_http = local_http

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Check each new address before it is followed."""
        check_address(newurl, local_http=self._local_http)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transfer(
    url: str,
    part: Path,
    limit: int,
    timeout_s: float,
    local_http: bool,
    progress: bool,
) -> None:
    """Append to ``part`` what it lacks, or start it anew.

    Raises:
        OSError, HTTPException: the connection failed or broke off.
        DownloadError: more than ``limit`` bytes.
        CacheError: the disk.
    """
    have = _length(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": "serendifflib"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = urllib.request.build_opener(_Redirects(local_http))
    request = urllib.request.Request(url, headers=headers)
    try:
        response = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            total = error.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(have):
                return  # it was complete already
            part.unlink(missing_ok=True)
            raise ConnectionError(
                "the unfinished file was of no use"
            ) from error
        raise
    with response:
        start = response.headers.get("Content-Range", "")
        if response.status != http.HTTPStatus.PARTIAL_CONTENT or (
            not start.startswith(f"bytes {have}-")
        ):
            have = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None  # type: ignore
        if total and total > limit:  # type: ignore
            raise _too_large(url, total, limit)  # type: ignore
        bar = tqdm(
            desc=part.stem,
            total=total,
            initial=have,
            unit="B",
            unit_scale=True,
            disable=not progress,
        )
        with _on_disk(part):
            stream = open(part, "ab" if have else "wb")
        with stream, bar:
            while block := response.read1(BLOCK):  # what is there
                have += len(block)
                if have > limit:
                    stream.close()
                    part.unlink()
                    raise _too_large(url, have, limit)
                with _on_disk(part):
                    stream.write(block)
                bar.update(len(block))
            with _on_disk(part):
                stream.flush()
    if total and have < total:  # type: ignore
        raise ConnectionError(f"it ended at {have:,} of {total:,} bytes")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in TRY_AGAIN
    return True


def _too_large(url: str, size: int, limit: int) -> DownloadError:
    return DownloadError(
        f"{url}: {size:,} bytes or more, above the limit of {limit:,}"
    )


def _broken_off(url: str, part: Path, error: Exception) -> DownloadError:
    reason = getattr(error, "reason", None) or error
    reason = " ".join(str(reason).split()) or type(error).__name__
    if isinstance(error, urllib.error.HTTPError):
        return DownloadError(f"{url}: the server says {error.code} {reason}")
    kept = _length(part)
    again = f"; {kept:,} bytes are kept, try again to go on" if kept else ""
    return DownloadError(f"{url}: cannot be fetched: {reason}{again}")


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """Turn an OSError of the file system into a CacheError."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cannot write {path}: {error.strerror or error}; free some "
            "space or point SERENDIFF_CACHE at a folder that can be written"
        ) from error


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


_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


def _test_archive(path: Path) -> None:
    """Check every member's checksum.

    Raises:
        DataError: no zip file, or a member is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except _ZIP_ERRORS as error:
        raise DataError(f"{path}: no whole zip file: {error}") from error
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
        DataError: no zip file, damaged, encrypted, a name missing, a member
            above the limit, or a path that leads out of the archive.
        CacheError: the folder cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with zipfile.ZipFile(archive) as stored:
            members = _members(archive, stored)
            for name in names:
                if name not in members:
                    raise DataError(f"{archive}: holds no file {name!r}")
            wanted = [
                members[name]
                for name in (*names, *optional)
                if name in members
            ]
            if all(_is_unpacked(folder, info) for info in wanted):
                return folder  # without a lock: it may be read-only
            with locked(folder):
                for info in wanted:
                    _unpack_one(archive, stored, info, folder, limit)
    except _ZIP_ERRORS as error:
        raise DataError(f"{archive}: no whole zip file: {error}") from error
    except OSError as error:
        raise DataError(
            f"{archive}: cannot be read: {error.strerror or error}"
        ) from error
    return folder


def _members(
    archive: Path, stored: zipfile.ZipFile
) -> dict[str, zipfile.ZipInfo]:
    """Regular files by last name; the one nearest the top wins."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in stored.infolist():
        place = _place(info)
        if not place.parts:
            continue
        if place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
            raise DataError(
                f"{archive}: holds the unsafe path {info.filename!r}"
            )
        if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
            continue
        known = members.get(place.name)
        if known is None or len(place.parts) < len(_place(known).parts):
            members[place.name] = info
    return members


def _place(info: zipfile.ZipInfo) -> PurePosixPath:
    """Path inside the archive, also of one that was packed on Windows."""
    return PurePosixPath(info.filename.replace("\\", "/"))


def _unpack_one(
    archive: Path,
    stored: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    folder: Path,
    limit: int,
) -> None:
    name = _place(info).name
    if info.flag_bits & 1:
        raise DataError(f"{archive}: the member {name!r} is encrypted")
    if info.file_size > limit:
        raise DataError(
            f"{archive}: {name!r} unpacks to {info.file_size:,} bytes, above "
            f"the limit of {limit:,}"
        )
    if _is_unpacked(folder, info):
        return
    with atomic_path(folder / name) as path, open(path, "wb") as stream:
        with stored.open(info) as source:  # reads file_size bytes at most
            shutil.copyfileobj(source, stream, BLOCK)


def _is_unpacked(folder: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a member's file has its length and checksum."""
    target = folder / _place(info).name
    if not target.is_file() or target.stat().st_size != info.file_size:
        return False
    checksum = 0
    with open(target, "rb") as stream:
        while block := stream.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == info.CRC
