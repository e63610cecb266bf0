"""The protocol: what a model sees, order, batches and bad models."""

import numpy as np
import pytest
import torch

from serendifflib.data.splits import Examples
from serendifflib.errors import DataError, ModelError
from serendifflib.evaluation.candidates import Candidates
from serendifflib.evaluation.protocol import evaluate

CASES, WIDTH = 37, 20


class ByItem:
    """Scores an item by a fixed value; equal values tie."""

    name = "ByItem"

    def __init__(self, values):
        self.values = values
        self.batches = []

    def score(self, histories, candidates):
        self.batches.append(len(histories))
        assert histories.shape[0] == candidates.shape[0]
        return self.values[candidates]


@pytest.fixture
def task():
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(100)[:WIDTH] + 1 for _ in range(CASES)])
    positive = rng.integers(WIDTH, size=CASES)
    return (
        Examples(
            users=np.arange(CASES) * 2,
            histories=torch.from_numpy(rng.integers(1, 100, (CASES, 6))),
            targets=torch.from_numpy(items[np.arange(CASES), positive]),
            rows=rng.permutation(1_000)[:CASES],
        ),
        Candidates(torch.from_numpy(items), torch.from_numpy(positive)),
    )


def seeded():
    return torch.Generator().manual_seed(4)


def take(task, index):
    return tuple(part.subset(index) for part in task)


def test_ranks_and_metrics_agree_with_a_sort(task):
    cases, lists = task
    values = torch.randperm(101, generator=seeded()).double()
    table = evaluate(ByItem(values), cases, lists, generator=seeded())
    assert list(table.columns) == [
        "user_id",
        "target",
        "rank",
        "H@1",
        "H@5",
        "H@10",
        "N@5",
        "N@10",
    ]
    for case in range(CASES):
        listed = sorted(
            lists.items[case].tolist(), key=lambda i: -float(values[i])
        )
        place = listed.index(int(cases.targets[case])) + 1
        assert table["rank"][case] == place
        assert table["H@5"][case] == (place <= 5)
        gain = 1 / np.log2(place + 1) if place <= 10 else 0
        assert table["N@10"][case] == pytest.approx(gain)


@pytest.mark.parametrize("batch_size", [1, 5, 36, 64])
def test_batch_size_changes_nothing_even_with_ties(task, batch_size):
    model = ByItem((torch.arange(101) % 3).double())
    whole = evaluate(model, *task, generator=seeded(), batch_size=37)
    parts = evaluate(model, *task, generator=seeded(), batch_size=batch_size)
    assert whole.equals(parts)
    assert max(model.batches[1:]) <= batch_size


def test_order_of_cases_changes_nothing(task):
    model = ByItem(torch.zeros(101))
    order = np.random.default_rng(1).permutation(CASES)
    whole = evaluate(model, *task, generator=seeded())
    mixed = evaluate(model, *take(task, order), generator=seeded())
    assert whole["rank"].nunique() > 5
    assert (whole["rank"].to_numpy()[order] == mixed["rank"]).all()


def test_another_seed_breaks_ties_otherwise(task):
    model = ByItem(torch.zeros(101))
    one = evaluate(model, *task, generator=seeded())
    other = torch.Generator().manual_seed(5)
    assert (
        one["rank"] != evaluate(model, *task, generator=other)["rank"]
    ).any()


def test_no_case_gives_an_empty_table(task):
    table = evaluate(
        ByItem(torch.zeros(101)), *take(task, slice(0)), generator=seeded()
    )
    assert len(table) == 0 and "N@10" in table


def test_lists_of_other_cases_are_refused(task):
    cases, lists = task
    model = ByItem(torch.zeros(101))
    shifted = Candidates(lists.items.roll(1, 0), lists.positive.roll(1, 0))
    with pytest.raises(DataError, match="case 0"):
        evaluate(model, cases, shifted, generator=seeded())
    short = Candidates(lists.items[1:], lists.positive[1:])
    with pytest.raises(DataError, match="36 candidate lists for 37"):
        evaluate(model, cases, short, generator=seeded())


def test_bad_models_are_named(task):
    broken = torch.zeros(101)
    item = task[1].items[3, 7]
    only = ~(task[1].items[:3] == item).any()
    assert only  # the first three lists lack it
    broken[item] = torch.nan
    with pytest.raises(ModelError, match=r"ByItem: NaN .* case 3;"):
        evaluate(ByItem(broken), *task, generator=seeded(), batch_size=2)

    class Narrow(ByItem):
        name = "Narrow"

        def score(self, histories, candidates):
            return super().score(histories, candidates)[:, :-1]

    with pytest.raises(ModelError, match="Narrow: scores have shape"):
        evaluate(Narrow(torch.zeros(101)), *task, generator=seeded())


def test_the_best_items_are_kept_in_order(task):
    cases, lists = task
    values = torch.randperm(101, generator=seeded()).double()
    values[50:] = 1.0  # many ties: as they are listed
    table = evaluate(
        ByItem(values), cases, lists, generator=seeded(), top=3, batch_size=5
    )
    for row, items in zip(table["top"], lists.items.tolist(), strict=True):
        expected = sorted(items, key=lambda item: -float(values[item]))[:3]
        assert row.tolist() == expected


def test_no_case_has_no_best_items(task):
    nobody = take(task, [])
    table = evaluate(ByItem(torch.rand(101)), *nobody, generator=seeded(),
                     top=3)  # fmt: skip
    assert len(table) == 0 and "top" in table
