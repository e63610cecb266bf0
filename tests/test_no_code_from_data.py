"""Nothing that is read can run code: no pickle, no eval, no shell."""

import ast
import re
from pathlib import Path

import pytest

import serendifflib

PACKAGE = Path(serendifflib.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
MODULES |= {"jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    ("torch", "load"),
    ("torch", "save"),
    ("joblib", "load"),  # (joblib.Parallel only talks to its own children)
    ("joblib", "dump"),
    ("joblib", "Memory"),
    ("os", "system"),
    ("os", "popen"),
    ("np", "save"),
    ("yaml", "load"),
    ("pd", "read_pickle"),
}


def problems(source):
    """What a file does that could run code from data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            found += sorted(names & MODULES)
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            names = {(module, alias.name) for alias in node.names}
            if module in MODULES or names & ATTRIBUTES:
                found.append(node.module)
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in CALLS:
                found.append(called.id)
            if isinstance(called, ast.Attribute):
                base = getattr(called.value, "id", None)
                if (base, called.attr) in ATTRIBUTES:
                    found.append(f"{base}.{called.attr}")
                if called.attr in {"to_pickle", "read_pickle"}:
                    found.append(called.attr)
            for option in node.keywords:
                on = getattr(option.value, "value", None) is not False
                if option.arg in {"allow_pickle", "shell"} and on:
                    found.append(option.arg)
                if option.arg == "trust_remote_code" and on:
                    found.append(option.arg)
            called_name = getattr(called, "attr", getattr(called, "id", ""))
            options = {option.arg for option in node.keywords}
            if ast.unparse(called) in {"np.load", "numpy.load"}:
                if "allow_pickle" not in options:
                    found.append("np.load without allow_pickle=False")
            offline = {"SentenceTransformer", "from_pretrained"}
            if None in options and '"local_files_only": True' in source:
                options.add("local_files_only")  # by way of **options
            if called_name in offline and "local_files_only" not in options:
                found.append(f"{called_name} without local_files_only")
    return found


def test_there_is_something_to_look_at():
    assert {"model/storage.py", "io.py"} <= set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_file_can_run_what_it_reads(path):
    source = path.read_text(encoding="utf-8")
    assert problems(source) == []
    code = re.sub(r'"""[\s\S]*?"""|#[^\n]*', "", source)
    assert not re.search(r"\bimport pickle\b|torch\.load\(", code)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "joblib.load(path)",
        "from joblib import load",
        "import numpy.linalg, dill",
        "torch.load('x')",
        "eval('1')",
        "def f():\n    exec(code)",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "frame.to_pickle('x')",
        "subprocess.run('ls', shell=True)",
        "SentenceTransformer(path)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
    ],
)
def test_the_search_finds_what_it_is_for(source):
    assert problems(source)


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "re.compile('x')",
        "np.load('x', allow_pickle=False)",
        "SentenceTransformer(path, local_files_only=True)",
        "subprocess.run(['git', 'status'])",
        'o = {"local_files_only": True}\nAutoModel.from_pretrained(p, **o)',
    ],
)
def test_the_search_lets_other_things_pass(source):
    assert problems(source) == []
