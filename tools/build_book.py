"""Build the book so that no stale output and no silent gap can survive.

The execution cache of Jupyter Book knows a notebook's code cells and nothing
else: change the library or the profile and it serves yesterday's figures. So
the cache lives in a folder whose name is a fingerprint of all that the
outputs depend on, and pages are always written from scratch.

Usage: python tools/build_book.py [--clean] [--workers 2]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import yaml
from bs4 import BeautifulSoup
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import DeadKernelError

from serendifflib.errors import SerenDiffError
from serendifflib.io import content_hash, data_dir, sha256_file
from serendifflib.profiles import current_profile

ROOT = Path(__file__).resolve().parent.parent
CELL_SECONDS = 600  # no cell may take longer
TRAINER = "08_training"  # trains what other chapters load
OPEN_BENCH = (
    "from serendifflib.experiments.prepared import open_bench; open_bench()"
)
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
PART = re.compile(r'"IPY_MODEL_(\w+)"')
COMMON = [  # what the kernels have imported before they begin
    "ipykernel.kernelapp",
    "seaborn",
    "sentence_transformers",
    "torch._dynamo",  # which every optimiser imports
    "serendifflib.experiments.tables",
    "serendifflib.viz.diffusion_plots",
]
OPENED = "tools.build_book"  # this file under another name: see its end
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
        if path.is_file() and "__pycache__" not in path.parts
    ]
    files.append(root / "constraints.txt")
    sources = [[str(p.relative_to(root)), sha256_file(p)] for p in files]
    installed = sorted(
        f"{package.metadata['Name']}=={package.version}"
        for package in importlib.metadata.distributions()
    )
    # The place of the cache changes nothing; that of the data may. That the
    # pages are static is true of every build.
    settings = sorted(
        [name, value]
        for name, value in os.environ.items()
        if name.startswith(("SERENDIFF_", "CUDA_VISIBLE_DEVICES"))
        and name not in ("SERENDIFF_CACHE", "SERENDIFF_PAGES")
    )
    # by size and time, for a data set may take minutes to read
    data = [
        [
            str(path.relative_to(data_dir())),
            path.stat().st_size,
            path.stat().st_mtime_ns,
        ]
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


def prepare() -> int:
    """Encode the reviews of the default world, if that was not done yet.

    Nearly every notebook needs them. Two kernels that start with an empty
    cache would both encode them, each at half the speed.
    """
    print("preparing the vectors of the default world", flush=True)
    return subprocess.run([sys.executable, "-c", OPEN_BENCH]).returncode


class Forked:
    """A forked kernel, with the names that its manager uses."""

    stdin = stdout = stderr = None

    def __init__(self, process: Any):
        self.process, self.pid = process, process.pid
        self.kill, self.terminate = process.kill, process.terminate

    def poll(self) -> int | None:
        """Exit status, None while it runs."""
        return self.process.exitcode

    def wait(self) -> int | None:
        """Exit status, when it has ended."""
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel."""
        os.kill(self.pid, number)


class WarmKernels(AsyncKernelManager):
    """Kernels that are forked from one process with the libraries imported.

    All chapters import the same ones, and most open the same fold: six
    seconds of a core in each.
    """

    async def _async_launch_kernel(self, command: list[str], **how: Any):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(COMMON)
        arguments = command[command.index("ipykernel_launcher") + 1 :]
        process = context.Process(
            target=run_kernel, args=(arguments, how["cwd"], how["env"])
        )
        process.start()
        self.provisioner.process = Forked(process)
        self._reconcile_connection_info(self.provisioner.connection_info)


def kernels() -> type[AsyncKernelManager]:
    """Warm ones where a fork is safe; CUDA does not survive one."""
    import torch

    safe = sys.platform == "linux" and not torch.cuda.is_available()
    return WarmKernels if safe else AsyncKernelManager


def run_kernel(
    arguments: list[str], folder: str, environment: dict[str, str]
) -> None:
    """Be a kernel in a folder, until it is shut down or the build ends."""
    from ipykernel.kernelapp import launch_new_instance

    build = multiprocessing.parent_process()
    os.setsid()  # as other kernels: Ctrl-C is for the build
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    parent = f"--IPKernelApp.parent_handle={os.getppid()}"
    sys.argv = ["ipykernel_launcher", *arguments, parent]
    tools = str(Path(__file__).parent)
    sys.path = ["", *(path for path in sys.path if path != tools)]

    def end_with_the_build() -> None:
        build.join()
        os._exit(1)

    threading.Thread(target=end_with_the_build, daemon=True).start()
    launch_new_instance()


def in_working_order(
    notebooks: list[tuple[Path, nbformat.NotebookNode]],
) -> list[tuple[Path, nbformat.NotebookNode]]:
    """The chapter that trains first, those that load its models last.

    In the order of the book, a core would do nothing for minutes: the next
    chapter waits for the models that this one trains.
    """

    def turn(task: tuple[Path, nbformat.NotebookNode]) -> int:
        path, notebook = task
        if path.stem == TRAINER:
            return 0
        return (
            2 if any("load_or_fit(" in c.source for c in notebook.cells) else 1
        )

    return sorted(notebooks, key=turn)


def execute(notebooks: list[Path], cache_path: Path, workers: int) -> bool:
    """Run the notebooks that the cache does not hold.

    Two at a time, because a kernel spends much of its life importing, and
    ordered so that nobody waits for another's model.

    Args:
        notebooks: files, first to last.
        cache_path: the folder from which the pages take their outputs.
        workers: kernels at a time.

    Returns:
        Whether all of them ran without an error.
    """
    cache = get_cache(cache_path)
    pending = []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            pending.append((path, notebook))
    pending = in_working_order(pending)

    def run(task: tuple[Path, nbformat.NotebookNode]) -> ExecutionResult:
        path, notebook = task
        try:
            return single_nb_execution(
                notebook,
                str(path.parent),
                CELL_SECONDS,
                allow_errors=False,
                extra_arguments=["--log-level=ERROR"],  # of the kernel itself
                kernel_manager_class=kernels(),
                startup_timeout=CELL_SECONDS,
            )
        except DeadKernelError as error:  # killed, e.g. for lack of memory
            return ExecutionResult(notebook, str(path), 0.0, error, str(error))

    # kernels that each use all cores would spend their time waiting for each
    # other: with two kernels on two cores a training step took five times
    # as long
    threads = max(1, (os.cpu_count() or 1) // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ["SERENDIFF_PAGES"] = "static"  # readers will have no kernel
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    good = True
    print(f"{len(pending)} of {len(notebooks)} notebooks to run", flush=True)
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(run, pending)
        for (path, notebook), result in zip(pending, results, strict=True):
            if result.err is not None:
                good = False
                print(
                    f"\n--- {path.name} ---\n{result.exc_string}", flush=True
                )
                continue
            drop_progress_bars(notebook)
            bundle = CacheBundleIn(
                notebook, str(path), data={"execution_seconds": result.time}
            )
            cache.cache_notebook_bundle(
                bundle, check_validity=False, overwrite=True
            )
            print(f"{path.stem}: {result.time:.0f} s", flush=True)
    return good


def drop_progress_bars(notebook: nbformat.NotebookNode) -> None:
    """Take the progress bars out of an executed notebook, in place.

    On a page a bar has long stopped and tells nobody anything. Whether there
    was one depends on what the caches held, so that pages would differ.
    """
    widgets = notebook.metadata.get("widgets", {})
    models = widgets.get(STATE, {}).get("state", {})
    parts = {
        name: set(PART.findall(json.dumps(model["state"])))
        for name, model in models.items()
    }
    bars = {
        name
        for name, model in models.items()
        if model["model_name"] == "FloatProgressModel"
    }
    # a bar stands in a box beside its texts; each has a layout and a style
    boxes = [name for name, inside in parts.items() if inside & bars]
    going = list(boxes)
    for name in going:
        if models.pop(name, None) is not None:
            going += parts[name]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("data", {}).get(VIEW, {}).get("model_id")
                not in boxes
            ]


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


def build(
    root: Path = ROOT,
    *,
    clean: bool = False,
    workers: int = 2,
    start: float | None = None,
) -> int:
    """Execute the notebooks and write the book; return an exit status.

    Args:
        root: folder with ``_config.yml`` and ``_toc.yml``.
        clean: forget executed notebooks first.
        workers: notebooks that run at a time.
        start: when the work began, by the monotonic clock; None is now.
    """
    start = start or time.monotonic()
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    pages = toc_pages(toc)
    html = root / "_build/html"
    cache = root / "_build/executed" / fingerprint(root)
    if clean:
        shutil.rmtree(cache.parent, ignore_errors=True)
    remove_stale(keep=cache)
    config = write_config(root, cache)
    profile = current_profile().name
    print(f"{len(pages)} pages, profile {profile}", flush=True)

    def failed(why: str) -> int:
        seconds = time.monotonic() - start
        print(f"make book: failed after {seconds:.0f} s: {why}")
        return 1

    files = [root / f"{page}.ipynb" for page in pages]
    notebooks = [path for path in files if path.is_file()]
    if not execute(notebooks, cache, workers):
        return failed("a notebook does not run, see above")
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", "."]
    command += ["--config", str(config), "-W", "-n", "--keep-going"]
    if subprocess.run(command, cwd=root).returncode:
        return failed("warnings of the build, see above")
    missing = missing_pages(pages, html)
    if missing:
        return failed("pages are missing: " + "; ".join(missing))
    seconds = time.monotonic() - start
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
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="notebooks that run at a time (default 2)",
    )
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="only encode the reviews of the default world",
    )
    arguments = parser.parse_args()
    start = time.monotonic()
    status = prepare()
    if status or arguments.prepare:
        return status
    COMMON.append(OPENED)
    try:
        return build(
            clean=arguments.clean, workers=arguments.workers, start=start
        )
    except SerenDiffError as error:
        print(f"make book: {error}", file=sys.stderr)
        return 2


if __name__ == OPENED:  # in the process from which kernels are forked
    import torch

    from serendifflib.experiments.prepared import open_bench

    torch.set_num_threads(1)  # a fork does not survive a pool of threads
    open_bench()

if __name__ == "__main__":
    raise SystemExit(main())
