"""Write into every notebook how long it takes to read.

Reading time is computed from what a reader meets - words, lines of code,
pictures - so that it stays true when a chapter grows.

Usage: python tools/reading_time.py
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
WORDS = 150  # a minute, equations to be thought about in between
LINES = 15  # of code a minute
PICTURES = 2  # a minute
STEP = 5  # minutes are rounded to this
HIDDEN = {"launch", "remove-cell", "remove-input", "hide-input"}
HEADING = re.compile(r"#+ (.*)")
HEADER = re.compile(r"(- \*\*Time\.\*\* )(\d+)( minutes to\s+read)")


def minutes(notebook: nbformat.NotebookNode) -> int:
    """Reading time in minutes, a multiple of five, at least five.

    What a reader does not see at first does not count: solutions, folded
    code, hidden cells. Nor do display equations.
    """
    words = lines = pictures = 0
    folded = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = HEADING.match(cell.source)
            folded = heading[1] == "Solution" if heading else folded
            if folded:
                continue
            prose = re.sub(r"\$\$.*?\$\$", "", cell.source, flags=re.DOTALL)
            words += len(re.findall(r"\w[\w'’-]*", prose))
        elif not folded:
            if not HIDDEN & set(cell.metadata.get("tags", [])):
                code = cell.source.splitlines()
                lines += sum(bool(line.strip()) for line in code)
            pictures += "figure" in cell.metadata.get("mystnb", {})
    taken = words / WORDS + lines / LINES + pictures / PICTURES
    return max(STEP, STEP * round(taken / STEP))


def stated(notebook: nbformat.NotebookNode) -> int | None:
    """The minutes that the header names, if it names any."""
    found = HEADER.search(notebook.cells[0].source)
    return int(found[2]) if found else None


def main() -> int:
    """Correct the headers that name another time."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        taken = minutes(notebook)
        if stated(notebook) in (None, taken):
            continue
        first = notebook.cells[0]
        first.source = HEADER.sub(rf"\g<1>{taken}\g<3>", first.source)
        nbformat.write(notebook, path)
        print(f"{path.stem}: {taken} minutes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
