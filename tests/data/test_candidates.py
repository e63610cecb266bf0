"""Candidate lists: distinct, even over the cells, the same for everybody."""

import hashlib
import itertools
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serendifflib.data.splits import Examples, user_folds
from serendifflib.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ModelError,
)
from serendifflib.evaluation.candidates import (
    Candidates,
    draw_candidates,
    fold_candidates,
)
from serendifflib.portrait.fold import prepare_fold


def examples_of(targets, users=None):
    n = len(targets)
    return Examples(
        users=np.arange(n) if users is None else np.asarray(users),
        histories=torch.zeros(n, 1, dtype=torch.long),
        targets=torch.tensor(targets),
        rows=np.arange(n),
    )


def grid(held, side):
    """Positions of items: ``held[cell]`` of them in each cell, row-major."""
    cells = np.repeat(np.arange(side * side), held)
    places = (np.stack(np.divmod(cells, side), axis=1) + 0.5) / side
    return np.concatenate([[[0.0, 0.0]], places]), np.append(0, cells)


def drawn(held, *, side, n_candidates, target=1, exclude=(), seed=0):
    positions, cells = grid(held, side)
    found = draw_candidates(
        lambda row: positions,
        examples_of([target]),
        n_candidates=n_candidates,
        side=side,
        exclude=lambda row: np.array(exclude, dtype=int),
        seed=seed,
    )
    items = found.items[0].numpy()
    return items, np.bincount(cells[items], minlength=side * side)


# --- how many of each cell, by hand --------------------------------------


def test_full_cells_give_the_same_number_each():
    for target in (1, 37):
        _, counts = drawn([10] * 4, side=2, n_candidates=12, target=target)
        assert counts.tolist() == [3, 3, 3, 3]


def test_a_remainder_goes_to_cells_at_random():
    met = set()
    for seed in range(20):
        _, counts = drawn([10] * 4, side=2, n_candidates=14, seed=seed)
        assert sorted(counts) == [3, 3, 4, 4]
        met.add(tuple(counts))
    assert len(met) > 1


def test_lacking_items_come_from_the_nearest_ring():
    # 3 per cell on a 3 x 3 grid. The corner (0, 0) is empty; its nearest
    # ring is cells 1, 3 and 4, of which only cell 1 has items to spare.
    held = [0, 9, 9, 3, 3, 9, 9, 9, 9]
    items, counts = drawn(held, side=3, n_candidates=27)
    assert counts.tolist() == [0, 6, 3, 3, 3, 3, 3, 3, 3]


def test_the_second_ring_helps_when_the_first_is_bare():
    # Corner 0 lacks 3; ring 1 (cells 1, 3, 4) spares 1; ring 2 the rest.
    held = [0, 4, 3, 3, 3, 3, 3, 3, 9]
    _, counts = drawn(held, side=3, n_candidates=27, target=20)
    assert counts.tolist() == [0, 4, 3, 3, 3, 3, 3, 3, 5]


def test_one_crowded_cell_gives_everything():
    held = [0] * 15 + [500]
    items, counts = drawn(held, side=4, n_candidates=100, target=7)
    assert counts[15] == 100
    assert len(set(items)) == 100


def test_ring_items_are_drawn_evenly():
    # Cell 0 is empty; its ring holds 30 spare items in cells 1 to 3, 20 of
    # them in cell 1. One is drawn; the share of cell 1 is 20 of 30.
    shares = [
        drawn([0, 21, 6, 6], side=2, n_candidates=4, target=1, seed=seed)[1]
        for seed in range(600)
    ]
    share = np.mean([counts[1] == 2 for counts in shares])
    assert abs(share - 20 / 30) < 4 * np.sqrt(2 / 9 / 600)


def test_every_item_of_a_cell_is_equally_likely():
    times = np.zeros(9)
    for seed in range(600):
        items, _ = drawn([8], side=1, n_candidates=3, target=1, seed=seed)
        times[items] += 1
    assert times[1] == 600
    # each of the other seven: 2 of 7 draws, within 4.5 standard errors
    assert np.abs(times[2:] - 600 * 2 / 7).max() < 4.5 * np.sqrt(600 * 10 / 49)


def test_the_positive_takes_a_place_of_its_own_cell():
    _, counts = drawn([1, 10, 10, 10], side=2, n_candidates=4, target=1)
    assert counts.tolist() == [1, 1, 1, 1]


def test_more_cells_than_candidates():
    items, counts = drawn([3] * 25, side=5, n_candidates=7)
    assert len(set(items)) == 7
    assert counts.max() <= 2


def test_edges_of_the_grid_belong_to_the_last_cells():
    positions = np.array([[9.0, np.nan], [1, 1], [0, 0], [0.5, 1]])
    found = draw_candidates(
        lambda row: positions,
        examples_of([1]),
        n_candidates=3,
        side=2,
        exclude=lambda row: np.array([], dtype=int),
        seed=0,
    )
    assert sorted(found.items[0].tolist()) == [1, 2, 3]


# --- properties ----------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    side=st.integers(1, 4),
    n_items=st.integers(8, 60),
    n_candidates=st.integers(1, 8),
    seed=st.integers(0, 5),
    left_out=st.integers(0, 3),
    spread=st.sampled_from([1, 3, 8]),
)
def test_always_distinct_complete_and_allowed(
    side, n_items, n_candidates, seed, left_out, spread
):
    rng = np.random.default_rng(seed)
    n_items += left_out
    tables = rng.random((3, n_items + 1, 2)) ** spread
    targets = rng.integers(1, n_items + 1, size=3).tolist()
    excluded = rng.permutation(np.arange(1, n_items + 1))[:left_out]
    found = draw_candidates(
        lambda row: tables[row],
        examples_of(targets),
        n_candidates=n_candidates,
        side=side,
        exclude=lambda row: excluded,
        seed=seed,
    )
    assert found.items.shape == (3, n_candidates)
    for row, target in enumerate(targets):
        items = found.items[row].tolist()
        assert len(set(items)) == n_candidates
        assert min(items) >= 1
        assert max(items) <= n_items
        assert items[found.positive[row]] == target
        assert not set(items) - {target} & set(excluded.tolist())
        # Even where possible: no cell gives more than its share while
        # another that lacks nothing gives less than its share.
        cells = np.minimum((tables[row] * side).astype(int), side - 1)
        flat = cells[:, 0] * side + cells[:, 1]
        pool = np.setdiff1d(np.arange(1, n_items + 1), excluded)
        pool = np.union1d(pool, [target])
        held = np.bincount(flat[pool], minlength=side * side)
        counts = np.bincount(flat[items], minlength=side * side)
        share = n_candidates // side**2
        if n_candidates % side**2 == 0:
            assert (counts >= np.minimum(held, share)).all()
        assert (counts <= held).all()


def test_order_of_examples_changes_nothing():
    rng = np.random.default_rng(0)
    tables = rng.random((6, 300, 2))
    targets = [5, 9, 5, 200, 33, 7]
    users = [3, 0, 4, 1, 2, 3]
    order = [4, 2, 0, 5, 1, 3]

    def run(places):
        return draw_candidates(
            lambda row: tables[places[row]],
            examples_of(
                [targets[place] for place in places],
                [users[place] for place in places],
            ),
            n_candidates=50,
            exclude=lambda row: np.array([1, 2]),
            seed=1,
            user_ids=np.array(["a", "b", "c", "d", "e"]),
        )

    straight, shuffled = run(list(range(6))), run(order)
    assert torch.equal(straight.items[order], shuffled.items)
    assert torch.equal(straight.positive[order], shuffled.positive)
    # two examples of one user draw lists of their own
    assert set(straight.items[0].tolist()) != set(straight.items[5].tolist())


def test_the_id_counts_and_not_the_number():
    positions, _ = grid([30] * 4, 2)

    def run(user, ids):
        return draw_candidates(
            lambda row: positions,
            examples_of([3], [user]),
            n_candidates=20,
            side=2,
            exclude=lambda row: np.array([], dtype=int),
            seed=0,
            user_ids=np.array(ids),
        ).checksum

    assert run(0, ["ann"]) == run(1, ["aaa", "ann"])
    assert run(0, ["ann"]) != run(0, ["bob"])


def test_checksum_is_stable_and_tells_seeds_apart():
    positions, _ = grid([30] * 4, 2)

    def run(seed):
        return draw_candidates(
            lambda row: torch.tensor(positions),
            examples_of([3, 4]),
            n_candidates=20,
            side=2,
            exclude=lambda row: np.array([], dtype=int),
            seed=seed,
        )

    found = run(7)
    assert found.checksum == run(7).checksum
    assert found.checksum != run(8).checksum
    # the same on every machine and in every version of numpy
    plain = hashlib.sha256(found.items.numpy().tobytes()).hexdigest()
    assert plain.startswith("e60e10b75f14ad2c")


def test_positive_stands_in_every_column():
    positions, _ = grid([30], 1)
    found = draw_candidates(
        lambda row: positions,
        examples_of([1] * 200),
        n_candidates=4,
        side=1,
        exclude=lambda row: np.array([], dtype=int),
        seed=0,
    )
    times = np.bincount(found.positive.numpy(), minlength=4)
    assert times.min() > 25


# --- what is refused -----------------------------------------------------


def test_too_few_items_names_the_option():
    with pytest.raises(DataError, match="n_candidates=1000: choose a smaller"):
        drawn([5] * 4, side=2, n_candidates=1000)
    items, _ = drawn([5] * 4, side=2, n_candidates=20)
    assert len(set(items)) == 20
    with pytest.raises(DataError, match="has 19 items"):
        drawn([5] * 4, side=2, n_candidates=20, exclude=[2])


@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, np.inf])
def test_positions_outside_the_grid(value):
    positions, _ = grid([5] * 4, 2)
    positions[3, 1] = value
    with pytest.raises(ModelError, match="position of item 3"):
        draw_candidates(
            lambda row: positions,
            examples_of([1]),
            n_candidates=4,
            side=2,
            exclude=lambda row: np.array([], dtype=int),
            seed=0,
        )


def test_nonsense_numbers():
    with pytest.raises(ConfigError):
        drawn([5], side=1, n_candidates=0)


def test_positions_are_not_changed():
    positions, _ = grid([5] * 4, 2)
    positions[0] = 0.7
    before = positions.copy()
    draw_candidates(
        lambda row: positions,
        examples_of([1]),
        n_candidates=4,
        side=2,
        exclude=lambda row: np.array([], dtype=int),
        seed=0,
    )
    assert np.array_equal(positions, before)


# --- with a fold ---------------------------------------------------------


def test_candidates_of_a_fold_hold_nothing_of_the_user(make_data, encoder):
    rng = np.random.default_rng(0)
    rows = []
    for user, when in itertools.product(range(20), range(6)):
        item = f"i{rng.integers(60):02}"
        rows.append((f"u{user:02}", item, when, int(when == 3)))
    data = make_data(rows)
    fold = prepare_fold(data, user_folds(data)[0], encoder=encoder)
    positions = rng.random((data.n_items + 1, 2))
    space = SimpleNamespace(catalogue_positions=lambda history: positions)
    assert len(fold.missing_items)
    for part, examples in (("test", fold.test), ("valid", fold.valid)):
        found = fold_candidates(fold, space, part=part, n_candidates=20)
        assert len(found) == len(examples)
        for row in range(len(found)):
            own = data.item_index[data.rows(int(examples.users[row]))]
            target = int(examples.targets[row])
            others = set(found.items[row].tolist()) - {target}
            assert len(others) == 19
            assert not others & set(own.tolist())
            assert not others & set(fold.missing_items.tolist())


# --- files ---------------------------------------------------------------


@pytest.fixture
def lists():
    items = torch.arange(1, 13).reshape(3, 4)
    return Candidates(items, torch.tensor([0, 3, 1]))


def test_saved_and_loaded(tmp_path, lists):
    path = tmp_path / "deep" / "lists.npz"
    lists.save(path)
    again = Candidates.load(path)
    assert torch.equal(again.items, lists.items)
    assert torch.equal(again.positive, lists.positive)
    assert again.checksum == lists.checksum
    assert os.listdir(path.parent) == ["lists.npz"]


def test_same_lists_same_bytes(tmp_path, lists):
    lists.save(tmp_path / "a.npz")
    lists.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (
        tmp_path / "b.npz"
    ).read_bytes()


def test_no_flipped_byte_loads_as_other_lists(tmp_path, lists):
    path = tmp_path / "lists.npz"
    lists.save(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        path.write_bytes(bytes(broken))
        try:
            assert Candidates.load(path).checksum == lists.checksum
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > len(whole) / 2


@pytest.mark.parametrize("content", [b"", b"PK", b"rubbish", b"\x93NUMPY"])
def test_rubbish_is_refused(tmp_path, content):
    path = tmp_path / "lists.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        Candidates.load(path)


def test_missing_file_and_cut_file(tmp_path, lists):
    path = tmp_path / "lists.npz"
    with pytest.raises(CheckpointError, match="no such"):
        Candidates.load(path)
    lists.save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            Candidates.load(path)


def test_objects_are_refused(tmp_path):
    path = tmp_path / "lists.npz"
    np.savez(path, items=np.array([{}], dtype=object), checksum=np.zeros(1))
    with pytest.raises(CheckpointError):
        Candidates.load(path)


def test_killed_while_saving_leaves_the_old_file(tmp_path, lists):
    path = tmp_path / "lists.npz"
    lists.save(path)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:  # dies when all is written and nothing is renamed
        os.fsync = lambda stream: os.kill(os.getpid(), signal.SIGKILL)
        lists.subset([0, 1]).save(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_bytes() == before
    assert Candidates.load(path).checksum == lists.checksum
