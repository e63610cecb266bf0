"""Means of several draws: noise that follows the history alone."""

import torch

from serendifflib.baselines.draws import mean_of_draws, seed_of
from serendifflib.diffusion.schedule import DDPMSchedule


def test_seeds_follow_the_history_not_the_padding():
    assert seed_of(torch.tensor([0, 0, 4, 5]), 1) == seed_of(
        torch.tensor([4, 5]), 1
    )
    assert seed_of(torch.tensor([4, 5]), 1) != seed_of(torch.tensor([4, 5]), 2)
    assert seed_of(torch.tensor([5, 4]), 1) != seed_of(torch.tensor([4, 5]), 1)


def drawn(histories, draws, seen=None):
    """The mean of what goes in: the network hands back its noise."""

    def denoise(x, t):
        if seen is not None:
            seen.append(x)
        return x

    return mean_of_draws(
        denoise,
        histories,
        3,
        DDPMSchedule.make("linear", 10),
        draws=draws,
        sampler="one-call",
        calls=1,
    )


def test_the_mean_is_over_the_draws_of_one_history():
    seen = []
    histories = torch.tensor([[0, 7], [8, 9]])
    made = drawn(histories, 4, seen)
    assert seen[0].shape == (8, 3)
    assert torch.allclose(made[0], seen[0][:4].mean(0))
    assert torch.allclose(made[1], seen[0][4:].mean(0))
    source = torch.Generator().manual_seed(seed_of(histories[1], 2))
    assert torch.equal(seen[0][6], torch.randn(3, generator=source))


def test_neither_batch_nor_padding_changes_a_draw():
    both = drawn(torch.tensor([[0, 7], [8, 9]]), 2)
    assert torch.equal(drawn(torch.tensor([[8, 9]]), 2)[0], both[1])
    assert torch.equal(drawn(torch.tensor([[0, 0, 7]]), 2)[0], both[0])
