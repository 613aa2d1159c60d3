"""The JSON around messages: what is taken, what is refused, what goes out."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daebus import EncodeError
from daebus.data import encoder, fastjson
from daebus.websocket.protocol import envelope
from daebus.websocket.protocol.envelope import MAX_ECHO, BadMessage, decode, encode, error
from tests.support.waiting import stable_id

PACKAGES = ["json", "orjson"] if fastjson.AVAILABLE else ["json"]

quick = settings(max_examples=60, derandomize=True, deadline=None, database=None)


@contextlib.contextmanager
def using(package: str) -> Iterator[None]:
    """Have the JSON package chosen that would be, were only that one installed."""
    chosen = envelope._fast
    envelope._fast = encoder._fast = package == "orjson"
    try:
        yield
    finally:
        envelope._fast = encoder._fast = chosen


@pytest.fixture(params=["json", "orjson"])
def package(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in PACKAGES:
        pytest.skip("orjson is not installed")
    with using(request.param):
        yield request.param


def strictly(data: bytes) -> Any:
    """Decode what was sent as a strict reader would."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} was sent")

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


def test_the_package_in_use(package: str) -> None:
    assert encoder.package() == package


# --- in -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "data"),
    [
        ('{"type":"a","data":{"b":1}}', "a", {"b": 1}),
        ('{"data":null,"type":""}', "", None),
        (' \t\r\n{ "type" : "a" , "data" : [ ] } \r\n', "a", []),
        ('\ufeff {"type":"a","data":1}', "a", 1),
        ('{"type":"κ\\u00e9","data":"\\ud834\\udd1e"}', "κé", "𝄞"),
        ('{"type":"a","type":"b","data":0}', "b", 0),
        ('{"type":"a","data":9223372036854775808}', "a", 2**63),
        ('{"type":"a","data":18446744073709551616}', "a", 2**64),
        ('{"type":"a","data":-9223372036854775809}', "a", -(2**63) - 1),
        ('{"type":"a","data":' + "7" * 400 + "}", "a", int("7" * 400)),
        ('{"type":"a","data":"\\ud800"}', "a", "\ud800"),
        ('{"type":"\\udc00","data":1}', "\udc00", 1),
        ('{"type":"a","data":1.5e300}', "a", 1.5e300),
    ],
)
def test_decode(package: str, text: str, kind: str, data: object) -> None:
    got, payload = decode(text)
    assert got == kind
    assert payload["type"] == kind
    assert payload["data"] == data
    assert type(payload["data"]) is type(data)


def test_further_members_are_kept(package: str) -> None:
    assert decode('{"type":"a","id":7}') == ("a", {"type": "a", "id": 7})


DEEP = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"type":"a"',
        '{"type":"a"}}',
        '{"type":"a"} x',
        "{'type':'a'}",
        '{"type":"a",}',
        '{"type":"a","data":NaN}',
        '{"type":"a","data":[Infinity]}',
        '{"type":"a","data":-Infinity}',
        '{"type":"a","data":01}',
        '{"type":"a","data":1.}',
        '{"type":"a","data":"\n"}',
        '{"type":"a","data":"\\x41"}',
        '\ufeff\ufeff{"type":"a"}',
        '{"type":"a"}\ufeff',
        '{"type":"a","data":' + "9" * 5000 + "}",
        "\0",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_no_json(package: str, text: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode(text)
    assert caught.value.code == "bad_json"
    assert len(caught.value.text) < 200


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"a","data":' + "[" * DEEP + "]" * DEEP + "}",
        '{"type":"a","data":' + "[" * DEEP,
        '{"a":' * DEEP + "1" + "}" * DEEP,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_too_deep(package: str, text: str) -> None:
    with pytest.raises(BadMessage, match="nested deeper than 100 levels") as caught:
        decode(text)
    assert caught.value.code == "too_deep"


@pytest.mark.parametrize("text", ["[]", '"type"', "1", "null", "true", "-0", '[{"type":"a"}]'])
def test_no_object(package: str, text: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode(text)
    assert caught.value.code == "not_an_object"


@pytest.mark.parametrize("text", ["{}", '{"Type":"a"}', '{"data":{"type":"a"}}'])
def test_no_type(package: str, text: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode(text)
    assert caught.value.code == "missing_type"


@pytest.mark.parametrize("value", ["null", "1", "true", "[]", "{}", '["a"]', "1.5"])
def test_type_that_is_no_string(package: str, value: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode(f'{{"type":{value}}}')
    assert caught.value.code == "bad_type"


def test_a_key_of_a_megabyte(package: str) -> None:
    key = "k" * (1 << 20)
    _, payload = decode(f'{{"type":"a","{key}":1}}')
    assert payload[key] == 1


def test_a_refused_message_leaves_the_decoder_usable(package: str) -> None:
    with pytest.raises(BadMessage):
        decode('{"type":"a","data":' + "[" * DEEP)
    assert decode('{"type":"a"}') == ("a", {"type": "a"})


# --- out ----------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    ANN = "ann"


@dataclasses.dataclass
class Point:
    x: int
    y: list[Any]


@dataclasses.dataclass(slots=True, frozen=True)
class Slim:
    at: datetime.date


Pair = namedtuple("Pair", "a b")

WHEN = datetime.datetime(2024, 2, 29, 12, 30, 5, 250, datetime.UTC)
IDENTITY = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (0, 0),
        (False, False),
        ("", ""),
        ([], []),
        ({}, {}),
        (1.5, 1.5),
        (2**63, 2**63),
        (2**64, 2**64),
        (-(2**70), -(2**70)),
        (10**4000, 10**4000),
        ((1, (2,)), [1, [2]]),
        ('κ\u2028\x7f"\\\n', 'κ\u2028\x7f"\\\n'),
        ("half \ud800 pair", "half \ud800 pair"),
        ({"\udfff": 1}, {"\udfff": 1}),
        (
            {1: "a", 2.5: "b", False: "c", None: "d"},
            {"1": "a", "2.5": "b", "false": "c", "null": "d"},
        ),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Pair(1, [2]), [1, [2]]),
        (Point(1, [Point(2, [])]), {"x": 1, "y": [{"x": 2, "y": []}]}),
        (Slim(datetime.date(2024, 2, 29)), {"at": "2024-02-29"}),
        (WHEN, "2024-02-29T12:30:05.000250+00:00"),
        (WHEN.replace(tzinfo=None), "2024-02-29T12:30:05.000250"),
        (WHEN.time(), "12:30:05.000250"),
        (datetime.timedelta(minutes=1, milliseconds=500), 60.5),
        (IDENTITY, str(IDENTITY)),
        (decimal.Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Name.ANN, "ann"),
        ({"a": Colour.RED, "b": Level.HIGH}, {"a": "red", "b": 3}),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("ab"), ["a", "b"]),
        (b"\x00\xff", "AP8="),
        (bytearray(b"abc"), "YWJj"),
        (memoryview(b"abc"), "YWJj"),
        ("null", "null"),
        ({"null": None}, {"null": None}),
    ],
    ids=stable_id,
)
def test_encode(package: str, value: object, expected: object) -> None:
    got = strictly(encode("kind", value))
    assert got == {"type": "kind", "data": expected}
    assert type(got["data"]) is type(expected)


def test_encode_is_compact_and_utf8(package: str) -> None:
    assert encode("e", {"a": [1, "κ"]}) == '{"type":"e","data":{"a":[1,"κ"]}}'.encode()


def test_a_set_of_what_cannot_be_sorted(package: str) -> None:
    assert sorted(strictly(encode("a", {1, "b"}))["data"], key=str) == [1, "b"]


class Odd:
    pass


def circle() -> list[Any]:
    value: list[Any] = []
    value.append({"again": value})
    return value


def tower() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        Odd(),
        {"a": [Odd()]},
        Odd,
        Point,
        {(1, 2): 3},
        {b"a": 1},
        {Odd(): 1},
        1j,
        10**5000,
        circle(),
        (item for item in "ab"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_json_form(package: str, value: object) -> None:
    with pytest.raises(EncodeError, match="'kind' message") as caught:
        encode("kind", value)
    assert len(str(caught.value)) < 300


def test_nested_too_deep(package: str) -> None:
    value = tower()
    with pytest.raises(EncodeError, match="nested too deep"):
        encode("kind", value)
    while value:  # taken apart by hand: a recursive deallocation is no part of this test
        value = value[0]


def test_error(package: str) -> None:
    assert strictly(error("what", "why")) == {
        "type": "error",
        "data": {"error": "what", "code": "why"},
    }
    assert strictly(error("what", "why", "kind"))["data"]["message_type"] == "kind"


@pytest.mark.parametrize("kind", ["x" * MAX_ECHO, "x" * (MAX_ECHO + 1), "\ud800" * 1000])
def test_error_repeats_a_bounded_part_of_the_type(package: str, kind: str) -> None:
    shown = strictly(error("what", "why", kind))["data"]["message_type"]
    assert shown == (kind if len(kind) <= MAX_ECHO else kind[:MAX_ECHO] + "...")


# --- properties ---------------------------------------------------------------------

# Half surrogate pairs too: Python strings may hold them, and JSON escapes too.
strings = st.text(st.characters(exclude_categories=()), max_size=20)
numbers = st.one_of(
    st.integers(),
    st.integers(-(2**66), 2**66),
    st.sampled_from([n + d for n in (2**53, 2**63, -(2**63), 2**64) for d in (-1, 0, 1)]),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=12,
)


@quick
@given(strings, values)
@example("a", "nan null Infinity")
@example("a", -0.0)
def test_round_trip(kind: str, data: Any) -> None:
    sent = []
    for package in PACKAGES:
        with using(package):
            sent.append(encode(kind, data))
    for text in sent:
        for package in PACKAGES:
            with using(package):
                got, payload = decode(text.decode("utf-8"))
            assert got == kind
            assert list(payload) == ["type", "data"]
            assert repr(payload["data"]) == repr(data)


hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    strings,
    st.binary(max_size=5),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.sampled_from([Colour.RED, Level.HIGH, Name.ANN, Odd, Pair(1, 2)]),
)
anything = st.recursive(
    hashable | st.complex_numbers() | st.builds(Odd),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Point, inner, st.lists(inner, max_size=2)),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
    ),
    max_leaves=10,
)


@quick
@given(strings, anything)
def test_whatever_is_sent_is_json(kind: str, data: Any) -> None:
    outcomes = []
    for package in PACKAGES:
        with using(package):
            try:
                message = strictly(encode(kind, data))
            except EncodeError:
                outcomes.append("refused")
                continue
        assert list(message) == ["type", "data"]
        assert message["type"] == kind
        outcomes.append(repr(message["data"]))
    assert outcomes.count(outcomes[0]) == len(outcomes), "the packages differ"


tokens = st.sampled_from(
    [
        *("{", "}", "[", "]", ",", ":", '"', "\\", " ", "\n", "\0", "\ufeff", "é", "\U0010ffff"),
        *('"type"', '"data"', '"type":"a"', '{"type":"a","data":', "\\ud800", '"\\ud800"', "\\u"),
        *("null", "true", "NaN", "-Infinity", "Infinity", "-", "0", "-0", "1.5", "1e5", "1e999"),
        *("1" * 17, "1" * 18, "1" * 19, "1" * 20, "9" * 25, "1" * 5000, "0." + "1" * 40),
        *("[" * 2000, "]" * 2000, '{"a":' * 2000, "}" * 2000),
    ]
)
hostile = st.one_of(
    st.lists(tokens | st.text(max_size=3), max_size=12).map("".join),
    values.map(json.dumps),
    st.builds(lambda value, tail: f'{{"type":"a","data":{json.dumps(value)}{tail}', values, tokens),
)


def judge(text: str) -> str:
    """Return what ``decode`` makes of it; anything but ``BadMessage`` goes through."""
    try:
        return repr(decode(text))
    except BadMessage as exc:
        reply = strictly(error(exc.text, exc.code))
        assert reply["type"] == "error"
        return f"{exc.code}: {exc.text}"


@quick
@given(hostile)
@example('{"type":"a","data":-0}')
@example('{"type":"a","data":1e999}')
@example('{"type":"a","data":123456789012345678901234567890.5}')
def test_hostile_input_is_refused_politely_and_equally(text: str) -> None:
    answers = set()
    for package in PACKAGES:
        with using(package):
            answers.add(judge(text))
    assert len(answers) == 1, "the packages differ"
