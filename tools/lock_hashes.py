"""Write constraints-hashes.txt: the SHA-256 of every pinned wheel.

Run on Linux, x86-64, with Python 3.11, after constraints.txt has changed:

    python tools/lock_hashes.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# SHA-256 of what constraints.txt pins: tools/lock_hashes.py writes this file.
# Not covered: torch and what it brings for a GPU, whose builds differ by
# machine; other systems than Linux on x86-64 with Python 3.11; setuptools.
"""


def main() -> None:
    """Ask pip which wheels it would take, and write down their hashes."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [x for x in lines if not x.startswith(("#", "torch=="))]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet"]
        command += ["--dry-run", "--no-deps", "--ignore-installed"]
        command += ["--only-binary", ":all:", "--report", str(report), *pins]
        subprocess.run(command, check=True)
        wheels = json.loads(report.read_text())["install"]
    (ROOT / "constraints-hashes.txt").write_text(HEAD + locked(wheels))


def locked(wheels: list[dict]) -> str:
    """One line a wheel, as ``pip install --require-hashes`` reads it."""
    lines = [
        f"{one['metadata']['name'].lower()}=={one['metadata']['version']}"
        f" --hash=sha256:"
        f"{one['download_info']['archive_info']['hashes']['sha256']}\n"
        for one in wheels
    ]
    return "".join(sorted(lines))


if __name__ == "__main__":
    main()
