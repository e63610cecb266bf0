"""Sphinx extension of this book: API pages and links to notebooks."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

# Chapters that the text may name before they are written. The role warns
# about any other name that is no notebook, so a typo breaks the build.
PLANNED = {
    "00_setup_and_status",
    "01_data_and_histories",
    "02_item_vectors",
    "03_expectedness",
    "04_relevance",
    "05_portrait",
    "06_ddpm_theory",
    "07_conditional_unet",
    "08_training",
    "09_sampling_and_matching",
    "10_metrics_and_protocol",
    "11_case_study",
    "12_table2_steps",
    "13_table3_portrait_size",
    "14_table4_overall",
    "15_table5_ablation",
    "16_table6_efficiency",
    "17_readings_and_protocol",
    "18_how_many_labels",
    "19_movielens",
    "20_critical_chapter",
    "21_your_own_data",
    "30_solutions",
}

MODULES = re.compile(r"^<!-- api: (?P<names>[\w. ]+) -->$", re.MULTILINE)


def public_modules(name: str) -> list[str]:
    """The module ``name`` and, in a package, its public modules below."""
    module = importlib.import_module(name)
    found = [name]
    for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not info.name.startswith("_"):
            found += public_modules(f"{name}.{info.name}")
    return found


def expand_modules(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace each ``<!-- api: NAMES -->`` by the pages of its modules.

    What a module offers is read from the package itself, so a new module
    of a listed package appears without anybody editing a list.
    """
    if not docname.startswith("book/api/"):
        return

    def section(match: re.Match[str]) -> str:
        parts = []
        for listed in match["names"].split():
            for name in public_modules(listed):
                parts.append(
                    f"## {name}\n\n```{{eval-rst}}\n"
                    f".. automodule:: {name}\n   :members:\n```\n"
                )
        return "\n".join(parts)

    source[0] = MODULES.sub(section, source[0])


def escape_bars(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    lines: list[str],
) -> None:
    """Let docstrings write ``p(i | T)`` and ``|C_k|`` without escapes.

    A bar would start a substitution in reStructuredText, which no docstring
    of ours uses. Literals, literal blocks and examples are left alone.
    """
    block = None  # indent of the line that announced a literal block
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None and "|" in line and not line.lstrip()[:3] == ">>>":
            parts = line.split("``")
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[number] = "``".join(parts)
        if block is None and line.rstrip().endswith("::"):
            block = indent


class NotebookRole(SphinxRole):
    """``{nb}`05_portrait` ``: a link to a notebook, by its file name.

    A chapter that is planned but not written yet appears as its name.
    """

    def run(self) -> tuple[list[nodes.Node], list[Any]]:
        """Return the link, or the bare name of a chapter to come."""
        name = self.text.strip()
        docname = f"notebooks/{name}"
        if docname in self.env.found_docs:
            link = addnodes.pending_xref(
                name,
                nodes.inline("", name),
                refdomain="std",
                reftype="doc",
                reftarget=f"/{docname}",
                refexplicit=False,
                refdoc=self.env.docname,
                refwarn=True,
            )
            return [link], []
        if name not in PLANNED:
            message = self.inliner.reporter.warning(
                f"no notebook is called {name!r}", line=self.lineno
            )
            return [], [message]
        return [nodes.literal(name, name)], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", expand_modules)
    # before napoleon, which runs at 500
    app.connect("autodoc-process-docstring", escape_bars, priority=400)
    app.add_role("nb", NotebookRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
