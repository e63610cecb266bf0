"""Files read in parts give what the same file gives in memory."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serendifflib.data.layouts import read_file
from serendifflib.data.world import World
from serendifflib.errors import DataError
from serendifflib.portrait.items import ReviewEncoder, mean_vectors, unit_rows
from serendifflib.portrait.scores import CoOccurrence
from serendifflib.portrait.streaming import (
    read_rows,
    streamed_counts,
    streamed_vectors,
)

COLUMNS = "user_id,item_id,timestamp,review,rating,label"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A shuffled world with repeated rows and a blank review."""
    frame = World("strong", n_users=40, n_items=200, seed=5).interactions()
    frame = frame.frame.sample(frac=1.0, random_state=1)
    again = frame.iloc[:30].assign(review="another text", timestamp=7)
    frame = pd.concat([frame, again, frame.iloc[5:9]])
    frame.iloc[3, list(frame.columns).index("review")] = "  "
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    frame.to_csv(path, index=False)
    return path


def same_counts(ours, theirs):
    assert (ours.matrix != theirs.matrix).nnz == 0
    np.testing.assert_array_equal(ours.users_of, theirs.users_of)
    np.testing.assert_array_equal(ours.pairs, theirs.pairs)
    assert ours.mu == theirs.mu


@pytest.mark.parametrize("part", [7, 100, 10**6])
def test_counts_are_those_in_memory(file, part):
    data = read_file(file)
    rows = read_rows(file, part=part)
    assert rows.users.tolist() == data.users.tolist()
    assert rows.items.tolist() == data.items.tolist()
    assert rows.first.sum() == len(data.frame) < len(rows)
    histories = np.split(data.item_index, data.row_start[1:-1])
    same_counts(
        streamed_counts(rows, mu=2.0),
        CoOccurrence.fit(histories, data.n_items, mu=2.0),
    )


def test_users_that_do_not_count(file):
    data = read_file(file)
    rows = read_rows(file)
    counted = rows.user_index % 3 > 0
    histories = [
        data.item_index[data.rows(user)] if user % 3 else np.zeros(0, int)
        for user in range(data.n_users)
    ]
    same_counts(
        streamed_counts(rows, counted=counted),
        CoOccurrence.fit(histories, data.n_items),
    )


@pytest.mark.parametrize("part", [13, 10**6])
def test_vectors_are_those_in_memory(file, word_encoder, part):
    data = read_file(file)
    index, texts = pd.factorize(data.frame["review"].to_numpy(dtype=object))
    allowed = (data.frame["review"] != "").to_numpy()
    wanted, missing = mean_vectors(
        word_encoder.encode(list(texts)),
        index,
        data.item_index,
        allowed,
        data.n_items,
    )
    rows = read_rows(file)
    found, gone = streamed_vectors(rows, word_encoder, part=part)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert gone.tolist() == missing.tolist()


def test_a_held_out_review_is_not_used(file, word_encoder):
    rows = read_rows(file)
    item = int(rows.item_index[0])
    allowed = rows.item_index != item
    found, missing = streamed_vectors(rows, word_encoder, allowed=allowed)
    assert missing.tolist() == [item]
    assert not found[item].any() and not found[0].any()


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)),
        min_size=1,
        max_size=30,
    )
)
def test_the_earliest_of_a_pair_is_kept(tmp_path_factory, triples):
    path = tmp_path_factory.mktemp("pairs") / "rows.csv"
    lines = [
        f"u{u},i{i},{t},text {n},5,0" for n, (u, i, t) in enumerate(triples)
    ]
    path.write_text("\n".join([COLUMNS, *lines]))
    rows = read_rows(path, part=4)
    kept = {f"text {row}" for row in np.flatnonzero(rows.first)}
    assert kept == set(read_file(path).frame["review"])


def test_every_part_has_its_cache_and_a_killed_run_goes_on(file, tmp_path):
    class Letters:
        def __init__(self, limit):
            self.seen, self.limit = [], limit

        def encode(self, texts, **options):
            if len(self.seen) + len(texts) > self.limit:
                raise KeyboardInterrupt
            self.seen += texts
            vectors = np.zeros((len(texts), 384), dtype=np.float32)
            for row, text in enumerate(texts):
                letters = np.frombuffer(text.encode()[:384], np.uint8)
                vectors[row, : len(letters)] = letters
            return unit_rows(vectors)

    def encoder(limit=10**9):
        made = ReviewEncoder(cache=tmp_path)
        made.__dict__ |= {"fingerprint": "f" * 64, "model": Letters(limit)}
        return made

    rows = read_rows(file)
    killed = encoder(limit=len(rows) // 2)
    with pytest.raises(KeyboardInterrupt):
        streamed_vectors(rows, killed, part=50)
    resumed, whole = encoder(), encoder()
    found, _ = streamed_vectors(rows, resumed, part=50)
    assert 0 < len(resumed.model.seen) < len(rows)
    wanted, _ = streamed_vectors(rows, whole, part=50)
    assert whole.model.seen == []  # all of it is cached by now
    torch.testing.assert_close(found, wanted)
    assert len(list((tmp_path / "parts").iterdir())) == -(-len(rows) // 50)


def test_the_model_is_loaded_once_and_only_if_needed(
    file, tmp_path, monkeypatch
):
    loads = []

    class Flat:
        def encode(self, texts, **options):
            return unit_rows(np.ones((len(texts), 384), dtype=np.float32))

    def load(self):
        loads.append(1)
        return Flat()

    class Fake(ReviewEncoder):
        pass

    from functools import cached_property

    Fake.model = cached_property(load)
    Fake.model.__set_name__(Fake, "model")
    Fake.fingerprint = "f" * 64
    rows = read_rows(file)
    streamed_vectors(rows, Fake(cache=tmp_path), part=50)
    assert len(loads) == 1
    streamed_vectors(rows, Fake(cache=tmp_path), part=50)
    assert len(loads) == 1


def test_a_file_that_changed(file, tmp_path, word_encoder):
    path = tmp_path / "rows.csv"
    lines = file.read_text().splitlines()
    path.write_text("\n".join(lines[:40]))
    rows = read_rows(path)
    for other in (lines[:30], lines[:50]):
        path.write_text("\n".join(other))
        with pytest.raises(DataError, match="has changed since"):
            streamed_vectors(rows, word_encoder, part=8)


def test_bad_rows_are_named_as_in_memory(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"u,i{n},{n},text,5,0" for n in range(9)]
    path.write_text("\n".join([COLUMNS, *lines, "u,,9,text,5,0"]))
    with pytest.raises(DataError, match="row 10, column 'item_id'"):
        read_rows(path, part=4)
    path.write_text(COLUMNS + "\n")
    with pytest.raises(DataError, match="no rows below the header"):
        read_rows(path)
