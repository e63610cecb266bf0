"""Tables of the page: numbers in words, columns that sort."""

import pandas as pd
from bs4 import BeautifulSoup

from serendifflib.viz.html_tables import dot_table, sortable_table

FRAME = pd.DataFrame(
    {
        "label": ["Ann & Co", "Bob"],
        "kind": ["rival", "control"],
        "value": [0.3, 0.1],
        "low": [0.2, 0.05],
        "high": [0.4, 0.12],
    }
)


def test_dots_lie_where_their_numbers_say():
    page = BeautifulSoup(
        dot_table(FRAME, caption="Shares.", reference=0.01), "html.parser"
    )
    first = page.select("tbody tr")[0]
    assert first.th.text == "Ann & Co"
    assert [td.text for td in first.select("td")] == ["rival", "30.0%", ""]
    words = "30.0%, 95% interval 20.0% to 40.0%"
    line = first.select_one("[role=img]")
    assert line["aria-label"] == line["title"] == words
    styles = {s["class"][0]: s["style"] for s in line.select("span")}
    # the axis ends at 40%: half, three quarters, a fortieth of its length
    assert styles == {
        "dots-mark": "left:2.50%",
        "dots-range": "left:50.00%;width:50.00%",
        "dots-dot": "left:75.00%",
    }
    assert page.select("thead th")[-1].text == "0% to 40%"


def test_an_axis_ends_at_the_next_multiple_of_five():
    page = dot_table(FRAME.assign(high=[0.41, 0.2]), caption="Shares.")
    assert "0% to 45%" in page and "dots-mark" not in page


def test_a_column_sorts_by_its_numbers_or_by_its_text():
    texts = pd.DataFrame({"row": ["<b>", "c"], "H@10": ["9% [8]", "30%"]})
    values = pd.DataFrame({"H@10": [0.09, 0.3]})
    page = BeautifulSoup(
        sortable_table(texts, values, caption="All."),
        "html.parser",
    )
    heads = page.select("thead th")
    assert [th["data-sort"] for th in heads] == ["text", "number"]
    cells = page.select("tbody td")
    assert [float(td["data-value"]) for td in cells] == [0.09, 0.3]
    assert page.select("tbody th")[0].text == "<b>"  # escaped
    assert "sort" in page.table["class"]
