"""A full disk and a read-only one, for real: one clear line, nothing half.

Needs the right to mount a small file system in memory; where that is
missing, tests/test_io.py and tests/data/test_download.py stand in with
limits on the size of files.
"""

import functools
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
from toy_units import make_unit

from serendifflib.data.download import download, unpack
from serendifflib.diffusion.training import train
from serendifflib.errors import CacheError
from serendifflib.experiments import prepared as workbench
from serendifflib.experiments import records
from serendifflib.experiments import runner as runs
from serendifflib.model import fitting
from serendifflib.portrait import encoding
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.profiles import PROFILES


@pytest.fixture
def disk(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Model:
    def encode(self, texts, **options):
        return np.ones((len(texts), 384), dtype=np.float32)


@pytest.fixture
def works(tiny_fold, tiny_settings, tiny_model, server, tmp_path):
    """Everything that writes files: name -> function of a folder."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as stored:
        stored.writestr("ratings.csv", "x" * 200_000)
    server.files["/f"] = bytes(200_000)
    space = PortraitSpace.fit(tiny_fold, bins="catalogue")
    many = tuple(range(1, 20_001))

    def encode(folder):
        encoder = encoding.ReviewEncoder(cache=folder / "vectors")
        encoder.__dict__.update(fingerprint="f" * 64, model=Model())
        encoder.encode([f"text {k}" for k in range(100)])

    def record(folder):
        cases = {"serendipity": records.Cases(many, many, many)}
        runs.run_units(
            [make_unit()],
            lambda unit: records.Outcome(cases=cases),
            records.RecordStore(folder / "results"),
        )

    return {
        "download": lambda folder: download(
            f"{server.url}/f",
            folder / "f.bin",
            limit=1 << 20,
        ),
        "unpack": lambda folder: unpack(
            archive, ["ratings.csv"], folder / "unpacked", limit=1 << 20
        ),
        "encode": encode,
        "candidates": lambda folder: workbench._candidates(
            tiny_fold, space, "test", 100, 0
        ),
        "checkpoint and model": lambda folder: workbench._load_or_fit(
            tiny_fold,
            PROFILES["smoke"],
            "tuned",
            progress=False,
            device="cpu",
            **tiny_settings,
        ),
        "save": lambda folder: tiny_model.save(folder / "model"),
        "record": record,
    }


NAMES = [
    "download",
    "unpack",
    "encode",
    "candidates",
    "checkpoint and model",
    "save",
    "record",
]
# what a download and a training may keep, to go on from there
UNFINISHED = {"f.bin.part"}


def refused(work, folder):
    with pytest.raises(CacheError) as caught:
        work(folder)
    message = str(caught.value)
    assert message.startswith("cannot write") and "\n" not in message
    assert "SERENDIFF_CACHE" in message and str(folder) in message
    return message


def left(folder):
    names = {path.name for path in folder.rglob("*.*") if path.is_file()}
    return {name for name in names if not name.endswith(".lock")} - UNFINISHED


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(disk, works, name, monkeypatch):
    monkeypatch.setenv("SERENDIFF_CACHE", str(disk / "cache"))
    monkeypatch.setattr(
        fitting, "train", functools.partial(train, checkpoint_seconds=0.0)
    )
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(63 * 1024))
    assert "No space left" in refused(works[name], disk)
    assert left(disk) == set()
    # with space again, the same work goes through
    if name == "candidates":
        ballast.unlink()
        works[name](disk)
        assert len(left(disk)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_disk(disk, works, name, monkeypatch):
    monkeypatch.setenv("SERENDIFF_CACHE", str(disk / "cache"))
    remount(disk, "ro")
    assert "Read-only" in refused(works[name], disk)
    assert left(disk) == set()


def remount(disk, how):
    command = ["mount", "-o", f"remount,size=16m,{how}", str(disk)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("name", NAMES[1:5])
def test_a_filled_cache_may_be_read_only(disk, works, name, monkeypatch):
    """A class shares what its teacher made."""
    monkeypatch.setenv("SERENDIFF_CACHE", str(disk / "cache"))
    remount(disk, "rw")
    works[name](disk)
    remount(disk, "ro")
    works[name](disk)
