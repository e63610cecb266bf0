"""One environment, three descriptions: they must not drift apart."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from serendifflib import __version__

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
INSTALLED_EXTRAS = ("book", "test")  # what the two commands install


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, version = line.split("==")
            assert canonical(name) not in pinned, f"{name} stands twice"
            pinned[canonical(name)] = Version(version)
    return pinned


def requirements():
    wanted = list(PROJECT["dependencies"])
    for extra in INSTALLED_EXTRAS:
        wanted += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in wanted]


def pip_lines():
    return next(
        e["pip"]
        for e in CONDA["dependencies"]
        if "pip" in e and isinstance(e, dict)
    )


def test_conda_installs_what_make_installs():
    extras = ",".join(INSTALLED_EXTRAS)
    assert pip_lines() == ["-c constraints.txt", f"-e .[{extras}]"]
    assert f'-c constraints.txt \\\n\t    -e ".[{extras}]"' in MAKEFILE


def test_conda_takes_the_same_python():
    wanted = f"python{PROJECT['requires-python']}"
    assert wanted in CONDA["dependencies"]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_each_requirement_is_pinned_within_its_range(requirement):
    pinned = constraints()
    name = canonical(requirement.name)
    assert name in pinned, f"{name} has no line in constraints.txt"
    assert pinned[name] in requirement.specifier


def test_pins_that_later_releases_would_break():
    pinned = constraints()
    assert str(pinned["torch"]) == "2.13.0"
    assert str(pinned["sphinx-book-theme"]) == "1.1.4"
    assert pinned["jupyter-book"] < Version("2")
    book = {
        r.name: r
        for r in map(Requirement, PROJECT["optional-dependencies"]["book"])
    }
    assert not book["jupyter-book"].specifier.contains("2.0.0")
    assert book["jupyter-book"].specifier.contains("1.0.4.post1")
    assert not book["sphinx-book-theme"].specifier.contains("1.2.0")


def test_installed_book_builder_is_of_the_first_generation():
    assert Version(importlib.metadata.version("jupyter-book")).major == 1


def test_one_version_number():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == __version__ == citation["version"]


def test_one_repository_address():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    addresses = {
        citation.get("repository-code", ""),
        config["repository"]["url"],
        PROJECT.get("urls", {}).get("Repository", ""),
    }
    assert len(addresses) == 1, "the one in _config.yml holds"


def test_ci_calls_the_two_commands_and_nothing_hidden():
    script = (ROOT / ".ci/run").read_text()
    lines = [line.strip() for line in script.splitlines()]
    commands = [x for x in lines if x and not x.startswith(("#", "export"))]
    assert commands == [
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        "make book",
        "make test",
    ]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_readme_leads_with_the_two_commands():
    screen = (ROOT / "README.md").read_text().splitlines()[:40]
    assert "make book" in "\n".join(screen)
    assert "make test" in "\n".join(screen)


def test_make_test_runs_lint_tests_and_notebooks():
    plan = subprocess.run(
        ["make", "-n", "-B", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for part in (
        "ruff check .",
        "ruff format --check .",
        "nbstripout --verify",
        "lint-imports",
        "mypy",
        "--doctest-modules",
        "--nbmake",
    ):
        assert part in plan, part


def test_a_run_without_any_notebook_fails(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5, done.stdout


def test_a_python_that_is_too_old_is_refused(tmp_path):
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")  # what 3.10 answers to the check
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path}/venv", "install"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_every_import_of_the_library_is_declared():
    distributions = importlib.metadata.packages_distributions()
    declared = {
        canonical(Requirement(line).name)
        for group in (
            PROJECT["dependencies"],
            *PROJECT["optional-dependencies"].values(),
        )
        for line in group
    }
    undeclared = set()
    for path in (ROOT / "serendifflib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {name.split(".")[0] for name in names}:
                if name in sys.stdlib_module_names or name == "serendifflib":
                    continue
                owners = map(canonical, distributions.get(name, [name]))
                if not declared & set(owners):
                    undeclared.add(f"{name} in {path.relative_to(ROOT)}")
    assert undeclared == set()
