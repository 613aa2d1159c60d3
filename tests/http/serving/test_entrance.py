"""Only requests for a host that is ours come in, whatever they ask for."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp
from daebus.http.serving.entrance import Entrance
from tests.support.fixture_types import MakeApp, OpenRaw
from tests.support.peer import Peer, upgrade_request
from tests.support.raw import Raw

Connect = Callable[[int], socket.socket]
EVIL = "evil.example"


def mounted(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"mounted"]


def build(make_app: MakeApp, folder: Path, **http: Any) -> Daebus:
    """Make an app that has one of everything."""
    (folder / "file.txt").write_text("file")
    app = make_app(http={"static": folder, "cors": {"allowed_origins": "*"}, **http})
    app.route("/view", methods=["GET", "POST"])(lambda req: "view")
    app.mount("/mounted", mounted)
    app.start()
    return app


def ask(app: Daebus, host: str, target: str = "/view", *headers: str) -> int:
    """Return the status of a request for a host."""
    with Raw(app) as connection:
        lines = [f"GET {target} HTTP/1.1", *([f"Host: {host}"]), *headers]
        connection.send("\r\n".join(lines) + "\r\n\r\n")
        answer = connection.answer()
        assert (answer.status == 421) == (b"misdirected_host" in answer.body)
        return answer.status


@pytest.mark.parametrize(
    "target",
    ["/view", "/file.txt", "/mounted/x", "/_daebus/health", "/nope", f"http://{EVIL}/view"],
)
def test_a_page_of_another_name_reaches_nothing(
    make_app: MakeApp, raw: OpenRaw, tmp_path: Path, target: str
) -> None:
    app = build(make_app, tmp_path)
    asked: list[str] = []
    app.before_request(lambda req: asked.append(req.path))
    assert ask(app, f"{EVIL}:{app.http.port}", target, f"Origin: http://{EVIL}:8080") == 421
    assert asked == []


def test_a_websocket_of_another_name_is_refused(
    make_app: MakeApp, connect: Connect, tmp_path: Path
) -> None:
    app = build(make_app, tmp_path)
    host = f"{EVIL}:{app.http.port}"
    headers = {"Host": host, "Origin": f"http://{host}"}
    answer = Peer(connect(app.http.port)).ask(upgrade_request(headers=headers))
    assert (answer.status, answer.json["code"]) == (421, "misdirected_host")


def test_a_body_for_another_name_is_not_asked_for(
    make_app: MakeApp, raw: OpenRaw, tmp_path: Path
) -> None:
    connection = raw(build(make_app, tmp_path))
    connection.send(
        f"POST /view HTTP/1.1\r\nHost: {EVIL}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    assert connection.answer().status == 421


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8080", "192.168.0.7", "[::1]:80", "localhost", "LocalHost.:8080"]
    + ["shop.localhost", "x", "x.local", "X.LOCAL:80", ""],
)
def test_usual_names_come_in(make_app: MakeApp, tmp_path: Path, host: str) -> None:
    assert ask(build(make_app, tmp_path), host) == 200


@pytest.mark.parametrize("host", [EVIL, "localhost.evil.example", "y.local", "x.evil.example", "y"])
def test_others_do_not(make_app: MakeApp, tmp_path: Path, host: str) -> None:
    assert ask(build(make_app, tmp_path), host) == 421


def test_the_machine_has_a_long_and_a_short_name(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Rig.Plant.example")
    app = build(make_app, tmp_path)
    assert [ask(app, name) for name in ("rig.plant.example", "rig", "rig.local")] == [200] * 3


@pytest.mark.parametrize("name", ["my machine", "", "ä ö", "::"])
def test_a_machine_may_be_called_anything(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert ask(build(make_app, tmp_path), "localhost") == 200


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        (["meter.example"], "meter.example:443", 200),
        (["meter.example"], "localhost", 200),
        (["meter.example"], "a.meter.example", 421),
        ([".meter.example"], "a.meter.example", 200),
        ([".meter.example"], "meter.example", 421),
        ("*", EVIL, 200),
        (["*"], EVIL, 200),
        ([], EVIL, 421),
    ],
)
def test_a_list_adds_names(
    make_app: MakeApp, tmp_path: Path, allowed: Any, host: str, status: int
) -> None:
    assert ask(build(make_app, tmp_path, allowed_hosts=allowed), host) == status


def test_names_to_listen_on_come_in() -> None:
    entrance = Entrance(None, ["rig.example", "::", "0.0.0.0", "127.0.0.1"])
    assert entrance.judge("rig.example:8080", "192.0.2.1") is None
    assert entrance.judge(EVIL, "192.0.2.1") is not None


def test_behind_a_proxy_the_forwarded_host_counts(make_app: MakeApp, tmp_path: Path) -> None:
    proxy = {"trusted_proxies": ["127.0.0.1"], "allowed_hosts": ["meter.example"]}
    app = build(make_app, tmp_path, **proxy)
    assert ask(app, "backend", "/view", "X-Forwarded-Host: meter.example") == 200
    assert ask(app, "localhost", "/view", f"X-Forwarded-Host: {EVIL}") == 421
    assert ask(app, "localhost", "/view", f"Forwarded: host={EVIL};for=192.0.2.1") == 421


def test_a_stranger_cannot_forward_a_host(make_app: MakeApp, tmp_path: Path) -> None:
    assert ask(build(make_app, tmp_path), EVIL, "/view", "X-Forwarded-Host: localhost") == 421


@pytest.mark.parametrize(("allowed", "status"), [(None, 200), (["meter.example"], 421)])
def test_on_a_socket_file_only_a_list_counts(
    make_app: MakeApp, tmp_path: Path, allowed: list[str] | None, status: int
) -> None:
    path = tmp_path / "x.sock"
    build(make_app, tmp_path, unix=path, allowed_hosts=allowed)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        head = f"GET /view HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode()
        assert Peer(sock).ask(head).status == status


def test_the_second_request_of_a_connection_is_judged_too(
    make_app: MakeApp, raw: OpenRaw, tmp_path: Path
) -> None:
    connection = raw(build(make_app, tmp_path))
    assert connection.get("/view").status == 200
    connection.send(f"GET /view HTTP/1.1\r\nHost: {EVIL}\r\n\r\n")
    assert connection.answer().status == 421


def test_who_invents_hosts_is_not_remembered_for_ever(make_app: MakeApp, tmp_path: Path) -> None:
    app = build(make_app, tmp_path)
    assert {ask(app, f"h{n}.localhost") for n in range(100)} == {200}
    assert ask(app, EVIL) == 421


def test_a_refusal_is_logged_with_what_to_type(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(build(make_app, tmp_path), f"{EVIL}:8080")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "refused a request of 127.0.0.1 for the host 'evil.example:8080'; if that is this server, "
        "write DaebusHttp(allowed_hosts=['evil.example'])"
    ]


@pytest.mark.parametrize(
    ("allowed", "advice"),
    [
        ("meter.example", r"write allowed_hosts=\['meter.example'\]"),
        (["https://meter.example/"], "write 'meter.example'"),
        (["*.meter.example"], "write '.meter.example'"),
    ],
)
def test_what_is_no_list_of_hosts_is_refused(allowed: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        DaebusHttp(allowed_hosts=allowed)
