"""Where a number comes from: the code, its commit, libraries, the machine."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import torch

from serendifflib.errors import ConfigError
from serendifflib.io import content_hash, project_root

PACKAGE = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "serendifflib",
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "sentence-transformers",
)
# A process runs the code that it loaded, whatever happens to the files
# meanwhile: hashes are taken from what they held when it started.
_AT_START = {path: path.read_bytes() for path in PACKAGE.rglob("*.py")}

# these store, sum up, print and draw results and cannot change one
BOOKKEEPING = frozenset(
    f"serendifflib.{name}"
    for name in (
        "experiments.results",
        "model.explain",
        "experiments.provenance",
        "experiments.records",
        "experiments.runner",
        "evaluation.audit",
        "evaluation.stats",
        "evaluation.tables",
        *(f"viz.{path.stem}" for path in (PACKAGE / "viz").glob("*.py")),
    )
)


def code_files(
    roots: Iterable[str], package: Path = PACKAGE
) -> dict[str, Path]:
    """Modules of the package that the given ones import, directly or not.

    Imports inside functions count; imports by a computed name do not, so
    name such modules as roots. A package's ``__init__`` counts where
    something is imported from it, not where it is only passed through.
    Modules of :data:`BOOKKEEPING` are left out.

    Args:
        roots: module names, e.g. ``["serendifflib.baselines.sasrec"]``.
        package: folder of the package.

    Returns:
        Module name -> file, sorted by name.

    Raises:
        ConfigError: a root is not a module of the package.
    """
    found: dict[str, Path] = {}
    waiting = list(roots)
    for root in waiting:
        if _module_file(root, package) is None:
            raise ConfigError(f"no module {root!r} in {package.name}")
    while waiting:
        name = waiting.pop()
        path = _module_file(name, package)
        if path is None or name in found or name in BOOKKEEPING:
            continue
        found[name] = path
        tree = ast.parse(_source(path))
        for node in ast.walk(tree):
            waiting += _imported(node, name, path, package)
    return dict(sorted(found.items()))


def _source(path: Path) -> bytes:
    return _AT_START.get(path) or path.read_bytes()


def _module_file(name: str, package: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != package.name:
        return None
    path = package.joinpath(*parts[1:])
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _imported(
    node: ast.AST, name: str, path: Path, package: Path
) -> list[str]:
    """Module names that one syntax node of module ``name`` imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = name.split(".")
        # inside __init__ one dot means the package itself
        up = node.level - (path.name == "__init__.py")
        parts = parts[: len(parts) - up]
        base = ".".join([*parts, base] if base else parts)
    names = []
    for alias in node.names:
        module = f"{base}.{alias.name}"
        is_module = _module_file(module, package) is not None
        names.append(module if is_module else base)
    return names


@functools.lru_cache(maxsize=64)
def code_hash(roots: tuple[str, ...], package: Path = PACKAGE) -> str:
    """SHA-256 of what the modules do, the same in every version of Python.

    Docstrings, comments and the annotations of functions are left out.

    Taken from the sources as they were when this process started.

    Args:
        roots: module names; all that they import counts as well.
        package: folder of the package.
    """
    parts: list[str] = []
    for name, path in code_files(roots, package).items():
        tree = ast.parse(_source(path))
        for node in ast.walk(tree):
            _drop_docstring(node)
            _drop_annotations(node)
        parts += [name, repr(_plain(tree))]
    return content_hash(*parts)


def _plain(node: object) -> object:
    """A syntax tree as nested tuples.

    ``ast.unparse`` and ``ast.dump`` write the same tree in another way in
    another version of Python. Fields that only a newer version has are empty
    in code that an older one can read, and empty fields are left out.
    """
    if isinstance(node, ast.JoinedStr):  # Python 3.12.1 adds empty strings
        empty = ("Constant", ("value", "''"))
        parts = tuple(_plain(part) for part in node.values)
        return "JoinedStr", tuple(part for part in parts if part != empty)
    if isinstance(node, ast.AST):
        fields = ((k, _plain(value)) for k, value in ast.iter_fields(node))
        return type(node).__name__, *((k, v) for k, v in fields if v)
    if isinstance(node, list):
        return tuple(_plain(part) for part in node)
    return node if node is None else repr(node)


def _drop_docstring(node: ast.AST) -> None:
    documented = (
        ast.Module,
        ast.ClassDef,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
    )
    if not isinstance(node, documented) or not node.body:
        return
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        node.body = node.body[1:] or [ast.Pass()]


def _drop_annotations(node: ast.AST) -> None:
    """Of functions alone: those of a class can be a dataclass's fields."""
    if isinstance(node, ast.arg):
        node.annotation = None
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node.returns = None


@functools.cache
def commit(root: Path | None = None) -> tuple[str, bool]:
    """Commit of the checkout and whether its library code was changed.

    Args:
        root: the checkout; default this project's.

    Returns:
        ("unknown", True) outside a checkout or without git.
    """
    root = root or project_root()
    top = _git(root, "rev-parse", "--show-toplevel")
    # an installed copy may lie inside somebody else's repository
    if top is None or Path(top).resolve() != root.resolve():
        return "unknown", True
    head = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--", PACKAGE.name)
    if head is None or status is None:
        return "unknown", True
    return head, status != ""


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a result."""
    found = {"python": platform.python_version()}
    return found | {name: _version(name) for name in LIBRARIES}


def device_name(device: torch.device | str = "cpu") -> str:
    """What the computation runs on, e.g. ``cpu (x86_64)`` or a GPU's name."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"
