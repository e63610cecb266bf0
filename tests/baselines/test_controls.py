"""Each control by a case computed by hand."""

import math
from collections import namedtuple

import numpy as np
import pytest
import torch
from inductive import check_inductive
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge

from serendifflib.baselines import controls
from serendifflib.baselines.base import NEGATIVES, draw_negatives
from serendifflib.baselines.ceilings import (
    CaseControl,
    Oracle,
    OracleCell,
    OraclePortrait,
    OracleProtocol,
)
from serendifflib.baselines.controls import (
    CONTROLS,
    DenseCell,
    ItemPrior,
    LabelCell,
    LinearMap,
    LinearRadius,
    LowExpectedness,
    MaxCosine,
    MeanCosine,
    Popularity,
    Random,
    Ridge,
    cell_log_frequency,
    conditional_logit,
    reaches,
)
from serendifflib.data.law import pair_cosines
from serendifflib.data.splits import Examples
from serendifflib.data.world import World
from serendifflib.diffusion import linear
from serendifflib.errors import ConfigError, ModelError
from serendifflib.evaluation.candidates import draw_candidates
from serendifflib.evaluation.metrics import ranks, summary
from serendifflib.portrait.grid import Grid
from serendifflib.portrait.items import join, memberships
from serendifflib.recommender import Recommender

from .hand import (
    COMPASS,
    EAST,
    NORTH,
    SOUTH,
    WEST,
    FixedGrid,
    make_fold,
)

HALF = math.sqrt(0.5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fitted(control, fold):
    return control.fit(fold, generator=seeded())


def scores(model, history, *candidates):
    rows = model.score(torch.tensor([history]), torch.tensor([candidates]))
    return rows[0].double().tolist()


class SeenGrid:
    """A grid whose user sees given positions of the items."""

    def __init__(self, expectedness):
        self.space, self.expectedness = self, expectedness

    def catalogue_positions(self, history):
        positions = np.zeros((len(self.expectedness) + 1, 2))
        positions[1:, 0] = self.expectedness
        return positions


Cases = namedtuple("Cases", "histories users")


@pytest.fixture
def fold():
    """Two training users, one who is tested; a has been read twice."""
    return make_fold(["abC", "acB", "dA"], train=[0, 1], test=[2])


# without learning


def test_mean_cosine(fold):
    model = fitted(MeanCosine(), fold)
    # the mean of east and north looks north-east
    found = scores(model, [0, EAST, NORTH], EAST, WEST, SOUTH)
    assert found == pytest.approx([HALF, -HALF, -HALF])
    # opposites cancel: no direction, every cosine zero
    assert scores(model, [EAST, WEST], NORTH, EAST) == [0.0, 0.0]


def test_max_cosine(fold):
    model = fitted(MaxCosine(), fold)
    found = scores(model, [0, EAST, NORTH], EAST, WEST, SOUTH)
    assert found == pytest.approx([1.0, 0.0, 0.0])


def test_padding_is_no_item_for_max_cosine(fold):
    model = fitted(MaxCosine(), fold)
    assert scores(model, [0, EAST], WEST) == pytest.approx([-1.0])


def test_popularity_counts_training_users_once(fold):
    model = fitted(Popularity(), fold)
    found = scores(model, [SOUTH], EAST, WEST, NORTH, SOUTH)
    assert found == [2.0, 2.0, 2.0, 0.0]  # the tested user is not counted
    again = make_fold(["aabC", "cdA"], train=[0], test=[1])
    assert scores(fitted(Popularity(), again), [NORTH], EAST, SOUTH) == [1, 0]


def test_low_expectedness():
    fold = make_fold(["aB", "aC", "dA"], train=[0, 1], test=[2])
    model = fitted(LowExpectedness(), fold)
    # n(b, a) = 1, n(., a) = 2; background (1+1, 0+1) / (3+2+2+1) of b and d
    expected = [
        -math.log((1 + 2 / 8) / 3),
        -math.log((0 + 1 / 8) / 3),
    ]
    assert scores(model, [EAST], WEST, SOUTH) == pytest.approx(expected)


def test_random_is_chance_and_knows_only_the_history(fold):
    model = fitted(Random(), fold)
    firsts = torch.randint(1, 5, (2000, 6), generator=seeded(1))
    items = torch.arange(1, 5).expand(2000, 4)
    best = model.score(firsts, items).argmax(dim=1)
    _, counts = firsts.unique(dim=0, return_counts=True)
    assert len(counts) > 1000
    share = best.bincount(minlength=4) / 2000
    assert (share - 0.25).abs().max() < 0.06
    padded = torch.cat([torch.zeros(2000, 1).long(), firsts], dim=1)
    assert torch.equal(model.score(padded, items), model.score(firsts, items))
    other = Random().fit(fold, generator=seeded(9))
    assert not torch.equal(
        other.score(firsts, items), model.score(firsts, items)
    )


def test_dense_cell_is_the_share_of_the_catalogue(fold):
    model = fitted(DenseCell(grid=FixedGrid([9, 0, 0, 0, 3])), fold)
    assert scores(model, [EAST], WEST, SOUTH) == pytest.approx([0.75, 0.25])


def dense_world(n_candidates, side):
    """Ranks by DenseCell where every item is the label once, and lists."""
    cells = np.zeros(121, dtype=np.int64)
    cells[91:] = np.repeat([1, 2, 3], 10)  # 90 items in one cell, 3 x 10
    corners = np.array([[0, 0], [0, 0.9], [0.9, 0], [0.9, 0.9]])
    examples = Examples(
        users=np.arange(120),
        histories=torch.ones(120, 1).long(),
        targets=torch.arange(1, 121),
        rows=np.arange(120),
    )
    lists = draw_candidates(
        lambda row: corners[cells],
        examples,
        n_candidates=n_candidates,
        side=side,
        exclude=lambda row: np.zeros(0, dtype=np.int64),
        seed=0,
    )
    model = DenseCell(grid=FixedGrid(cells))
    model.n_items, model.pool = 120, np.arange(1, 121)
    rows = model.score(examples.histories, lists.items)
    return ranks(rows, lists.positive, generator=seeded())


def test_dense_cell_measures_the_bias_of_the_protocol():
    """Labels even over items, candidates even over cells: not chance."""
    # in the dense cell the label is one of its ten candidates: 90 of 120
    assert summary(dense_world(40, side=2))["H@10"] == 90 / 120


def test_dense_cell_is_at_chance_among_uniform_candidates():
    hits = summary(dense_world(40, side=1))["H@10"]
    assert abs(hits - 10 / 40) < 0.12  # three standard errors


# learned


def test_label_cell_by_hand():
    fold = make_fold(["abC", "bcD", "cdB", "dA"], train=[0, 1, 2], test=[3])
    # targets c, d, b lie in cells 1, 1, 0: counts 1, 2, 0, 0 plus one each
    model = fitted(LabelCell(grid=FixedGrid([9, 3, 0, 1, 1])), fold)
    expected = [math.log(n / 7) for n in (1, 2, 3, 3)]
    found = scores(model, [SOUTH], EAST, WEST, NORTH, SOUTH)
    assert found == pytest.approx(expected)


def test_label_cell_leaves_the_users_own_rows_out(tiny_fold):
    grid = Grid.of(tiny_fold)
    model = LabelCell(grid=grid)
    model.fit(tiny_fold, generator=seeded())
    train, data = tiny_fold.train, tiny_fold.interactions
    counts, with_own = np.zeros(100), np.zeros(100)
    for m in range(len(train)):
        history = train.histories[m].numpy()
        history = history[history > 0]
        own = data.item_index[data.rows(int(train.users[m]))]
        for into, rows in ((counts, own), (with_own, None)):
            place = grid.space.catalogue_positions(history, own=rows)
            e, r = np.minimum(place[int(train.targets[m])] * 10, 9).astype(int)
            into[10 * e + r] += 1
    assert (counts != with_own).any()
    expected = cell_log_frequency(counts)
    assert np.allclose(model.log_frequency.numpy(), expected)


def test_item_prior_knows_items_and_no_user():
    fold = make_fold(["bA", "cA", "dA", "bC"], train=[0, 1, 2], test=[3])
    model = fitted(ItemPrior(), fold)
    east, west, north, south = scores(model, [WEST], 1, 2, 3, 4)
    assert east > north > west
    assert north == pytest.approx(south, abs=1e-4)
    assert scores(model, [NORTH, SOUTH], 1, 2, 3, 4) == [
        east, west, north, south,
    ]  # fmt: skip


def test_item_prior_without_two_classes_says_nothing():
    fold = make_fold(["aBCD", "bA", "bC"], train=[0, 1], test=[2])
    assert set(fold.train.targets.tolist()) == {1, 2, 3, 4}
    model = fitted(ItemPrior(), fold)
    assert scores(model, [WEST], 1, 2, 3, 4) == [0.0] * 4


def test_ridge_equals_sklearn_and_leaves_out_for_real():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(12, 3)), random.normal(size=(12, 2))
    ours = Ridge.fit(x, y, 0.7)
    theirs = SklearnRidge(alpha=0.7).fit(x, y)
    said = x @ ours.weights[:-1] + ours.weights[-1]
    assert np.allclose(said, theirs.predict(x))
    for row in range(12):
        rest = np.arange(12) != row
        without = SklearnRidge(alpha=0.7).fit(x[rest], y[rest])
        expected = without.predict(x[row : row + 1])[0]
        assert np.allclose(ours.left_out[row], expected)


def test_linear_map_by_hand():
    # east leads to north, west to south: x = 1, -1 -> y = 1, -1
    fold = make_fold(["aC", "bD", "cA"], train=[0, 1], test=[2])
    model = fitted(LinearMap(alphas=(2.0,)), fold)
    # slope sum(xy) / (sum(xx) + alpha) = 2 / 4; no constant, by symmetry
    found = scores(model, [EAST], NORTH, SOUTH, EAST)
    assert found == pytest.approx([0.5, -0.5, 0.0], abs=1e-6)
    assert scores(model, [NORTH], SOUTH) == pytest.approx([0.0], abs=1e-6)


def test_linear_map_may_see_memberships(tiny_fold):
    model = fitted(LinearMap(prototypes=8, alphas=(1.0,)), tiny_fold)
    vectors = model.vectors
    points = join(vectors, memberships(vectors, 8))
    histories = tiny_fold.train.histories
    x = controls.history_means(histories, points).double().numpy()
    y = points[tiny_fold.train.targets].double().numpy()
    asked = tiny_fold.test.histories[:3]
    items = torch.arange(1, 21).expand(3, -1)
    told = controls.history_means(asked, points).double().numpy()
    wanted = SklearnRidge(alpha=1.0).fit(x, y).predict(told)
    expected = np.einsum("bd,bcd->bc", wanted, points[items].double().numpy())
    found = model.score(asked, items)
    # ours shrinks the constant as well, which adds the same to everybody
    assert np.allclose(found, expected, atol=1e-3)


def test_linear_map_chooses_on_validation(monkeypatch):
    fold = make_fold(
        ["aC", "bD", "abC", "cA"], train=[0, 1], valid=[2], test=[3]
    )
    tried = []

    def ndcg(self, score):
        tried.append(score(torch.tensor([[EAST]]), torch.tensor([[NORTH]])))
        return {1: 0.2, 2: 0.9, 3: 0.4}[len(tried)]

    monkeypatch.setattr(controls.Validation, "ndcg", ndcg)
    model = fitted(LinearMap(alphas=(0.5, 2.0, 8.0)), fold)
    assert model.chosen == {"alpha": 2.0}
    found = torch.stack(tried).flatten().tolist()
    assert found == pytest.approx([2 / 2.5, 2 / 4, 2 / 10])
    assert scores(model, [EAST], NORTH) == pytest.approx([0.5])


def test_cosine_orders_as_the_inner_product(tiny_fold):
    """Why the linear map has no such choice."""
    model = fitted(LinearMap(), tiny_fold)
    items = torch.arange(1, 101).expand(4, 100)
    histories = tiny_fold.test.histories[:4]
    inner = model.score(histories, items)
    wanted = controls.history_means(histories, model.vectors)
    wanted = wanted @ model.weights[:-1] + model.weights[-1]
    cosine = torch.cosine_similarity(
        wanted[:, None], model.vectors[items], dim=2
    )
    known = model.vectors[items].norm(dim=2) > 0
    assert known.all()
    assert torch.equal(inner.argsort(dim=1), cosine.argsort(dim=1))


def test_reach_by_hand():
    histories = torch.tensor(
        [[0, EAST, NORTH], [0, EAST, WEST], [EAST, NORTH, WEST], [0, 0, EAST]]
    )
    # from east: north is 1 away, west 2; from north-east west is 1 + .707
    expected = [1.0, 2.0, (1.0 + 1.0 + HALF) / 2, 1.0]
    assert reaches(histories, COMPASS).tolist() == pytest.approx(expected)


def test_conditional_logit_with_one_rival_is_logistic_regression(
    monkeypatch,
):
    random = np.random.default_rng(3)
    x = random.normal(size=(60, 2, 3)) * [1.0, 5.0, 0.2]
    x[:, 0] += [0.5, -1.0, 0.1]
    monkeypatch.setattr(linear, "PENALTY", 0.05)
    found = conditional_logit(torch.from_numpy(x)).numpy()
    spread = x.reshape(-1, 3).std(axis=0, ddof=1)
    difference = (x[:, 0] - x[:, 1]) / spread
    both = np.concatenate([difference, -difference])
    side = np.repeat([1, 0], 60)
    # the symmetric copy doubles the likelihood
    reference = LogisticRegression(
        C=1 / (0.05 * 120), fit_intercept=False, tol=1e-10
    ).fit(both, side)
    assert np.allclose(found, reference.coef_[0] / spread, rtol=1e-3)


def test_linear_radius_features_by_hand():
    fold = make_fold(["aC", "bD", "cA"], train=[0, 1], test=[2])
    model = fitted(LinearRadius(grid=FixedGrid([9, 0, 1, 2, 3])), fold)
    found = model._features(
        torch.tensor([[EAST, NORTH]]),
        torch.tensor([[WEST]]),
        torch.tensor([[3.0, 4.0]]),
        torch.tensor([[-0.5]]),
        "cosine",
    )[0, 0]
    radius, reach = 1.0 + HALF, 1.0
    expected = [-0.6, radius, radius**2, radius * reach, -0.5]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    inner = model._features(
        torch.tensor([[EAST, NORTH]]),
        torch.tensor([[WEST]]),
        torch.tensor([[3.0, 4.0]]),
        torch.tensor([[-0.5]]),
        "inner",
    )[0, 0]
    assert inner[0] == pytest.approx(-3.0)


def test_linear_radius_does_not_count_a_row_for_itself(monkeypatch):
    fold = make_fold(["aC", "bD", "cA", "dB"], train=[0, 1, 2], test=[3])
    seen = []

    def spy(features):
        seen.append(features)
        return torch.zeros(5)

    monkeypatch.setattr(controls, "conditional_logit", spy)
    # targets c, d, a lie in cells 0, 0, 1
    fitted(LinearRadius(grid=FixedGrid([9, 1, 2, 0, 0]), negatives=5), fold)
    own = seen[0][:, 0, 4].tolist()
    # counts 2, 1, 0, 0 without the row: 1 of 2, 1 of 2, 0 of 2; plus one
    expected = [math.log(2 / 6), math.log(2 / 6), math.log(1 / 6)]
    assert own == pytest.approx(expected)


def test_linear_radius_finds_a_radius_that_follows_the_reach(monkeypatch):
    """Targets at the user's own radius; no direction helps."""
    random = np.random.default_rng(5)
    n = 400
    angles = random.uniform(0, 2 * np.pi, n + 1)
    vectors = torch.tensor(
        np.stack([np.cos(angles), np.sin(angles)], 1), dtype=torch.float32
    )
    vectors[0] = 0
    model = LinearRadius(grid=FixedGrid(np.zeros(n + 1, dtype=int)))
    model.vectors, model.points, model.n_items = vectors, vectors, n
    histories = torch.from_numpy(random.integers(1, n + 1, (300, 3)))
    reach = reaches(histories, vectors)
    items = torch.from_numpy(random.integers(1, n + 1, (300, 60)))
    flat = torch.zeros(300, 60)
    features = model._features(
        histories, items, torch.zeros(300, 2), flat, "inner"
    )
    nearest = (features[..., 1] - reach[:, None]).abs().argmin(dim=1)
    swapped = features.clone()
    rows = torch.arange(300)
    swapped[rows, 0], swapped[rows, nearest] = (
        features[rows, nearest],
        features[rows, 0],
    )
    monkeypatch.setattr(linear, "PENALTY", 1e-6)
    weights = conditional_logit(swapped)
    best = (swapped @ weights).argmax(dim=1)
    assert (best == 0).float().mean() > 0.5
    # utility -r^2 + 2 r reach: bent down, and turning with the reach
    assert weights[2] < 0 < weights[3]
    assert float(weights[3] / -weights[2]) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("draw", NEGATIVES)
def test_negatives_are_never_the_users_own(draw):
    cells = np.array([0, 0, 0, 0, 0, 1, 2])
    pool = np.arange(1, 7)
    drawn = draw_negatives(
        cells, pool, np.array([1, 6]), 4000, draw, np.random.default_rng(0)
    )
    share = np.bincount(drawn, minlength=7) / 4000
    assert share[[0, 1, 6]].sum() == 0
    if draw == "uniform":  # items 2, 3, 4, 5
        expected = [1 / 4, 1 / 4, 1 / 4, 1 / 4]
    else:  # cell 0 holds 2, 3, 4 and cell 1 holds 5
        expected = [1 / 6, 1 / 6, 1 / 6, 1 / 2]
    assert np.allclose(share[2:6], expected, atol=0.03)


def test_unknown_negatives_are_refused():
    with pytest.raises(ConfigError, match="uniform, cells"):
        LinearRadius(draw="hard")


# ceilings


def cases(*rows):
    users, histories, targets = zip(*rows, strict=True)
    return Examples(
        users=np.array(users),
        histories=torch.tensor(histories),
        targets=torch.tensor(targets),
        rows=np.arange(len(rows)),
    )


def test_oracle_cell_by_hand(fold):
    model = fitted(OracleCell(grid=FixedGrid([9, 0, 1, 1, 2])), fold)
    known = model.for_cases(cases((2, [0, SOUTH], WEST)))
    assert scores(known, [0, SOUTH], EAST, WEST, NORTH, SOUTH) == [0, 1, 1, 0]
    with pytest.raises(ModelError, match="Oracle cell: call for_cases"):
        scores(model, [0, SOUTH], EAST, WEST)


def test_a_ceiling_tells_cases_with_one_history_by_the_target(fold):
    model = fitted(OracleCell(grid=FixedGrid([9, 0, 1, 2, 3])), fold)
    known = model.for_cases(
        cases((1, [0, SOUTH], WEST), (2, [0, SOUTH], EAST))
    )
    assert scores(known, [SOUTH], WEST, NORTH) == [1, 0]
    assert scores(known, [SOUTH], EAST, NORTH) == [1, 0]
    with pytest.raises(ModelError, match="row 0 is none of its cases"):
        scores(known, [EAST], WEST, NORTH)
    with pytest.raises(ModelError, match="none of its cases"):
        scores(known, [SOUTH], NORTH)


def test_the_oracle_is_the_law(tiny_fold):
    model = fitted(Oracle(), tiny_fold).for_cases(tiny_fold.test)
    test, world = tiny_fold.test, tiny_fold.interactions.world
    items = torch.arange(1, 201).expand(len(test), 200)
    order = torch.randperm(len(test), generator=seeded())
    found = model.score(test.histories[order], items)
    for row, case in enumerate(order.tolist()):
        expected = world.oracle_scores(int(test.users[case]))[1:]
        assert np.array_equal(found[row].numpy(), expected)


def test_no_oracle_without_a_law(fold):
    with pytest.raises(ConfigError, match="no known law"):
        fitted(Oracle(), fold)


class FlatWorld:
    def label_rows(self, user):
        return np.array([0])

    def oracle_scores(self, user, items, *, which):
        return np.zeros(len(items))


def test_protocol_oracle_by_bayes_rule():
    """A list with one item per cell, a flat law.

    User 3 has a and the label; b, c lie in one cell and d in the other.
    With the label in the first cell the list holds d for certain, with d
    as the label b or c by a coin: the odds are 2 : 1 for a flat law.
    """
    fold = make_fold(["ab", "bc", "dcab", "aB"], train=[0, 1], test=[3])
    model = OracleProtocol(grid=FixedGrid([9, 0, 0, 0, 1]))
    model.vectors, model.n_items = COMPASS, 4
    model.pool, model.data = np.arange(1, 5), fold.interactions
    model.world = FlatWorld()
    known = model.for_cases(cases((3, [0, EAST], WEST)))
    found = scores(known, [EAST], WEST, SOUTH)
    assert math.exp(found[0] - found[1]) == pytest.approx(2.0)
    assert found == pytest.approx([math.log(2), math.log(1)])


# all of them


def plain_controls():
    return [n for n, c in CONTROLS.items() if not issubclass(c, CaseControl)]


@pytest.fixture(scope="module")
def tiny_grid(tiny_fold):
    return Grid.of(tiny_fold)


@pytest.mark.parametrize("name", plain_controls())
def test_controls_know_a_user_by_the_history_alone(name, tiny_fold, tiny_grid):
    model = CONTROLS[name](grid=tiny_grid).fit(tiny_fold, generator=seeded())
    assert isinstance(model, Recommender)
    candidates = torch.randperm(200, generator=seeded())[:60] + 1
    test = tiny_fold.test
    check_inductive(
        model, test.histories[:5], candidates.repeat(5, 1), tolerance=1e-4
    )
    again = CONTROLS[name](grid=tiny_grid).fit(tiny_fold, generator=seeded())
    assert torch.equal(
        model.score(test.histories, candidates.repeat(len(test), 1)),
        again.score(test.histories, candidates.repeat(len(test), 1)),
    )


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_refuse_bad_requests_by_name(name, tiny_fold, tiny_grid):
    control = CONTROLS[name]
    items = torch.tensor([[1, 2]])
    with pytest.raises(ModelError, match="not fitted"):
        control().score(torch.tensor([[3]]), items)
    model = control(grid=tiny_grid).fit(tiny_fold, generator=seeded())
    for history, wanted in (
        ([[0]], [[1, 2]]),
        ([[3]], [[0, 2]]),
        ([[3]], [[1, 201]]),
    ):
        with pytest.raises(ModelError, match=f"^{model.name.split(' +')[0]}"):
            model.score(torch.tensor(history), torch.tensor(wanted))


def test_a_grid_looks_once_per_history(tiny_fold, monkeypatch):
    grid = Grid.of(tiny_fold)
    looked = []
    place = grid._look
    monkeypatch.setattr(
        grid, "_look", lambda h, own: looked.append(1) or place(h, own)
    )
    history = tiny_fold.training_histories()[0][:3]
    first = grid.look(history)
    assert grid.look(np.append(0, history)) is first and len(looked) == 1
    assert grid.look(history, own=history) is not first
    assert grid.look(history[::-1]) is not first and len(looked) == 3
    everything = grid.space.catalogue_positions(history)
    e, r = np.minimum(everything[1:] * 10, 9).astype(int).T
    assert np.array_equal(first.cells[1:], 10 * e + r)


def test_the_portraits_oracle_by_hand_and_its_limits():
    world = World("forked", n_users=60, n_items=200, seed=1)
    user = 3
    history = world.before(int(world.label_rows(user)[0]))
    true = world._met.places(user, history)
    items = np.arange(1, 201)

    def scored(seen):
        model = OraclePortrait(grid=SeenGrid(1.0 - seen))
        model.world = world
        model.examples = Cases(torch.from_numpy(history)[None], [user])
        return model._rate_case(0, items)

    def chance(seen, variance):
        law = world.law
        total = 0.0
        pairs = np.column_stack((world.bridges, world.pairs))
        k = law.bridges
        niche = world.niche[user]
        for bridge in range(k):
            pair = pairs[niche][[bridge, k + bridge]]
            cosine = pair_cosines(
                pair[None], world.primary[1:], world.secondary[1:],
                len(world.theme_names),
            )[0]  # fmt: skip
            off = seen - (bridge + 0.5) / k
            s = np.exp(
                law.content * cosine - law.zone * off**2 / (2 * variance)
            )
            total = total + s / s.sum()
        return np.log(total)

    # places that are right: the law itself
    assert np.allclose(scored(true), chance(true, 0.1**2))
    free = ~np.isin(items, history)
    law = world.oracle_scores(user, items)
    assert np.allclose(
        np.diff(law[free]), np.diff(scored(true)[free]), atol=1e-6
    )
    # all a tenth too far: as wrong as that, and as unsure
    wrong = true + 0.1
    assert np.allclose(scored(wrong), chance(wrong, 0.1**2 + 0.01))
