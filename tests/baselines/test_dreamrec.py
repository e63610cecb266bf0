import functools

import pytest
import torch
from inductive import check_inductive

from serendifflib.baselines.dreamrec import DreamRec
from serendifflib.baselines.trainer import Budget
from serendifflib.errors import ConfigError

from . import rivals
from .rivals import SHORT
from .toy import cases, toy_fold

fit = functools.partial(rivals.fit, DreamRec)


def test_the_chain_starts_at_noise_and_ends_at_the_data():
    noise = DreamRec().noise
    assert noise.alpha_bar[-1] < 0.01
    assert noise.alpha_bar[0] > 0.99
    assert DreamRec(schedule="linear", timesteps=50).noise.alpha_bar[-1] < 0.01


def test_no_guidance_is_the_conditional_path():
    fold = toy_fold()
    model = fit(fold, SHORT, guidance=0.0, guidances=())
    histories = fold.test.histories[:3]
    plain = model.generate(histories)
    with torch.no_grad():
        model.network.null += 5.0
    assert torch.equal(plain, model.generate(histories))
    model.guidance = 1.0
    assert not torch.allclose(plain, model.generate(histories))


def test_the_guidance_is_chosen_on_validation():
    fold = toy_fold()
    model = fit(fold, SHORT, guidances=(0.0, 3.0))
    assert model.chosen["guidance"] in (0.0, 3.0)
    assert model.option("guidance") == model.chosen["guidance"]
    histories = fold.test.histories[:3]
    made = {}
    for w in (0.0, 3.0):
        model.chosen = {"guidance": w}
        made[w] = model.generate(histories)
    assert not torch.allclose(made[0.0], made[3.0])


def test_haste_does_not_change_its_learning_rate():
    fold = toy_fold()
    hasty = Budget(pretrain_steps=3, max_steps=3, haste=50.0)
    model = fit(fold, hasty)
    rates = {stage.lr for stage in model.stages(fold, torch.Generator())}
    assert rates == {3e-3}


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "one-call"])
def test_every_sampler_is_deterministic_and_inductive(sampler):
    fold = toy_fold()
    histories, candidates, _ = cases(fold)
    histories, candidates = histories[:4], candidates[:4]
    models = [
        fit(fold, SHORT, seed, sampler=sampler, timesteps=10, calls=5)
        for seed in (1, 1, 2)
    ]
    scores = [model.score(histories, candidates) for model in models]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])
    check_inductive(models[0], histories, candidates)


def test_a_perfect_denoiser_ranks_its_item_first():
    fold = toy_fold()
    model = fit(fold, SHORT)
    model.network.forward = lambda x, guide, t: model.network.targets[
        torch.full((len(x),), 17)
    ]
    scores = model.score(torch.tensor([[1, 2]]), torch.arange(1, 201)[None])
    assert scores.argmax() == 16
    assert scores.max() == pytest.approx(1.0)


def test_unknown_options_are_refused():
    with pytest.raises(ConfigError, match="unknown sampler 'euler'"):
        DreamRec(sampler="euler")
    with pytest.raises(ConfigError, match="unknown similarity 'l2'"):
        DreamRec(similarity="l2")
