"""Pipes and devices are refused at once, wherever a file may be named.

A pipe without a writer would be waited for for ever, a second look at one
finds nothing, and a device would be replaced by a file.
"""

import os
import signal
import stat

import pytest

from serendifflib.__main__ import main
from serendifflib.data.human import read_goodreads_surprise
from serendifflib.data.sources import load_dataset
from serendifflib.errors import CacheError, CheckpointError, DataError
from serendifflib.io import atomic_path, write_bytes
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.storage import FILE

pytestmark = pytest.mark.skipif(
    not hasattr(os, "mkfifo"), reason="no named pipes here"
)


@pytest.fixture(autouse=True)
def nobody_waits():
    """A test that hangs fails."""

    def ring(number, frame):
        pytest.fail("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe_in(folder, name):
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / name)
    return folder / name


RELEASES = {
    "latest": ("ratings.csv", "movies.csv"),
    "1M": ("ratings.dat", "movies.dat"),
    "100k": ("u.data", "u.item"),
}
LINES = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,1,4,1100000000\n",
    "movies.csv": "movieId,title,genres\n1,Heat,A|B\n",
    "ratings.dat": "1::1::5::978300760\n",
    "movies.dat": "1::Heat::Drama\n",
    "u.data": "1\t1\t3\t881250949\n",
    "u.item": "1|Heat|01-Jan-1995||url|" + "|".join("1" * 19) + "\n",
}


@pytest.mark.parametrize("pipe", LINES)
def test_a_file_of_movielens(tmp_path, empty_cache, pipe):
    (names,) = (pair for pair in RELEASES.values() if pipe in pair)
    for name in names:
        (tmp_path / name).write_text(LINES[name], "latin-1")
    assert len(load_dataset(str(tmp_path)).frame) == 1
    (tmp_path / pipe).unlink()
    pipe_in(tmp_path, pipe)
    with pytest.raises(DataError, match=f"{pipe}: is a pipe or a device"):
        load_dataset(str(tmp_path))


def test_a_file_of_goodreads(tmp_path):
    pipe_in(tmp_path, "User1.txt")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_goodreads_surprise(tmp_path)


def test_a_model(tmp_path):
    pipe_in(tmp_path / "model", FILE)
    with pytest.raises(CheckpointError, match="a pipe or a device"):
        SerenDiff.load(tmp_path / "model", device="cpu")


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/stdin", "process"])
@pytest.mark.parametrize(
    "command",
    [
        ["data", "check", "PLACE"],
        ["recommend", "--data", "PLACE", "--user", "u"],
        ["run", "controls", "--data", "PLACE"],
    ],
    ids=lambda command: command[0] + command[1],
)
def test_commands(tmp_path, monkeypatch, capsys, empty_cache, place, command):
    """Process substitution, `<(...)`, names the end of an open pipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERENDIFF_RESULTS", str(tmp_path / "results"))
    reading, writing = os.pipe()
    os.write(writing, b"user_id,item_id\n")
    if place == "process":
        place = f"/dev/fd/{reading}"
    if not os.path.exists(place) or stat.S_ISREG(os.stat(place).st_mode):
        pytest.skip(f"no {place} here, or it is a file")
    assert main([place if p == "PLACE" else p for p in command]) == 2
    os.close(reading)
    os.close(writing)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is a pipe or a device" in error


def test_a_device_is_not_replaced_by_a_file(tmp_path, tiny_model):
    pipe = pipe_in(tmp_path, "out.csv")
    with pytest.raises(CacheError, match="pipe or a device"):
        write_bytes(pipe, b"x")
    with (
        pytest.raises(CacheError, match="pipe or a device"),
        atomic_path("/dev/null"),
    ):
        pytest.fail("began to write")
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    assert os.listdir(tmp_path) == ["out.csv"]
    pipe_in(tmp_path / "model", FILE)
    with pytest.raises(CacheError, match="pipe or a device"):
        tiny_model.save(tmp_path / "model")


@pytest.mark.parametrize("option", ["--picture", "--out"])
def test_a_device_is_no_place_for_results(
    tmp_path, monkeypatch, capsys, option
):
    """Said before the work: the data are not even looked for."""
    monkeypatch.chdir(tmp_path)
    pipe_in(tmp_path, "p")
    command = ["recommend", "--data", "nowhere", "--user", "u", option, "p"]
    assert main(command) == 2
    assert f"{option} p: this is a pipe" in capsys.readouterr().err
