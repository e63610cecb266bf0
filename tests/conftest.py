"""Fixtures for all rooms: a tiny world, a fake encoder, a fitted model.

No test touches the cache of whoever runs the tests.
"""

import hashlib
import re

import numpy as np
import pytest
import torch
from hypothesis import settings

from serendifflib.data.folds import prepare_fold, user_folds
from serendifflib.data.world import World
from serendifflib.items import unit_rows
from serendifflib.serendiff import SerenDiff

# the same examples in every run; a slow machine is no failure
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")


class WordEncoder:
    """Every word has a fixed random vector; a text is the sum, d = 16."""

    fingerprint = "words"
    width = 16

    def encode(self, texts):
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                digest = hashlib.sha256(word.encode()).digest()
                values = np.frombuffer(digest[: self.width], dtype=np.uint8)
                vectors[row] += values / 127.5 - 1.0
        return unit_rows(vectors)


@pytest.fixture(scope="session", autouse=True)
def no_real_cache(tmp_path_factory):
    """A cache of the test session instead of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERENDIFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SERENDIFF_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def word_encoder():
    return WordEncoder()


@pytest.fixture(scope="session")
def tiny_data():
    """60 users, 200 items, serendipity labels."""
    return World("strong", n_users=60, n_items=200, seed=1).interactions()


@pytest.fixture(scope="session")
def tiny_fold(tiny_data, word_encoder):
    split = user_folds(tiny_data, 3, seed=0)[0]
    return prepare_fold(tiny_data, split, encoder=word_encoder)


TINY = {
    "width": 8,
    "side": 5,
    "timesteps": 20,
    "steps": 10,
    "batch_size": 8,
    "validate_every": 5,
}


@pytest.fixture(scope="session")
def tiny_settings():
    """Settings that replace a preset's, for a model that fits in a second."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_model(tiny_fold):
    """A fitted model of the preset ``tuned``; do not change it."""
    model = SerenDiff("tuned", device="cpu", progress=False, **TINY)
    return model.fit(tiny_fold, generator=torch.Generator().manual_seed(3))
