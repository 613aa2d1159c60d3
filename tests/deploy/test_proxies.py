"""The configurations in ``deploy/``: each proxy runs its own, with the program behind it."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.support.meter import DEPLOY, NAME, free_port, meter, program
from tests.support.raw import Raw
from tests.support.tls import authority
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

CLIENT = "127.0.0.2"  # another address than the proxy has for the program

# What a client would like to be.
FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Port": "99",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=http",
}


@dataclass
class Site:
    """A proxy that runs.

    Attributes:
        http: its port for ``http://``.
        https: its port for ``https://``.
        stats: the port of HAProxy's page about itself; 0 for others.
        origin: of its pages; with the port where the proxy says on which one it listens.
        stop: ends the program behind it.
    """

    http: int
    https: int
    stats: int = 0
    origin: str = f"https://{NAME}"
    stop: Callable[[], None] = lambda: None

    def dial(self) -> socket.socket:
        """Connect, without TLS so far."""
        address = ("127.0.0.1", self.https)
        return socket.create_connection(address, timeout=10, source_address=(CLIENT, 0))

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[HTTPResponse, bytes]:
        """Ask for a path over TLS."""
        connection = HTTPConnection(NAME)
        connection.sock = unverified().wrap_socket(self.dial(), server_hostname=NAME)
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def websocket(self, origin: str) -> ClientConnection:
        """Connect as a page of that origin."""
        return connect(
            f"wss://{NAME}/",
            sock=self.dial(),
            ssl=unverified(),
            server_hostname=NAME,
            origin=Origin(origin),
            additional_headers=FORGED,
        )


def unverified() -> ssl.SSLContext:
    """Return a context for clients; the certificate of each proxy comes from elsewhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- the proxies --------------------------------------------------------------------


def nginx(site: Site, folder: Path, text: str) -> list[str]:
    site.origin += f":{site.https}"
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "site.conf").write_text(text)
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}include {folder}/site.conf;\n}}\n"
    )
    return [program("nginx"), "-c", str(main), "-p", str(folder), "-e", f"{folder}/log"]


def caddy(site: Site, folder: Path, text: str) -> list[str]:
    file = folder / "Caddyfile"
    file.write_text(
        f"{{\nadmin off\nlocal_certs\nskip_install_trust\nhttp_port {site.http}\n"
        f"https_port {site.https}\n}}\n{text}"
    )
    return [program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]


def haproxy(site: Site, folder: Path, text: str) -> list[str]:
    site.origin += f":{site.https}"
    site.stats = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(
        f"global\n    maxconn 100\n\ndefaults\n    timeout client 9s\n    timeout server 9s\n"
        f"    timeout connect 9s\n\n{text}\nlisten stats\n    mode http\n"
        f"    bind 127.0.0.1:{site.stats}\n    stats enable\n    stats uri /stats\n"
    )
    return [program("haproxy"), "-db", "-f", str(file)]


def apache(site: Site, folder: Path, text: str) -> list[str]:
    command = program("apache2")
    modules = [
        "mpm_event", "authz_core", "alias", "headers", "ssl", "socache_shmcb", "proxy",
        "proxy_http", "proxy_wstunnel",
    ]  # fmt: skip
    lines = [f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules]
    user = "User www-data\nGroup www-data\n" if os.getuid() == 0 else ""
    (folder / "site.conf").write_text(text)
    main = folder / "apache.conf"
    main.write_text(
        "\n".join(lines) + f"\nServerName {NAME}\nServerRoot {folder}\nPidFile {folder}/pid\n"
        f"ErrorLog {folder}/log\nDefaultRuntimeDir {folder}\n{user}"
        f"Listen 127.0.0.1:{site.http}\nListen 127.0.0.1:{site.https}\nInclude {folder}/site.conf\n"
    )
    return [command, "-f", str(main), "-DFOREGROUND"]


PROXIES = {
    "nginx.conf": nginx,
    "Caddyfile": caddy,
    "haproxy.cfg": haproxy,
    "apache.conf": apache,
}


def settle(text: str, changes: dict[str, str]) -> str:
    """Put places of this machine into a configuration, each of which must be there."""
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


def changes(name: str, site: Site, folder: Path) -> dict[str, str]:
    """Return what differs here from where the files are meant for."""
    places = {"/run/meter.sock": f"{folder}/meter.sock"}
    if name != "Caddyfile":
        places["/etc/ssl/meter"] = str(folder)
    if name == "nginx.conf":
        places |= {"listen 80;": f"listen 127.0.0.1:{site.http};"}
        places |= {"listen 443 ssl;": f"listen 127.0.0.1:{site.https} ssl;"}
    elif name == "haproxy.cfg":
        places |= {"bind :80\n": f"bind 127.0.0.1:{site.http}\n"}
        places |= {"bind :443 ": f"bind 127.0.0.1:{site.https} "}
    elif name == "apache.conf":
        places |= {"<VirtualHost *:80>": f"<VirtualHost *:{site.http}>"}
        places |= {"<VirtualHost *:443>": f"<VirtualHost *:{site.https}>"}
    return places


@contextmanager
def running(name: str, folder: Path) -> Iterator[Site]:
    site = Site(free_port(), free_port())
    text = settle((DEPLOY / name).read_text(), changes(name, site, folder))
    command = PROXIES[name](site, folder, text)
    cert = authority().issue_cert(NAME)
    cert.cert_chain_pems[0].write_to_path(folder / "fullchain.pem")
    cert.private_key_pem.write_to_path(folder / "privkey.pem")
    cert.private_key_and_cert_chain_pem.write_to_path(folder / "meter.pem")
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    place = folder / "meter.sock"
    with meter(METER_LISTEN=str(place)) as process:
        assert eventually(place.exists, 10)
        place.chmod(0o666)  # no group here is the proxy's
        site.stop = lambda: ended(process)
        log = (folder / "output").open("wb")
        with (
            log,
            subprocess.Popen(command, env={**os.environ, **home}, stdout=log, stderr=log) as proxy,
        ):
            try:
                ready = eventually(lambda: answers(site), 20)
                assert ready, (folder / "output").read_text()
                yield site
            finally:
                proxy.terminate()
                proxy.wait(10)


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


def answers(site: Site) -> bool:
    try:
        return site.get("/_daebus/health")[0].status == 200
    except OSError:
        return False


@pytest.fixture(params=PROXIES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the proxy may be another user
        with running(request.param, folder) as made:
            yield made


# --- what they have in common -------------------------------------------------------


def test_a_proxy_tells_who_asks_and_no_client_can(site: Site) -> None:
    for headers in ({}, FORGED):
        response, body = site.get("/", headers)
        assert response.status == 200
        assert json.loads(body) == {"client": CLIENT, "url": f"{site.origin}/"}
    assert json.loads(site.get("/_daebus/health")[1]) == {"status": "ok"}

    with Raw(None, site.http) as plain:
        plain.send(f"GET /page?x=1 HTTP/1.1\r\nHost: {NAME}\r\n\r\n")
        moved = plain.answer()
    assert moved.status in (301, 308)
    location = urlsplit(moved.header("location") or "")
    assert (location.scheme, location.hostname) == ("https", NAME)
    assert (location.path, location.query) == ("/page", "x=1")

    with site.websocket(site.origin) as client:
        client.send('{"type": "who", "id": 1}')
        answer = next(m for m in map(json.loads, client) if m["type"] == "response")
        assert answer["data"] == {"client": CLIENT, "secure": True}
    with pytest.raises(InvalidStatus, match="403"):
        site.websocket("https://evil.example")

    if site.stats:
        assert eventually(lambda: status(site) == ("UP", "L7OK", "200"), 10)
    site.stop()
    assert site.get("/")[0].status in (502, 503)
    if site.stats:
        assert eventually(lambda: status(site)[0] == "DOWN", 15)


def status(site: Site) -> tuple[str, str, str]:
    """Return what HAProxy found out about the program."""
    with Raw(None, site.stats) as client:
        lines = client.get("/stats;csv").body.decode().splitlines()
    names = lines[0].lstrip("# ").split(",")
    rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:]]
    [row] = [row for row in rows if (row["pxname"], row["svname"]) == ("meter", "meter")]
    return row["status"], row["check_status"], row["check_code"]
