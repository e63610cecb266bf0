import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from serendifflib.diffusion.unet import (
    CONDITIONS,
    CrossAttention,
    GlobalPoint,
    PortraitPooling,
    UNet,
    UNetSettings,
    occupied_cells,
    sinusoid,
    typical_mean,
)
from serendifflib.errors import ConfigError

D = 6


def small(seed=0, **changes):
    torch.manual_seed(seed)
    given = {"channels": D, "widths": (8, 16, 32), "output_relu": False}
    return UNet(UNetSettings(**{**given, **changes})).eval()


def inputs(side=10, batch=3, seed=0):
    """Noisy grids, steps, portraits with about 7 occupied cells, counts."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, D, side, side, generator=generator)
    t = torch.randint(1000, (batch,), generator=generator)
    counts = torch.zeros(batch, side, side)
    for row in range(batch):
        for _ in range(7):
            e, r = torch.randint(side, (2,), generator=generator)
            counts[row, e, r] += 1
    portrait = torch.randn(batch, D, side, side, generator=generator)
    return x, t, portrait * (counts > 0)[:, None], counts


def test_the_paper_s_sizes():
    """App. B: 384, 768, 1536 channels; about 170 million parameters."""
    with torch.device("meta"):
        network = UNet(UNetSettings())
    total = sum(p.numel() for p in network.parameters())
    assert 170e6 <= total <= 185e6
    assert [stage.conv.out_channels for stage in network.down] == [
        384,
        768,
        1536,
    ]
    assert network.down[0].conv.in_channels == 2 * 384  # noise and portrait


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("side", [1, 2, 5, 7, 10, 20])
def test_the_output_has_the_shape_of_the_input(condition, side):
    x, t, portrait, counts = inputs(side)
    with torch.no_grad():
        output = small(condition=condition)(x, t, portrait, counts)
    assert output.shape == x.shape
    assert torch.isfinite(output).all()


def test_the_final_relu_makes_negative_noise_impossible():
    x, t, portrait, counts = inputs()
    with torch.no_grad():
        with_relu = small(output_relu=True)(x, t, portrait, counts)
        without = small(output_relu=False)(x, t, portrait, counts)
    assert (with_relu >= 0).all() and (without < 0).any()
    assert torch.equal(with_relu, without.clamp(min=0))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_user_is_computed_alone(condition, norm):
    """In eval mode the other rows of the batch change nothing."""
    network = small(condition=condition, norm=norm)
    x, t, portrait, counts = inputs(batch=4)
    counts[2], portrait[2] = 0, 0  # one who has a single item
    counts[2, 9, 9] = 1
    portrait[2, :, 9, 9] = 1.0
    with torch.no_grad():
        whole = network(x, t, portrait, counts)
        for row in range(4):
            one = slice(row, row + 1)
            alone = network(x[one], t[one], portrait[one], counts[one])
            torch.testing.assert_close(alone[0], whole[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_time_portrait_and_noise_all_matter(condition):
    network = small(condition=condition)
    x, t, portrait, counts = inputs()
    with torch.no_grad():
        plain = network(x, t, portrait, counts)
        for changed in (
            network(x + 0.5, t, portrait, counts),
            network(x, (t + 400) % 1000, portrait, counts),
            network(x, t, portrait.flip(0), counts.flip(0)),
        ):
            assert (changed - plain).abs().max() > 1e-3


def far_change(condition):
    """Effect, at one corner, of a history item in the other corner."""
    side = 80
    network = small(condition=condition, norm="batch")
    x, t, portrait, counts = inputs(side, batch=1)
    other, more = portrait.clone(), counts.clone()
    other[0, :, -1, -1] += 3.0
    more[0, -1, -1] += 1
    with torch.no_grad():
        before = network(x, t, portrait, counts)
        after = network(x, t, other, more)
    difference = (after - before).abs().amax(dim=1)[0]
    assert difference[-1, -1] > 1e-3  # close by, everybody sees it
    return float(difference[:8, :8].max())


def test_film_and_cross_see_the_whole_portrait_and_concat_does_not():
    """A convolution sees its neighbourhood (deviation 5)."""
    assert far_change("concat") == 0.0
    assert far_change("film") > 1e-6
    assert far_change("cross") > 1e-6


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_weight_learns(condition):
    network = small(condition=condition).train()
    if condition == "global":  # it is filled by the fit, zero until then
        torch.nn.init.normal_(network.point.vector.weight)
    x, t, portrait, counts = inputs()
    network(x, t, portrait, counts).square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_dropout_is_for_training_only():
    network = small(dropout=0.5)
    arguments = inputs()
    with torch.no_grad():
        assert torch.equal(network(*arguments), network(*arguments))
        network.train()
        assert not torch.equal(network(*arguments), network(*arguments))


# --------------------------------------------------------- cross attention


def test_occupied_cells_by_hand():
    counts = torch.zeros(2, 2, 2)
    counts[0, 0, 1], counts[0, 1, 1], counts[1, 1, 0] = 2, 1, 1
    portrait = torch.arange(8.0).view(2, 1, 2, 2)
    tokens, empty = occupied_cells(portrait, counts)
    assert tokens.shape == (2, 2, 3)
    expected = [[[1, 0.25, 0.75], [3, 0.75, 0.75]], [[6, 0.75, 0.25]]]
    assert tokens[0].tolist() == expected[0]
    assert tokens[1, :1].tolist() == expected[1]
    assert empty.tolist() == [[False, False], [False, True]]


def test_attention_ignores_empty_cells():
    torch.manual_seed(0)
    attend = CrossAttention(8, D).eval()
    _, _, portrait, counts = inputs(batch=2)
    counts[1], portrait[1] = 0, 0
    counts[1, 4, 4] = 1
    portrait[1, :, 4, 4] = 1.0
    h = torch.randn(2, 8, 2, 2)
    with torch.no_grad():
        plain = attend(h, portrait, counts)
        # whatever stands in an empty cell, masked or not even listed
        rubbish = portrait + 100.0 * (counts == 0)[:, None]
        torch.testing.assert_close(attend(h, rubbish, counts), plain)
        other = portrait.clone()
        other[1, :, 4, 4] = -1.0
        changed = attend(h, other, counts)
    torch.testing.assert_close(changed[0], plain[0])
    assert (changed[1] - plain[1]).abs().max() > 1e-3


# ----------------------------------------------------------------- pooling


def test_pooling_knows_the_mean_of_the_items_and_where_they_are():
    torch.manual_seed(0)
    pool = PortraitPooling(D, 8)
    seen = []
    pool.mix = torch.nn.Module()
    pool.mix.forward = lambda values: seen.append(values) or values
    for side in (5, 10, 20):
        _, _, portrait, counts = inputs(side)
        values = pool(portrait, counts)
        mean, where = values[:, :D], values[:, D:]
        expected = (portrait * counts[:, None]).sum(dim=(2, 3))
        total = counts.sum(dim=(1, 2))[:, None]
        torch.testing.assert_close(mean, expected / total)
        # shares of the history, scaled: all of them together are all of it
        torch.testing.assert_close(where.sum(dim=1), torch.full((3,), 10.0))
        assert where.shape == (3, 100)
    _, _, portrait, counts = inputs(10)
    values = pool(portrait, counts)[:, D:].view(3, 10, 10)
    total = counts.sum(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(values, 10.0 * counts / total)


def test_sinusoids_tell_steps_apart():
    for width in (64, 65):
        codes = sinusoid(torch.arange(1000), width)
        assert codes.shape == (1000, width)
        distances = torch.cdist(codes, codes) + 9 * torch.eye(1000)
        assert distances.min() > 0.1
    half = sinusoid(torch.tensor([3]), 4)[0]
    expected = torch.tensor([3.0, 0.03]).sin(), torch.tensor([3.0, 0.03]).cos()
    torch.testing.assert_close(half, torch.cat(expected))


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="'add'.*concat, film, cross"):
        UNetSettings(condition="add")
    with pytest.raises(ConfigError, match="'layer'.*batch, group"):
        UNetSettings(norm="layer")


def test_typical_cells_weigh_more():
    """Two cells point one way and one the other way: by hand."""
    portrait = torch.zeros(1, 2, 3, 3)
    counts = torch.zeros(1, 3, 3)
    for place, vector, items in (
        ((0, 0), (1.0, 0.0), 2),
        ((2, 1), (0.6, 0.8), 1),
    ):
        portrait[0, :, place[0], place[1]] = torch.tensor(vector)
        counts[0, place[0], place[1]] = items
    mean = np.array([2.6, 0.8])
    mean /= np.linalg.norm(mean)
    cells = np.array([[1.0, 0.0], [0.6, 0.8]])
    weights = np.array([2, 1]) * np.exp(cells @ mean / 0.1)
    expected = weights / weights.sum() @ cells
    found = typical_mean(portrait, counts)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_whole_user_s_vector_starts_as_ridge_regression():
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(40, D, generator=generator)
    points = torch.randn(40, D, generator=generator)
    head = GlobalPoint(4, D, dropout=0.0)
    head.start_from(users, points)
    alpha = float(users.square().sum(dim=1).mean())
    reference = Ridge(alpha=alpha, fit_intercept=False)
    reference.fit(users.numpy(), points.numpy())
    np.testing.assert_allclose(
        head.vector(users).detach().numpy(),
        reference.predict(users.numpy()),
        atol=1e-4,
    )


def test_the_whole_user_s_vector_is_placed_in_the_cells_of_the_map():
    """Before training the map is 0.5 everywhere."""
    head = GlobalPoint(4, D, dropout=0.0).eval()
    _, _, portrait, counts = inputs()
    output = head(torch.randn(3, 4, 10, 10), portrait, counts)
    vector = head.vector(typical_mean(portrait, counts))
    torch.testing.assert_close(
        output, 0.5 * vector[..., None, None].expand_as(output)
    )
