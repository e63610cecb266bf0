import multiprocessing
import re

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch

from serendifflib.data.interactions import Interactions
from serendifflib.data.splits import Split
from serendifflib.errors import CacheError, ConfigError, DataError
from serendifflib.portrait import encoding as room
from serendifflib.portrait.encoding import (
    MINILM_SHA256,
    ReviewEncoder,
    TfidfEncoder,
    unit_rows,
)
from serendifflib.portrait.fold import prepare_fold
from serendifflib.portrait.items import Isotropy, mean_cosine, mean_vectors


class CountingModel:
    """Stands for the sentence-transformers model; counts what it is given."""

    def __init__(self):
        self.seen = []

    def encode(self, texts, **options):
        assert options["normalize_embeddings"]
        self.seen += texts
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        for row, text in enumerate(texts):
            letters = np.frombuffer(text.encode()[:384] or b"?", np.uint8)
            vectors[row, : len(letters)] = letters
        return unit_rows(vectors)


def encoder(folder, model=None):
    """A ReviewEncoder without weights."""
    made = ReviewEncoder(cache=folder)
    made.__dict__["fingerprint"] = "f" * 64
    if model is not None:
        made.__dict__["model"] = model
    return made


@pytest.fixture
def no_weights(monkeypatch):
    """Loading the weights is an error."""

    def load(self):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(ReviewEncoder, "model", property(load))


TEXTS = [
    "moon",
    "a red <b>house</b>",
    "moon",
    "",
    "ein Bücherwurm 🐛\n",
    "moon",
]


def test_equal_texts_are_encoded_once_and_come_back_in_order(tmp_path):
    model = CountingModel()
    vectors = encoder(tmp_path, model).encode(TEXTS)
    assert sorted(model.seen) == sorted(set(TEXTS))
    assert vectors.dtype == np.float32 and vectors.shape == (6, 384)
    np.testing.assert_array_equal(
        vectors, CountingModel().encode(TEXTS, normalize_embeddings=True)
    )


def test_what_is_cached_needs_no_model(tmp_path, monkeypatch):
    given = encoder(tmp_path, CountingModel()).encode(TEXTS)

    def load(self):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(ReviewEncoder, "model", property(load))
    again = encoder(tmp_path).encode(TEXTS[::-1])
    np.testing.assert_array_equal(again[::-1], given)
    with pytest.raises(AssertionError, match="loaded"):
        encoder(tmp_path).encode(["another text"])


def test_no_text_needs_no_model(tmp_path, no_weights):
    assert encoder(tmp_path).encode([]).shape == (0, 384)


def test_other_weights_have_another_cache(tmp_path):
    encoder(tmp_path, CountingModel()).encode(["moon"])
    other = encoder(tmp_path, CountingModel())
    other.__dict__["fingerprint"] = "e" * 64
    other.encode(["moon"])
    assert other.model.seen == ["moon"]


def test_only_new_texts_are_encoded_and_a_kill_loses_one_shard(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(room, "SHARD", 2)
    texts = [f"text {'x' * k}" for k in range(5)]

    class Killed(CountingModel):
        def encode(self, texts, **options):
            if len(self.seen) >= 4:
                raise KeyboardInterrupt
            return super().encode(texts, **options)

    with pytest.raises(KeyboardInterrupt):
        encoder(tmp_path, Killed()).encode(texts)
    resumed = CountingModel()
    vectors = encoder(tmp_path, resumed).encode(texts)
    assert len(resumed.seen) == 1
    np.testing.assert_array_equal(
        vectors, CountingModel().encode(texts, normalize_embeddings=True)
    )


def test_the_bar_counts_texts(tmp_path, capfd):
    one = encoder(tmp_path, CountingModel())
    one.progress = True
    one.encode([f"text {k}" for k in range(300)])
    shown = capfd.readouterr().err
    assert "encode texts" in shown and "300/300" in shown
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d", shown)  # time left
    one.progress = False
    one.encode([f"other {k}" for k in range(300)])
    assert capfd.readouterr().err == ""


def flip(shard):
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1  # in the last vector; the file stays well-formed
    shard.write_bytes(content)


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-100])


def empty(shard):
    shard.write_bytes(b"")


def replace(shard):
    safetensors.numpy.save_file({"other": np.zeros(3)}, shard)


@pytest.mark.parametrize("damage", [flip, cut, empty, replace])
def test_a_damaged_cache_file_is_encoded_again(tmp_path, damage):
    given = encoder(tmp_path, CountingModel()).encode(TEXTS)
    (shard,) = tmp_path.rglob("*.safetensors")
    damage(shard)
    model = CountingModel()
    again = encoder(tmp_path, model).encode(TEXTS)
    assert sorted(model.seen) == sorted(set(TEXTS))
    np.testing.assert_array_equal(again, given)
    # and the file is whole again
    third = CountingModel()
    encoder(tmp_path, third).encode(TEXTS)
    assert third.seen == []


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot write"):
        encoder(tmp_path / "file", CountingModel()).encode(["moon"])


def _encode_in_process(folder, texts, barrier, answers):
    room.SHARD = 3
    barrier.wait(30)
    vectors = encoder(folder, CountingModel()).encode(texts)
    answers.put(vectors.tobytes())


def test_two_processes_fill_one_cache(tmp_path):
    texts = [f"text {k}" for k in range(40)]
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.Queue()
    # the second one asks for other texts too, so their shards differ
    asked = [texts, texts[5:] + ["one more"] + texts[:5]]
    processes = [
        context.Process(
            target=_encode_in_process, args=(tmp_path, part, barrier, answers)
        )
        for part in asked
    ]
    for process in processes:
        process.start()
    results = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    expected = {
        CountingModel().encode(part, normalize_embeddings=True).tobytes()
        for part in asked
    }
    assert results == expected
    assert not list(tmp_path.rglob("*.part"))
    reader = CountingModel()
    encoder(tmp_path, reader).encode([*texts, "one more"])
    assert reader.seen == []


# ------------------------------------------------------------ item vectors


def test_item_vectors_by_hand():
    texts = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)
    # item 1: texts 0 and 1; item 2: text 2 twice and text 1, not allowed;
    # item 3: only a text that is not allowed; item 4: no row at all
    vectors = mean_vectors(
        texts,
        text_index=np.array([0, 1, 2, 2, 1, 0]),
        item_index=np.array([1, 1, 2, 2, 2, 3]),
        allowed=np.array([1, 1, 1, 1, 0, 0], dtype=bool),
        n_items=4,
    )
    half = 0.5**0.5
    expected = [[0, 0], [half, half], [-1, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(vectors, expected, atol=1e-7)


def test_a_text_counts_as_often_as_it_was_written():
    texts = np.eye(2, dtype=np.float32)
    vectors = mean_vectors(
        texts, np.array([0, 0, 0, 1]), np.ones(4, int), np.ones(4, bool), 1
    )
    np.testing.assert_allclose(vectors[1], [3 / 10**0.5, 1 / 10**0.5])


def test_the_mean_does_not_depend_on_the_order_of_the_rows():
    random = np.random.default_rng(0)
    texts = unit_rows(random.normal(size=(30, 8)).astype(np.float32))
    text, item = random.integers(0, 30, 100), random.integers(1, 11, 100)
    allowed = random.random(100) < 0.7
    order = random.permutation(100)
    vectors = mean_vectors(texts, text, item, allowed, 12)
    shuffled = mean_vectors(
        texts, text[order], item[order], allowed[order], 12
    )
    np.testing.assert_allclose(shuffled, vectors, atol=1e-6)
    for number in range(1, 13):  # the plain definition
        mine = texts[text[allowed & (item == number)]]
        mean = mine.sum(axis=0) / max(len(mine), 1)
        length = np.linalg.norm(mean) or 1.0
        np.testing.assert_allclose(vectors[number], mean / length, atol=1e-6)


def test_a_held_out_review_is_in_no_item_vector(
    tiny_data, tiny_fold, word_encoder
):
    """Other words in held-out reviews change no vector; in others, do."""

    def with_words(rows):
        frame = tiny_data.frame.copy()
        column = frame.columns.get_loc("review")
        frame.iloc[rows, column] = "words that occur nowhere else zyx"
        data = Interactions(
            tiny_data.name, frame, tiny_data.source, has_labels=True
        )
        return prepare_fold(data, tiny_fold.split, encoder=word_encoder)

    held_out = np.concatenate([tiny_fold.valid.rows, tiny_fold.test.rows])
    assert len(held_out) > 10
    changed = with_words(held_out)
    assert torch.equal(changed.raw_vectors, tiny_fold.raw_vectors)
    np.testing.assert_array_equal(
        changed.missing_items, tiny_fold.missing_items
    )
    plain = np.flatnonzero(tiny_data.frame["label"].to_numpy() == 0)[:5]
    other = with_words(plain)
    assert not torch.equal(other.raw_vectors, tiny_fold.raw_vectors)


def test_items_left_without_a_review_are_counted(word_encoder):
    rows = [("u1", "a", 1, 0), ("u1", "b", 2, 0), ("u1", "c", 3, 1)]
    rows += [("u2", "a", 1, 0), ("u2", "b", 2, 0), ("u2", "d", 3, 1)]
    rows += [("u3", "b", 1, 0), ("u3", "d", 2, 0), ("u3", "a", 3, 1)]
    table = pd.DataFrame(
        rows, columns=["user_id", "item_id", "timestamp", "label"]
    )
    table["review"] = [f"words on {item}" for item in table["item_id"]]
    table["rating"] = 5.0
    data = Interactions("hand", table, "by hand", has_labels=True)
    split = Split("hand", np.array([1]), np.array([2]), np.zeros(0, int))
    fold = prepare_fold(data, split, encoder=word_encoder)
    # "c" has only its label-1 review; "d" has another one of user 3
    np.testing.assert_array_equal(fold.missing_items, [3])
    assert not fold.raw_vectors[3].any() and not fold.raw_vectors[0].any()
    lengths = fold.raw_vectors[[1, 2, 4]].norm(dim=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-6)


# ---------------------------------------------------------------- isotropy


@pytest.fixture
def narrow():
    """40 items in a narrow cone, of them 7 missing; row 0 is padding."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(41, 6)) * [1, 0.5, 2, 1, 0.1, 1] + 2.0
    vectors[[0, 3, 9, 11, 20, 21, 33, 40]] = 0.0
    return torch.from_numpy(unit_rows(vectors.astype(np.float32)))


TRAIN = np.arange(1, 31)


def test_none_changes_nothing(narrow):
    same = Isotropy.fit(narrow, TRAIN, "none").apply(narrow)
    torch.testing.assert_close(same, narrow)


def test_center_takes_the_mean_of_the_training_items(narrow):
    transform = Isotropy.fit(narrow, TRAIN, "center")
    known = [k for k in TRAIN if narrow[k].any()]
    np.testing.assert_allclose(
        transform.mean, narrow[known].mean(0), atol=1e-6
    )
    # before the rows get length 1, the training items sum to nothing
    moved = narrow[known].numpy() - transform.mean
    np.testing.assert_allclose(moved.mean(axis=0), 0.0, atol=1e-6)
    result = transform.apply(narrow)
    np.testing.assert_allclose(result[known], unit_rows(moved), atol=1e-6)
    assert mean_cosine(narrow[1:]) > 0.6 > 0.2 > mean_cosine(result[1:])


def test_whiten_makes_the_covariance_the_identity(narrow):
    transform = Isotropy.fit(narrow, TRAIN, "whiten", components=4)
    known = [k for k in TRAIN if narrow[k].any()]
    moved = (narrow[known].numpy() - transform.mean) @ transform.basis
    np.testing.assert_allclose(np.cov(moved.T), np.eye(4), atol=1e-4)
    result = transform.apply(narrow)
    np.testing.assert_allclose(result[known], unit_rows(moved), atol=1e-5)


@pytest.mark.parametrize("how", ["none", "center", "whiten"])
def test_items_without_a_vector_stay_so_and_others_get_length_1(narrow, how):
    result = Isotropy.fit(narrow, TRAIN, how).apply(narrow)
    lengths = result.norm(dim=1)
    known = narrow.norm(dim=1) > 0
    assert not lengths[~known].any()
    np.testing.assert_allclose(lengths[known], 1.0, atol=1e-5)


@pytest.mark.parametrize("how", ["center", "whiten"])
def test_held_out_items_do_not_move_the_fit(narrow, how):
    other = narrow.clone()
    other[31:] = torch.roll(other[31:], 1, dims=1)
    one = Isotropy.fit(narrow, TRAIN, how)
    two = Isotropy.fit(other, TRAIN, how)
    np.testing.assert_array_equal(one.mean, two.mean)
    if how == "whiten":
        np.testing.assert_array_equal(one.basis, two.basis)


def test_few_items_do_not_blow_up_noise():
    """Five centred items span four directions; a fifth one is rounding."""
    random = np.random.default_rng(1)
    vectors = unit_rows(random.normal(size=(6, 12)).astype(np.float32))
    transform = Isotropy.fit(
        torch.from_numpy(vectors), np.arange(1, 6), "whiten"
    )
    assert transform.basis.shape == (12, 4)
    assert np.abs(transform.basis).max() < 100
    moved = (vectors[1:] - transform.mean) @ transform.basis
    np.testing.assert_allclose(np.cov(moved.T), np.eye(4), atol=1e-4)


@pytest.mark.parametrize("how", ["center", "whiten"])
@pytest.mark.parametrize("count", [3, 7, 50])
def test_items_that_are_all_alike_point_nowhere(how, count):
    """What rounding leaves of them is no direction."""
    random = np.random.default_rng(count)
    one = unit_rows(random.normal(size=(1, 384)).astype(np.float32))
    vectors = torch.from_numpy(np.repeat(one, count + 1, axis=0))
    vectors[0] = 0.0
    items = np.arange(1, count + 1)
    moved = Isotropy.fit(vectors, items, how).apply(vectors)
    assert not moved.any()


def test_an_unknown_isotropy_is_refused(narrow):
    with pytest.raises(ConfigError, match="'whitening'.*none, center"):
        Isotropy.fit(narrow, TRAIN, "whitening")


def test_mean_cosine_is_the_mean_over_all_pairs(narrow):
    rows = narrow[narrow.norm(dim=1) > 0].double()
    pairs = [
        float(rows[i] @ rows[j])
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j
    ]
    assert mean_cosine(narrow) == pytest.approx(np.mean(pairs), abs=1e-9)
    assert mean_cosine(torch.eye(3)) == pytest.approx(0.0)
    assert mean_cosine(torch.ones(4, 1)) == pytest.approx(1.0)


def test_unit_rows_keeps_zero_rows():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]])
    np.testing.assert_allclose(
        unit_rows(rows), [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]]
    )


# ----------------------------------------------------- encoders for real


CORPUS = [
    "space ship and star",
    "distant star and ship",
    "bread with butter, not distant",
    "flour with butter for bread and for space",
]


def test_tfidf_puts_like_texts_together():
    tfidf = TfidfEncoder.fit(CORPUS, dimensions=2)
    vectors = tfidf.encode([*CORPUS, "zzz qqq"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(
        np.linalg.norm(vectors[:4], axis=1), 1.0, atol=1e-6
    )
    assert not vectors[4].any()  # no word of it is known
    cosines = vectors @ vectors.T
    assert min(cosines[0, 1], cosines[2, 3]) > 0.8
    assert cosines[:2, 2:4].max() < 0.4
    again = TfidfEncoder.fit(CORPUS, dimensions=2)
    np.testing.assert_allclose(again.encode(CORPUS), vectors[:4], atol=1e-6)
    assert again.fingerprint == tfidf.fingerprint
    other = TfidfEncoder.fit([*CORPUS, "and more"], dimensions=2)
    assert other.fingerprint != tfidf.fingerprint


@pytest.mark.parametrize(
    "texts", [["moon", "sun"], ["moon moon", "moon"], ["", ""]]
)
def test_tfidf_on_too_little_says_so(texts):
    with pytest.raises(DataError, match="2 texts share too few words"):
        TfidfEncoder.fit(texts)


SENTENCES = [
    "A slow book about lighthouses.",
    'Quotes "inside", commas, <b>tags</b>\nand 🐙 emoji.',
    "word " * 2_000,  # cut by the model, at 256 word pieces
]


@pytest.fixture(scope="module")
def real():
    return ReviewEncoder()


def test_the_packaged_weights_are_the_official_ones(real):
    assert real.weights == MINILM_SHA256


def test_the_real_encoder_is_plain_sentence_transformers(real, empty_cache):
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(real.model_path), local_files_only=True)
    expected = plain.encode(SENTENCES, normalize_embeddings=True)
    vectors = real.encode(SENTENCES)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    cut_by_hand = real.encode(["word " * 254])
    np.testing.assert_allclose(vectors[2], cut_by_hand[0], atol=1e-5)
    cached = ReviewEncoder().encode(SENTENCES)
    np.testing.assert_array_equal(cached, vectors)
    assert list(empty_cache.glob("vectors/*/*.safetensors"))


def test_the_real_encoder_hears_what_a_text_is_about(real, empty_cache):
    one, two, other = real.encode(
        [
            "A spaceship travels to distant stars.",
            "An astronaut on the way to another planet.",
            "Recipes for sourdough bread and butter cakes.",
        ]
    )
    assert one @ two > one @ other + 0.2
