"""The compiled network: the same numbers, and the same randomness."""

from dataclasses import replace

import pytest
import torch
from test_training import SHORT, SIDE, data, network, run, vectors

from serendifflib.diffusion.team import Team, current_team, training_as
from serendifflib.errors import ModelError
from serendifflib.model.compiled import (
    CompiledTeam,
    compiled,
    compiled_model,
    compiled_training,
)
from serendifflib.model.serendiff import SerenDiff

NEEDS_CUDA = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device on this machine"
)


def losses(net, how=SHORT, **options):
    _, report = run(net, how, **options)
    return torch.tensor(report.losses)


def a_model(device="cpu"):
    """A model whose network is not trained: its noise is what matters."""
    model = SerenDiff(
        "paper", device=device, width=8, progress=False, timesteps=5, side=SIDE
    )
    model.points = vectors()
    model.network = network(dropout=0.0).to(device).eval()
    return model


def test_a_compiled_step_is_the_same_step():
    plain = losses(network(dropout=0.0))
    with compiled_training(backend="eager"):
        found = losses(network(dropout=0.0))
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_the_context_keeps_the_place_in_the_team_and_ends():
    with training_as(Team(1, 2)), compiled_training() as team:
        assert current_team() is team
        assert team == CompiledTeam(1, 2, "inductor")
    assert current_team() == Team()


def test_the_trained_network_is_the_plain_one():
    """Checkpoints and saved models must not carry names of torch.compile."""
    net = network(dropout=0.0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with compiled_training(backend="eager"):
        losses(net)
    assert net.state_dict().keys() == before.keys()
    assert any(
        not torch.equal(value, before[name])
        for name, value in net.state_dict().items()
    )


def test_a_compiled_model_gives_the_same_portraits():
    model = a_model()
    portraits = data().portraits
    view = compiled_model(model, backend="eager")
    torch.testing.assert_close(
        view.generate(portraits), model.generate(portraits)
    )
    assert isinstance(view, SerenDiff) and view.settings is model.settings
    assert model.network is not view.network  # the model itself is as it was


def test_only_a_fitted_model_is_compiled():
    with pytest.raises(ModelError, match="paper.*fit it before"):
        compiled_model(SerenDiff("paper", progress=False))


@pytest.mark.gpu
@NEEDS_CUDA
def test_compiled_training_on_cuda_is_like_that_of_the_processor():
    how = replace(SHORT, steps=200, batch_size=8)
    here = losses(network(dropout=0.0), how)
    with compiled_training():
        there = losses(network(dropout=0.0), how, device="cuda")
    ours, theirs = float(here[-50:].mean()), float(there[-50:].mean())
    assert theirs == pytest.approx(ours, rel=0.2)


@pytest.mark.gpu
@NEEDS_CUDA
def test_noise_of_a_user_on_cuda_knows_no_neighbours():
    model = a_model("cuda")
    view = compiled_model(model)
    portraits = data().portraits
    together = view.generate(portraits)
    torch.testing.assert_close(
        view.generate(portraits, batch_size=1), together, rtol=0.05, atol=0.05
    )
    one = view._noise(portraits.items[0])
    again = view._noise(portraits.items[0])
    other = view._noise(portraits.items[1])
    draws = [one((3,)) for _ in range(40)]  # more than are drawn at once
    assert all(torch.equal(draw, again((3,))) for draw in draws)
    assert not torch.equal(draws[0], other((3,)))
    assert len({tuple(draw.tolist()) for draw in draws}) == 40


@pytest.mark.gpu
@NEEDS_CUDA
def test_the_compiled_network_rounds_like_the_plain_one():
    model = a_model("cuda")
    x = torch.randn(4, 4, SIDE, SIDE, device="cuda")
    portrait, counts = data().portraits.dense(torch.arange(4), vectors(), SIDE)
    given = x, torch.zeros(4, device="cuda"), portrait.cuda(), counts.cuda()
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(model.network)(*given), model.network(*given)
        )
