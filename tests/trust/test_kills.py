"""SIGKILL at random moments: what is done again ends as if undisturbed.

Each job is killed at seeded random moments of its run, started again until
it ends, and then has the very files of a run that nobody disturbed. After
each kill, every file that carries its final name is whole.
"""

import copy
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import time

import numpy as np
import pytest
import torch
from toy_units import make_unit

from serendifflib.data.download import download
from serendifflib.diffusion.checkpoints import read_state
from serendifflib.diffusion.training import train
from serendifflib.errors import CheckpointError
from serendifflib.evaluation.candidates import Candidates
from serendifflib.experiments import prepared as workbench
from serendifflib.experiments import records, versions
from serendifflib.experiments import runner as runs
from serendifflib.io import content_hash
from serendifflib.model import fitting
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.storage import FILE
from serendifflib.portrait import encoding
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.profiles import PROFILES

FORK = multiprocessing.get_context("fork")
KILLS = {  # per job: in every run of the suite, and in the soak
    "download": (2, 12),
    "encoding": (2, 12),
    "candidates": (1, 12),
    "training": (2, 16),
    "grid": (1, 12),
    "results": (1, 12),
    "saving over": (6, 40),
}
BODY = np.random.default_rng(5).bytes(150_000)


# ------------------------------------------------------------------- jobs


class SlowModel:
    """Stands for SentenceBERT: a vector of 384 letters' counts, slowly."""

    def encode(self, texts, **options):
        time.sleep(0.01)
        rows = np.zeros((len(texts), 384), dtype=np.float32)
        for row, text in enumerate(texts):
            rows[row, : len(text)] = [ord(letter) / 128 for letter in text]
        return rows


def encode(folder):
    encoding.SHARD = 4
    encoder = encoding.ReviewEncoder(cache=folder / "vectors")
    encoder.__dict__.update(fingerprint="f" * 64, model=SlowModel())
    encoder.encode([f"text {'x' * (k % 7)}{k}" for k in range(48)])


def check_vectors(folder):
    for shard in folder.rglob("*.safetensors"):
        assert len(encoding._read_shard(shard)[0]) == 4


def draw(folder, fold, space):
    workbench._candidates(fold, space, "test", 100, 0)


def check_candidates(folder):
    for path in folder.rglob("*.npz"):
        Candidates.load(path)


def fit(folder, fold, settings):
    fitting.train = functools.partial(train, checkpoint_seconds=0.0)
    changes = {**settings, "pretrain_steps": 8, "steps": 12, "patience": 9}
    workbench._load_or_fit(
        fold,
        PROFILES["smoke"],
        "tuned",
        progress=False,
        device="cpu",
        **changes,
    )


def check_model(folder):
    """There is a whole model, or none yet."""
    for path in folder.rglob(FILE):
        SerenDiff.load(path.parent, device="cpu", progress=False)


def save_over(folder, models):
    """Two models in turn into one folder, the second one last."""
    for model in models * 5:
        model.save(folder / "model")


def make_outcome(unit, n=50):
    rng = np.random.default_rng([unit.fold, unit.seed, len(unit.row)])
    cases = records.Cases(
        users=tuple(range(n)),
        targets=tuple(rng.integers(1, 99, n).tolist()),
        ranks=tuple(rng.integers(1, 21, n).tolist()),
    )
    return records.Outcome(cases={"serendipity": cases}, candidates="c" * 64)


def slow_outcome(unit):
    time.sleep(0.01)
    return make_outcome(unit)


def compute_grid(folder):
    units = [
        make_unit("x" * (1 + k), fold) for k in range(3) for fold in (0, 1, 2)
    ]
    report = runs.run_units(
        units, slow_outcome, records.RecordStore(folder / "results")
    )
    assert report.ok


def write_results(folder):
    """Ten versions of one record, each appended after the one before."""
    store = records.RecordStore(folder / "results")
    done = [run.seed for run in store.runs("table4")]
    for seed in range(max(done, default=-1) + 1, 10):
        store.save(make_run(make_unit("alpha", 0, seed=seed)))


def make_run(unit):
    outcome = make_outcome(unit, n=5000)
    run = runs._record(unit, outcome, ("commit", False), 1.0)
    fields = {name: getattr(run, name) for name in run.__dataclass_fields__}
    return records.Run(**{**fields, "created": "2026-01-01T00:00:00+00:00"})


def check_records(folder):
    for run in records.RecordStore(folder / "results").runs("table4"):
        n = len(run.cases["serendipity"].users)
        unit = make_unit(run.row, run.fold, seed=run.seed)
        assert run.cases == make_outcome(unit, n).cases


# ------------------------------------------------------------ the machinery


def in_child(job, folder):
    """A child with the folder as its cache, one thread, and no output."""

    def body():
        os.environ["SERENDIFF_CACHE"] = str(folder / "cache")
        torch.set_num_threads(1)
        job(folder)

    process = FORK.Process(target=body)
    process.start()
    return process


def undisturbed(job, folder):
    """Files of a run that nobody kills, and the seconds that it takes."""
    folder.mkdir()
    started = time.perf_counter()
    process = in_child(job, folder)
    process.join(120)
    assert process.exitcode == 0
    return snapshot(folder), time.perf_counter() - started


def snapshot(folder):
    """A hash of every file but locks, without the times of day."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".lock":
            name = str(path.relative_to(folder))
            found[name] = content_hash(*timeless(path))
    return found


def timeless(path):
    """What a file holds, without the times that two runs never share."""
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        return [without_times(json.loads(line)) for line in lines]
    if path.name == FILE:
        header, tensors = read_state(path, "")
        return [
            without_times(header),
            *(tensors[name].numpy() for name in sorted(tensors)),
        ]
    return [path.read_bytes()]


def without_times(part):
    clocks = {"seconds", "created", "checksum"}
    if isinstance(part, dict):
        return {
            key: without_times(value)
            for key, value in part.items()
            if key not in clocks
        }
    if isinstance(part, list):
        return [without_times(value) for value in part]
    return part


def survive(job, check, tmp_path, kills, seed):
    """Kill ``job`` so often in all; return how often it had to be run."""
    expected, seconds = undisturbed(job, tmp_path / "whole")
    luck = random.Random(seed)
    folder, killed = tmp_path / "killed", 0
    for attempt in itertools.count(1):
        assert attempt <= 20 * kills + 20, "it ends before it can be killed"
        folder.mkdir(exist_ok=True)
        process = in_child(job, folder)
        process.join(luck.uniform(0, seconds) if killed < kills else 120)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
            check(folder)
            continue
        assert process.exitcode == 0
        check(folder)
        assert snapshot(folder) == expected
        if killed == kills:
            return attempt
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def jobs(tiny_fold, tiny_settings, tiny_model):
    other = copy.copy(tiny_model)
    other.seed += 1
    space = PortraitSpace.fit(tiny_fold, bins="catalogue")
    versions.commit()  # asked once, not in every child
    return {
        "encoding": (encode, check_vectors),
        "candidates": (
            functools.partial(draw, fold=tiny_fold, space=space),
            check_candidates,
        ),
        "training": (
            functools.partial(fit, fold=tiny_fold, settings=tiny_settings),
            check_model,
        ),
        "grid": (compute_grid, check_records),
        "results": (write_results, check_records),
        "saving over": (
            functools.partial(save_over, models=[other, tiny_model]),
            check_model,
        ),
    }


@pytest.fixture
def job(request, jobs, server):
    """A job by name; the download needs a server of its own."""
    if request.param != "download":
        return request.param, *jobs[request.param]
    server.files["/f"] = BODY
    server.faults["/f"] = [("slow", 0.005)]
    known = {
        "size": len(BODY),
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "limit": 1 << 20,
    }

    def fetch(folder):
        download(
            f"{server.url}/f",
            folder / "f.bin",
            **known,
        )

    def check(folder):
        path = folder / "f.bin"
        assert not path.exists() or path.read_bytes() == BODY

    return "download", fetch, check


@pytest.mark.parametrize("job", KILLS, indirect=True)
def test_killed_and_run_again(job, tmp_path):
    name, work, check = job
    survive(work, check, tmp_path, KILLS[name][0], seed=len(name))


@pytest.mark.slow
@pytest.mark.parametrize("job", KILLS, indirect=True)
def test_killed_many_times(job, tmp_path):
    name, work, check = job
    tries = survive(work, check, tmp_path, KILLS[name][1], seed=77)
    print(f"{name}: {KILLS[name][1]} kills survived in {tries} runs")


def test_the_soak_has_fifty_kills():
    assert sum(soak for _, soak in KILLS.values()) >= 50


# ------------------------------------------------------------ pre-training


def test_a_killed_pre_training_is_not_done_again(
    tiny_fold, tiny_settings, empty_cache, monkeypatch
):
    """Stopped in the second stage, the first one is loaded from its file."""
    taken = []

    def stopping(*arguments, **options):
        options["checkpoint_seconds"] = 0.0
        before = len(taken)
        validate = options["validate"]

        looks = []

        def limited(network):
            looks.append(1)  # the first is at step 0: nothing is saved yet
            if len(looks) == 2:
                raise KeyboardInterrupt
            return validate(network)

        if before == 1:
            options["validate"] = limited
        report = train(*arguments, **options)
        taken.append(len(report.losses))
        return report

    changes = {**tiny_settings, "pretrain_steps": 6, "validate_every": 3}

    def fit():
        return workbench._load_or_fit(
            tiny_fold,
            PROFILES["smoke"],
            "tuned",
            progress=False,
            device="cpu",
            **changes,
        )

    whole = fit()
    (folder,) = empty_cache.glob("models/*")
    shutil.rmtree(folder)
    monkeypatch.setattr(fitting, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit()
    left = sorted(p.name for p in folder.glob("*.safetensors"))
    assert left == ["pre-training.safetensors", "training.safetensors"]
    steps = count_steps(monkeypatch)
    resumed = fit()
    assert 0 < len(steps) <= changes["steps"]  # none of the first stage
    assert [r.losses for r in resumed.reports] == [
        r.losses for r in whole.reports
    ]
    left = {path.name for path in folder.iterdir() if path.suffix != ".lock"}
    assert left == {"model.safetensors"}


def count_steps(monkeypatch):
    from serendifflib.diffusion import training

    monkeypatch.setattr(fitting, "train", train)
    original, steps = training._train_step, []

    def counted(*arguments, **options):
        steps.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(training, "_train_step", counted)
    return steps


def test_a_damaged_checkpoint_of_the_cache_starts_again(
    tiny_fold, tiny_settings, empty_cache
):
    def fit():
        return workbench._load_or_fit(
            tiny_fold, PROFILES["smoke"], "tuned",
            progress=False, device="cpu",
            **{**tiny_settings, "steps": 4},
        )  # fmt: skip

    whole = fit()
    (folder,) = empty_cache.glob("models/*")
    (folder / "model.safetensors").unlink()
    (folder / "training.safetensors").write_bytes(b"half")
    assert fit().reports[0].losses == whole.reports[0].losses
    assert not (folder / "training.safetensors").exists()


def test_a_fit_of_other_settings_refuses_the_checkpoint(
    tiny_fold, tiny_settings, tmp_path
):
    """Dropout shows in no shape and in no setting of the trainer."""
    path = tmp_path / "fit.safetensors"

    def fit(**changes):
        model = SerenDiff(
            "tuned", device="cpu", progress=False,
            **{**tiny_settings, "steps": 2, **changes},
        )  # fmt: skip
        return model.fit(tiny_fold, checkpoint=path, keep_checkpoint=True)

    fit()
    fit()
    with pytest.raises(CheckpointError, match="another run"):
        fit(dropout=0.1)
