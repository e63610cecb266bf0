import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm

from serendifflib.diffusion.sampling import (
    SAMPLERS,
    ancestral_steps,
    ddim_steps,
    ddim_times,
    diffusers_scheduler,
    draw_vectors,
    sample,
    sample_with_diffusers,
    user_seed,
)
from serendifflib.diffusion.schedule import PREDICT, DDPMSchedule
from serendifflib.errors import ConfigError

WEIGHTS = torch.linspace(-0.4, 0.5, 36).view(6, 6)


def network(x, t):
    """A smooth stand-in for a trained network."""
    return torch.tanh(x @ WEIGHTS) + 0.1 * torch.cos(t[:, None] / 7.0)


def start(seed=0, shape=(4, 6)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draws(seed=1):
    """The same noise for whoever asks in the same order."""
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator)


SCHEDULES = {
    "linear": lambda steps: DDPMSchedule.linear(steps),
    "rescaled": lambda steps: DDPMSchedule.linear(steps, rescale_betas=True),
    "cosine": lambda steps: DDPMSchedule.cosine(steps),
}


def close(ours, theirs):
    """1e-5 of the size of the numbers."""
    size = max(1.0, float(theirs.abs().max()))
    assert float((ours - theirs).abs().max()) <= 1e-5 * size


@pytest.mark.parametrize("predict", PREDICT)
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("steps", [5, 50])
def test_ancestral_sampling_is_that_of_diffusers(
    predict, kind, steps, monkeypatch
):
    schedule = SCHEDULES[kind](steps)
    ours = sample(
        network,
        start(),
        schedule,
        sampler="ancestral",
        predict=predict,
        calls=1,
        noise=draws(),
    )
    noise = draws()
    monkeypatch.setattr(
        scheduling_ddpm, "randn_tensor", lambda shape, **options: noise(shape)
    )
    theirs = sample_with_diffusers(
        diffusers_scheduler(schedule, "ancestral", predict),
        network,
        start(),
        steps,
    )
    close(ours, theirs)


@pytest.mark.parametrize("predict", PREDICT)
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("calls", [1, 5, 10, 50])
def test_ddim_is_that_of_diffusers(predict, kind, calls):
    # numbers of calls that divide T: for others diffusers steps by
    # T // calls while it visits other times
    schedule = SCHEDULES[kind](50)
    ours = sample(
        network,
        start(),
        schedule,
        sampler="ddim",
        predict=predict,
        calls=calls,
        noise=draws(),
    )
    theirs = sample_with_diffusers(
        diffusers_scheduler(schedule, "ddim", predict),
        network,
        start(),
        calls,
    )
    close(ours, theirs)


@pytest.mark.parametrize("predict", PREDICT)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("calls", [1, 3, 20])
def test_a_network_that_knows_the_answer_gives_it(predict, sampler, calls):
    schedule = DDPMSchedule.linear(20, rescale_betas=True)
    answer = start(5).double()

    def oracle(x, t):
        noise = schedule.to_noise(answer, x, t)
        return schedule.target(predict, answer, t, noise)

    found = sample(
        oracle,
        start().double(),
        schedule,
        sampler=sampler,
        predict=predict,
        calls=calls,
        noise=lambda shape: start(9, shape).double(),
    )
    torch.testing.assert_close(found, answer, atol=1e-4, rtol=1e-4)


class Counting:
    def __init__(self):
        self.times = []

    def __call__(self, x, t):
        assert t.shape == (len(x),) and (t == t[0]).all()
        self.times.append(int(t[0]))
        return network(x, t)


@pytest.mark.parametrize(
    ("sampler", "calls", "times"),
    [
        ("ancestral", 1000, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("ddim", 10, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("ddim", 2, [9, 4]),
        ("ddim", 3, [9, 6, 2]),
        ("ddim", 1, [9]),
        ("one-call", 7, [9]),
    ],
)
def test_the_network_is_called_at_these_times(sampler, calls, times):
    counting = Counting()
    sample(
        counting,
        start(),
        DDPMSchedule.linear(10),
        sampler=sampler,
        predict="x0",
        calls=calls,
        noise=draws(),
    )
    assert counting.times == times


@pytest.mark.parametrize("steps", [1, 5, 7, 50, 1000])
def test_ddim_times_fall_and_start_at_the_end(steps):
    for calls in {1, 2, 3, steps // 2, steps - 1, steps} & set(
        range(1, steps + 1)
    ):
        times = ddim_times(steps, calls)
        assert len(times) == calls and times[0] == steps - 1
        assert (np.diff(times) < 0).all() and times[-1] >= 0


def test_one_call_is_the_first_estimate():
    schedule, x = DDPMSchedule.cosine(30), start()
    t = torch.full((4,), 29)
    for predict in PREDICT:
        expected = schedule.to_x0(predict, network(x, t), x, t)
        for sampler, calls in (("one-call", 30), ("ddim", 1)):
            found = sample(
                network,
                x,
                schedule,
                sampler=sampler,
                predict=predict,
                calls=calls,
                noise=draws(),
            )
            torch.testing.assert_close(found, expected)


def test_steps_are_the_states_on_the_way():
    schedule = DDPMSchedule.linear(10)
    for states, sampler in (
        (
            ancestral_steps(network, start(), schedule, "x0", draws()),
            "ancestral",
        ),
        (ddim_steps(network, start(), schedule, "x0", 10), "ddim"),
    ):
        states = list(states)
        assert len(states) == 10
        final = sample(
            network,
            start(),
            schedule,
            sampler=sampler,
            predict="x0",
            calls=10,
            noise=draws(),
        )
        assert torch.equal(states[-1], final)


def test_no_noise_is_added_in_the_last_step():
    asked = []

    def noise(shape):
        asked.append(shape)
        return torch.zeros(shape)

    list(
        ancestral_steps(network, start(), DDPMSchedule.linear(10), "x0", noise)
    )
    assert len(asked) == 9


def test_ddim_draws_nothing_and_ancestral_does():
    schedule = DDPMSchedule.linear(10, rescale_betas=True)

    def run(sampler, seed):
        return sample(
            network,
            start(),
            schedule,
            sampler=sampler,
            predict="x0",
            calls=10,
            noise=draws(seed),
        )

    assert torch.equal(run("ddim", 1), run("ddim", 2))
    assert torch.equal(run("ancestral", 1), run("ancestral", 1))
    assert not torch.equal(run("ancestral", 1), run("ancestral", 2))


def test_ancestral_sampling_draws_from_the_data():
    """Data N(3, 0.5^2): the best network is known, so is the result."""
    schedule = DDPMSchedule.linear(100, rescale_betas=True)

    def best(x, t):
        bar = schedule.alpha_bar[t][:, None].float()
        gain = bar.sqrt() * 0.25 / (bar * 0.25 + 1 - bar)
        return 3.0 + gain * (x - bar.sqrt() * 3.0)

    generator = torch.Generator().manual_seed(0)
    found = sample(
        best,
        torch.randn(4000, 1, generator=generator),
        schedule,
        sampler="ancestral",
        predict="x0",
        calls=1,
        noise=lambda shape: torch.randn(shape, generator=generator),
    )
    assert float(found.mean()) == pytest.approx(3.0, abs=0.05)
    assert float(found.std()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sampler", ["ddim", "one-call", "dpm-solver"])
@pytest.mark.parametrize("calls", [0, -1, 11])
def test_calls_out_of_range_are_refused(sampler, calls):
    with pytest.raises(ConfigError, match="between 1 and T=10, got"):
        sample(
            network,
            start(),
            DDPMSchedule.linear(10),
            sampler=sampler,
            predict="x0",
            calls=calls,
            noise=draws(),
        )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_unknown_names_are_refused(sampler):
    options = {"calls": 5, "noise": draws()}
    schedule = DDPMSchedule.linear(10)
    with pytest.raises(ConfigError, match="'eps'"):
        sample(
            network,
            start(),
            schedule,
            sampler=sampler,
            predict="eps",
            **options,
        )
    with pytest.raises(ConfigError, match="'euler'.*ancestral, ddim"):
        sample(
            network,
            start(),
            schedule,
            sampler="euler",
            predict="x0",
            **options,
        )
    with pytest.raises(ConfigError, match="'euler'"):
        diffusers_scheduler(schedule, "euler", "x0")


# --------------------------------------------------------- several draws


def test_seeds_follow_the_history_not_the_padding():
    assert user_seed(torch.tensor([0, 0, 4, 5]), 1) == user_seed(
        torch.tensor([4, 5]), 1
    )
    assert user_seed(torch.tensor([4, 5]), 1) != user_seed(
        torch.tensor([4, 5]), 2
    )
    assert user_seed(torch.tensor([5, 4]), 1) != user_seed(
        torch.tensor([4, 5]), 1
    )


def drawn(histories, draws, seen=None):
    """The mean of what goes in: the network hands back its noise."""

    def denoise(x, t):
        if seen is not None:
            seen.append(x)
        return x

    made = draw_vectors(
        denoise,
        histories,
        3,
        DDPMSchedule.make("linear", 10),
        draws=draws,
        sampler="one-call",
        calls=1,
    )
    assert made.shape == (len(histories), draws, 3)
    return made.mean(1)


def test_the_mean_is_over_the_draws_of_one_history():
    seen = []
    histories = torch.tensor([[0, 7], [8, 9]])
    made = drawn(histories, 4, seen)
    assert seen[0].shape == (8, 3)
    assert torch.allclose(made[0], seen[0][:4].mean(0))
    assert torch.allclose(made[1], seen[0][4:].mean(0))
    source = torch.Generator().manual_seed(user_seed(histories[1], 0, 2))
    assert torch.equal(seen[0][6], torch.randn(3, generator=source))


def test_neither_batch_nor_padding_changes_a_draw():
    both = drawn(torch.tensor([[0, 7], [8, 9]]), 2)
    assert torch.equal(drawn(torch.tensor([[8, 9]]), 2)[0], both[1])
    assert torch.equal(drawn(torch.tensor([[0, 0, 7]]), 2)[0], both[0])
