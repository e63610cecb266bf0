"""What every notebook of the book owes its readers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import reading_time
import teaching_lines
import yaml
from build_book import toc_pages
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Calls at the top level of a cell that leave a picture on the page.
DRAWS = re.compile(
    r"^(plt\.(?!close|rc|style)|plots\.|sns\.)"
    r"|\.(plot|imshow)$"
    r"|(^|\.)plot_\w+$"
)
UNSEEN = {"remove-cell", "remove-output"}


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parsed(cell):
    source = TransformerManager().transform_cell(cell.source)
    return ast.parse(source)


def headings(path):
    return [
        line.lstrip("# ").strip()
        for cell in read(path).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("##")
    ]


def draws(cell):
    if UNSEEN & set(cell.metadata.get("tags", [])):
        return False
    statements = [
        node
        for node in parsed(cell).body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    calls = [
        ast.unparse(call.func)
        for node in statements
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
    ]
    return any(DRAWS.search(call) for call in calls)


each_notebook = pytest.mark.parametrize(
    "path", PATHS, ids=[path.stem for path in PATHS]
)


def test_there_are_notebooks():
    assert PATHS


def test_the_contents_list_every_notebook_and_no_other():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [p for p in toc_pages(toc) if p.startswith("notebooks/")]
    assert sorted(listed) == [f"notebooks/{path.stem}" for path in PATHS]


def test_notebooks_are_listed_in_the_order_of_their_numbers():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [p for p in toc_pages(toc) if p.startswith("notebooks/")]
    assert listed == sorted(listed)


@each_notebook
def test_name_and_format(path):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_is_stripped(path):
    for number, cell in enumerate(code_cells(path)):
        assert not cell.outputs, f"code cell {number} holds outputs"
        assert cell.execution_count is None


@each_notebook
def test_opens_with_title_question_time_and_profile(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    for word in ("question", "time", "profile"):
        assert re.search(rf"\b{word}\b", first.source, re.IGNORECASE), word


@each_notebook
def test_asserts_what_it_teaches(path):
    assert any(
        isinstance(node, ast.Assert)
        for cell in code_cells(path)
        for node in ast.walk(parsed(cell))
    )


@each_notebook
def test_closes_with_summary_and_exercises(path):
    titles = headings(path)
    assert any(title.startswith("Summary") for title in titles)
    assert any(title.startswith("Exercises") for title in titles)


@each_notebook
def test_each_exercise_has_a_question_and_its_solution(path):
    """In order, and below the summary; the page folds the solutions."""
    text = "\n\n".join(
        "a code cell" if cell.cell_type == "code" else cell.source
        for cell in read(path).cells
    )
    _, _, exercises = text.partition("\n## Exercises\n")
    titles = re.findall(r"^#{3,4} (.*)$", exercises, re.M)
    numbers = [t for t in titles if t != "Solution"]
    assert numbers, "no exercise"
    expected = []
    for number, title in enumerate(numbers, 1):
        assert re.fullmatch(rf"Exercise {number} ●{{1,3}}", title), title
        expected += [title, "Solution"]
    assert titles == expected
    for part in re.split(r"^#{3,4} .*$", exercises, flags=re.M)[1:]:
        assert part.strip(), "a question or a solution without words"


@each_notebook
def test_the_stated_reading_time_is_that_of_the_text(path):
    notebook = read(path)
    stated = reading_time.stated(notebook)
    if stated is not None:  # "as long as you like"
        taken = reading_time.minutes(notebook)
        assert abs(stated - taken) <= 10, "run: python tools/reading_time.py"


def test_reading_time_counts_words_code_and_pictures():
    def notebook(*cells):
        return nbformat.v4.new_notebook(cells=list(cells))

    words = nbformat.v4.new_markdown_cell("word " * 1500 + "$$ x y z $$")
    code = nbformat.v4.new_code_cell("x = 1\n\n" * 150)
    picture = nbformat.v4.new_code_cell(
        "", metadata={"mystnb": {"figure": {"name": "fig-x"}}}
    )
    launch = nbformat.v4.new_code_cell(
        "x\n" * 999, metadata={"tags": ["launch"]}
    )
    assert reading_time.minutes(notebook(words)) == 10
    assert reading_time.minutes(notebook(code)) == 10
    assert reading_time.minutes(notebook(*[picture] * 20)) == 10
    assert reading_time.minutes(notebook(launch)) == 5
    assert reading_time.minutes(notebook(words, code, *[picture] * 20)) == 30
    words.source = "- **Time.** 7 minutes to read, 2 to run."
    assert reading_time.stated(notebook(words)) == 7
    words.source = "- **Time.** As long as you like."
    assert reading_time.stated(notebook(words)) is None


def test_most_lines_that_a_reader_sees_teach():
    """The rule stands in tools/teaching_lines.py."""
    found = teaching_lines.chapters()
    assert len(found) == len(PATHS)
    assert teaching_lines.total(found).share >= 0.7
    worst = min(found, key=lambda name: found[name].share)
    assert found[worst].share >= 0.5, worst


def test_lines_that_teach_are_counted_by_the_rule():
    def cell(source, *tags, figure=False):
        shown = {"figure": {"name": "fig-x"}} if figure else {}
        metadata = {"tags": list(tags), "mystnb": shown}
        return nbformat.v4.new_code_cell(source, metadata=metadata)

    def lines(*cells):
        return tuple(
            teaching_lines.count(nbformat.v4.new_notebook(cells=list(cells)))
        )

    solution = nbformat.v4.new_markdown_cell("#### Solution\n\nWords.")
    assert lines(cell("x = 1\n\nassert x\nprint(x)")) == (3, 2)
    assert lines(cell("import os\nfor x in y:\n    print(x)")) == (3, 0)
    assert lines(cell("x = f()\nHTML(x)")) == (2, 0)
    assert lines(cell("x = f()\nax.plot(x);", figure=True)) == (2, 1)
    assert lines(cell("x = 1\nax.plot(x)", "hide-input")) == (1, 0)
    assert lines(cell("x = 1", "remove-input")) == (0, 0)
    assert lines(cell("x = 1"), solution, cell("y = 2")) == (1, 1)
    assert teaching_lines.Lines(4, 3).share == 0.75


@each_notebook
def test_what_is_folded_says_what_it_is(path):
    for cell in code_cells(path):
        if "hide-input" in cell.metadata.get("tags", []):
            label = cell.metadata["mystnb"]["code_prompt_show"]
            assert label.startswith("Show "), cell.source[:60]


@each_notebook
def test_says_what_to_read_next(path):
    prose = [c.source for c in read(path).cells if c.cell_type == "markdown"]
    after = "\n".join(prose).partition("**Read next.** ")[2]
    assert re.search(r"\{(nb|doc)\}`", after.split("\n\n")[0])


NOT_ON_THE_PAGE = {"remove-cell", "remove-input"}
TOY = ROOT / "notebooks/00_serendiff_in_100_lines.ipynb"
PASTED = """
import sys
for name in ("serendifflib", "myst_nb", "pandas", "sklearn", "seaborn"):
    sys.modules[name] = None  # importing it fails
exec(compile(sys.stdin.read(), "pasted", "exec"), {"__name__": "pasted"})
"""


def shown_code(path, *, folded):
    """Sources of the code cells that a page shows."""
    unseen = NOT_ON_THE_PAGE if folded else NOT_ON_THE_PAGE | {"hide-input"}
    return [
        cell.source
        for cell in code_cells(path)
        if not unseen & set(cell.metadata.get("tags", []))
    ]


def test_the_first_chapter_can_be_pasted_into_an_empty_notebook(tmp_path):
    """Its cells, in a new process that has torch and matplotlib alone."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", PASTED],
        input="\n".join(shown_code(TOY, folded=True)),
        cwd=tmp_path,
        env={"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "neighbours" in done.stdout


def test_the_first_chapter_imports_nothing_else():
    for source in shown_code(TOY, folded=True):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or node.names[0].name]
                assert {n.split(".")[0] for n in names} <= {
                    "math",
                    "matplotlib",
                    "torch",
                }


def test_the_model_of_the_first_chapter_has_at_most_100_lines():
    cells = []
    for cell in read(TOY).cells:
        if "## The regression" in cell.source:
            break
        tags = set(cell.metadata.get("tags", []))
        if cell.cell_type == "code" and not tags:
            cells.append(cell.source)
    lines = [line for c in cells for line in c.splitlines() if line.strip()]
    assert 50 < len(lines) <= 100


@each_notebook
def test_cells_fit_a_page(path):
    for number, cell in enumerate(code_cells(path)):
        lines = cell.source.splitlines()
        assert len(lines) <= 20, f"code cell {number}: {len(lines)} lines"
        widest = max((len(line) for line in lines), default=0)
        assert widest <= 79, f"code cell {number}: {widest} columns"


@each_notebook
def test_pictures_have_alternative_caption_and_name(path):
    for number, cell in enumerate(code_cells(path)):
        if draws(cell):
            shown = cell.metadata.get("mystnb", {})
            alt = shown.get("image", {}).get("alt", "")
            figure = shown.get("figure", {})
            where = f"code cell {number}: {cell.source[:60]!r}"
            assert len(alt) >= 20, f"{where} has no text alternative"
            assert figure.get("caption"), f"{where} has no caption"
            assert figure.get("name", "").startswith("fig-"), where


def test_figure_names_are_unique():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in PATHS
        for cell in code_cells(path)
        if "name" in cell.metadata.get("mystnb", {}).get("figure", {})
    ]
    assert len(names) == len(set(names)), sorted(names)


@each_notebook
def test_no_star_import_and_no_pickle(path):
    for cell in code_cells(path):
        for node in ast.walk(parsed(cell)):
            if isinstance(node, ast.ImportFrom):
                assert "*" not in [name.name for name in node.names]
        assert "pickle" not in cell.source


@pytest.mark.parametrize(
    ("source", "tags", "expected"),
    [
        ("fig, ax = plt.subplots()", [], True),
        ("plots.portrait(history)", [], True),
        ("model.portrait(user).plot()", [], True),
        ("ax.imshow(grid)", [], True),
        ("plot_folds(folds);", [], True),
        ("data_plots.plot_law(x, y);", [], True),
        ("plots.portrait(history)", ["remove-cell"], False),
        ("def draw(ax):\n    ax.plot(x)", [], False),
        ("import matplotlib.pyplot as plt", [], False),
        ("plt.rcParams.update(style)", [], False),
        ("assert model.score(a, b).shape == (2, 3)", [], False),
    ],
)
def test_the_test_knows_a_picture(source, tags, expected):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": tags})
    assert draws(cell) is expected
