"""Downloads of large files: they go on where they were cut off, appear whole or not at all, and are checked."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from ..errors import CheckpointError
from ..utils.atomic_write import atomic_write_text
from ..utils.progress import progress
from ..utils.scratch import one_at_a_time
from ..version import __version__
from .cache import FACTS, LOCK, PARTIAL, digest_record, read_record
from .digests import sha256

#: Replaces scheme and host of released files' addresses, for a mirror.
MIRROR = "OFA_RELEASES_URL"
#: Seconds without a byte that end a connection.
TIMEOUT = 30.0
#: Seconds to wait before each further try; a try that brought something begins them anew.
PAUSES = (1.0, 4.0, 15.0)
#: Answers that may be others a little later.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 20


class _CutError(Exception):
    """A connection that ended too early, or an answer that may be another one later."""


@dataclass
class _Facts:
    """The facts about a file that is not whole yet; what belongs to another file is begun anew."""

    url: str
    #: The server's name of this very content: a strong ETag or a date, empty where it has none.
    version: str = ""
    #: Bytes of the whole file, None where the server does not tell.
    size: int | None = None


def address(url: str) -> str:
    """The address that is asked: ``url``, or its path on the mirror ``$OFA_RELEASES_URL``."""
    mirror = os.environ.get(MIRROR)
    return f"{mirror.rstrip('/')}{urlsplit(url).path}" if mirror else url


def download(url: str, path: Path, *, digest: str = "") -> Path:
    """The file of an address at ``path``, downloaded if it is not there.

    A second process that wants it waits for the first. What was cut off goes on where it stopped, now or at the next
    call. The first time, the file's sha256 is written down; a later download must be the same.

    Args:
        url: the address, of http or https.
        path: the place of the file, in a directory that is made if need be.
        digest: the beginning of the sha256 that it must have, where that is known.

    Returns:
        ``path``.

    Raises:
        CheckpointError: the address cannot be reached, has no such file or another one, the download was cut off, or
            there is no room for it.
    """
    if path.is_file():
        return path
    url = address(url)

    def waiting() -> None:
        print(f"waiting for another process that downloads {path.name}", file=sys.stderr)

    with _naming_full_disk(path), one_at_a_time(path.with_name(path.name + LOCK), waiting):
        if not path.is_file():
            _Download(url, path, digest).run()
    return path


class _Download:
    """One download; who calls holds its lock."""

    def __init__(self, url: str, path: Path, digest: str) -> None:
        self.url, self.path, self.digest = url, path, digest
        self.partial = path.with_name(path.name + PARTIAL)
        self.facts_file = path.with_name(path.name + FACTS)
        self.facts = self._earlier()

    def run(self) -> None:
        """Download, check and rename."""
        failed = 0
        while True:
            before = self._there()
            try:
                self._go_on()
                break
            except _CutError as cut:
                failed = 1 if self._there() > before else failed + 1
                if failed > len(PAUSES):
                    raise self._ended(str(cut)) from None
                time.sleep(PAUSES[failed - 1])
        self._check()
        with self.partial.open("rb+") as file:
            os.fsync(file.fileno())
        self.partial.replace(self.path)
        self.facts_file.unlink(missing_ok=True)

    def _earlier(self) -> _Facts:
        """The facts about what is there of this address; what is there of another one is dropped."""
        try:
            facts = _Facts(**json.loads(self.facts_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            facts = _Facts("")
        if facts.url == self.url and facts.version:
            return facts
        self.partial.unlink(missing_ok=True)
        return _Facts(self.url)

    def _there(self) -> int:
        return self.partial.stat().st_size if self.partial.is_file() else 0

    def _go_on(self) -> None:
        """Ask for what is missing, and write it behind what is there.

        Raises:
            _CutError: not all of it came.
        """
        there = self._there()
        if there and there == self.facts.size:
            return
        headers = {"User-Agent": f"ofa_core/{__version__}", "Accept-Encoding": "identity"}
        if there and self.facts.version:
            headers |= {"Range": f"bytes={there}-", "If-Range": self.facts.version}
        with self._ask(headers) as response:
            self._receive(response, there)

    def _ask(self, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        try:
            request = urllib.request.Request(self.url, headers=dict(headers))
            return urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except urllib.error.URLError as error:
            if self._there():
                raise _CutError(str(error.reason)) from None
            raise CheckpointError(self._elsewhere(f"cannot be reached ({error.reason})")) from None
        except ValueError as error:  # no address at all, of which $OFA_RELEASES_URL may be the cause
            raise CheckpointError(f"{self.url} cannot be asked for: {error}") from None
        except (http.client.HTTPException, OSError) as error:
            raise _CutError(str(error) or type(error).__name__) from None

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        with error:
            if error.code in _PASSING:
                return _CutError(f"{error.code} {error.reason}")
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._there():
                self._begin_anew(_Facts(self.url))  # what is there is of another file
                return _CutError("the file changed")
            return CheckpointError(self._elsewhere(f"answers {error.code} {error.reason}"))

    def _receive(self, response: http.client.HTTPResponse, there: int) -> None:
        """Write an answer: the rest of the file, or all of it."""
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            start, size = _content_range(response.headers.get("Content-Range", ""))
            if start != there or (size is not None and size != (self.facts.size or size)):
                self._begin_anew(_Facts(self.url))
                raise _CutError("another part came than was asked for")
        else:
            there, length = 0, response.headers.get("Content-Length")
            self._begin_anew(_Facts(self.url, _version(response), int(length) if length else None))
        self._check_room(there)
        with self.partial.open("ab") as file, _bar(self.facts.size, there, self.path.name) as bar:
            while block := _read(response):
                file.write(block)
                bar.update(len(block))
        self._check_length()

    def _begin_anew(self, facts: _Facts) -> None:
        """Forget what is there; what comes now belongs to ``facts``."""
        self.partial.unlink(missing_ok=True)
        self.facts = facts
        atomic_write_text(self.facts_file, json.dumps(vars(facts)))

    def _check_length(self) -> None:
        there, size = self._there(), self.facts.size
        if size is not None and there < size:
            raise _CutError("the connection ended")
        if size is not None and there > size:
            self._begin_anew(_Facts(self.url))
            raise _CutError("more came than the file has")

    def _check_room(self, there: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if self.facts.size is not None and self.facts.size - there > free:
            raise CheckpointError(
                f"{self.path.name} needs {(self.facts.size - there) / 1e9:.2f} GB more, {self.path.parent} has "
                f"{free / 1e9:.2f} GB free: make room, or set $OFA_CACHE to another directory"
            )

    def _check(self) -> None:
        """Compare the sha256 with the one known, or write it down if this is the first time.

        Raises:
            CheckpointError: it is another one; what came is dropped.
        """
        found = sha256(self.partial)
        known = read_record(self.path)
        if not found.startswith(self.digest) or (known and known.get("sha256") != found):
            self.partial.unlink()
            self.facts_file.unlink(missing_ok=True)
            if not known:
                raise CheckpointError(f"{self.url} is not the file it should be: its sha256 is not {self.digest}...")
            raise CheckpointError(
                f"{self.url} is not what was first downloaded on {known.get('first')}: its sha256 is {found}, not "
                f"{known.get('sha256')}; if the change is meant: ofa-core cache remove --forget {self.path.name}"
            )
        if not known:
            facts = {"sha256": found, "bytes": self._there(), "url": self.url}
            facts["first"] = datetime.now().astimezone().isoformat(timespec="seconds")
            atomic_write_text(digest_record(self.path), json.dumps(facts, indent=2) + "\n")
            whence = "as its name says" if self.digest else "taken on trust, since none is published"
            print(f"{self.path.name} has sha256 {found}, {whence}; later downloads must have it", file=sys.stderr)

    def _ended(self, reason: str) -> CheckpointError:
        there, size = self._there(), self.facts.size
        of = f" of {size:,}" if size else ""
        if not there:
            return CheckpointError(self._elsewhere(f"cannot be read ({reason})"))
        return CheckpointError(
            f"{self.url} was cut off behind {there:,}{of} bytes ({reason}); the same command goes on from there"
        )

    def _elsewhere(self, problem: str) -> str:
        return f"{self.url} {problem}; if you have {self.path.name} from elsewhere, put it at {self.path}"


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes of an answer; none at its end, which may be too early."""
    try:
        return response.read(_BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise _CutError(str(error) or type(error).__name__) from None


def _version(response: http.client.HTTPResponse) -> str:
    """A validator that ``If-Range`` takes: a strong ETag or a date."""
    tag = str(response.headers.get("ETag", ""))
    strong = tag if tag.startswith('"') else ""
    accepts = response.headers.get("Accept-Ranges", "bytes") != "none"
    return (strong or str(response.headers.get("Last-Modified", ""))) if accepts else ""


def _content_range(text: str) -> tuple[int, int | None]:
    """The first byte and the size of the whole of ``bytes 5-9/10``; -1 where it is none."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", text.strip())
    if found is None:
        return -1, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _bar(size: int | None, there: int, name: str) -> tqdm[Any]:
    bar = progress(size or 0, there, name, unit="B")
    bar.unit_scale = True
    return bar


@contextmanager
def _naming_full_disk(path: Path) -> Iterator[None]:
    """Say where a disk is full, and that what came stays; other errors of the system name their file."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise CheckpointError(f"{error.filename or path} cannot be written: {error.strerror or error}") from None
        raise CheckpointError(
            f"the disk is full: {path.parent} has no room for {path.name}; what came so far stays, and the same "
            "command goes on from there"
        ) from None
