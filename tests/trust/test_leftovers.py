"""What the dead left behind is removed, what the living write is not."""

import multiprocessing
import os
import signal
import time

from serendifflib.io import DEAD_S, atomic_path, write_bytes

FORK = multiprocessing.get_context("fork")


def _die_while_writing(path):
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half of the n")
        os.kill(os.getpid(), signal.SIGKILL)


def parts(folder):
    return sorted(path.name for path in folder.glob(".*.part"))


def test_a_later_writer_sweeps_what_a_killed_one_left(tmp_path):
    path = tmp_path / "a [1].bin"  # a name that globs read otherwise
    write_bytes(path, b"old")
    process = FORK.Process(target=_die_while_writing, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (left,) = parts(tmp_path)
    write_bytes(path, b"new")
    assert parts(tmp_path) == [left]  # somebody may still be writing it
    long_ago = time.time() - DEAD_S - 1
    os.utime(tmp_path / left, (long_ago, long_ago))
    write_bytes(tmp_path / "other.bin", b"x")
    assert parts(tmp_path) == [left]  # of another file: not its business
    write_bytes(path, b"newer")
    assert path.read_bytes() == b"newer" and parts(tmp_path) == []


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
