"""The numbers of the first page."""

import numpy as np
import pandas as pd

from serendifflib.experiments import findings

COLUMNS = ["row", "fold", "metric", "task", "value", "low", "high", "n"]


def test_the_best_rival_and_each_row_are_found(monkeypatch):
    def collected(table, *, data):
        assert data == "anything"
        lines = {
            "controls": [("random", 0.01), ("oracle", 0.6)],
            "table4": [("SASRec", 0.1), ("PURS", 0.3), ("points", 0.4)],
            "calls": [],
            "curve": [],
            "generating": [("oracle", 0.5), ("points-start", 0.35)],
        }[table]
        rows = [
            (row, fold, metric, task, value + extra, 0.0, 1.0, 10)
            for row, value in lines
            for fold, metric, task, extra in (
                ("mean", "H@10", "serendipity", 0.0),
                (0, "H@10", "serendipity", 0.9),  # a fold is not the mean
                ("mean", "H@5", "serendipity", 0.9),
                ("mean", "H@10", "relevance", 0.9),
            )
        ]
        frame = pd.DataFrame(rows, columns=COLUMNS).assign(label="its own")
        return frame.assign(data=data, profile="smoke")

    monkeypatch.setattr(findings, "collect", collected)
    found = findings.forest("anything").set_index("label")["value"]
    assert found.to_dict() == {
        "Guessing": 0.01,
        "Best of nine rivals": 0.3,
        "Regression of points": 0.35,  # no other table has it
        "SerenDiff on points": 0.4,
        "The law itself": 0.6,
    }
    assert list(found.index) == [x for x in findings.LINES if x in found.index]


def test_the_first_page_has_its_records():
    found = set(findings.forest("synthetic")["label"])
    assert {"Guessing", "SerenDiff as printed", "Best of nine rivals"} <= found
    assert {"Regression of points", "SerenDiff, tuned"} <= found
    assert len(findings.forest("synthetic-unheard-of")) == 0


def test_hits_of_rows_are_paired_and_judged(monkeypatch):
    cases = pd.DataFrame(
        {
            "row": ["ours"] * 40 + ["theirs"] * 40 + ["short"],
            "profile": "smoke",
            "fold": 0,
            "user": [*range(40), *reversed(range(40)), 0],
            "target": 1,
            "H@10": [1.0] * 20 + [0.0] * 20 + [0.0] * 40 + [1.0],
        }
    )
    monkeypatch.setattr(findings, "case_frame", lambda *a, **k: cases)
    hits = findings.recorded_hits(["ours", "theirs"], "a table", "a world")
    assert hits["ours"].mean() == 0.5 and hits["theirs"].sum() == 0
    assert findings.verdict(hits, "ours", "theirs").endswith(": better")
    assert findings.verdict(hits, "theirs", "ours").endswith(": worse")
    assert findings.verdict(hits, "ours", "theirs").startswith("+50.0 points")
    same = {"ours": np.ones(3), "theirs": np.ones(3)}
    assert "no clear" in findings.verdict(same, "ours", "theirs")
    for missing in ("nobody", "short"):
        rows = ["ours", missing]
        assert findings.recorded_hits(rows, "a table", "a world") == {}
    assert findings.verdict({}, "ours", "nobody") == findings.NOT_YET
