"""Every docstring of the library is sound: the book's reference shows it."""

import importlib
import inspect
import pkgutil

import docutils.core
import pytest
from docutils import nodes
from docutils.parsers.rst import roles
from sphinx.ext.napoleon.docstring import GoogleDocstring

import serendifflib

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(serendifflib.__path__, "serendifflib.")
    if not module.name.endswith("__main__")
)


def _plain(name, rawtext, text, lineno, inliner, options=None, content=()):
    return [nodes.literal(rawtext, text)], []


def documented(module):
    """The module, and what is defined in it and has a docstring."""
    yield module.__name__, module
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value
        if inspect.isclass(value):
            for part, inner in vars(value).items():
                if inspect.isfunction(inner):
                    yield f"{name}.{part}", inner


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_are_sound(name, capsys):
    for role in ("mod", "class", "func", "meth", "data", "attr", "exc"):
        roles.register_local_role(role, _plain)
    for what, value in documented(importlib.import_module(name)):
        text = str(GoogleDocstring(inspect.getdoc(value) or ""))
        # what only Sphinx knows
        text = text.replace(".. attribute::", ".. admonition::")
        text = text.replace("   :no-index:", "")
        docutils.core.publish_doctree(
            text, settings_overrides={"report_level": 2}
        )
        found = capsys.readouterr().err
        assert not found, f"{name}: {what}: {found}"
