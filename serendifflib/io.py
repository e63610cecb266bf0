"""Where files live, and files that are whole or absent."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pooch
from safetensors import SafetensorError

from serendifflib.errors import CacheError

try:
    import fcntl
except ImportError:  # Windows: unfinished files of the dead stay there
    fcntl = None  # type: ignore[assignment]

PATIENCE_S = 2.0  # after which a process that waits says so


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there on success.

    A reader sees the old file or the whole new one, for the data are flushed
    first. After an error ``path`` is as it was; what a killed process left
    behind is removed by the next one that writes the same file.

    Raises:
        CacheError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    with writing(path):
        if is_stream(path):
            raise OSError("it is a pipe or a device, not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, temporary = _temporary(path)
    try:
        with writing(path):
            yield temporary
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes it private to one user
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def is_stream(path: Path | str) -> bool:
    """Whether a path names a pipe or a device, which can be read only once."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _temporary(path: Path) -> tuple[int | None, Path]:
    """A new file beside ``path``, locked while this process holds it open."""
    while True:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".part", dir=path.parent
        )
        if fcntl is None:  # Windows renames no file that is open
            os.close(handle)
            return None, Path(name)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # swept by another process before it was locked


def _sweep(path: Path) -> None:
    """Remove unfinished copies of ``path``: a dead writer's lock is free."""
    if fcntl is None:
        return
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError), open(old, "rb+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            old.unlink()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one line about ``path``."""
    try:
        yield
    except filelock.Timeout:
        raise  # an OSError too, but it means "busy"
    except (OSError, SafetensorError) as error:  # the latter: a full disk too
        reason = getattr(error, "strerror", None) or error
        where = "for caches: SERENDIFF_CACHE"
        if results_dir() in path.parents:
            where = "for results: SERENDIFF_RESULTS"
        raise CacheError(
            f"cannot write {path}: {reason}; free some space, or name a "
            f"place that can be written ({where})"
        ) from error


def check_folder(folder: Path) -> None:
    """Find out before the work whether its result can be written."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically (see :func:`atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def append_lines(path: Path | str, lines: Sequence[str]) -> None:
    """Append lines to a file that several processes may write: all or none.

    What a killed writer left unfinished at the end is cut off first.

    Raises:
        CacheError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path), open(path, "ab+", 0) as stream:
            stream.seek(0)
            end = stream.readall().rfind(b"\n") + 1
            stream.truncate(end)
            rest = "".join(f"{line}\n" for line in lines).encode()
            try:
                while rest:  # a disk that fills takes a part first
                    rest = rest[stream.write(rest) :]
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)
                if not end:  # nobody sees a file without a line
                    path.unlink(missing_ok=True)
                raise


@contextlib.contextmanager
def locked(path: Path | str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a path; a killed process lets go of it at once.

    The lock is a file in the cache, so the path's folder may be read-only.

    Raises:
        CacheError: the cache cannot be written.
        filelock.Timeout: another process holds it, and ``wait`` is False.
    """
    folder = cache_dir() / "locks"
    name = content_hash(os.path.realpath(path))[:32]
    lock = filelock.FileLock(folder / f"{name}.lock")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE_S if wait else 0)
        except filelock.Timeout:
            if not wait:
                raise
            print(f"waiting for another process: {path}", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a ValueError where it holds none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_hash(*parts: Any) -> str:
    """SHA-256 over strings, bytes, numbers, JSON values and numpy arrays.

    Each part is tagged with its type and length: no two different lists of
    parts give the same bytes. Arrays count with dtype and shape.

    >>> content_hash("ab", "c") == content_hash("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            if part.dtype.hasobject:
                raise TypeError("an array of Python objects has no content")
            tag = f"array:{part.dtype.str}:{part.shape}"
            content = part.tobytes()  # in C order, whatever its layout
        elif isinstance(part, bytes):
            tag, content = "bytes", part
        elif isinstance(part, str):
            tag, content = "str", part.encode("utf-8", "surrogatepass")
        else:
            tag = "json"
            content = json.dumps(part, sort_keys=True).encode()
        digest.update(f"{tag}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()


def cache_dir() -> Path:
    """Folder of everything that can be made again (``$SERENDIFF_CACHE``)."""
    configured = os.environ.get("SERENDIFF_CACHE")
    try:
        return Path(configured or pooch.os_cache("serendiff")).expanduser()
    except (RuntimeError, KeyError) as error:  # no HOME, no passwd entry
        raise CacheError(
            "there is no home folder for a cache: name one in SERENDIFF_CACHE"
        ) from error


def data_dir() -> Path:
    """Folder with local copies of data sets (``$SERENDIFF_DATA``)."""
    configured = os.environ.get("SERENDIFF_DATA")
    return Path(configured) if configured else cache_dir() / "data"


def project_root() -> Path:
    """The checkout that holds ``results/`` and ``notebooks/``."""
    return Path(__file__).resolve().parent.parent


def results_dir() -> Path:
    """Recorded runs: ``$SERENDIFF_RESULTS``, or ``results/`` of the checkout.

    An installed package has none: ``serendiff-results`` in the current folder.
    """
    configured = os.environ.get("SERENDIFF_RESULTS")
    if configured:
        return Path(configured)
    if (project_root() / "pyproject.toml").exists():
        return project_root() / "results"
    return Path.cwd() / "serendiff-results"
