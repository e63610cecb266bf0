"""Sphinx extension of this book: API pages, links, files for the web."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pkgutil
import platform
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import torch
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxRole

from serendifflib.experiments.versions import device_name
from serendifflib.profiles import current_profile

SHOWN = (  # libraries on the status page
    "serendifflib",
    "torch",
    "diffusers",
    "sentence-transformers",
    "numpy",
    "pandas",
    "scikit-learn",
    "jupyter-book",
)

# Equations of the paper: "Eq. 8", "Eq. 7, 13 and 14", "Eqs. 3 and 9"
PAPER = r"(?:1[0-4]|[1-9])(?![\d.])"
EQUATIONS = re.compile(rf"\b(Eqs?\. )({PAPER}(?:(?:, | and |/){PAPER})*)")

MODULES = re.compile(r"^<!-- api: ([\w. ]+) -->$", re.MULTILINE)


def public_modules(name: str) -> list[str]:
    """The module ``name`` and, in a package, its public modules below."""
    module = importlib.import_module(name)
    found = [name]
    for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not info.name.startswith("_"):
            found += public_modules(f"{name}.{info.name}")
    return found


def modules_of(names: str, folder: Path) -> list[str]:
    """Modules that a marker stands for; packages bring what they contain.

    The word ``others`` stands for all modules that no page of ``folder``
    lists, so that a new module never falls between the pages.
    """
    if names.strip() != "others":
        return [m for name in names.split() for m in public_modules(name)]
    listed = {
        module
        for path in folder.glob("*.md")
        for found in MODULES.findall(path.read_text("utf-8"))
        if found.strip() != "others"
        for module in modules_of(found, folder)
    }
    every = public_modules("serendifflib")[1:]
    return [module for module in every if module not in listed]


def expand_modules(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace each ``<!-- api: NAMES -->`` by the reference of its modules.

    What a module offers is read from the package itself, so a new module
    of a listed package appears without anybody editing a list.
    """
    if not docname.startswith("book/api/"):
        return

    def sections(match: re.Match[str]) -> str:
        return "\n".join(
            f"## {name}\n\n```{{eval-rst}}\n"
            f".. automodule:: {name}\n   :members:\n```\n"
            for name in modules_of(match[1], Path(app.srcdir) / "book/api")
        )

    source[0] = MODULES.sub(sections, source[0])


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


def link_equations(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    lines: list[str],
) -> None:
    """Let "Eq. 7, 13" of a docstring lead to where the book derives them."""
    for number, line in enumerate(lines):
        if line.lstrip()[:3] in (">>>", "..."):
            continue
        parts = line.split("``")
        parts[::2] = [EQUATIONS.sub(_links, part) for part in parts[::2]]
        lines[number] = "``".join(parts)


def _links(match: re.Match[str]) -> str:
    def link(number: re.Match[str]) -> str:
        words = number[0]
        if number.start() == 0:  # the word stays together with the first
            words = f"{match[1]}{words}"
        return f":ref:`{words} <eq-paper-{number[0]}>`"

    return re.sub(r"\d+", link, match[2])


def follow_name(
    app: Sphinx,
    env: BuildEnvironment,
    node: addnodes.pending_xref,
    contnode: nodes.Element,
) -> nodes.Element | None:
    """Resolve names that Python's domain does not find as they stand.

    ``serendifflib.SerenDiff`` is defined elsewhere, and a long name may be
    broken over two lines of a docstring.
    """
    target = "".join(node.get("reftarget", "").split())
    if node.get("refdomain") != "py" or not target.startswith("serendifflib."):
        return None
    names = [target]
    first, *rest = target.removeprefix("serendifflib.").split(".")
    found = getattr(importlib.import_module("serendifflib"), first, None)
    if hasattr(found, "__qualname__"):
        names.append(".".join([found.__module__, found.__qualname__, *rest]))
    domain = env.get_domain("py")
    for name in names:
        resolved = domain.resolve_xref(
            env,
            node["refdoc"],
            app.builder,
            node["reftype"],
            name,
            node,
            contnode,
        )
        if resolved is not None:
            return resolved
    return None


def print_machine(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace ``<!-- machine -->`` by a table of what built the book."""
    if "<!-- machine -->" not in source[0]:
        return
    profile = current_profile()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = {
        "Profile": f"`{profile.name}`",
        "Data of a default run": f"{profile.world_users:,} simulated users, "
        f"{profile.world_items:,} items",
        "Device": device_name(device),
        "System": f"{platform.system()}, {platform.machine()}, "
        f"{os.cpu_count()} logical processors",
        "Python": platform.python_version(),
        "Built": time.strftime("%d %B %Y", time.gmtime()),
    }
    for name in SHOWN:
        rows[name] = importlib.metadata.version(name)
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    source[0] = source[0].replace(
        "<!-- machine -->", f"| what | value |\n|---|---|\n{table}"
    )


def write_site_files(app: Sphinx, exception: Exception | None) -> None:
    """Write what a web host looks for: sitemap, robots, a page for 404.

    A host serves 404.html at any address, so it must not use relative links.
    """
    base = app.config.html_baseurl
    if exception or app.builder.format != "html" or not base:
        return
    base = base.rstrip("/") + "/"
    pages = sorted(f"{base}{name}.html" for name in app.env.found_docs)
    places = "".join(f"<url><loc>{escape(page)}</loc></url>" for page in pages)
    files = {
        "sitemap.xml": '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns='
        f'"http://www.sitemaps.org/schemas/sitemap/0.9">{places}</urlset>\n',
        "robots.txt": f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n",
        "404.html": (Path(__file__).parent / "404.html")
        .read_text("utf-8")
        .replace("{{ base }}", urlsplit(base).path),
    }
    for name, text in files.items():
        (Path(app.outdir) / name).write_text(text, "utf-8")


def drop_thebe(
    app: Sphinx,
    page: str,
    template: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Leave out the scripts of an extension that the book does not use.

    Jupyter Book always loads sphinx-thebe; its script declares a constant
    twice, which is an error on the console of every page.
    """
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{script.filename} {script.attributes}".lower()
    ]


def plain_citations(
    app: Sphinx,
    page: str,
    template: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Let the bibliography be what it is: entries, not items of a list.

    Docutils calls it a list whose entries have a role that a list may not
    hold; readers of the page by ear would be told of a list without items.
    """
    if "body" in context:
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">',
            '<div class="citation-list">',
        )


class NotebookRole(SphinxRole):
    """``{nb}`05_portrait` ``: a link to a notebook, by its file name.

    Any other name warns, so that a typo breaks the build.
    """

    def run(self) -> tuple[list[nodes.Node], list[Any]]:
        """Return the link, or the warning."""
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
        message = self.inliner.reporter.warning(
            f"no notebook is called {name!r}", line=self.lineno
        )
        return [], [message]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    # kernels that the build starts know that readers will have none
    os.environ["SERENDIFF_PAGES"] = "static"
    app.connect("source-read", expand_modules)
    app.connect("source-read", print_machine)
    # before napoleon, which runs at 500
    app.connect("autodoc-process-docstring", escape_bars, priority=400)
    app.connect("autodoc-process-docstring", link_equations, priority=410)
    app.connect("missing-reference", follow_name)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", plain_citations)
    app.connect("build-finished", write_site_files)
    app.add_role("nb", NotebookRole())
    app.setup_extension("serendiff_pages")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
