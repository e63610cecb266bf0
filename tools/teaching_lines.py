"""How many of the lines of code that a reader sees teach something.

The rule. A reader sees the lines of every code cell that no tag folds or
removes and that is no solution; a folded cell is seen as one line, its label.
Of these lines do not teach: the labels, imports, statements that only show
something (``print``, ``glue``), those that draw in the cell of a figure, and
all of a cell that makes a table or sentences (``HTML``, ``Markdown``,
``own_table``). What is left computes, asserts or defines.

Usage: python tools/teaching_lines.py [SHARE]
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from reading_time import HEADING, NOTEBOOKS

GONE = {"launch", "remove-cell", "remove-input"}
FOLDED = {"hide-input", "hide-cell"}
SHOWS = {"print", "display", "glue"}
REPORTS = {"HTML", "Markdown", "html_table", "own_table", "comparison_table"}
DRAWS = re.compile(r"\b(ax|axes|fig|figure|plt)\b|plot")


class Lines(NamedTuple):
    """Lines that a reader sees, and those of them that teach."""

    seen: int
    teach: int

    @property
    def share(self) -> float:
        """Part of the lines that teaches; 1 where nothing is seen."""
        return self.teach / self.seen if self.seen else 1.0


def count(notebook: nbformat.NotebookNode) -> Lines:
    """Lines of one notebook, by the rule above."""
    seen = teach = 0
    solution = False
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        if cell.cell_type == "markdown":
            heading = HEADING.match(cell.source)
            solution = heading[1] == "Solution" if heading else solution
        elif solution or tags & GONE:
            continue
        elif tags & FOLDED:
            seen += 1
        else:
            seen += written(cell.source)
            teach += taught(cell)
    return Lines(seen, teach)


def written(source: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in source.splitlines())


def taught(cell: nbformat.NotebookNode) -> int:
    """Lines of a visible cell that teach."""
    lines = cell.source.splitlines()
    tree = ast.parse(TransformerManager().transform_cell(cell.source))
    if REPORTS & {called(node) for node in ast.walk(tree)}:
        return 0
    figure = "figure" in cell.metadata.get("mystnb", {})
    teach = written(cell.source)
    for node in tree.body:
        text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if only_shows(node) or (figure and DRAWS.search(text)):
            teach -= written(text)
    return teach


def called(node: ast.AST) -> str:
    """Name of the function that a node calls, or nothing."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def only_shows(node: ast.stmt) -> bool:
    """Whether a statement imports, or shows what is known already."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.For):  # a loop that prints and does no more
        return all(only_shows(inner) for inner in node.body)
    return isinstance(node, ast.Expr) and called(node.value) in SHOWS


def chapters() -> dict[str, Lines]:
    """Lines of every notebook of the book, by name."""
    return {
        path.stem: count(nbformat.read(path, as_version=4))
        for path in sorted(Path(NOTEBOOKS).glob("*.ipynb"))
    }


def total(found: dict[str, Lines]) -> Lines:
    """All chapters together."""
    return Lines(*map(sum, zip(*found.values(), strict=True)))


def main(arguments: list[str]) -> int:
    """Print a line for each chapter; fail below a share, if one is given."""
    found = chapters()
    for name, lines in [*found.items(), ("all", total(found))]:
        print(
            f"{name:32} {lines.teach:5} of {lines.seen:5} {lines.share:4.0%}"
        )
    return int(total(found).share < float(arguments[0] if arguments else 0))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
