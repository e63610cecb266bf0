"""What the dead left behind is removed, what the living write is not."""

import multiprocessing
import os
import signal

import pytest

from serendifflib import io
from serendifflib.io import atomic_path, write_bytes

FORK = multiprocessing.get_context("fork")


def _die_while_writing(path):
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half of the n")
        os.kill(os.getpid(), signal.SIGKILL)


def parts(folder):
    return sorted(path.name for path in folder.glob(".*.part"))


def test_the_next_writer_sweeps_what_a_killed_one_left(tmp_path):
    path = tmp_path / "a [1].bin"  # a name that globs read otherwise
    write_bytes(path, b"old")
    for _ in range(3):
        process = FORK.Process(target=_die_while_writing, args=(path,))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert path.read_bytes() == b"old"
        assert len(parts(tmp_path)) == 1  # each sweeps the one before it
    write_bytes(tmp_path / "other.bin", b"x")
    assert len(parts(tmp_path)) == 1  # of another file: not its business
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and parts(tmp_path) == []


def _write_slowly(path, started, go_on):
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"slow")
        started.set()
        go_on.wait(60)


def test_a_living_writer_is_left_alone(tmp_path):
    path = tmp_path / "x.bin"
    started, go_on = FORK.Event(), FORK.Event()
    process = FORK.Process(target=_write_slowly, args=(path, started, go_on))
    process.start()
    assert started.wait(60)
    with atomic_path(path) as mine:
        mine.write_bytes(b"fast")
        write_bytes(path, b"nested")  # two at once in one process
        assert len(parts(tmp_path)) == 2
    assert path.read_bytes() == b"fast"
    go_on.set()
    process.join(60)
    assert process.exitcode == 0
    assert path.read_bytes() == b"slow" and parts(tmp_path) == []


def test_a_file_swept_before_it_was_locked_is_made_again(
    tmp_path, monkeypatch
):
    """The moment between making the temporary file and locking it."""
    path, original, swept = tmp_path / "x.bin", io.tempfile.mkstemp, []

    def make(**options):
        handle, name = original(**options)
        if not swept:
            swept.append(name)
            io._sweep(path)  # another process, just now
            assert not os.path.exists(name)
        return handle, name

    monkeypatch.setattr(io.tempfile, "mkstemp", make)
    write_bytes(path, b"whole")
    assert swept and path.read_bytes() == b"whole" and parts(tmp_path) == []


def test_without_locks_files_are_still_whole(tmp_path, monkeypatch):
    """Windows has no such locks; nothing is swept there."""
    monkeypatch.setattr(io, "fcntl", None)
    (tmp_path / ".x.bin.dead.part").write_bytes(b"")
    with pytest.raises(ValueError), atomic_path(tmp_path / "x.bin"):
        raise ValueError
    write_bytes(tmp_path / "x.bin", b"whole")
    assert (tmp_path / "x.bin").read_bytes() == b"whole"
    assert parts(tmp_path) == [".x.bin.dead.part"]
