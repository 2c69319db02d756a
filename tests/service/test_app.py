"""The service: its answers are those of the model asked directly, and everything else is refused in one line."""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx
from PIL import Image
from reference import lively_ofa
from reference import picture as noise
from service.client import FIELDS, SHORT, as_text, ask, encoded, refused, served

from ofa_core import OFA
from ofa_core.service.tasks import Answerer


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa()


@pytest.fixture(scope="module")
def client(ofa: OFA) -> Iterator[httpx.Client]:
    with served(ofa, max_bytes=300_000, max_pixels=50_000, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [encoded(noise(number, 90 + 7 * number, 140 - 5 * number)) for number in range(6)]


# Answers


def direct(ofa: OFA, task: str, file: bytes | None, fields: dict[str, Any]) -> Any:
    """The result of the method itself."""
    if task == "chat":
        chat = ofa.chat(file, **SHORT)
        turn = chat.say(fields["text"])
        regions = [{"box": list(one.box), "label": one.label, "score": one.score} for one in turn.regions]
        history = [list(pair) for pair in chat.history]
        return {"text": turn.text, "regions": regions, "done": turn.done, "history": history, "opening": ""}
    fields = dict(fields)
    image = {"image": file} if file is not None else {}
    return json.loads(getattr(ofa, task)(**image, **fields).to_json())


def assert_alike(answer: Any, result: Any) -> None:
    """An answer's fields are the result's; scores may differ by the rounding of a batch."""
    if isinstance(answer, dict):
        for name, value in answer.items():
            if name != "warnings":
                assert_alike(value, result[name])
    elif isinstance(answer, list):
        assert len(answer) == len(result)
        for pair in zip(answer, result, strict=True):
            assert_alike(*pair)
    elif isinstance(answer, float):
        assert answer == pytest.approx(result, rel=1e-4, abs=1e-6)
    else:
        assert answer == result


@pytest.mark.parametrize("task", FIELDS)
def test_an_answer_is_that_of_the_method(ofa: OFA, client: httpx.Client, files: list[bytes], task: str) -> None:
    assert_alike(ask(client, task, files[0], **FIELDS[task]), direct(ofa, task, files[0], FIELDS[task]))


@pytest.mark.parametrize("task", FIELDS)
def test_a_form_is_answered_as_json_is(client: httpx.Client, files: list[bytes], task: str) -> None:
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in FIELDS[task].items()}
    response = client.post(f"/v1/{task}", files={"image": ("x.png", files[0])}, data=form)
    assert response.status_code == 200, response.text
    assert_alike(response.json(), ask(client, task, files[0], **FIELDS[task]))


@pytest.mark.parametrize("task", FIELDS)
def test_requests_at_once_are_answered_as_one_by_one(
    ofa: OFA, client: httpx.Client, files: list[bytes], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the dog", "a very small red thing", "man", "the left one", "two", "x"]
    asked = [
        (file, {name: text if isinstance(value, str) else value for name, value in FIELDS[task].items()})
        for file, text in zip(files, texts, strict=True)
    ]
    sizes = batch_sizes(monkeypatch)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda each: ask(client, task, each[0], **each[1]), asked))
    assert max(sizes) > 1
    for answer, (file, fields) in zip(found, asked, strict=True):
        assert_alike(answer, direct(ofa, task, file, fields))


def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that are computed from now on, the first of which is kept waiting until others are there."""
    sizes: list[int] = []
    compute = Answerer.__call__

    def counted(self: Answerer, key: Any, samples: Any) -> Any:
        if not sizes:
            time.sleep(0.3)
        sizes.append(len(samples))
        return compute(self, key, samples)

    monkeypatch.setattr(Answerer, "__call__", counted)
    return sizes


def test_a_text_without_picture_is_answered(ofa: OFA, client: httpx.Client) -> None:
    fields = {"text": " what is it?", **SHORT}
    assert_alike(ask(client, "generate", None, **fields), direct(ofa, "generate", None, fields))


def test_a_data_uri_is_a_picture(client: httpx.Client, files: list[bytes]) -> None:
    response = client.post("/v1/caption", json={"image": f"data:image/png;base64,{as_text(files[0])}", **SHORT})
    assert response.json() == ask(client, "caption", files[0], **SHORT)


def test_a_conversation_lives_in_its_caller_s_history(ofa: OFA, client: httpx.Client, files: list[bytes]) -> None:
    chat = ofa.chat(files[1], **SHORT)
    history: list[Any] = []
    for text in ("the dog", "the left one", "yes"):
        answer = ask(client, "chat", files[1], text=text, history=history, **SHORT)
        assert answer["text"] == chat.say(text).text
        history = answer["history"]
    assert history == [list(pair) for pair in chat.history]


@pytest.mark.parametrize("style", ["invig", "tio"])
def test_the_oracle_of_a_conversation_is_the_model_s(
    ofa: OFA, client: httpx.Client, files: list[bytes], style: Any
) -> None:
    box = [5, 6, 60, 70]
    chat = ofa.chat(files[2], style=style, **SHORT).as_oracle(box)
    fields: dict[str, Any] = {"box": box, "style": style, **SHORT}
    if style == "invig":
        opened = ask(client, "chat", files[2], **fields)
        assert opened["text"] == opened["opening"] == chat.opening
        assert opened["history"] == []
        fields["opening"] = opened["opening"]
    for text in ("is it red?", "is it a dog?"):
        answer = ask(client, "chat", files[2], text=text, **fields)
        assert answer["text"] == chat.say(text).text
        fields["history"] = answer["history"]
    assert fields["history"] == [list(pair) for pair in chat.context]


def test_what_is_said_about_a_request_stands_in_its_answer_alone(
    client: httpx.Client, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the dog", "word " * 300, "a cat"]
    sizes = batch_sizes(monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda text: ask(client, "ground", files[0], text=text, **SHORT), texts))
    assert len(sizes) > 1
    assert ["words was cut to" in str(answer["warnings"]) for answer in found] == [False, True, False]


# Refusals


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": ""}, "text: "),
        ({"text": 3}, "text: "),
        ({"text": "\ud800"}, "text: "),
        ({"text": None}, "text: "),
        ({"image": "no base64!"}, "image: "),
        ({"image": ""}, "image: "),
        ({"image": ["x"]}, "image: "),
        ({"image": as_text(b"no picture")}, "not a picture"),
        ({"image": as_text(encoded(Image.new("RGB", (64, 64), "red"))[:90])}, "cannot be read"),
        ({"threshold": 2}, "threshold: "),
        ({"threshold": "1"}, "threshold: "),
        ({"all": "yes"}, "all: "),
        ({"num_beams": 10**9}, "num_beams: "),
        ({"decode": "best"}, "decode: "),
        ({"nonsense": 1}, "nonsense: there is no such setting"),
        ({"bad\ud800\n": 1}, "the request: "),
        ({"bad\u202e\n": 1}, r"bad\u202e: there is no such setting"),
        ({"decode": "mbr", "confidence": False}, "draws no boxes"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    client: httpx.Client, files: list[bytes], changes: dict[str, Any], reason: str
) -> None:
    fields = {"image": as_text(files[0]), "text": "the dog"} | changes
    response = client.post("/v1/ground", content=json.dumps(fields), headers={"Content-Type": "application/json"})
    assert reason in refused(response, 422)


@pytest.mark.parametrize(
    ("task", "changes", "reason"),
    [
        ("oracle", {"box": [5, 5, 5, 9]}, "box"),
        ("oracle", {"box": [0, 0, 1e9, 9]}, "box"),
        ("oracle", {"box": [1, 2, 3]}, "box"),
        ("oracle", {"dialog": [["only one"]]}, "dialog"),
        ("oracle", {"answers": ["yes", "yes"]}, "twice"),
        ("answer", {"candidates": []}, "candidates"),
        ("chat", {"text": ""}, "empty"),
        ("chat", {"history": [["a", 3]]}, "history"),
        ("chat", {"opening": "the dog"}, "opens no dialog"),
        ("chat", {"style": "polite"}, "style"),
        ("generate", {"max_new_tokens": 100_000}, "max_new_tokens"),
        ("detect", {"categories": [" "]}, "category 0"),
    ],
)
def test_what_a_task_cannot_take_is_refused(
    client: httpx.Client, files: list[bytes], task: str, changes: dict[str, Any], reason: str
) -> None:
    response = client.post(f"/v1/{task}", json={"image": as_text(files[0])} | FIELDS[task] | changes)
    assert reason in refused(response, 422)


@pytest.mark.parametrize(
    ("content", "kind", "status", "reason"),
    [
        (b"{", "application/json", 400, "no JSON"),
        (b"", "application/json", 400, "no JSON"),
        (b"\xff\xfe{}", "application/json", 400, "no JSON"),
        (b"[" * 100_000, "application/json", 400, "nests too deeply"),
        (b'{"threshold": ' + b"9" * 9999 + b"}", "application/json", 400, "no JSON"),
        (b"[]", "application/json", 422, "JSON object"),
        (b"null", "application/json", 422, "JSON object"),
        (b"{}", "application/json", 422, "image: Field required"),
        (b"{}", "text/plain", 415, "should be application/json or multipart/form-data"),
        (b"{}", "", 415, "of type none"),
        (b"x", "multipart/form-data", 400, "no form"),
        (b"x", "multipart/form-data; boundary=y", 400, "no form"),
        (b"--y\r\n\r\n", "multipart/form-data; boundary=y", 400, "no form"),
    ],
)
def test_a_body_that_is_none_is_refused(
    client: httpx.Client, content: bytes, kind: str, status: int, reason: str
) -> None:
    response = client.post("/v1/ground", content=content, headers={"Content-Type": kind} if kind else {})
    assert reason in refused(response, status)


def test_a_form_with_a_field_twice_is_refused(client: httpx.Client, files: list[bytes]) -> None:
    parts = [("image", ("x.png", files[0])), ("text", (None, "dog")), ("text", (None, "cat"))]
    assert refused(client.post("/v1/ground", files=parts), 422) == "text: it stands in the form twice"


def test_what_is_too_large_is_refused(client: httpx.Client) -> None:
    large = encoded(Image.new("RGB", (400, 400), "red"))
    assert "400 × 400 pixels" in refused(client.post("/v1/caption", json={"image": as_text(large)}), 413)
    assert "bytes" in refused(client.post("/v1/caption", json={"image": "x" * 400_000}), 413)


def test_a_bomb_is_refused_without_being_opened(client: httpx.Client) -> None:
    bomb = bytearray(encoded(Image.new("1", (64, 64))))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height in the header
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    began = time.perf_counter()
    refused(client.post("/v1/caption", json={"image": as_text(bytes(bomb))}), 413)
    assert time.perf_counter() - began < 5


def test_a_body_without_a_length_is_refused_where_it_grows_too_large(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"x" * 10_000

    try:
        response = client.post("/v1/caption", content=endless(), headers={"Content-Type": "application/json"})
    except (httpx.WriteError, httpx.ReadError):  # the connection was closed while it was still being sent
        return
    assert "more than 300,000 bytes" in refused(response, 413)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/ground", 405), ("POST", "/v1/paint", 404)])
def test_another_address_is_refused_in_the_same_form(client: httpx.Client, method: str, path: str, status: int) -> None:
    refused(client.request(method, path), status)


def test_a_connection_that_is_cut_does_no_harm(client: httpx.Client, files: list[bytes]) -> None:
    head = "POST /v1/ground HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"
    for _ in range(5):
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
            connection.sendall(head.encode())
    ask(client, "ground", files[0], text="the dog", **SHORT)
    assert client.get("/health").json()["under_way"] == 0


# Limits


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What lets the model go on, which waits before each batch."""
    free = threading.Event()
    compute = Answerer.__call__

    def waiting(self: Answerer, key: Any, samples: Any) -> Any:
        free.wait(30)
        return compute(self, key, samples)

    monkeypatch.setattr(Answerer, "__call__", waiting)
    yield free
    free.set()


def wait_until(client: httpx.Client, under_way: int) -> None:
    for _ in range(500):
        if client.get("/health").json()["under_way"] == under_way:
            return
        time.sleep(0.02)
    raise AssertionError(f"never {under_way} requests under way")


def test_more_than_the_queue_holds_is_refused_and_the_others_are_answered(
    ofa: OFA, files: list[bytes], held: threading.Event
) -> None:
    with served(ofa, queue_size=3) as client, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, client, "caption", files[0], **SHORT) for _ in range(3)]
        wait_until(client, 3)
        response = client.post("/v1/caption", json={"image": as_text(files[0]), **SHORT})
        assert "3 requests are under way" in refused(response, 429)
        assert int(response.headers["retry-after"]) >= 1
        held.set()
        first, *others = (one.result() for one in asked)
        for other in others:
            assert other.keys() == first.keys()
            assert other["warnings"] == first["warnings"]
            assert_alike(other, first)
        wait_until(client, 0)
        ask(client, "caption", files[0], **SHORT)


def test_an_answer_that_takes_too_long_is_given_up(ofa: OFA, files: list[bytes], held: threading.Event) -> None:
    with served(ofa, timeout=0.3) as client:
        response = client.post("/v1/caption", json={"image": as_text(files[0]), **SHORT})
        assert "no answer within 0.3 s" in refused(response, 504)
        held.set()
        assert client.get("/health").json()["status"] == "ok"


def test_a_request_that_does_not_arrive_is_given_up(ofa: OFA) -> None:
    with served(ofa, read_timeout=0.2) as client:
        address = (client.base_url.host, client.base_url.port or 0)
        head = b"POST /v1/caption HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        with socket.create_connection(address, 20) as connection:
            connection.sendall(head)
            assert b" 408 " in connection.recv(4096).splitlines()[0]


def test_the_end_finishes_what_was_begun(ofa: OFA, files: list[bytes], held: threading.Event) -> None:
    with ThreadPoolExecutor(4) as pool:
        with served(ofa, batch_size=2) as client:
            asked = [
                pool.submit(client.post, "/v1/caption", json={"image": as_text(files[0]), **SHORT}) for _ in range(4)
            ]
            wait_until(client, 4)
            threading.Timer(0.5, held.set).start()  # when the service was told to end already
        assert [one.result().status_code for one in asked] == [200] * 4


def test_a_key_is_asked_for(ofa: OFA, files: list[bytes]) -> None:
    with served(ofa, key="secret") as client:
        body = {"image": as_text(files[0]), **SHORT}
        assert "Authorization" in refused(client.post("/v1/caption", json=body), 401)
        for headers in ({"Authorization": "Bearer wrong"}, {"X-API-Key": "sécret".encode()}):
            response = client.post("/v1/caption", json=body, headers=headers)
            refused(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
        for headers in ({"Authorization": "Bearer secret"}, {"X-API-Key": "secret"}):
            assert client.post("/v1/caption", json=body, headers=headers).status_code == 200
        refused(client.get("/metrics"), 401)
        assert client.get("/health").status_code == 200


# The pages about it


def test_the_state_is_told(client: httpx.Client, files: list[bytes]) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["model"]) == ("ok", "small")
    ask(client, "caption", files[0], **SHORT)
    client.post("/v1/caption", content=b"{", headers={"Content-Type": "application/json"})
    lines = client.get("/metrics").text.splitlines()
    counts = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert counts['ofa_requests_total{status="200",task="caption"}'] >= 1
    assert counts['ofa_requests_total{status="400",task="caption"}'] >= 1
    assert counts['ofa_batch_size_count{task="caption"}'] >= 1
    assert counts["ofa_requests_under_way"] == 0


def test_the_page_of_all_addresses_is_whole_without_another_server(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "://" not in page.replace(str(client.base_url).rstrip("/"), "")
    for address in ("/swagger/swagger-ui-bundle.js", "/swagger/swagger-ui.css"):
        assert address in page
        assert client.get(address).status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert {f"/v1/{task}" for task in FIELDS} | {"/health", "/metrics"} == set(paths)
