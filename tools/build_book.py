"""Build the book so that no stale output and no silent gap can survive.

The execution cache of Jupyter Book knows a notebook's code cells and nothing
else: change the library or the profile and it serves yesterday's figures. So
the cache lives in a folder whose name is a fingerprint of all that the
outputs depend on, and pages are always written from scratch.

Usage: python tools/build_book.py [--clean]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup

from serendifflib.errors import SerenDiffError
from serendifflib.io import content_hash, sha256_file
from serendifflib.paths import data_dir
from serendifflib.profiles import current_profile

ROOT = Path(__file__).resolve().parent.parent
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def toc_pages(toc: dict[str, Any]) -> list[str]:
    """Every page that a table of contents lists, root first, no suffixes.

    >>> toc_pages({"root": "a", "parts": [{"chapters": [{"file": "b"}]}]})
    ['a', 'b']
    """

    def walk(entry: Any) -> Iterator[str]:
        if isinstance(entry, dict):
            for key, value in entry.items():
                if key in ("root", "file"):
                    yield str(Path(value).with_suffix(""))
                else:
                    yield from walk(value)
        elif isinstance(entry, list):
            for value in entry:
                yield from walk(value)

    return list(walk(toc))


def fingerprint(root: Path = ROOT) -> str:
    """Hash of what the outputs of the notebooks depend on, cells aside.

    The library, the recorded runs, the pinned and the installed versions,
    the Python, the settings in the environment and the data at hand.
    """
    files = [
        path
        for folder in ("serendifflib", "results")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.suffix in {".py", ".json", ".npz"}
    ]
    files.append(root / "constraints.txt")
    sources = [[str(p.relative_to(root)), sha256_file(p)] for p in files]
    installed = sorted(
        f"{package.metadata['Name']}=={package.version}"
        for package in importlib.metadata.distributions()
    )
    # The place of the cache changes nothing; that of the data may.
    settings = sorted(
        [name, value]
        for name, value in os.environ.items()
        if name.startswith(("SERENDIFF_", "CUDA_VISIBLE_DEVICES"))
        and name != "SERENDIFF_CACHE"
    )
    data = [
        [str(path.relative_to(data_dir())), path.stat().st_size]
        for path in sorted(data_dir().rglob("*"))
        if path.is_file()
    ]
    return content_hash(
        sources,
        installed,
        sys.version,
        settings,
        current_profile().name,
        data,
    )[:16]


def write_config(root: Path, cache: Path) -> Path:
    """Write ``_config.yml`` with the named cache; return the new file."""
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    config["execute"]["execute_notebooks"] = "cache"
    config["execute"]["cache"] = str(cache)
    extensions = config.get("sphinx", {}).get("local_extensions", {})
    for name, folder in extensions.items():
        extensions[name] = str(root / folder)
    path = cache.parent / "config.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    return path


def remove_stale(keep: Path) -> None:
    """Delete pages, doctrees and every execution cache but ``keep``."""
    build = keep.parent.parent
    for name in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(build / name, ignore_errors=True)
    for folder in keep.parent.glob("*/"):
        if folder != keep:
            shutil.rmtree(folder)


def print_reports(html: Path) -> None:
    """Print the traceback of every notebook that failed."""
    for report in sorted((html / "reports").rglob("*.log")):
        name = report.relative_to(html / "reports")
        print(f"\n--- {name} ---\n{report.read_text('utf-8')}", flush=True)


def missing_pages(pages: list[str], html: Path) -> list[str]:
    """Pages of the table of contents that were not built, or are empty."""
    missing = []
    for page in pages:
        path = html / f"{page}.html"
        if not path.is_file():
            missing.append(f"{page}: not built")
            continue
        soup = BeautifulSoup(path.read_text("utf-8"), "html.parser")
        article = soup.find("article")
        if article is None or len(article.get_text(strip=True)) < 100:
            missing.append(f"{page}: empty")
    return missing


def build(root: Path = ROOT, *, clean: bool = False) -> int:
    """Execute the notebooks and write the book; return an exit status.

    Args:
        root: folder with ``_config.yml`` and ``_toc.yml``.
        clean: forget executed notebooks first.
    """
    start = time.monotonic()
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    pages = toc_pages(toc)
    html = root / "_build/html"
    cache = root / "_build/executed" / fingerprint(root)
    if clean:
        shutil.rmtree(cache.parent, ignore_errors=True)
    remove_stale(keep=cache)
    config = write_config(root, cache)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", "."]
    command += ["--config", str(config), "-W", "-n", "--keep-going"]
    profile = current_profile().name
    print(f"{len(pages)} pages, profile {profile}", flush=True)
    status = subprocess.run(command, cwd=root).returncode
    seconds = time.monotonic() - start
    if status:
        print_reports(html)
        print(f"make book: failed after {seconds:.0f} s, see above")
        return status
    missing = missing_pages(pages, html)
    if missing:
        print("make book: failed, pages are missing:", *missing, sep="\n  ")
        return 1
    print(f"make book: {len(pages)} pages in {seconds:.0f} s")
    print(f"first page: {html / (pages[0] + '.html')}")
    return 0


def main() -> int:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--clean",
        action="store_true",
        help="forget executed notebooks first and run all of them again",
    )
    arguments = parser.parse_args()
    try:
        return build(clean=arguments.clean)
    except SerenDiffError as error:
        print(f"make book: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
