"""From a path to a view and back, over a real socket."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import pytest
from werkzeug.exceptions import Conflict, Forbidden, abort
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from daebus import Daebus, DaebusHttp, DuplicateHandlerError, Request
from tests.support.raw import Raw, make


class Frail:
    def __str__(self) -> str:
        raise AssertionError("nobody may ask")


def throw(exc: BaseException) -> NoReturn:
    raise exc


RESULTS: dict[str, Any] = {
    "dict": {"a": [1, None, "ü"]},
    "list": [1, 2],
    "str": "<b>hällo</b>",
    "bytes": b"\0\xff",
    "status": ({"made": True}, 201),
    "headers": ("text", 202, {"X-One": "1"}),
    "pairs": (b"x", 200, [("X-Two", "2"), ("Content-Type", "image/png")]),
    "response": Response("own", 418, {"X-Three": "3"}),
    "nothing": (None, 204),
}
FAILURES: dict[str, Callable[[], Any]] = {
    "raises": lambda: 1 / 0,
    "exits": partial(throw, SystemExit(3)),
    "interrupts": partial(
        throw, KeyboardInterrupt()
    ),  # not by exec(), which CPython exits 130 after
    "none": lambda: None,
    "object": Frail,
    "number": lambda: 5,
    "odd": lambda: {"a": object()},
    "key": lambda: {"a": {b"b": 1}},
    "long-tuple": lambda: ("a", 200, {}, 1),
    "newline": lambda: ("a", 200, {"X-Evil": "a\r\nSet-Cookie: b"}),
}


@pytest.fixture(scope="module")
def app() -> Iterator[Daebus]:
    app = make(allowed_hosts=["other.example"])

    @app.route("/items/<int:id>", methods=["GET", "DELETE"])
    def item(req: Request, id: int) -> Any:
        return {"method": req.method, "id": id}

    @app.route("/items/<int:id>", methods=["PUT"])
    def put(req: Request, id: int) -> Any:
        return {"put": id}

    @app.route("/files/<path:name>")
    def file(req: Request, name: str) -> Any:
        return {"name": name}

    @app.route("/float/<float:x>/<string(length=2):code>")
    def both(req: Request, x: float, code: str) -> Any:
        return [x, code]

    @app.route("/payload", methods=["GET", "POST"])
    def payload(req: Request) -> Any:
        return {"payload": req.payload}

    @app.route("/lists", methods=["POST"])
    def lists(req: Request) -> Any:
        return {
            "payload": req.payload,
            "a": req.form.getlist("a"),
            "q": req.args.getlist("q"),
        }

    @app.route("/upload", methods=["POST"])
    def upload(req: Request) -> Any:
        found = req.files["file"]
        return {"name": found.filename, "size": len(found.read()), "form": req.form.to_dict()}

    @app.route("/seen")
    def seen(req: Request) -> Any:
        return {
            "path": req.path,
            "args": req.args.to_dict(flat=False),
            "headers": list(req.headers),
            "addr": req.remote_addr,
            "cookies": req.cookies.to_dict(),
            "host": req.host,
            "url": req.url,
            "environ": sorted(req.environ),
        }

    @app.route("/returns/<name>")
    def returns(req: Request, name: str) -> Any:
        return RESULTS[name]

    @app.route("/fails/<name>")
    def fails(req: Request, name: str) -> Any:
        return FAILURES[name]()

    @app.route("/fails-async/<name>")
    async def fails_async(req: Request, name: str) -> Any:
        return FAILURES[name]()

    @app.route("/forbidden")
    def forbidden(req: Request) -> Any:
        raise Forbidden("not you")

    @app.route("/abort/<int:status>")
    def aborts(req: Request, status: int) -> Any:
        abort(status)

    @app.route("/abort-response")
    def aborts_with(req: Request) -> Any:
        abort(Response("mine", 409))

    @app.route("/returned")
    def returned(req: Request) -> Any:
        return Conflict("busy").get_response()

    @app.route("/old")
    def old(req: Request) -> Any:
        return redirect("/new", 303)

    @app.route("/folder/")
    def folder(req: Request) -> Any:
        return "folder"

    @app.route("/thread")
    async def thread(req: Request) -> Any:
        return threading.current_thread().name

    app.start()
    yield app
    app.stop()


# The app outlives the tests, so its threads and sockets do too.
pytestmark = pytest.mark.leaves_thread


@pytest.fixture
def client(app: Daebus) -> Iterator[Raw]:
    with Raw(app) as connection:
        yield connection


def test_methods_and_converters(client: Raw) -> None:
    assert client.get("/items/7").json == {"method": "GET", "id": 7}
    assert client.get("/items/7", method="DELETE").json == {"method": "DELETE", "id": 7}
    assert client.post("/items/7", b"", method="PUT").json == {"put": 7}
    assert client.get("/files/a/b%20c.txt").json == {"name": "a/b c.txt"}
    assert client.get("/float/1.5/ab").json == [1.5, "ab"]
    assert client.get("/float/1.5/abc").status == 404
    assert client.get("/items/x").status == 404
    assert client.get("/items/-1").status == 404


def test_an_unknown_path_is_404_as_json(client: Raw) -> None:
    answer = client.get("/nope")
    assert (answer.status, answer.code) == (404, "not_found")
    assert "not found" in answer.json["error"]


def test_a_known_path_with_another_method_is_405(client: Raw) -> None:
    answer = client.post("/items/7", b"x")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    allow = answer.header("allow")
    assert allow is not None
    assert set(allow.split(", ")) == {"GET", "HEAD", "DELETE", "PUT", "OPTIONS"}
    assert client.get("/items/7").status == 200  # the connection goes on


def test_a_path_with_a_slash_at_the_end_redirects(client: Raw) -> None:
    answer = client.get("/folder?a=b", "X-Forwarded-Host: evil.example")
    assert answer.status == 308
    assert answer.header("location") == "http://x/folder/?a=b"
    assert client.get("/folder/").body == b"folder"


@pytest.mark.parametrize(
    ("name", "status", "kind", "body"),
    [
        ("dict", 200, "application/json", '{"a":[1,null,"ü"]}'.encode()),
        ("list", 200, "application/json", b"[1,2]"),
        ("str", 200, "text/html; charset=utf-8", "<b>hällo</b>".encode()),
        ("bytes", 200, "application/octet-stream", b"\0\xff"),
        ("status", 201, "application/json", b'{"made":true}'),
        ("headers", 202, "text/html; charset=utf-8", b"text"),
        ("pairs", 200, "image/png", b"x"),
        ("response", 418, "text/plain; charset=utf-8", b"own"),
    ],
)
def test_what_views_return(client: Raw, name: str, status: int, kind: str, body: bytes) -> None:
    answer = client.get(f"/returns/{name}")
    assert (answer.status, answer.header("content-type"), answer.body) == (status, kind, body)
    assert answer.header("content-length") == str(len(body))
    assert answer.header("date")
    expected = {"headers": ("x-one", "1"), "pairs": ("x-two", "2"), "response": ("x-three", "3")}
    assert name not in expected or expected[name] in answer.headers
    head = client.get(f"/returns/{name}", method="HEAD")
    assert (head.status, head.header("content-length")) == (status, str(len(body)))
    assert client.get("/nope").status == 404


def test_nothing_with_a_status(client: Raw) -> None:
    answer = client.get("/returns/nothing")
    assert answer.status == 204
    assert answer.header("content-length") is None
    assert client.get("/nope").status == 404


@pytest.mark.parametrize("path", ["fails", "fails-async"])
@pytest.mark.parametrize("name", sorted(FAILURES))
def test_a_view_that_fails_is_500_without_a_word(
    app: Daebus, client: Raw, caplog: pytest.LogCaptureFixture, name: str, path: str
) -> None:
    with caplog.at_level(logging.ERROR, "daebus.http"):
        answer = client.get(f"/{path}/{name}")
    assert (answer.status, answer.code) == (500, "internal_server_error")
    assert answer.json["error"] == "the view failed"
    assert [r.exc_info is not None for r in caplog.records if r.name == "daebus.http"] == [True]
    with Raw(app) as again:  # no worker died of it
        assert again.get("/items/1").status == 200


def test_exceptions_of_werkzeug_are_answers(client: Raw) -> None:
    answer = client.get("/forbidden")
    assert (answer.status, answer.json) == (403, {"error": "not you", "code": "forbidden"})
    for status, code in ((400, "bad_request"), (404, "not_found"), (503, "service_unavailable")):
        answer = client.get(f"/abort/{status}")
        assert (answer.status, answer.code) == (status, code)
    answer = client.get("/abort-response")
    assert (answer.status, answer.body) == (409, b"mine")
    assert client.get("/returned").status == 409


def test_redirect(client: Raw) -> None:
    answer = client.get("/old")
    assert (answer.status, answer.header("location")) == (303, "/new")


def test_async_views_run_on_the_loop(client: Raw) -> None:
    assert client.get("/thread").body == b"daebus-loop"


# --- the request --------------------------------------------------------------------


def test_payload(client: Raw) -> None:
    kind = "Content-Type: application/json"
    for data in ({"a": 1}, [1], None, 0, "x"):
        body = json.dumps(data).encode()
        assert client.post("/payload", body, kind).json == {"payload": data}
    other = "Content-Type: application/vnd.api+json; charset=utf-8"
    assert client.post("/payload", b"[]", other).json == {"payload": []}
    form = "Content-Type: application/x-www-form-urlencoded"
    assert client.post("/payload?q=1", b"a=1&b=%C3%BC", form).json == {
        "payload": {"a": "1", "b": "ü"}
    }
    assert client.post("/payload?q=1", b"", form).json == {"payload": {"q": "1"}}
    assert client.get("/payload?x=1&y=%20").json == {"payload": {"x": "1", "y": " "}}
    assert client.get("/payload").json == {"payload": {}}


@pytest.mark.parametrize("body", [b'{"a":1}', b"[1]", b' [{"a":1}]', b"{}", b'{"a": "b=c&d"}'])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_json_under_another_type_says_so(client: Raw, kind: str, body: bytes) -> None:
    answer = client.post("/payload?q=1", body, *([f"Content-Type: {kind}"] if kind else []))
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert answer.json["error"] == (
        f"the body looks like JSON, and its content type is {repr(kind) if kind else 'missing'}; "
        f"send it with Content-Type: application/json"
    )


def test_a_body_of_another_type_is_no_payload(client: Raw) -> None:
    answer = client.post("/payload?q=1", b"\x89PNG", "Content-Type: image/png")
    assert answer.status == 415
    assert answer.json["error"] == (
        "the content type of the body is 'image/png', neither JSON nor a form; a view reads it "
        "with req.get_data(), and the query with req.args"
    )


def test_repeated_fields_as_lists(client: Raw) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    assert client.post("/lists?q=1&q=2", b"a=1&a=2&[b]=3", form).json == {
        "payload": {"a": "1", "[b]": "3"},
        "a": ["1", "2"],
        "q": ["1", "2"],
    }


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is empty"),
        (b"{", "Expecting property name enclosed in double quotes at 1"),
        (b"\xff", "it is not UTF-8"),
        (b"[" * 50, "Expecting value at 50"),
        (b"9" * 5000, "a number is too long, or NaN or Infinity"),
        (b'{"watts": NaN}', "a number is too long, or NaN or Infinity"),  # as in a message
    ],
)
def test_a_payload_that_is_no_json_is_400(client: Raw, body: bytes, why: str) -> None:
    answer = client.post("/payload", body, "Content-Type: application/json")
    assert (answer.status, answer.code) == (400, "bad_request")
    assert answer.json["error"] == f"the body is not JSON: {why}"


def test_an_upload(client: Raw) -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n'
        + bytes(300_000)
        + b"\r\n--B--\r\n"
    )
    answer = client.post("/upload", body, "Content-Type: multipart/form-data; boundary=B")
    assert answer.json == {"name": "f.bin", "size": 300_000, "form": {"a": "1"}}


def test_what_a_view_sees(client: Raw) -> None:
    seen = client.get(
        "/seen?a=1&a=2&b=%C3%BC",
        "Cookie: a=1; b=2",
        "Cookie: c=3",
        "X-Same: 1",
        "x-same: 2",
        "X_Forged: 1",
        "Accept:text/plain  ",
    ).json
    assert seen["path"] == "/seen"
    assert seen["args"] == {"a": ["1", "2"], "b": ["ü"]}
    assert seen["addr"] == "127.0.0.1"
    assert seen["cookies"] == {"a": "1", "b": "2", "c": "3"}
    assert ["X-Same", "1,2"] in seen["headers"]
    assert ["Accept", "text/plain"] in seen["headers"]
    assert "HTTP_X_FORGED" not in seen["environ"]
    assert "werkzeug.socket" not in seen["environ"]  # nobody takes the connection over
    assert seen["url"] == "http://x/seen?a=1&a=2&b=ü"


def test_an_absolute_target_outranks_the_host(client: Raw) -> None:
    seen = client.get("http://other.example:81/seen?q=1", "X: y").json
    assert (seen["host"], seen["path"]) == ("other.example:81", "/seen")
    assert client.get("http://other.example").status == 404  # the path is "/"
    assert client.get("http://other.example/a%2e%2e/seen").status == 404


def test_strange_paths_reach_the_view_or_404(client: Raw) -> None:
    assert client.get("//seen").status == 200
    assert client.get("/files//etc/passwd").status in (308, 404)
    assert client.get("/files/%ff").json == {"name": "�"}
    assert client.get("/files/%0d%0aX:y").status == 404
    assert client.get("*", method="OPTIONS").status == 200


# --- registering --------------------------------------------------------------------


def test_a_second_view_for_a_path_and_method() -> None:
    http = DaebusHttp(port=0)

    @http.route("/a", methods=["GET", "POST"])
    def first(req: Request) -> Any:
        return ""

    with pytest.raises(DuplicateHandlerError, match=r"POST /a has a view already: .*first"):
        http.route("/a", methods=["post"])(lambda req: "")
    http.route("/a", methods=["PUT"])(lambda req: "")


def test_a_path_without_a_slash() -> None:
    with pytest.raises(ValueError, match="has no leading slash; write '/a'"):
        DaebusHttp(port=0).route("a")(lambda req: "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("workers", 0),
        ("backlog", 0),
        ("max_body", 0),
        ("max_connections", 0),
        ("head_timeout", 0),
        ("static", "/does/not/exist"),
    ],
)
def test_arguments_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        DaebusHttp(**{name: value})


def test_werkzeug_logs_nothing_and_installs_no_handler(client: Raw) -> None:
    before = (list(logging.root.handlers), list(logging.getLogger("werkzeug").handlers))
    client.get("/items/1")
    client.send("broken\r\n\r\n")
    assert client.answer().status == 400
    after = (list(logging.root.handlers), list(logging.getLogger("werkzeug").handlers))
    assert after == before
    assert after[1] == []
