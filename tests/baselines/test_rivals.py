"""What every trained rival does: learn, repeat itself, know only histories."""

import pytest
import torch
from inductive import check_inductive

from serendifflib.baselines.serenenhance import SerenEnhance

from .rivals import LONG, SHORT, fit
from .toy import MaxCosine, cases, chance, hit_ratio, toy_fold


@pytest.mark.parametrize("kind", LONG, ids=lambda kind: kind.name)
def test_beats_chance_and_max_cosine(kind):
    fold = toy_fold()
    model = fit(kind, fold)
    cosine = MaxCosine().fit(fold, generator=torch.Generator())
    # 10 of 40 hits are four times chance, by chance itself p < 1e-4
    times = 4 if kind is SerenEnhance else 5
    assert hit_ratio(model, fold) > times * chance(fold)
    assert hit_ratio(model, fold) > hit_ratio(cosine, fold)
    check_inductive(model, *cases(fold)[:2])


@pytest.mark.parametrize("kind", LONG, ids=lambda kind: kind.name)
def test_the_seed_decides_and_torch_keeps_its_own(kind):
    fold = toy_fold()
    histories, candidates, _ = cases(fold)
    before = torch.get_rng_state()
    scores = [
        fit(kind, fold, SHORT, seed).score(histories, candidates)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])
    assert torch.equal(before, torch.get_rng_state())
