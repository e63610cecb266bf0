"""Results and declared versions change together, part by part.

``parts.json`` holds, for every part, its declared version and numbers that
it computed on a tiny case. When this file goes red, either the change was
not meant, or the part's number in ``serendifflib.experiments.versions`` is
raised and the numbers are written anew:

    python tests/experiments/test_versions.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from serendifflib.baselines.controls import CONTROLS
from serendifflib.baselines.modes import MODES
from serendifflib.baselines.ranker import RERANKERS, SetRanker
from serendifflib.baselines.registry import RIVALS, make_model
from serendifflib.baselines.trainer import Budget
from serendifflib.data.splits import make_examples, user_folds
from serendifflib.data.world import World
from serendifflib.evaluation.candidates import fold_candidates
from serendifflib.evaluation.protocol import evaluate
from serendifflib.experiments import versions
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.settings import PRESETS
from serendifflib.portrait.fold import prepare_fold
from serendifflib.portrait.items import memberships
from serendifflib.portrait.portrait import PortraitSpace

FILE = Path(__file__).with_name("parts.json")
BUDGET = Budget(pretrain_steps=3, max_steps=3, batch_size=8, eval_every=3)
TINY = {"width": 8, "side": 5, "timesteps": 20, "steps": 4, "batch_size": 8}
DETERMINISTIC = [name for name in RIVALS if name != "SerenPrompt-style"]


def sums(values, parts=8):
    """A few numbers that change when any of ``values`` does."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    weights = np.cos(np.arange(len(flat)))
    return [float(p.sum()) for p in np.array_split(flat * weights, parts)]


class Tied:
    """Scores with many ties."""

    name = "tied"

    def score(self, histories, candidates):
        return (candidates % 3).float()


class Cases:
    """The tiny case: 60 users, 200 items, one fold of three."""

    def __init__(self, data, encoder):
        self.data = data
        self.split = user_folds(data, 3, seed=0)[0]
        self.fold = prepare_fold(data, self.split, encoder=encoder)
        self.space = PortraitSpace.fit(self.fold, bins="catalogue")
        self.users = self.fold.test.histories[:4]
        drawn = self.drawn()
        self.some = drawn.items[:4]

    def part_world(self):
        oracle = self.data.world.oracle_scores(0)
        oracle = oracle[np.isfinite(oracle)]
        texts = [len(t) for t in self.data.frame["review"]]
        return [
            *sums(self.data.frame["timestamp"]),
            *sums(texts),
            *sums(oracle),
        ]

    def part_splits(self):
        examples = make_examples(
            self.data, self.split.train_users, "all-next", per_user=3
        )
        return [*sums(self.split.test_users), *sums(examples.targets)]

    def part_items(self):
        shares = memberships(self.space.vectors, 8)
        return [*sums(self.space.vectors), *sums(shares)]

    def part_fold(self):
        return [
            *sums(self.fold.raw_vectors),
            *sums(self.fold.train.targets),
            *sums(self.fold.test.targets),
        ]

    def part_portrait(self):
        found = []
        for history in self.users:
            past, all_items = self.space.both_positions(
                history[history > 0].numpy()
            )
            found += [*sums(past), *sums(all_items)]
        return found

    def drawn(self):
        return fold_candidates(
            self.fold, self.space, part="test", n_candidates=100, seed=0
        )

    def part_candidates(self):
        drawn = self.drawn()
        return [*sums(drawn.items), *sums(drawn.positive)]

    def part_protocol(self):
        table = evaluate(
            Tied(),
            self.fold.test,
            self.drawn(),
            generator=torch.Generator().manual_seed(1),
        )
        return sums(table["rank"])

    def part_training(self):
        model = self.fitted(
            SerenDiff("tuned", device="cpu", progress=False, **TINY)
        )
        return sums(model.reports[-1].losses, 4)

    def fitted(self, model):
        return model.fit(self.fold, generator=torch.Generator().manual_seed(3))

    def scores(self, model):
        model = self.fitted(model)
        if hasattr(model, "for_cases"):
            model = model.for_cases(self.fold.test)
        return sums(model.score(self.users, self.some))


def computers(cases):
    """Name of every part and row -> its declared version, its computation."""
    found = {
        name: (
            version,
            getattr(cases, f"part_{name}"),
        )
        for name, version in versions.PARTS.items()
    }

    def add(model, name, make):
        version = versions.of_model(model, name)[-1]
        found[f"{model} {name}"] = version, lambda: cases.scores(make())

    for name in PRESETS:
        add(
            "serendiff",
            name,
            lambda name=name: SerenDiff(
                name,
                device="cpu",
                progress=False,
                # at first tokens are all alike, and that may validate best
                **TINY | ({"patience": 0} if name == "tokens" else {}),
            ),
        )
    add("ranker", "ranker", lambda: SetRanker(budget=BUDGET))
    for name, kind in (MODES | RERANKERS).items():
        add("ranker", name, lambda kind=kind: kind(budget=BUDGET))
    for name, kind in CONTROLS.items():
        add("control", name, kind)
    for name in DETERMINISTIC:
        add("rival", name, lambda name=name: make_model(name, BUDGET))
    return found


@pytest.fixture(scope="module")
def cases(tiny_data, word_encoder):
    return Cases(tiny_data, word_encoder)


NAMES = list(json.loads(FILE.read_text())) if FILE.exists() else []


def test_every_part_and_row_is_guarded(cases):
    assert NAMES == list(computers(cases))


@pytest.mark.parametrize("name", NAMES)
def test_results_change_with_their_version_alone(cases, name):
    version, compute = computers(cases)[name]
    recorded = json.loads(FILE.read_text())[name]
    assert version == recorded["version"], f"write {FILE.name} anew"
    # other processors round otherwise, and items that nearly tie then change
    # places: a step of 1 / 200 each, where positions are summed
    abs_error = 2e-2 if name == "portrait" else 1e-3
    assert compute() == pytest.approx(
        recorded["numbers"], rel=1e-3, abs=abs_error
    ), f"{name}: results changed, its declared version did not"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import WordEncoder

    data = World("strong", n_users=60, n_items=200, seed=1).interactions()
    content = {
        name: {"version": version, "numbers": [round(x, 5) for x in compute()]}
        for name, (version, compute) in computers(
            Cases(data, WordEncoder())
        ).items()
    }
    lines = [f"{json.dumps(n)}: {json.dumps(c)}" for n, c in content.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
