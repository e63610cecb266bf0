"""The simulated world: its words, its rows, and the law of its labels."""

import hashlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from taobao import TAOBAO_PEOPLE, TAOBAO_SURPRISED

from serendifflib.data import population, reviews
from serendifflib.data import vocabulary as words
from serendifflib.data.law import THEMES_PER_GENRE
from serendifflib.data.sources import load_dataset
from serendifflib.data.world import LAWS, SIZES, World
from serendifflib.errors import ConfigError, UnknownUserError
from serendifflib.portrait.scores import CoOccurrence

# Worlds of earlier releases: records and results rest on these bytes.
GOLDEN = {
    "strong": (
        "d55261a2d7aca7d6e30a4b1bdf885d3dcc16fa23f9735b48701d58ab84a61913"
    ),
    "weak": (
        "442977dfd20dab9b8dde3d8f8d7d048909a442a6d335a34d8293384c3826c2b6"
    ),
    "null": (
        "ece297940b6dfb21aba3397f5e7c6465fcdf294baaf929d5a634ca6937374cfb"
    ),
}


def digest(world):
    """SHA-256 over the rows and titles as text."""
    data = world.interactions()
    text = data.frame.to_csv(index=False, lineterminator="\n")
    titles = "\n".join(data.titles[i] for i in data.items)
    return hashlib.sha256((text + titles).encode()).hexdigest()


def small(seed=0, preset="strong", **options):
    options = {"n_users": 80, "n_items": 200, **options}
    return World(preset, seed=seed, **options)


@pytest.fixture(scope="module")
def strong():
    return World("strong", n_users=1200, n_items=1500, seed=3)


# -- words -----------------------------------------------------------------


def test_vocabulary_has_the_promised_size_and_shape():
    assert len(words.GENRES) >= 24
    assert len(words.WORDS["genre_nouns"]) == len(words.GENRES)
    for genre, themes in words.GENRES.items():
        assert len(themes) == 4, genre
        terms = [t for text in themes.values() for t in text.split()]
        assert len(terms) >= 40 and len(set(terms)) == len(terms), genre
        for theme, text in themes.items():
            assert len(text.split()) >= 10, (genre, theme)
            assert all(
                t.isascii() and t.isalpha() and t.islower()
                for t in text.split()
            ), (genre, theme)
    everything = [t for terms in words.theme_terms() for t in terms]
    assert len(set(everything)) == len(everything)


def test_theme_numbers_follow_their_genre():
    for number, name in enumerate(words.theme_names()):
        genre = words.genre_names()[number // 4]
        assert name.startswith(f"{genre}: ")
        theme = name.removeprefix(f"{genre}: ")
        assert words.theme_terms()[number] == (
            words.GENRES[genre][theme].split()
        )


def test_templates_leave_no_placeholder_and_keep_terms():
    terms = ["aaa", "bbb", "ccc", "ddd", "eee"]
    for pick in range(64):
        for variant in range(5):
            text = words.make_review(terms, 0, variant, 4, pick)
            assert "{" not in text and text[0].isupper()
            assert sum(t in text.lower() for t in terms) == 3
            assert 9 <= len(text.split()) <= 22
        text = words.make_label_review(terms, 5, [pick, pick, pick, pick])
        assert "{" not in text
        assert sum(t in text for t in terms) == 3


def test_titles_stay_unique_when_every_form_is_taken():
    terms = ["one", "two", "three", "four", "five"]
    taken = set()
    for _ in range(400):
        title = words.make_title(terms, [0, 0, 0, 0], taken)
        assert title not in taken
        taken.add(title)
    assert any(title.endswith("Volume 3") for title in taken)


# -- rows ------------------------------------------------------------------


def check_rows(world):
    """Everything that must hold for any ordinary world."""
    data = world.interactions()
    frame = data.frame
    assert data.world is world and data.has_labels
    assert data.n_users == world.n_users
    assert data.n_items == world.n_items
    assert not frame.duplicated(["user_id", "item_id"]).any()
    assert frame["rating"].isin([1, 2, 3, 4, 5]).all()
    assert frame["timestamp"].dtype == np.int64
    assert len(set(data.titles.values())) == world.n_items
    plain = frame["label"].to_numpy() == 0
    counts = np.bincount(data.item_index[plain], minlength=world.n_items + 1)
    assert counts[1:].min() >= world.min_reviews
    times = frame["timestamp"].to_numpy()
    for user in range(world.n_users):
        rows = data.rows(user)
        assert (np.diff(times[rows]) > 0).all()
        labels = np.flatnonzero(frame["label"].to_numpy()[rows])
        assert len(labels) == 1
        assert labels[0] >= 0.6 * len(rows) - 1e-9
        assert (rows[labels] == world.label_rows(user)).all()


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    preset=st.sampled_from(sorted(LAWS)),
    n_users=st.integers(40, 120),
    n_items=st.integers(192, 260),
    extra=st.integers(0, 20),
)
def test_rows_of_any_world(seed, preset, n_users, n_items, extra):
    lengths = {"MIN_LENGTH": 12, "MAX_LENGTH": 12 + extra}
    with mock.patch.multiple(population, **lengths):
        world = World(preset, n_users=n_users, n_items=n_items, seed=seed)
    check_rows(world)


def test_rows_of_the_ordinary_preset(strong):
    check_rows(strong)
    assert strong.min_reviews == 3
    lengths = strong.interactions().frame.groupby("user_id").size()
    assert lengths.min() == 8 and lengths.max() == 20


def test_ids_have_one_width_and_sort_like_numbers():
    data = small().interactions()
    assert data.users[0] == "u00000" and data.users[-1] == "u00079"
    assert data.items[0] == "i00001" and data.items[-1] == "i00200"


def test_label_position_is_uniform_in_the_last_two_fifths(monkeypatch):
    monkeypatch.setattr(population, "MIN_LENGTH", 20)
    world = World(n_users=1000, n_items=400, seed=1)
    place = [
        int(world.label_rows(u)[0] - world.interactions().row_start[u])
        for u in range(world.n_users)
    ]
    counts = np.bincount(place, minlength=20)
    assert counts[:12].sum() == 0
    assert stats.chisquare(counts[12:]).pvalue > 1e-3


def test_themes_of_items_and_users_are_what_the_docstring_says(strong):
    p, s = strong.primary[1:], strong.secondary[1:]
    assert strong.primary[0] == strong.secondary[0] == -1
    assert (p // 4 != s // 4).all()
    assert np.ptp(np.bincount(p, minlength=96)) <= 1
    genres = (
        np.stack((strong.niche, strong.second, strong.bridge[strong.niche]))
        // 4
    )
    assert (genres[0] != genres[1]).all()
    assert (genres[1] != genres[2]).all()
    assert (genres[0] != genres[2]).all()
    assert ((strong.boldness > 0) & (strong.boldness < 1)).all()


def test_bridge_permutes_themes_and_keeps_genres_together(strong):
    bridge = strong.bridge
    assert sorted(bridge) == list(range(96))
    for genre in range(24):
        goal = bridge[4 * genre : 4 * genre + 4] // 4
        assert len(set(goal)) == 1 and goal[0] != genre


def test_histories_follow_the_niche_and_boldness(strong):
    data = strong.interactions()
    plain = data.frame["label"].to_numpy() == 0
    user, item = data.user_index[plain], data.item_index[plain]
    in_genre = strong.primary[item] // 4 == strong.niche[user] // 4
    in_theme = strong.primary[item] == strong.niche[user]
    second = strong.primary[item] == strong.second[user]
    bold = strong.boldness[user] > 0.7
    shy = strong.boldness[user] < 0.3
    assert in_theme.mean() > 0.3
    assert in_genre[shy].mean() > in_genre[bold].mean() + 0.1
    assert second[bold].mean() > second[shy].mean() + 0.03


def test_popular_items_are_met_more_often(strong):
    data = strong.interactions()
    counts = np.bincount(data.item_index, minlength=strong.n_items + 1)
    order = np.argsort(-strong.popularity[1:]) + 1
    assert counts[order[:150]].mean() > 2 * counts[order[-750:]].mean()


def test_reviews_are_few_and_only_labels_speak_of_serendipity(strong):
    frame = strong.interactions().frame
    label = frame["label"].to_numpy() == 1
    opening = frame["review"].str.startswith(tuple(words.WORDS["surprise"]))
    assert (opening.to_numpy() == label).all()
    touch = ("surpris", "nexpected", "not expect")
    touched = frame["review"][~label].str.contains("|".join(touch))
    assert 0.015 < touched.mean() < 0.045
    texts = frame[~label].groupby("item_id")["review"].nunique()
    assert texts.max() <= reviews.TEXTS_PER_ITEM + 1


def test_reviews_name_terms_of_their_item(strong):
    data = strong.interactions()
    terms = words.theme_terms()
    rows = np.arange(0, len(data.frame), 37)
    for row in rows:
        item = data.item_index[row]
        text = data.frame["review"].iloc[row].lower()
        assert any(t in text for t in terms[strong.primary[item]])
        assert any(t in text for t in terms[strong.secondary[item]])


def test_ratings_rise_with_affinity_and_labels_are_liked(strong):
    data = strong.interactions()
    frame = data.frame
    label = frame["label"].to_numpy() == 1
    rating = frame["rating"].to_numpy()
    assert set(rating[label]) == {4.0, 5.0}
    niche = strong.primary[data.item_index] == strong.niche[data.user_index]
    assert rating[niche & ~label].mean() > rating[~niche & ~label].mean() + 0.3
    assert set(rating[~label]) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_some_times_tie_between_users(strong):
    times = strong.interactions().frame["timestamp"]
    assert times.min() >= 1_262_304_000
    assert 0.005 < times.duplicated(keep=False).mean() < 0.15


# -- determinism -----------------------------------------------------------


@pytest.mark.parametrize("preset", GOLDEN)
def test_golden_checksum(preset):
    assert digest(small(seed=7, preset=preset)) == GOLDEN[preset]


def test_same_seed_same_world_and_other_seed_another():
    assert digest(small(seed=5)) == digest(small(seed=5))
    assert digest(small(seed=5)) != digest(small(seed=6))
    assert (small(seed=5).bridge != small(seed=6).bridge).any()


def test_presets_share_everything_but_the_label_law():
    one, two = small(2, "strong"), small(2, "null")
    assert (one.primary == two.primary).all()
    assert (one.niche == two.niche).all()
    first = [one.label_rows(u)[0] for u in range(one.n_users)]
    other = [two.label_rows(u)[0] for u in range(two.n_users)]
    assert first == other
    a = one.interactions().item_index[first]
    b = two.interactions().item_index[other]
    assert (a != b).mean() > 0.8


# -- the law ---------------------------------------------------------------


def reference_logits(world, user):
    """The docstring's formula in plain floating point, item by item."""
    data = world.interactions()
    z = np.zeros((world.n_items + 1, 24 + 96))
    for item in range(1, world.n_items + 1):
        p, s = world.primary[item], world.secondary[item]
        z[item, [p // 4, 24 + p]] += 0.75
        z[item, [s // 4, 24 + s]] += 0.25

    def cos(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    row = world.label_rows(user)[0]
    history = data.item_index[data.row_start[user] : row]
    reach = np.mean(
        [
            1 - cos(z[history[m]], z[history[:m]].mean(axis=0))
            for m in range(1, len(history))
        ]
    )
    taste = z[history].mean(axis=0)
    goal = world.bridge[world.niche[user]]
    bridge = np.zeros(120)
    bridge[[goal // 4, 24 + goal]] = 1
    law, scores = world.law, np.full(world.n_items + 1, -np.inf)
    for item in set(range(1, world.n_items + 1)) - set(history.tolist()):
        rho = 1 - cos(z[item], taste)
        scores[item] = (
            -law.zone * (rho - reach - law.stretch) ** 2 / (2 * law.width**2)
            + law.content * cos(z[item], bridge)
            + law.popularity * np.log(world.popularity[item])
        )
    return scores, reach


@pytest.mark.parametrize("preset", ["strong", "weak", "null"])
def test_oracle_equals_the_printed_formula(preset):
    world = small(4, preset)
    for user in (0, 17, 79):
        expected, reach = reference_logits(world, user)
        scores = world.oracle_scores(user)
        assert scores.shape == (201,) and scores.dtype == np.float64
        assert (np.isinf(scores) == np.isinf(expected)).all()
        free = np.isfinite(scores)
        shift = scores[free] - expected[free]
        assert np.ptp(shift) < 1e-7
        assert world.reach(user) == pytest.approx(reach, abs=1e-12)


def test_oracle_masks_the_history_before_the_label_only(strong):
    data = strong.interactions()
    n_later = 0
    for user in range(0, strong.n_users, 50):
        rows, label = data.rows(user), strong.label_rows(user)[0]
        scores = strong.oracle_scores(user)
        before = data.item_index[rows[rows < label]]
        hidden = np.flatnonzero(np.isinf(scores))
        assert set(hidden) == {0, *before}
        later = data.item_index[rows[rows >= label]]
        assert np.isfinite(scores[later]).all()
        n_later += len(later)
        picked = strong.oracle_scores(user, items=later)
        assert (picked == scores[later]).all()
    assert n_later > strong.n_users // 50


def chances(world, user):
    scores = world.oracle_scores(user)
    weight = np.exp(scores - scores.max())
    return weight / weight.sum()


@pytest.mark.parametrize("preset", ["strong", "weak"])
def test_labels_are_drawn_with_the_oracles_probabilities(preset):
    world = World(preset, n_users=1500, n_items=600, seed=11)
    data = world.interactions()
    rng = np.random.default_rng(0)
    order = rng.permutation(world.n_items + 1)
    by_order, by_chance, surplus, spread = [], [], 0.0, 0.0
    for user in range(world.n_users):
        p = chances(world, user)
        label = data.item_index[world.label_rows(user)[0]]
        for values, rank in ((by_order, order), (by_chance, np.argsort(p))):
            place = int(np.flatnonzero(rank == label)[0])
            below = p[rank[:place]].sum()
            values.append(below + rng.random() * p[label])
        logs = np.log(p[p > 0])
        mean = (p[p > 0] * logs).sum()
        surplus += np.log(p[label]) - mean
        spread += (p[p > 0] * (logs - mean) ** 2).sum()
    # Where the label falls in the law's own distribution is uniform.
    assert stats.kstest(by_order, "uniform").pvalue > 1e-3
    assert stats.kstest(by_chance, "uniform").pvalue > 1e-3
    assert abs(surplus) < 4 * np.sqrt(spread)


def test_labels_of_many_seeds_follow_one_users_probabilities():
    world = small(n_users=60)
    user = 5
    row = world.label_rows(user)[0]
    p = chances(world, user)
    rows = world.row_item.copy()
    counts = np.zeros(world.n_items + 1)
    world.label_row = np.array([row])
    for seed in range(800):
        world.row_item = rows.copy()
        world.row_item[row] = 0
        world._draw_labels(np.random.Generator(np.random.PCG64(seed)))
        counts[world.row_item[row]] += 1
    expected = 800 * p
    big = expected >= 5
    observed = np.append(counts[big], counts[~big].sum())
    wanted = np.append(expected[big], expected[~big].sum())
    assert big.sum() >= 3
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_null_world_labels_are_uniform_over_the_catalogue():
    world = World("null", n_users=3000, n_items=300, seed=1)
    data = world.interactions()
    assert world.law.zone == world.law.content == world.law.popularity == 0
    labels = [world.label_rows(u)[0] for u in range(world.n_users)]
    observed = np.bincount(data.item_index[labels], minlength=301)
    expected = np.zeros(301)
    for user in range(world.n_users):
        scores = world.oracle_scores(user)
        assert len(set(scores[np.isfinite(scores)])) == 1
        expected += chances(world, user)
    assert observed[0] == 0
    result = stats.chisquare(observed[1:], expected[1:])
    assert result.pvalue > 1e-3
    # Neither theme nor popularity of an item matters.
    order = np.argsort(world.popularity[1:]) + 1
    half = observed[order[150:]].sum() / observed.sum()
    share = expected[order[150:]].sum() / expected.sum()
    assert abs(half - share) < 4 * np.sqrt(0.25 / world.n_users)


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [("strong", 0.53, 0.65), ("weak", 0.25, 0.36), ("null", 0.0, 0.016)],
)
@pytest.mark.parametrize("n_items", [2000, 4000])
def test_oracle_calibration(preset, low, high, n_items):
    ranks = World(preset, n_items=n_items, seed=2).oracle_ranks()
    assert ranks.min() >= 1 and ranks.max() <= 1000
    assert low <= (ranks <= 10).mean() <= high


def test_both_parts_of_the_law_are_needed(strong):
    full = (strong.oracle_ranks() <= 10).mean()
    law = strong.law
    try:
        strong.law = type(law)(law.zone, 0.0, law.popularity)
        zone = (strong.oracle_ranks() <= 10).mean()
        strong.law = type(law)(0.0, law.content, law.popularity)
        content = (strong.oracle_ranks() <= 10).mean()
    finally:
        strong.law = law
    assert 0.03 < zone < full - 0.1
    assert 0.1 < content < full - 0.03


# -- worlds with the sizes of Table 1 ---------------------------------------


@pytest.mark.parametrize("which", sorted(SIZES))
def test_like_matches_the_counts_of_table_1(which):
    world = World.like(which)
    data, sizes = world.interactions(), SIZES[which]
    labels = data.frame[data.frame["label"] == 1]
    assert data.name == f"synthetic-like-{which}"
    assert (data.n_users, data.n_items, len(data.frame)) == (
        sizes.n_users,
        sizes.n_items,
        sizes.n_rows,
    )
    assert len(labels) == sizes.n_labels
    assert labels["user_id"].nunique() == sizes.n_users
    assert labels["item_id"].nunique() == sizes.n_label_items
    assert not data.frame.duplicated(["user_id", "item_id"]).any()
    lengths = np.diff(data.row_start)
    assert lengths.min() >= 6
    assert lengths.max() > 5 * lengths.mean()


def test_like_sizes_are_those_that_the_paper_prints():
    books, movies = SIZES["serenlens-books"], SIZES["serenlens-movies"]
    assert (books.n_users, books.n_items, books.n_rows) == (
        2346,
        113_876,
        265_037,
    )
    assert (books.n_labels, books.n_label_items) == (2557, 2227)
    assert (movies.n_users, movies.n_items, movies.n_rows) == (
        619,
        23_950,
        74_967,
    )
    assert (movies.n_labels, movies.n_label_items) == (714, 634)


def test_second_label_sees_the_first_one():
    world = World.like("serenlens-movies", seed=1)
    data = world.interactions()
    users = [u for u in range(world.n_users) if len(world.label_rows(u)) == 2]
    assert len(users) == 714 - 619
    for user in users[:20]:
        first, second = world.label_rows(user)
        a, b = data.item_index[[first, second]]
        assert np.isfinite(world.oracle_scores(user, items=[a])).all()
        later = world.oracle_scores(user, which=1)
        assert np.isinf(later[a]) and np.isfinite(later[b])


# -- what goes wrong --------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"preset": "stong"}, "stong"),
        ({"n_items": 100}, "192"),
        ({"n_users": 0}, "0 users"),
        ({"n_users": 10, "n_items": 1000}, "cannot cover"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_worlds_are_refused(options, part):
    preset = options.pop("preset", "strong")
    with pytest.raises(ConfigError, match=part):
        World(preset, **options)


def test_unknown_like_user_and_label_are_refused():
    with pytest.raises(ConfigError, match="serenlens-book"):
        World.like("serenlens-book")
    world = small()
    with pytest.raises(UnknownUserError, match="80"):
        world.oracle_scores(80)
    with pytest.raises(UnknownUserError, match="-1"):
        world.oracle_scores(-1)
    with pytest.raises(UnknownUserError, match="index 1"):
        world.oracle_scores(0, which=1)
    with pytest.raises(ConfigError, match="too few"):
        world.oracle_ranks(n_candidates=1000)


def test_describe_is_one_sentence():
    text = small(preset="weak").describe()
    assert text.endswith(".") and text.count(". ") == 0
    assert "synthetic-weak" in text and "80 users" in text


# ------------------------------------------------------------ several bridges


@pytest.fixture(scope="module")
def forked():
    return World("forked", n_users=200, n_items=400, seed=3)


def test_bridges_are_pairs_of_themes_in_different_genres(forked):
    assert forked.bridges.shape == forked.pairs.shape
    assert forked.bridges.shape[1] == 4
    for niche in range(len(forked.bridges)):
        themes = [niche, *forked.bridges[niche], *forked.pairs[niche]]
        assert len({theme // THEMES_PER_GENRE for theme in themes}) == 9


def test_fewer_bridges_are_the_first_of_more():
    few, more = (
        World("forked", n_users=100, n_items=300, bridges=count)
        for count in (2, 6)
    )
    assert (few.bridges == more.bridges[:, :2]).all()
    assert (few.pairs == more.pairs[:, :2]).all()


def test_forked_law_by_hand(forked):
    """The printed formula, one user, in plain loops."""
    user, law = 5, forked.law
    n, niche, genre = forked.n_items, int(forked.niche[5]), THEMES_PER_GENRE
    data = forked.interactions()
    held = [set() for _ in range(forked.n_users)]
    for row, item in enumerate(data.item_index):
        if data.frame["label"].iloc[row] == 0:
            held[data.user_index[row]].add(int(item))
    history = data.item_index[
        data.row_start[user] : forked.label_rows(user)[0]
    ]
    del held[user]
    common = np.zeros((n + 1, n + 1))
    for items in held:
        for i in items:
            common[i, list(items - {i})] += 1
    count = 1.0 + sum(np.isin(np.arange(n + 1), list(h)) for h in held)
    count[0] = 0
    expected = np.zeros(n + 1)
    for j in history:
        share = common[:, j] + count / count.sum()
        expected += share / (common[:, j].sum() + 1)
    value = [round(v, 9) for v in np.log(expected[1:])]
    order = sorted(range(n), key=lambda i: (-value[i], i))
    place = {item: (k + 0.5) / n for k, item in enumerate(order)}

    def vector(*weighted):
        found = np.zeros(2 * len(forked.theme_names))
        for theme, weight in weighted:
            found[theme] += weight
            found[len(forked.theme_names) + theme // genre] += weight
        return found / np.linalg.norm(found)

    expected = np.zeros(n)
    for k in range(law.bridges):
        goal = vector(
            (forked.bridges[niche, k], 3), (forked.pairs[niche, k], 1)
        )
        scores = [
            law.content
            * (
                vector(
                    (forked.primary[i + 1], 3), (forked.secondary[i + 1], 1)
                )
                @ goal
            )
            - law.zone * (place[i] - law.reaches[k]) ** 2 / (2 * law.width**2)
            for i in range(n)
        ]
        expected += np.exp(scores) / np.exp(scores).sum() / law.bridges
    found = forked.oracle_scores(user)[1:]
    known = np.isfinite(found)
    assert known.sum() > n / 2
    assert np.allclose(found[known], np.log(expected[known]), atol=1e-6)


def test_hybrids_outnumber_items_that_fit_a_bridge(forked):
    """The themes of one bridge at the place of another: plenty, and bad."""
    user = 5
    chances = forked.bridge_log_chances(user)
    niche = forked.niche[user]
    themed = np.isin(forked.primary[1:], forked.bridges[niche])
    best = np.sort(chances.max(axis=0))[-20:].min()
    good = chances.max(axis=0) >= best
    assert (themed & ~good).sum() > (themed & good).sum() > 0


def test_forked_labels_follow_the_oracle_and_null_ones_nothing(forked):
    assert (forked.oracle_ranks(n_candidates=300) <= 10).mean() > 0.5
    null = World("forked-null", n_users=300, n_items=400, seed=3)
    hits = (null.oracle_ranks(n_candidates=300) <= 10).mean()
    assert hits < 0.1  # chance is 1 in 30


def test_other_presets_have_no_number_of_bridges():
    with pytest.raises(ConfigError, match="bridges is not possible"):
        World("strong", n_users=100, n_items=300, bridges=2)
    with pytest.raises(ConfigError, match="1 to 6 bridges"):
        World("forked", n_users=100, n_items=300, bridges=7)


def test_the_registry_knows_the_dial():
    data = load_dataset("synthetic-forked-2", n_users=100, n_items=300)
    assert data.name == "synthetic-forked-2"
    assert data.world.law.bridges == 2
    assert (
        load_dataset(
            "synthetic-forked", n_users=100, n_items=300
        ).world.law.bridges
        == 4
    )


def test_true_zone_sums_the_chances_of_each_cell(forked):
    user, side = 5, 3
    rng = np.random.default_rng(0)
    cells = rng.integers(0, side, (forked.n_items + 1, 2))
    p = chances(forked, user)
    zone = forked.true_zone(user, cells, side)
    assert zone.shape == (side, side)
    assert zone.sum() == pytest.approx(1)
    for x in range(side):
        for y in range(side):
            here = (cells == (x, y)).all(axis=1)
            assert zone[x, y] == pytest.approx(p[here].sum())


def test_true_zone_of_the_null_world_counts_items():
    world = small(2, "null")
    cells = np.zeros((world.n_items + 1, 2), np.int64)
    cells[1:51, 1] = 1
    free = np.isfinite(world.oracle_scores(0))
    zone = world.true_zone(0, cells, 2)
    assert zone[0, 1] == pytest.approx(free[1:51].sum() / free.sum())


def test_every_bridge_has_items_of_its_own(forked):
    user = 5
    zones = forked.zone_items(user)
    assert zones[0] == -1 and set(zones) == {-1, 0, 1, 2, 3}
    parts = np.exp(forked.bridge_log_chances(user))
    for k in range(4):
        mine = zones[1:] == k
        assert (parts[:, mine].argmax(axis=0) == k).all()
        least = parts[k, mine].min()  # nothing better stays outside
        others = (zones[1:] == -1) & (parts[k] > least)
        assert not others.any()
    with pytest.raises(ConfigError, match="needs a forked world"):
        small().zone_items(0)
    with pytest.raises(UnknownUserError):
        forked.zone_items(200)


def test_places_are_the_expectedness_that_portraits_compute(forked):
    """Same counts, same formula, by the code of the portrait."""
    data = forked.interactions()
    rows = data.frame["label"].to_numpy() == 0
    plain = [
        data.item_index[(data.user_index == u) & rows]
        for u in range(forked.n_users)
    ]
    seen = CoOccurrence.fit(plain, forked.n_items, mu=1.0)
    same = []
    for user in range(0, forked.n_users, 20):
        begin = data.row_start[user]
        history = data.item_index[begin : forked.label_rows(user)[0]]
        wanted = seen.log_catalogue(history, own=plain[user])[1:]
        found = forked._met.expectedness(user, history)
        same.append(stats.pearsonr(wanted, np.log(found)).statistic)
    assert min(same) > 0.999  # labels that came again moved a few rows


# ------------------------------------------------------- what people answered


def test_human_weights_are_those_of_the_recorded_answers():
    """The logistic regression on standardised answers, product included."""
    people, pleased = TAOBAO_PEOPLE.ravel(), TAOBAO_SURPRISED.ravel()
    answers = np.indices((5, 5)).reshape(2, 25)
    middle = np.average(answers, axis=1, weights=people)[:, None]
    off = answers - middle
    r, x = off / np.average(off**2, axis=1, weights=people)[:, None] ** 0.5
    design = np.column_stack([r, x, r * x])
    found = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.vstack([design, design]),
        np.repeat([1, 0], 25),
        sample_weight=np.concatenate([pleased, people - pleased]),
    )
    law = LAWS["human"]
    weights = (law.relevance, law.unexpectedness, law.both)
    assert found.coef_[0] == pytest.approx(weights, abs=0.005)


def test_human_law_by_hand():
    """Four items: relevance 1 and 2 tied, then 3, then 4."""
    law = LAWS["human"]
    places = np.array([0.125, 0.375, 0.875, 0.625])
    found = law.logits(np.array([0, 0, 5, 9]), places)
    r = np.sqrt(12) * (np.array([0.25, 0.25, 0.625, 0.875]) - 0.5)
    x = np.sqrt(12) * (places - 0.5)
    assert found == pytest.approx(1.63 * r + 0.86 * x + 0.23 * r * x)


def test_human_labels_are_relevant_and_unexpected_and_no_zone():
    world = World("human", n_users=300, n_items=400, seed=3)
    assert (world.oracle_ranks(n_candidates=300) <= 10).mean() > 0.2
    near, far = [], []
    for user in range(world.n_users):
        history = world.before(world.label_rows(user)[0])
        label = world.row_item[world.label_rows(user)[0]]
        # the item itself, and the mean of what was read
        taste, norm = world.taste(history)
        first, second = world.primary[1:], world.secondary[1:]
        dots = 3 * taste[first] + taste[second]
        near.append((dots < dots[label - 1]).mean())
        far.append(world._met.places(user, history)[label - 1])
    assert np.mean(near) > 0.65 and np.mean(far) > 0.6
    with pytest.raises(ConfigError, match="needs a forked world"):
        world.zone_items(0)


def test_human_null_draws_what_any_null_law_draws():
    human, null = small(2, "human-null"), small(2, "null")
    assert (human.row_item == null.row_item).all()
    assert (small(2, "human").row_item != null.row_item).any()
