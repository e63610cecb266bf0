"""The ablations of Table 5: another condition, and nothing else."""

import pytest
import torch
from inductive import check_inductive

from serendifflib.baselines.ablations import (
    SequenceUNet,
    SpreadVectors,
    UserEmbedding,
    UserSequence,
    spread_out,
)
from serendifflib.baselines.registry import make_model
from serendifflib.baselines.trainer import Budget
from serendifflib.diffusion.unet import UNet, UNetSettings, typical_mean
from serendifflib.errors import ConfigError, ModelError
from serendifflib.model.serendiff import SerenDiff
from serendifflib.portrait.portrait import Portraits

from .toy import cases, chance, hit_ratio, toy_fold

BUDGET = Budget(pretrain_steps=0, max_steps=60, batch_size=32)
SHORT = Budget(pretrain_steps=2, max_steps=3, batch_size=8)
SIZE = {"width": 8, "samples": 1, "side": 5, "validate_every": 20}
KINDS = [
    (UserEmbedding, {"factors": 8}),
    (UserEmbedding, {"factors": 8, "mode": "ratings"}),
    (UserSequence, {}),
    (UserSequence, {"reading": "grid"}),
]
each_kind = pytest.mark.parametrize(
    ("kind", "options"),
    KINDS,
    ids=["embedding", "ratings", "encoder", "grid"],
)


def seed(number=0):
    return torch.Generator().manual_seed(number)


def fit(kind, options, budget=SHORT, fold=None, number=0):
    model = kind(budget=budget, **(SIZE | options))
    return model.fit(fold or toy_fold(), generator=seed(number))


def portrait_model(fold, budget=SHORT):
    model = SerenDiff(
        "tuned",
        progress=False,
        steps=budget.max_steps,
        pretrain_steps=budget.pretrain_steps,
        batch_size=budget.batch_size,
        **SIZE,
    )
    return model.fit(fold, generator=seed())


@each_kind
def test_speaks_the_protocol(kind, options):
    fold = toy_fold()
    model = fit(kind, options, fold=fold)
    histories, candidates, _ = cases(fold)
    check_inductive(model, histories[:3], candidates[:3])
    again = fit(kind, options, fold=fold)
    other = fit(kind, options, fold=fold, number=1)
    scores = [m.score(histories, candidates) for m in (model, again, other)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


@pytest.mark.parametrize(
    ("kind", "options"),
    # ratings say nothing there: who reads a topic likes it
    [one for one in KINDS if one[1].get("mode") != "ratings"],
    ids=["embedding", "encoder", "grid"],
)
def test_learns_the_toy_world(kind, options):
    fold = toy_fold()
    model = fit(kind, options, BUDGET, fold)
    assert hit_ratio(model, fold) > 3 * chance(fold)


@each_kind
def test_only_the_condition_differs_from_the_portrait(kind, options):
    fold = toy_fold()
    ours, theirs = fit(kind, options, fold=fold), portrait_model(fold)
    assert ours.seed == theirs.seed
    mine, other = (m.settings.as_dict() for m in (ours, theirs))
    assert mine == other
    sets = [m.training_set(fold, fold.train) for m in (ours, theirs)]
    assert torch.equal(sets[0].targets, sets[1].targets)
    assert torch.equal(sets[0].positions, sets[1].positions)
    fresh = [m.diffusion.new_network(3) for m in (ours, theirs)]
    unet = getattr(fresh[0], "unet", fresh[0])
    for name, value in fresh[1].state_dict().items():
        assert torch.equal(unet.state_dict()[name], value), name


@each_kind
def test_bad_requests_are_refused_by_name(kind, options):
    model = fit(kind, options)
    one, ten = torch.tensor([[1]]), torch.arange(1, 11)[None]
    for histories, candidates, words in (
        (one, torch.tensor([[0]]), "row 0: padding id 0"),
        (one, torch.tensor([[201]]), "row 0: unknown item"),
        (torch.tensor([[0]]), ten, "row 0: empty history"),
    ):
        with pytest.raises(ModelError, match=f"{words}") as caught:
            model.score(histories, candidates)
        assert str(caught.value).startswith(model.name)
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="NaN among the scores"):
        model.score(one, ten)


@each_kind
def test_a_fit_reports_what_it_took(kind, options):
    model = kind(budget=SHORT, **(SIZE | options))
    with pytest.raises(ModelError, match="fit"):
        _ = model.report
    model.fit(toy_fold(), generator=seed())
    report = model.report
    assert [stage.stage for stage in report.stages] == [
        "next-item",
        "serendipity",
    ]
    assert [stage.steps for stage in report.stages] == [2, 3]
    assert report.parameters == sum(
        p.numel() for p in model.network.parameters()
    )
    model.fit(toy_fold("next-item"), generator=seed())
    assert [stage.stage for stage in model.report.stages] == ["next-item"]


@each_kind
def test_works_without_the_linear_start(kind, options):
    fold = toy_fold()
    model = fit(kind, options | {"condition": "film"}, fold=fold)
    histories, candidates, _ = cases(fold)
    check_inductive(model, histories[:2], candidates[:2])
    ablated = model.settings.as_dict()
    assert ablated.pop("condition") == "film"
    known = portrait_model(fold).settings.as_dict()
    assert known.pop("condition") == "global" and known == ablated


def test_an_embedding_is_the_same_in_every_cell_and_needs_no_rows():
    fold = toy_fold()
    model = fit(UserEmbedding, {"factors": 8}, fold=fold)
    histories = fold.test.histories[:4]
    portraits, _ = model.look_at(histories, histories.clamp(min=1))
    assert isinstance(portraits, SpreadVectors)
    grid, counts = portraits.dense(torch.arange(4), model.points, 5)
    # 16 numbers of a vector, 25 prototypes of 200 items
    assert grid.shape == (4, 41, 5, 5) and bool((counts == 1).all())
    expected = model.factorization.embed(histories) / 41**0.5
    for cell in ((0, 0), (2, 3), (4, 4)):
        assert torch.equal(grid[:, :8, *cell], expected)
    assert bool((grid[:, 8:] == 0).all())  # 8 factors, 41 numbers
    part = portraits.part(torch.tensor([2, 0]), "cpu")
    assert torch.equal(part.spread, portraits.spread[[2, 0]])
    assert torch.equal(part.items, portraits.items[[2, 0]])


def test_a_spread_vector_is_its_own_typical_mean():
    vectors = torch.randn(3, 6, generator=seed())
    grid, counts = spread_out(vectors, 4)
    assert torch.allclose(typical_mean(grid, counts), vectors, atol=1e-5)


def test_a_sequence_fills_the_grid_from_the_newest_item():
    model = fit(UserSequence, {"reading": "grid"})
    some = torch.tensor([[0, 11, 12, 13, 14, 15, 16]])
    told = model.diffusion.represent(Portraits(some, torch.zeros(1, 7, 2)))
    assert told.items.tolist() == [[0, 11, 12, 13, 14, 15, 16]]
    # side 5: 16 is the newest, 11 begins the second row
    cells = told.cells(5)[0].tolist()
    assert cells[-1] == [0, 0] and cells[-5] == [0, 4]
    assert cells[1] == [1, 0]
    long = torch.arange(1, 31)[None]  # 25 cells, 30 items
    told = model.diffusion.represent(Portraits(long, torch.zeros(1, 30, 2)))
    assert told.items[0].tolist() == [0] * 5 + list(range(6, 31))
    grid, counts = told.dense(torch.tensor([0]), model.points, 5)
    assert bool((counts == 1).all())
    assert torch.equal(grid[0, :, 0, 0], model.points[30])
    assert torch.equal(grid[0, :, 4, 4], model.points[6])


def make_sequence_network(side=4):
    torch.manual_seed(0)
    unet = UNet(
        UNetSettings(
            channels=6,
            widths=(8, 16, 32),
            condition="global",
            norm="group",
            output_relu=False,
        )
    )
    return SequenceUNet(unet, side, width=8).eval()


def as_grid(tokens, side=4):
    """Tokens [n, d], newest first, as the grid and the counts of one user."""
    grid = torch.zeros(1, tokens.shape[1], side * side)
    grid[0, :, : len(tokens)] = tokens.T
    counts = torch.zeros(1, side * side)
    counts[0, : len(tokens)] = 1
    return grid.view(1, -1, side, side), counts.view(1, side, side)


def test_the_encoder_starts_with_nothing_and_then_sees_the_order():
    network = make_sequence_network()
    tokens = torch.randn(5, 6, generator=seed())
    assert bool((network.read(*as_grid(tokens)) == 0).all())
    torch.nn.init.normal_(network.leave.weight)
    one = network.read(*as_grid(tokens))
    turned = network.read(*as_grid(tokens.flip(0)))
    assert not torch.allclose(one, turned, atol=1e-3)
    # its set is the same, so what the typical mean tells is the same
    assert torch.allclose(
        typical_mean(*as_grid(tokens)),
        typical_mean(*as_grid(tokens.flip(0))),
        atol=1e-5,
    )


def test_the_encoder_reads_a_user_alone_as_in_a_batch():
    network = make_sequence_network()
    torch.nn.init.normal_(network.leave.weight)
    users = [torch.randn(n, 6, generator=seed(n)) for n in (1, 3, 16)]
    grids = [as_grid(tokens) for tokens in users]
    together = network.read(
        torch.cat([grid for grid, _ in grids]),
        torch.cat([counts for _, counts in grids]),
    )
    for row, (grid, counts) in enumerate(grids):
        alone = network.read(grid, counts)
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def test_training_reaches_the_encoder():
    network = make_sequence_network().train()
    torch.nn.init.normal_(network.leave.weight)
    grid, counts = as_grid(torch.randn(4, 6, generator=seed()))
    noise = torch.randn(1, 6, 4, 4, generator=seed())
    network(noise, torch.tensor([3]), grid, counts).square().mean().backward()
    for name, value in network.named_parameters():
        if name.startswith(("enter", "places", "blocks", "leave")):
            assert value.grad is not None and bool(value.grad.any()), name


def test_unknown_options_are_refused():
    with pytest.raises(ConfigError, match="unknown mode 'bpr'"):
        UserEmbedding(budget=SHORT, mode="bpr")
    with pytest.raises(ConfigError, match="unknown reading 'bag'"):
        UserSequence(budget=SHORT, reading="bag")
    with pytest.raises(ConfigError, match="unknown setting 'widht'"):
        UserSequence(budget=SHORT, widht=8)
    with pytest.raises(ConfigError, match="17 factors do not fit"):
        fit(UserEmbedding, {"factors": 17})


def test_the_registry_makes_both_and_nobody_saves_them(tmp_path):
    for name in ("user-embedding", "user-sequence"):
        model = make_model(name, SHORT, **SIZE)
        assert (model.settings.steps, model.settings.batch_size) == (3, 8)
        with pytest.raises(ModelError, match="is not saved"):
            model.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
