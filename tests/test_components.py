"""Components: attached in order, once, and while the app is at rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daebus import (
    AttachError,
    Daebus,
    DaebusError,
    DaebusHttp,
    DaebusWebSocket,
)


def test_attach_in_the_wrong_order_or_twice_is_refused() -> None:
    app = Daebus("test")
    with pytest.raises(AttachError, match=r"app\.attach\(DaebusHttp\(port=8080\)\)"):
        app.attach(DaebusWebSocket())
    with pytest.raises(AttachError, match=r"write app\.attach\(DaebusHttp\(port=8080\)\) first"):
        _ = app.http
    app.attach(DaebusHttp(port=0))
    with pytest.raises(AttachError, match="a DaebusHttp is attached already"):
        app.attach(DaebusHttp(port=0))
    with pytest.raises(AttachError, match=r"write app\.attach\(DaebusWebSocket\(\)\) first"):
        app.socket("too early")
    app.attach(DaebusWebSocket())
    with pytest.raises(AttachError, match="a DaebusWebSocket is attached already"):
        app.attach(DaebusWebSocket())
    assert issubclass(AttachError, DaebusError)


def test_attach_takes_components_only() -> None:
    with pytest.raises(TypeError, match=r"attach DaebusHttp\(\) or DaebusWebSocket\(\)"):
        Daebus("test").attach(DaebusHttp)  # type: ignore[call-overload]


def test_attach_to_a_running_app_is_refused_and_to_a_stopped_one_works() -> None:
    app = Daebus("test")
    app.attach(DaebusHttp(port=0))
    with app, pytest.raises(AttachError, match=r"running; attach components before app\.start"):
        app.attach(DaebusWebSocket())
    app.attach(DaebusWebSocket())
    app.socket("echo")(lambda req: req.data)
    with app.test_client() as client:
        assert client.request("echo", 1) == 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DaebusHttp(port=70_000), "port must be between 0 and 65535, not 70000"),
        (lambda: DaebusHttp(port=-1), "port must be between"),
        (lambda: DaebusHttp(workers=0), "workers must be greater than 0, not 0"),
        (lambda: DaebusHttp(static="/no/such/folder"), "none at '/no/such/folder'"),
        (lambda: DaebusWebSocket(max_clients=0), "max_clients must be greater than 0, not 0"),
        (lambda: DaebusWebSocket(ping_interval=-1), "ping_interval must be greater"),
        (
            lambda: DaebusWebSocket(compression="gzip"),  # type: ignore[arg-type]
            "compression must be 'deflate' or None, not 'gzip'",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(
    make: Callable[[], object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        make()
