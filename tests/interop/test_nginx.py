"""Behind a real nginx hosts, paths and origins mean what they mean without one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daebus import Daebus, Request
from tests.support.fixture_types import MakeApp
from tests.support.peer import Peer, upgrade_request
from tests.support.raw import Raw
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {target};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
        }}
    }}
}}
"""

DETOURS = [
    "/x/../private/secret.txt",
    "/public/%2e%2e/private/secret.txt",
    "/public%2f..%2fprivate/secret.txt",
    "/public/..%5cprivate%5csecret.txt",
    "/%2e/private/secret.txt",
    "//private/secret.txt",
    "/private//secret.txt",
    "/public/%252e%252e/private/secret.txt",
]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["", "/"], ids=["as sent", "resolved by nginx"])
def port(request: pytest.FixtureRequest, app: Daebus, tmp_path: Path) -> Iterator[int]:
    """Run nginx in front of the app; with a slash it resolves and decodes paths itself."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if path is None:
        if os.environ.get("DAEBUS_REQUIRE_BROWSER"):
            pytest.fail("there is no nginx on this machine")
        pytest.skip("there is no nginx on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    target = f"http://127.0.0.1:{app.http.port}{request.param}"
    file = tmp_path / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=tmp_path, port=number, target=target))
    with subprocess.Popen([path, "-c", str(file), "-p", str(tmp_path)]) as process:
        try:
            assert eventually(lambda: is_open(number))
            yield number
        finally:
            process.terminate()


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Daebus:
    folder = tmp_path / "static"
    for name in ("private", "public"):
        (folder / name).mkdir(parents=True)
    (folder / "private" / "secret.txt").write_text("secret")
    (folder / "public" / "file.txt").write_text("file")
    app = make_app(
        http={
            "static": folder,
            "trusted_proxies": ["127.0.0.1"],
            "allowed_hosts": ["meter.example"],
        }
    )

    @app.before_request
    def guard(req: Request) -> Any:
        return ("no", 403) if req.path.startswith("/private") else None

    app.route("/change", methods=["POST"])(lambda req: "changed")
    app.start()
    return app


def test_ordinary_files_are_served(port: int) -> None:
    with Raw(None, port) as client:
        assert client.get("/public/file.txt").body == b"file"
        assert client.get("/private/secret.txt").status == 403


@pytest.mark.parametrize("path", DETOURS)
def test_no_detour_passes_a_guard(port: int, path: str) -> None:
    with Raw(None, port) as client:
        answer = client.get(path)
        assert answer.status in (400, 403, 404)
        assert answer.body != b"secret"


def test_the_host_that_the_client_asked_for_counts(port: int) -> None:
    for host, status in (("meter.example", 200), ("evil.example", 421)):
        with Raw(None, port) as client:
            client.send(f"GET /public/file.txt HTTP/1.1\r\nHost: {host}\r\n\r\n")
            assert client.answer().status == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("meter.example", "https://meter.example", 101),
        ("meter.example", "https://evil.example", 403),
        ("evil.example", "https://evil.example", 421),
    ],
)
def test_pages_of_websockets_are_compared_with_it(
    port: int, connect: Callable[[int], socket.socket], host: str, origin: str, status: int
) -> None:
    headers = {"Host": host, "Origin": origin}
    assert Peer(connect(port)).ask(upgrade_request(headers=headers)).status == status


def test_cross_site_forms_are_refused(port: int) -> None:
    for origin, status in (("http://x", 200), ("https://evil.example", 403)):
        with Raw(None, port) as client:
            assert client.post("/change", b"", f"Origin: {origin}").status == status
