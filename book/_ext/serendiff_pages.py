"""Changes to a page after it was read: exercises, versions, hover texts."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

from serendifflib.experiments.versions import device_name
from serendifflib.profiles import current_profile

EXERCISE = re.compile(r"Exercise \d+")
GLOSSARY = "book/glossary"
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


class FoldSolutions(SphinxTransform):
    """A section "Exercise 3" becomes a box, its "Solution" a drop-down.

    Sections of a notebook may hold code cells and their outputs; the
    directive for drop-downs takes Markdown only.
    """

    default_priority = 820  # titles are read, contents not collected yet

    def apply(self, **options: Any) -> None:
        """Replace the sections in place."""
        for section in list(self.document.findall(nodes.section)):
            title = section.next_node(nodes.title)
            if title is None:
                continue
            words = title.astext()
            if EXERCISE.match(words):
                box = nodes.container(classes=["exercise"])
            elif words == "Solution":
                box = nodes.container(
                    design_component="dropdown",
                    is_div=True,
                    opened=False,
                    type="dropdown",
                    has_title=True,
                    icon=None,
                    chevron=None,
                    container_classes=["sd-mb-3", "solution"],
                    title_classes=[],
                    body_classes=[],
                )
            else:
                continue
            rubric = nodes.rubric("", "", *title.children)
            rubric["ids"] = section["ids"]
            rubric["names"] = section["names"]
            box += rubric
            box += [node for node in section.children if node is not title]
            section.replace_self(box)


class TellMachine(SphinxTransform):
    """The header box of a notebook ends with what its page was made by."""

    default_priority = 820

    def apply(self, **options: Any) -> None:
        """Append one line to the list of the box."""
        if not self.env.docname.startswith("notebooks/"):
            return
        for box in self.document.findall(nodes.admonition):
            items = box.next_node(nodes.bullet_list)
            if "header-box" not in box["classes"] or items is None:
                continue
            text = nodes.paragraph(
                "", "", nodes.strong("", "Made by."), nodes.Text(made_by())
            )
            items += nodes.list_item("", text)
            return


def made_by() -> str:
    """Versions, profile and device of this build, as half a line."""
    version = importlib.metadata.version
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (
        f" serendifflib {version('serendifflib')}, torch "
        f"{torch.__version__.split('+')[0]}, profile "
        f"{current_profile().name}, {device_name(device)}."
    )


def first_sentences(document: nodes.document) -> dict[str, str]:
    """First sentence of each entry of a glossary, by the entry's anchor."""
    found = {}
    for item in document.findall(nodes.definition_list_item):
        definition = item.next_node(nodes.definition)
        if definition is None:
            continue
        text = " ".join(definition.astext().split())
        for term in item.findall(nodes.term):
            for anchor in term["ids"]:
                found[anchor] = SENTENCE.split(text)[0]
    return found


def read_glossary(app: Sphinx, document: nodes.document) -> None:
    """Keep the sentences for the pages that link to the glossary."""
    if app.env.docname == GLOSSARY:
        app.env.serendiff_terms = first_sentences(document)


class NameTerms(SphinxPostTransform):
    """A link to the glossary tells the entry's first sentence on hover."""

    default_priority = 20  # links are resolved at 10

    def run(self, **options: Any) -> None:
        """Set the title of each link."""
        terms = getattr(self.env, "serendiff_terms", {})
        for link in self.document.findall(nodes.reference):
            page, _, anchor = link.get("refuri", "").partition("#")
            if page.endswith("glossary.html") and anchor in terms:
                link["reftitle"] = terms[anchor]


def choose_buttons(app: Sphinx, config: Config) -> None:
    """Buttons that lead to the repository, if its address is known.

    Jupyter Book refuses these settings beside an empty address.
    """
    options = config.html_theme_options
    known = bool(options.get("repository_url"))
    for kind in ("repository", "issues", "edit_page"):
        options[f"use_{kind}_button"] = known
    if not known:
        options["launch_buttons"] = {}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the changes."""
    app.add_transform(FoldSolutions)
    app.add_transform(TellMachine)
    app.add_post_transform(NameTerms)
    app.connect("doctree-read", read_glossary)
    app.connect("config-inited", choose_buttons, priority=900)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
