"""The command line, driven as a person would: good input, bad input."""

import csv
import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import zipfile

import pytest
from PIL import Image
from toy_reviews import reviews, write_reviews

from serendifflib import profiles
from serendifflib.__main__ import main
from serendifflib.data import sources
from serendifflib.data.interactions import COLUMNS
from serendifflib.data.sources import SOURCES, WORLDS
from serendifflib.model import settings as presets
from serendifflib.portrait import fold

TINY_PROFILE = dataclasses.replace(
    profiles.PROFILES["smoke"],
    world_users=40,
    world_items=200,
    steps=4,
    batch_size=4,
    width=8,
)
TIME, REVIEW, LABEL = 2, 3, 5  # columns


@dataclasses.dataclass
class Cli:
    """Runs commands in a folder of its own; knows what lies there."""

    folder: object
    capsys: object

    def write(self, rows, header=COLUMNS, name="my.csv"):
        write_reviews(self.folder / name, rows, header)
        return name

    def __call__(self, *arguments):
        self.capsys.readouterr()
        self.code = main([str(argument) for argument in arguments])
        self.out, self.err = self.capsys.readouterr()
        return self.code

    def recommend(self, user="u03", data="my.csv", k=3, *more):
        return self(
            "recommend", "--data", data, "--user", user, "-k", k, *more
        )

    def listing(self):
        """Every file with the hash of its content; a lock has none."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in self.folder.rglob("*")
            if path.is_file() and path.suffix != ".lock"
        }

    def refused(self, *arguments):
        """The one line with which a command must end, changing nothing."""
        before = self.listing()
        assert self(*arguments) == 2
        assert self.listing() == before
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.out + self.err
        return lines[0]

    @property
    def titles(self):
        """First column of the printed table of recommendations."""
        lines = self.out.splitlines()
        start = next(
            row for row, line in enumerate(lines) if "expectedness" in line
        )
        return [line.split()[0] for line in lines[start + 1 :] if line][:-2]


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys, word_encoder):
    monkeypatch.setenv("SERENDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SERENDIFF_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("SERENDIFF_PROFILE", raising=False)
    monkeypatch.setitem(profiles.PROFILES, "smoke", TINY_PROFILE)
    monkeypatch.setattr(fold, "default_encoder", lambda **_: word_encoder)
    monkeypatch.chdir(tmp_path)
    # what earlier work left behind must survive every refusal
    (tmp_path / "data").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "earlier.bin").write_bytes(b"an earlier result")
    (tmp_path / "portrait-u03.png").write_bytes(b"an earlier picture")
    return Cli(tmp_path, capsys)


# --- data ----------------------------------------------------------------


def test_data_list_names_every_id(cli):
    assert cli("data", "list") == 0
    for name in (*WORLDS, *SOURCES):
        assert name in cli.out
    assert cli.out.count("not here yet") == len(SOURCES)


def test_data_check_counts(cli):
    assert cli("data", "check", cli.write(reviews())) == 0
    counted = {
        line.rsplit(maxsplit=2)[0].strip(): line.split()[-2]
        for line in cli.out.splitlines()[1:]
    }
    assert counted["users"] == "12"
    assert counted["rows"] == "96"
    assert counted["items"] == "30"
    assert counted["rows with label 1"] == "12"


def test_data_check_of_a_world_uses_the_profile(cli):
    assert cli("data", "check", "synthetic") == 0
    assert " 40 " in cli.out


def test_data_check_says_what_can_be_fitted(cli):
    assert cli("data", "check", cli.write(reviews())) == 0
    for words in ("times", "ratings", "longest history", "can be fitted"):
        assert words in cli.out
    assert "12 of 12" in cli.out
    rows = [[*row[:TIME], 1000, *row[TIME + 1 :]] for row in reviews()]
    assert cli("data", "check", cli.write(rows)) == 2
    assert "0 of 12" in cli.out
    assert "note: Warning: the times run from 1970" in cli.out
    assert cli.err.startswith("error: cannot be fitted: my.csv, all users")
    assert "the user's rows all have the same time" in cli.err


def test_a_file_with_other_columns(cli):
    header = ("who", "what", "when", "text", "stars", "luck")
    path = cli.write(reviews(), header)
    pairs = "user_id=who,item_id=what,timestamp=when,label=luck"
    options = ("--columns", pairs)
    assert cli("data", "check", path, *options) == 0
    assert "note: Columns" in cli.out and "12 of 12" in cli.out
    line = cli.refused("data", "check", path, "--layout", "yelp")
    assert "column 'user_id' is missing" in line
    line = cli.refused("data", "check", path, "--layout", "nope")
    assert "unknown layout 'nope'" in line
    line = cli.refused("data", "check", path, "--columns", "user_id")
    assert "write user_id=reviewerID" in line
    assert cli.recommend("u03", path, 3, *options) == 0


def test_data_fetch_of_a_world_needs_no_file(cli):
    assert cli("data", "fetch", "synthetic") == 0
    assert "no file needed" in cli.out
    assert not (cli.folder / "cache" / "data").exists()


@pytest.mark.parametrize("action", ["fetch", "check"])
def test_data_with_unknown_id(cli, action):
    line = cli.refused("data", action, "movielens-smal")
    assert "did you mean 'movielens-small'?" in line


def test_data_check_of_what_is_not_here(cli):
    line = cli.refused("data", "check", "serenlens-books")
    assert "data fetch serenlens-books" in line


def test_data_fetch_from_an_address_that_is_not_https(cli, monkeypatch):
    monkeypatch.setenv(
        "SERENDIFF_URL_MOVIELENS_SMALL", "http://mirror.example/x.zip"
    )
    line = cli.refused("data", "fetch", "movielens-small")
    assert "only https" in line
    assert "SERENDIFF_DATA" in line  # says how to go on


# --- recommend: what works -----------------------------------------------


def test_recommend_trains_on_labels_where_there_are_some(cli):
    cli.write(reviews())
    assert cli.recommend() == 0
    # user 9 of 0..11 validates, the other eleven have one label each
    assert "Trained on 11 serendipity labels." in cli.out
    assert "next-item" not in cli.out
    assert len(cli.titles) == 3
    own = {row[1] for row in reviews() if row[0] == "u03"}
    assert not own & set(cli.titles)
    for column in ("expectedness", "relevance", "distance", "direction"):
        assert column in cli.out
    assert "nearest history item" in cli.out
    assert "The most similar item of the history is" in cli.out


def test_recommend_without_labels_says_next_item(cli):
    cli.write(reviews(labels=False))
    assert cli.recommend() == 0
    assert "These data have no serendipity labels." in cli.out
    assert "next-item recommendations" in cli.out
    assert "Trained on" not in cli.out


def test_labels_without_a_vector_are_not_counted(cli):
    rows = reviews()
    rows[7][1] = "only-here"  # its one review is the labelled one
    cli.write(rows)
    assert cli.recommend() == 0
    assert "Trained on 10 serendipity labels." in cli.out


def test_recommend_to_somebody_new(cli):
    base = ("recommend", "--data", cli.write(reviews()), "-k", 3)
    assert cli(*base, "--items", "i00, i03,i06") == 0
    first = cli.titles
    assert len(first) == 3 and not {"i00", "i03", "i06"} & set(first)
    assert "portrait: portrait-new.png" in cli.out
    out = ("--exclude", first[0], "--out", "new.csv")
    assert cli(*base, "--items", "i00,i03,i06", *out) == 0
    assert cli.titles[:2] == first[1:]
    assert (cli.folder / "new.csv").read_text().count("\n") == 4
    assert "'i99' does not" in cli.refused(*base, "--items", "i99")
    assert "'i99' does not" in cli.refused(
        *base, "--user", "u03", "--exclude", "i99"
    )


def test_recommend_to_all(cli):
    base = ("recommend", "--data", cli.write(reviews()), "-k", 2, "--all")
    assert "--out FILE" in cli.refused(*base)
    assert cli(*base, "--out", "all.csv") == 0
    with open(cli.folder / "all.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["user"] for row in rows] == [
        f"u{user:02}" for user in range(12) for _ in range(2)
    ]
    assert [row["rank"] for row in rows] == ["1", "2"] * 12


def test_descriptions_are_said_to_be_descriptions(cli):
    own = [[r[0], f"{r[0]}-{n}", *r[2:]] for n, r in enumerate(reviews())]
    path = cli.write(own)
    assert cli("data", "check", path) == 2
    assert "--texts-describe-items" in cli.err
    assert cli("data", "check", path, "--texts-describe-items") == 0
    assert cli.recommend("u03", path, 3, "--texts-describe-items") == 0


def test_the_picture_is_a_whole_png(cli):
    cli.write(reviews())
    assert cli.recommend() == 0
    assert "portrait: portrait-u03.png" in cli.out
    with Image.open(cli.folder / "portrait-u03.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        picture.load()


def test_picture_goes_where_it_is_told(cli):
    cli.write(reviews())
    before = set(cli.listing())
    assert cli.recommend("u03", "my.csv", 3, "--picture", "new/p.png") == 0
    new = {p for p in set(cli.listing()) - before if "cache" not in p}
    assert new == {"new/p.png"}
    assert (cli.folder / "portrait-u03.png").read_bytes()[:2] == b"an"


def test_the_second_run_loads_what_the_first_trained(cli):
    cli.write(reviews())
    assert cli.recommend() == 0
    first = cli.out
    assert "train" in cli.err  # the progress bar
    assert "it/s" not in first
    assert cli.recommend() == 0
    assert cli.out == first
    assert cli.err == ""


def test_seeds_differ(cli):
    cli.write(reviews())
    assert cli.recommend("u03", "my.csv", 30) == 0
    first = cli.out
    assert cli.recommend("u03", "my.csv", 30, "--seed", 1) == 0
    assert cli.out != first


@pytest.mark.parametrize("preset", ["paper", "corrected"])
def test_other_presets(cli, preset, monkeypatch):
    quick = dataclasses.replace(presets.PRESETS[preset], timesteps=3, calls=3)
    monkeypatch.setitem(presets.PRESETS, preset, quick)
    cli.write(reviews())
    assert cli.recommend("u03", "my.csv", 3, "--preset", preset) == 0
    assert len(cli.titles) == 3


def test_k_beyond_the_catalogue_gives_each_new_item_once(cli):
    cli.write(reviews())
    assert cli.recommend("u03", "my.csv", 10**6) == 0
    own = {row[1] for row in reviews() if row[0] == "u03"}
    assert sorted(cli.titles) == sorted({r[1] for r in reviews()} - own)
    assert "inf" not in cli.out


def test_recommend_from_a_world(cli):
    assert cli.recommend("u00007", "synthetic") == 0
    assert "Trained on" in cli.out


STRANGE = {
    "path": "../../etc/passwd",
    "markup": "Zoë 😀 <b>&amp;</b>",
    "quotes": 'say "hi", ok',
    "line break": "a\nb",
    "formula": "$x_1$ % \\alpha",
    "long": "\U00020000" * 70,
    "option": "-k",
}


@pytest.mark.parametrize("user", STRANGE.values(), ids=STRANGE.keys())
@pytest.mark.filterwarnings("ignore:Glyph")
def test_strange_ids_stay_inside_the_folder(cli, user):
    rows = reviews()
    for row in rows:
        if row[0] == "u03":
            row[0] = user
        row[1] = f"{row[1]} {user[::-1]}"
    cli.write(rows)
    before = set(cli.listing())
    argument = f"--user={user}"
    assert cli("recommend", "--data", "my.csv", argument, "-k", "2") == 0
    new = {p for p in set(cli.listing()) - before if "cache" not in p}
    assert len(new) == 1
    (picture,) = new
    assert os.sep not in picture
    assert picture.startswith("portrait-") and picture.endswith(".png")


# --- recommend: data that are odd but fine -------------------------------


def test_history_of_one_item(cli):
    rows = [*reviews(), ["solo", "i04", 5, "about item4", 5, 0]]
    cli.write(rows)
    assert cli.recommend("solo") == 0
    assert len(cli.titles) == 3
    assert "i04" not in cli.titles


def test_duplicate_rows_are_merged_and_said(cli):
    cli.write(reviews() + reviews()[:20])
    assert cli.recommend() == 0
    assert "note: 20 repeated rows of a user and an item" in cli.out


def test_order_of_rows_changes_nothing_but_a_note(cli):
    cli.write(reviews())
    assert cli.recommend() == 0
    sorted_out = cli.out
    cli.write(reviews()[::-1])
    assert cli.recommend() == 0
    assert "note: The rows were not in order" in cli.out
    assert [
        line for line in cli.out.splitlines() if not line.startswith("note")
    ] == sorted_out.splitlines()


def test_tied_timestamps_work_and_are_said(cli):
    rows = reviews()
    for row in rows:
        row[TIME] = 1600001000 + (row[TIME] > 1600001040)
    cli.write(rows)
    assert cli.recommend() == 0
    assert "rows have the same timestamp as the user's row before" in cli.out


def test_all_timestamps_tied_leaves_no_history_before_a_target(cli):
    rows = reviews()
    for row in rows:
        row[TIME] = 1000
    line = cli.refused("recommend", "--data", cli.write(rows), "--user", "u03")
    assert "no serendipity target" in line


TEXTS = {
    "empty": "",
    "line breaks": "one\ntwo\r\nthree\n\nfour",
    "quotes": 'he said ""wow"", "twice',
    "html": "<script>alert(1)</script><b>bold</b> &amp; &lt;",
    "emoji": "\U0001f600 caf\u00e9 \u4e2d\u6587 \u202eright to left",
    "long": "word " * 20_000,
    "formula": "=1+1",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_reviews_of_every_kind(cli, text):
    rows = reviews()
    rows[0][REVIEW] = rows[50][REVIEW] = text
    cli.write(rows)
    assert cli.recommend() == 0
    assert "Trained on 11 serendipity labels." in cli.out
    if not text:
        assert "note: 2 rows have no review text" in cli.out


@pytest.mark.parametrize("labels", [True, False])
def test_ratings_may_be_empty(cli, labels):
    cli.write([[*row[:4], "", row[LABEL]] for row in reviews(labels)])
    assert cli.recommend() == 0
    assert "note: 96 rows have no rating." in cli.out


# --- recommend: what is refused ------------------------------------------

BAD_TABLES = {
    "missing column": (
        lambda rows: [row[1:] for row in rows],
        COLUMNS[1:],
        "column 'user_id' is missing",
    ),
    "misspelt column": (
        lambda rows: rows,
        (*COLUMNS[:5], "labels"),
        "column 'label' is missing; is it 'labels'?",
    ),
    "no number": (
        lambda rows: [*rows, ["u", "i", "noon", "", 4, 0]],
        COLUMNS,
        "row 97, column 'timestamp': 'noon' is not a number of seconds",
    ),
    "rating": (
        lambda rows: [*rows, ["u", "i", 1, "", 11, 0]],
        COLUMNS,
        "column 'rating': '11' is not within 0.5 to 5",
    ),
    "label 2": (
        lambda rows: [*rows, ["u", "i", 1, "", 4, 2]],
        COLUMNS,
        "row 97, column 'label': '2' is neither 0 nor 1",
    ),
    "no user": (
        lambda rows: [*rows, ["", "i", 1, "", 4, 0]],
        COLUMNS,
        "row 97, column 'user_id'",
    ),
    "no rows": (lambda rows: [], COLUMNS, "no rows below the header"),
    "one row": (
        lambda rows: [["u03", "i", 1, "x", 4, 0]],
        COLUMNS,
        "no next-item target",
    ),
    "labels without a past": (
        lambda rows: [[*r[:5], int(r[TIME] == 1600001000)] for r in rows],
        COLUMNS,
        "no serendipity target",
    ),
    "labelled items without other reviews": (
        lambda rows: [
            [r[0], f"own {r[0]}" if r[LABEL] else r[1], *r[2:]] for r in rows
        ],
        COLUMNS,
        "11 left out because their item has no other review",
    ),
    "no text at all": (
        lambda rows: [[*r[:3], "", *r[4:]] for r in rows],
        COLUMNS,
        "no review may be used",
    ),
}


@pytest.mark.parametrize(
    ("change", "header", "words"), BAD_TABLES.values(), ids=BAD_TABLES.keys()
)
def test_bad_table(cli, change, header, words):
    path = cli.write(change(reviews()), header)
    line = cli.refused("recommend", "--data", path, "--user", "u03")
    assert path in line
    assert words in line


BAD_BYTES = {
    "empty": (b"", "is empty"),
    "latin-1": ("café,\n".encode("latin-1"), "not UTF-8"),
    "utf-16": (",".join(COLUMNS).encode("utf-16"), "not UTF-8"),
    "open quote": (
        ",".join(COLUMNS).encode() + b'\nu,i,1,"cut',
        "EOF inside string",
    ),
    "cut character": (
        ",".join(COLUMNS).encode() + b"\nu,i,1,\xf0\x9f",
        "cut short",
    ),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8"),
}


@pytest.mark.parametrize("action", ["check", "recommend"])
@pytest.mark.parametrize(
    ("content", "words"), BAD_BYTES.values(), ids=BAD_BYTES.keys()
)
def test_bad_file(cli, content, words, action):
    (cli.folder / "my.csv").write_bytes(content)
    command = {
        "check": ["data", "check", "my.csv"],
        "recommend": ["recommend", "--data", "my.csv", "--user", "u03"],
    }[action]
    line = cli.refused(*command)
    assert "my.csv" in line
    assert words in line


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.csv", "No such file"),
        ("data/", "directory"),
        ("no\nsuch.csv", "No such file"),
        ("synthetik", "did you mean 'synthetic'?"),
    ],
)
def test_data_that_are_not_there(cli, path, words):
    line = cli.refused("recommend", "--data", path, "--user", "u03")
    assert words in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_file_without_permission(cli):
    (cli.folder / cli.write(reviews())).chmod(0)
    assert main(["data", "check", "my.csv"]) == 2


def test_unknown_user_is_refused_before_the_work(cli):
    path = cli.write(reviews())
    line = cli.refused("recommend", "--data", path, "--user", "nobody")
    assert "user 'nobody' does not occur in my.csv" in line
    assert "ids look like 'u00'" in line


def test_a_user_without_rows_is_unknown(cli):
    rows = [row for row in reviews() if row[0] != "u03"]
    path = cli.write(rows)
    assert "'u03'" in cli.refused("recommend", "--data", path, "--user", "u03")


def test_user_who_has_everything(cli):
    every = [
        ["all", f"i{item:02}", 2000 + item, f"about item{item}", 4, 0]
        for item in range(30)
    ]
    cli.write(reviews() + every)
    assert cli.recommend("all") == 2
    assert cli.err.splitlines()[-1].startswith(
        "error: my.csv: nothing is left"
    )
    assert not (cli.folder / "portrait-all.png").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-k", "0"], "-k is 0: choose at least 1"),
        (["-k", "-3"], "-k is -3"),
        (["--preset", "best"], "unknown preset 'best': choose one of paper"),
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", str(2**64)], "--seed is"),
        (["--picture", "data"], "this is a folder"),
        (["--picture", "my.csv/p.png"], "no folder that can be written"),
    ],
)
def test_bad_options_are_refused_before_the_work(
    cli, more, words, monkeypatch
):
    monkeypatch.delattr(fold, "default_encoder")  # the work would fail
    path = cli.write(reviews())
    assert words in cli.refused(
        "recommend", "--data", path, "--user", "u03", *more
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["recomend"],
        ["recommend", "--data", "synthetic"],
        ["recommend", "--data", "synthetic", "--user", "u", "-k", "ten"],
        ["recommend", "--data", "s", "--user", "u", "--profile", "huge"],
        ["data"],
    ],
)
def test_misuse_shows_the_usage(cli, arguments):
    before = cli.listing()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in cli.capsys.readouterr().err
    assert cli.listing() == before


def test_unknown_profile_in_the_environment(cli, monkeypatch):
    monkeypatch.setenv("SERENDIFF_PROFILE", "huge")
    path = cli.write(reviews())
    line = cli.refused("recommend", "--data", path, "--user", "u03")
    assert "unknown profile 'huge'" in line


# --- data sets with a published checksum ---------------------------------


@pytest.fixture
def small_serenlens(cli, monkeypatch):
    """SerenLens' entry of the registry, with a tiny file behind it."""
    path = cli.folder / "data" / "SerenLens_Books.csv"
    cli.write(reviews(), name=f"data/{path.name}")
    content = path.read_bytes()
    entry = dataclasses.replace(
        SOURCES["serenlens-books"],
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setitem(SOURCES, "serenlens-books", entry)
    return path


def test_checked_copy_is_used(cli, small_serenlens):
    assert cli.recommend("u03", "serenlens-books") == 0
    assert "SerenLens (Fu et al., 2023)" in cli.out
    assert "Trained on 11 serendipity labels." in cli.out


@pytest.mark.parametrize("command", ["check", "fetch", "recommend"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-20],
        lambda content: content.replace(b"item1", b"item7", 1),
        lambda content: b"",
    ],
    ids=["truncated", "changed", "empty"],
)
def test_damaged_copy_is_refused(cli, small_serenlens, damage, command):
    small_serenlens.write_bytes(damage(small_serenlens.read_bytes()))
    arguments = {
        "check": ["data", "check", "serenlens-books"],
        "fetch": ["data", "fetch", "serenlens-books"],
        "recommend": ["recommend", "--data", "serenlens-books", "--user", "u"],
    }[command]
    assert small_serenlens.name in cli.refused(*arguments)


def test_truncated_archive_is_refused(cli):
    path = cli.folder / "data" / "ml-latest-small.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml/ratings.csv", "userId,movieId,rating,timestamp\n")
        archive.writestr("ml/movies.csv", "movieId,title,genres\n")
    path.write_bytes(path.read_bytes()[:-30])
    line = cli.refused("data", "check", "movielens-small")
    assert path.name in line


# --- trace, the real process --------------------------------------


@pytest.mark.parametrize("sink", ["closed pipe", "full device"])
def test_output_that_takes_no_more(cli, sink):
    command = [sys.executable, "-m", "serendifflib", "data", "list"]
    if sink == "full device":
        if not os.path.exists("/dev/full"):
            pytest.skip("this system has no /dev/full")
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "No space left" in done.stderr
        return
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data", "check", "x" * 300 + ".csv"], "File name too long"),
        (["data", "check", "~nobody-here/x.csv"], "home directory"),
        (["run", "controls", "--folds", "²"], "--folds is '²'"),
        (["run", "controls", "--folds", "0,,1"], "--folds is '0,,1'"),
    ],
)
def test_names_that_no_file_has(cli, arguments, words):
    assert words in cli.refused(*arguments)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused(cli):
    os.mkfifo("my.csv")
    assert "a pipe or a device" in cli.refused("data", "check", "my.csv")
    os.unlink("my.csv")


def test_wide_letters_and_commands():
    from serendifflib.terminal import _narrow, harmless

    assert _narrow("x" * 61) == "x" * 57 + "..."
    assert _narrow("x" * 60) == "x" * 60
    assert _narrow("宇" * 40) == "宇" * 28 + "..."
    marks = "a\u200eb\u200fc\u061cd\ne\x1b[31m\u2028"
    assert harmless(marks) == "a�b�c�d�e�[31m�"


def test_stopped_by_the_keyboard(cli, monkeypatch):
    def stop(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "check", stop)
    assert cli("data", "check", "synthetic") == 130
    assert "run the same command again" in cli.err


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "recommend --data my_reviews.csv --user anna -k 10" in shown


def test_real_process_refuses_with_status_2(cli):
    cli.write([["u", "i", 1, "x", 4, 2]])
    before = cli.listing()
    command = [sys.executable, "-m", "serendifflib", "recommend"]
    done = subprocess.run(
        [*command, "--data", "my.csv", "--user", "u"],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: my.csv: row 1, column 'label': '2' is neither 0 nor 1"
    ]
    assert cli.listing() == before


def test_output_that_cannot_show_a_character(cli, monkeypatch):
    name = cli.write(reviews(), name="na\u00efve-\u4e2d.csv")
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    assert main(["data", "fetch", name]) == 0
    shown.flush()
    assert shown.buffer.getvalue() == b"na\\xefve-\\u4e2d.csv\n"
