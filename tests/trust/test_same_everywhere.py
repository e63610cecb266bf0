"""Same seed, same results: other processes, hash seeds, threads, batches.

Other versions of Python, torch and pandas run the suite in the workflow
matrix.yml.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from serendifflib.model.serendiff import SerenDiff

# of a world of 60 users and 200 items: three folds of users, one by time
WORLD = "01c20ac5007a"
SPLITS = ["e3e6a6d78003", "ad07101af42a", "625fb52b6bbb", "76d41d6eaf4c"]

PROGRAM = """
import json, sys
import torch
torch.set_num_threads(int(sys.argv[1]))
sys.path.insert(0, sys.argv[2])
from conftest import TINY, WordEncoder
from serendifflib.evaluation.candidates import fold_candidates
from serendifflib.data.splits import temporal_split, user_folds
from serendifflib.portrait.fold import prepare_fold
from serendifflib.data.world import World
from serendifflib.evaluation.protocol import evaluate
from serendifflib.io import content_hash
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.model.serendiff import SerenDiff

data = World("strong", n_users=60, n_items=200, seed=1).interactions()
splits = [*user_folds(data, 3, seed=0), temporal_split(data)]
fold = prepare_fold(data, splits[0], encoder=WordEncoder())
space = PortraitSpace.fit(fold, bins="catalogue")
lists = fold_candidates(
    fold, space, part="test", n_candidates=100, seed=0,
)
model = SerenDiff("tuned", device="cpu", progress=False, **TINY)
model.fit(fold, generator=torch.Generator().manual_seed(3))
batch = int(sys.argv[3])
scores = torch.cat([
    model.score(fold.test.histories[rows], lists.items[rows])
    for rows in torch.arange(len(fold.test)).split(batch)
])
table = evaluate(
    model, fold.test, lists, generator=torch.Generator().manual_seed(0),
    batch_size=batch,
)
print(json.dumps({
    "world": data.checksum,
    "splits": [
        content_hash(s.train_users, s.valid_users, s.test_users)
        for s in splits
    ],
    "vectors": content_hash(fold.raw_vectors.numpy()),
    "candidates": lists.checksum,
    "ranks": table["rank"].tolist(),
    "scores": scores.double().numpy().round(9).tolist(),
}))
"""


def elsewhere(threads, hash_seed, batch):
    """The whole chain in a process of its own."""
    tests = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads), tests, str(batch)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def here():
    return elsewhere(1, 0, 64)


@pytest.mark.parametrize(
    ("threads", "hash_seed", "batch"),
    [(2, 4242, 7), pytest.param(1, 99, 1, marks=pytest.mark.slow)],
)
def test_another_process(here, threads, hash_seed, batch):
    there = elsewhere(threads, hash_seed, batch)
    for name in ("world", "splits", "vectors", "candidates"):
        assert there[name] == here[name], name
    scores = np.array(here["scores"])
    assert scores.shape[1] == 100
    size = np.abs(scores).max()
    assert size > 0.01
    # trained there as well: rounding has had ten steps to grow
    np.testing.assert_allclose(there["scores"], scores, atol=1e-5 * size)
    assert np.mean(np.equal(there["ranks"], here["ranks"])) >= 0.9


TOLERANCE = 1e-5  # of the largest score: book/how-to-read.md promises it


@pytest.mark.parametrize("preset", ["tuned", "points", "tokens"])
def test_scores_in_any_batch_order_and_threads(
    preset, tiny_fold, tiny_settings
):
    """Trained once; then only sums are added in another order."""
    model = SerenDiff(preset, device="cpu", progress=False, **tiny_settings)
    model.fit(tiny_fold, generator=torch.Generator().manual_seed(3))
    histories = tiny_fold.test.histories[:12]
    candidates = torch.arange(1, 101).repeat(len(histories), 1)
    items = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    users = torch.arange(len(histories)).flip(0)
    threads = torch.get_num_threads()
    scores = model.score(histories, candidates)
    largest = float(scores.abs().max())
    assert largest > 0.01
    for count, batch in ((1, 1), (2, 5), (2, 12)):
        torch.set_num_threads(count)
        try:
            again = torch.cat(
                [
                    model.score(histories[some], candidates[some][:, items])
                    for some in users.split(batch)
                ]
            )
        finally:
            torch.set_num_threads(threads)
        difference = again - scores[users][:, items]
        assert float(difference.abs().max()) < TOLERANCE * largest


def test_the_book_promises_that_tolerance():
    page = Path(__file__).parents[2] / "book" / "how-to-read.md"
    text = " ".join(page.read_text("utf-8").split())
    assert "by less than a hundred-thousandth of the largest one" in text
    assert TOLERANCE == 1 / 100_000


def test_the_splits_are_those_of_every_release(here):
    """Written down once; another platform must find the same."""
    assert here["world"].startswith(WORLD)
    assert [split[:12] for split in here["splits"]] == SPLITS
