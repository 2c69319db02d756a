from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from checkpoint.web import Web

from ofa_core import CheckpointError
from ofa_core.checkpoint import cache, download
from ofa_core.checkpoint.cache import downloaded

PATH = "/checkpoints/some.pt"
URL = f"https://example.invalid{PATH}"
CONTENT = random.Random(0).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def file(web: Web) -> None:
    web.files[PATH] = CONTENT


def get(digest: str = "") -> Path:
    return download.download(URL, downloaded("some.pt"), digest=digest)


def get_cut(web: Web, monkeypatch: pytest.MonkeyPatch, behind: int = 1_200_000) -> None:
    """Download the beginning alone."""
    web.cuts = [behind]
    with monkeypatch.context() as patch:
        patch.setattr(download, "PAUSES", ())
        with pytest.raises(CheckpointError, match="cut off"):
            get()


def left() -> list[str]:
    """The names of what stands in the cache's directory of downloads, besides locks."""
    return sorted(path.name for path in downloaded("x").parent.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_downloaded_once_and_its_digest_is_written_down(web: Web, capsys: pytest.CaptureFixture) -> None:
    assert get().read_bytes() == CONTENT
    assert left() == ["some.pt"]
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert f"some.pt has sha256 {sha256}, taken on trust, since none is published" in capsys.readouterr().err
    record = cache.read_record(downloaded("some.pt"))
    assert (record["sha256"], record["bytes"], record["url"]) == (sha256, len(CONTENT), f"{web.address}{PATH}")
    get()
    assert web.gets() == [(PATH, "")]


def test_progress_is_shown(capsys: pytest.CaptureFixture) -> None:
    get()
    assert "3.00M/3.00M" in capsys.readouterr().err


def test_a_connection_that_is_cut_goes_on_where_it_stopped(web: Web) -> None:
    web.cuts = [1_200_000, 700_000]
    assert get().read_bytes() == CONTENT
    assert web.gets() == [(PATH, ""), (PATH, "bytes=1200000-"), (PATH, "bytes=1900000-")]


def test_a_download_that_ended_goes_on_at_the_next_call(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSES", ())
    web.cuts = [1_200_000]
    with pytest.raises(CheckpointError, match=r"was cut off behind 1,200,000 of 3,000,000 bytes \(the conn.*goes on"):
        get()
    assert left() == ["some.pt.part", "some.pt.part.json"]
    assert get().read_bytes() == CONTENT
    assert web.gets()[-1] == (PATH, "bytes=1200000-")
    assert left() == ["some.pt"]


def test_tries_end_where_nothing_comes(web: Web) -> None:
    web.cuts = [500, *[0] * 10]
    with pytest.raises(CheckpointError, match=r"was cut off behind 500 of 3,000,000 bytes"):
        get()
    assert len(web.gets()) == 1 + len(download.PAUSES)


@pytest.mark.parametrize("without", [("ETag",), ("ETag", "Content-Length")])
def test_what_cannot_be_told_apart_is_begun_anew(web: Web, without: tuple[str, ...]) -> None:
    web.cuts, web.without = ([1_200_000] if "Content-Length" not in without else []), without
    assert get().read_bytes() == CONTENT
    assert {span for _, span in web.gets()} == {""}


def test_a_server_that_gives_no_parts_is_asked_for_all_of_it(web: Web) -> None:
    web.cuts, web.ranges = [1_200_000], False
    assert get().read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_begun_anew(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    get_cut(web, monkeypatch)
    web.files[PATH] = CONTENT[::-1][:1_000_000]
    assert get().read_bytes() == web.files[PATH]


def test_a_part_that_is_longer_than_the_file_is_begun_anew(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    get_cut(web, monkeypatch)
    downloaded("some.pt.part").write_bytes(CONTENT + b"more")
    assert get().read_bytes() == CONTENT


def test_what_was_begun_from_another_address_is_not_gone_on_with(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    get_cut(web, monkeypatch)
    web.files[f"/mirror{PATH}"] = CONTENT
    monkeypatch.setenv("OFA_RELEASES_URL", f"{web.address}/mirror/")
    assert get().read_bytes() == CONTENT
    assert web.gets()[-1] == (f"/mirror{PATH}", "")


def test_passing_troubles_of_the_server_are_waited_for(web: Web) -> None:
    web.statuses = [503, 429, 500]
    assert get().read_bytes() == CONTENT
    web.statuses = [503] * 20
    with pytest.raises(
        CheckpointError, match=r"cannot be read \(503 Service Unavailable\); if you have other\.pt from"
    ):
        download.download(URL, downloaded("other.pt"))


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (403, "Forbidden"), (401, "Unauthorized")])
def test_an_answer_without_the_file_is_one_line(web: Web, status: int, reason: str) -> None:
    web.statuses = [status]
    with pytest.raises(CheckpointError) as caught:
        get()
    place = downloaded("some.pt")
    expected = f"{web.address}{PATH} answers {status} {reason}; if you have some.pt from elsewhere, put it at {place}"
    assert str(caught.value) == expected
    assert left() == []


def test_without_a_network_the_address_and_the_place_are_named(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFA_RELEASES_URL", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError) as caught:
        get()
    assert f"http://127.0.0.1:9{PATH} cannot be reached" in str(caught.value)
    assert str(caught.value).endswith(f"put it at {downloaded('some.pt')}")
    downloaded("some.pt").write_bytes(b"by hand")
    assert get().read_bytes() == b"by hand"


@pytest.mark.parametrize("mirror", ["nonsense", "ftp2://x", "http://[::1"])
def test_a_mirror_that_is_no_address_is_one_line(monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("OFA_RELEASES_URL", mirror)
    with pytest.raises(CheckpointError, match=r"cannot be (asked for|reached)"):
        get()


def test_a_later_download_must_be_the_same(web: Web) -> None:
    get().unlink()
    web.files[PATH] = CONTENT[:-1] + b"?"
    with pytest.raises(CheckpointError, match=r"is not what was first downloaded on 20.*its sha256 is .*--forget some"):
        get()
    assert left() == []
    cache.remove_entries("some.pt", forget=True)
    assert get().read_bytes() == web.files[PATH]


def test_a_published_digest_is_compared(web: Web) -> None:
    with pytest.raises(CheckpointError, match=r"is not the file it should be: its sha256 is not 00000000\.\.\."):
        get("00000000")
    assert left() == []
    assert get(hashlib.sha256(CONTENT).hexdigest()[:8]).read_bytes() == CONTENT


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_room_is_told_before_anything_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10, 9, 1_000_000))
    with pytest.raises(
        CheckpointError, match=r"some\.pt needs 0\.00 GB more, .*downloads has 0\.00 GB free: make room"
    ):
        get()
    assert not downloaded("some.pt").exists()


def test_a_disk_that_fills_up_is_one_line_and_what_came_stays(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk with room for two blocks."""

        def __init__(self, file: Any) -> None:
            self.file, self.blocks = file, 0

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, block: bytes) -> None:
            self.blocks += 1
            if self.blocks > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.file.write(block)

    original = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", **o: Full(original(path, mode)) if mode == "ab" else original(path, mode, **o),
    )
    with pytest.raises(
        CheckpointError, match=r"the disk is full: .*downloads has no room for some\.pt; what came so far"
    ):
        get()
    monkeypatch.setattr(Path, "open", original)
    there = downloaded("some.pt.part").stat().st_size
    assert there == 2 << 20
    assert get().read_bytes() == CONTENT
    assert web.gets()[-1] == (PATH, f"bytes={there}-")


def test_a_directory_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OFA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CheckpointError, match=r"cannot be written: Not a directory"):
        get()


CODE = """
import sys
from ofa_core.checkpoint.cache import downloaded
from ofa_core.checkpoint.download import download
print(download(sys.argv[1], downloaded("some.pt")).stat().st_size)
"""


def test_two_processes_at_once_download_once(web: Web) -> None:
    web.delay = 1.0
    both = [
        subprocess.Popen([sys.executable, "-c", CODE, URL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [out.strip() for out, _ in outputs] == [str(len(CONTENT))] * 2
    assert web.gets() == [(PATH, "")]


def test_a_process_that_is_killed_leaves_what_goes_on(web: Web) -> None:
    web.cuts = [1_200_000]
    web.delay = 0.0
    code = CODE.replace(
        "import sys",
        "import sys, os, time\nimport ofa_core.checkpoint.download as d\nd.time.sleep = "
        "lambda _: os.kill(os.getpid(), 9)",
    )
    killed = subprocess.run([sys.executable, "-c", code, URL], capture_output=True, timeout=120, check=False)
    assert killed.returncode == -9
    assert get().read_bytes() == CONTENT
    assert web.gets()[-1] == (PATH, "bytes=1200000-")


def test_facts_that_are_damaged_are_begun_anew(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = downloaded("x").parent
    directory.mkdir(parents=True)
    for facts in ("{", "[]", '{"url": 1, "more": 2}', json.dumps({"url": f"{web.address}{PATH}", "version": ""})):
        (directory / "some.pt.part").write_bytes(b"nonsense")
        (directory / "some.pt.part.json").write_text(facts)
        assert get().read_bytes() == CONTENT
        downloaded("some.pt").unlink()
