"""The service under load: many callers at once, whose answers are compared, and hostile ones that it must survive.

``python -m benchmarks.serve --out serve.json`` starts ``ofa-core serve`` with the demo model in a process of its own.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

import ofa_core
from ofa_core.demo.language import phrase
from ofa_core.demo.world import draw, make_scene

#: Bounds that the figures have to keep.
MIN_SPEEDUP, MAX_BATCH_TIMES = 2.5, 3.0
#: Pixels by which a box may differ: the bins are the same, and JSON keeps all digits.
_TOLERANCE = 1e-3
_HEADERS = {"Content-Type": "application/json"}
_SECONDS = 600


@dataclass(frozen=True)
class Question:
    """A request, and the box that the model finds when it is asked by itself."""

    body: bytes
    box: tuple[float, ...] | None


@dataclass(frozen=True)
class Reply:
    """An answer: the place of its question, the status, the box, and the seconds that it took."""

    question: int
    status: int
    box: tuple[float, ...] | None
    seconds: float


@dataclass(frozen=True)
class Figures:
    """The outcome of a run."""

    requests: int
    clients: int
    errors: int
    wrong: int
    alone_per_second: float
    together_per_second: float
    speedup: float
    mean_batch: float
    batch_seconds: float
    p50_seconds: float
    p95_seconds: float
    p95_in_batch_times: float
    hostile: int
    serves_after_hostile: bool
    exit_code: int

    @property
    def failures(self) -> list[str]:
        """Everything that is not as it should be."""
        checks = {
            f"{self.errors} errors": self.errors == 0,
            f"{self.wrong} wrong answers": self.wrong == 0,
            f"only {self.speedup:.2f} times as many requests a second as one at a time": self.speedup >= MIN_SPEEDUP,
            f"p95 is {self.p95_in_batch_times:.2f} batch times": self.p95_in_batch_times < MAX_BATCH_TIMES,
            "it does not serve after hostile requests": self.serves_after_hostile,
            f"it ended with exit code {self.exit_code}": self.exit_code == 0,
        }
        return [text for text, holds in checks.items() if not holds]


def questions(count: int) -> list[Question]:
    """Phrases about as many drawn pictures, with the box of each."""
    ofa = ofa_core.load("demo")
    found: list[Question] = []
    seed = 0
    while len(found) < count:
        scene = make_scene(seed, "test")
        asked = phrase(scene, Random(f"serve {seed}"), ("name",))
        seed += 1
        if asked is None:
            continue
        file = io.BytesIO()
        draw(scene).save(file, "PNG")
        body = {"image": base64.b64encode(file.getvalue()).decode(), "text": asked[2]}
        found.append(Question(json.dumps(body).encode(), ofa.ground(file.getvalue(), asked[2]).box))
    return found


@contextmanager
def service(arguments: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The service in a process of its own, and its port; it is ended behind the block if it has not ended."""
    command = [sys.executable, "-m", "ofa_core", "serve", "--model", "demo", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process, _port(process)
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[str]) -> int:
    stream = process.stderr
    if stream is None:
        raise RuntimeError("the service has no stderr")
    for line in stream:
        if match := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
            threading.Thread(target=lambda: [sys.stderr.write(line) for line in stream], daemon=True).start()
            return int(match[1])
    raise RuntimeError(f"the service ended with exit code {process.wait()}")


def ask(connection: http.client.HTTPConnection, question: Question, place: int) -> Reply:
    """Ask one question, and time the answer."""
    began = time.perf_counter()
    connection.request("POST", "/v1/ground", question.body, _HEADERS)
    response = connection.getresponse()
    content = response.read()
    seconds = time.perf_counter() - began
    box = json.loads(content)["box"] if response.status == 200 else None
    return Reply(place, response.status, None if box is None else tuple(box), seconds)


def load(port: int, asked: Sequence[Question], count: int, clients: int) -> tuple[list[Reply], float]:
    """Replies to ``count`` requests of so many clients at once, and the seconds that all of them took."""
    order = iter(range(count))
    lock = threading.Lock()
    replies: list[Reply] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        while True:
            with lock:
                number = next(order, None)
            if number is None:
                return
            place = number % len(asked)
            try:
                reply = ask(connection, asked[place], place)
            except (OSError, http.client.HTTPException):
                reply = Reply(place, 0, None, 0.0)
                connection.close()
            with lock:
                replies.append(reply)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies, time.perf_counter() - began


def is_right(reply: Reply, question: Question) -> bool:
    """Tell whether a reply is the answer to its question."""
    if reply.box is None or question.box is None:
        return reply.box == question.box
    return all(abs(a - b) <= _TOLERANCE for a, b in zip(reply.box, question.box, strict=True))


def batches(port: int) -> tuple[float, float]:
    """Batches of the service so far, and the seconds that they took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = [re.search(rf'ofa_batch_seconds_{part}{{task="ground"}} (\S+)', text) for part in ("count", "sum")]
    count, seconds = (float(match[1]) if match else 0.0 for match in found)
    return count, seconds


# Hostile requests


def hostile_bodies(good: bytes) -> list[bytes]:
    """Bodies that are no request: broken, of wrong types, or of huge pictures."""
    fields = json.loads(good)
    bomb = bytearray(_png(Image.new("1", (8, 8))))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    large = _png(Image.new("L", (7000, 7000)))
    changes: list[dict[str, Any]] = [
        {"text": 3},
        {"text": "\ud800"},
        {"text": "x" * 100_000},
        {"image": 7},
        {"image": "???"},
        {"image": base64.b64encode(b"no picture").decode()},
        {"image": base64.b64encode(bytes(bomb)).decode()},
        {"image": base64.b64encode(large).decode()},
        {"image": base64.b64encode(_png(Image.new("RGB", (64, 64)))[:60]).decode()},
        {"num_beams": 10**9},
        {"threshold": None},
        {"unknown": {"a": [1]}},
    ]
    wrong = [json.dumps(fields | change).encode() for change in changes]
    return [*wrong, b"", b"{", b"[]", b"\xff" * 99, b"[" * 100_000, b"9" * 100_000, good[:-1], b"\0" * 1000]


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def hostile(port: int, good: bytes, count: int) -> list[int]:
    """Send hostile requests; returns the statuses, 0 for a connection that was cut or a header that is none."""
    bodies, random, statuses = hostile_bodies(good), Random(0), []
    for number in range(count):
        kind = number % 5
        if kind == 3:
            statuses.append(_cut(port, good, random))
        elif kind == 4:
            statuses.append(_garbled(port, random))
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
            headers = _HEADERS if kind else {"Content-Type": "multipart/form-data; boundary=x"}
            connection.request("POST", "/v1/ground", bodies[number % len(bodies)], headers)
            statuses.append(connection.getresponse().status)
            connection.close()
    return statuses


def _cut(port: int, good: bytes, random: Random) -> int:
    """A request whose sender goes away before its end, or before the answer."""
    head = (
        f"POST /v1/ground HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(good)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection:
        connection.sendall((head.encode() + good)[: random.randint(1, len(head) + len(good))])
    return 0


def _garbled(port: int, random: Random) -> int:
    """Bytes that are no HTTP, or a header without end."""
    with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection, suppress(OSError):
        connection.sendall(random.choice([random.randbytes(500), b"GET / HTTP/9.9\r\n\r\n", b"A: b\r\n" * 5000]))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    return 0


# The run


def measure(requests: int, alone: int, clients: int, hostile_requests: int, arguments: Sequence[str]) -> Figures:
    """Start the service, and measure it."""
    asked = questions(64)
    with service(arguments) as (process, port):
        load(port, asked, 4, 2)  # what is computed once
        single, single_seconds = load(port, asked, alone, 1)
        before = batches(port)
        many, many_seconds = load(port, asked, requests, clients)
        count, seconds = (after - earlier for after, earlier in zip(batches(port), before, strict=True))
        statuses = hostile(port, asked[0].body, hostile_requests)
        (after,), _ = load(port, asked, 1, 1)
        process.send_signal(signal.SIGTERM)
        exit_code = process.wait(120)
    replies = [*single, *many]
    times = np.array([reply.seconds for reply in many])
    p50, p95 = (float(np.quantile(times, share)) for share in (0.5, 0.95))
    batch = seconds / max(count, 1)
    rates = alone / single_seconds, requests / many_seconds
    return Figures(
        requests=len(many),
        clients=clients,
        errors=sum(reply.status != 200 for reply in replies) + sum(status >= 500 for status in statuses),
        wrong=sum(not is_right(reply, asked[reply.question]) for reply in replies),
        alone_per_second=rates[0],
        together_per_second=rates[1],
        speedup=rates[1] / rates[0],
        mean_batch=requests / max(count, 1),
        batch_seconds=batch,
        p50_seconds=p50,
        p95_seconds=p95,
        p95_in_batch_times=p95 / batch,
        hostile=len(statuses),
        serves_after_hostile=is_right(after, asked[0]),
        exit_code=exit_code,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures, and tell what is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, metavar="N", help="of many clients at once (2000)")
    parser.add_argument("--alone", type=int, default=200, metavar="N", help="of one client, one after the other (200)")
    parser.add_argument("--clients", type=int, default=32, metavar="N", help="clients at once (32)")
    parser.add_argument("--hostile", type=int, default=200, metavar="N", help="hostile requests (200)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the figures")
    args, rest = parser.parse_known_args(argv)
    figures = measure(args.requests, args.alone, args.clients, args.hostile, rest)
    told = json.dumps(asdict(figures) | {"cpus": os.cpu_count(), "failures": figures.failures}, indent=1)
    print(told)
    if args.out is not None:
        args.out.write_text(told + "\n", encoding="utf-8")
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
