import functools

import numpy as np
import pytest
import torch
from inductive import check_inductive

from serendifflib.baselines.diffrec import (
    DiffRec,
    LightNoise,
    StepSampler,
    interaction_vector,
)
from serendifflib.errors import ConfigError

from . import rivals
from .rivals import SHORT
from .toy import cases, chance, hit_ratio, toy_fold

fit = functools.partial(rivals.fit, DiffRec)


def test_next_items_beat_chance_fivefold():
    fold = toy_fold("next-item")
    model = fit(fold)
    assert hit_ratio(model, fold) > 5 * chance(fold)
    check_inductive(model, *cases(fold)[:2])


@pytest.mark.parametrize("inputs", ["id", "text+id"])
def test_ids_learn_too(inputs):
    fold = toy_fold("next-item")
    losses = fit(fold, inputs=inputs).report.stages[0].losses
    assert losses[-1] < 0.6 * losses[0]


def test_squared_errors_on_labels_learn_too():
    fold = toy_fold()
    losses = fit(fold, label_loss="squared").report.stages[1].losses
    assert losses[-1] < losses[0]
    with pytest.raises(ConfigError, match="unknown label_loss 'hinge'"):
        DiffRec(label_loss="hinge")


def test_the_schedule_by_hand():
    noise = LightNoise(3, 0.001, 0.005)
    # 1 - abar = .001, .003, .005 before beta_1 becomes 1e-5
    beta = [1e-5, 1 - 0.997 / 0.999, 1 - 0.995 / 0.997]
    assert np.allclose(noise.beta, beta)
    alpha_bar = np.cumprod(1 - np.array(beta))
    assert np.allclose(noise.alpha_bar, alpha_bar)
    assert noise.posterior(0) == pytest.approx((1.0, 0.0))
    c1, c2 = noise.posterior(2)
    rest = 1 - alpha_bar[2]
    assert c1 == pytest.approx(alpha_bar[1] ** 0.5 * beta[2] / rest)
    assert c2 == pytest.approx(
        (1 - beta[2]) ** 0.5 * (1 - alpha_bar[1]) / rest
    )
    # a point that is already x0 stays there, but for the shrinking
    assert c1 + c2 * alpha_bar[2] ** 0.5 == pytest.approx(alpha_bar[1] ** 0.5)
    snr = alpha_bar / (1 - alpha_bar)
    assert np.allclose(
        noise.weights(), [1.0, snr[0] - snr[1], snr[1] - snr[2]]
    )


def test_steps_with_large_losses_are_drawn_more_often():
    sampler = StepSampler(2)
    assert sampler.probabilities().tolist() == [0.5, 0.5]
    sampler.update(np.array([0] * 10 + [1] * 9), np.array([3.0] * 19))
    assert sampler.probabilities().tolist() == [0.5, 0.5]  # one is missing
    sampler.update(np.array([1] * 10), np.array([1.0] * 10))
    expected = np.array([0.75, 0.25]) * 0.999 + 0.0005
    assert np.allclose(sampler.probabilities(), expected)


def test_interaction_vectors_weigh_later_items_more():
    x = interaction_vector(torch.tensor([[0, 3, 1, 3], [0, 0, 0, 2]]), 4)
    assert torch.allclose(
        x, torch.tensor([[0, 0.55, 0, 1.0, 0], [0, 0, 1.0, 0, 0]])
    )


def test_the_chain_restores_what_a_perfect_network_estimates():
    fold = toy_fold("next-item")
    model = fit(fold, SHORT)
    truth = torch.rand(1, fold.interactions.n_items + 1)
    model.network.forward = lambda x, t: truth.expand(len(x), -1)
    candidates = torch.arange(1, 201).unsqueeze(0)
    scores = model.score(torch.tensor([[5, 6]]), candidates)
    assert torch.allclose(scores, truth[:, 1:])
