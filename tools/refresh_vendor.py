"""Fetch the scripts of other projects again and check them.

The book contacts no foreign host, so the scripts that it needs are kept in
book/_static/vendor; axe-core, which checks its pages, in tests/vendor. To
move to a new version: change it and its SHA-256 here and
in NOTICE.md, run this, and look at a page with a slider and with equations.

Usage: python tools/refresh_vendor.py      (needs npm)
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from pathlib import Path

from serendifflib.io import sha256_file, write_bytes

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "book/_static/vendor"
CHECKER = ROOT / "tests/vendor"
FONTS = "package/es5/output/chtml/fonts/woff-v2/"

# package, {member of its archive: (file here, SHA-256)}
PACKAGES = {
    "requirejs@2.3.8": {
        "package/require.js": (
            "require.js",
            "c1fc6b1d53af7522f78d664922abb32acac64ed0ecccb8f907f1e6fc7262563a",
        ),
    },
    "@jupyter-widgets/html-manager@1.0.15": {
        "package/dist/embed-amd.js": (
            "embed-amd.js",
            "ca87dff57c70ffb2658794fde0eab0e27e5f5472a1f5df7ab2b08e1039fc4b72",
        ),
        "package/dist/1551f4f60c37af51121f.woff2": (
            "1551f4f60c37af51121f.woff2",
            "9834b82ad26e2a37583d22676a12dd2eb0fe7c80356a2114d0db1aa8b3899537",
        ),
        "package/dist/d878b0a6a1144760244f.woff2": (
            "d878b0a6a1144760244f.woff2",
            "8ea8791754915a898a3100e63e32978a6d1763be6df8e73a39d3a90d691cdeef",
        ),
        "package/dist/7a3337626410ca2f4071.woff2": (
            "7a3337626410ca2f4071.woff2",
            "e42a88444448ac3d60549cc7c1ff2c8a9cac721034c073d80a14a44e79730cca",
        ),
    },
    "mathjax@3.2.2": {
        "package/es5/tex-chtml.js": (
            "mathjax/tex-chtml.js",
            "0a6ded5abbce13331658dd239f34382abd06492c74b71b61e8caa8112ec55fa5",
        ),
    },
}

# what only the tests need
CHECKERS = {
    "axe-core@4.14.1": {
        "package/axe.min.js": (
            "axe.min.js",
            "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
        ),
    },
}


def fetch(package: str, folder: Path) -> Path:
    """Download one package as an archive; return the archive."""
    done = subprocess.run(
        ["npm", "pack", "--silent", package, "--pack-destination", folder],
        check=True,
        capture_output=True,
        text=True,
    )
    return folder / done.stdout.strip().splitlines()[-1]


def refresh(
    packages: dict[str, dict[str, tuple[str, str]]], vendor: Path
) -> list[str]:
    """Write every file whose checksum fits; return what did not fit.

    Args:
        packages: members of archives with their file name and SHA-256.
        vendor: folder of the files.
    """
    wrong = []
    with tempfile.TemporaryDirectory() as temporary:
        for package, members in packages.items():
            archive = tarfile.open(fetch(package, Path(temporary)))
            with archive:
                for member, (name, sha256) in members.items():
                    content = archive.extractfile(member).read()
                    target = Path(temporary) / "member"
                    target.write_bytes(content)
                    if sha256_file(target) != sha256:
                        wrong.append(f"{package} {member}")
                    else:
                        write_bytes(vendor / name, content)
                for member in archive.getnames():
                    if member.startswith(FONTS):
                        path = (
                            vendor / "mathjax" / member[len("package/es5/") :]
                        )
                        write_bytes(path, archive.extractfile(member).read())
    return wrong


if __name__ == "__main__":
    wrong = refresh(PACKAGES, VENDOR) + refresh(CHECKERS, CHECKER)
    raise SystemExit("\n".join(wrong) or None)
