"""Tables as data; units that are judged, resumed, and fail alone."""

import dataclasses
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from serendifflib.baselines import controls, registry
from serendifflib.baselines.trainer import Budget
from serendifflib.data.splits import make_examples
from serendifflib.errors import ConfigError, ModelError
from serendifflib.evaluation.paper import row_key
from serendifflib.evaluation.protocol import evaluate
from serendifflib.experiments import (
    questions,
    recipes,
    records,
    results,
    versions,
)
from serendifflib.experiments import tables as experiments
from serendifflib.experiments.prepared import open_bench
from serendifflib.experiments.records import recorded
from serendifflib.experiments.rows import CONTROL_ROWS, Row
from serendifflib.io import cache_dir
from serendifflib.model import settings
from serendifflib.model.settings import make_settings
from serendifflib.profiles import PROFILES

TINY = dataclasses.replace(
    PROFILES["smoke"], steps=2, width=4, batch_size=8, test_users=8
)
CHEAP = ["random", "popularity", "dense-cell"]
TABLE_IDS = list(experiments.TABLES)


@pytest.fixture
def tiny(monkeypatch, tiny_data, word_encoder, empty_cache):
    """Every data set is the tiny world, every encoder the cheap one."""
    monkeypatch.setattr(recipes, "load", lambda source, profile: tiny_data)
    monkeypatch.setattr(
        "serendifflib.portrait.encoding.reference_encoder",
        lambda: word_encoder,
    )
    recipes._open.cache_clear()
    yield tiny_data
    recipes._open.cache_clear()


@pytest.fixture
def unlabelled(monkeypatch, tiny, tiny_data):
    data = dataclasses.replace(
        tiny_data,
        frame=tiny_data.frame.assign(label=np.int8(0)),
        has_labels=False,
        world=None,
    )
    monkeypatch.setattr(recipes, "load", lambda source, profile: data)
    return data


@pytest.fixture
def store(tmp_path):
    return records.RecordStore(tmp_path / "results")


def run(store, *models, table="controls", **options):
    return experiments.run_table(
        table,
        "synthetic",
        **{"profile": TINY, "models": models or CHEAP, "store": store}
        | options,
    )


# tables as data


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("table", TABLE_IDS)
def test_every_row_can_be_a_unit(table, profile, tiny_data):
    known = experiments.TABLES[table]
    rows = known.rows(PROFILES[profile])
    keys = [row_key(row.id) for row in rows]
    assert len(set(keys)) == len(keys) > 0
    for row in rows:
        unit = experiments._unit(
            known, row, 0, tiny_data, TINY, known.tasks, 0
        )
        said = dict(unit.settings)
        assert set(said.pop("tasks")) <= {"serendipity", "relevance"}
        assert said.pop("n_candidates") > 1
        assert said == Row(row.id, row.label, **said).settings()
        if row.model == "control":
            controls.CONTROLS[row.name](**row.options)
        elif row.model == "serendiff":
            made = make_settings(row.name, PROFILES[profile], **row.options)
            made = dataclasses.replace(made, **row.sampling)
            assert made.calls <= made.timesteps
        else:
            Budget(**row.budget)
        assert len(unit.key()) == 64


def test_the_controls_of_the_issue_are_all_there():
    rows = experiments.TABLES["controls"].rows(PROFILES["laptop"])
    assert {row.id for row in rows} >= {
        "random", "popularity", "mean-cosine", "max-cosine", "label-cell",
        "item-prior", "linear-map", "linear-radius", "ranker", "oracle-cell",
        "oracle", "paper", "corrected", "tuned",
    }  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_all_answers_have_the_same_inputs_and_steps(profile):
    rows = {r.id: r for r in experiments.TABLES["generating"].rows(profile)}
    tokens = make_settings("tokens", profile)
    for name in (
        "ranker", "ranker-heads", "mixture-density", "explicit-mixture",
        "mmr", "sog",
    ):  # fmt: skip
        options, budget = rows[name].options, rows[name].budget
        assert options["prototypes"] == tokens.prototypes
        assert budget["max_steps"] == tokens.steps
        assert budget["pretrain_steps"] == tokens.pretrain_steps
        assert budget["batch_size"] == tokens.batch_size
    linear = rows["linear-radius"].options
    assert linear["prototypes"] == tokens.prototypes
    assert rows["ranker"].options.get("answers", 1) == 1
    assert rows["ranker-heads"].options["answers"] == 8


def test_table_4_has_the_nine_rivals_and_all_controls():
    rows = experiments.TABLES["table4"].rows(PROFILES["paper"])
    assert [row.id for row in rows[:10]] == [*registry.RIVALS, "SerenDiff"]
    assert {row.id for row in CONTROL_ROWS} <= {row.id for row in rows}


@pytest.mark.parametrize("file", [None, Path("llm.gguf")])
def test_the_tiny_language_model_has_a_row_of_its_own(file, tiny, monkeypatch):
    """It is computed where there is no other; the real one where it is."""
    where = "serendifflib.experiments.rows.packaged_file"
    monkeypatch.setattr(where, lambda: file)
    both = {
        row.id: row.options["language"]
        for row in questions.table4(TINY)
        if row.name == "SerenPrompt-style"
    }
    assert both == {
        "SerenPrompt-style": "packaged",
        "SerenPrompt-style-tiny": "tiny",
    }
    units = experiments.make_units("table4", profile=TINY, folds=[0])
    (unit,) = (u for u in units if u.settings["name"] == "SerenPrompt-style")
    assert unit.settings["options"]["language"] == both[unit.row]
    assert (unit.row == "SerenPrompt-style") == (file is not None)
    assert ("tiny random LM" in unit.label) == (file is None)
    other = next(row for row in both if row != unit.row)
    with pytest.raises(ConfigError, match="language model"):
        experiments.make_units("table4", profile=TINY, models=[other])


def test_leaks_are_looked_for_among_uniform_candidates():
    rows = experiments.TABLES["leaks"].rows(PROFILES["laptop"])
    assert {row.candidates for row in rows} == {"uniform"}
    ids = {row.id for row in rows}
    assert {"paper", "corrected", "SerenDiff", "SASRec", "oracle"} <= ids
    assert "oracle-protocol" not in ids
    # who is told the cell of the label stands above chance with no leak
    assert "oracle-cell" not in ids


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_table_2_has_every_number_of_steps_of_the_paper(profile):
    rows = experiments.TABLES["table2"].rows(profile)
    steps = {row.options["timesteps"] for row in rows}
    assert steps == {5, 10, 50, 100, 500, 1000}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_table_3_has_every_size_of_the_paper(profile):
    rows = experiments.TABLES["table3"].rows(profile)
    sides = {row.options["side"] for row in rows}
    assert sides == {5, 10, 20, 50, 100}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_rescaling_by_one_is_no_row(profile):
    ids = {row.id for row in experiments.TABLES["table2"].rows(profile)}
    assert {"1000", "5", "5-rescaled"} <= ids and "1000-rescaled" not in ids
    assert {"painter-5", "painter-5-rescaled"} <= ids


def test_the_painter_is_that_of_the_chapters():
    rows = {
        row.id: make_settings(row.name, TINY)
        for table in ("calls", "readings")
        for row in experiments.TABLES[table].rows(TINY)
        if row.id.startswith("painter")
    }
    assert {"painter-one-call", "painter-ddim-5", "painter-zone"} <= set(rows)
    (its,) = {
        str(made) for made in rows.values()
    }  # one network for all of them
    one = rows["painter-zone"]
    assert (one.condition, one.steps) == ("film", 2 * TINY.steps)


def test_counts_has_each_row_with_and_without_labelled_rows():
    rows = experiments.TABLES["counts"].rows(PROFILES["smoke"])
    counted = {row.id: row.counted for row in rows}
    without = {row for row in counted if row.endswith("-unlabelled")}
    assert {counted[row] for row in without} == {"unlabelled"}
    others = {row.removesuffix("-unlabelled") for row in without}
    assert set(counted) - without == others | {"oracle"}
    assert {counted[row] for row in others} == {"all"}


def test_cases_do_not_follow_what_is_counted(tiny):
    asked = ("synthetic", 0, "serendipity", TINY, 100)
    plain, grid, _ = recipes._open(*asked, "all")
    bench, other, _ = recipes._open(*asked, "unlabelled")
    assert bench.test_candidates.checksum == plain.test_candidates.checksum
    assert bench.test.targets.tolist() == plain.test.targets.tolist()
    assert other.space is bench.space is not grid.space
    labels = int((tiny.frame["label"] == 1)[plain.fold.training_rows].sum())
    counts = [b.space.co_occurrence.users_of.sum() for b in (plain, bench)]
    assert labels and counts[0] - counts[1] == labels
    # a surprise is no meeting, but still an item that was taken next
    next_rows = [b.fold.next_items(99).rows for b in (plain, bench)]
    assert (tiny.frame["label"].to_numpy()[next_rows[0]] == 1).any()
    assert next_rows[0].tolist() == next_rows[1].tolist()


def test_enough_users_for_the_labels():
    sizes = experiments.TABLES["labels"].sizes["smoke"]
    training = sizes["world_users"] * 4 // 5 * 7 // 8
    assert training >= max(questions.LABELS)


# running


def test_ranks_are_those_of_the_protocol(tiny, store):
    report = run(store, "random", "mean-cosine", "oracle")
    assert report.ok and len(report.computed) == 3
    length = store.runs("controls")[0].settings["n_candidates"]
    longest = max(np.diff(tiny.row_start))  # leave a fifth of what is lacked
    assert length == (tiny.n_items - longest) * 4 // 5 < 1_000
    bench = open_bench(
        tiny, profile=TINY, n_candidates=length, kind="serendipity"
    )
    for row, control in (
        ("mean-cosine", controls.MeanCosine()),
        ("random", controls.Random()),
    ):
        control.fit(bench.fold, generator=torch.Generator().manual_seed(0))
        expected = evaluate(
            control,
            bench.test,
            bench.test_candidates,
            generator=torch.Generator().manual_seed(0),
        )
        cases = results.case_frame("controls", store=store)
        found = cases[cases["row"] == row]
        assert found["rank"].tolist() == expected["rank"].tolist()
        assert found["target"].tolist() == expected["target"].tolist()
    (record,) = [r for r in store.runs("controls") if r.row == "oracle"]
    assert record.candidates == bench.test_candidates.checksum
    assert record.label == "Oracle" and record.seed == 0
    extra = record.extra
    assert set(extra) == {
        "fit_seconds", "score_seconds", "inference_seconds", "parameters",
        "calibration", "distance", "novelty",
    }  # fmt: skip
    assert extra["inference_seconds"] == pytest.approx(
        extra["score_seconds"] / len(record.cases["serendipity"].ranks)
    )


def test_a_second_run_skips_what_is_there(tiny, store):
    first = run(store, "random", "popularity")
    second = run(store)
    assert len(first.computed) == 2 and not first.skipped
    assert len(second.skipped) == 2
    assert second.computed == ("controls synthetic dense-cell fold 0",)


def test_other_sizes_are_computed_again(tiny, store):
    run(store, "random")
    other = dataclasses.replace(TINY, test_users=5)
    assert run(store, "random", profile=other).computed
    (record,) = store.runs("controls")
    assert len(record.cases["serendipity"].ranks) == 5


class Broken(controls.Popularity):
    def _learn(self, fold, generator):
        raise ModelError("Popularity: exploded")


def test_a_failing_model_leaves_the_others(tiny, store, monkeypatch):
    monkeypatch.setitem(controls.CONTROLS, "popularity", Broken)
    report = run(store)
    assert not report.ok
    assert [row.row for row in store.runs("controls")] == [
        "dense-cell",
        "random",
    ]
    (failure,) = report.failures
    assert "popularity" in failure.unit
    assert report.text().splitlines()[-1].endswith("Popularity: exploded")
    monkeypatch.setitem(controls.CONTROLS, "popularity", controls.Popularity)
    again = run(store)
    assert again.ok and len(again.computed) == 1 and len(again.skipped) == 2


def test_folds_hold_different_users(tiny, store):
    run(store, "random", folds=[0, 3])
    one, two = store.runs("controls")
    assert (one.fold, two.fold) == (0, 3)
    users = [set(r.cases["serendipity"].users) for r in (one, two)]
    assert users[0] and users[1] and not users[0] & users[1]


def test_another_seed_is_another_row_on_the_same_cases(tiny, store):
    run(store, "random")
    run(store, "random", seed=4)
    one, two = store.runs("controls")
    assert (one.row, two.row) == ("random", "random.seed4")
    assert two.label == "Random (seed 4)"
    first, second = one.cases["serendipity"], two.cases["serendipity"]
    assert first.targets == second.targets and first.ranks != second.ranks
    assert one.candidates == two.candidates


def test_both_halves_of_table_4(tiny, store):
    report = run(store, "oracle-cell", "oracle", "mean-cosine", table="table4")
    assert report.ok
    tasks = {r.row: set(r.cases) for r in store.runs("table4")}
    assert tasks == {
        "oracle-cell": {"serendipity", "relevance"},
        "mean-cosine": {"serendipity", "relevance"},
        "oracle": {"serendipity"},  # the law says nothing of next items
    }
    (record,) = [r for r in store.runs("table4") if r.row == "mean-cosine"]
    liked = make_examples(
        tiny, np.array(record.cases["relevance"].users), "next-item"
    )
    assert list(record.cases["relevance"].targets) == liked.targets.tolist()
    assert "relevance_fit_seconds" in record.extra


def test_data_without_labels_have_the_relevance_half(unlabelled, store):
    units = experiments.make_units("controls", "synthetic", profile=TINY)
    rows = {unit.row for unit in units}
    assert "oracle-cell" in rows and "oracle" not in rows
    assert all(u.settings["tasks"] == ["relevance"] for u in units)
    with pytest.raises(ConfigError, match="'oracle' cannot be computed"):
        run(store, "random", "oracle")
    assert run(store, "popularity").ok
    assert set(store.runs("controls")[0].cases) == {"relevance"}


def test_a_rival_through_the_registry(tiny, store, monkeypatch):
    registry = importlib.import_module("serendifflib.baselines.registry")
    budget = Budget(pretrain_steps=2, max_steps=2, batch_size=8, eval_every=2)
    monkeypatch.setitem(registry.BUDGETS, "smoke", budget)
    report = run(store, "sasrec", table="table4")
    assert report.ok, report.text()
    (record,) = store.runs("table4")
    assert (
        record.row == "SASRec" and record.settings["budget"]["max_steps"] == 2
    )
    assert record.extra["steps"] == 4 and record.extra["parameters"] > 1000
    assert record.extra["train_seconds"] > 0
    assert record.parts["model"] == versions.of_model("rival", "SASRec")


def test_ranker_row(tiny, store):
    report = run(store, "ranker")
    assert report.ok, report.text()
    (record,) = store.runs("controls")
    assert record.extra["steps"] == 2
    assert record.settings["budget"]["batch_size"] == TINY.batch_size


# what a recipe changes


def test_calls_share_one_trained_network(tiny, store):
    report = run(store, "one-call", "ddim-2", table="calls")
    assert report.ok, report.text()
    assert len(list((cache_dir() / "models").iterdir())) == 1
    one, two = store.runs("calls")
    assert one.settings["sampling"] != two.settings["sampling"]
    assert one.extra["parameters"] == two.extra["parameters"]
    ranks = [r.cases["serendipity"].ranks for r in (one, two)]
    assert ranks[0] != ranks[1]
    # 8 portraits of 10 x 10 cells; of 4 bytes each, 16 numbers of a vector
    # and a membership per eight of the 200 items
    assert one.extra["portrait_megabytes"] * 2**20 == 8 * 100 * 41 * 4


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("table2", "5-rescaled"),
        ("table3", "5x5"),
        ("readings", "mu-0"),
        ("readings", "weights-similarity"),
        ("readings", "match-zone"),
        ("readings", "encoder-tfidf"),
        ("curve", "paper-2-zone"),
        ("curve", "points-0"),
        ("labels", "linear-map-10"),
        ("leaks", "ranker"),
    ],
)
def test_a_row_of_each_table(tiny, store, monkeypatch, table, row):
    monkeypatch.setitem(questions.CURVE, "smoke", (8, (0, 2)))
    monkeypatch.setattr(questions, "LABELS", (10,))
    report = run(store, row, table=table)
    assert report.ok, report.text()
    (record,) = store.runs(table)
    assert record.row == row and len(record.cases["serendipity"].ranks) == 8


def test_tfidf_changes_vectors_and_no_candidates(tiny):
    bench = open_bench(tiny, profile=TINY, n_candidates=100)
    recipe = Row("id", "label", "serendiff", "tuned", encoder="tfidf")
    changed = recipes._changed(bench, recipe, 100)
    assert changed.test_candidates is bench.test_candidates
    assert torch.equal(changed.fold.train.targets, bench.fold.train.targets)
    old, new = bench.fold.raw_vectors, changed.fold.raw_vectors
    assert old.shape != new.shape or not torch.equal(old, new)
    again = recipes._changed(bench, recipe, 100).fold.raw_vectors
    assert torch.allclose(new, again, atol=1e-5)


def test_fewer_dimensions_keep_the_cosines_that_they_can(tiny_fold):
    old = tiny_fold.raw_vectors.double()
    width = old.shape[1]
    errors = []
    for count in (2, width // 2, width - 1):
        new = recipes.fewer_dimensions(tiny_fold, count).raw_vectors.double()
        assert new.shape == (len(old), count)
        assert torch.equal(new.norm(dim=1) > 0, old.norm(dim=1) > 0)
        errors.append((new @ new.T - old @ old.T).square().mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_the_network_of_the_curve_is_as_wide_as_its_vectors():
    for profile in PROFILES.values():
        for row in experiments.TABLES["curve"].rows(profile):
            width = row.options.get("width")
            vectors = row.components or 384
            assert width in (None, vectors)


def test_fewer_labels_are_among_the_more(tiny_fold):
    few = recipes.fewer_labels(tiny_fold, 5)
    more = recipes.fewer_labels(tiny_fold, 12)
    everything = recipes.fewer_labels(tiny_fold, len(tiny_fold.train))
    assert (len(few), len(more)) == (5, 12)
    assert set(few.rows) < set(more.rows) < set(everything.rows)
    assert torch.equal(everything.targets, tiny_fold.train.targets)
    assert few.users.tolist() != tiny_fold.train.users[:5].tolist()
    with pytest.raises(ConfigError, match="1000 asked for"):
        recipes.fewer_labels(tiny_fold, 1000)


@pytest.mark.parametrize("how", ["uniform", "all"])
def test_other_candidates(tiny_fold, how):
    test, data = tiny_fold.test, tiny_fold.interactions
    lists = recipes.other_candidates(tiny_fold, test, how, 50)
    allowed = np.setdiff1d(np.arange(1, 201), tiny_fold.missing_items)
    free = []
    for m in range(len(test)):
        own = data.item_index[data.rows(int(test.users[m]))]
        items, target = lists.items[m].numpy(), int(test.targets[m])
        assert items[lists.positive[m]] == target
        assert len(set(items)) == len(items)
        others = items[items != target]
        assert not np.isin(others, own).any()
        assert np.isin(others, allowed).all()
        free.append(len(np.setdiff1d(allowed, own)))
    width = lists.items.shape[1]
    assert width == (50 if how == "uniform" else min(free) + 1)


def test_protocol_rows_change_the_cases_not_the_model(tiny, store):
    rows = [f"mean-cosine-{how}" for how in ("cells", "uniform", "all")]
    report = run(store, *rows, "mean-cosine-temporal", table="protocol")
    assert report.ok, report.text()
    by_row = {r.row: r for r in store.runs("protocol")}
    cases = {name: r.cases["serendipity"] for name, r in by_row.items()}
    same = cases["mean-cosine-cells"]
    for name in rows:
        assert cases[name].targets == same.targets
    assert len({r.candidates for r in by_row.values()}) == 4
    assert cases["mean-cosine-temporal"].users != same.users


def test_there_is_one_split_by_time(tiny):
    units = experiments.make_units(
        "protocol",
        "synthetic",
        profile=TINY,
        models=["mean-cosine-cells", "mean-cosine-temporal"],
        folds=[0, 1, 2],
    )
    names = [(unit.row, unit.fold) for unit in units]
    assert names.count(("mean-cosine-temporal", 0)) == 1
    assert len(names) == 4


def test_a_row_names_every_part_on_its_path(tiny):
    def parts(row, table="controls"):
        (unit,) = experiments.make_units(
            table, "synthetic", profile=TINY, models=[row], folds=[0]
        )
        return dict(unit.parts)

    shared = {"splits", "items", "fold", "portrait", "candidates", "protocol"}
    control = parts("random")
    assert set(control) == shared | {"world", "encoder", "model"}
    tuned = parts("tuned")
    assert set(tuned) == set(control) | {"training", "settings"}
    rival = parts("SASRec", "table4")
    assert set(rival) == set(control) | {"training"}
    assert rival["model"] == versions.of_model("rival", "SASRec")
    assert tuned["model"] == versions.of_model("serendiff", "tuned")


def test_another_preset_value_is_another_unit(tiny, monkeypatch):
    def key():
        (unit,) = experiments.make_units(
            "controls", "synthetic", profile=TINY, models=["tuned"], folds=[0]
        )
        return unit.key()

    before = key()
    changed = dataclasses.replace(settings.PRESETS["tuned"], dropout=0.3)
    monkeypatch.setitem(settings.PRESETS, "tuned", changed)
    assert key() != before


# what is not known


def test_unknown_names_list_the_choices(tiny, store):
    with pytest.raises(ConfigError, match="'table9'.*controls, table2"):
        run(store, "random", table="table9")
    with pytest.raises(ConfigError, match="'rndom' of controls.*random, pop"):
        run(store, "rndom")
    with pytest.raises(ConfigError, match="unknown fold 5: choose 0 to 4"):
        run(store, "random", folds=[5])
    with pytest.raises(ConfigError, match="unknown candidates 'few'"):
        Row("id", "label", "control", "random", candidates="few")
    assert not store.root.exists()


def test_names_of_rows_are_read_kindly(tiny):
    table = experiments.find_table("table4")
    rows = experiments.choose_rows(table, TINY, ["desr", "Mean-Cosine"])
    assert [row.id for row in rows] == ["DESR-style", "mean-cosine"]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("my books.csv", "my_books.csv-"),
        (".odd", "odd-"),
        ("möbel.csv", "m_bel.csv-"),
        ("本", "_-"),
    ],
)
def test_files_of_one_name_do_not_share_records(tiny_data, name, start):
    """And any name of a file can stand in a record."""
    one = dataclasses.replace(tiny_data, name=name)
    other = dataclasses.replace(one, frame=one.frame.assign(rating=3.0))
    ids = {experiments.data_id(data) for data in (one, other)}
    assert len(ids) == 2
    for each in ids:
        assert re.fullmatch(re.escape(start) + "[0-9a-f]{8}", each)
    assert experiments.data_id(tiny_data) == tiny_data.name


def test_recorded_runs_were_made_with_settings_of_today():
    """Else hours of records would be computed again, for nothing."""
    profile = PROFILES["smoke"]
    found = {
        run.row: run.parts["settings"]
        for run in recorded().runs("controls", "synthetic", "smoke")
        if "settings" in run.parts and run.seed == run.fold == 0
    }
    table = experiments.find_table("controls")
    rows = {row.id: row for row in table.rows(profile)}
    assert {"paper", "tuned", "points"} <= set(found)
    for name, made in found.items():
        assert experiments._settings_hash(rows[name], profile) == made
