"""Both JSON packages give the same answers: the standard library's."""

from __future__ import annotations

import enum
import functools
import importlib.util
import json
import math
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daebus import Daebus
from daebus.data import encoder
from daebus.errors import EncodeError
from daebus.websocket.protocol import envelope
from tests.support.waiting import stable_id

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("orjson") is None, reason="the extra 'fast' (orjson) is not installed"
)


@pytest.fixture(params=[False, True], ids=["json", "orjson"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(envelope, "_fast", request.param)
    monkeypatch.setattr(encoder, "_fast", request.param)
    return "orjson" if request.param else "json"


def with_package(fast: bool, function: Callable[[], Any]) -> Any:
    before = envelope._fast
    envelope._fast = encoder._fast = fast
    try:
        return function()
    finally:
        envelope._fast = encoder._fast = before


def decoded(text: str) -> Any:
    try:
        kind, payload = envelope.decode(text)
    except envelope.BadMessage as exc:
        return exc.code, exc.text
    return "ok", kind, payload


def encoded(data: Any, kind: str = "t") -> Any:
    try:
        raw = envelope.encode(kind, data)
    except EncodeError:
        return "refused"
    return json.loads(raw.decode("utf-8", "strict"))


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1 from 1.0 and from True, and -0.0 from 0.0, and knows nan."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or str(a) == str(b)
    return bool(a == b)


# --- the table ----------------------------------------------------------------------

NUMBERS = [
    "0", "-0", "-0.0", "1", "1.0", "1e5", "1E+2", "1e-400", "1e999", "-1e999", "1e308", "5e-324",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "99999999999999999999999", "1" * 4000,
    "1" * 5000, "0.1234567890123456789012345", "12345678901234567890.5", "123456789012345678e3",
    "1.7976931348623157e308", "1.7976931348623159e308", "01", "+1", "1.", ".5", "0x1", "1_0", "1e",
    "NaN", "Infinity", "-Infinity", "nan",
]  # fmt: skip
OTHERS = [
    r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d\ude00"', r'"\u0000"', '"\x00"', '"\n"', '"\x7f"',
    '"\u2028"', '"\U0001f600"', r'"\x"', '"', "[", "{", "[1,]", '{"a":1,}', '{"a":1,"a":2}',
    "[[[[]]]]", "true", "null", "None", "'a'", "[1 2]",
    '{1: 2}', "/**/1", "\ufeff1", " 1 ", "\t1\n",
    "\x0b1", "\xa01", '""', '{"": {"": []}}', '"1111111111111111111111111"',
]  # fmt: skip


@pytest.mark.parametrize("value", NUMBERS + OTHERS, ids=stable_id)
@pytest.mark.parametrize("form", ['{"type":"t","data":%s}', '{"type":"t","data":[{"x":[1,%s]}]}'])
def test_both_decode_alike(value: str, form: str) -> None:
    text = form % value
    standard, fast = (with_package(f, lambda: decoded(text)) for f in (False, True))
    assert same(standard, fast), (standard, fast)


@pytest.mark.parametrize("value", NUMBERS + OTHERS, ids=stable_id)
def test_both_judge_a_message_that_is_nothing_else_alike(value: str) -> None:
    standard, fast = (with_package(f, lambda: decoded(value)) for f in (False, True))
    assert same(standard, fast), (standard, fast)


@pytest.mark.parametrize(
    "depth", [98, 99, 100, 500, 950, 1000, 1010, 1020, 1023, 1024, 1025, 2000, 100_000]
)
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_both_stop_at_some_depth_without_harm(depth: int, pair: str) -> None:
    inner = pair[0] * depth if pair == "[]" else '{"a":' * depth
    text = '{"type":"t","data":' + inner + ("]" * depth if pair == "[]" else "1" + "}" * depth)
    outcomes = []
    for fast in (False, True):
        outcome = with_package(fast, lambda: decoded(text + "}"))
        outcomes.append(outcome[0])
    assert outcomes == ["ok" if depth < 100 else "too_deep"] * 2


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    pass


VALUES: list[Any] = [
    None, True, False, 0, -0.0, 1.5, 1e22, 1e16, 5e-324, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1,
    2**64 - 1, 2**64, 10**50, [2**70, {"a": 2**70}], math.nan, math.inf, -math.inf, [math.nan],
    {"a": {"b": [None, math.inf]}}, "\ud800", "a\udfffb", {"\ud800": 1}, ["\udc00"], "\x00\x1f\x7f",
    "\u2028\U0001f600", "null", "", {1: "int"}, {1.5: "float"}, {True: 1, None: 2}, {"a": {2: 3}},
    {(1, 2): 3}, {"a": {(1,): 1}}, (1, 2), {1, 2}, frozenset("a"), b"bytes", bytearray(b"x"),
    Colour.RED, Level.HIGH, Text("text"), {Text("key"): 1}, object(), [object()], int, lambda: 1,
    1j, range(3), {"k": [Colour.RED, b"x", {3}]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=stable_id)
def test_both_encode_alike(value: Any) -> None:
    standard, fast = (with_package(f, lambda: encoded(value)) for f in (False, True))
    assert same(standard, fast), (standard, fast)


def test_what_contains_itself_is_refused(package: str) -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert encoded(loop) == "refused"
    assert encoded({"a": [1, loop]}) == "refused"


@pytest.mark.parametrize("value", [math.nan, math.inf, [None, math.nan], {"null": -math.inf}])
def test_nan_never_leaves(package: str, value: Any) -> None:
    assert b"NaN" not in envelope.encode("t", value)
    assert b"Infinity" not in envelope.encode("t", value)
    with pytest.raises(EncodeError):
        envelope.encode("t", value, encoder.Encoder("error"))


@pytest.mark.parametrize("kind", ["", "plain", "ä", "\ud800", '"\\', "null", "\x00"])
def test_message_types_are_carried_alike(package: str, kind: str) -> None:
    assert encoded(1, kind) == {"type": kind, "data": 1}


def test_a_number_too_large_for_a_float_is_answered_not_crashed_on(
    package: str, app: Daebus
) -> None:
    with app.test_client() as client:
        client.send_raw('{"type":"echo","data":1e999}')
        assert client.receive() == {"type": "response", "data": None}
        client.send_raw('{"type":"echo","data":123456789012345678901234567890}')
        assert client.receive()["data"] == 123456789012345678901234567890
        assert app.websocket.stats()["json"] == package


def test_it_is_chosen_once(app: Daebus) -> None:
    with app.test_client() as client:
        client.request("echo", 1)
        assert app.websocket.stats()["json"] == "orjson" == encoder.package()


def test_several_threads_encode_at_once(package: str) -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for turn in range(300):
            data = {"n": [number] * 20, "t": turn, "null": None}
            if encoded(data) != {"type": "t", "data": data}:
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- anything -----------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=[]), max_size=8)  # surrogates included
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**65)
    | st.integers(-(2**65), -(2**62))
    | st.floats()
    | texts
)
keys = texts | st.integers() | st.booleans() | st.none() | st.floats()
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)
same_always = settings(max_examples=50, deadline=None, derandomize=True, database=None)


@same_always
@given(trees)
def test_any_data_is_encoded_alike(data: Any) -> None:
    standard, fast = (with_package(f, lambda: encoded(data)) for f in (False, True))
    assert same(standard, fast), (standard, fast)


@same_always
@given(trees, st.booleans(), st.sampled_from([None, 1]))
def test_any_message_is_decoded_alike(data: Any, ensure_ascii: bool, indent: int | None) -> None:
    # NaN and lone surrogates included; the wire carries no raw ones.
    text = json.dumps({"type": "t", "data": data}, ensure_ascii=ensure_ascii, indent=indent)
    text = text.encode("utf-8", "replace").decode()
    standard, fast = (with_package(f, lambda: decoded(text)) for f in (False, True))
    assert same(standard, fast), (standard, fast)


pieces = st.sampled_from(
    ['{"type":"t","data":', "}", "[", "]", ",", ":", '"', "1", "9" * 19, "0", "-", "+", ".", "e",
     "true", "null", "NaN", " ", "\\", "\\u", "d800", "\x00", "é", "\u2028"]
)  # fmt: skip


@same_always
@given(st.lists(pieces, max_size=12).map("".join), st.integers())
def test_any_rubbish_is_judged_alike(rubbish: str, number: int) -> None:
    for text in (
        rubbish,
        f'{{"type":"t","data":{rubbish}}}',
        f'{{"type":"t","x":[{number}e{rubbish}',
    ):
        standard, fast = (with_package(f, functools.partial(decoded, text)) for f in (False, True))
        assert same(standard, fast), (text, standard, fast)


class Interrupted:
    """Has no JSON form, and is asked for one as a signal comes."""

    def __lt__(self, other: object) -> bool:
        signal.raise_signal(signal.SIGUSR2)
        return True


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
def test_what_a_signal_handler_raises_is_no_error_of_the_data(error: type[BaseException]) -> None:
    def handler(number: int, frame: object) -> None:
        raise error

    previous = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises(error):  # a set is sorted, which asks its items
            envelope.encode("kind", {Interrupted(), Interrupted()})
    finally:
        signal.signal(signal.SIGUSR2, previous)
