"""The examples on Ray: rows are answered as ``ofa-core predict`` does, and a replica answers as the model."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bench.runs import save_lively
from jobs import one_job_at_a_time
from reference import ROOT
from reference import picture as noise

import ofa_core
from ofa_core.cli.main import main

PICTURES = 200
#: Fields that are the same whatever the batch.
EXACT = ("id", "image", "text", "answer", "bins")
#: Starts that are tried. Ray ends where its own helpers are not there within 15 s, and the first ones read everything
#: from the disk.
STARTS = 4
SECONDS = 90
#: Memory for what tasks hand to each other; the least that Ray takes is 75 MiB.
OBJECT_STORE = 100 << 20


@pytest.fixture(scope="module")
def ray_environment() -> Iterator[dict[str, str]]:
    """The environment in which a program finds a Ray that runs, and this checkout's modules."""
    for name, extra in (("ray.data", "ray"), ("ray.serve", "ray"), ("fastapi", "web")):
        with suppress(ModuleNotFoundError):
            if importlib.util.find_spec(name) is not None:
                continue
        pytest.skip(f"{name} is not installed: pip install '.[{extra}]'")
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    # A path of Ray's may have no more than 107 characters, since sockets are in it.
    with one_job_at_a_time(), tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        process = started(Path(directory), environment)
        try:
            address = (Path(directory) / "ray_current_cluster").read_text(encoding="utf-8").strip()
            yield environment | {"RAY_ADDRESS": address}
        finally:
            end(process)


def started(directory: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start Ray, which runs until the process ends."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", "0"]
    command += ["--num-cpus", "2", "--object-store-memory", str(OBJECT_STORE), "--temp-dir", str(directory)]
    command += ["--include-dashboard", "false", "--include-log-monitor", "false", "--disable-usage-stats"]
    said = directory / "said"
    for _ in range(STARTS):
        with said.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, text=True, env=environment, start_new_session=True
            )
        if is_ready(process, said):
            return process
        end(process)
    pytest.skip(f"Ray does not start here: {said.read_text(encoding='utf-8').strip().splitlines()[-1][:200]}")


def is_ready(process: subprocess.Popen[str], said: Path) -> bool:
    """Wait until Ray says that it runs, or that it does not."""
    for _ in range(SECONDS * 4):
        if "Ray runtime started" in said.read_text(encoding="utf-8"):
            return True
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.25)
            return False
    return False


def end(process: subprocess.Popen[str]) -> None:
    """End Ray with all its helpers, which are in its group of processes; by itself it would take half a minute."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_example(environment: Mapping[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the example; once more where a part of Ray itself did not come up."""
    command = [*map(str, [sys.executable, ROOT / "examples" / "predict_ray.py", *arguments])]
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode == 0 or "raylet" not in done.stderr:
            break
    return done


def test_ray_answers_every_row_as_predict_does(ray_environment: dict[str, str], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = []
    for number in range(PICTURES):
        noise(number, 24, 32).save(photos / f"{number}.png")
        rows.append({"id": f"r{number}", "image": f"{number}.png", "text": f"the dog {number % 7}"})
    rows.append({"id": "bad", "image": "0.png"})
    data, out, own = tmp_path / "rows.jsonl", tmp_path / "ray.jsonl", tmp_path / "own.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    model = save_lively(tmp_path / "model")
    done = run_example(
        ray_environment, "ground", data, out, "--model", model, "--images", photos, "--shared", '{"num_beams": 1}'
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"1 of {PICTURES + 1} rows could not be used" in done.stderr
    arguments = ["--data", data, "--images", photos, "--model", model, "--out", own, "--quiet", "--num-beams", "1"]
    assert main(["predict", "ground", *map(str, arguments)]) == 0
    expected = lines_of(own)
    assert len(expected) == PICTURES
    *found, bad = lines_of(out)
    assert bad["id"] == "bad"
    assert bad["error"].startswith("text: ground takes one")
    for line, other in zip(found, expected, strict=True):
        assert {name: line[name] for name in EXACT} == {name: other[name] for name in EXACT}
        assert line["score"] == pytest.approx(other["score"], abs=1e-5)


def test_it_fails_where_nothing_could_be_answered(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install '.[ray]'")
    example = runpy.run_path(str(ROOT / "examples" / "predict_ray.py"))
    assert example["tell_bad"]([], 2) == 0
    assert capsys.readouterr().err == ""
    assert example["tell_bad"](["no picture", "no text"], 2) == 2
    assert capsys.readouterr().err == "2 of 2 rows could not be used; the first: no picture\n"


def test_a_replica_answers(ray_environment: dict[str, str], small_directory: Path) -> None:
    from service.client import encoded

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = ray_environment | {"OFA_MODEL": str(small_directory), "OFA_PORT": str(port)}
    file = encoded(noise(1))
    body = {"image": base64.b64encode(file).decode(), "text": "the dog", "max_new_tokens": 6}
    process = subprocess.Popen([sys.executable, str(ROOT / "examples" / "serve_ray.py")], env=environment)
    try:
        answer = post(f"http://127.0.0.1:{port}/v1/ground", body, process)
    finally:
        process.terminate()
        process.wait(60)
    found = ofa_core.load(small_directory).ground(file, "the dog", max_new_tokens=6)
    assert answer["text"] == found.text
    assert answer["score"] == pytest.approx(found.score, rel=1e-4)


def post(address: str, body: object, process: subprocess.Popen[bytes]) -> dict[str, object]:
    """The answer of a service that may still be starting."""
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    for _ in range(240):
        assert process.poll() is None, "the example ended"
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                answer: dict[str, object] = json.loads(response.read())
                return answer
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
    raise AssertionError("it never answered")
