"""The registry: ids, paths, local copies, downloads, reports."""

import csv
import dataclasses
import hashlib
import io
import shutil
import zipfile
from pathlib import Path

import pytest

from serendifflib.data import sources
from serendifflib.data.interactions import COLUMNS
from serendifflib.data.sources import (
    SOURCES,
    WORLDS,
    check,
    fetch,
    fetch_source,
    find_source,
    list_datasets,
    load_dataset,
)
from serendifflib.errors import (
    ConfigError,
    DataError,
    DownloadError,
    UnknownDatasetError,
)

REVIEWS = [
    ("u1", "i1", 1, "good", 5, 0),
    ("u1", "i2", 2, "a lucky find", 5, 1),
    ("u2", "i1", 3, "bad", 1, 0),
]


def load_source(entry):
    return sources._READERS[entry.id](sources.source_path(entry))


def csv_bytes(header, rows):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue().encode()


def movielens_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, header, rows in (
            ("ratings.csv", "userId movieId rating timestamp", [(1, 2, 4, 5)]),
            ("movies.csv", "movieId title genres", [(2, "Heat", "Crime")]),
            ("tags.csv", "userId movieId tag timestamp", [(1, 2, "la", 9)]),
        ):
            content = csv_bytes(header.split(), rows)
            archive.writestr(f"ml-latest-small/{name}", content)
    return stream.getvalue()


@pytest.fixture
def serenlens():
    """The registry's entry for SerenLens, with a tiny file behind it."""
    content = csv_bytes(COLUMNS, REVIEWS)
    entry = dataclasses.replace(
        SOURCES["serenlens-books"],
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return entry, content


# --- the registry --------------------------------------------------------


def test_published_sizes_and_checksums():
    books, movies = SOURCES["serenlens-books"], SOURCES["serenlens-movies"]
    assert (books.size, movies.size) == (497_718_992, 155_015_808)
    assert books.sha256.startswith("5dc3eb6cf1cd07a7")
    assert books.sha256.endswith("314113885")
    assert movies.sha256.startswith("74460e2f516c12ec")
    assert movies.sha256.endswith("489035bd3")
    for source in SOURCES.values():
        assert source.url.startswith("https://")
        assert source.size is None or source.size <= source.limit
        assert source.sha256 is None or len(source.sha256) == 64


def test_addresses_can_be_replaced(monkeypatch):
    for source in SOURCES.values():
        assert source.address == source.url
        monkeypatch.setenv(source.env, "https://mirror.example/x")
        assert source.address == "https://mirror.example/x"


def test_replaced_address_must_be_https(own_folders, monkeypatch):
    source = SOURCES["serenlens-books"]
    monkeypatch.setenv(source.env, "http://mirror.example/x")
    with pytest.raises(DownloadError, match="only https"):
        fetch("serenlens-books")


def test_list_names_every_id(own_folders):
    table = list_datasets().set_index("id")
    assert set(table.index) == {*WORLDS, *SOURCES}
    assert table.loc["synthetic", "here"] == "made by code"
    assert table.loc["movielens-small", "here"] == "not here yet"
    assert table.loc["serenlens-books", "address"].startswith("https://")


# --- ids and paths -------------------------------------------------------


def test_a_path_loads_wherever_an_id_does(write_csv):
    path = write_csv(REVIEWS)
    assert load_dataset(path).name == "data.csv"
    assert load_dataset(str(path), name="mine").name == "mine"


def test_a_file_without_an_ending(write_csv, monkeypatch):
    path = write_csv(REVIEWS, name="reviews")
    monkeypatch.chdir(path.parent)
    assert load_dataset("reviews").n_users == 2


def test_unknown_id_suggests_the_nearest():
    with pytest.raises(UnknownDatasetError, match="did you mean 'synthetic'"):
        load_dataset("synthetics")
    with pytest.raises(UnknownDatasetError, match="known: synthetic, "):
        load_dataset("qqq")


@pytest.mark.parametrize("name", ["nowhere.csv", "folder/nowhere"])
def test_a_path_that_is_not_there(name):
    with pytest.raises(DataError, match="No such file"):
        load_dataset(name)


@pytest.mark.parametrize(
    "name", ["synthetic", "synthetic-like-serenlens-books", "movielens-small"]
)
def test_unknown_option_is_named(name):
    with pytest.raises(ConfigError, match=f"{name} has no option 'n_user'"):
        load_dataset(name, n_user=3)


def test_options_of_a_csv_file(write_csv):
    with pytest.raises(ConfigError, match="no option 'users'"):
        load_dataset(write_csv(REVIEWS), users="all")


def test_worlds_take_sizes_seed_and_preset():
    small = {"n_users": 60, "n_items": 200}
    data = load_dataset("synthetic", **small)
    assert (data.n_users, data.n_items) == (60, 200)
    assert data.world.preset == "strong"
    same = load_dataset("synthetic", seed=0, **small)
    other = load_dataset("synthetic", seed=1, **small)
    assert data.checksum == same.checksum != other.checksum
    assert load_dataset("synthetic-null", **small).world.preset == "null"
    assert load_dataset("synthetic-weak", **small).world.preset == "weak"


def test_worlds_take_the_size_of_the_profile(monkeypatch):
    made = []

    class Recorder:
        def __init__(self, preset, *, seed, n_users, n_items):
            made.append((preset, seed, n_users, n_items))

        def interactions(self):
            return "data"

    monkeypatch.setattr("serendifflib.data.world.World", Recorder)
    load_dataset("synthetic", profile="laptop", seed=4)
    monkeypatch.setenv("SERENDIFF_PROFILE", "paper")
    load_dataset("synthetic-weak")
    load_dataset("synthetic", n_users=5)
    assert made == [
        ("strong", 4, 3_000, 4_000),
        ("weak", 0, 10_000, 10_000),
        ("strong", 0, 5, 10_000),
    ]


# --- local copies --------------------------------------------------------


def test_movielens_from_a_folder(own_folders):
    folder = own_folders / "data" / "ml-latest-small"
    with zipfile.ZipFile(io.BytesIO(movielens_zip())) as archive:
        archive.extractall(own_folders / "data")
    assert find_source(SOURCES["movielens-small"]) == folder
    assert load_dataset("movielens-small").title(1) == "Heat"
    report = check("movielens-small")[0].set_index("what")
    assert report.loc["rows", "found"] == 1
    assert report.loc["place", "found"] == str(folder)


def test_movielens_from_a_zip_file(own_folders):
    path = own_folders / "data" / "ml-latest-small.zip"
    path.write_bytes(movielens_zip())
    data = load_dataset("movielens-small")
    assert data.frame["review"].tolist() == ["Heat. Crime. la."]
    # Another archive must not meet the files of the first one.
    path.write_bytes(movielens_zip().replace(b"Heat", b"Cold"))
    shutil.rmtree(own_folders / "cache" / "data", ignore_errors=True)
    with pytest.raises(DataError, match="no whole zip"):
        load_dataset("movielens-small")


def test_two_archives_do_not_share_files(own_folders):
    path = own_folders / "data" / "ml-latest-small.zip"
    path.write_bytes(movielens_zip())
    load_dataset("movielens-small")
    stream = io.BytesIO(movielens_zip())
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("README.txt", "another release")
    path.write_bytes(stream.getvalue())
    load_dataset("movielens-small")
    unpacked = sorted((own_folders / "cache" / "data").glob("movielens-*/"))
    assert len([place for place in unpacked if place.is_dir()]) == 2


@pytest.mark.parametrize("place", SOURCES["serenlens-books"].places)
def test_serenlens_in_each_likely_place(own_folders, serenlens, place):
    entry, content = serenlens
    path = own_folders / "data" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert find_source(entry) == path
    data = load_source(entry)
    assert data.name == "serenlens-books"
    assert data.has_labels
    assert data.n_users == 2


def test_local_copy_that_differs_is_refused(own_folders, serenlens):
    entry, content = serenlens
    path = own_folders / "data" / "SerenLens_Books.csv"
    path.write_bytes(content.replace(b"bad", b"sad"))
    with pytest.raises(DataError, match="SHA-256"):
        load_source(entry)
    path.write_bytes(content[:-9])
    with pytest.raises(DataError, match="cut short"):
        load_source(entry)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="git lfs pull"):
        load_source(entry)
    assert path.exists()


def test_local_copy_goes_before_a_download(own_folders, serenlens, server):
    entry, content = serenlens
    entry = dataclasses.replace(entry, url=f"{server.url}/f")
    (own_folders / "data" / "SerenLens_Books.csv").write_bytes(content)
    load_source(entry)
    assert server.requests == []


# --- downloads -----------------------------------------------------------


def test_download_then_load_then_no_more_download(
    own_folders, serenlens, server
):
    entry, content = serenlens
    entry = dataclasses.replace(entry, url=f"{server.url}/f")
    server.files["/f"] = content
    for _ in range(2):
        data = load_source(entry)
        assert len(data.frame) == 3
    assert len(server.requests) == 1
    path = fetch_source(entry)
    assert path == own_folders / "cache" / "data" / "SerenLens_Books.csv"


def test_damaged_download_is_found_out_later(own_folders, serenlens, server):
    entry, content = serenlens
    entry = dataclasses.replace(entry, url=f"{server.url}/f")
    server.files["/f"] = content
    path = fetch_source(entry)
    path.write_bytes(content.replace(b"good", b"food"))
    with pytest.raises(DataError, match="SHA-256"):
        load_source(entry)


def test_wrong_download_leaves_nothing(own_folders, serenlens, server):
    entry, content = serenlens
    entry = dataclasses.replace(entry, url=f"{server.url}/f")
    server.files["/f"] = content.replace(b"good", b"food")
    with pytest.raises(DownloadError, match="by hand"):
        load_source(entry)
    left = [
        path.name
        for path in (own_folders / "cache").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    ]
    assert left == []


def test_zip_download(own_folders, server):
    entry = dataclasses.replace(
        SOURCES["movielens-small"], url=f"{server.url}/z"
    )
    server.files["/z"] = movielens_zip()
    assert load_source(entry).n_items == 1
    assert load_source(entry).n_items == 1
    assert len(server.requests) == 1


def test_no_network_says_where_to_put_the_file(own_folders, monkeypatch):
    entry = dataclasses.replace(
        SOURCES["serenlens-movies"], url="http://127.0.0.1:9/f"
    )
    monkeypatch.setattr("serendifflib.data.download.time.sleep", lambda s: 0)
    with pytest.raises(DownloadError) as caught:
        fetch_source(entry)
    message = str(caught.value)
    assert "\n" not in message
    place = own_folders / "cache" / "data" / "SerenLens_Movies.csv"
    assert f"put it at {place}, or set SERENDIFF_DATA" in message


def test_unpacked_file_that_changed_is_unpacked_again(own_folders):
    path = own_folders / "data" / "ml-latest-small.zip"
    path.write_bytes(movielens_zip())
    load_dataset("movielens-small")
    (movies,) = (own_folders / "cache" / "data").glob("*/movies.csv")
    movies.write_bytes(movies.read_bytes().replace(b"Heat", b"Cold"))
    assert load_dataset("movielens-small").title(1) == "Heat"


# --- check and fetch -----------------------------------------------------


def test_check_of_a_csv_file(write_csv):
    path = write_csv([*REVIEWS, REVIEWS[0]])
    report = check(path)[0]
    found = report.set_index("what")["found"]
    assert found["rows"] == 3
    assert found["users"] == 2
    assert found["rows with label 1"] == 1
    assert found["content checksum"] == load_dataset(path).checksum
    assert report["ok"].all()
    assert any("repeated" in str(value) for value in report["found"])


def test_check_compares_with_the_paper(own_folders, serenlens, monkeypatch):
    entry, content = serenlens
    monkeypatch.setitem(sources.SOURCES, entry.id, entry)
    (own_folders / "data" / "SerenLens_Books.csv").write_bytes(content)
    report = check(entry.id)[0].set_index("what")
    assert report.loc["SHA-256", "ok"]
    assert report.loc["items", "expected"] == 113_876
    assert not report.loc["items", "ok"]


def test_serenlens_without_the_paper_s_tables(
    own_folders, serenlens, monkeypatch, tmp_path
):
    """An installed package has no results/ beside it."""
    entry, content = serenlens
    monkeypatch.setitem(sources.SOURCES, entry.id, entry)
    monkeypatch.setattr(sources.table1, "project_root", lambda: tmp_path)
    (own_folders / "data" / "SerenLens_Books.csv").write_bytes(content)
    report, data = check(entry.id)
    assert report["ok"].all() and len(data.frame) == 3


def test_check_downloads_nothing(own_folders):
    with pytest.raises(DataError, match="data fetch serenlens-books"):
        check("serenlens-books")[0]
    assert not (own_folders / "cache").exists()


def test_fetch_of_what_needs_no_fetching(write_csv):
    assert fetch("synthetic") is None
    path = write_csv(REVIEWS)
    assert fetch(str(path)) == path
    with pytest.raises(DataError, match="no such file"):
        fetch("nowhere.csv")
    with pytest.raises(UnknownDatasetError):
        fetch("movielens")


def test_no_pickle_in_the_data_code():
    folder = Path(sources.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text("utf-8")
        assert "import pickle" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "extractall" not in text, path
