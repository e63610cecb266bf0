import numpy as np
import pandas as pd
import pytest

from serendifflib.data.interactions import COLUMNS, Interactions
from serendifflib.errors import UnknownItemError, UnknownUserError
from serendifflib.model.catalogue import Catalogue


@pytest.fixture
def data():
    rows = [
        ("10", "b", 1, "", 5.0, 0),
        ("10", "a", 2, "", 5.0, 0),
        ("9", "a\0", 3, "", 5.0, 0),
        ("9", "b", 4, "", 5.0, 0),
        ("9", "ü", 5, "", 5.0, 0),
        ("a b", "a", 6, "", 5.0, 0),
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return Interactions(
        "hand", frame, "by hand", has_labels=False, titles={"b": "Bee"}
    )


@pytest.fixture
def catalogue(data):
    return Catalogue.from_interactions(data, np.array([0, 1, 2]))


def test_it_remembers_ids_titles_and_histories(catalogue, data):
    assert catalogue.users == ["10", "9", "a b"]
    assert catalogue.items == ["a", "a\0", "b", "ü"]
    assert catalogue.titles == ["a", "a\0", "Bee", "ü"]
    assert [h.tolist() for h in catalogue.histories] == [
        [3, 1],
        [2, 3, 4],
        [1],
    ]
    assert catalogue.title(3) == "Bee"
    assert (catalogue.name, catalogue.source) == ("hand", "by hand")


def test_counted_rows_are_those_in_the_counts(catalogue):
    assert [mask.tolist() for mask in catalogue.counted] == [
        [True, True],
        [True, False, False],
        [False],
    ]
    assert catalogue.is_training.tolist() == [True, True, False]
    assert catalogue.reader("9", None)[2].tolist() == [2]
    assert catalogue.reader("a b", None)[2] is None


def test_a_row_in_the_middle_need_not_be_counted(data):
    catalogue = Catalogue.from_interactions(data, np.array([0, 2, 4]))
    _, history, counted = catalogue.reader("9", None)
    assert history.tolist() == [2, 3, 4]
    assert counted.tolist() == [2, 4]


def test_every_id_is_found(catalogue):
    for number, user in enumerate(catalogue.users):
        assert catalogue.user_number(user) == number
    for number, item in enumerate(catalogue.items, start=1):
        assert catalogue.item_number(item) == number
    assert catalogue.user_number(9) == 1  # ids are texts, whatever is asked


@pytest.mark.parametrize("asked", ["", "1", "100", "9x", "z", "\0", None, 8])
def test_an_unknown_user_is_named(catalogue, asked):
    with pytest.raises(UnknownUserError, match="does not occur in hand") as e:
        catalogue.user_number(asked)
    assert repr(str(asked)) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("asked", ["", "A", "a\0\0", "zz", "\U0010ffff", 0])
def test_an_unknown_item_is_named(catalogue, asked):
    with pytest.raises(UnknownItemError, match="does not occur in hand") as e:
        catalogue.item_number(asked)
    assert repr(str(asked)) in str(e.value) and "\n" not in str(e.value)
