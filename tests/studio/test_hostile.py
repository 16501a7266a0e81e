"""What clients may try: everything is answered in one line, nothing is lost, and the server stays up."""

import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from harness.studio import Served, png, served

LIMITS = {
    "upload_bytes": 200_000, "request_bytes": 400_000, "pixels": 1_000_000, "queue": 3, "text_bytes": 10_000,
    "header_seconds": 0.7, "silence_seconds": 0.7, "bytes_per_second": 1000, "decode_seconds": 20, "free_bytes": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all of them, with one run that is done."""
    with served(tmp_path_factory.mktemp("hostile"), LIMITS) as server:
        server.until(server.begin(), lambda run: run["state"] == "done")
        yield server


@pytest.fixture(autouse=True)
def nothing_is_lost(server: Served) -> Iterator[None]:
    """After each attempt the server answers, and has the one run that it had, whole."""
    before = server.client.get("/api/runs").json()
    yield
    assert server.process.poll() is None
    after = server.client.get("/api/runs").json()
    assert after == before
    assert server.client.get(f"/api/runs/{after['runs'][0]['id']}/picture?format=png16").status_code == 200


def the_run(server: Served) -> str:
    return str(server.client.get("/api/runs").json()["runs"][0]["id"])


def refused(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    told = answer.json()["error"]
    assert words in told
    assert "\n" not in told
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "localhost.evil", "[::2]", "10.0.0.1", "0", "::x"],
)
def test_other_hosts(server: Served, host: str) -> None:
    refused(server.client.get("/", headers={"Host": host}), 403, "is not called so")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Origin": "http://evil.example"}),
        ("POST", {"Origin": "null"}),
        ("POST", {"Origin": "http://127.0.0.1:1"}),
        ("GET", {"Sec-Fetch-Site": "cross-site"}),
        ("POST", {"Sec-Fetch-Site": "same-site"}),
    ],
)
def test_other_sites(server: Served, method: str, headers: dict[str, str]) -> None:
    refused(server.client.request(method, "/api/runs", headers=headers), 403, "other sites")


@pytest.mark.parametrize(("method", "mark"), [("POST", None), ("POST", "0"), ("DELETE", None), ("PATCH", None)])
def test_without_the_mark(server: Served, method: str, mark: str | None) -> None:
    headers = {} if mark is None else {"X-Nstgpu": mark}
    address = f"http://127.0.0.1:{server.port}/api/runs" + ("" if method == "POST" else f"/{the_run(server)}")
    refused(httpx.request(method, address, headers=headers), 403, "X-Nstgpu: 1")


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/api/runs/../../../etc/passwd", 404),
        ("/api/runs/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("/api/runs/{run}%00/picture", 404),
        ("/api/runs/{run}/../lock", 404),
        ("/api/runs/.incoming", 404),
        ("/static/../web/guard.py", 404),
        ("/static/..%2fweb%2fguard.py", 404),
        ("/static//etc/passwd", 404),
        ("/api/runs/{run}/frames/-1", 404),
        ("/api/runs/{run}/frames/99999999999999999999999", 404),
        ("/api/runs/{run}/style/77", 404),
        ("/api/runs/{run}/style_mask/0", 404),
        ("/api/runs/{run}/picture?format=../../x", 422),
        ("/nothing", 404),
    ],
)
def test_addresses(server: Served, address: str, status: int) -> None:
    path = address.replace("{run}", the_run(server))
    with socket.create_connection(("127.0.0.1", server.port)) as raw:  # httpx would mend the path
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = read_all(raw)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"root:" not in answer
    assert b"import " not in answer


def test_other_methods(server: Served) -> None:
    refused(server.client.put("/api/runs"), 405, "knows no PUT")


NESTED = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        ("no json", "application/json", 400, "no JSON"),
        ("[1]", "application/json", 400, "no object"),
        (NESTED, "application/json", 400, "JSON"),
        ('{"like": "x"}', "text/plain", 415, "send JSON"),
        ('{"like": "2026-01-01-000000-abcdef"}', "application/json", 422, "there is no run"),
        ('{"like": ["x"]}', "application/json", 422, "there is no run"),
        ('{"like": null}', "application/json", 422, "name the run"),
        ('{"other": 1}', "application/json", 422, "'other'"),
        ('"' + "x" * 20_000 + '"', "application/json", 413, "at most 10,000"),
    ],
)
def test_json(server: Served, content: str, kind: str, status: int, words: str) -> None:
    refused(server.client.post("/api/runs", content=content, headers={"Content-Type": kind}), status, words)


def test_json_without_an_end(server: Served) -> None:
    pieces = (b"x" * 1000 for _ in range(100))
    answer = server.client.post("/api/runs", content=pieces, headers={"Content-Type": "application/json"})
    refused(answer, 413, "more than the 10,000 bytes")


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"position": "first"}, "position"), ({"pause": 1}, "pause"), ({"rm": True}, "'rm'"),
        ({"changes": [1]}, "changes"), ({"name": None, "stop": "yes"}, "stop"),
    ],
)  # fmt: skip
def test_patches(server: Served, patch: dict[str, Any], words: str) -> None:
    refused(server.client.patch(f"/api/runs/{the_run(server)}", json=patch), 422, words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('{"content": "/etc/passwd"}', "upload the pictures"),
        ('{"styles": ["/etc/passwd"]}', "upload the pictures"),
        ('{"weights": "/etc/passwd"}', "there are no weights"),
        ('{"init": "/etc/passwd"}', "init is"),
        ('{"device": "emulator"}', "leave it out"),
        ('{"output": "/tmp/x"}', "'output'"),
        ('{"size": 1000000}', "are painted here"),
        ('{"size": NaN}', "size"),
        ('{"style_weight": Infinity}', "style_weight"),
        ('{"size": "512"}', "size"),
        ('{"iterations": "--output=/tmp/x"}', "--iterations"),
        ('{"style_layers": ["relu1_1", "--force"]}', "--force"),
        ('{"style_weights": [0]}', "style_weights"),
        ('{"colors": "pink"}', "pink"),
        ("[]", "an object"),
    ],
)
def test_settings(server: Served, settings: str, words: str) -> None:
    files = {"content": png(), "style": png()}
    refused(server.client.post("/api/runs", files=files, data={"settings": settings}), 422, words)


def bomb(side: int, rows: int) -> bytes:
    """A PNG that claims side x side pixels, and has so many rows of them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (side + 1) * rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def several(part: str, count: int) -> list[tuple[str, tuple[str, bytes]]]:
    return [(part, (part, png())) for _ in range(count)]


GOOD: list[tuple[str, tuple[str, bytes]]] = [("content", ("c", png())), ("style", ("s", png()))]


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ([("content", ("c", b"x" * 250_000)), GOOD[1]], 413, "content is larger than the 0.19"),
        (several("style", 9), 413, "more than the 8 styles"),
        ([*GOOD, GOOD[0]], 400, "content twice"),
        ([*GOOD, ("../../x", ("x", png()))], 400, "part '../../x'"),
        ([("content", ("c", b"no picture")), GOOD[1]], 422, "content"),
        ([("content", ("c", b"")), GOOD[1]], 422, "content is empty"),
        ([("content", ("c", png()[:60])), GOOD[1]], 422, "content"),
        ([("content", ("c", bomb(50_000, 1))), GOOD[1]], 422, "content is damaged"),
        ([("content", ("c", bomb(2_000, 2_000))), GOOD[1]], 422, "2000x2000 pixels; at most 1 million"),
        ([GOOD[0]], 422, "no style"),
        ([GOOD[1]], 422, "no content"),
        ([*GOOD, ("style_mask_3", ("m", png()))], 422, "no such style"),
        ([*GOOD, ("content_mask", ("m", b"GIF89a"))], 422, "content-mask"),
    ],
)
def test_uploads(server: Served, files: list[Any], status: int, words: str) -> None:
    refused(server.client.post("/api/runs", files=files), status, words)


FORM = "multipart/form-data; boundary=abc"
NAME = b'--abc\r\nContent-Disposition: form-data; name="name"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"x", "multipart/form-data", 415, "multipart"),
        (b"nonsense" * 99, FORM, 400, "no multipart"),
        (NAME.replace(b'"name"', b'"content"') + b"\x89PNG", FORM, 400, "ended before its end"),
        (b"--abc\r\nA: " + b"b" * 9000 + b"\r\n\r\nx\r\n--abc--", FORM, 400, "upload"),
        (NAME + b"n" * 12_000 + b"\r\n--abc--\r\n", FORM, 413, "name is longer"),
        (NAME + b"\xff\r\n--abc--\r\n", FORM, 400, "UTF-8"),
        (b"x" * 500_000, FORM, 413, "at most 400,000"),
    ],
)  # fmt: skip
def test_damaged_uploads(server: Served, body: bytes, kind: str, status: int, words: str) -> None:
    refused(server.client.post("/api/runs", content=body, headers={"Content-Type": kind}), status, words)


def test_the_queue_has_an_end(server: Served) -> None:
    runs = []
    try:
        answers = [server.client.post("/api/runs", files={"content": png(), "style": png()}) for _ in range(5)]
        runs = [answer.json()["id"] for answer in answers if answer.status_code == 201]
        for answer in answers:
            if answer.status_code != 201:
                refused(answer, 429, "as many as may")
        assert len(runs) >= 3
    finally:
        for run in runs:
            assert server.client.delete(f"/api/runs/{run}").status_code == 204


# ---- those who are slow, or leave -------------------------------------------------------------------------------


def read_all(raw: socket.socket) -> bytes:
    raw.settimeout(10)
    answer = io.BytesIO()
    try:
        while piece := raw.recv(65536):
            answer.write(piece)
    except ConnectionResetError:
        pass
    return answer.getvalue()


HEAD = (
    "POST /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Nstgpu: 1\r\nContent-Type: multipart/form-data; boundary=abc\r\n"
)


def no_head(raw: socket.socket) -> None:
    raw.sendall(b"GET / HTTP/1.1\r\nHost: ")


def slow_head(raw: socket.socket) -> None:
    for letter in b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: aaaaaaaa":
        try:
            raw.sendall(bytes([letter]))
        except OSError:
            return
        time.sleep(0.05)


def nothing(raw: socket.socket) -> None:
    del raw


def stalled_body(raw: socket.socket) -> None:
    raw.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n--abc\r\n".encode())


def slow_body(raw: socket.socket) -> None:
    raw.sendall(
        f"{HEAD}Content-Length: 100000\r\n\r\n--abc\r\nContent-Disposition: form-data; name=content\r\n\r\n".encode()
    )
    for _ in range(40):
        try:
            raw.sendall(b"x")
        except OSError:
            return
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("send", "status"),
    [(nothing, b""), (no_head, b""), (slow_head, b""), (stalled_body, b"408"), (slow_body, b"408")],
)
def test_slow_clients_are_left(server: Served, send: Callable[[socket.socket], None], status: bytes) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        send(raw)
        answer = read_all(raw)
    assert answer[9:12] == status, answer
    assert time.monotonic() - began < 9


@pytest.mark.parametrize(
    "sent",
    [
        f"{HEAD}Content-Length: 5000\r\n\r\n--abc\r\nContent-Disposition: form-data; name=content\r\n\r\nxx".encode(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 40,
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 200_000,
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ],
)
def test_broken_connections(server: Served, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        try:
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
        except OSError:  # left already
            return
        answer = read_all(raw)
    assert answer[9:10] in (b"", b"4"), answer


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("/api/live", {"Origin": "http://evil.example"}),
        ("/api/live", {"Origin": "null"}),
        ("/api/live?run=2026-01-01-000000-abcdef", {}),
        ("/api/live?run=../../etc", {}),
    ],
)
def test_live_connections_of_others(server: Served, address: str, headers: dict[str, str]) -> None:
    with (
        pytest.raises(InvalidStatus, match="403"),
        connect(f"ws://127.0.0.1:{server.port}{address}", additional_headers=headers),
    ):
        pass


@pytest.mark.parametrize("said", ["no json", "[]", '{"seen": "x"}', "x" * 9000, b"\xff\xfe", "[" * 4000])
def test_nonsense_on_live_connections(server: Served, said: str | bytes) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/api/live") as live:
        live.send(said)
        with pytest.raises(ConnectionClosed):
            list(map(live.recv, [10] * 9))  # the list of runs may still come


def test_readers_who_read_nothing(server: Served) -> None:
    """They cost a buffer, and are left."""
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    try:
        for raw in idle:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 5)
        assert server.client.get("/api/runs").status_code == 200
    finally:
        for raw in idle:
            raw.close()
    assert json.loads(server.client.get("/api/runs").text)["runs"]
