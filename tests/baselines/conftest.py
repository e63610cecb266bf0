import pytest
import torch

from serendifflib.baselines.trainer import Budget
from serendifflib.portrait.grid import Grid

from .toy import toy_fold

SMALL = Budget(
    pretrain_steps=0,
    max_steps=100,
    batch_size=32,
    eval_every=20,
    patience=3,
    valid_cases=24,
    valid_candidates=100,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def toy():
    return toy_fold()


@pytest.fixture(scope="session")
def grid(toy):
    return Grid.of(toy)
