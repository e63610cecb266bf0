import dataclasses

import numpy as np
import pytest
import torch

from serendifflib.baselines import registry
from serendifflib.baselines.registry import (
    RIVALS,
    SETUPS,
    Budget,
    budget_of,
    make_model,
)
from serendifflib.errors import ConfigError
from serendifflib.profiles import PROFILES
from serendifflib.recommender import Recommender

from .toy import cases, toy_fold

SHORT = Budget(
    pretrain_steps=1, max_steps=1, batch_size=8, eval_every=5, patience=1
)


def test_nine_rivals_in_the_order_of_table_4():
    assert [name.removesuffix("-style") for name in RIVALS] == [
        "DESR",
        "PURS",
        "SNPR",
        "SerenEnhance",
        "SerenPrompt",
        "SASRec",
        "BERT4Rec",
        "DiffRec",
        "DreamRec",
    ]


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_fits_and_scores(name, monkeypatch):
    monkeypatch.setattr(registry, "packaged_file", lambda: None)
    fold = toy_fold()
    model = make_model(name, SHORT)
    assert isinstance(model, Recommender)
    model.fit(fold, generator=torch.Generator().manual_seed(0))
    assert model.name.startswith(name)
    histories, candidates, _ = cases(fold)
    scores = model.score(histories[:3], candidates[:3])
    assert scores.shape == (3, candidates.shape[1])
    assert model.report.parameters > 0 and model.report.seconds > 0


@pytest.mark.parametrize("name", RIVALS)
def test_no_rival_reads_the_rows_of_test_users(name, monkeypatch):
    monkeypatch.setattr(registry, "packaged_file", lambda: None)
    fold = toy_fold()
    data = fold.interactions
    frame = data.frame.copy()
    hidden = np.isin(data.user_index, fold.split.test_users)
    shuffled = np.random.default_rng(0).permutation(frame["item_id"][hidden])
    frame.loc[hidden, "item_id"] = shuffled
    frame.loc[hidden, "rating"] = 1.0
    changed = dataclasses.replace(
        fold, interactions=dataclasses.replace(data, frame=frame)
    )
    assert (changed.interactions.items == data.items).all()
    histories, candidates, _ = cases(fold)
    # without validation the trained state is kept, whatever it is worth
    budget = dataclasses.replace(
        SHORT, pretrain_steps=3, max_steps=3, valid_cases=0
    )
    scores = []
    for part in (fold, changed):
        model = make_model(name, budget)
        if name == "SerenPrompt-style":
            # its texts come from reviews of all users by design; here the
            # reviews would follow the shuffled items
            model.share = 0.0
        model.fit(part, generator=torch.Generator().manual_seed(0))
        scores.append(model.score(histories[:4], candidates[:4]))
    assert torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("preset", SETUPS)
def test_every_preset_can_be_made(preset):
    for name in RIVALS:
        assert make_model(name, SHORT, setup=preset).budget == SHORT


def test_presets_say_what_they_say():
    published = make_model("SASRec", SHORT, setup="published")
    assert (published.loss, published.norm) == ("bce", "query")
    assert make_model("SerenEnhance", setup="published").faithful_sigmoid
    for name in RIVALS:  # App. B, "for all the models"
        ours = make_model(name, SHORT)
        found = (ours.lr, ours.dropout, ours.weight_decay)
        assert found == (1e-3, 0.2, 1e-4)
    assert make_model("SASRec", SHORT, setup="published", width=32).width == 32


def test_names_are_read_kindly():
    assert make_model("desr", SHORT).name == "DESR-style"
    assert make_model("sasrec", SHORT).name == "SASRec"


def test_without_the_extra_the_language_model_says_what_it_is(monkeypatch):
    monkeypatch.setattr(registry, "packaged_file", lambda: None)
    assert make_model("SerenPrompt", SHORT).language == "tiny"
    monkeypatch.setattr(registry, "packaged_file", lambda: "a file")
    small = make_model("SerenPrompt", budget_of("smoke"))
    assert (small.language, small.share) == ("packaged", 0.02)
    assert make_model("SerenPrompt", budget_of("paper")).share == 1.0


def test_budgets_grow_with_the_profile():
    steps = [budget_of(name).max_steps for name in PROFILES]
    assert steps == sorted(steps) and len(set(steps)) == 3
    assert budget_of(PROFILES["paper"]) == budget_of("paper")


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="unknown model 'KNN'"):
        make_model("KNN")
    with pytest.raises(ConfigError, match="unknown setup 'best'"):
        make_model("SASRec", setup="best")
    with pytest.raises(ConfigError, match="SASRec: .*'depth'"):
        make_model("SASRec", depth=3)
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        Budget(batch_size=0)
    with pytest.raises(ConfigError, match="steps must not be negative"):
        Budget(max_steps=-1)
