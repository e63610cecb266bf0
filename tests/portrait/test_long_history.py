"""A history of 10,000 items takes memory by its length, not by its square.

Ten thousand by ten thousand numbers would be 400 MB at least; the peak of a
process of its own is what the operating system saw.
"""

import subprocess
import sys

SCRIPT = """
import resource

import numpy as np
import torch

from serendifflib.portrait.portrait import PortraitSpace

ITEMS = 10_500
draw = np.random.default_rng(0)
vectors = torch.from_numpy(draw.normal(size=(ITEMS + 1, 384))).float()
vectors = torch.nn.functional.normalize(vectors, dim=1)
vectors[0] = 0.0
short = [1 + draw.choice(ITEMS, 20, replace=False) for _ in range(50)]
long = 1 + draw.permutation(ITEMS)[:10_000]
space = PortraitSpace.from_histories(short, vectors, bins="catalogue")
space.view(short[0])


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


before = peak()
past = space.view(long).past
assert past.shape == (10_000, 2) and np.isfinite(past).all()
print(peak() - before)
"""


def test_a_long_history_takes_little_memory():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300  # megabytes
