"""Markup, scripts and commands in the data stay text, wherever they go.

Hostile ids, titles and reviews go the whole way: a CSV file, a model, its
portrait, recommendations, explanation, pictures, tables, frames, playground,
the terminal, and a page that Sphinx builds from a notebook's outputs.
"""

import ast
import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter

from serendifflib import terminal
from serendifflib.data.layouts import read_table
from serendifflib.data.splits import user_folds
from serendifflib.evaluation import tables
from serendifflib.model.serendiff import SerenDiff
from serendifflib.portrait.fold import prepare_fold
from serendifflib.viz.browser_model import file_text, play
from serendifflib.viz.frames import frame_slider

matplotlib.use("agg")
HOSTILE = [
    "<script>hit()</script>",
    "</script><script>hit()</script>",
    '"><img src=x onerror=hit()>',
    "' autofocus onfocus=hit() x='",
    "<a href=javascript:hit()>x</a>",
    "<svg/onload=hit()>",
    "</td></table><iframe srcdoc='<script>hit()</script>'>",
    "<!-- hit() --><style>*{display:none}</style>",
    "`hit()`{=html} {eval-rst}`.. raw:: html` ${hit()}$ {{ hit() }}",
    '[x](javascript:hit()) ![x](x" onerror=hit() ")',
    "$\\input{/etc/passwd}$ \\href{javascript:hit()}{x} $_{^",
    "\x1b]0;hit()\x07\x1b[2J\u202ehit()\u2028",
    "__import__('os').system('hit')",
    "=cmd|'/c hit()'!A1",
    "../../hit() %s %n {0.__class__}",
    "&lt;script&gt;hit()&lt;/script&gt; &#60;script>hit()</script>",
]


@pytest.fixture(scope="module")
def fold(tmp_path_factory, word_encoder):
    """Of a file whose every user, item and review is hostile."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("hostile") / "<b onclick=hit()>.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["user_id", "item_id", "timestamp", "review", "rating", "label"]
        )
        for user in range(24):
            for when, item in enumerate(rng.permutation(40)[:8]):
                bad = HOSTILE[item % len(HOSTILE)]
                writer.writerow(
                    [
                        f"{user} {HOSTILE[user % len(HOSTILE)]}",
                        f"{item} {bad}",
                        when,
                        f"word{item % 5} word{item % 3} {bad}",
                        4,
                        int(when == 7),
                    ]
                )
    data = read_table(path)
    titles = {item: f"title {item}" for item in data.items}
    data = replace(data, titles=titles)
    split = user_folds(data, 3, seed=0)[0]
    return prepare_fold(data, split, encoder=word_encoder)


def fitted(fold, preset, **settings):
    model = SerenDiff(preset, device="cpu", progress=False, **settings)
    return model.fit(fold, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(fold, tiny_settings):
    return fitted(fold, "tuned", **tiny_settings)


@pytest.fixture(scope="module")
def playground(fold, tiny_settings):
    model = fitted(fold, "tokens", **tiny_settings)
    shelves = {
        name: model.catalogue.items[n :: len(HOSTILE)]
        for n, name in enumerate(HOSTILE)
    }
    return play(model, shelves, {HOSTILE[1]: model.catalogue.items[:3]})


def plain(html):
    """Parse as a browser would; every hostile string must be text."""
    page = BeautifulSoup(html, "html.parser")
    for tag in page.find_all(True):
        assert tag.name not in ("iframe", "object", "embed", "base")
        if tag.name == "svg":  # ours is empty until the script draws in it
            assert tag["class"] == ["sdp-plane"] and not tag.contents
        for name, value in tag.attrs.items():
            assert not name.startswith("on"), (name, value)
            if name in ("href", "src", "action"):
                assert "hit" not in str(value), (tag.name, value)
        if tag.name in ("script", "style"):
            if tag.get("type") != "application/json":
                assert "hit(" not in tag.text
    return page


def test_the_check_finds_what_it_is_for():
    for bad in ("<p onclick=x>", "<a href='javascript:hit()'>", "<svg>"):
        with pytest.raises((AssertionError, KeyError)):
            plain(bad)
    with pytest.raises(AssertionError):
        plain(HOSTILE[0])
    plain("<script type='application/json'>hit()</script> hit()")


def users(model):
    return model.catalogue.users[:: len(model.catalogue.users) // 8]


def test_tables_for_readers(model):
    for user in users(model):
        portrait = model.portrait(user)
        table = model.recommend(user, k=5)
        for frame in (portrait.table(), table):
            plain(frame.to_html())
            shown = plain(tables.html_table(frame, caption=user))
            assert (
                shown.find("caption").text.strip()
                == user.replace("\r", "\n").strip()
            )
        assert set(table["item"]) <= set(model.catalogue.items)


def test_words_are_the_data_s_own(model):
    for user in users(model):
        item = model.recommend(user, k=1)["item"].iloc[0]
        told = model.explain(user, item)
        assert model.catalogue.title(model.catalogue.item_number(item)) in (
            told.text
        )


@pytest.mark.filterwarnings("ignore:Glyph")
def test_pictures(model):
    """No title is read as a formula, and none leaves its text element."""
    for user in users(model)[::2]:
        item = model.recommend(user, k=1)["item"].iloc[0]
        figure = model.explain(user, item).plot().figure
        figure.savefig(io.BytesIO(), format="png")
        stream = io.BytesIO()
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            figure.savefig(stream, format="svg")
        plt.close(figure)
        for part in ElementTree.fromstring(stream.getvalue()).iter():
            name = part.tag.rpartition("}")[2]
            assert name not in ("script", "img", "iframe", "a", "object")
            assert not any(key.startswith("on") for key in part.attrib)


def test_playground(playground):
    page = plain(playground.html())
    data = page.find("script", type="application/json")
    assert "hit()" in data.text  # it is there, as data
    assert len(page.find_all("script")) == 3
    source = file_text("browser_model.js") + file_text("playground.js")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval("):
        assert way not in source
    assert "document.write" not in source and "new Function" not in source


def test_frames():
    figure = plt.figure()
    frames = frame_slider([figure] * 16, HOSTILE, HOSTILE[2], HOSTILE[0])
    plt.close(figure)
    widget = frames.widget()
    pages = widget.children[1].children
    assert len(pages) == len(HOSTILE)
    for page, label in zip(pages, HOSTILE, strict=True):
        shown = plain(page.value)
        assert shown.find("p").text.split() == label.split()
        assert len(shown.find_all("img")) == 1


def test_the_terminal_gets_no_commands(model, capsys):
    user = next(u for u in model.catalogue.users if "\x1b" in u)
    table = model.recommend(user, k=40)
    assert table["title"].str.contains("\x1b").any()
    terminal.print_table(table)
    item = next(i for i in model.catalogue.items if "\x1b" in i)
    print(terminal.harmless(model.explain(user, item).text))
    shown = capsys.readouterr().out
    assert "hit()" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)


def test_a_built_page(model, playground, tmp_path):
    """Outputs as a notebook shows them, through MyST-NB and Sphinx."""
    sphinx = pytest.importorskip("sphinx.application")
    pytest.importorskip("myst_nb")
    user = users(model)[1]
    item = model.recommend(user, k=1)["item"].iloc[0]
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(nbformat.v4.new_markdown_cell("# Outputs"))
    show = DisplayFormatter().format
    for thing in (
        model.recommend(user, k=40),
        model.portrait(user).table(),
        pd.Series(HOSTILE),
        model.explain(user, item).text,
        HOSTILE,
    ):
        bundle, _ = show(thing)
        cell = nbformat.v4.new_code_cell("thing")
        cell.outputs.append(
            nbformat.v4.new_output("execute_result", bundle, execution_count=1)
        )
        cell.outputs.append(
            nbformat.v4.new_output("stream", name="stdout", text=str(thing))
        )
        notebook.cells.append(cell)
    cell = nbformat.v4.new_code_cell("playground")
    html = playground.html()
    cell.outputs.append(
        nbformat.v4.new_output("display_data", {"text/html": html})
    )
    notebook.cells.append(cell)
    source = tmp_path / "source"
    source.mkdir()
    nbformat.write(notebook, source / "index.ipynb")
    (source / "conf.py").write_text(
        "extensions = ['myst_nb']\nnb_execution_mode = 'off'\n"
        "html_theme = 'basic'\n"
    )
    application = sphinx.Sphinx(
        source,
        source,
        tmp_path / "html",
        tmp_path / "trees",
        "html",
        status=None,
        warning=None,
        freshenv=True,
    )
    application.build()
    text = (tmp_path / "html" / "index.html").read_text("utf-8")
    assert text.count("hit()") > 20
    page = plain(text)
    assert len(page.find_all("iframe")) == 0


# ----------------------------------------------------- the book's notebooks

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MARKUP = {"HTML", "Markdown", "Latex", "Javascript", "SVG"}
FROM_DATA = re.compile(
    r"title|review|\buser_id|item_id|recommend\(|explain\(|catalogue"
)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_makes_markup_of_data(path):
    """Markdown from code may hold numbers and names of rows, not titles."""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code":
            continue
        code = re.sub(r"(?m)^(\s*)[!%].*$", r"\1pass", cell.source)
        for node in ast.walk(ast.parse(code)):
            called = getattr(node, "func", None)
            name = getattr(called, "id", getattr(called, "attr", ""))
            if isinstance(node, ast.Call) and name in MARKUP:
                words = " ".join(ast.unparse(part) for part in node.args)
                assert not FROM_DATA.search(words), (path.name, words)
