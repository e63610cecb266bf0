"""Benchmarks: the transcription is a reference, the record is written."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serendifflib import bench
from serendifflib.bench import run_bench, timed, transcription
from serendifflib.data.world import World
from serendifflib.errors import CacheError, ConfigError
from serendifflib.scores import CoOccurrence


def close(ours, theirs):
    """Equal to 1e-6, with NaN for the first item of both."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_transcription_by_hand():
    # Without user 0 there are the sets {1, 2} and {2}; one is added to each
    # of 3 items, so the background is (2, 3, 1) / 6. Item 1 occurs together
    # with one other item, which is 2: p(2 | 1) = (1 + 3/6) / (1 + 1). Item 2
    # occurs together with 1 only: p(3 | 2) = (0 + 1/6) / (1 + 1), and
    # p(3 | 1) is the same; the mean of both is p(3 | 1, 2).
    histories = [np.array([1, 2, 3]), np.array([1, 2]), np.array([2])]
    (found,) = transcription(histories, [0], 3)
    close(found, [np.nan, np.log(0.75), np.log(1 / 12)])


def test_transcription_without_smoothing_is_the_plain_share():
    histories = [np.array([1, 2]), np.array([1, 2]), np.array([1, 2, 3])]
    (found,) = transcription(histories, [0], 3, mu=0.0)
    # pairs of item 1 without user 0: with 2 twice, with 3 once
    close(found, [np.nan, np.log(2 / 3)])


@pytest.mark.parametrize("mu", [0.5, 1.0, 7.0])
def test_transcription_equals_the_library_on_a_world(mu):
    data = World("strong", n_users=40, n_items=200, seed=2).interactions()
    histories = np.split(data.item_index, data.row_start[1:-1])
    counts = CoOccurrence.fit(histories, data.n_items, mu=mu)
    users = range(0, 40, 4)
    theirs = transcription(histories, users, data.n_items, mu=mu)
    for user, expected in zip(users, theirs, strict=True):
        own = histories[user]
        ours = counts.log_prefix(own, own=own)
        assert np.isfinite(ours[1:]).all()
        close(ours, expected)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True).map(
            np.array
        ),
        min_size=2,
        max_size=6,
    )
)
def test_transcription_equals_the_library_on_any_histories(histories):
    counts = CoOccurrence.fit(histories, 9)
    theirs = transcription(histories, range(len(histories)), 9)
    for own, expected in zip(histories, theirs, strict=True):
        close(counts.log_prefix(own, own=own), expected)


def test_unknown_benchmark():
    with pytest.raises(ConfigError, match="'portrait': choose one of portrai"):
        run_bench("portrait")


@pytest.fixture
def tiny_world(monkeypatch):
    """A world of a few users where SerenLens' size would stand."""
    world = World("strong", n_users=40, n_items=200, seed=3)
    monkeypatch.setattr(
        bench, "World", SimpleNamespace(like=lambda name, **_: world)
    )
    monkeypatch.setattr(bench, "SLICE", 4)
    return world


@pytest.mark.parametrize("what", ["portraits", "all"])
def test_record(tiny_world, tmp_path, capsys, what):
    path = tmp_path / "deep" / "record.json"
    record = run_bench(what, path)
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(record))
    assert {"commit", "changed", "device", "threads", "versions"} < set(stored)
    found = stored["results"]["portraits"]
    data = tiny_world.interactions()
    assert found["users"] == 40
    assert found["items"] == data.n_items
    assert found["interactions"] == len(data.frame)
    assert 0 <= found["largest_difference"] < 1e-6
    assert found["ratio"] == found["transcription_s"] / found["same_slice_s"]
    for part in ("portraits", "catalogue"):
        assert found[f"{part}_s"] > 0
        assert found[f"{part}_peak_gib"] > 0
    printed = capsys.readouterr().out
    assert "all training interactions" in printed
    assert "every item for every user" in printed
    assert "target 100" in printed


def test_without_a_path_nothing_is_written(tiny_world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_bench("portraits")
    assert not list(tmp_path.iterdir())


def test_a_disagreement_would_show(tiny_world, monkeypatch, capsys):
    def wrong(histories, users, n_items):
        right = transcription(histories, users, n_items)
        return [values + 0.25 for values in right]

    monkeypatch.setattr(bench, "transcription", wrong)
    found = run_bench("portraits")["results"]["portraits"]
    assert found["largest_difference"] == pytest.approx(0.25)


def test_record_that_cannot_be_written(tiny_world, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match="record.json"):
        run_bench("portraits", tmp_path / "file" / "record.json")


def test_timed_warms_up_and_takes_the_median(monkeypatch):
    calls = []
    clock = iter([0.0, 5.0, 10.0, 11.0, 20.0, 23.0])
    monkeypatch.setattr(
        bench, "time", SimpleNamespace(perf_counter=lambda: next(clock))
    )
    found = timed(lambda: calls.append(1))
    assert len(calls) == 4  # one of them before the clock runs
    assert found == {"median_s": 3.0, "min_s": 1.0, "max_s": 5.0}
