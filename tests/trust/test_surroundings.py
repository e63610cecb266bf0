"""Bad surroundings, for real: one line and a status, never a traceback.

Folders that one may not enter, nobody's home, a folder that was removed,
too little memory, and Ctrl-C while libraries load or a model trains.
"""

import contextlib
import ctypes
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy_reviews import write_reviews

from serendifflib.__main__ import main

FORK = multiprocessing.get_context("fork")
STRANGER = 54321  # no such user
TESTS = Path(__file__).resolve().parents[1]


def drop_rights():
    """Root enters every folder; without its capabilities it does not."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.capset(version, (ctypes.c_uint32 * 6)()) == 0


def _answer(answers, command, folder, env, prepare):
    os.chdir(folder)
    for name, value in env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    prepare()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            status = main(command)
        except SystemExit as stopped:
            status = stopped.code
        except BaseException as error:
            status = repr(error)
    answers.put((status, said.getvalue()))


def answer(command, folder, env, prepare):
    """Status and output of a command in a process of its own."""
    answers = FORK.SimpleQueue()
    process = FORK.Process(
        target=_answer, args=(answers, command, folder, env, prepare)
    )
    process.start()
    process.join(120)
    assert process.exitcode == 0
    return answers.get()


@pytest.fixture
def locked(tmp_path):
    """A folder, with a file, that nobody may enter."""
    folder = tmp_path / "locked"
    folder.mkdir()
    write_reviews(folder / "my.csv")
    write_reviews(tmp_path / "my.csv")
    folder.chmod(0)
    yield tmp_path
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("command", "env"),
    [
        ("data check locked/my.csv", {}),
        ("data check locked", {}),
        ("data fetch locked/my.csv", {}),
        ("recommend --data locked/my.csv --user u03", {}),
        ("recommend --data my.csv --user u03 --out locked/x.csv", {}),
        ("recommend --data my.csv --user u03 --picture locked/x.png", {}),
        ("recommend --data my.csv --user u03", {"CACHE": "locked/c"}),
        ("run controls --data locked/my.csv", {}),
        ("run controls --data my.csv --folds 0", {"CACHE": "locked/c"}),
        ("run controls --data my.csv --folds 0", {"RESULTS": "locked/r"}),
        ("trace table4 x/y/H@1", {"RESULTS": "locked/r"}),
        ("data check movielens-small", {"DATA": "locked"}),
        ("data list", {"DATA": "locked"}),
    ],
    ids=lambda part: part if isinstance(part, str) else "-".join(part),
)
def test_a_folder_one_may_not_enter(locked, command, env):
    if os.geteuid() == 0 and not sys.platform.startswith("linux"):
        pytest.skip("root enters every folder")
    settings = {"CACHE": "cache", "RESULTS": "results", **env}
    named = {
        f"SERENDIFF_{name}": str(locked / value)
        for name, value in settings.items()
    }
    status, said = answer(
        command.split(),
        locked,
        named,
        drop_rights if os.geteuid() == 0 else lambda: None,
    )
    assert status == 2, said
    error = [line for line in said.splitlines() if "error: " in line]
    assert len(error) == 1 and error[0] == said.splitlines()[-1]
    assert "ermission denied" in error[0] or "no folder that can" in error[0]
    assert "locked" in error[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes nobody")
def test_nobody_without_a_home():
    env = {"HOME": None, "XDG_CACHE_HOME": None, "SERENDIFF_CACHE": None}
    status, said = answer(
        ["data", "list"], "/", env, lambda: os.setuid(STRANGER)
    )
    assert status == 2 and said.count("\n") == 1
    assert "name one in SERENDIFF_CACHE" in said


@pytest.mark.parametrize(
    "command",
    [
        "data check my.csv",
        "recommend --data my.csv --user u03",
        "run controls --data my.csv",
    ],
)
def test_a_current_folder_that_was_removed(tmp_path, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; os.rmdir(os.getcwd());"
        "from serendifflib.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "megabytes",
    [400, *(pytest.param(n, marks=pytest.mark.slow) for n in (200, 1000))],
)
def test_too_little_memory(megabytes):
    """Not enough for Python's libraries, for torch, for scikit-learn."""
    resource = pytest.importorskip("resource", reason="no limits here")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20,) * 2)

    done = subprocess.run(
        [sys.executable, "-m", "serendifflib", "data", "check", "synthetic"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 0:
        pytest.skip("this system or these libraries need no more")
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: there is not enough memory for this\n"


# ------------------------------------------------------------------ Ctrl-C


@pytest.mark.parametrize(
    "module",
    [
        "torch",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("numpy", "pandas", "sklearn")
        ),
    ],
)
def test_ctrl_c_while_libraries_load(module):
    """Stopped the moment that a module was loaded."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "serendifflib"]
        + ["data", "check", "synthetic"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts what runs in its background deaf to Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    said = []
    for line in process.stderr:
        if not line.startswith("import time:"):
            said.append(line)
        elif line.rpartition("|")[2].strip().startswith(module):
            process.send_signal(signal.SIGINT)
            module = "?"  # once
    # a shell shows both as 130
    assert process.wait() in (130, -signal.SIGINT), said
    assert said in (
        [],
        ["stopped; run the same command again to go on\n"],
    )


TRAINING = """
import dataclasses, sys
from conftest import WordEncoder
from serendifflib import profiles
from serendifflib.__main__ import main
from serendifflib.portrait import fold

fold.default_encoder = lambda **_: WordEncoder()
profiles.PROFILES["smoke"] = dataclasses.replace(
    profiles.PROFILES["smoke"], steps=int(sys.argv[1]), batch_size=4, width=8
)
sys.exit(main(["recommend", "--data", "my.csv", "--user", "u03"]))
"""


def test_ctrl_c_in_a_short_training(tmp_path):
    """One line; what was done is kept, and the same command goes on."""
    write_reviews(tmp_path / "my.csv")
    search = [str(TESTS), *sys.path]
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, "100000"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(search),
            "SERENDIFF_CACHE": str(tmp_path / "cache"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = ""
    while "loss" not in said:  # 20 steps are done
        letter = process.stderr.read(1)
        assert letter, said
        said += letter
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "Traceback" not in said + rest
    assert rest.splitlines()[-1] == (
        "stopped; run the same command again to go on"
    )
    assert list((tmp_path / "cache").glob("models/*/*training.safetensors"))
