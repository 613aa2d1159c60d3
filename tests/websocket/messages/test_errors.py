"""Errors that clients see: one shape, exactly one a bad message, and the connection goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import pytest

from daebus import ClientError, Daebus, DuplicateHandlerError, EncodeError, WebSocketRequest
from daebus.testing import AppClient
from tests.support.fixture_types import MakeApp

MAX_DEPTH = 100_000


def only_answer(client: AppClient) -> Any:
    """Return the one message that answers what was sent; fail if there are two, or none."""
    message = client.receive()
    client.send("echo", "sentinel")
    following = client.receive()
    assert following == {"type": "response", "data": "sentinel"}, "a second answer came"
    return message


def only_error(client: AppClient, *more: str) -> dict[str, Any]:
    message = only_answer(client)
    assert set(message) == {"type", "data"}
    assert message["type"] == "error"
    data = message["data"]
    assert set(data) - {"message_type"} == {"error", "code", *more}
    assert all(isinstance(value, str) for value in data.values())
    assert data["error"]
    assert data["code"]
    return dict(data)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_json"),
        ("{", "bad_json"),
        ("not json", "bad_json"),
        ('{"type": "echo"} trailing', "bad_json"),
        ("{'type': 'echo'}", "bad_json"),
        ('\ufeff\ufeff{"type": "echo"}', "bad_json"),
        ("\x00", "bad_json"),
        ("[1, 2]", "not_an_object"),
        ('"echo"', "not_an_object"),
        ("7", "not_an_object"),
        ("null", "not_an_object"),
        ("{}", "missing_type"),
        ('{"data": {}}', "missing_type"),
        ('{"Type": "echo"}', "missing_type"),
        ('{"type": 5}', "bad_type"),
        ('{"type": null}', "bad_type"),
        ('{"type": ["echo"]}', "bad_type"),
    ],
)
def test_a_message_that_is_no_envelope_is_answered_once(app: Daebus, text: str, code: str) -> None:
    with app.test_client() as client:
        client.send_raw(text)
        data = only_error(client)
    assert data["code"] == code
    assert "message_type" not in data


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("ehco", "did you mean 'echo'?"),
        ("Echo", "did you mean 'echo'?"),
        ("something else", None),
        ("", None),
    ],
)
def test_an_unknown_type_is_named_with_the_nearest_known_one(
    app: Daebus, kind: str, hint: str | None
) -> None:
    with app.test_client() as client:
        client.send(kind, {})
        data = only_error(client)
    assert data["code"] == "unknown_type"
    assert data.get("message_type", "") == kind
    assert repr(kind) in data["error"]
    assert (hint or "did you mean") in data["error"] or hint is None
    assert hint is not None or "did you mean" not in data["error"]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b'{"type": "echo", "data": 1}',
        '{"type": "echo", "data": 1}'.encode("utf-16"),
        '{"type": "echo", "data": 1}'.encode("utf-32"),
        b"\xff\xfe\x00",
    ],
    ids=["empty", "utf-8", "utf-16", "utf-32", "garbage"],
)
def test_a_binary_message_is_refused_whatever_is_in_it(app: Daebus, message: bytes) -> None:
    with app.test_client() as client:
        client.send_raw(message)
        assert only_error(client)["code"] == "binary_not_supported"


# --- handlers that raise ------------------------------------------------------------


class Unexpected(BaseException):
    pass


EXCEPTIONS = [
    ValueError("secret-4711"),
    KeyError("secret-4711"),
    RecursionError("secret-4711"),
    MemoryError("secret-4711"),
    SystemExit("secret-4711"),
    KeyboardInterrupt("secret-4711"),
    GeneratorExit("secret-4711"),
    asyncio.CancelledError("secret-4711"),
    StopIteration("secret-4711"),
    Unexpected("secret-4711"),
]


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
def test_a_handler_that_raises_is_answered_once_and_logged_once(
    app: Daebus, caplog: pytest.LogCaptureFixture, exc: BaseException
) -> None:
    @app.socket("fail")
    def fail(req: WebSocketRequest) -> None:
        raise exc

    with app.test_client() as client:
        client.send("fail")
        data = only_error(client)
    assert data["code"] == "handler_error"
    assert data["message_type"] == "fail"
    assert "secret-4711" not in json.dumps(data)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "'fail'" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is exc


def test_a_returned_value_without_a_json_form_is_an_error_of_the_handler(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    app.socket("give")(lambda req: {"value": object()})
    with app.test_client() as client:
        client.send("give")
        assert only_error(client)["code"] == "handler_error"
    assert "$.value is an object, which has no JSON form" in caplog.text


def test_debug_tells_the_client_what_was_raised(make_app: MakeApp) -> None:
    app = make_app(debug=True)
    app.socket("echo")(lambda req: req.data)

    @app.socket("fail")
    def fail(req: WebSocketRequest) -> None:
        raise ValueError("the valve is stuck")

    with app.test_client() as client:
        client.send("fail")
        data = only_error(client, "traceback")
    assert data["code"] == "handler_error"
    assert data["error"] == "the handler failed"  # the text that pages show
    assert "Traceback" in data["traceback"]
    assert "ValueError: the valve is stuck" in data["traceback"]


@pytest.mark.parametrize("debug", [False, True])
def test_client_error_is_how_an_app_sends_its_own_text(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    app = make_app(debug=debug)
    app.socket("echo")(lambda req: req.data)

    @app.socket("pay")
    def pay(req: WebSocketRequest) -> None:
        raise ClientError("the card was declined", code="declined")

    @app.socket("pay_async")
    async def pay_async(req: WebSocketRequest) -> None:
        await asyncio.sleep(0)
        raise ClientError("no card")

    with app.test_client() as client:
        client.send("pay")
        assert only_error(client) == {
            "error": "the card was declined",
            "code": "declined",
            "message_type": "pay",
        }
        client.send("pay_async")
        assert only_error(client) == {
            "error": "no card",
            "code": "client_error",
            "message_type": "pay_async",
        }
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_was_sent_before_the_exception_has_arrived(app: Daebus) -> None:
    @app.socket("begin")
    def begin(req: WebSocketRequest) -> None:
        app.websocket.send("begun")
        raise ValueError

    with app.test_client() as client:
        client.send("begin")
        assert client.receive() == {"type": "response", "data": "begun"}
        assert only_error(client)["code"] == "handler_error"


# --- hostile JSON -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "echo", "data": ' + "7" * 5_000 + "}",
        '{"type": "echo", "data": -' + "7" * 5_000 + "}",
        '{"type": "echo", "data": NaN}',
        '{"type": "echo", "data": [Infinity]}',
        '{"type": "echo", "data": {"x": -Infinity}}',
        '{"type": NaN}',
        '{"type": "echo", "data": "\\ud8"}',
        '{"type": "echo", "data": "line\nbreak"}',
        '{"type": "echo", "data": 01}',
    ],
    ids=lambda text: text[:30],
)
def test_hostile_json_is_answered_with_bad_json(app: Daebus, text: str) -> None:
    with app.test_client() as client:
        client.send_raw(text)
        assert only_error(client)["code"] == "bad_json"


@pytest.mark.parametrize(
    "text",
    [
        "[" * MAX_DEPTH,
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH,
        '{"type": "echo", "data": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
        '{"type": "echo", "data": ' + "[" * 100 + "]" * 100 + "}",
    ],
    ids=lambda text: text[:30],
)
def test_deep_json_is_answered_with_too_deep(app: Daebus, text: str) -> None:
    with app.test_client() as client:
        client.send_raw(text)
        assert only_error(client)["code"] == "too_deep"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"type": "echo", "data": "\\ud800"}', "\ud800"),
        ('{"type": "echo", "data": {"\\udfff": ["x\\udc00y"]}}', {"\udfff": ["x\udc00y"]}),
        ('{"type": "echo", "data": "\\ud83d\\udc33"}', "\N{SPOUTING WHALE}"),
        ('{"type": "echo", "data": {"%s": 1}}' % ("k" * 1_000_000), {"k" * 1_000_000: 1}),
        ('{"type": "echo", "data": ' + "[" * 99 + "]" * 99 + "}", None),
        ('{"type": "echo", "data": {"a": 1, "a": 2}}', {"a": 2}),
        ('{"type": "echo", "data": ' + "7" * 4_000 + "}", int("7" * 4_000)),
        ('{"data": "first", "type": "echo"}', "first"),
        (' \r\n\t{"type": "echo", "data": "blank"}\n ', "blank"),
        ('{"type": "\\u0065cho", "data": "escaped"}', "escaped"),
        ('{"type": "echo", "data": "\\u0000"}', "\x00"),
        ('{"type": "echo", "data": -0.0}', -0.0),
        ('{"type": "echo", "data": 1e-400}', 0.0),
    ],
    ids=lambda value: str(value)[:30].encode("ascii", "backslashreplace").decode(),
)
def test_unusual_json_is_handled(app: Daebus, text: str, data: object) -> None:
    with app.test_client() as client:
        client.send_raw(text)
        message = only_answer(client)
    assert message["type"] == "response"
    assert message["data"] == (data if data is not None else json.loads(text)["data"])


def test_a_number_that_overflows_is_no_invalid_reply(app: Daebus) -> None:
    with app.test_client() as client:
        client.send_raw('{"type": "echo", "data": 1e999}')
        assert client.receive() == {"type": "response", "data": None}


@pytest.mark.parametrize("kind", ["x" * 1_000_000, "\ud800" * 50_000, "\x00\x1b[31m"])
def test_a_hostile_type_is_not_sent_back_at_full_length(app: Daebus, kind: str) -> None:
    with app.test_client() as client:
        client.send(kind)
        data = only_error(client)
    assert data["code"] == "unknown_type"
    assert len(json.dumps(data)) < 2_000


def test_a_client_error_that_json_cannot_carry_is_still_one_error(app: Daebus) -> None:
    @app.socket("fail")
    def fail(req: WebSocketRequest) -> None:
        raise ClientError("half a pair: \ud800", code="half")

    @app.socket("worse")
    def worse(req: WebSocketRequest) -> None:
        raise ClientError(object(), code="worse")  # type: ignore[arg-type]

    with app.test_client() as client:
        client.send("fail")
        assert only_error(client)["error"] == "half a pair: \ud800"
        client.send("worse")
        only_error(client)


@dataclasses.dataclass
class Halfway:
    """An object that cannot be asked for what it is made of."""

    missing: int = dataclasses.field(init=False)


class Odd(UserDict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        raise LookupError("no keys today")


def test_objects_that_raise_when_they_are_encoded_cost_nobody_the_connection(app: Daebus) -> None:
    @app.socket("refuse")
    def refuse(req: WebSocketRequest) -> None:
        raise ClientError("no", data={"why": Halfway()})

    @app.socket("answer")
    def answer(req: WebSocketRequest) -> Halfway:
        return Halfway()

    @app.socket("raise")
    def fail(req: WebSocketRequest) -> None:
        raise KeyError

    @app.websocket.on_error
    def more(req: WebSocketRequest, exc: BaseException) -> Any:
        return Odd(hint="none") if req.message_type == "raise" else {"why": Halfway()}

    with app.test_client() as client:
        for kind in ("refuse", "answer", "raise"):
            client.send(kind)
            assert only_error(client)["code"] == "handler_error"
    with pytest.raises(EncodeError, match="no attribute 'missing'"):
        app.websocket.broadcast_to_all(Halfway())


# --- registering --------------------------------------------------------------------


def test_a_second_handler_of_a_type_is_refused(app: Daebus) -> None:
    with pytest.raises(DuplicateHandlerError, match=r"'echo' has a handler already.*use another"):
        app.socket("echo")(lambda req: None)


def test_a_type_must_be_a_string_and_a_handler_callable(app: Daebus) -> None:
    with pytest.raises(TypeError, match="write message_type='my_type'"):
        app.socket(5)(lambda req: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the handler of 'nothing' must be a function, not None"):
        app.socket("nothing")(None)  # type: ignore[type-var]
