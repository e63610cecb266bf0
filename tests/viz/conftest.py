"""A model of tokens that has an opinion, and a page with it."""

import pytest
import torch

from serendifflib.model.serendiff import SerenDiff
from serendifflib.viz.browser_model import play


@pytest.fixture(scope="session")
def token_model(tiny_fold, tiny_settings):
    """Fitted in a moment, then given weights that tell histories apart."""
    model = SerenDiff("tokens", device="cpu", progress=False, **tiny_settings)
    model.fit(tiny_fold, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weights in model.network.parameters():
            weights.add_(torch.randn(weights.shape, generator=generator) / 3)
    return model


@pytest.fixture(scope="session")
def playground(token_model):
    """Eight shelves of four items, and three histories."""
    ids = token_model.catalogue.items[::6][:32]
    shelves = {f"shelf {n}": ids[4 * n : 4 * n + 4] for n in range(8)}
    starts = {
        "five": [ids[n] for n in (3, 17, 0, 30, 8)],
        "two": ids[20:22],
        "one": ids[9:10],
    }
    return play(token_model, shelves, starts)
