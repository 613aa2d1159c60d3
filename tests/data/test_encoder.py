"""One encoder for messages and views: what it takes, what it says, with both JSON packages."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import sqlite3
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daebus import Daebus, DaebusHttp, DaebusWebSocket, EncodeError
from daebus.data import encoder, fastjson
from daebus.data.encoder import PLAIN, Encoder
from tests.support.raw import Raw

PACKAGES = [False, True] if fastjson.AVAILABLE else [False]


@pytest.fixture(params=PACKAGES, ids=["json", "orjson"][: len(PACKAGES)])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_fast", request.param)


def with_both(function: Callable[[], Any]) -> list[Any]:
    """Return what a function returns with each of the packages; an ``EncodeError`` as its text."""
    chosen, results = encoder._fast, []
    try:
        for encoder._fast in PACKAGES:
            try:
                results.append(function())
            except EncodeError as exc:
                results.append(str(exc))
    finally:
        encoder._fast = chosen
    return results


# --- what is taken ------------------------------------------------------------------

NAN, INF = math.nan, math.inf
DAY = datetime.date(2024, 2, 29)


class Level(enum.IntEnum):
    HIGH = 3


class Colour(enum.Enum):
    RED = "red"
    NONE = NAN


class Grams(float):
    pass


class Model:
    """What a model of pydantic offers."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"at": "2024-02-29", "value": NAN}


class Scalar:
    """What a scalar of numpy offers."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        return self.value


@dataclasses.dataclass
class Point:
    x: float
    more: Any = None


def row() -> sqlite3.Row:
    with sqlite3.connect(":memory:") as connection:
        connection.row_factory = sqlite3.Row
        result: sqlite3.Row = connection.execute("SELECT 1 AS a, 'x' AS b").fetchone()
    connection.close()
    return result


TAKEN: list[tuple[str, Any, Any]] = [
    ("nan", NAN, None),
    ("infinities", [INF, -INF, 1.5], [None, None, 1.5]),
    ("nan inside", {"a": {"b": [None, (NAN,)]}}, {"a": {"b": [None, [None]]}}),
    ("nan in a dataclass", Point(NAN, [INF]), {"x": None, "more": [None]}),
    ("nan as a key", {NAN: 1}, {"null": 1}),
    ("nan of an enum", [Colour.NONE, Colour.RED], [None, "red"]),
    ("float subclass", [Grams(1.5), Grams(NAN)], [1.5, None]),
    ("path", pathlib.PurePosixPath("/a/b"), "/a/b"),
    ("deque", collections.deque([1, NAN], maxlen=5), [1, None]),
    ("range", range(3), [0, 1, 2]),
    ("array", array.array("d", [1.5, NAN]), [1.5, None]),
    ("views", [{"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()], [["a"], [1], [["a", 1]]]),
    ("user collections", [collections.UserDict(a=1), collections.UserList([1])], [{"a": 1}, [1]]),
    ("user string", collections.UserString("text"), "text"),
    ("mapping proxy", types.MappingProxyType({"a": 1}), {"a": 1}),
    ("chain map", collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
    ("row of a database", row(), {"a": 1, "b": "x"}),
    ("model", [Model()], [{"at": "2024-02-29", "value": None}]),
    ("scalars", [Scalar(1.5), Scalar(NAN)], [1.5, None]),
    ("keys", {DAY: 1, Level.HIGH: 2, Scalar(4): 3, Colour.RED: 4}, None),
]


@pytest.mark.parametrize(("value", "expected"), [c[1:] for c in TAKEN], ids=[c[0] for c in TAKEN])
def test_what_is_taken(package: None, value: Any, expected: Any) -> None:
    if expected is None and value is not NAN:
        expected = {"2024-02-29": 1, "3": 2, "4": 3, "red": 4}
    assert json.loads(PLAIN.dumps(value)) == expected


def test_objects_of_numpy(package: None) -> None:
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    day = np.datetime64("2024-02-29")
    data = {
        "scalars": [np.float32(0.5), np.int64(2), np.bool_(True), np.str_("x"), np.float64("nan")],
        "long": [np.longdouble(1.5), np.array([np.longdouble(2.5)])],
        "array": np.array([[1.5, np.nan], [np.inf, 2]]),
        "none": np.array(7),
        "days": [day, np.array([day]), np.datetime64("NaT", "s")],
        "times": [day.astype("M8[ns]"), np.array([1500], "m8[ms]"), np.timedelta64(5, "ns")],
        np.int64(4): "key",
    }
    assert json.loads(PLAIN.dumps(data)) == {
        "scalars": [0.5, 2, True, "x", None],
        "long": [1.5, [2.5]],
        "array": [[1.5, None], [None, 2.0]],
        "none": 7,
        "days": ["2024-02-29", ["2024-02-29"], None],
        "times": ["2024-02-29T00:00:00", [1.5], 0.0],
        "4": "key",
    }
    with pytest.raises(EncodeError, match=r"^\$\.z is a complex, which has no JSON form"):
        PLAIN.dumps({"z": np.complex128(1)})


def test_objects_of_pydantic(package: None) -> None:
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
    model = pydantic.create_model("Reading", at=(datetime.date, ...), value=(float, ...))
    assert json.loads(PLAIN.dumps([model(at=DAY, value=NAN)])) == [
        {"at": "2024-02-29", "value": None}
    ]


def test_objects_of_msgspec(package: None) -> None:
    msgspec = pytest.importorskip("msgspec", reason="msgspec is not installed")
    fields = [("taken_at", datetime.date), ("value", Any), ("note", Any, msgspec.UNSET)]
    kind = msgspec.defstruct("Reading", fields, rename="camel", tag="reading")
    got = json.loads(PLAIN.dumps([kind(DAY, [NAN, pathlib.PurePosixPath("/x"), Point(1)])]))
    assert got == [
        {"type": "reading", "takenAt": "2024-02-29", "value": [None, "/x", {"x": 1, "more": None}]}
    ]


@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_decimal_that_is_no_number_is_none(package: None, text: str) -> None:
    value = decimal.Decimal(text)
    assert PLAIN.dumps({"temp": [value]}) == b'{"temp":[null]}'
    with pytest.raises(
        EncodeError, match=r"\$\.temp\[0\] is -?(nan|inf) \(a float\), which is not"
    ):
        Encoder("error").dumps({"temp": [value]})


# --- what is said -------------------------------------------------------------------


class Odd:
    pass


class Broken:
    def tolist(self) -> Any:
        raise KeyError("no such thing")


@pytest.mark.parametrize("kind", ["M8[D]", "m8[ns]"])
def test_no_time_of_numpy_is_an_error_like_nan(package: None, kind: str) -> None:
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    times = np.array([["NaT", 1]], dtype=kind)
    strict = Encoder(nan="error")
    for value, place in ((times, r"\[0\]\[0\]"), (times[0, 0], "")):
        assert b"null" in PLAIN.dumps(value)
        with pytest.raises(EncodeError, match=rf"^\${place} is nan"):
            strict.dumps(value)
    assert b"null" not in strict.dumps(times[:, 1:])


def circle() -> dict[str, Any]:
    value: dict[str, Any] = {"again": []}
    value["again"].append(value)
    return {"a": value}


def tower(levels: int) -> Any:
    value: Any = NAN
    for _ in range(levels):
        value = [value]
    return value


SAID: list[tuple[Any, str]] = [
    (
        {"temp": {"boiler": Odd()}},
        "$.temp.boiler is an Odd, which has no JSON form; send dict, list, str, int, float, bool "
        "or None, or write Daebus(name, json_default=...)",
    ),
    (Odd(), "$ is an Odd, which"),
    ([1, {"two words": (0, Odd)}], '$[1]["two words"][1] is a type, which'),
    ({1: {None: 1j}}, '$["1"].null is a complex, which'),
    (Point(1, Odd()), "$.more is an Odd, which"),
    (
        {"a": Broken()},
        "$.a is a Broken, whose conversion to JSON failed: KeyError('no such thing')",
    ),
    ({"a": [10**5000]}, "$.a[0] is an int of more digits than Python prints"),
    ({"a": {(1, 2): 3}}, "$.a is a dict with a key of type tuple; send keys that are strings"),
    ({b"a": 3}, "$ is a dict with a key of type bytes; send keys that are strings"),
    (circle(), "$.a.again[0] is a dict that contains itself, so it is nested too deep"),
    (tower(2000), " is nested too deep; send a flatter copy"),
    ((item for item in "ab"), "$ is a generator, which has no JSON form"),
]


@pytest.mark.parametrize(("value", "text"), SAID, ids=[text[:30] for _, text in SAID])
def test_an_error_says_where_and_what(package: None, value: Any, text: str) -> None:
    with pytest.raises(EncodeError) as caught:
        PLAIN.dumps(value)
    assert text in str(caught.value)
    assert str(caught.value).startswith("$" if "flatter" in text else text[:10])
    assert len(str(caught.value)) < 260


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"temp": {"boiler": NAN}}, "$.temp.boiler is nan (a float), which is not JSON; send None"),
        ([None, Grams(-INF)], "$[1] is -inf (a Grams), which"),
        ({"null": Point(INF)}, "$.null.x is inf (a float)"),
    ],
)
def test_nan_may_be_an_error(package: None, value: Any, text: str) -> None:
    strict = Encoder("error")
    with pytest.raises(EncodeError) as caught:
        strict.dumps(value)
    assert str(caught.value).startswith(text)
    assert strict.dumps([None, "null"]) == b'[null,"null"]'


def test_a_function_of_the_app_for_the_rest(package: None) -> None:
    asked: list[Any] = []

    def rest(value: Any) -> Any:
        asked.append(value)
        if isinstance(value, complex):
            return [value.real, NAN]
        raise TypeError("not that")

    own = Encoder(default=rest)
    assert own.dumps({"z": 1j, "day": DAY}) == b'{"z":[0.0,null],"day":"2024-02-29"}'
    assert set(asked) == {1j}
    with pytest.raises(EncodeError, match=r"^\$\[0\] is an Odd, whose .*TypeError\('not that'\)"):
        own.dumps([Odd()])
    with pytest.raises(EncodeError, match="nested too deep"):
        Encoder(default=lambda value: [value]).dumps(Odd())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"nan": "None"}, "nan is 'None'; write 'null' or 'error'"),
        ({"nan": None}, "nan must be 'null' or 'error', not None"),
        ({"json_default": "str"}, "json_default must be a function, not 'str'"),
        ({"version": 1.5}, "version must be a string or None, not 1.5"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        Daebus("x", **options)
    assert text in str(caught.value)


# --- both transports ----------------------------------------------------------------

DATA = {"at": DAY, "temp": NAN, "where": pathlib.PurePosixPath("/x"), "z": decimal.Decimal("1.10")}
SENT = {"at": "2024-02-29", "temp": None, "where": "/x", "z": "1.10"}


@pytest.fixture
def make() -> Iterator[Callable[..., Daebus]]:
    apps: list[Daebus] = []

    def build(**options: Any) -> Daebus:
        app = Daebus("test", **options)
        app.attach(DaebusHttp(port=0))
        app.attach(DaebusWebSocket())
        apps.append(app)
        return app

    yield build
    for app in apps:
        app.stop()


def test_messages_and_views_are_encoded_alike(make: Callable[..., Daebus]) -> None:
    app = make(version="1.2", json_default=lambda value: f"a {type(value).__name__}")
    data = {**DATA, "rest": Odd()}
    sent = {**SENT, "rest": "a Odd"}
    app.socket("data")(lambda req: data)
    app.socket("items")(lambda req: (item for item in [data]))
    app.socket("tell")(lambda req: app.websocket.broadcast_to_all(data) and None)
    app.route("/data")(lambda req: data)
    app.route("/point")(lambda req: (Point(NAN), 201))
    app.route("/rows")(lambda req: collections.deque([row()]))
    app.route("/number")(lambda req: 5)
    app.route("/payload", methods=["POST"])(lambda req: {"got": req.payload})
    with app, app.test_client() as client, Raw(app) as raw:
        assert client.request("data") == client.request("items") == sent
        client.send("tell")
        assert client.receive("broadcast")["data"] == sent
        for kind, body in (("data", sent), ("point", {"x": None, "more": None}), ("rows", None)):
            answer = raw.get(f"/{kind}")
            assert answer.json == (body or [{"a": 1, "b": "x"}])
            assert answer.header("content-type") == "application/json"
        assert raw.get("/number").status == 500
        client.send_raw('\ufeff{"type": "data"}')
        assert client.receive()["data"] == sent
        posted = raw.post("/payload", b"\xef\xbb\xbf[1]", "Content-Type: application/json")
        assert posted.json == {"got": [1]}
    assert app.version == "1.2"


def test_nan_may_be_an_error_of_an_app(make: Callable[..., Daebus]) -> None:
    app = make(nan="error", debug=True)
    app.socket("data")(lambda req: {"temp": NAN})
    app.route("/data")(lambda req: {"temp": NAN})
    with app, app.test_client() as client, Raw(app) as raw:
        client.send("data")
        error = client.receive("error")["data"]
        assert error["code"] == "handler_error"
        assert "message cannot be sent: $.temp is nan" in str(error)
        answer = raw.get("/data")
        assert answer.status == 500
        assert "what the view returned cannot be sent: $.temp is nan" in str(answer.json)
        with pytest.raises(EncodeError, match=r"\$\[0\] is inf"):
            app.websocket.broadcast_to_all([INF])


# --- anything -----------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=()), max_size=6)
scalars = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    st.floats().map(Grams),
    st.dates() | st.timedeltas() | st.uuids() | st.decimals() | st.binary(max_size=4),
    st.sampled_from([Level.HIGH, *Colour, Odd(), Odd, 1j, range(2), Model(), Broken(), row()]),
)
keys = texts | st.integers() | st.floats() | st.dates() | st.sampled_from([Level.HIGH, *Colour])
things = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(collections.deque),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(texts, inner, max_size=3).map(types.MappingProxyType),
        st.builds(Point, st.floats(), inner),
        inner.map(Scalar),
    ),
    max_leaves=10,
)
ENCODERS = [PLAIN, Encoder("error"), Encoder(default=lambda value: {"rest": NAN})]


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(things, st.sampled_from(ENCODERS))
def test_both_packages_give_the_same_answers(data: Any, one: Encoder) -> None:
    def dumps() -> Any:
        return repr(json.loads(one.dumps(data)))

    assert len(set(with_both(dumps))) == 1
