from dataclasses import asdict
from pathlib import Path

import pytest

from serendifflib.errors import ConfigError
from serendifflib.io import cache_dir, data_dir, project_root, results_dir
from serendifflib.profiles import PROFILES, current_profile


def test_smoke_is_the_default(monkeypatch):
    monkeypatch.delenv("SERENDIFF_PROFILE", raising=False)
    assert current_profile() is PROFILES["smoke"]
    monkeypatch.setenv("SERENDIFF_PROFILE", "")
    assert current_profile() is PROFILES["smoke"]


def test_a_name_comes_before_the_variable(monkeypatch):
    monkeypatch.setenv("SERENDIFF_PROFILE", "laptop")
    assert current_profile() is PROFILES["laptop"]
    assert current_profile("paper") is PROFILES["paper"]


def test_an_unknown_profile_names_the_known_ones(monkeypatch):
    with pytest.raises(ConfigError, match="'gpu'.*smoke, laptop, paper"):
        current_profile("gpu")
    monkeypatch.setenv("SERENDIFF_PROFILE", "Smoke")
    with pytest.raises(ConfigError, match="'Smoke'"):
        current_profile()


def test_profiles_have_their_own_names_and_grow():
    sizes = [asdict(PROFILES[name]) for name in ("smoke", "laptop", "paper")]
    assert [size["name"] for size in sizes] == list(PROFILES)
    for key in ("world_users", "steps", "batch_size", "width", "samples"):
        values = [size[key] for size in sizes]
        assert values == sorted(values) and values[0] >= 1
    assert sizes[2]["width"] == 384  # the paper's


def test_folders_follow_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("SERENDIFF_CACHE", str(tmp_path / "c"))
    monkeypatch.delenv("SERENDIFF_DATA", raising=False)
    monkeypatch.delenv("SERENDIFF_RESULTS", raising=False)
    assert cache_dir() == tmp_path / "c"
    assert data_dir() == tmp_path / "c" / "data"
    assert results_dir() == project_root() / "results"
    monkeypatch.setenv("SERENDIFF_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("SERENDIFF_RESULTS", str(tmp_path / "r"))
    assert (data_dir(), results_dir()) == (tmp_path / "d", tmp_path / "r")
    assert not list(tmp_path.iterdir())  # asking makes nothing


def test_an_empty_variable_is_no_variable(monkeypatch):
    monkeypatch.setenv("SERENDIFF_CACHE", "")
    assert cache_dir() != Path("")
    assert cache_dir().is_absolute()


def test_the_project_is_found():
    assert (project_root() / "serendifflib" / "io.py").exists()
