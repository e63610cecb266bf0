"""The paper's numbers, and tables that put ours beside them."""

import doctest
import math
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

from serendifflib.errors import ConfigError, DataError
from serendifflib.evaluation import comparison, metrics, paper, tables
from serendifflib.evaluation.paper import Column, load_paper_table, row_key

NINE = [
    "DESR", "PURS", "SNPR", "SerenEnhance", "SerenPrompt",
    "SASRec", "BERT4Rec", "DiffRec", "DreamRec",
]  # fmt: skip


# the paper's numbers


@pytest.mark.parametrize(
    ("number", "panels", "rows", "columns"),
    [(2, 1, 6, 3), (3, 1, 2, 3), (4, 4, 10, 5), (5, 1, 3, 5), (6, 1, 7, 3)],
)
def test_every_paper_table_is_whole(number, panels, rows, columns):
    paper = load_paper_table(number)
    assert paper.number == number and paper.title and paper.source
    assert len(paper.panels) == panels and len(paper.columns) == columns
    for panel in paper.panels:
        assert len(panel.rows) == rows
        assert len({row_key(row.row) for row in panel.rows}) == rows
        for row in panel.rows:
            assert set(row.values) == set(paper.columns)
    assert len(paper.frame()) == panels * rows * columns


def printed(number, task, data, row):
    paper = load_paper_table(number)
    (found,) = (r for r in paper.panel(task, data).rows if r.row == row)
    return [
        paper.columns[name].text(value, as_printed=True)
        for name, value in found.values.items()
    ]


def test_numbers_print_as_in_the_paper():
    books, movies = "serenlens-books", "serenlens-movies"
    assert printed(2, None, None, "1000") == ["47.11%", "14.38 s", "1.63 s"]
    assert printed(2, None, None, "50") == ["42.55%", "12.64 s", "0.80 s"]
    assert printed(3, None, None, "100x100") == [
        "49.59%", "248.00 s", "4.13 s"
    ]  # fmt: skip
    assert printed(4, "serendipity", books, "SerenDiff") == [
        "9.03%", "31.48%", "47.11%", "0.324", "0.382"
    ]  # fmt: skip
    assert printed(4, "serendipity", movies, "DESR") == [
        "2.73%", "10.15%", "22.26%", "0.059", "0.098"
    ]  # fmt: skip
    assert printed(4, "relevance", books, "BERT4Rec") == [
        "3.13%", "13.28%", "23.05%", "0.076", "0.107"
    ]  # fmt: skip
    assert printed(4, "relevance", movies, "SerenPrompt") == [
        "1.56%", "6.25%", "12.89%", "0.040", "0.061"
    ]  # fmt: skip
    assert printed(5, None, None, "user-sequence") == [
        "7.29%", "25.63%", "39.39%", "0.153", "0.205"
    ]  # fmt: skip
    assert printed(6, None, None, "DreamRec") == [
        "41.02%", "17.69 s", "3.98 s"
    ]  # fmt: skip


def test_tables_of_the_paper_agree_with_each_other():
    def value(number, row, metric="H@10"):
        frame = load_paper_table(number).frame()
        frame = frame[frame["task"] == "serendipity"]
        frame = frame[frame["data"] == "serenlens-books"]
        chosen = (frame["row"] == row) & (frame["metric"] == metric)
        return frame[chosen]["value"].item()

    assert (
        value(2, "1000")
        == value(3, "10x10")
        == value(4, "SerenDiff")
        == value(5, "user-portrait")
        == value(6, "SerenDiff")
    )
    for row in ("SNPR", "SerenEnhance", "SASRec", "DiffRec"):
        assert value(6, row) == value(4, row)


def test_marks_of_the_paper():
    marks = load_paper_table(4).frame()
    starred = marks[marks["mark"] == "*"]
    assert set(starred["row"]) == {"SerenDiff"} and len(starred) == 10
    assert set(starred["task"]) == {"serendipity"}
    # the arrows are the drops of more than a fifth, as its caption says
    frame = load_paper_table(5).frame()
    base = frame[frame["row"] == "user-portrait"].set_index("metric")["value"]
    for line in frame.itertuples():
        dropped = line.value < 0.8 * base[line.metric]
        assert (line.mark == "↓") == dropped, (line.row, line.metric)


def test_unknown_tables_and_panels():
    for number in (1, 7):
        with pytest.raises(ConfigError, match="choose 2 to 6"):
            load_paper_table(number)
    with pytest.raises(ConfigError, match="relevance/serenlens-books"):
        load_paper_table(4).panel("serendipity", "movielens-small")


def test_texts():
    rate, gain = Column("H@10", "%", 2), Column("N@5", "", 3)
    assert rate.text(0.123, 0.101, 0.148) == "12.3% [10.1, 14.8]"
    assert gain.text(0.1234, 0.1, 0.15) == "0.123 [0.100, 0.150]"
    assert rate.text(0.5) == "50.0%"
    seconds = Column("time", "s", 2, "lower")
    assert seconds.text(0.00312) == "0.00312 s"
    assert seconds.text(72.41) == "72.4 s"
    assert seconds.text(999.6) == "1,000 s"
    assert seconds.text(6755.26) == "6,755 s"
    assert seconds.text(14.384, as_printed=True) == "14.38 s"


# ours beside them


def collected(values, *, data="toy", fold="mean", task="serendipity", **more):
    lines = []
    for (row, metric), value in values.items():
        lines.append(
            {
                "row": row,
                "label": row,
                "data": data,
                "profile": "smoke",
                "task": task,
                "fold": fold,
                "metric": metric,
                "value": value,
                "low": value - 0.01,
                "high": value + 0.01,
                "n": 100,
                "seed": "0",
                "commit": "0123456789",
                "dirty": False,
                "device": "cpu (test)",
                "created": "2026-11-23T10:00:00+00:00",
                "current": True,
                **more,
            }
        )
    return pd.DataFrame(lines)


class Cells(HTMLParser):
    """Tags with attributes, and the text of each cell."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.stack = [], [], []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.stack.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.stack):
            self.cells[-1] += data


def test_columns_rows_and_gaps():
    recorded = collected(
        {
            ("serendiff", "H@10"): 0.39,
            ("desr", "H@10"): 0.2,
            ("popularity", "H@10"): 0.02,
        }
    )
    recorded.loc[1, "label"] = "DESR-style"
    live = collected({("serendiff", "H@10"): 0.35})
    table = tables.comparison_table(
        load_paper_table(4), recorded, live, data="toy"
    )
    frame = table.frame
    assert list(frame.index) == [
        "DESR (ours: DESR-style)", *NINE[1:], "SerenDiff", "popularity"
    ]  # fmt: skip
    assert list(frame["H@10"].columns) == ["paper", "recorded", "live"]
    ours = frame.loc["SerenDiff", "H@10"]
    assert ours.tolist() == [
        "47.11%", "39.0% [38.0, 40.0]", "35.0% [34.0, 36.0]"
    ]  # fmt: skip
    assert table.marks.loc["SerenDiff", ("H@10", "paper")] == "*"
    assert frame.loc["popularity", ("H@10", "paper")] == "not in the paper"
    assert frame.loc["PURS", ("H@10", "recorded")] == "not recorded"
    assert frame.loc["PURS", ("H@10", "live")] == ""
    assert math.isnan(table.values.loc["PURS", ("H@10", "live")])
    assert table.values.loc["SerenDiff", ("H@10", "live")] == 0.35


def test_best_and_second():
    recorded = collected(
        {
            ("oracle", "H@10"): 0.9,
            ("serendiff", "H@10"): 0.39,
            ("desr", "H@10"): 0.2,
            ("purs", "H@10"): 0.39,
            ("snpr", "H@10"): 0.1,
        }
    )
    table = tables.comparison_table(
        load_paper_table(4),
        recorded,
        data="toy",
        unranked=["oracle"],
        metrics=["H@10", "N@5"],
    )
    places = table.places["H@10", "recorded"].to_dict()
    chosen = {row: place for row, place in places.items() if place}
    assert chosen == {"SerenDiff": 1, "PURS": 1, "DESR": 2}
    paper = table.places["N@5", "paper"]
    assert paper["SerenEnhance"] == 1 and paper["SerenDiff"] == 2
    assert (table.places["H@10", "live"] == 0).all()
    text = table.to_html()
    assert "<strong>39.0% [38.0, 40.0]</strong>" in text
    assert "<u>20.0% [19.0, 21.0]</u>" in text
    assert "<strong>0.329</strong>" in text and "<u>0.324</u>*" in text
    assert "<strong>90" not in text


def test_times_are_best_when_low():
    recorded = collected(
        {("5", "train_seconds"): 2.0, ("10", "train_seconds"): 1.0}
    )
    table = tables.comparison_table(load_paper_table(2), recorded, data="toy")
    assert table.places["train_seconds", "recorded"]["10"] == 1
    assert table.places["train_seconds", "paper"]["5"] == 1
    assert table.places["H@10", "paper"]["1,000"] == 1


def test_a_lone_row_is_not_best():
    table = tables.comparison_table(
        load_paper_table(4),
        collected({("serendiff", "H@1"): 0.1}),
        data="toy",
    )
    assert (table.places["H@1", "recorded"] == 0).all()


def test_rows_of_one_label_stay_apart():
    recorded = collected({("a", "H@1"): 0.1, ("b", "H@1"): 0.2})
    recorded["label"] = "Same"
    table = tables.comparison_table(load_paper_table(4), recorded, data="toy")
    assert list(table.frame.index[-2:]) == ["Same", "Same (b)"]
    assert "Same (b)" in Cells(table.to_html()).cells


def test_other_data_tasks_and_folds_stay_out():
    recorded = pd.concat(
        [
            collected({("desr", "H@1"): 0.1}),
            collected({("desr", "H@1"): 0.2}, data="other"),
            collected({("desr", "H@1"): 0.3}, task="relevance"),
            collected({("desr", "H@1"): 0.4}, fold=0),
        ]
    )
    paper = load_paper_table(4)
    table = tables.comparison_table(paper, recorded, data="toy")
    assert table.values.loc["DESR", ("H@1", "recorded")] == 0.1
    table = tables.comparison_table(
        paper, recorded, data="toy", task="relevance"
    )
    assert table.values.loc["DESR", ("H@1", "recorded")] == 0.3
    assert table.values.loc["DESR", ("H@1", "paper")] == 0.0192


def test_two_values_for_a_cell_are_refused():
    twice = pd.concat([collected({("desr", "H@1"): 0.1})] * 2)
    with pytest.raises(DataError, match="choose one profile"):
        tables.comparison_table(load_paper_table(4), twice, data="toy")


def test_unknown_metric_is_refused():
    with pytest.raises(ConfigError, match="Table 4: unknown column"):
        tables.comparison_table(
            load_paper_table(4), None, data="toy", metrics=["H@7"]
        )


def test_nothing_recorded_at_all():
    table = tables.comparison_table(
        load_paper_table(4), None, None, data="toy"
    )
    ours = table.frame.xs("recorded", axis=1, level=1)
    assert (ours == "not recorded").all(axis=None)
    assert "Recorded: nothing of this table and data." in table.caption


def test_caption_says_where_numbers_come_from():
    recorded = collected({("desr", "H@1"): 0.1}, dirty=True, current=False)
    paper = load_paper_table(4)
    caption = tables.comparison_table(paper, recorded, data="toy").caption
    for part in (
        "Table 4 of the paper",
        "Serendipity-oriented experiments, SerenLens-Books",
        "toy, profile smoke, seed 0, code 0123456789 (with uncommitted",
        "cpu (test), 2026-11-23",
        "the code has changed since",
        "compare the order of rows, not the values",
        "95% bootstrap interval",
    ):
        assert part in caption, part
    same = collected({("desr", "H@1"): 0.1}, data="serenlens-books")
    caption = tables.comparison_table(
        paper, same, data="serenlens-books"
    ).caption
    assert "not the values" not in caption
    assert "the code has changed" not in caption


INJECTION = "<script>alert('x')</script><img src=x onerror=\"y\">&amp;"


def test_html_is_escaped_and_accessible():
    recorded = collected(
        {("evil", "H@1"): 0.1, ("desr", "H@1"): 0.2},
        data="toy",
        device=INJECTION,
    )
    recorded.loc[0, "label"] = INJECTION
    text = tables.comparison_table(
        load_paper_table(4), recorded, data="toy"
    ).to_html()
    page = Cells(text)
    names = {tag for tag, _ in page.tags}
    assert names <= {
        "div", "table", "caption", "thead", "tbody", "tr", "th", "td",
        "strong", "u",
    }  # fmt: skip
    assert INJECTION in page.cells
    scopes = [attrs.get("scope") for tag, attrs in page.tags if tag == "th"]
    assert set(scopes) == {"col", "colgroup", "row", "rowgroup"}
    assert scopes.count("row") == 11 and scopes.count("colgroup") == 5
    assert sum(tag == "caption" for tag, _ in page.tags) == 1
    region = page.tags[0][1]
    assert region["role"] == "region" and region["tabindex"] == "0"
    assert "Serendipity models" in page.cells
    # every row of the body is as wide as the head
    assert text.count("<td>") == 11 * 15


def test_html_of_any_frame():
    frame = pd.DataFrame({"<row>": ["a<b"], "p": [0.12345], "n": [3]})
    text = tables.html_table(frame, caption="A & B", formats={"p": ".2f"})
    page = Cells(text)
    assert page.cells == ["<row>", "p", "n", "a<b", "0.12", "3"]
    assert "<caption>A &amp; B</caption>" in text
    assert '<th scope="row">a&lt;b</th>' in text


# stars


def case_table(shifts, *, folds=5, users=60, seed=0):
    """Cases of several rows: everybody's ranks are base ranks + shift."""
    rng = np.random.default_rng(seed)
    parts = []
    for fold in range(folds):
        base = rng.integers(1, 12, users)
        for row, shift in shifts.items():
            noise = rng.integers(0, 3, users)
            ranks = np.maximum(base + shift + noise, 1)
            values = metrics.case_metrics(torch.from_numpy(ranks))
            parts.append(
                pd.DataFrame(
                    {
                        "row": row,
                        "fold": fold,
                        "user": np.arange(users),
                        "target": 7,
                        "rank": ranks,
                        **{k: v.numpy() for k, v in values.items()},
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def test_stars_follow_the_rule():
    # six rivals far behind, three level: starred; five and four: not
    for far, starred in [(6, True), (5, False)]:
        shifts = {"ours": 0}
        shifts |= {f"r{i}": 12 if i < far else 0 for i in range(9)}
        tests = comparison.significance(
            case_table(shifts),
            "ours",
            [f"r{i}" for i in range(9)],
            metrics=["H@5", "N@10"],
        )
        assert len(tests) == 18
        marks = comparison.star_marks(tests, "ours")
        assert marks == {
            ("ours", "H@5"): "*†" * starred,
            ("ours", "N@10"): "*†" * starred,
        }
        part = tests[tests["metric"] == "H@5"].set_index("rival")
        assert part.loc["r0", "difference"] > 0.2
        assert part.loc["r0", "folds"] == 5 and part.loc["r0", "users"] == 300
        assert (part["p_users_holm"] >= part["p_users"]).all()


def test_one_fold_has_no_fold_test_but_a_user_test(monkeypatch):
    monkeypatch.setattr(comparison.stats, "NEEDED", 1)
    tests = comparison.significance(
        case_table({"ours": 0, "far": 12}, folds=1),
        "ours",
        ["far"],
        metrics=["H@5"],
    )
    line = tests.iloc[0]
    assert math.isnan(line["p_folds"]) and not line["significant_folds"]
    assert line["significant_holm"]
    assert comparison.star_marks(tests, "ours") == {("ours", "H@5"): "†"}


def test_missing_rivals_and_folds_are_left_out():
    cases = case_table({"ours": 0, "far": 12})
    cases = cases[(cases["row"] == "ours") | (cases["fold"] < 2)]
    tests = comparison.significance(
        cases, "ours", ["far", "absent"], metrics=["H@1"]
    )
    assert tests["rival"].tolist() == ["far"]
    assert tests["folds"].tolist() == [2]
    with pytest.raises(DataError, match="no cases"):
        comparison.significance(cases, "absent", ["far"])


def test_no_rival_means_no_star():
    tests = comparison.significance(
        case_table({"ours": 0}), "ours", ["absent"]
    )
    assert tests.empty and comparison.star_marks(tests, "ours") == {}


def test_different_cases_are_refused():
    cases = case_table({"ours": 0, "far": 12})
    cases.loc[cases["row"] == "far", "target"] = 8
    with pytest.raises(DataError, match="same cases"):
        comparison.significance(cases, "ours", ["far"])


def test_marks_reach_the_table():
    recorded = collected({("serendiff", "H@1"): 0.2, ("desr", "H@1"): 0.1})
    table = tables.comparison_table(
        load_paper_table(4),
        recorded,
        data="toy",
        marks={("serendiff", "H@1"): "*†"},
    )
    assert table.marks.loc["SerenDiff", ("H@1", "recorded")] == "*†"
    assert "</strong>*†</td>" in table.to_html()
    assert "Holm" in table.caption


def test_docstring_examples():
    found = doctest.testmod(paper)
    assert found.attempted >= 1 and found.failed == 0
