"""Versions: tested at both ends; licences listed; types checked."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import list_licences
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
TABLE = ("| ---", "| package |")  # the head of a table
# for checks alone: nothing of ours imports or ships them
COPYLEFT = {"codespell", "docutils"}


def floors():
    lines = [*PROJECT["dependencies"]]
    lines += PROJECT["optional-dependencies"]["test"]
    return {r.name: r for r in map(Requirement, lines)}


def oldest():
    return list_licences.pins((ROOT / "constraints-oldest.txt").read_text())


def test_the_oldest_versions_are_the_ends_of_the_ranges():
    """Or the first release of that number that can be installed."""
    known = floors()
    assert {r.name for r in map(Requirement, PROJECT["dependencies"])} <= set(
        oldest()
    )
    for name, version in oldest().items():
        (end,) = (
            s.version for s in known[name].specifier if s.operator == ">="
        )
        assert known[name].specifier.contains(version), name
        release = Version(version).release
        assert release[: len(Version(end).release)] == Version(end).release


def test_the_matrix_has_both_ends():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / ".github/workflows/matrix.yml").read_text()
    plan = yaml.safe_load(text)
    rows = plan["jobs"]["versions"]["strategy"]["matrix"]["include"]
    assert {row["python"] for row in rows} == {"3.11", "3.12"}
    for needed in (
        "constraints-oldest.txt",
        "constraints.txt",
        "pandas<3",
        "pandas>=3",
        "torch==2.6.*",
    ):
        assert any(needed in row["install"] for row in rows), needed
    for path in plan["env"]["TESTS"].split():
        assert (ROOT / path).exists(), path
    for name in re.findall(r"\S+\.txt", text):
        assert (ROOT / name.lstrip('"[')).exists() or "*" in name, name
    assert "pip-audit" in text and "pytest -m slow" in text


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_cannot_change_by_itself(path):
    """Actions by commit, with their tag; tools by version."""
    text = path.read_text()
    actions = re.findall(r"uses: (.*)", text)
    assert actions
    for action in actions:
        assert re.fullmatch(
            r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action
        ), action
    for line in re.findall(r"pip install (.*)", text):
        assert re.search(r"-c |==|matrix\.install|--require-hashes", line), (
            line
        )


def test_every_pin_but_torch_has_a_hash():
    """Of Linux wheels; the head of the file says what is not covered."""
    lines = (ROOT / "constraints-hashes.txt").read_text().splitlines()
    found = {}
    for line in lines:
        if not line.startswith("#"):
            name, version, _ = re.fullmatch(
                r"([\w.-]+)==(\S+) --hash=sha256:([0-9a-f]{64})", line
            ).groups()
            found[canonicalize_name(name)] = Version(version)
    pins = list_licences.pins((ROOT / "constraints.txt").read_text())
    wanted = {canonicalize_name(name): Version(v) for name, v in pins.items()}
    del wanted["torch"]
    assert found == wanted
    assert "Not covered: torch" in lines[1]
    workflow = (ROOT / ".github/workflows/book.yml").read_text()
    assert "make book HASHES=1" in workflow
    makefile = (ROOT / "Makefile").read_text()
    assert "--require-hashes -r constraints-hashes.txt" in makefile


def test_one_commit_for_one_action():
    lines = re.findall(
        r"uses: (\S+)@(\S+)", "".join(path.read_text() for path in WORKFLOWS)
    )
    assert len(dict(lines)) == len(set(lines))


def test_the_page_of_licences_is_current():
    """Another package or version needs `list_licences.py --write`."""
    pins = list_licences.pins((ROOT / "constraints.txt").read_text())
    rows = [
        [field.strip() for field in line.strip("|").split("|")]
        for line in list_licences.PAGE.read_text().splitlines()
        if line.startswith("| ") and not line.startswith(TABLE)
    ]
    assert {name: version for name, version, _ in rows} == pins
    for name, _, words in rows:
        assert words not in ("not stated", "not installed here"), name
        if re.search(r"\bA?GPL", words):
            assert name in COPYLEFT, f"{name}: {words}"


def test_a_licence_is_what_the_package_says():
    assert list_licences.licence("pytest") == "MIT"
    assert "BSD" in list_licences.licence("numpy")
    missing = list_licences.page("nobody-made-this==1.0\n")
    assert "| nobody-made-this | 1.0 | not installed here |" in missing


def test_the_library_imports_no_copyleft_package():
    """What is for checks alone stays out of the library."""
    tops = importlib.metadata.packages_distributions()
    barred = {
        module
        for module, names in tops.items()
        if COPYLEFT & {name.lower() for name in names}
    }
    assert barred
    for path in (ROOT / "serendifflib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert not barred & {n.split(".")[0] for n in names}, path


# -------------------------------------------------------------------- types


def mypy(cache, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", cache, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_types(tmp_path):
    """Whoever uses the library wrongly is told; `make lint` checks it."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from serendifflib import current_profile, evaluate\n"
        "current_profile().steps + 'x'\n"
        "evaluate(1)\n"
    )
    done = mypy(tmp_path / "cache", "--config-file", "pyproject.toml", wrong)
    assert done.returncode == 1
    assert re.search(r"wrong\.py:2: .*Unsupported operand", done.stdout)
    assert re.search(r"wrong\.py:3: .*argument", done.stdout)


def test_docstring_examples_run_with_the_suite():
    """`make test` collects them; here, that there are some to collect."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"--doctest-modules[\s\\]+serendifflib", makefile)
    count = sum(
        path.read_text("utf-8").count(">>> ")
        for path in (ROOT / "serendifflib").rglob("*.py")
    )
    assert count >= 20
