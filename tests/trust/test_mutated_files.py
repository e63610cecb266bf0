"""Every kind of file that is read back, mutated: refused in one line.

What carries a checksum is refused or unchanged, never read as something
else. CSV files of reviews have such a test in tests/data/test_reading.py.
"""

import csv
import random
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from toy_units import make_unit

from serendifflib.data.download import unpack
from serendifflib.data.grouplens import read_movielens, read_serendipity_2018
from serendifflib.diffusion import training
from serendifflib.diffusion.images import ImageLoss
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.training import TrainingSettings
from serendifflib.diffusion.unet import UNet, UNetSettings
from serendifflib.errors import CheckpointError, DataError, SerenDiffError
from serendifflib.evaluation.candidates import Candidates
from serendifflib.experiments import records
from serendifflib.experiments import runner as runs
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.storage import FILE
from serendifflib.portrait import encoding
from serendifflib.portrait.portrait import Portraits

COUNTS = {  # files per kind: in every run of the suite, and in the soak
    "record": (200, 4000),
    "candidates": (200, 4000),
    "vectors": (100, 3000),
    "checkpoint": (60, 1500),
    "model": (70, 1500),
    "archive": (200, 4000),
    "movielens": (80, 2000),
    "serendipity-2018": (80, 2000),
}
PIECES = [
    b"",
    b"\x00",
    b"\xff\xfe",
    b"nan",
    b"1e999",
    b"-1",
    b"null",
    b"[" * 3000,
    b"9" * 400,
    b'"',
    b",",
    b"\n",
    b"{}",
    b"\xed\xa0\x80",
]


def mutate(content, luck):
    """Flipped bits, cuts, repeats, and pieces that parsers dislike."""
    content = bytearray(content)
    for _ in range(luck.choice([1, 1, 1, 2, 4])):
        place = luck.randrange(len(content) + 1)
        if luck.random() < 0.3:  # most structure stands at the start
            place = luck.randrange(min(len(content), 400) + 1)
        how = luck.randrange(5)
        if how == 0 and place < len(content):
            content[place] ^= 1 << luck.randrange(8)
        elif how == 1:
            content[place : place + luck.randrange(9)] = luck.choice(PIECES)
        elif how == 2:
            del content[place : place + luck.randrange(200)]
        elif how == 3:
            start = luck.randrange(len(content) + 1)
            content[place:place] = content[start : start + 60]
        else:
            content[place : place + 3] = luck.randbytes(luck.randrange(6))
    if luck.random() < 0.1:
        content = content[: luck.randrange(len(content) + 1)]
    return bytes(content)


# ------------------------------------------------------------ kinds of files


def record(folder):
    store = records.RecordStore(folder)
    cases = records.Cases((1, 2, 3), (4, 5, 6), (1, 20, 3))
    runs.run_units(
        [make_unit()],
        lambda unit: records.Outcome(cases={"serendipity": cases}),
        store,
    )
    return store.path("table4"), lambda: store.runs("table4"), False


def candidates(folder):
    path = folder / "c.npz"
    Candidates(torch.arange(1, 61).view(3, 20), torch.tensor([0, 19, 7])).save(
        path
    )

    def use():
        found = Candidates.load(path)
        return found.items.tolist(), found.positive.tolist()

    return path, use, True


def vectors(folder):
    """A damaged shard counts as none; what it held is encoded again."""
    path = folder / "shard.safetensors"
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (3, 32)).astype(np.uint8)
    values = rng.normal(size=(3, 384)).astype(np.float32)
    check = encoding._digest(keys, values)
    save_file({"keys": keys, "vectors": values, "check": check}, path)

    def use():
        found = encoding._read_shard(path)
        assert len(found[0]) in (0, 3) and len(found[0]) == len(found[1])
        if len(found[0]):
            np.testing.assert_array_equal(found[0], keys)
            np.testing.assert_array_equal(found[1], values)

    return path, use, False


def checkpoint(folder):
    """Read by a run that would go on: all its steps are done already."""
    path = folder / "training.safetensors"
    rows = torch.nn.functional.normalize(torch.randn(21, 4), dim=1)
    rows[0] = 0
    portraits = Portraits(
        torch.randint(1, 21, (6, 5)), torch.rand(6, 5, 2).double()
    )
    loss = ImageLoss(
        DDPMSchedule.make("linear", 10),
        portraits,
        torch.randint(1, 21, (6,)),
        torch.randint(0, 4, (6, 2)),
        rows,
        4,
        "noise",
        "uniform",
    )
    settings = TrainingSettings(steps=2, batch_size=2)
    shape = UNetSettings(channels=4, widths=(4, 4, 4))

    def use():
        torch.manual_seed(0)
        network = UNet(shape)
        report = training.train(
            network,
            loss,
            6,
            settings,
            seed=0,
            checkpoint=path,
            keep_checkpoint=True,
        )
        weights = torch.cat(
            [p.detach().flatten() for p in network.parameters()]
        )
        return report.losses, report.seconds, weights.tolist()

    use()
    return path, use, True


def a_model(folder, model):
    model.save(folder / "model")

    def use():
        found = SerenDiff.load(folder / "model", device="cpu", progress=False)
        weights = [p.detach().sum().item() for p in found.network.parameters()]
        return found.settings, found.catalogue.titles, weights

    return folder / "model" / FILE, use, True


def archive(folder):
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stored:
        stored.writestr("x/ratings.csv", "a,b\n1,2\n" * 40)
        stored.writestr("x/movies.csv", "c,d\n3,4\n")
        stored.writestr("other.txt", "z" * 90)

    def use():
        target = folder / "unpacked"
        for old in target.glob("*"):
            old.unlink()
        unpack(path, ["ratings.csv", "movies.csv"], target, limit=10_000)
        assert {p.name for p in target.iterdir()} == {
            "ratings.csv",
            "movies.csv",
        }
        return [p.read_bytes() for p in sorted(target.iterdir())]

    return path, use, True


def sound(data):
    """What every reader promises of what it returns."""
    frame = data.frame
    assert not frame[["user_id", "item_id"]].duplicated().any()
    assert frame["label"].isin([0, 1]).all()
    assert frame["timestamp"].between(0, 10**11).all()
    assert (frame["rating"].isna() | frame["rating"].between(0.5, 5)).all()
    assert (np.diff(data.user_index) >= 0).all()
    assert len(data.checksum) == 64


RATINGS = "userId,movieId,rating,timestamp\n"
FILMS = 'movieId,title,genres\n1,"Thing, The (1982)",Horror\n2,Heat,A|B\n'


def movielens(folder):
    """One of its three files at a time, chosen by the mutation."""
    (folder / "movies.csv").write_text(FILMS)
    (folder / "tags.csv").write_text("movieId,tag\n1,cold\n")
    path = folder / "ratings.csv"
    path.write_text(
        RATINGS + "1,1,3.5,1100000000\n1,2,4,1100000001\n2,1,,1100000000123\n"
    )
    return path, lambda: sound(read_movielens(folder)), False


def serendipity(folder):
    marks = [
        f"{k}_ser_{r}" for k in "sm" for r in ("rel", "find", "imp", "rec")
    ]
    with open(folder / "answers.csv", "w") as stream:
        writer = csv.writer(stream)
        writer.writerow(["userId", "movieId", "rating", "timestamp", *marks])
        writer.writerow([1, 1, 3.5, 1100000000123, *["TRUE"] * 8])
        writer.writerow([2, 2, 4, 1100000000123, *["FALSE", "NA"] * 4])
    (folder / "movies.csv").write_text(
        "movieId,title,genres,directedBy,starring\n1,A,x,y,z\n2,B,x,,\n"
    )
    (folder / "training.csv").write_text(RATINGS + "1,2,3,1100000000000\n")
    return (
        folder / "answers.csv",
        lambda: sound(read_serendipity_2018(folder)),
        False,
    )


KINDS = {
    "record": record,
    "candidates": candidates,
    "vectors": vectors,
    "checkpoint": checkpoint,
    "model": a_model,
    "archive": archive,
    "movielens": movielens,
    "serendipity-2018": serendipity,
}


def feed(kind, count, folder, model):
    """Read ``count`` mutated files; how many were refused."""
    make = KINDS[kind]
    given = (model,) if kind == "model" else ()
    path, use, signed = make(folder, *given)
    # in folders with several files each one has its turn
    paths = [path]
    if kind in ("movielens", "serendipity-2018"):
        paths = sorted(folder.glob("*.csv"))
    goods = {one: one.read_bytes() for one in paths}
    expected = use()
    luck = random.Random(kind)
    refused = 0
    for number in range(count):
        path = paths[number % len(paths)]
        path.write_bytes(mutate(goods[path], luck))
        try:
            found = use()
        except SerenDiffError as error:
            refused += 1
            assert "\n" not in str(error)[:-1]
        else:
            assert not signed or found == expected
        path.write_bytes(goods[path])
    assert use() == expected or not signed
    return refused


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated(kind, tmp_path, tiny_model, empty_cache):
    refused = feed(kind, COUNTS[kind][0], tmp_path, tiny_model)
    assert refused or kind == "vectors"


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_many(kind, tmp_path, tiny_model, empty_cache):
    count = COUNTS[kind][1]
    refused = feed(kind, count, tmp_path, tiny_model)
    print(f"{kind}: {count} files, {refused} refused")


# ------------------------------------------------------------ one wrong byte

ONE_BYTE = {"archive": DataError, "candidates": CheckpointError}
STEP = 11  # in every run of the suite: each 11th place, one of its bits


def one_byte(kind, folder, places):
    """Read a file with one wrong bit at a time; how many were refused.

    Only the error that its reader recovers from (the archive is fetched
    again, the candidates are drawn again) may come out.
    """
    path, use, _ = KINDS[kind](folder)
    good, expected, refused = path.read_bytes(), use(), 0
    for place, bit in places(len(good)):
        wrong = bytearray(good)
        wrong[place] ^= 1 << bit
        path.write_bytes(wrong)
        try:
            assert use() == expected, (place, bit)
        except ONE_BYTE[kind]:
            refused += 1
    path.write_bytes(good)
    assert use() == expected and refused
    return refused


@pytest.mark.parametrize("kind", ONE_BYTE)
def test_one_wrong_bit(kind, tmp_path):
    one_byte(kind, tmp_path, lambda n: ((i, i % 8) for i in range(0, n, STEP)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE_BYTE)
def test_every_wrong_bit(kind, tmp_path):
    tried = []

    def places(n):
        tried.extend((i, bit) for i in range(n) for bit in range(8))
        return tried

    refused = one_byte(kind, tmp_path, places)
    print(f"{kind}: {len(tried)} files with one wrong bit, {refused} refused")


def test_the_soak_has_twenty_thousand_files():
    assert sum(soak for _, soak in COUNTS.values()) >= 20_000
