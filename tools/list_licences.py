"""List the licences of everything that the two commands install.

    python tools/list_licences.py          # print the page
    python tools/list_licences.py --write  # THIRD_PARTY/licences.md

Reads the metadata of the installed packages named in constraints.txt; asks
no server.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "THIRD_PARTY" / "licences.md"
HEAD = """# Licences of the packages that this project installs

None of them is part of this repository; `make book` and `make test` install
them in the versions of `constraints.txt`. Written by
`python tools/list_licences.py --write` from what the packages say of
themselves. Scripts that are part of the repository are listed
in `NOTICE.md`.

| package | version | licence |
| --- | --- | --- |
"""


def pins(constraints: str) -> dict[str, str]:
    r"""Name -> version of a constraints file.

    >>> pins("# note\ntorch==2.13.0\n")
    {'torch': '2.13.0'}
    """
    lines = (line.strip() for line in constraints.splitlines())
    named = (line for line in lines if line and not line.startswith("#"))
    return dict(line.split("==") for line in named)


def licence(package: str) -> str:
    """What a package says of itself: expression, classifiers, or text."""
    about = importlib.metadata.metadata(package)
    if about.get("License-Expression"):
        return about["License-Expression"]
    marks = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: ")
    ]
    marks = [mark for mark in marks if mark != "OSI Approved"]
    text = (about.get("License") or "").strip().splitlines()
    return ", ".join(marks) or (text[0] if text else "not stated")


def page(constraints: str) -> str:
    """The whole page as Markdown."""
    rows = []
    for name, version in pins(constraints).items():
        try:
            words = licence(name)
        except importlib.metadata.PackageNotFoundError:
            words = "not installed here"
        rows.append(f"| {name} | {version} | {words.replace('|', '/')} |\n")
    return HEAD + "".join(rows)


def main() -> None:
    """Print the page, or write it."""
    text = page((ROOT / "constraints.txt").read_text())
    if "--write" in sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
