"""Downloads that break, lie, or are killed; archives that want out."""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
import types
import zipfile
from unittest import mock

import pytest

import serendifflib
from serendifflib.data import download as downloads
from serendifflib.data.download import download, unpack, verify
from serendifflib.errors import CacheError, DataError, DownloadError

BODY = random.Random(0).randbytes(200_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
KNOWN = {"size": len(BODY), "sha256": SHA256}


def get(server, path, **options):
    server.files.setdefault("/f", BODY)
    settings = {"limit": 1 << 20} | options
    attempts = settings.pop("attempts", 3)
    url = server.url + settings.pop("at", "/f")
    with mock.patch.multiple(downloads, ATTEMPTS=attempts, WAIT_S=0.01):
        return download(url, path, **settings)


def left_over(path):
    """Files beside ``path`` other than the lock."""
    return sorted(
        name for name in os.listdir(path.parent) if not name.endswith(".lock")
    )


def test_fetched_once_and_found_again(server, tmp_path):
    path = tmp_path / "deep" / "f.bin"
    assert get(server, path, **KNOWN) == path
    assert path.read_bytes() == BODY
    get(server, path, **KNOWN)
    assert server.requests == [("/f", None)]
    assert left_over(path) == ["f.bin"]


def test_broken_connection_goes_on_where_it_stopped(server, tmp_path):
    path = tmp_path / "f.bin"
    server.faults["/f"] = [("cut", 65_536), None]
    get(server, path, **KNOWN)
    assert path.read_bytes() == BODY
    assert server.requests == [("/f", None), ("/f", "bytes=65536-")]


def test_next_call_goes_on_as_well(server, tmp_path):
    path = tmp_path / "f.bin"
    server.faults["/f"] = [("cut", 65_536), None]
    with pytest.raises(DownloadError, match="; 65,536 bytes are kept"):
        get(server, path, attempts=1, **KNOWN)
    assert left_over(path) == ["f.bin.part"]
    get(server, path, **KNOWN)
    assert path.read_bytes() == BODY
    assert server.requests[1] == ("/f", "bytes=65536-")
    assert left_over(path) == ["f.bin"]


def test_server_without_ranges_sends_all_again(server, tmp_path):
    path = tmp_path / "f.bin"
    server.faults["/f"] = [("cut", 65_536), "no-range"]
    get(server, path, **KNOWN)
    assert path.read_bytes() == BODY


def test_server_without_lengths(server, tmp_path):
    path = tmp_path / "f.bin"
    server.faults["/f"] = ["no-length"]
    get(server, path, **KNOWN)
    assert path.read_bytes() == BODY


def test_complete_part_is_only_verified(server, tmp_path):
    path = tmp_path / "f.bin"
    path.with_name("f.bin.part").write_bytes(BODY)
    get(server, path, **KNOWN)
    assert server.requests == []
    assert path.read_bytes() == BODY


def test_complete_part_of_unknown_size(server, tmp_path):
    path = tmp_path / "f.bin"
    path.with_name("f.bin.part").write_bytes(BODY)
    get(server, path)
    assert path.read_bytes() == BODY


def test_part_longer_than_the_file_is_dropped(server, tmp_path):
    path = tmp_path / "f.bin"
    path.with_name("f.bin.part").write_bytes(BODY + b"more")
    get(server, path, **KNOWN)
    assert path.read_bytes() == BODY


def test_part_of_another_file_is_found_out(server, tmp_path):
    path = tmp_path / "f.bin"
    path.with_name("f.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(
        DownloadError, match=r"SHA-256 is \w{16}\.\.\. instead"
    ):
        get(server, path, **KNOWN)
    assert left_over(path) == []
    get(server, path, **KNOWN)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("changed", [BODY[:-1] + b"\x00", BODY[:-5]])
def test_wrong_content_is_removed(server, tmp_path, changed):
    path = tmp_path / "f.bin"
    server.files["/f"] = changed
    with pytest.raises(DownloadError, match="not the expected file"):
        get(server, path, **KNOWN)
    assert left_over(path) == []


def test_pointer_instead_of_data_is_explained(server, tmp_path):
    path = tmp_path / "f.bin"
    server.files["/f"] = b"version https://git-lfs.github.com/spec/v1\noid"
    with pytest.raises(DownloadError, match="git lfs pull"):
        get(server, path, **KNOWN)


@pytest.mark.parametrize("fault", [None, "no-length"])
def test_size_limit(server, tmp_path, fault):
    path = tmp_path / "f.bin"
    server.faults["/f"] = [fault]
    with pytest.raises(DownloadError, match="above the limit of 100,000"):
        get(server, path, limit=100_000)
    assert left_over(path) == []


def test_error_statuses(server, tmp_path):
    path = tmp_path / "f.bin"
    server.faults["/f"] = [("status", 404), None]
    with pytest.raises(DownloadError, match="the server says 404"):
        get(server, path, **KNOWN)
    server.faults["/f"] = [("status", 503), None]
    get(server, path, **KNOWN)
    assert path.read_bytes() == BODY


def test_no_connection_is_one_line(tmp_path):
    nobody = types.SimpleNamespace(url="http://127.0.0.1:9", files={})
    with pytest.raises(DownloadError, match="cannot be fetched") as caught:
        get(nobody, tmp_path / "f.bin", attempts=2)
    assert "\n" not in str(caught.value)
    assert left_over(tmp_path / "f.bin") == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/f",
        "file:///etc/hosts",
        "ftp://example.org/f",
        "https:///f",
        "/etc/hosts",
        "http://localhost.example.org/f",
        "http://127.0.0.1@example.org/f",
    ],
)
def test_only_https(tmp_path, url):
    with pytest.raises(DownloadError, match="only https"):
        download(url, tmp_path / "f", limit=9)


@pytest.mark.parametrize(
    "target",
    [
        "http://example.org/f",
        "http://localhost:80@example.org/f",
        "ftp://example.org/f",
        "file:///etc/hosts",
    ],
)
def test_redirects_stay_on_https(server, tmp_path, target):
    server.faults["/a"] = [("redirect", target)]
    with pytest.raises(DownloadError, match=f"only https .* '{target}'"):
        get(server, tmp_path / "f", at="/a", attempts=1)
    assert left_over(tmp_path / "f") == []


def test_redirects_are_followed(server, tmp_path):
    server.faults["/a"] = [("redirect", server.url + "/f")]
    assert get(server, tmp_path / "f", at="/a").read_bytes() == BODY


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot write"):
        get(server, tmp_path / "file" / "f.bin")


# The package itself imports torch; its parts do not need that here.
PROGRAM = f"""
import sys, types
package = types.ModuleType("serendifflib")
package.__path__ = {list(serendifflib.__path__)!r}
sys.modules["serendifflib"] = package
from serendifflib.data.download import download
download(sys.argv[1], sys.argv[2], limit=1 << 20,
         size=200000, sha256=sys.argv[3])
"""


def start(server, path):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url + "/f", path, SHA256],
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_once_it_runs(server, path, share, before):
    """SIGKILL when ``share`` of the file is there; its bytes by then."""
    part = path.with_name(path.name + ".part")
    process = start(server, path)
    while process.poll() is None:
        have = part.stat().st_size if part.exists() else 0
        if have > before and have >= share * len(BODY):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.communicate()
    return process.returncode


@pytest.mark.parametrize(
    "kills", [2, pytest.param(10, marks=pytest.mark.slow)]
)
def test_killed_downloads_end_in_the_same_file(server, tmp_path, kills):
    server.files["/f"] = BODY
    server.faults["/f"] = [("slow", 0.02)]
    path = tmp_path / "f.bin"
    part = tmp_path / "f.bin.part"
    rng = random.Random(1)
    for number in range(kills):
        before = part.stat().st_size if part.exists() else 0
        share = rng.uniform(number, number + 1) / (kills + 1)
        assert kill_once_it_runs(server, path, share, before) == -9
        assert not path.exists()
    server.faults["/f"] = [None]
    get(server, path, **KNOWN)
    assert path.read_bytes() == BODY
    assert left_over(path) == ["f.bin"]
    went_on = [wanted for _, wanted in server.requests if wanted]
    assert went_on


def test_two_at_once_fetch_it_once(server, tmp_path):
    server.files["/f"] = BODY
    server.faults["/f"] = [("slow", 0.02)]
    path = tmp_path / "f.bin"
    processes = [start(server, path) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert path.read_bytes() == BODY
    assert len(server.requests) == 1


def test_full_disk_is_one_line_and_leaves_no_file(server, tmp_path):
    server.files["/f"] = BODY
    path = tmp_path / "f.bin"
    limits = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (50000,)*2)\n"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            limits + PROGRAM,
            server.url + "/f",
            path,
            SHA256,
        ],
        capture_output=True,
        text=True,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("serendifflib.errors.CacheError: cannot write")
    assert "free some space" in last
    assert not path.exists()


# --- verify --------------------------------------------------------------


def test_verify(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(BODY)
    verify(path, **KNOWN)
    verify(path)
    with pytest.raises(DataError, match="instead of 200,001; it is cut short"):
        verify(path, size=200_001)
    with pytest.raises(DataError, match="200,000 bytes instead of 9"):
        verify(path, size=9)
    with pytest.raises(DataError, match="SHA-256"):
        verify(path, sha256="0" * 64)
    with pytest.raises(DataError, match="cannot be read"):
        verify(tmp_path / "nowhere")


# --- archives ------------------------------------------------------------


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stored:
        for name, content in members:
            stored.writestr(name, content)
    return path


def test_members_are_found_at_any_depth(tmp_path):
    path = archive(
        tmp_path / "a.zip",
        [
            ("top/", b""),
            ("top/old/x.csv", b"old"),
            ("top/x.csv", b"new"),
            ("top/y.csv", b"y"),
            ("top/z.csv", b"z"),
        ],
    )
    folder = unpack(
        path, ["x.csv"], tmp_path / "out", limit=9, optional=["y.csv", "q"]
    )
    assert sorted(os.listdir(folder)) == ["x.csv", "y.csv"]
    assert (folder / "x.csv").read_bytes() == b"new"


@pytest.mark.parametrize(
    "name",
    [
        "../x.csv",
        "a/../../x.csv",
        "/etc/x.csv",
        "..\\x.csv",
        "C:\\x.csv",
        "a/..",
    ],
)
def test_no_path_of_an_archive_leads_out(tmp_path, name):
    path = archive(tmp_path / "a.zip", [("x.csv", b"x"), (name, b"evil")])
    unpack(path, ["x.csv"], tmp_path / "out", limit=9)
    found = [name for _, _, files in os.walk(tmp_path) for name in files]
    found = [name for name in found if not name.endswith(".lock")]
    assert sorted(found) == ["a.zip", "x.csv"]
    assert (tmp_path / "out" / "x.csv").read_bytes() == b"x"


def test_a_link_becomes_a_plain_file(tmp_path):
    link = zipfile.ZipInfo("x.csv")
    link.external_attr = 0o120777 << 16
    path = archive(tmp_path / "a.zip", [(link, "/etc/hosts")])
    unpack(path, ["x.csv"], tmp_path / "out", limit=99)
    assert not (tmp_path / "out" / "x.csv").is_symlink()
    assert (tmp_path / "out" / "x.csv").read_bytes() == b"/etc/hosts"


def test_bombs_are_refused(tmp_path):
    path = archive(tmp_path / "a.zip", [("x.csv", b"0" * 10_000_000)])
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match="unpacks to 10,000,000 bytes"):
        unpack(path, ["x.csv"], tmp_path / "out", limit=1_000_000)


def test_a_lie_about_the_size_is_found_out(tmp_path):
    path = archive(tmp_path / "a.zip", [("x.csv", b"0" * 1_000_000)])
    honest = (1_000_000).to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(honest) == 2
    path.write_bytes(content.replace(honest, (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="no whole zip"):
        unpack(path, ["x.csv"], tmp_path / "out", limit=100)
    assert not (tmp_path / "out" / "x.csv").exists()


def test_damaged_archives(tmp_path):
    path = archive(tmp_path / "a.zip", [("x.csv", BODY[:5000])])
    whole = path.read_bytes()
    for broken in (
        b"",
        b"no zip",
        whole[: len(whole) // 2],
        whole[:2000] + b"\x00\x01" + whole[2002:],
    ):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.zip"):
            unpack(path, ["x.csv"], tmp_path / "out", limit=9999)
        assert not (tmp_path / "out" / "x.csv").exists()
    with pytest.raises(DataError, match="cannot be read"):
        unpack(tmp_path / "b.zip", ["x"], tmp_path / "out", limit=9)


def test_encrypted_member(tmp_path):
    path = archive(tmp_path / "a.zip", [("x.csv", b"x")])
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="encrypted"):
        unpack(path, ["x.csv"], tmp_path / "out", limit=9)


def test_downloaded_archive_is_tested(server, tmp_path):
    stream = io.BytesIO()
    archive(stream, [("x.csv", BODY[:5000])])
    whole = stream.getvalue()
    server.files["/z"] = whole[:2000] + b"\x00\x01" + whole[2002:]
    path = tmp_path / "z.zip"
    with pytest.raises(DownloadError, match="is damaged|no whole zip"):
        get(server, path, at="/z")
    assert left_over(path) == []
    server.files["/z"] = whole
    assert get(server, path, at="/z").read_bytes() == whole


# --- one wrong byte -------------------------------------------------------


def small_archive():
    stream = io.BytesIO()
    archive(stream, [("top/x.csv", b"a,b\n1,2\n" * 9), ("y", b"other")])
    return stream.getvalue()


def faulty(whole):
    """Each byte with its lowest bit, its highest, and all bits turned."""
    for place in range(len(whole)):
        for turned in (0x01, 0x80, 0xFF):
            broken = bytearray(whole)
            broken[place] ^= turned
            yield place, bytes(broken)


def test_one_wrong_byte_of_an_archive(tmp_path):
    """It is told, or harmless; never a traceback, never blamed on the disk."""
    whole = small_archive()
    path, told = tmp_path / "a.zip", 0
    for number, (place, broken) in enumerate(faulty(whole)):
        path.write_bytes(broken)
        folder = tmp_path / f"{number}"
        try:
            unpack(path, ["x.csv"], folder, limit=999)
        except DataError as error:
            assert "a.zip" in str(error) and "\n" not in str(error), place
            assert not folder.exists() or not os.listdir(folder)
            told += 1
        else:
            content = (folder / "x.csv").read_bytes()
            assert content == b"a,b\n1,2\n" * 9, place
    assert told > len(whole)


def test_one_wrong_byte_of_a_download_wedges_nothing(server, tmp_path):
    whole = small_archive()
    path = tmp_path / "z.zip"
    end = [b for place, b in faulty(whole) if place >= len(whole) - 22]
    for broken in end:  # the directory's end, where a wrong byte wedged it
        server.files["/z"] = broken
        try:
            get(server, path, at="/z", attempts=1)
        except DownloadError as error:
            assert "it was removed" in str(error)
            assert left_over(path) == []
        else:
            path.unlink()
    server.files["/z"] = whole
    assert get(server, path, at="/z").read_bytes() == whole


def test_a_file_that_stands_twice_in_an_archive(tmp_path):
    path = archive(
        tmp_path / "a.zip", [("a/x.csv", b"one"), ("b/x.csv", b"two")]
    )
    with pytest.raises(DataError, match=r"holds 'x\.csv' twice"):
        unpack(path, ["x.csv"], tmp_path / "out", limit=9)
