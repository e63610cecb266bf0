import json
import multiprocessing
import os
import resource
import signal
import stat
import threading

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from serendifflib import io
from serendifflib.errors import CacheError
from serendifflib.io import (
    atomic_path,
    content_hash,
    read_json,
    sha256_file,
    write_bytes,
    write_json,
)


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "file.bin"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    expected = CacheError if error is OSError else error
    with pytest.raises(expected), atomic_path(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent  # a rename, never a copy
        assert temporary.suffix == ".part"
    assert path.read_bytes() == b"new"


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot write .*SERENDIFF_CACHE"):
        write_bytes(tmp_path / "file" / "below" / "x.bin", b"x")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_clear_line(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(CacheError, match="cannot write"):
        write_bytes(folder / "x.bin", b"x")
    assert not list(folder.iterdir())


def _write_on_a_full_disk(folder, kind, answers):
    # a limit on the size of files fails as a full disk does: in write()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        if kind == "bytes":
            write_bytes(folder / "x.bin", bytes(100_000))
        else:
            with atomic_path(folder / "x.bin") as path:
                tensors = {"a": np.zeros(100_000)}
                safetensors.numpy.save_file(tensors, path)
    except CacheError as error:
        answers.put(str(error))
    else:
        answers.put("written")


@pytest.mark.parametrize("kind", ["bytes", "tensors"])
def test_a_full_disk_is_one_clear_line(tmp_path, kind):
    write_bytes(tmp_path / "x.bin", b"old")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(
        target=_write_on_a_full_disk, args=(tmp_path, kind, answers)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    answer = answers.get()
    assert answer.startswith(f"cannot write {tmp_path / 'x.bin'}")
    assert "too large" in answer and "\n" not in answer
    assert os.listdir(tmp_path) == ["x.bin"]
    assert (tmp_path / "x.bin").read_bytes() == b"old"


def test_readers_never_see_half_a_file(tmp_path):
    path = tmp_path / "x.bin"
    versions = [bytes([k]) * 200_000 for k in range(4)]
    write_bytes(path, versions[0])
    stop = threading.Event()

    def write():
        k = 0
        while not stop.is_set():
            k += 1
            write_bytes(path, versions[k % 4])

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        seen = [path.read_bytes() for _ in range(100)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert set(seen) <= set(versions)
    assert os.listdir(tmp_path) == ["x.bin"]


def test_json_comes_back(tmp_path):
    value = {"b": [1, 2.5, None], "a": "ü\ud800 <script>\n"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["a", "b"]


def test_a_value_that_json_lacks_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_sha256_is_the_known_one(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


PARTS = st.one_of(
    st.text(max_size=4),
    st.binary(max_size=4),
    st.integers(-3, 3),
    st.booleans(),
    st.none(),
    st.lists(st.integers(0, 3), max_size=2),
)


@settings(max_examples=300)
@given(st.lists(PARTS, max_size=3), st.lists(PARTS, max_size=3))
def test_only_equal_parts_have_equal_hashes(one, other):
    def exact(parts):
        return [(type(part), repr(part)) for part in parts]

    same = exact(one) == exact(other)
    assert (content_hash(*one) == content_hash(*other)) == same


def test_parts_that_look_alike_do_not_collide():
    values = [
        np.arange(4),
        np.arange(4).reshape(2, 2),
        np.arange(4).reshape(2, 2).T,
        np.arange(4, dtype=np.int32),
        np.arange(4, dtype=np.float64),
        np.array(4),
        np.array([4]),
        np.arange(4).tobytes(),
        [0, 1, 2, 3],
        "[0, 1, 2, 3]",
        b"[0, 1, 2, 3]",
        4,
        4.0,
        "4",
        True,
        1,
        "",
        b"",
        None,
    ]
    hashes = [content_hash(value) for value in values]
    hashes += [content_hash(), content_hash("a", "b"), content_hash("ab")]
    hashes += [content_hash("ab", ""), content_hash("", "ab")]
    hashes += [content_hash(["a", "b"]), content_hash("a:1:b")]
    assert len(set(hashes)) == len(hashes)


def test_layout_in_memory_does_not_count():
    values = np.arange(12).reshape(3, 4)
    assert content_hash(np.asfortranarray(values)) == content_hash(values)
    assert content_hash(values[:, ::2]) == content_hash(values[:, ::2].copy())


def test_an_array_of_objects_has_no_hash():
    # its bytes are addresses, another hash in every process
    with pytest.raises(TypeError, match="Python objects"):
        content_hash(np.array(["a", None], dtype=object))


def test_a_hash_is_the_same_in_every_release():
    parts = ("a", b"b", 1, [2.5, None], np.arange(3, dtype="<i8"))
    assert content_hash(*parts) == (
        "1fc814b01a4094fb28219e728ebcbb7d799cf3d7e4a85e113ef43a0efddfa167"
    )


def test_a_process_that_waits_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(io, "PATIENCE_S", 0.01)
    path = tmp_path / "model"
    done = threading.Event()

    def hold():
        with io.locked(path):
            held.set()
            done.wait(10)

    held = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    threading.Timer(0.2, done.set).start()
    with io.locked(path):
        pass
    holder.join()
    said = capsys.readouterr()
    assert said.err == f"waiting for another process: {path}\n"
    assert said.out == ""
    with io.locked(path):  # nobody holds it: nothing to say
        pass
    assert capsys.readouterr().err == ""


def test_results_of_an_installed_package_go_to_the_current_folder(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("SERENDIFF_RESULTS", raising=False)
    assert io.results_dir() == io.project_root() / "results"
    monkeypatch.setattr(io, "project_root", lambda: tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    assert io.results_dir() == tmp_path / "serendiff-results"


def test_the_advice_names_the_right_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("SERENDIFF_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(CacheError, match="for results: SERENDIFF_RESULTS"):
        io.write_bytes(tmp_path / "results" / "x" / "y", b"")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="for caches: SERENDIFF_CACHE"):
        io.write_bytes(tmp_path / "file" / "y", b"")
    with pytest.raises(CacheError, match="for caches: SERENDIFF_CACHE"):
        io.check_folder(tmp_path / "file" / "vectors")


def test_no_home_and_no_cache(monkeypatch):
    monkeypatch.delenv("SERENDIFF_CACHE", raising=False)

    def nobody(name):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(io.pooch, "os_cache", nobody)
    with pytest.raises(CacheError, match="name one in SERENDIFF_CACHE"):
        io.cache_dir()
