"""Cookies, forms and files that clients send; large ones are on the disk, for as long as needed."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.utils import send_file
from werkzeug.wrappers import Response

from daebus import Daebus, Request
from daebus.http.site import request as request_module
from tests.support.fixture_types import OpenRaw, Serve
from tests.support.waiting import eventually

KIND = "Content-Type: multipart/form-data; boundary=B"
LARGE = bytes(range(256)) * 4096


def form(*files: bytes, fields: int = 0, end: bytes = b"--B--\r\n") -> bytes:
    body = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="f%d"; filename="%d.bin"\r\n\r\n%b\r\n'
        % (number, number, data)
        for number, data in enumerate(files)
    )
    more = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n' % number
        for number in range(fields)
    )
    return body + more + end


def files_on_disk() -> list[str]:
    """Return the temporary files without a name that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.endswith(" (deleted)") and target.startswith(tempfile.gettempdir()):
            found.append(target)
    return found


@pytest.fixture(autouse=True)
def no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files go to a folder that must be empty, and be closed, at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert eventually(lambda: not files_on_disk())
    assert list(folder.iterdir()) == []


@pytest.fixture
def app(serve: Serve, tmp_path: Path) -> Daebus:
    app = serve()

    @app.route("/save", methods=["POST"])
    def save(req: Request) -> Any:
        target = tmp_path / "saved.bin"
        req.files["f0"].save(target)
        return {"name": req.files["f0"].filename, "size": target.stat().st_size}

    @app.route("/open", methods=["POST"])
    def still_open(req: Request) -> Any:
        return {"files": len(req.files), "on_disk": len(files_on_disk())}

    @app.route("/raises", methods=["POST"])
    def raises(req: Request) -> Any:
        raise ValueError(len(req.files))

    @app.route("/sends-back", methods=["POST"])
    def sends_back(req: Request) -> Any:
        assert len(req.files) == 2
        return send_file(req.files["f1"].stream, req.environ, mimetype="image/png")

    @app.route("/streams", methods=["POST"])
    def streams(req: Request) -> Any:
        assert req.files
        return (b"x" * 100_000 for _ in iter(int, 1))

    @app.route("/headers", methods=["POST"])
    def headers(req: Request) -> Any:
        return {"files": len(req.files)}, 200, {"X-Evil": "a\0b"}

    app.start()
    return app


def test_a_file_is_saved(app: Daebus, raw: OpenRaw, tmp_path: Path) -> None:
    client = raw(app)
    for data in (b"", b"small", LARGE):
        answer = client.post("/save", form(data), KIND)
        assert answer.json == {"name": "0.bin", "size": len(data)}
        assert (tmp_path / "saved.bin").read_bytes() == data


def test_large_files_are_on_the_disk_while_the_view_runs(app: Daebus, raw: OpenRaw) -> None:
    client = raw(app)
    at_most = bytes(request_module.MAX_MEMORY_FILE)
    one = 1  # the body itself
    assert client.post("/open", form(b"a", at_most), KIND).json == {"files": 2, "on_disk": one}
    assert client.post("/open", form(b"a", at_most + b"a", LARGE), KIND).json == {
        "files": 3,
        "on_disk": one + 2,
    }


def test_a_view_that_raises(app: Daebus, raw: OpenRaw, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "daebus.http"):
        for path in ("/raises", "/headers"):
            assert raw(app).post(path, form(LARGE, LARGE), KIND).status == 500


def test_an_upload_that_is_sent_back(app: Daebus, raw: OpenRaw) -> None:
    answer = raw(app).post("/sends-back", form(LARGE, LARGE), KIND)
    assert (answer.status, answer.body) == (200, LARGE)


def test_a_client_that_leaves(app: Daebus, raw: OpenRaw) -> None:
    for path in ("/streams", "/sends-back"):
        client = raw(app)
        body = form(LARGE, LARGE)
        lines = [f"POST {path} HTTP/1.1", "Host: x", KIND, f"Content-Length: {len(body)}"]
        client.send("\r\n".join(lines) + "\r\n\r\n")
        client.send(body)
        assert client.head().status == 200
        client.sock.close()
    half = raw(app)
    half.send(f"POST /save HTTP/1.1\r\nHost: x\r\n{KIND}\r\nContent-Length: 5000000\r\n\r\n")
    half.send(form(LARGE))
    assert eventually(files_on_disk)
    half.sock.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(LARGE, fields=request_module.MAX_FORM_PARTS - 1), 200),
        (form(LARGE, fields=request_module.MAX_FORM_PARTS), 413),
        (form(LARGE, b"b", end=b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nend'), 400),
        (
            form(LARGE, end=b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n')
            + b"a" * (request_module.MAX_FORM_MEMORY + 1)
            + b"\r\n--B--\r\n",
            413,
        ),
    ],
    ids=["most parts", "too many parts", "unfinished", "field too large"],
)
def test_bounds_of_forms(app: Daebus, raw: OpenRaw, body: bytes, status: int) -> None:
    client = raw(app)
    assert client.post("/open", body, KIND).status == status
    assert client.post("/open", form(b"a"), KIND).json["files"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"&".join([b"a=1"] * request_module.MAX_FORM_PARTS), 200),
        (b"&".join([b"a=1"] * (request_module.MAX_FORM_PARTS + 1)), 413),
        (b"&" * 60_000, 413),
        (b"a=" + b"b" * (request_module.MAX_FORM_MEMORY - 2), 200),
        (b"a=" + b"b" * (request_module.MAX_FORM_MEMORY - 1), 413),
    ],
    ids=["most fields", "too many fields", "empty fields", "largest", "too large"],
)
def test_bounds_of_forms_without_files(
    serve: Serve, raw: OpenRaw, body: bytes, status: int
) -> None:
    app = serve()
    app.route("/fields", methods=["POST"])(lambda req: {"a": len(req.form.getlist("a"))})
    app.start()
    kind = "Content-Type: application/x-www-form-urlencoded"
    client = raw(app)
    assert client.post("/fields", body, kind).status == status
    # In chunks the size is known at the end alone.
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = f"POST /fields HTTP/1.1\r\nHost: x\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head.encode() + chunks)
    answer = client.answer()
    assert answer.status == status
    if status == 413:
        assert "the form" in answer.json["error"]


def test_cookies(serve: Serve, raw: OpenRaw) -> None:
    app = serve()

    @app.route("/count")
    def count(req: Request) -> Any:
        number = int(req.cookies.get("count", 0)) + 1
        response = Response(str(number))
        response.set_cookie("count", str(number), max_age=60, httponly=True, samesite="Lax")
        response.set_cookie("other", "ü; x")
        return response

    app.start()
    client = raw(app)
    cookies: list[str] = []
    for number in range(1, 4):
        answer = client.get("/count", "Cookie: " + "; ".join(cookies))
        assert answer.body == b"%d" % number
        values = [value for name, value in answer.headers if name == "set-cookie"]
        assert "HttpOnly" in values[0]
        assert len(values) == 2
        cookies = [value.partition(";")[0] for value in values]
