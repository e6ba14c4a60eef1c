"""Whatever is sent, the answer is a clear error, and the next request is answered."""

import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.data.golden import FLOAT_TIFF, encoded
from tests.serve.conftest import Expected, Start, post_files
from tl_experiments.serve import connections
from tl_experiments.serve.limits import Limits

BODY_BYTES, IMAGES, PIXELS, SECONDS = 2_000_000, 4, 1_000_000, 3.0
PNG = encoded(Image.effect_noise((64, 64), 50), "PNG")
JPEG = encoded(Image.effect_noise((64, 64), 50), "JPEG")
FORM = {"Content-Type": "multipart/form-data; boundary=B"}
IMAGE = {"Content-Type": "image/png"}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says that it is huge."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def part(name: str = "files", content: bytes = PNG, *, head: str = '; filename="a.png"') -> bytes:
    return (
        b'--B\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n' % (name.encode(), head.encode())
        + content
        + b"\r\n"
    )


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--B--\r\n"


@dataclass(frozen=True)
class Sent:
    """A request that cannot be answered, and what is said of it."""

    status: int
    told: str
    content: Any = b""
    headers: dict[str, str] | None = None
    path: str = "/predict"
    method: str = "POST"


def zeros(count: int) -> Iterator[bytes]:
    """As no length is known, it is sent in chunks."""
    for _ in range(count // 100_000):
        yield bytes(100_000)


CASES = {
    "no image": Sent(422, "cannot be read as an image", b"hello", IMAGE),
    "empty body": Sent(422, "the body is empty", b"", IMAGE),
    "cut PNG": Sent(422, "cannot be read as an image", PNG[: len(PNG) // 2], IMAGE),
    "cut JPEG": Sent(422, "cannot be read as an image", JPEG[: len(JPEG) // 2], IMAGE),
    "head of a PNG alone": Sent(422, "cannot be read as an image", PNG[:8], IMAGE),
    "floating-point TIFF": Sent(422, "floating-point pixels", FLOAT_TIFF, IMAGE),
    "PDF": Sent(422, "cannot be read as an image", b"%PDF-1.7\n" + bytes(100), IMAGE),
    "SVG": Sent(422, "cannot be read as an image", b"<svg/>", {"Content-Type": "image/svg+xml"}),
    "EPS, which would run a program": Sent(
        422, "cannot be read as an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", IMAGE
    ),
    "a bomb": Sent(422, "more than 1,000,000 pixels", bomb(60_000, 60_000), IMAGE),
    "a little too large": Sent(422, "more than 1,000,000 pixels", bomb(1001, 1000), IMAGE),
    "a bomb of no pixels": Sent(422, "cannot be read as an image", bomb(0, 0), IMAGE),
    "all of several bad": Sent(
        422, "none of 2 images can be used: a.png:", form(part(content=b"x"), part(content=b"")), FORM
    ),
    "wrong type": Sent(
        415, "content type 'text/plain'; expected multipart/form-data", PNG, {"Content-Type": "text/plain"}
    ),
    "no type": Sent(415, "content type ''", PNG, {}),
    "bad JSON": Sent(415, "content type 'application/json'", b'{"image": ', {"Content-Type": "application/json"}),
    "JSON": Sent(415, "content type 'application/json'", b"{}", {"Content-Type": "application/json"}),
    "what curl -d sends": Sent(
        415, "expected multipart/form-data", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}
    ),
    "100 MB, as it says": Sent(413, "more than 2 MB", bytes(100_000_000), IMAGE),
    "100 MB in chunks": Sent(413, "more than 2 MB", lambda: zeros(100_000_000), IMAGE),
    "100 MB in a form": Sent(413, "more than 2 MB", lambda: iter([part(content=b"")[:-2], *zeros(100_000_000)]), FORM),
    "no boundary": Sent(400, "Missing boundary", form(part()), {"Content-Type": "multipart/form-data"}),
    "another boundary": Sent(400, "the form: Invalid multipart data", b"--C\r\n\r\n--C--", FORM),
    "a form that is none": Sent(400, "the form: Invalid multipart data", b"hello", FORM),
    "an empty form": Sent(400, "cut off", b"", FORM),
    "a form without files": Sent(422, "the form is empty", b"--B--\r\n", FORM),
    "a form that is cut off": Sent(400, "cut off: its last boundary is missing", form(part())[:-20], FORM),
    "a part without a name": Sent(
        400, '"name" must be provided', form(b"--B\r\nContent-Type: image/png\r\n\r\nx\r\n"), FORM
    ),
    "a part with a huge head": Sent(
        400, "the form: Invalid multipart data", form(part(head=f'; filename="{"a" * 9000}"')), FORM
    ),
    "too many files": Sent(400, "Maximum number of files is 4", form(*[part()] * 5), FORM),
    "thousands of files": Sent(400, "Maximum number of files is 4", form(*[part(content=b"")] * 9000), FORM),
    "another field": Sent(422, "unknown field 'image'; expected files named 'files'", form(part("image")), FORM),
    "text for a file": Sent(400, "Maximum number of fields is 0", form(part(head="")), FORM),
    "top_k of zero": Sent(422, "top_k='0': Input should be greater than or equal to 1", PNG, IMAGE, "/predict?top_k=0"),
    "top_k of more than there are": Sent(
        422, "top_k='11': Input should be less than or equal to 10", PNG, IMAGE, "/predict?top_k=11"
    ),
    "top_k of no number": Sent(422, "top_k='many'", PNG, IMAGE, "/predict?top_k=many"),
    "an unknown label": Sent(422, "label='cat': the model has no such class", PNG, IMAGE, "/explain?label=cat"),
    "several to explain": Sent(422, "2 images; expected one at a time", form(part(), part()), FORM, "/explain"),
    "no image to explain": Sent(422, "cannot be read as an image", b"hello", IMAGE, "/explain"),
    "an unknown path": Sent(404, "there is nothing here", b"", None, "/admin", "GET"),
    "docs that need another site": Sent(404, "there is nothing here", b"", None, "/docs", "GET"),
    "a wrong method": Sent(405, "GET is not answered here; expected POST", b"", None, "/predict", "GET"),
    "a path out of the examples": Sent(404, "there is", b"", None, "/examples/..%2fmodel.json", "GET"),
    "a path out of everything": Sent(404, "there is", b"", None, "/examples/%2e%2e/%2e%2e/etc/passwd", "GET"),
    "the model's weights": Sent(404, "there is no such example", b"", None, "/examples/model.safetensors", "GET"),
    "another host": Sent(400, "the Host header names another machine", PNG, IMAGE | {"Host": "evil.example:80"}),
    "another site's page": Sent(403, "a page of another site", PNG, IMAGE | {"Sec-Fetch-Site": "cross-site"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def url(start: Start) -> Iterator[str]:
    with start(limits=Limits(body_bytes=BODY_BYTES, images=IMAGES, pixels=PIXELS, seconds=SECONDS)) as url:
        yield url


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_clear_and_the_next_request_is_answered(
    case: str, client: httpx.Client, expected: Expected
) -> None:
    sent = CASES[case]
    content = sent.content() if callable(sent.content) else sent.content
    answer = client.request(sent.method, sent.path, content=content, headers=sent.headers)
    assert answer.status_code == sent.status, answer.text
    assert list(answer.json()) == ["error"]
    message = answer.json()["error"]
    assert sent.told in message
    assert "\n" not in message
    assert len(message) < 400
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert_answered(client, expected)


def assert_answered(client: httpx.Client, expected: Expected) -> None:
    found = post_files(client, ("a.png", expected.files[0]))
    assert found.json()["predictions"][0]["label"] == expected.labels[0]


RAW = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "a huge header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "a length that is none": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
    "two lengths": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a chunk of no size": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("case", RAW)
def test_what_is_no_http_is_refused(case: str, client: httpx.Client, expected: Expected) -> None:
    came = talk(client, RAW[case])
    assert came.startswith(b"HTTP/1.1 400 ") or (case == "a huge header" and not came)  # of which it reads no more
    assert_answered(client, expected)


def talk(client: httpx.Client, sent: bytes) -> bytes:
    """Send bytes; returns what comes until the service closes the connection."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        came = b""
        with suppress(ConnectionError):
            connection.sendall(sent)
            while block := connection.recv(10_000):
                came += block
        return came


def test_a_body_that_does_not_come_is_not_waited_for(client: httpx.Client, expected: Expected) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc"
    start = time.monotonic()
    came = talk(client, head)
    assert SECONDS <= time.monotonic() - start < SECONDS + 5
    assert came.startswith(b"HTTP/1.1 408 ")
    error = json.loads(came.rpartition(b"\r\n\r\n")[2])["error"]
    assert error.startswith(f"the body did not come within {SECONDS:g} s")
    assert_answered(client, expected)


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea"])
def test_a_head_that_does_not_come_is_not_waited_for(
    sent: bytes, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    start = time.monotonic()
    assert talk(client, sent).startswith(b"HTTP/1.1 200 " if b"localhost" in sent else b"")
    assert 0.2 <= time.monotonic() - start < 4  # uvicorn waits 5 s after an answer


def test_connections_are_bounded(client: httpx.Client, expected: Expected, monkeypatch: pytest.MonkeyPatch) -> None:
    client.get("/health")
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 1)
    start = time.monotonic()
    assert talk(client, b"") == b""
    assert time.monotonic() - start < 4
    assert_answered(client, expected)  # on the connection that is there


def test_a_client_that_asks_first_is_spared_the_sending(client: httpx.Client) -> None:
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
    start = time.monotonic()
    came = talk(client, f"{head}Content-Length: {BODY_BYTES + 1}\r\n\r\n".encode())
    assert came.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - start < 0.9  # nothing is waited for


@pytest.mark.parametrize("gone", ["in its body", "before its answer"])
def test_a_client_that_goes_leaves_nothing_behind(gone: str, client: httpx.Client, expected: Expected) -> None:
    length = len(PNG) + (1 if gone == "in its body" else 0)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    for _ in range(20):
        with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
            connection.sendall(head.encode() + PNG)
    assert_answered(client, expected)
    deadline = time.monotonic() + 10
    while "tlx_queue_images 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        ("C:\\cat.png", "cat.png"),
        ("naïve ✓.png", "naïve ✓.png"),
        ("a\x00\x1b[31m\u202egnp.png", "a\\x00\\x1b[31m\\u202egnp.png"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("a" * 3000, "a" * 199 + "…"),
        ("", ""),
    ],
)
def test_a_file_name_is_said_back_and_nothing_else(name: str, shown: str, client: httpx.Client) -> None:
    body = form(part(head=f'; filename="{name}"'), part())
    answer = client.post("/predict", content=body, headers=FORM)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["filename"] == shown


def test_bodies_of_all_requests_together_are_bounded(start: Start, expected: Expected) -> None:
    """Sixteen of the largest may be in memory; whoever sends more is told to come again."""
    limits = Limits(body_bytes=100_000)
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    with start(limits=limits) as url, httpx.Client(base_url=url, trust_env=False) as client:
        open_ones = [socket.create_connection((client.base_url.host, client.base_url.port or 80)) for _ in range(16)]
        for connection in open_ones:
            connection.sendall(head.encode() + bytes(99_990))
        answer = poll(lambda: client.post("/predict", content=bytes(90_000), headers=IMAGE), until=503)
        assert answer.json() == {"error": "too many large requests at once; try again in a second"}
        assert answer.headers["retry-after"] == "1"
        for connection in open_ones:
            connection.close()
        poll(lambda: post_files(client, ("a.png", expected.files[0])), until=200)


def poll(ask: Any, *, until: int) -> httpx.Response:
    """Ask until the answer has a status."""
    deadline = time.monotonic() + 10
    while (answer := ask()).status_code != until and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answer.status_code == until, answer.text
    return answer


def test_pages_of_other_sites_get_nothing_from_a_browser(client: httpx.Client) -> None:
    headers = client.get("/model", headers={"Origin": "https://evil.example"}).headers
    assert not [name for name in headers if name.startswith("access-control-")]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
