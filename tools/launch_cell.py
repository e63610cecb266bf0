"""Put the cell that installs the library into every notebook.

A notebook that is opened on Colab comes alone: without the library and
without the recorded runs. The cell after the title fetches both. Everywhere
else it does nothing, and pages of the book leave it out.

Usage: python tools/launch_cell.py
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import yaml

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
TAGS = ["remove-cell", "launch"]
CONFIG = NOTEBOOKS.parent / "_config.yml"


def source(address: str) -> str:
    """Code of the cell for a book whose repository has this address.

    >>> "clone" in source("https://example.org/someone/book")
    True
    >>> "clone" in source("")
    False
    """
    lines = [
        "# On Colab: fetch the library and the recorded runs. Elsewhere: "
        "nothing.",
        "import sys",
        "",
        'if "google.colab" in sys.modules:',
    ]
    name = address.rstrip("/").rpartition("/")[2]
    if address:
        pins = f"-c {name}/constraints.txt"
        lines += [
            f"    !git clone -q --depth 1 {address}",
            f'    %pip install -q {pins} -e "./{name}[book]"',
            f'    sys.path.insert(0, "/content/{name}")',
        ]
    else:
        lines.append(
            '    raise SystemExit("this copy names no repository: run it in a '
            'checkout")'
        )
    return "\n".join(lines)


def address(config: Path = CONFIG) -> str:
    """The one configured address of the repository; empty if none is known."""
    return yaml.safe_load(config.read_text("utf-8"))["repository"]["url"] or ""


SOURCE = source(address())


def has_cell(notebook: nbformat.NotebookNode) -> bool:
    """Whether the second cell is the one that installs, unchanged."""
    if len(notebook.cells) < 2:
        return False
    cell = notebook.cells[1]
    return cell.source == SOURCE and cell.metadata.get("tags") == TAGS


def with_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with this cell in second place and nowhere else."""
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "launch" not in cell.metadata.get("tags", [])
    ]
    cell = nbformat.v4.new_code_cell(SOURCE, metadata={"tags": TAGS})
    notebook.cells.insert(1, cell)
    for number, one in enumerate(notebook.cells):
        one["id"] = str(number)  # as nbstripout numbers them
    return notebook


def main() -> int:
    """Write the notebooks whose cell is missing or has another address."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if not has_cell(notebook):
            nbformat.write(with_cell(notebook), path)
            print(f"{path.name}: added")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
