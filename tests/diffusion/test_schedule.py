import math

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar
from hypothesis import given, settings
from hypothesis import strategies as st

from serendifflib.diffusion.schedule import PREDICT, DDPMSchedule
from serendifflib.errors import ConfigError

KINDS = ["linear", "cosine"]


def schedules():
    made = [DDPMSchedule.make(k, t) for k in KINDS for t in (1, 5, 50, 1000)]
    made += [DDPMSchedule.linear(t, rescale_betas=True) for t in (5, 50)]
    return made


@pytest.mark.parametrize("schedule", schedules())
def test_alpha_bar_falls_from_nearly_one(schedule):
    betas, bar = schedule.betas, schedule.alpha_bar
    assert betas.dtype == torch.float64
    assert ((betas > 0) & (betas < 1)).all()
    assert (bar.diff() < 0).all() and (bar > 0).all()
    product = 1.0
    for t in range(schedule.timesteps):
        assert schedule.alpha_bar_before[t] == pytest.approx(product)
        product *= 1.0 - float(betas[t])
        assert bar[t] == pytest.approx(product)


def test_linear_betas_are_those_of_ddpm():
    betas = DDPMSchedule.linear(1000).betas
    assert (betas[0], betas[-1]) == (pytest.approx(1e-4), pytest.approx(0.02))
    np.testing.assert_allclose(betas.diff(), (0.02 - 1e-4) / 999)
    assert DDPMSchedule.linear(1000).alpha_bar[-1] == pytest.approx(
        4.0e-5, rel=0.02
    )


@pytest.mark.parametrize("timesteps", [10, 50, 100])
def test_rescaled_betas_end_in_noise_and_the_paper_s_do_not(timesteps):
    assert DDPMSchedule.linear(timesteps).alpha_bar[-1] > 0.3
    rescaled = DDPMSchedule.linear(timesteps, rescale_betas=True)
    assert rescaled.alpha_bar[-1] < 0.01
    np.testing.assert_allclose(
        rescaled.betas,
        np.minimum(
            DDPMSchedule.linear(timesteps).betas * 1000 / timesteps, 0.999
        ),
    )


def test_rescaling_a_thousand_steps_changes_nothing():
    assert torch.equal(
        DDPMSchedule.linear(1000, rescale_betas=True).betas,
        DDPMSchedule.linear(1000).betas,
    )


@pytest.mark.parametrize("timesteps", [5, 50, 1000])
def test_cosine_is_squaredcos_cap_v2_of_diffusers(timesteps):
    np.testing.assert_allclose(
        DDPMSchedule.cosine(timesteps).betas,
        betas_for_alpha_bar(timesteps),
        atol=1e-6,
    )


def test_make_finds_the_schedule():
    assert torch.equal(
        DDPMSchedule.make("linear", 20, rescale_betas=True).betas,
        DDPMSchedule.linear(20, rescale_betas=True).betas,
    )
    assert torch.equal(
        DDPMSchedule.make("cosine", 20).betas, DDPMSchedule.cosine(20).betas
    )
    with pytest.raises(ConfigError, match="'sqrt'.*linear, cosine"):
        DDPMSchedule.make("sqrt", 20)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timesteps", [0, -5])
def test_no_steps_are_refused(kind, timesteps):
    with pytest.raises(ConfigError, match="at least 1"):
        DDPMSchedule.make(kind, timesteps)


# --------------------------------------------------------- forward process


@pytest.mark.parametrize("kind", KINDS)
def test_the_closed_form_is_the_chain_of_single_steps(kind):
    """Mean and variance, exactly: the two moments that a Gaussian has."""
    schedule = DDPMSchedule.make(kind, 50)
    signal, variance = 1.0, 0.0
    ones, zeros = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    for step, beta in enumerate(schedule.betas.tolist()):
        signal *= math.sqrt(1 - beta)
        variance = (1 - beta) * variance + beta
        t = torch.tensor([step])
        assert float(schedule.q_sample(ones, t, zeros)) == pytest.approx(
            signal
        )
        assert float(schedule.q_sample(zeros, t, ones) ** 2) == pytest.approx(
            variance
        )


def test_the_chain_drawn_for_real_has_the_moments():
    schedule = DDPMSchedule.linear(20, rescale_betas=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.full((20_000,), 2.0)
    for beta in schedule.betas.tolist()[:8]:
        noise = torch.randn(x.shape, generator=generator)
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * noise
    bar = float(schedule.alpha_bar[7])
    assert float(x.mean()) == pytest.approx(2 * math.sqrt(bar), abs=0.03)
    assert float(x.var()) == pytest.approx(1 - bar, abs=0.03)


def test_each_row_has_its_own_step():
    schedule = DDPMSchedule.linear(10)
    x0, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    t = torch.tensor([0, 9, 4])
    whole = schedule.q_sample(x0, t, noise)
    for row in range(3):
        one = schedule.q_sample(
            x0[row : row + 1], t[row : row + 1], noise[row : row + 1]
        )
        assert torch.equal(whole[row : row + 1], one)


def test_first_steps_keep_their_digits_in_float32():
    """1 - alpha-bar is 1e-4 there: float32 would keep four digits of it."""
    schedule = DDPMSchedule.linear(1000)
    x0, noise = torch.randn(2, 50), torch.randn(2, 50)
    for step in (0, 1, 5):
        t = torch.full((2,), step)
        exact = schedule.posterior(x0.double(), noise.double(), t)
        single = schedule.posterior(x0, noise, t)
        for a, b in zip(single, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        noised = schedule.q_sample(torch.zeros(2, 50), t, noise)
        np.testing.assert_allclose(
            noised.double() / noise.double(),
            (1 - schedule.alpha_bar[step]).sqrt(),
            rtol=1e-6,
        )


# ----------------------------------------------------------------- targets


CASES = st.tuples(
    st.sampled_from(KINDS), st.sampled_from([1, 5, 50, 1000]), st.integers()
)


@settings(max_examples=60)
@given(CASES, st.sampled_from(PREDICT))
def test_a_perfect_output_gives_x0_and_the_noise_back(case, predict):
    kind, timesteps, seed = case
    schedule = DDPMSchedule.make(kind, timesteps)
    generator = torch.Generator().manual_seed(seed % 2**31)
    x0, noise = torch.randn(2, 4, 3, generator=generator).double()
    t = torch.randint(timesteps, (4,), generator=generator)
    x_t = schedule.q_sample(x0, t, noise)
    output = schedule.target(predict, x0, t, noise)
    back = schedule.to_x0(predict, output, x_t, t)
    torch.testing.assert_close(back, x0, atol=1e-6, rtol=1e-6)
    found = schedule.to_noise(x0, x_t, t)
    torch.testing.assert_close(found, noise, atol=1e-6, rtol=1e-6)


def test_v_has_the_angle_of_the_circle():
    """x_t = cos x0 + sin noise and v = cos noise - sin x0."""
    schedule = DDPMSchedule.cosine(30)
    x0, noise = torch.randn(2, 6, 3).double()
    t = torch.arange(0, 30, 5)
    angle = torch.acos(schedule.alpha_bar.sqrt()[t])[:, None]
    torch.testing.assert_close(
        schedule.target("v", x0, t, noise),
        angle.cos() * noise - angle.sin() * x0,
    )


def test_an_unknown_target_is_refused():
    schedule, x = DDPMSchedule.linear(5), torch.zeros(1, 2)
    t = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ConfigError, match="'eps'.*noise, x0, v"):
        schedule.target("eps", x, t, x)
    with pytest.raises(ConfigError, match="'eps'.*noise, x0, v"):
        schedule.to_x0("eps", x, x, t)


# --------------------------------------------------------------- posterior


@settings(max_examples=60)
@given(CASES)
def test_both_forms_of_the_posterior_mean_are_equal(case):
    kind, timesteps, seed = case
    schedule = DDPMSchedule.make(kind, timesteps)
    generator = torch.Generator().manual_seed(seed % 2**31)
    x0, noise = torch.randn(2, 4, 3, generator=generator).double()
    t = torch.randint(timesteps, (4,), generator=generator)
    x_t = schedule.q_sample(x0, t, noise)
    mean, variance = schedule.posterior(x0, x_t, t)
    torch.testing.assert_close(
        schedule.mean_from_noise(noise, x_t, t), mean, atol=1e-6, rtol=1e-6
    )
    assert ((variance >= 0) & (variance <= schedule.betas.max())).all()


def test_the_posterior_is_bayes_rule():
    """Product of two Gaussians in x_{t-1}, written out."""
    schedule = DDPMSchedule.linear(50)
    x0, x_t = torch.tensor([[0.7]]).double(), torch.tensor([[-0.3]]).double()
    for step in (1, 10, 49):
        beta = float(schedule.betas[step])
        before = float(schedule.alpha_bar_before[step])
        # prior N(sqrt(before) x0, 1 - before); likelihood of x_t with
        # N(x_t; sqrt(1 - beta) x, beta)
        precision = 1 / (1 - before) + (1 - beta) / beta
        centre = math.sqrt(before) * 0.7 / (1 - before)
        centre += math.sqrt(1 - beta) * -0.3 / beta
        mean, variance = schedule.posterior(x0, x_t, torch.tensor([step]))
        assert float(mean) == pytest.approx(centre / precision)
        assert float(variance) == pytest.approx(1 / precision)


def test_the_last_step_back_is_certain():
    schedule = DDPMSchedule.linear(50)
    x0, x_t = torch.randn(2, 3, 4).double()
    mean, variance = schedule.posterior(x0, x_t, torch.zeros(3).long())
    torch.testing.assert_close(mean, x0)
    assert not variance.any()


def test_the_printed_mean_is_not_the_posterior_s():
    """Deviation 1: Eq. 3 and 9 as printed do not come near it."""
    schedule = DDPMSchedule.linear(50)
    x0, noise = torch.randn(2, 100, 1).double()
    t = torch.full((100,), 30)
    x_t = schedule.q_sample(x0, t, noise)
    mean, _ = schedule.posterior(x0, x_t, t)
    printed = schedule.mean_as_printed(noise, x_t, t)
    assert (printed - mean).square().mean() > 0.1
    # and it is what is printed: (x_t - (1-a) / sqrt(1-a)) eps / sqrt(a)
    a = float(1 - schedule.betas[30])
    by_hand = (x_t - (1 - a) / math.sqrt(1 - a)) * noise / math.sqrt(a)
    torch.testing.assert_close(printed, by_hand)
