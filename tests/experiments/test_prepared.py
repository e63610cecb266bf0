from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from serendifflib.diffusion.checkpoints import read_state
from serendifflib.diffusion.training import train
from serendifflib.errors import ConfigError, ModelError
from serendifflib.experiments import prepared as workbench
from serendifflib.experiments import versions
from serendifflib.experiments.prepared import load_or_fit, open_bench
from serendifflib.model import fitting
from serendifflib.model.storage import FILE
from serendifflib.portrait.portrait import cell_of
from serendifflib.profiles import PROFILES

TINY = {
    "side": 5,
    "timesteps": 20,
    "batch_size": 8,
    "validate_every": 2,
    "width": 8,
    "steps": 4,
}


@pytest.fixture
def bench(tiny_data, word_encoder, empty_cache):
    return open_bench(
        tiny_data,
        n_folds=3,
        encoder=word_encoder,
        n_candidates=100,
        profile=replace(PROFILES["smoke"], test_users=6),
    )


def fit(bench, preset="tuned", **changes):
    return load_or_fit(
        bench,
        preset,
        progress=False,
        device="cpu",
        **{**TINY, **changes},
    )


@pytest.fixture
def trainings(monkeypatch):
    """How often a network was trained."""
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return train(*arguments, **options)

    monkeypatch.setattr(fitting, "train", counted)
    return calls


# -------------------------------------------------------------- candidates


def test_a_bench_has_what_a_table_needs(bench, tiny_fold):
    np.testing.assert_array_equal(
        bench.fold.split.test_users, tiny_fold.split.test_users
    )
    assert torch.equal(bench.fold.raw_vectors, tiny_fold.raw_vectors)
    assert len(bench.test) == 6 == len(bench.test_candidates.items)
    assert len(bench.valid) == len(bench.fold.valid)
    for examples, candidates in (
        (bench.test, bench.test_candidates),
        (bench.valid, bench.valid_candidates),
    ):
        assert candidates.items.shape == (len(examples), 100)
        for row in range(len(examples)):
            place = int(candidates.positive[row])
            items = candidates.items[row].tolist()
            assert items[place] == int(examples.targets[row])
            assert len(set(items)) == 100
            user = int(examples.users[row])
            own = bench.data.item_index[bench.data.rows(user)]
            assert set(items) & set(own.tolist()) == {items[place]}


def test_candidates_are_spread_over_the_user_s_own_grid(bench):
    """200 items on 100 cells: about one candidate in each."""
    history = bench.test.histories[0]
    positions = bench.space.catalogue_positions(history[history > 0].numpy())
    cells = cell_of(positions[bench.test_candidates.items[0]], 10)
    counts = np.zeros((10, 10))
    np.add.at(counts, tuple(cells.T), 1)
    assert (counts.sum(axis=0) <= 16).all() and (
        counts.sum(axis=1) <= 16
    ).all()


def test_candidates_are_drawn_once(
    bench, tiny_data, word_encoder, empty_cache, monkeypatch
):
    def draw(*arguments, **options):
        raise AssertionError("drawn again")

    monkeypatch.setattr(workbench, "fold_candidates", draw)
    options = {
        "n_folds": 3,
        "encoder": word_encoder,
        "profile": bench.profile,
        "n_candidates": 100,
    }
    again = open_bench(tiny_data, **options)
    assert again.test_candidates.checksum == bench.test_candidates.checksum
    for changes in ({"seed": 1}, {"fold": 1}, {"n_candidates": 99}):
        with pytest.raises(AssertionError, match="drawn again"):
            open_bench(tiny_data, **{**options, **changes})


def test_damaged_candidates_are_drawn_again(
    bench, tiny_data, word_encoder, empty_cache
):
    files = list(empty_cache.glob("candidates/*.npz"))
    assert len(files) == 2
    for path in files:
        path.write_bytes(path.read_bytes()[:-10])
    again = open_bench(
        tiny_data,
        n_folds=3,
        encoder=word_encoder,
        profile=bench.profile,
        n_candidates=100,
    )
    assert torch.equal(
        again.test_candidates.items, bench.test_candidates.items
    )
    assert again.test_candidates.checksum == bench.test_candidates.checksum


def test_a_simulated_world_is_opened_once(
    tiny_data, word_encoder, empty_cache, monkeypatch
):
    monkeypatch.setattr(workbench, "load_dataset", lambda *a, **k: tiny_data)
    monkeypatch.setattr(
        workbench.encoding, "reference_encoder", lambda: word_encoder
    )
    options = {"n_folds": 3, "n_candidates": 100}
    first = open_bench("synthetic", **options)
    assert open_bench("synthetic", **options) is first
    assert open_bench("synthetic", **options, fold=1) is not first
    other = open_bench("synthetic", **options, encoder=word_encoder)
    assert other is not first  # who brings an encoder gets it
    workbench._remembered.cache_clear()


@pytest.mark.parametrize("fold", [3, -1, "first", 1.0, None])
def test_an_unknown_fold_is_refused(tiny_data, word_encoder, fold):
    with pytest.raises(ConfigError, match="choose 0 to 2 or 'temporal'"):
        open_bench(tiny_data, fold=fold, n_folds=3, encoder=word_encoder)


def test_a_split_by_time_makes_a_bench_too(
    tiny_data, word_encoder, empty_cache
):
    made = open_bench(
        tiny_data,
        fold="temporal",
        encoder=word_encoder,
        n_candidates=50,
        profile=PROFILES["smoke"],
    )
    assert made.fold.split.cutoff is not None and len(made.test) == 12


# ------------------------------------------------------------------ models


def test_what_was_trained_is_loaded(bench, trainings, empty_cache):
    first = fit(bench)
    assert len(trainings) == 1
    second = fit(bench)
    assert len(trainings) == 1  # the second one only reads
    items = bench.test_candidates.items
    assert torch.equal(
        first.score(bench.test.histories, items),
        second.score(bench.test.histories, items),
    )
    assert len(list(empty_cache.glob("models/*"))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 5},
        {"match": "zone"},
        {"learning_rate": 2e-3},
        {"seed": 1},
        {"preset": "corrected", "calls": 1},
    ],
)
def test_another_setting_is_another_model(bench, trainings, changes):
    fit(bench)
    fit(bench, **changes)
    assert len(trainings) == 2
    fit(bench)
    fit(bench, **changes)
    assert len(trainings) == 2


def test_other_data_or_code_is_another_model(bench, trainings, monkeypatch):
    fit(bench)
    vectors = bench.fold.raw_vectors.clone()
    vectors[3] = vectors[4]
    fold = replace(bench.fold, raw_vectors=vectors)
    fit(replace(bench, fold=fold))
    assert len(trainings) == 2
    fewer = replace(bench.fold, train=bench.fold.train.subset(slice(0, 20)))
    fit(replace(bench, fold=fewer))
    assert len(trainings) == 3
    recounted = replace(bench.fold, counted="unlabelled")
    fit(replace(bench, fold=recounted))
    assert len(trainings) == 4
    monkeypatch.setitem(versions.PARTS, "portrait", 99)
    fit(bench)
    assert len(trainings) == 5
    others = {**versions.libraries(), "torch": "99.0"}
    monkeypatch.setattr(versions, "libraries", lambda: others)
    fit(bench)
    assert len(trainings) == 6
    monkeypatch.setitem(versions.ROWS, "tuned", 99)
    fit(bench)
    assert len(trainings) == 7
    # a title is shown by a loaded model
    titles = {**bench.data.titles, bench.data.items[0]: "Renamed"}
    fold = replace(bench.fold, interactions=replace(bench.data, titles=titles))
    fit(replace(bench, fold=fold))
    assert len(trainings) == 8


def same_weights(path, good):
    """The same run: the same numbers, but for its seconds."""
    found = read_state(path, "")[1]
    return all(torch.equal(found[name], value) for name, value in good.items())


def test_a_damaged_model_is_trained_again(bench, trainings, empty_cache):
    fit(bench)
    (path,) = empty_cache.glob(f"models/*/{FILE}")
    good = read_state(path, "")[1]
    path.write_bytes(path.read_bytes()[:-10])
    model = fit(bench)
    assert len(trainings) == 2
    assert fit(bench).settings == model.settings
    assert len(trainings) == 2
    assert same_weights(path, good)


def test_an_interrupted_training_goes_on(bench, empty_cache, monkeypatch):
    """Stopped after its first checkpoint, it ends as if it never was."""
    whole = fit(bench, steps=6)
    (folder,) = empty_cache.glob("models/*")
    good = read_state(folder / FILE, "")[1]
    (folder / FILE).unlink()
    done = []

    def stop(network):
        raise KeyboardInterrupt

    def stopping(*arguments, **options):
        validate = options["validate"]
        options["checkpoint_seconds"] = 0.0

        def limited(network):
            done.append(1)
            return stop(network) if len(done) == 3 else validate(network)

        options["validate"] = limited
        return train(*arguments, **options)

    monkeypatch.setattr(fitting, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(bench, steps=6)
    assert (folder / "training.safetensors").exists()
    monkeypatch.setattr(fitting, "train", train)
    resumed = fit(bench, steps=6)
    assert resumed.reports[0].losses == whole.reports[0].losses
    assert same_weights(folder / FILE, good)
    assert not (folder / "training.safetensors").exists()


def test_a_training_that_diverges_leaves_no_model(bench, empty_cache):
    with pytest.raises(ModelError, match="diverged"):
        fit(bench, learning_rate=1e30)
    assert not list(empty_cache.glob(f"models/*/{FILE}"))


def test_two_that_want_the_same_model_train_it_once(bench, trainings):
    """Threads stand for two notebooks: one trains, the other one waits."""
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: fit(bench), range(2)))
    assert len(trainings) == 1
    histories, items = bench.test.histories, bench.test_candidates.items
    first, second = (model.score(histories, items) for model in both)
    torch.testing.assert_close(first, second)
