from dataclasses import replace

import numpy as np
import pytest
import torch
from inductive import check_inductive

from serendifflib.data.interactions import Interactions
from serendifflib.diffusion.base import place
from serendifflib.diffusion.images import ImageDiffusion
from serendifflib.diffusion.validation import Validation
from serendifflib.errors import (
    ConfigError,
    ModelError,
    UnknownItemError,
    UnknownUserError,
)
from serendifflib.model import fitting
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.settings import PRESETS, make_settings
from serendifflib.portrait.fold import prepare_fold
from serendifflib.profiles import PROFILES
from serendifflib.recommender import Recommender

COLUMNS = [
    "item",
    "title",
    "score",
    "expectedness",
    "relevance",
    "cell",
    "distance",
    "direction",
    "nearest history item",
]


def fitted(fold, seed=3, preset="tuned", **changes):
    tiny = {
        "width": 8,
        "side": 5,
        "timesteps": 20,
        "steps": 4,
        "batch_size": 8,
        "validate_every": 2,
    }
    model = SerenDiff(
        preset, device="cpu", progress=False, **{**tiny, **changes}
    )
    return model.fit(fold, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def request_(tiny_fold):
    """Histories of test users, and the same 30 candidates for each."""
    histories = tiny_fold.test.histories[:7]
    random = np.random.default_rng(0)
    rows = [random.permutation(200)[:30] + 1 for _ in histories]
    return histories, torch.from_numpy(np.stack(rows))


# ---------------------------------------------------------------- settings


def test_presets_are_those_of_the_book():
    known = {"paper", "corrected", "painter", "points", "tokens", "tuned"}
    assert known <= set(PRESETS)
    for name, preset in PRESETS.items():
        assert preset.preset == name
    paper = PRESETS["paper"]
    assert (paper.predict, paper.output_relu, paper.match) == (
        "noise",
        True,
        "zone",
    )
    assert (paper.width, paper.dropout, paper.side) == (384, 0.2, 10)
    assert (paper.learning_rate, paper.weight_decay) == (1e-3, 1e-4)
    assert not PRESETS["corrected"].output_relu
    assert not PRESETS["tuned"].output_relu


def test_a_profile_sets_sizes_and_changes_come_last():
    laptop = PROFILES["laptop"]
    settings = make_settings("paper", laptop)
    assert settings.width == laptop.width and settings.steps == laptop.steps
    assert settings.samples == 1  # only tuned averages several
    assert make_settings("tuned", laptop).samples == laptop.samples
    assert make_settings("paper", laptop, width=5).width == 5
    painter, tuned = (make_settings(p, laptop) for p in ("painter", "tuned"))
    assert painter.steps == 2 * tuned.steps
    same = {"preset": "painter", "steps": painter.steps,
            "validate_every": painter.validate_every,
            "condition": "film", "learning_rate": 1e-3}  # fmt: skip
    assert replace(tuned, **same) == painter


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("preset", ["painter", "points", "tokens", "tuned"])
def test_patience_grows_with_the_steps(preset, profile):
    """``tuned`` at full stopped after 250 of 20,000 steps without a gain."""
    settings = make_settings(preset, PROFILES[profile])
    waits = settings.patience * settings.validate_every
    assert waits >= settings.steps / 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"preset": "painter", "aggregate": "error"},
            "needs diffuse 'points', not 'portraits'",
        ),
        ({"preset": "best"}, "'best'.*paper, corrected, painter, points"),
        ({"diffuse": "words"}, "'words'.*portraits, points"),
        ({"steps": -1}, "steps must be 0 or more"),
        ({"preset": "paper", "prototypes": -1}, "prototypes must be 0"),
        ({"widht": 3}, "unknown setting 'widht'"),
        ({"predict": "eps"}, "'eps'.*noise"),
        ({"sampler": "euler"}, "'euler'"),
        ({"match": "nearest"}, "'nearest'"),
        ({"side": 0}, "at least 1"),
        ({"samples": 0}, "at least 1"),
        ({"timesteps": 0}, "at least 1"),
        ({"schedule": "sqrt"}, "'sqrt'"),
        ({"sampler": "ddim", "calls": 21, "timesteps": 20}, "between 1 and"),
    ],
)
def test_unknown_settings_are_refused_before_anything_is_done(
    changes, message
):
    with pytest.raises(ConfigError, match=message):
        SerenDiff(**{"preset": "tuned", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"condition": "add"},
        {"norm": "layer"},
        {"bins": "users"},
        {"isotropy": "zca"},
        {"weights": "newest"},
        {"loss": "l1"},
        {"optimizer": "sgd"},
    ],
)
def test_the_other_settings_are_refused_when_fitting(tiny_fold, changes):
    (value,) = changes.values()
    with pytest.raises(ConfigError, match=repr(value)):
        fitted(tiny_fold, **changes)


def test_fewer_steps_than_the_paper_s_calls_are_fine(tiny_fold, request_):
    """The ancestral sampler makes T calls, whatever ``calls`` says."""
    model = fitted(tiny_fold, preset="paper", timesteps=3, unit_scale=True)
    assert model.settings.calls == 1000
    assert torch.isfinite(model.score(*request_)).all()


# -------------------------------------------------------------------- fit


def test_before_a_fit_there_is_nothing_to_ask(tiny_data, request_, tmp_path):
    model = SerenDiff(progress=False)
    user, item = tiny_data.users[0], tiny_data.items[0]
    for ask in (
        lambda: model.score(*request_),
        lambda: model.recommend(user),
        lambda: model.explain(user, item),
        lambda: model.portrait(user),
        lambda: model.save(tmp_path / "model"),
    ):
        with pytest.raises(ModelError, match=r"SerenDiff \(tuned\): fit it"):
            ask()
    assert not (tmp_path / "model").exists()


def test_an_interrupted_fit_leaves_no_model(tiny_fold, monkeypatch, request_):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    model = fitted(tiny_fold)
    monkeypatch.setattr(fitting, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(tiny_fold)
    with pytest.raises(ModelError, match="fit it"):
        model.score(*request_)


def test_the_seed_decides(tiny_fold, request_, tiny_model):
    one = fitted(tiny_fold, seed=3).score(*request_)
    torch.manual_seed(99)
    two = fitted(tiny_fold, seed=3).score(*request_)
    assert torch.equal(one, two)
    assert not torch.allclose(one, fitted(tiny_fold, seed=4).score(*request_))


def test_test_users_change_nothing(tiny_data, tiny_fold, word_encoder):
    """Their later rows, reviews and labels are not looked at."""
    frame = tiny_data.frame.copy()
    users = tiny_data.user_index
    test = np.flatnonzero(np.isin(users, tiny_fold.split.test_users))
    frame.iloc[test, frame.columns.get_loc("rating")] = 1.0
    frame.iloc[tiny_fold.test.rows, frame.columns.get_loc("review")] = (
        "something else entirely"
    )
    data = Interactions(
        tiny_data.name, frame, tiny_data.source, has_labels=True
    )
    other = prepare_fold(data, tiny_fold.split, encoder=word_encoder)
    one, two = fitted(tiny_fold), fitted(other)
    assert torch.equal(one.space.vectors, two.space.vectors)
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, two.network.state_dict()[name])


def test_pretraining_comes_first_and_is_reported(tiny_fold):
    model = fitted(tiny_fold, pretrain_steps=3)
    assert [len(r.losses) for r in model.reports] == [3, 4]
    assert [r.stage for r in model.reports] == ["next-item", "serendipity"]
    plain = fitted(tiny_fold)
    assert model.reports[1].losses != plain.reports[0].losses
    report = model.report
    assert (report.steps, len(report.stages)) == (7, 2)
    assert report.parameters == model.reports[0].parameters
    assert report.seconds > 0


def test_pretraining_of_the_head_is_not_thrown_away(tiny_fold, monkeypatch):
    """The regression from labels once overwrote what 12 steps had learned."""
    heads = {}
    real = fitting.train

    def spy(network, *arguments, **options):
        if options["stage"] == "serendipity":
            heads[len(heads)] = network.point.vector.weight.detach().clone()
        return real(network, *arguments, **options)

    monkeypatch.setattr(fitting, "train", spy)
    for steps in (0, 12):
        fitted(tiny_fold, pretrain_steps=steps, steps=1)
    assert not torch.allclose(heads[0], heads[1], atol=1e-4)


@pytest.mark.parametrize("preset", ["tuned", "points"])
def test_the_regression_alone_is_called_so(tiny_fold, request_, preset):
    model = fitted(tiny_fold, preset=preset, steps=0)
    assert model.name == f"SerenDiff ({preset}, regression alone)"
    assert model.report.steps == 0 and not model.reports
    assert model.score(*request_).std() > 0
    assert "untrained" in SerenDiff("paper", steps=0).name


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_who_scores_nothing_does_not_validate_as_perfect(
    tiny_fold, monkeypatch, value
):
    """Both had the best score there is."""
    monkeypatch.setattr(
        ImageDiffusion,
        "score",
        lambda self, network, seen, draws=None: torch.full(
            seen.items.shape, value
        ),
    )
    if value == 0.0:
        report = fitted(tiny_fold).reports[0]
        assert len(report.validations) == 3
        assert all(score < 1e-3 for _, score in report.validations)
        return
    with pytest.raises(ModelError, match="NaN"):
        fitted(tiny_fold)


def test_everybody_stops_on_the_same_cases(tiny_fold, monkeypatch):
    """SerenDiff had its own: 300 random items, not those of the user."""
    seen = []
    real = ImageDiffusion.score

    def spy(self, network, placed, draws=None):
        seen.append(placed)
        return real(self, network, placed, draws)

    monkeypatch.setattr(ImageDiffusion, "score", spy)
    model = fitted(tiny_fold)
    cases = Validation.of(
        tiny_fold, n_candidates=model.settings.valid_candidates
    )
    assert len(seen) == 3
    for placed in seen:
        assert torch.equal(placed.items, cases.candidates)
        assert torch.equal(placed.portraits.items, cases.histories)


@pytest.fixture
def timed_fold(tiny_data, tiny_fold, word_encoder):
    """Training ends in the middle of the training users' histories."""
    seconds = tiny_data.frame["timestamp"].to_numpy()
    split = replace(tiny_fold.split, cutoff=int(np.median(seconds)))
    return prepare_fold(tiny_data, split, encoder=word_encoder)


def test_pretraining_stops_at_the_cutoff(tiny_data, timed_fold, monkeypatch):
    """In a split by time no later row is a target, nor in a history."""
    cutoff = timed_fold.split.cutoff
    seen = []
    real = ImageDiffusion.examples

    def spy(self, fold, examples, seed):
        seen.append(examples)
        return real(self, fold, examples, seed)

    monkeypatch.setattr(ImageDiffusion, "examples", spy)
    fitted(timed_fold, pretrain_steps=1)
    seconds = tiny_data.frame["timestamp"].to_numpy()
    assert len(seen) == 2 and len(seen[0]) > 50
    for examples in seen:
        assert (seconds[examples.rows] < cutoff).all()


def test_training_leaves_the_user_s_own_rows_out(tiny_fold, tiny_model):
    """A training user looks like a user never seen."""
    made = tiny_model.training_set(tiny_fold, tiny_fold.train)
    row = 4
    user = int(tiny_fold.train.users[row])
    data = tiny_fold.interactions
    others = [
        data.item_index[data.rows(u)]
        for u in tiny_fold.split.train_users
        if u != user
    ]
    space = tiny_model.space
    without = replace(
        space,
        co_occurrence=type(space.co_occurrence).fit(others, data.n_items),
    )
    history = tiny_fold.train.histories[row].numpy()
    history = history[history > 0]
    past, everything = without.both_positions(history)
    np.testing.assert_allclose(
        made.portraits.positions[row, -len(history) :], past, atol=1e-9
    )
    np.testing.assert_allclose(
        made.positions[row, 0],
        everything[int(tiny_fold.train.targets[row])],
        atol=1e-9,
    )


# ------------------------------------------------------------------- score


def test_it_is_a_recommender_that_knows_users_by_history(tiny_model, request_):
    assert isinstance(tiny_model, Recommender)
    scores = tiny_model.score(*request_)
    assert scores.shape == (7, 30) and torch.isfinite(scores).all()
    assert scores.std() > 0
    check_inductive(tiny_model, *request_, tolerance=1e-5)


@pytest.mark.parametrize("preset", ["paper", "corrected", "points", "tokens"])
def test_the_other_presets_are_inductive_too(tiny_fold, request_, preset):
    model = fitted(tiny_fold, preset=preset, timesteps=3)
    check_inductive(model, *request_, tolerance=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_of_generation_changes_nothing(
    tiny_model, request_, batch_size
):
    portraits, _ = tiny_model.look_at(*request_)
    whole = tiny_model.generate(portraits)
    parts = tiny_model.generate(portraits, batch_size=batch_size)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_the_type_of_the_numbers_changes_nothing(tiny_model, request_):
    histories, candidates = request_
    assert torch.equal(
        tiny_model.score(histories.int(), candidates.int()),
        tiny_model.score(histories, candidates),
    )


def test_threads_change_nothing(tiny_model, request_):
    """The same scores to 1e-5 with one and with two threads."""
    before = torch.get_num_threads()
    scores = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.get_num_threads() == threads
            scores.append(tiny_model.score(*request_))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=0)


def test_samples_are_averaged(tiny_model, request_):
    portraits, _ = tiny_model.look_at(*request_)
    one = tiny_model.generate(portraits, samples=1)
    four = tiny_model.generate(portraits, samples=4)
    assert not torch.allclose(one, four)
    assert torch.equal(four, tiny_model.generate(portraits, samples=4))


def test_portraits_are_drawn_and_matched_one_by_one(
    tiny_fold, request_, tmp_path
):
    """The score by hand from the draws, temperature and deviation."""
    histories, items = request_
    draws = {"sampler": "ddim", "calls": 2, "samples": 3, "patience": 1}
    model = fitted(tiny_fold, preset="painter", aggregate="draws", **draws)
    portraits, cells = model.look_at(histories, items)
    each = model.generate(portraits, each=True)
    mean = model.generate(portraits)
    assert torch.allclose(each.mean(1), mean, atol=1e-6)
    scores = torch.stack(
        [model.match(one, items, cells) for one in each.unbind(1)]
    )
    found = model.score(histories, items)
    temperature = float(model.network.temperature)
    for user in range(len(histories)):
        scale = float(scores[:, user].std()) * temperature
        by_hand = (scores[:, user] / scale).exp().mean(0).log()
        assert torch.allclose(found[user], by_hand, atol=1e-4)
    averaged = model.with_sampling(aggregate="mean").score(histories, items)
    assert torch.allclose(averaged, model.match(mean, items, cells))
    model.save(tmp_path / "painter")
    again = SerenDiff.load(tmp_path / "painter", device="cpu", progress=False)
    assert torch.equal(again.score(histories, items), found)


def test_a_bad_request_is_refused_by_name(tiny_model):
    for histories, candidates, message in (
        ([[0, 0]], [[1, 2]], "empty history"),
        ([[0, 1]], [[1, 0]], "padding id 0"),
        ([[0, 1]], [[1, 201]], "unknown item"),
        ([[1, 0]], [[1, 2]], "right of an item"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            tiny_model.score(torch.tensor(histories), torch.tensor(candidates))
        assert "SerenDiff (tuned)" in str(caught.value)


def test_a_network_that_diverged_is_not_ranked(tiny_fold, request_):
    model = fitted(tiny_fold)
    with torch.no_grad():
        model.network.out.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN among the scores"):
        model.score(*request_)


# --------------------------------------------------------------- recommend


def test_recommend_gives_new_items_best_first(tiny_model, tiny_data):
    for user in tiny_data.users[:5]:
        table = tiny_model.recommend(user, k=12)
        assert list(table.columns) == COLUMNS
        assert len(table) == 12 and table["item"].is_unique
        assert table["score"].is_monotonic_decreasing
        number = tiny_data.user_number(user)
        mine = tiny_data.item_index[tiny_data.rows(number)]
        titles = [tiny_data.title(item) for item in mine]
        assert not set(table["item"]) & set(tiny_data.items[mine - 1])
        assert set(table["nearest history item"]) <= set(titles)
        for row in table.itertuples():
            assert row.title == tiny_data.title(
                tiny_data.item_number(row.item)
            )
        for column in ("expectedness", "relevance"):
            assert table[column].between(0, 1).all()
        cells = np.array(table["cell"].tolist())
        assert ((cells >= 1) & (cells <= 5)).all()
        np.testing.assert_array_equal(
            cells[:, 0] - 1,
            np.minimum((table["expectedness"] * 5).astype(int), 4),
        )


def test_recommend_ranks_by_the_scores_of_score(
    tiny_data, tiny_fold, tiny_model
):
    """For a user who is in no count, both are the same question."""
    number = int(tiny_fold.split.test_users[0])
    history = tiny_data.item_index[tiny_data.rows(number)]
    table = tiny_model.recommend(tiny_data.users[number], k=200)
    wanted = [tiny_data.item_number(item) for item in table["item"]]
    scores = tiny_model.score(
        torch.from_numpy(history)[None], torch.tensor([wanted])
    )
    np.testing.assert_allclose(table["score"], scores[0], atol=1e-5)


def test_more_than_there_is_gives_what_there_is(tiny_model, tiny_data):
    user = tiny_data.users[0]
    mine = len(np.unique(tiny_data.item_index[tiny_data.rows(0)]))
    table = tiny_model.recommend(user, k=10_000)
    assert len(table) == 200 - mine
    assert np.isfinite(table["score"]).all() and table["item"].is_unique


@pytest.mark.parametrize("k", [0, -1])
def test_no_recommendation_is_no_question(tiny_model, tiny_data, k):
    with pytest.raises(ConfigError, match="k must be a whole number"):
        tiny_model.recommend(tiny_data.users[0], k=k)


def test_items_without_a_vector_are_not_recommended(tiny_fold, tiny_data):
    user = tiny_data.users[2]
    own = tiny_data.item_index[tiny_data.rows(2)]
    number = int(np.setdiff1d(np.arange(1, 201), own)[0])
    vectors = tiny_fold.raw_vectors.clone()
    vectors[number] = 0.0
    fold = replace(
        tiny_fold, raw_vectors=vectors, missing_items=np.array([number])
    )
    model = fitted(fold)
    table = model.recommend(user, k=10_000)
    assert tiny_data.items[number - 1] not in set(table["item"])


def test_sampling_may_change_after_training_and_nothing_else(
    tiny_model, request_
):
    other = tiny_model.with_sampling(seed=8, sampler="ddim", calls=4)
    assert other.network is tiny_model.network
    assert not torch.equal(other.score(*request_), tiny_model.score(*request_))
    assert tiny_model.settings.calls == 1 and tiny_model.seed != 8
    zone = tiny_model.with_sampling(match="zone").score(*request_)
    assert float(zone.min()) < -1.0  # at least one ring away
    with pytest.raises(ConfigError, match="steps cannot be changed after"):
        tiny_model.with_sampling(steps=3)
    with pytest.raises(ConfigError, match="calls must be between"):
        tiny_model.with_sampling(sampler="ddim", calls=21)


def test_points_are_a_preset_like_the_others(tiny_fold, tmp_path):
    model = fitted(tiny_fold, preset="points", prototypes=5)
    user = model.catalogue.users[4]
    table = model.recommend(user, k=4)
    assert len(table) == 4 and table["score"].is_monotonic_decreasing
    why = model.explain(user, table["item"][0])
    assert why.rank == 1 and why.zone.shape == (5, 5)
    assert why.zone.sum() == pytest.approx(1.0)  # a share of draws per cell
    model.save(tmp_path)
    again = SerenDiff.load(tmp_path, device="cpu", progress=False)
    assert again.recommend(user, k=4).equals(table)


def test_tokens_are_a_preset_like_the_others(tiny_fold, tmp_path):
    model = fitted(tiny_fold, preset="tokens", prototypes=5)
    user = model.catalogue.users[4]
    table = model.recommend(user, k=4)
    assert len(table) == 4 and table["score"].is_monotonic_decreasing
    why = model.explain(user, table["item"][0])
    assert why.rank == 1 and why.zone.shape == (5, 5)
    assert why.zone.sum() == pytest.approx(1.0)
    assert np.array_equal(why.zone, model.zone(user))
    model.save(tmp_path)
    again = SerenDiff.load(tmp_path, device="cpu", progress=False)
    assert again.recommend(user, k=4).equals(table)


def test_a_score_of_tokens_is_a_look_up_in_the_table(tiny_fold, request_):
    model = fitted(tiny_fold, preset="tokens", prototypes=5)
    histories, items = request_
    seen = place(model.space, histories, items)
    made = model.diffusion.table(model.network, seen.portraits)
    scores = model.score(histories, items)
    shares = model.memberships
    assert torch.allclose(shares[1:].sum(1), torch.ones(len(shares) - 1))
    row, column = seen.cells(5)[2, 7].tolist()
    ratio = made[2, row, column] / shares[1:].mean(0)
    expected = (ratio @ shares[items[2, 7]]).log()
    assert float(scores[2, 7]) == pytest.approx(float(expected), abs=1e-5)


def test_draws_of_tokens_do_not_depend_on_the_batch(tiny_fold, request_):
    model = fitted(tiny_fold, preset="tokens", prototypes=5)
    portraits = place(model.space, *request_).portraits
    made = model.diffusion.generate(model.network, portraits, draws=9)
    assert made.shape == (7, 9, 3)
    assert (made < 5).all() and (made >= 0).all()
    alone = portraits.part(torch.tensor([3]), "cpu")
    again = model.diffusion.generate(model.network, alone, draws=9)
    assert torch.equal(again[0], made[3])


def test_unknown_ids_are_named(tiny_model, tiny_data):
    for ask in (tiny_model.portrait, tiny_model.recommend):
        with pytest.raises(UnknownUserError, match="'nobody'.*u00000"):
            ask("nobody")
    with pytest.raises(UnknownUserError):
        tiny_model.explain("nobody", tiny_data.items[0])
    with pytest.raises(UnknownItemError, match="'nothing'"):
        tiny_model.explain(tiny_data.users[0], "nothing")


def test_a_split_by_time_leaves_out_what_was_counted(tiny_data, timed_fold):
    """Rows after the cutoff are in no count and cannot be taken out."""
    split = timed_fold.split
    model = fitted(timed_fold)
    seconds = tiny_data.frame["timestamp"].to_numpy()
    later = [
        user
        for user in split.train_users
        if (seconds[tiny_data.rows(user)] >= split.cutoff).any()
        and (seconds[tiny_data.rows(user)] < split.cutoff).sum() > 1
    ]
    assert later
    for user in later[:5]:
        rows = tiny_data.rows(user)
        counted = tiny_data.item_index[rows[seconds[rows] < split.cutoff]]
        portrait = model.portrait(tiny_data.users[user])
        history = tiny_data.item_index[rows]
        np.testing.assert_array_equal(portrait.items, history)
        assert np.isfinite(portrait.expectedness[1:]).all()
        np.testing.assert_array_equal(
            portrait.positions, model.space.positions(history, own=counted)
        )


def test_a_history_of_one_item_works(tiny_fold, tiny_model):
    scores = tiny_model.score(torch.tensor([[5]]), torch.tensor([[1, 2, 3]]))
    assert torch.isfinite(scores).all()
    catalogue = replace(
        tiny_model.catalogue,
        histories=[h[:1] for h in tiny_model.catalogue.histories],
        counted=[np.zeros(1, dtype=bool)] * 60,
    )
    model = SerenDiff.__new__(SerenDiff)
    model.__dict__.update(tiny_model.__dict__, catalogue=catalogue)
    user = catalogue.users[0]
    table = model.recommend(user, k=3)
    assert len(table) == 3
    portrait = model.portrait(user)
    assert portrait.reach == 0.0 and portrait.centre.tolist() == [1.0, 1.0]
    portrait.plot()
    assert table["title"][0] in model.explain(user, table["item"][0]).text
