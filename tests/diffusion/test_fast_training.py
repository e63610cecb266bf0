"""The fast loop takes the steps of a plain one."""

import copy
from dataclasses import replace

import pytest
import torch
from test_training import SHORT, SIDE, data, network, run, vectors
from torch import nn

from serendifflib.diffusion import memory
from serendifflib.diffusion.sampling import in_bfloat16, sample
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.team import Team, current_team, training_as
from serendifflib.diffusion.training import (
    _running_average,
    _step_seed,
    grid_loss,
    point_grid,
)
from serendifflib.errors import ConfigError


def plain(net, how, *, seed=0):
    """Training as a textbook writes it: float32, eager, nothing fused."""
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = make[how.optimizer](
        net.parameters(),
        lr=how.learning_rate,
        weight_decay=how.weight_decay,
        fused=False,
        foreach=False,
    )
    schedule = DDPMSchedule.linear(10, rescale_betas=True)
    given, points = data(), vectors()
    losses, weights = [], []
    net.train()
    for step in range(how.steps):
        number = _step_seed(seed, step)
        torch.manual_seed(number)
        generator = torch.Generator().manual_seed(number)
        shape = (how.batch_size,)
        index = torch.randint(len(given), shape, generator=generator)
        portrait, counts = given.portraits.dense(index, points, SIDE)
        cells = given.target_cells(SIDE)[index]
        x0 = point_grid(given.targets[index], cells, points, SIDE)
        x0 = x0 * how.data_scale
        t = torch.randint(10, shape, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        x_t = schedule.q_sample(x0, t, noise)
        output = net(x_t, t, portrait * how.data_scale, counts)
        wanted = schedule.target(how.predict, x0, t, noise)
        loss = grid_loss(output, wanted, cells, how.loss)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=False)
        optimizer.step()
        losses.append(float(loss.detach()))
        weights.append(copy.deepcopy(net.state_dict()))
    if how.ema:
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.stack([w[name] for w in weights]).mean(0))
    return losses


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("predict", ["noise", "x0"])
@pytest.mark.parametrize("ema", [False, True])
def test_the_loop_is_the_plain_one(optimizer, norm, predict, ema):
    how = replace(
        SHORT,
        steps=12,
        optimizer=optimizer,
        predict=predict,
        ema=ema,
        data_scale=1.7,
    )
    ours, report = run(network(norm=norm, dropout=0.2), how)
    theirs = network(norm=norm, dropout=0.2)
    with torch.random.fork_rng():
        losses = plain(theirs, how)
    assert report.losses == pytest.approx(losses, rel=1e-4)
    found = ours.state_dict()
    for name, value in theirs.state_dict().items():
        # a norm takes these away: their gradient is rounding noise, which
        # Adam makes as large as any other
        if name.endswith(("conv.bias", "running_mean")):
            continue
        if value.is_floating_point():
            torch.testing.assert_close(
                found[name], value, rtol=1e-3, atol=2e-4
            )


def test_a_wrong_step_would_show():
    how = replace(SHORT, steps=12, data_scale=1.7)
    _, report = run(network(dropout=0.0), how)
    losses = plain(
        network(dropout=0.0), replace(how, learning_rate=how.learning_rate * 2)
    )
    assert report.losses != pytest.approx(losses, rel=1e-4)


def test_the_running_average_keeps_counters_whole():
    averages = [torch.tensor(4)]
    _running_average(averages, [torch.tensor(9)], torch.tensor(4))
    assert averages[0].dtype == torch.int64 and averages[0] == 5


def test_weights_leave_the_loop_as_they_came():
    net, _ = run()
    for value in net.state_dict().values():
        assert value.is_contiguous()


# ----------------------------------------------------------------- team


def test_the_parts_of_a_team_are_the_batch():
    rows = torch.arange(12)
    parts = [Team(rank, 3).share(rows) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert sorted(torch.cat(parts).tolist()) == rows.tolist()
    assert Team().share(rows) is rows


def test_one_process_is_a_team_without_communication():
    net, loss = network(), torch.tensor(0.5)
    alone = Team()
    assert alone.wrap(net) is net and alone.mean(loss) is loss
    assert alone.wait() is None and alone.first


def test_a_team_is_named_for_a_while():
    assert current_team() == Team()
    with pytest.raises(RuntimeError), training_as(Team(1, 2)) as team:
        assert current_team() is team
        raise RuntimeError
    assert current_team() == Team()


def test_a_batch_that_cannot_be_dealt_out():
    with (
        training_as(Team(0, 3)),
        pytest.raises(ConfigError, match="batch_size is 4, but 3 processes"),
    ):
        run()


# --------------------------------------------------- precision, allocator


def test_the_network_is_mixed_and_the_state_is_not():
    layer = nn.Linear(8, 8)
    seen = []

    def denoise(x, t):
        seen.append(layer(x))
        return seen[-1]

    x = torch.randn(3, 8)
    with torch.no_grad():
        found = in_bfloat16(denoise)(x, torch.zeros(3))
        exact = layer(x)
    assert seen[0].dtype == torch.bfloat16 and found.dtype == x.dtype
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.02)
    assert not torch.equal(found, exact)


def test_the_allocator_is_asked_once(monkeypatch):
    memory.keep_large_blocks.cache_clear()
    asked = []
    monkeypatch.setattr(
        memory.platform, "libc_ver", lambda: asked.append(1) or ("", "")
    )
    assert memory.keep_large_blocks() is False  # not glibc: left alone
    assert memory.keep_large_blocks() is False
    assert len(asked) == 1
    memory.keep_large_blocks.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device on this machine"
)
def test_cuda_trains_like_the_processor():
    how = replace(SHORT, steps=200, batch_size=8)
    _, here = run(network(dropout=0.0), how)
    net, there = run(network(dropout=0.0), how, device="cuda")
    last = slice(-50, None)  # other noise, other rounding: means agree
    ours, theirs = (torch.tensor(r.losses[last]) for r in (here, there))
    assert float(theirs.mean()) == pytest.approx(float(ours.mean()), rel=0.2)
    x = torch.randn(4, 4, SIDE, SIDE, generator=torch.Generator())
    portrait, counts = data().portraits.dense(torch.arange(4), vectors(), SIDE)

    def generate(device):
        moved = net.to(device)
        given = portrait.to(device), counts.to(device)
        return sample(
            lambda x, t: moved(x, t, *given),
            x.to(device),
            DDPMSchedule.linear(10, rescale_betas=True),
            sampler="ddim",
            predict="x0",
            calls=3,
            noise=torch.randn,
        ).cpu()

    with torch.no_grad():
        torch.testing.assert_close(
            generate("cuda"), generate("cpu"), rtol=0.05, atol=0.05
        )
