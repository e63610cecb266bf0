"""The fast loop takes the steps of a plain one."""

import copy
from dataclasses import replace

import pytest
import torch
from test_training import SHORT, SIDE, data, network, run, vectors
from torch import nn

from serendifflib.diffusion import devices, sampling
from serendifflib.diffusion.distributed import Team, current_team
from serendifflib.diffusion.images import grid_loss, point_grid
from serendifflib.diffusion.sampling import in_mixed_precision, sample
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.training import (
    _running_average,
    _step_seed,
    batch_of,
)
from serendifflib.diffusion.unet import GridConv2d
from serendifflib.errors import ConfigError


def plain(net, how, *, predict="x0", scale=1.0, seed=0):
    """Training as a textbook writes it: float32, eager, nothing fused."""
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    groups = [{"params": net.parameters()}]
    if how.optimizer == "adamw":
        groups = [
            {"params": [p for p in net.parameters() if p.dim() > 1]},
            {
                "params": [p for p in net.parameters() if p.dim() <= 1],
                "weight_decay": 0.0,
            },
        ]
    optimizer = make[how.optimizer](
        groups,
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
        index = batch_of(len(given), how.batch_size, seed, step)
        portrait, counts = given.portraits.dense(index, points, SIDE)
        cells = given.target_cells(SIDE)[index]
        x0 = point_grid(given.targets[index], cells, points, SIDE)
        x0 = x0 * scale
        t = torch.randint(10, shape, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        x_t = schedule.q_sample(x0, t, noise)
        output = net(x_t, t, portrait * scale, counts)
        wanted = schedule.target(predict, x0, t, noise)
        loss = grid_loss(output, wanted, cells, "balanced")
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
        ema=ema,
        weight_decay=0.1,
    )
    parts = {"predict": predict, "scale": 1.7}
    ours, report = run(network(norm=norm, dropout=0.2), how, **parts)
    theirs = network(norm=norm, dropout=0.2)
    with torch.random.fork_rng():
        losses = plain(theirs, how, **parts)
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
    how = replace(SHORT, steps=12)
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


def test_alone_by_default():
    assert current_team() == Team()


def test_a_batch_that_cannot_be_dealt_out():
    with pytest.raises(ConfigError, match="batch_size is 4, but 3 processes"):
        run(team=Team(0, 3))


# --------------------------------------------------- precision, allocator


def test_the_network_is_mixed_and_the_state_is_not(monkeypatch):
    """What a GPU does, tried on the processor."""
    monkeypatch.setattr(
        sampling,
        "mixed_precision",
        lambda device: torch.autocast("cpu", torch.bfloat16),
    )
    layer = nn.Linear(8, 8)
    seen = []

    def denoise(x, t):
        seen.append(layer(x))
        return seen[-1]

    x = torch.randn(3, 8)
    with torch.no_grad():
        found = in_mixed_precision(denoise)(x, torch.zeros(3))
        exact = layer(x)
    assert seen[0].dtype == torch.bfloat16 and found.dtype == x.dtype
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.02)
    assert not torch.equal(found, exact)


def test_a_processor_computes_in_full_precision():
    with devices.mixed_precision(torch.device("cpu")):
        assert nn.Linear(8, 8)(torch.ones(8)).dtype == torch.float32


def test_nothing_is_compiled_for_a_processor():
    net = network()
    assert devices.compiled(net, 10**6) is net
    assert devices.usable_device(None).type in ("cpu", "cuda")


def test_the_allocator_is_asked_once(monkeypatch):
    devices.keep_large_blocks.cache_clear()
    asked = []
    monkeypatch.setattr(
        devices.platform, "libc_ver", lambda: asked.append(1) or ("", "")
    )
    assert devices.keep_large_blocks() is False  # not glibc: left alone
    assert devices.keep_large_blocks() is False
    assert len(asked) == 1
    devices.keep_large_blocks.cache_clear()


# --------------------------------------------------------- convolutions


def test_a_patch_by_hand():
    """One channel, a 2 x 2 grid: each cell sums itself and its neighbours."""
    layer = GridConv2d(1, 1, 3, padding=1, bias=False)
    layer.weight.data = torch.arange(9.0).reshape(1, 1, 3, 3)
    found = layer(torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]]))
    # top left: its own weight 4, right of it 5, below 7, below right 8
    assert found[0, 0, 0, 0] == 4 * 1 + 5 * 10 + 7 * 100 + 8 * 1000
    assert found[0, 0, 1, 1] == 0 * 1 + 1 * 10 + 3 * 100 + 4 * 1000


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (10, 10), (21, 20)])
def test_matrix_products_give_results_and_gradients_of_torch(size):
    ours = GridConv2d(3, 5, 3, padding=1).double()
    plain = nn.Conv2d(3, 5, 3, padding=1).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    wanted, found = plain(x), ours(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), (x, *ours.parameters())),
        torch.autograd.grad(wanted.square().sum(), (x, *plain.parameters())),
    )


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
