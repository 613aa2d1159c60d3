"""Depth of what clients send and of what goes out: bounded before anything recurses."""

from __future__ import annotations

import dataclasses
import http.client
import json
import random
import sys
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from daebus.data import depth
from daebus.data.forms import children, form_of
from daebus.errors import EncodeError
from daebus.websocket.component import MIN_STACK
from daebus.websocket.protocol import envelope
from tests.support.child import PATIENCE, Child


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


DEPTHS = [
    ("1", 0),
    (nested(3), 3),
    ('{"a":[{"b":1}]}', 3),
    ("[[],[],[[]]]", 3),
    ('["[[[[[", 1]', 1),
    ('["]]]]", [[]]]', 3),
    (r'["\"[[[[", [[]]]', 3),
    (r'["\\", [[]], "\\\"[["]', 3),
    ('["\N{GRINNING FACE}[[", [[]]]', 3),
    ('["\ud800", [[]]]', 3),
    ("]]]][[[", 0),
    ("[[[[", 4),
]


@pytest.mark.parametrize(("text", "levels"), DEPTHS)
def test_depth_is_that_of_the_brackets_outside_of_strings(text: str, levels: int) -> None:
    assert [depth.nests(text, most) for most in range(6)] == [levels > most for most in range(6)]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_text_is_looked_at_in_slices(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(depth, "_SLICE", size)
    for text, levels in DEPTHS:
        test_depth_is_that_of_the_brackets_outside_of_strings(text, levels)
    test_any_json_has_its_depth()


@pytest.mark.parametrize("text", ['"ab' * 300_000, "[]" * 450_000, "\\" * 450_000])
def test_looking_takes_little_memory(text: str) -> None:
    tracemalloc.start()
    try:
        depth.nests("[" * 50 + "]" * 50 + "[]" * 51 + text, 100)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(text)
    finally:
        tracemalloc.stop()


def build(rng: random.Random, levels: int) -> Any:
    """Return a value of exactly that depth, with strings that look like more."""
    if levels == 0:
        return rng.choice([1, None, "[{", '"]', "\\", '\\"[', "\N{SNOWMAN}{"])
    inner = [build(rng, rng.randrange(levels)) for _ in range(2)] + [build(rng, levels - 1)]
    return inner if rng.random() < 0.5 else {f'"[{i}\\': item for i, item in enumerate(inner)}


def test_any_json_has_its_depth() -> None:
    rng = random.Random(3)
    for _ in range(300):
        levels = rng.randrange(6)
        text = json.dumps(build(rng, levels), ensure_ascii=rng.random() < 0.5)
        assert not depth.nests(text, levels)
        assert levels == 0 or depth.nests(text, levels - 1)


@pytest.mark.parametrize(
    "text", ['["' + '\\"' * 400_000, '"' * 800_000, "[" * 800_000, "[]" * 400_000]
)
def test_looking_takes_time_in_proportion(text: str) -> None:
    started = time.perf_counter()
    depth.nests("[" * 101 + text, 100)
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("levels", [0, -1, 1001])
@pytest.mark.parametrize("component", [DaebusHttp, DaebusWebSocket])
def test_arguments_that_make_no_sense(component: Any, levels: int) -> None:
    with pytest.raises(
        ValueError, match=f"max_depth is a number of levels from 1 to 1000, not {levels}"
    ):
        component(max_depth=levels)


def post(port: int, path: str, body: bytes) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.request("POST", path, body, {"Content-Type": "application/json"})
        return client.getresponse().status
    finally:
        client.close()


@pytest.mark.parametrize("levels", [20, 150])
def test_a_depth_of_ones_own(levels: int) -> None:
    app = Daebus("deep")
    app.attach(DaebusHttp(port=0, max_depth=levels))
    app.attach(DaebusWebSocket(max_depth=levels))
    app.socket("echo")(lambda req: req.data)
    app.route("/payload", methods=["POST"])(lambda req: {"got": req.payload})
    app.route("/json", methods=["POST"])(lambda req: {"got": req.get_json()})
    with app, app.test_client() as client:
        client.send_raw('{"type":"echo","data":' + nested(levels - 1) + "}")
        assert client.receive()["type"] == "response"
        client.send_raw('{"type":"echo","data":' + nested(levels) + "}")
        error = client.receive()["data"]
        assert error["code"] == "too_deep"
        assert str(levels) in error["error"]
        for path in ("/payload", "/json"):
            for encoding in ("utf-8", "utf-16"):
                for extra, status in ((0, 200), (1, 400)):
                    body = nested(levels + extra).encode(encoding)
                    assert post(app.http.port, path, body) == status, (path, encoding, extra)
        client.send("echo", 1)
        assert client.receive()["data"] == 1


# --- values -------------------------------------------------------------------------


@dataclasses.dataclass
class Node:
    below: Any


def tower(kind: str, levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = {"list": [value], "dict": {"a": value}, "node": Node(value)}[kind]
    return value


def is_too_deep(value: Any) -> bool:
    return depth.is_too_deep(value, lambda item: children(item, form_of))


@pytest.fixture
def raised_limit() -> Iterator[None]:
    """What a host may do, which puts nothing between an encoder and the end of the stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("kind", ["list", "dict", "node"])
def test_values_are_measured_where_the_limit_was_raised(kind: str, raised_limit: None) -> None:
    assert not is_too_deep(tower(kind, depth.MAX_VALUE_DEPTH))
    assert is_too_deep(tower(kind, depth.MAX_VALUE_DEPTH + 1))


def test_parts_that_are_shared_are_looked_at_once_a_level(raised_limit: None) -> None:
    value: Any = [1]
    for _ in range(400):
        value = [value, value, {"a": value}]
    assert not is_too_deep(value)


def test_a_circle_is_too_deep(raised_limit: None) -> None:
    value: list[Any] = []
    value.append(value)
    assert is_too_deep(value)
    with pytest.raises(EncodeError, match="nested too deep"):
        envelope.encode("kind", value)


# --- in a process of its own, with the smallest stack -------------------------------

# What a handler makes. CPython 3.13 frees such a value with a call within a call, which ends the
# process where the stack is small, whoever made it.
DEEP = 1500 if sys.version_info[:2] == (3, 13) else 100_000

HOST = f"""
import dataclasses, logging
from daebus import Daebus, DaebusHttp, DaebusWebSocket

app = Daebus("child", debug=True)
app.attach(DaebusHttp(port=0))
app.attach(DaebusWebSocket(stack_size={MIN_STACK}, max_depth=1000))
app.socket("echo")(lambda req: req.data)
app.route("/echo", methods=["POST"])(lambda req: {{"got": req.payload}})


@dataclasses.dataclass
class Node:
    below: object


@app.socket("reply")
def reply(req):
    value = None
    for _ in range(req.data["levels"]):
        value = {{"list": [value], "dict": {{"a": value}}, "node": Node(value)}}[req.data["kind"]]
    return value


@app.route("/deep")
def deep(req):
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@app.socket("fail")
def fail(req):
    def call(levels):
        return call(levels - 1) if levels else 1 / 0
    return call(900)


"""

RUN = """
from tests.support.peer import TEXT, Peer
import socket, http.client

def post(body, kind):
    client = http.client.HTTPConnection("127.0.0.1", app.http.port, timeout=20)
    client.request("POST", "/echo", body, {"Content-Type": kind})
    status = client.getresponse().status
    client.close()
    return status

def get(path):
    client = http.client.HTTPConnection("127.0.0.1", app.http.port, timeout=20)
    client.request("GET", path)
    status = client.getresponse().status
    client.close()
    return status

def code(message):
    return message["data"]["code"] if message["type"] == "error" else message["type"]

with app:
    peer = Peer(socket.create_connection(("127.0.0.1", app.http.port), timeout=20))
    from tests.support.peer import upgrade_request
    assert peer.ask(upgrade_request()).status == 101
    for levels in (300, 990, 400_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            inner = opening * levels + "1" + closing * levels
            peer.send(TEXT, '{"type":"echo","data":' + inner[:1_000_000] + "}")
            print("message", levels, code(peer.message()), flush=True)
    for kind in ("list", "dict", "node"):
        for levels in (300, 990, DEEP):
            peer.say("reply", {"kind": kind, "levels": levels})
            print("reply", kind, levels, code(peer.message()), flush=True)
    peer.say("fail")
    print("fail", code(peer.message()), flush=True)
    deep = "[" * 400_000 + "]" * 400_000
    print("body", post(deep, "application/json"), flush=True)
    print("view", get("/deep"), flush=True)
    inner = b"x"
    for level in range(500):
        mark = b"m%d" % level
        inner = (
            b'--%b\\r\\nContent-Disposition: form-data; name="a"\\r\\n'
            b"Content-Type: multipart/form-data; boundary=m%d\\r\\n\\r\\n%b\\r\\n--%b--\\r\\n"
            % (mark, level - 1, inner, mark)
        )
    print("form", post(inner, "multipart/form-data; boundary=m499"), flush=True)
    fields = "&".join(["a" + "[a]" * 1000 + "=1"] * 10)
    print("fields", post(fields, "application/x-www-form-urlencoded"), flush=True)
    peer.say("echo", "still here")
    print(peer.message()["data"], flush=True)
    peer.close()
"""


@pytest.mark.parametrize("limit", [None, pytest.param(10**6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("package", ["json", pytest.param("orjson", marks=pytest.mark.slow)])
@pytest.mark.timeout(120)
def test_nothing_deep_ends_the_process(limit: int | None, package: str) -> None:
    before = f"import os, sys\nDEEP = {DEEP}\n"
    if package == "json":
        before += "sys.modules['orjson'] = None\n"
    if limit is not None:
        before += f"sys.setrecursionlimit({limit})\n"
    child = Child(RUN, preamble=before + HOST)
    try:
        code = child.exit_code()
        lines = list(child.lines.queue)
        assert code == 0, (code, lines, child.stderr()[-5:])
    finally:
        child.end()
    said = dict(line.rsplit(" ", 1) for line in lines)
    assert said.pop("still") == "here"
    assert said["message 300"] == "response"
    assert said["message 400000"] == "too_deep"
    for kind in ("list", "dict", "node"):
        assert said[f"reply {kind} 300"] == "response"
        assert said[f"reply {kind} {DEEP}"] == "handler_error"
    assert said["fail"] == "handler_error"
    assert (said["body"], said["view"]) == ("400", "500")
    assert (said["form"], said["fields"]) == ("200", "200")


def test_the_message_of_624_bytes() -> None:
    text = '{"type":"echo","data":' + nested(300) + "}"
    assert len(text) == 623
    with pytest.raises(envelope.BadMessage) as caught:
        envelope.decode(text)
    assert caught.value.code == "too_deep"
