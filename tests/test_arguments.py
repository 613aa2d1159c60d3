"""Arguments of the wrong type, or that no system takes, are refused by name."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from daebus.checks.annotations import checked


class Thing:
    """What has every kind of plain argument."""

    @checked
    def __init__(
        self,
        count: int = 1,
        *,
        rate: float | None = None,
        flag: bool = False,
        place: str | Path = "x",
        names: list[Any] | tuple[Any, ...] = (),
        other: object = None,
    ) -> None:
        self.count = count


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"count": "1"}, "count must be a whole number, not '1'; write count=1"),
        ({"count": 1.0}, "count must be a whole number, not 1.0; write count=1"),
        ({"count": True}, "count must be a whole number, not True; write count=1"),
        ({"count": None}, "count must be a whole number, not None; write count=1"),
        ({"rate": "5/s"}, "rate must be a number or None, not '5/s'"),
        ({"flag": "no"}, "flag must be True or False, not 'no'"),
        ({"flag": 1}, "flag must be True or False, not 1"),
        ({"place": b"x"}, "place must be a string or a path, not b'x'; write place='x'"),
    ],
)
def test_of_another_type(options: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        Thing(**options)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": math.nan}, "rate must be a number, not nan"),
        ({"count": 10**400}, f"count must be {sys.maxsize} at most"),
        ({"rate": -(10**400)}, "rate must be"),
        ({"place": "a\0b"}, r"place must not hold a NUL character: 'a\\x00b'"),
        ({"place": Path("\0")}, "place must not hold a NUL character"),
        ({"place": "\ud800"}, "place has a character without a UTF-8 form"),
    ],
)
def test_that_no_system_takes(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Thing(**options)


def test_of_the_right_type() -> None:
    assert Thing(5, rate=1, place=Path("y"), other=object()).count == 5
    assert Thing(rate=math.inf, place="\udc80", names=[object()]).count == 1


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="colour"):
        Thing(colour="red")  # type: ignore[call-arg]  # on purpose


@pytest.mark.parametrize("value", ["5", True, b"5", [5]])
def test_time_of_another_type(value: Any) -> None:
    state = DaebusWebSocket().state("boiler")
    with pytest.raises(TypeError, match=r"ttl must be a number, not .*; write ttl=5"):
        state.set("key", 1, ttl=value)
    assert state == {}


@pytest.mark.parametrize(
    ("component", "options", "text"),
    [
        (Daebus, {"name": 5}, "name must be a string, not 5"),
        (DaebusHttp, {"workers": "8"}, "workers must be a whole number, not '8'"),
        (DaebusHttp, {"port": True}, "port must be a whole number or None, not True"),
        (DaebusHttp, {"sock": 0}, "sock must be a socket or a list of them, not 0"),
        (DaebusHttp, {"fd": 1 << 31}, "fd must be the number of a socket or 'systemd', not 2147"),
        (DaebusHttp, {"host": "a" * 70}, "host must be a name or an address, not 'aaa"),
        (DaebusHttp, {"unix": "\0"}, "unix must not hold a NUL character"),
        (DaebusHttp, {"static": "\0"}, "static must not hold a NUL character"),
        (DaebusHttp, {"health": 1}, "health must be a string or None, not 1"),
        (DaebusWebSocket, {"origins": [1]}, "origins must be a list, each a string or"),
        (DaebusWebSocket, {"path": b"/"}, "path must be a string or None, not b'/'"),
        (DaebusWebSocket, {"subprotocols": "chat"}, r"write subprotocols=\['chat'\]"),
        (DaebusWebSocket, {"subprotocols": ["a b"]}, "subprotocols must be names such as"),
        (DaebusWebSocket, {"subprotocols": ["daebus.token.x"]}, "read req.token in authenticate"),
        (DaebusWebSocket, {"stack_size": 1 << 40}, "stack_size must be at most"),
        (DaebusWebSocket, {"affinity": [-1]}, "affinity must name cores from 0 to 8191, not"),
        (DaebusWebSocket, {"affinity": ["x"]}, "affinity must be a list, each a whole"),
        (
            DaebusHttp,
            {"idle_timeout": 1e-300},
            "idle_timeout must be 0.001 seconds or more",
        ),
        (DaebusWebSocket, {"ping_interval": 1e-300}, "not 1e-300; write ping_interval=0.001"),
        (DaebusWebSocket, {"message_timeout": 1e-9}, "message_timeout must be 0.001 seconds or"),
        (DaebusWebSocket, {"max_message_size": 1 << 64}, "max_message_size must be"),
    ],
)
def test_of_the_app_and_its_components(
    component: Callable[..., object], options: dict[str, Any], text: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        component(**options)
