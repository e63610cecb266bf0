"""What every rival refuses, by its own name."""

import copy

import pytest
import torch

from serendifflib.baselines.registry import RIVALS, make_model
from serendifflib.baselines.trainer import Budget
from serendifflib.errors import ModelError

from .toy import N_ITEMS, toy_fold

SHORT = Budget(
    pretrain_steps=1,
    max_steps=1,
    batch_size=8,
    eval_every=9,
    valid_cases=4,
    valid_candidates=20,
)
OPTIONS = {
    "SerenPrompt-style": {
        "language": "tiny",
        "kind": "discrete",
        "top": 2,
        "share": 1.0,
    },
}


@pytest.fixture(scope="module", params=RIVALS)
def model(request):
    """Each rival after one step of training."""
    options = OPTIONS.get(request.param, {"width": 16})
    made = make_model(request.param, SHORT, **options)
    return made.fit(toy_fold(), generator=torch.Generator().manual_seed(0))


HISTORY = [[1, 2, 3], [4, 5, 6]]
CANDIDATES = [[7, 8, 9], [10, 11, 12]]


@pytest.mark.parametrize(
    ("histories", "candidates", "words"),
    [
        (HISTORY, [[7, 8, 9], [10, N_ITEMS + 1, 12]], "row 1: unknown item"),
        (HISTORY, [[7, -1, 9], [10, 11, 12]], "row 0: unknown item"),
        ([[1, 2, N_ITEMS + 7], [4, 5, 6]], CANDIDATES, "row 0: unknown item"),
        (HISTORY, [[7, 8, 9], [10, 11, 0]], "row 1: padding id 0"),
        ([[1, 2, 3], [0, 0, 0]], CANDIDATES, "row 1: empty history"),
        ([[1, 2, 0], [4, 5, 6]], CANDIDATES, "row 0: padding to the right"),
    ],
)
def test_a_bad_request_is_refused_by_name(model, histories, candidates, words):
    with pytest.raises(ModelError, match=words) as caught:
        model.score(torch.tensor(histories), torch.tensor(candidates))
    assert str(caught.value).startswith(f"{model.name}: ")
    assert "\n" not in str(caught.value)


def test_a_good_request_is_answered(model):
    scores = model.score(torch.tensor(HISTORY), torch.tensor(CANDIDATES))
    assert scores.shape == (2, 3)
    assert bool(torch.isfinite(scores).all())


def test_scores_that_are_no_numbers_are_refused_by_name(model):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for value in model.network.parameters():
            if value.is_floating_point():
                value.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN among the scores") as caught:
        model.score(torch.tensor(HISTORY), torch.tensor(CANDIDATES))
    assert str(caught.value).startswith(f"{model.name}: row 0: ")


@pytest.mark.parametrize("name", RIVALS)
def test_nobody_scores_before_fit(name):
    made = make_model(name, SHORT, **OPTIONS.get(name, {}))
    with pytest.raises(ModelError, match="not fitted; call fit first"):
        made.score(torch.tensor(HISTORY), torch.tensor(CANDIDATES))
