"""The denoising error as a score: exact denoisers, and a trained network."""

import numpy as np
import pytest
import torch
from baselines.toy import chance, hit_ratio, toy_fold
from inductive import check_inductive
from scipy.stats import spearmanr

from serendifflib.diffusion.denoising import denoising_gains, density_ratio
from serendifflib.diffusion.points import TRIALS
from serendifflib.diffusion.sampling import user_noise
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.model.serendiff import SerenDiff

SCHEDULE = DDPMSchedule.make("linear", 200)


def exact(x_t, t, user):
    """E(x_0 | x_t): N(0, 1) for nobody, N(user, 1/4) for somebody."""
    bar = SCHEDULE.alpha_bar[t].float()[:, None]
    variance = torch.where(user == 0, 1.0, 0.25)
    pull = bar.sqrt() * variance / (bar * variance + 1 - bar)
    return user + pull * (x_t - bar.sqrt() * user)


def gains(x0, user, calls=200):
    noise = user_noise(torch.arange(1, len(x0) + 1)[:, None], 0)
    return denoising_gains(exact, x0, user, noise, SCHEDULE, calls, 1)


@pytest.mark.parametrize("m", [0.9, -1.2])
def test_the_order_is_that_of_the_density_ratio(m):
    """log N(x; m, 1/4) - log N(x; 0, 1), by the mean over thirty noises."""
    x = torch.linspace(-3, 3, 61)
    x0 = x[None, :, None].repeat(30, 1, 2)
    vectors, places = gains(x0, torch.full((30, 2), m))
    assert vectors.shape == places.shape == (30, 200, 61)
    found = density_ratio(vectors, places, 1.0, 1.0, SCHEDULE).mean(0)
    ratio = x**2 / 2 - 2 * (x - m) ** 2
    assert spearmanr(found, ratio).statistic > 0.98
    assert abs(x[found.argmax()] - x[ratio.argmax()]) < 0.3


def test_gains_by_hand_and_the_same_noise_for_all():
    x0 = torch.tensor([[[0.3, 2.0], [0.3, -1.0]]]).repeat(2, 1, 1)
    user = torch.tensor([[1.0, 1.0], [0.5, 0.5]])
    vectors, places = gains(x0, user, calls=3)
    assert torch.equal(vectors[..., 0], vectors[..., 1])  # equal vectors
    assert not torch.equal(places[..., 0], places[..., 1])
    noise, t = user_noise(torch.tensor([[1], [2]]), 0), torch.tensor([199])
    x_t = SCHEDULE.q_sample(x0[:1, 0], t, noise(torch.Size([2, 2]))[:1])
    nobody = exact(x_t, t, torch.zeros(1, 2)) - x0[:1, 0]
    somebody = exact(x_t, t, user[:1]) - x0[:1, 0]
    gain = (nobody.square() - somebody.square())[0]
    assert vectors[0, 0, 0] == pytest.approx(float(gain[0]), abs=1e-5)
    assert places[0, 0, 0] == pytest.approx(float(gain[1]), abs=1e-5)


def test_powers_and_weights_by_hand():
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    places = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    found = density_ratio(vectors, places, 0.0, 10.0, SCHEDULE)
    assert found[0].tolist() == [1.0, 12.0]
    bar = SCHEDULE.alpha_bar[[199, 99, 0]].numpy()
    late, early = np.sqrt(np.diff(bar / (1 - bar)))
    found = density_ratio(vectors, places, 0.5, 1.0, SCHEDULE)
    assert found[0].tolist() == pytest.approx([late, 3 * early])


def test_points_are_ranked_by_the_error():
    toy = toy_fold()
    model = SerenDiff(
        "points",
        steps=60,
        batch_size=32,
        validate_every=20,
        patience=3,
        valid_candidates=100,
        width=32,
        device="cpu",
        progress=False,
        aggregate="error",
        earliest=0.0,
        calls=4,
    ).fit(toy, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor(TRIALS["error"])
    assert (chosen == model.network.agreeing).all(dim=1).any()
    assert hit_ratio(model, toy) > 2 * chance(toy)
    check_inductive(
        model, toy.test.histories[:6], torch.arange(1, 101).expand(6, -1)
    )
