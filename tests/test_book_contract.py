"""The book's parts fit together, and the built pages keep their promises."""

import json
import pkgutil
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build_book
import launch_cell
import nbformat
import pytest
import refresh_vendor
import serendiff_book
import serendiff_pages
import yaml
from bs4 import BeautifulSoup
from IPython.core.interactiveshell import InteractiveShell
from jupyter_book.config import yaml_to_sphinx

from serendifflib.io import sha256_file

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
HTML = ROOT / "_build/html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
SOURCES = sorted(
    path
    for path in BOOK.rglob("*.md")
    if not any(part.startswith("_") for part in path.relative_to(BOOK).parts)
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT = 3_000_000  # bytes of a page with the pictures that only it shows


# ------------------------------------------------------------ source pages


def test_the_contents_list_every_page_and_no_other():
    pages = build_book.toc_pages(TOC)
    assert len(pages) == len(set(pages))
    written = {str(p.relative_to(ROOT).with_suffix("")) for p in SOURCES}
    assert {p for p in pages if p.startswith("book/")} == written
    assert pages[0] == "book/index"


def test_the_reference_has_each_public_module_once():
    documented = Counter(
        module
        for path in (BOOK / "api").glob("*.md")
        for names in serendiff_book.MODULES.findall(path.read_text())
        for module in serendiff_book.modules_of(names, BOOK / "api")
    )
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "serendifflib").rglob("*.py")
        if not path.stem.startswith("_")
    }
    assert modules <= set(documented)
    assert set(documented.values()) == {1}


def test_tests_named_by_the_map_exist():
    named = re.findall(
        r"`(tests/[\w/]+\.py)`", (BOOK / "paper-map.md").read_text()
    )
    assert len(named) >= 13  # one for each equation
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_map_has_every_equation_table_and_figure():
    text = (BOOK / "paper-map.md").read_text()

    def first_column(title):
        block = text.split(f"## {title}\n")[1].split("\n## ")[0]
        rows = re.findall(r"^\| ([\d, ]+) \|", block, re.MULTILINE)
        return sorted(int(n) for row in rows for n in row.split(","))

    assert first_column("Equations") == list(range(1, 15))
    assert first_column("Tables") == list(range(1, 7))
    assert first_column("Figures") == list(range(1, 6))


def test_deviations_are_numbered_and_have_anchors():
    text = (BOOK / "deviations.md").read_text()
    found = re.findall(r"^\((dev-[\w-]+)\)=\n### (\w+) · ", text, re.M)
    anchors = [anchor for anchor, _ in found]
    numbers = [number for _, number in found]
    assert len(found) == text.count("\n### ")
    assert max(Counter(anchors).values()) == 1
    plain = [int(n) for n in numbers if n.isdigit()]
    assert plain == list(range(1, len(plain) + 1))
    assert len(plain) >= 17 and "4b" in numbers


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_no_result_is_typed_by_hand(path):
    # how a page's own code prints a share is no result
    text = re.sub(r":\.\d%\}", "}", path.read_text())
    assert not re.search(r"\d\s?%", text.replace("95% intervals", ""))
    assert not re.search(r"(HR|NDCG|H|N)@\d+\s*(=|of|is)\s*\.?\d", text)


# A decimal in the prose of a chapter is one of the paper's or stands here:
# the range of betas, and numbers of examples that are worked by hand.
CONSTANTS = {"0.0001", "0.02", "0.01", "0.03", "0.04"}
NO_PROSE = re.compile(  # formulas, code, fenced blocks
    r"\$\$.*?\$\$|\$[^$]*\$|^```(?!\{).*?^```|`[^`\n]*`", re.DOTALL | re.M
)
RESULT = re.compile(
    r"\d+\.\d+(?=\s?%)|(?<![\d.])\d*\.\d{2,}(?![\d.])"
    r"|@\d+(?: of| is|:)? (\d*\.\d+)"
)


@pytest.fixture(scope="module")
def numbers_of_the_paper():
    """Numbers of the paper's tables, as they and as percentages."""
    found = set()

    def walk(value):
        if isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                walk(one)
        elif isinstance(value, float):
            found.update({value, round(100 * value, 6)})

    for path in (ROOT / "results/paper").glob("*.json"):
        walk(json.loads(path.read_text()))
    return found


def is_rounded(written, exact):
    """Whether ``written`` is ``exact`` with fewer decimals."""
    decimals = len(written.split(".")[1])
    return abs(float(written) - exact) <= 0.5 * 10**-decimals + 1e-9


def typed_decimals(text):
    prose = NO_PROSE.sub(" ", text)
    return [m[1] or m[0] for m in RESULT.finditer(prose)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_result_is_typed_into_a_chapter(path, numbers_of_the_paper):
    """Results of ours reach the text by glue, those of the paper may not."""
    typed = [
        number
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for number in typed_decimals(cell.source)
        if number not in CONSTANTS
        and not any(
            is_rounded(number, exact) for exact in numbers_of_the_paper
        )
    ]
    assert typed == [], "use glue, or add a constant to CONSTANTS"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The painter finds 31.5% of them.", ["31.5"]),
        ("It reaches H@10 of .4, no more.", [".4"]),
        ("A correlation of 0.27 is weak.", ["0.27"]),
        ("Chance is 1% and T is 1,000.", []),
        ("$p = 0.05$, `x = 0.123` and {glue:text}`a:.2f`", []),
        ("```python\nx = 0.123\n```", []),
    ],
)
def test_the_test_knows_a_typed_result(text, found):
    assert typed_decimals(text) == found


def prose_of(path):
    """Markdown of a page or of a notebook, without fenced code."""
    if path.suffix == ".md":
        text = path.read_text("utf-8")
    else:
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(c.source for c in cells if c.cell_type != "code")
    return re.sub(r"^```(?!\{).*?^```", "", text, flags=re.S | re.M)


INLINE_MATH = re.compile(r"(?<![\\$])\$(?!\$)((?:[^$`]|\n(?!\n))+?)\$(?!\$)")
LIST_ITEM = re.compile(r"\n\s*(?:[-+*]|\d+[.)])\s")


def broken_formulas(text):
    """Formulas of which a line begins like an item of a list."""
    return [m[0] for m in INLINE_MATH.finditer(text) if LIST_ITEM.search(m[1])]


def test_the_test_knows_a_broken_formula():
    assert broken_formulas("so $a\n+ b$ holds") == ["$a\n+ b$"]
    assert broken_formulas("so $a +\nb$ holds\n- an item\n- $x$") == []


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda p: p.stem)
def test_no_formula_becomes_a_list(path):
    assert broken_formulas(prose_of(path)) == []


# A page that is said to measure or to test something must show where.
PROMISE = re.compile(
    r"\{(?:nb|doc)\}`[\w/]+`\s+(?:measures|tests|has\s+a\s+row|runs)\b"
)


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda p: p.stem)
def test_what_another_page_measures_has_an_anchor(path):
    """The build checks that an anchor exists; a page's name promises less."""
    found = [m[0] for m in PROMISE.finditer(prose_of(path))]
    assert found == [], "use {ref} and an anchor at the place that shows it"


def test_the_test_knows_a_promise_without_a_place():
    assert PROMISE.search("{nb}`17_x`\nmeasures the cost")
    assert not PROMISE.search("{ref}`Readings <readings>` measure the cost")


# What prose names: a role, a name in backticks, or a path, of the library.
NAME = re.compile(r"`~?((?:serendifflib|benchmarks)(?:\.\w+)+)(?:\(\))?`")
PLACE = re.compile(
    r"`((?:serendifflib|benchmarks|tools|tests|results|book|notebooks)"
    r"/[\w/.-]*)`"
)


def unknown_names(text):
    """Names of our code and places in our tree that do not exist."""
    missing = [p for p in PLACE.findall(text) if not (ROOT / p).exists()]
    for name in NAME.findall(text):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    return missing


def test_the_test_knows_a_name_that_is_gone():
    text = "{py:func}`~serendifflib.io.sha256_file`, `serendifflib.gone.x` "
    text += "`serendifflib/io.py`, `serendifflib/gone.py`, `numpy.gone`"
    assert unknown_names(text) == [
        "serendifflib/gone.py",
        "serendifflib.gone.x",
    ]


NAMING = [
    *SOURCES,
    *NOTEBOOKS,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
]


@pytest.mark.parametrize("path", NAMING, ids=lambda p: p.stem)
def test_names_in_prose_exist(path):
    assert unknown_names(prose_of(path)) == []


CAPTION_NUMBER = re.compile(r"(?<![\w.@])\d[\d,]*(?![\w%.]|\.\d)")
NAMED = re.compile(r"(?:Figure|Table|Eq\.|Section|Sec\.) \d+|95%")
WIDTHS = {"384", "512"}  # of a sentence vector, of the audit


def numbers_without_code(caption, code):
    """Numbers of a caption that no code cell contains."""
    numbers = CAPTION_NUMBER.findall(NAMED.sub("", caption))
    return [
        number
        for number in (n.replace(",", "") for n in numbers)
        if number not in WIDTHS
        and not re.search(rf"(?<!\d){number}(?!\d)", code)
    ]


def test_the_test_knows_a_number_that_the_code_lacks():
    code = "tried = (1, 2, 50)"
    assert numbers_without_code("Up to 100 calls.", code) == ["100"]
    assert numbers_without_code("Figure 4: up to 50 calls.", code) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_captions_do_not_contradict_the_code(path):
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    code = code.replace("_", "")
    for cell in cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        caption = figure.get("caption", "")
        assert numbers_without_code(caption, code) == [], caption


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_chapter_can_be_opened_on_colab(path):
    notebook = nbformat.read(path, as_version=4)
    assert launch_cell.has_cell(notebook), "run: python tools/launch_cell.py"
    cells = [c for c in notebook.cells if c.source == launch_cell.SOURCE]
    assert len(cells) == 1


def test_the_cell_that_installs_does_nothing_elsewhere(monkeypatch):
    address = "https://example.org/someone/a-book"
    shell = InteractiveShell()
    called = []
    monkeypatch.setattr(shell, "system", called.append)
    monkeypatch.setattr(
        shell, "run_line_magic", lambda *a, **k: called.append(a)
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert shell.run_cell(launch_cell.source(address)).success
    assert shell.run_cell(launch_cell.source("")).success
    assert called == []
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert shell.run_cell(launch_cell.source(address)).success
    clone, install = called
    assert address in clone
    assert install[0] == "pip" and "[book]" in install[1]
    assert "-c a-book/constraints.txt" in install[1]
    assert sys.path[0] == "/content/a-book"


def test_buttons_lead_to_the_repository_if_its_address_is_known():
    class Settings:
        html_theme_options = {
            "repository_url": "",
            "launch_buttons": {"colab_url": "https://example.org"},
        }

    serendiff_pages.choose_buttons(None, Settings)
    options = Settings.html_theme_options
    assert not options["use_repository_button"]
    assert not options["use_edit_page_button"]
    assert options["launch_buttons"] == {}
    options.update(repository_url="https://example.org/x", launch_buttons="y")
    serendiff_pages.choose_buttons(None, Settings)
    assert options["launch_buttons"] == "y"
    assert options["use_repository_button"] and options["use_issues_button"]


@pytest.mark.parametrize("address", ["", "https://example.org/someone/book"])
def test_the_builder_takes_the_configuration(address):
    settings = CONFIG | {"repository": CONFIG["repository"] | {"url": address}}
    made, _, _ = yaml_to_sphinx(settings)
    options = made["html_theme_options"]
    assert options.get("repository_url", "") == address


def test_putting_the_cell_twice_changes_nothing():
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell("x = 1"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    once = launch_cell.with_cell(notebook)
    sources = [cell.source for cell in once.cells]
    assert sources == ["# Title", launch_cell.SOURCE, "x = 1"]
    twice = launch_cell.with_cell(once)
    assert [cell.source for cell in twice.cells] == sources


def test_spelling():
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "linked"),
    [
        ("Expectedness (Eq. 7).", "Expectedness (:ref:`Eq. 7 <eq-paper-7>`)."),
        (
            "Eq. 7, 13 and 14, [n]",
            ":ref:`Eq. 7 <eq-paper-7>`, :ref:`13 <eq-paper-13>` and "
            ":ref:`14 <eq-paper-14>`, [n]",
        ),
        ("``Eq. 7`` as code", "``Eq. 7`` as code"),
        (">>> f()  # Eq. 7", ">>> f()  # Eq. 7"),
        ("Eq. 15 and Eq. 8.2 are of others", None),
        ("Eq. 8, 30 users", ":ref:`Eq. 8 <eq-paper-8>`, 30 users"),
    ],
)
def test_equations_of_docstrings_become_links(line, linked):
    lines = [line]
    serendiff_book.link_equations(None, "function", "f", None, None, lines)
    assert lines == [linked or line]


# ---------------------------------------------------------- configuration


def test_hidden_folders_and_code_are_excluded():
    for pattern in (".*", ".*/**", "README.md", "tests/**", "tools/**"):
        assert pattern in CONFIG["exclude_patterns"]
    assert CONFIG["only_build_toc_files"] is True


def test_a_bare_build_executes_and_stops_at_errors():
    assert CONFIG["execute"]["execute_notebooks"] == "force"
    assert CONFIG["execute"]["allow_errors"] is False
    assert CONFIG["execute"]["timeout"] == 600


def test_scripts_are_the_ones_in_the_repository():
    assert CONFIG["launch_buttons"]["thebe"] is False
    settings = CONFIG["sphinx"]["config"]
    local = [settings["mathjax_path"], *settings["nb_ipywidgets_js"]]
    for path in local:
        assert (BOOK / "_static" / path).is_file(), path


def test_vendored_scripts_are_unchanged():
    for packages, folder in (
        (refresh_vendor.PACKAGES, refresh_vendor.VENDOR),
        (refresh_vendor.CHECKERS, refresh_vendor.CHECKER),
    ):
        for members in packages.values():
            for name, sha256 in members.values():
                assert sha256_file(folder / name) == sha256


# ------------------------------------------------------------ build tool


def test_contents_are_read_at_every_depth():
    toc = {
        "root": "book/index",
        "parts": [
            {"chapters": [{"file": "a", "sections": [{"file": "b.md"}]}]},
            {"chapters": [{"file": "notebooks/c.ipynb"}]},
        ],
    }
    pages = ["book/index", "a", "b", "notebooks/c"]
    assert build_book.toc_pages(toc) == pages


def test_missing_and_empty_pages_are_found(tmp_path):
    full = "<article>" + "word " * 50 + "</article>"
    (tmp_path / "full.html").write_text(full)
    (tmp_path / "empty.html").write_text("<article> <p></p></article>")
    (tmp_path / "bare.html").write_text("word " * 50)
    pages = ["full", "empty", "bare", "gone"]
    assert build_book.missing_pages(pages, tmp_path) == [
        "empty: empty",
        "bare: empty",
        "gone: not built",
    ]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project whose outputs could depend on anything."""
    (tmp_path / "serendifflib").mkdir()
    (tmp_path / "serendifflib/code.py").write_text("x = 1\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/run.json").write_text("{}")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    monkeypatch.setenv("SERENDIFF_PROFILE", "smoke")
    monkeypatch.setenv("SERENDIFF_DATA", str(tmp_path / "data"))
    return tmp_path


def test_the_fingerprint_is_stable(project, monkeypatch):
    before = build_book.fingerprint(project)
    monkeypatch.setenv("SERENDIFF_CACHE", "/elsewhere")
    monkeypatch.setenv("SERENDIFF_PAGES", "static")
    (project / "README.md").write_text("prose")
    (project / "serendifflib/__pycache__").mkdir()
    (project / "serendifflib/__pycache__/code.pyc").write_bytes(b"1")
    assert build_book.fingerprint(project) == before


@pytest.mark.parametrize(
    "name",
    [
        "serendifflib/code.py",
        "serendifflib/new.py",
        "serendifflib/viz/widget.js",
        "serendifflib/viz/widget.css",
        "results/table4.jsonl",
        "constraints.txt",
        "data/ratings.csv",
    ],
)
def test_the_fingerprint_sees_a_changed_file(project, name):
    before = build_book.fingerprint(project)
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("y = 2\n")
    changed = build_book.fingerprint(project)
    assert changed != before
    (project / name).write_text("y = 3\n")  # of the same size
    assert build_book.fingerprint(project) not in (before, changed)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SERENDIFF_PROFILE", "laptop"),
        ("SERENDIFF_SEED", "7"),
        ("CUDA_VISIBLE_DEVICES", "1"),
    ],
)
def test_the_fingerprint_sees_a_setting(project, monkeypatch, variable, value):
    before = build_book.fingerprint(project)
    monkeypatch.setenv(variable, value)
    assert build_book.fingerprint(project) != before


def test_stale_pages_and_caches_are_removed(tmp_path):
    keep = tmp_path / "_build/executed/new"
    for folder in ("html/old", ".doctrees", "executed/old", "executed/new"):
        (tmp_path / "_build" / folder).mkdir(parents=True)
    build_book.remove_stale(keep=keep)
    left = {p.name for p in (tmp_path / "_build").rglob("*")}
    assert left == {"executed", "new"}


def test_the_written_configuration_names_the_cache(tmp_path):
    shutil.copy(ROOT / "_config.yml", tmp_path)
    cache = tmp_path / "_build/executed/abc"
    path = build_book.write_config(tmp_path, cache)
    written = yaml.safe_load(path.read_text())
    assert written["execute"]["execute_notebooks"] == "cache"
    assert written["execute"]["cache"] == str(cache)
    assert written["execute"]["timeout"] == CONFIG["execute"]["timeout"]
    for folder in written["sphinx"]["local_extensions"].values():
        assert Path(folder).is_absolute()


# ------------------------------------------------------------ built pages

needs_pages = pytest.mark.skipif(
    not (HTML / "index.html").is_file(),
    reason="the book is not built here: make book",
)
PAGES = [
    HTML / f"{page}.html"
    for page in build_book.toc_pages(TOC)
    if (HTML / f"{page}.html").is_file()
]
each_page = pytest.mark.parametrize(
    "path", PAGES, ids=[str(p.relative_to(HTML))[:-5] for p in PAGES]
)


def soup_of(path):
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


@needs_pages
def test_every_page_of_the_contents_was_built():
    pages = build_book.toc_pages(TOC)
    assert build_book.missing_pages(pages, HTML) == []


@each_page
def test_every_image_has_a_text_alternative(path):
    lacking = [
        image.get("src")
        for image in soup_of(path).find_all("img")
        if not (image.get("alt") or "").strip()
        # what docutils writes where nobody gave an alternative
        or image["alt"] == image.get("src")
    ]
    assert lacking == []


@each_page
def test_no_dollar_sign_is_left_in_the_text(path):
    article = soup_of(path).find("article")
    for tag in article.find_all(["pre", "code", "script", "style"]):
        tag.decompose()
    for tag in article.select(".math, mjx-container"):
        tag.decompose()
    text = article.get_text(" ")
    assert re.findall(r".{0,30}\$.{0,30}", text) == []


@each_page
def test_every_drawing_has_a_title(path):
    article = soup_of(path).find("article")
    for drawing in article.find_all("svg", role="img"):
        assert drawing.find("title") or drawing.get("aria-label")


@pytest.fixture(scope="module")
def anchors():
    """Ids of every page, read once."""
    found = {}

    def of(path):
        if path not in found:
            found[path] = {
                tag["id"] for tag in soup_of(path).find_all(id=True)
            }
        return found[path]

    return of


@each_page
def test_internal_links_and_anchors_lead_somewhere(path, anchors):
    broken = []
    for link in soup_of(path).find_all("a", href=True):
        parts = urlsplit(link["href"])
        if parts.scheme or parts.netloc or link["href"] == "#":
            continue
        target = path
        if parts.path:
            target = (path.parent / unquote(parts.path)).resolve()
        if not target.is_file():
            broken.append(link["href"])
        elif parts.fragment and target.suffix == ".html":
            if unquote(parts.fragment) not in anchors(target):
                broken.append(link["href"])
    assert broken == []


@each_page
def test_no_foreign_host_is_contacted(path):
    foreign = []
    soup = soup_of(path)
    for tag, attribute in (
        ("script", "src"),
        ("img", "src"),
        ("iframe", "src"),
        ("source", "src"),
        ("video", "src"),
        ("object", "data"),
    ):
        foreign += [t.get(attribute) or "" for t in soup.find_all(tag)]
    loaded = {"stylesheet", "icon", "preload", "modulepreload", "preconnect"}
    foreign += [
        link.get("href", "")
        for link in soup.find_all("link")
        if loaded & set(link.get("rel", []))
    ]
    for style in soup.find_all("style"):
        foreign += re.findall(r"url\(([^)]+)\)|@import ([^;]+)", str(style))
    hosts = re.compile(r"^['\"]?(https?:)?//")
    assert [x for x in foreign if hosts.match("".join(x))] == []


@needs_pages
def test_no_stylesheet_loads_from_a_foreign_host():
    found = [
        (path.name, address)
        for path in HTML.rglob("*.css")
        for address in re.findall(
            r"(?:url\(|@import )\s*['\"]?((?:https?:)?//[^)'\"]+)",
            path.read_text("utf-8"),
        )
    ]
    assert found == []


@needs_pages
def test_the_sitemap_lists_the_pages_and_no_other():
    base = CONFIG["html"]["baseurl"]
    tree = ElementTree.parse(HTML / "sitemap.xml")
    listed = [node.text for node in tree.iter() if node.tag.endswith("loc")]
    pages = build_book.toc_pages(TOC)
    assert sorted(listed) == sorted(f"{base}{page}.html" for page in pages)
    assert f"{base}sitemap.xml" in (HTML / "robots.txt").read_text()


@needs_pages
def test_the_page_for_lost_readers_works_at_any_address():
    base = urlsplit(CONFIG["html"]["baseurl"]).path
    links = [
        tag.get("href")
        for tag in soup_of(HTML / "404.html").find_all(href=True)
    ]
    assert len(links) >= 3
    for link in links:
        assert link.startswith(base)
        assert (HTML / link.removeprefix(base)).is_file(), link


@each_page
def test_no_progress_bar_was_left_on_a_page(path):
    """A bar that stopped at its end tells nobody anything."""
    assert "FloatProgressModel" not in path.read_text("utf-8")


@each_page
def test_a_page_has_a_card_for_those_who_share_it(path):
    soup = soup_of(path)
    card = {
        tag["property"]: tag["content"]
        for tag in soup.find_all("meta", property=True)
    }
    base = CONFIG["html"]["baseurl"]
    assert card["og:title"] and card["og:description"]
    assert card["og:url"].startswith(base)
    assert (HTML / card["og:image"].removeprefix(base)).is_file()


@needs_pages
def test_the_reference_leads_to_equations():
    links = {
        link["href"].split("#")[1]
        for path in (HTML / "book/api").glob("*.html")
        for link in soup_of(path).find_all("a", href=True)
        if "#eq-paper-" in link["href"]
    }
    assert {"eq-paper-7", "eq-paper-8", "eq-paper-12"} <= links


@needs_pages
def test_the_status_page_tells_times_and_versions():
    text = soup_of(HTML / "book/status.html").find("article").get_text(" ")
    for word in ("Device", "Python", "torch", "Profile", "05_portrait"):
        assert word in text


@each_page
def test_a_page_with_its_pictures_stays_small(path):
    own = {
        (path.parent / unquote(image["src"])).resolve()
        for image in soup_of(path).find_all("img", src=True)
        if not urlsplit(image["src"]).scheme
    }
    size = path.stat().st_size
    size += sum(p.stat().st_size for p in own if p.is_file())
    assert size < LIMIT


@each_page
def test_launch_buttons_have_an_address(path):
    links = soup_of(path).select("header a[href], .header-article a[href]")
    lead = [a["href"] for a in links if "//" in a["href"]]
    assert all(launch_cell.address() for _ in lead), lead
