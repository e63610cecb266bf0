"""Files that are whole or absent: atomic writes, checksums, JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from serendifflib.errors import CacheError


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there on success.

    A reader sees the old file or the whole new one, never a part: the data
    are flushed to the disk before the rename. On any error the temporary
    file is removed and ``path`` stays as it was.

    Raises:
        CacheError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".part", dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private to one user
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # the latter: a full disk too
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: Exception) -> CacheError:
    reason = getattr(error, "strerror", None) or error
    return CacheError(
        f"cannot write {path}: {reason}; free some space, or name a place "
        "that can be written (for caches: SERENDIFF_CACHE)"
    )


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically (see :func:`atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_hash(*parts: Any) -> str:
    """SHA-256 over strings, bytes, numbers, JSON values and numpy arrays.

    Each part is tagged with its type and length, so that no two different
    lists of parts give the same bytes. Arrays count with dtype and shape.

    Raises:
        TypeError: an array of Python objects, whose bytes are addresses.

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
