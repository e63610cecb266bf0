"""The build tool on a book of one page and one notebook, for real."""

import textwrap

import build_book
import nbformat
import pytest


@pytest.fixture
def small_book(tmp_path, monkeypatch):
    """A project whose only notebook shows a value of its library."""
    files = {
        "_config.yml": """
            title: Small
            only_build_toc_files: true
            execute: {execute_notebooks: force}
            """,
        "_toc.yml": """
            format: jb-book
            root: index
            chapters:
            - file: notebooks/01_value
            """,
        "index.md": "# Small\n\n" + "A page of some length. " * 10,
        "constraints.txt": "torch==2.13.0",
        "serendifflib/value.py": 'VALUE = "first value"',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("SERENDIFF_DATA", str(tmp_path / "data"))
    return tmp_path


def write_notebook(book, code):
    text = "# A value\n\n" + "The cell below shows it. " * 10
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(text),
            nbformat.v4.new_code_cell(textwrap.dedent(code)),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "P"}},
    )
    nbformat.write(notebook, book / "notebooks/01_value.ipynb")


def test_a_change_of_the_library_reaches_the_page(small_book, capfd):
    write_notebook(
        small_book, 'print(open("../serendifflib/value.py").read())'
    )
    page = small_book / "_build/html/notebooks/01_value.html"
    assert build_book.build(small_book) == 0
    assert "first value" in page.read_text()
    assert "1 of 1 notebooks to run" in capfd.readouterr().out

    # prose changes: nothing runs again
    (small_book / "index.md").write_text("# Small\n\n" + "Other words. " * 20)
    assert build_book.build(small_book) == 0
    assert "0 of 1 notebooks to run" in capfd.readouterr().out

    # the cells are the same, the library is not
    (small_book / "serendifflib/value.py").write_text("VALUE = 'second'")
    assert build_book.build(small_book) == 0
    assert "second" in page.read_text()
    assert "first value" not in page.read_text()
    assert "make book: 2 pages" in capfd.readouterr().out


def test_progress_bars_stay_off_the_page_and_sliders_stay_on(small_book):
    write_notebook(
        small_book,
        """
        import ipywidgets
        from tqdm.auto import tqdm
        print("counted", sum(tqdm(range(3), desc="bar" * 2)))
        ipywidgets.VBox([ipywidgets.IntSlider(description="a slider")])
        """,
    )
    assert build_book.build(small_book) == 0
    page = (small_book / "_build/html/notebooks/01_value.html").read_text()
    assert "counted 3" in page
    assert "a slider" in page
    assert "barbar" not in page
    assert "FloatProgressModel" not in page


def test_a_failing_notebook_stops_the_build_and_is_reported(small_book, capfd):
    write_notebook(small_book, "assert 1 + 1 == 3, 'arithmetic is broken'")
    assert build_book.build(small_book) == 1
    printed = capfd.readouterr().out
    assert "01_value.ipynb" in printed
    assert "arithmetic is broken" in printed
    assert "make book: failed" in printed
    # and a failure is never taken for a result
    assert build_book.build(small_book) == 1
    assert "1 of 1 notebooks to run" in capfd.readouterr().out


def test_a_kernel_begins_with_the_libraries_and_nothing_else(small_book):
    write_notebook(
        small_book,
        """
        import os, sys
        assert {"torch", "seaborn", "serendifflib"} <= set(sys.modules)
        assert "torch" not in globals()
        assert not any(path.endswith("tools") for path in sys.path)
        print("in", os.path.basename(os.getcwd()), len(sys.argv))
        """,
    )
    assert build_book.build(small_book) == 0
    page = (small_book / "_build/html/notebooks/01_value.html").read_text()
    assert "in notebooks" in page


def test_a_kernel_that_dies_is_reported(small_book, capfd):
    write_notebook(small_book, "import os\nos._exit(3)")
    assert build_book.build(small_book) == 1
    printed = capfd.readouterr().out
    assert "01_value.ipynb" in printed
    assert "Kernel died" in printed


def test_a_warning_stops_the_build(small_book, capfd):
    write_notebook(small_book, "1 + 1")
    with open(small_book / "index.md", "a") as stream:
        stream.write("\n\nSee {doc}`no-such-page`.\n")
    assert build_book.build(small_book) == 1
    assert "no-such-page" in capfd.readouterr().err


def test_the_trainer_goes_first_and_those_that_load_its_models_last():
    notebooks = sorted((build_book.ROOT / "notebooks").glob("*.ipynb"))
    tasks = [(path, nbformat.read(path, as_version=4)) for path in notebooks]
    order = [path.stem for path, _ in build_book.in_working_order(tasks)]
    assert order[0] == build_book.TRAINER
    assert sorted(order) == [path.stem for path in notebooks]
    place = order.index
    assert place("07_conditional_unet") < place("10_metrics_and_protocol")
    assert place("20_critical_experiments") < place("09_sampling_and_matching")
    assert place("09_sampling_and_matching") < place("11_case_study")
