"""How many clients one address may have."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daebus import DaebusWebSocket
from daebus.websocket.admission.per_address import PerAddressLimit
from daebus.websocket.connection.networks import network_of
from tests.support.fixture_types import Connect, MakeApp
from tests.support.inside import addresses_of
from tests.support.peer import Peer, upgrade_request
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_what_counts_as_one(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_place_that_is_left_can_be_taken_again() -> None:
    limit = PerAddressLimit(2)
    assert [limit.enter("192.0.2.7", n) for n in range(3)] == [True, True, False]
    assert limit.enter("192.0.2.8", 3)
    limit.leave("192.0.2.7", 0)
    assert limit.enter("192.0.2.7", 4)
    for address, place in (("192.0.2.7", 1), ("192.0.2.7", 4), ("192.0.2.8", 3)):
        limit.leave(address, place)
    assert limit._clients == {}  # nobody who has left is remembered


def test_a_place_is_given_back_once() -> None:
    """Who counts a client out may be interrupted by an exception, and does it again."""
    limit = PerAddressLimit(2)
    assert limit.enter("192.0.2.7", "one")
    assert limit.enter("192.0.2.7", "other")
    limit.leave("192.0.2.7", "one")
    limit.leave("192.0.2.7", "one")
    assert limit.enter("192.0.2.7", "third")
    assert not limit.enter("192.0.2.7", "fourth")


def test_a_unix_socket_has_no_address_to_count() -> None:
    limit = PerAddressLimit(1)
    assert all(limit.enter("", n) for n in range(5))
    limit.leave("", 0)


def test_one_too_many_is_429_until_one_leaves(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_clients_per_ip=2)
    app.start()
    peers = [Peer.joined(connect(app.http.port)) for _ in range(2)]
    answer = Peer(connect(app.http.port)).ask(upgrade_request())
    assert (answer.status, answer.json["code"]) == (429, "too_many_from_address")
    assert int(answer.headers["retry-after"]) > 0
    with socket.create_connection(
        ("127.0.0.1", app.http.port), timeout=5, source_address=("127.0.0.2", 0)
    ) as other:
        Peer.joined(other).close()  # another address has places of its own
    peers[0].close()
    assert eventually(lambda: app.websocket.get_client_count() == 1)
    Peer.joined(connect(app.http.port))
    assert app.websocket.stats()["refused"] == {"too_many_from_address": 1}


def test_behind_a_trusted_proxy_the_clients_address_counts(
    make_app: MakeApp, connect: Connect
) -> None:
    app = make_app(max_clients_per_ip=1, http={"trusted_proxies": ["127.0.0.1"]})
    app.websocket.authenticate(lambda req: req.remote_addr)
    app.socket("who")(lambda req: req.identity)
    app.start()
    for address, status in (("192.0.2.1", 101), ("192.0.2.2", 101), ("192.0.2.1", 429)):
        peer = Peer(connect(app.http.port))
        assert peer.ask(upgrade_request(headers={"X-Forwarded-For": address})).status == status
        if status == 101:
            peer.say("who")
            assert peer.message()["data"] == address


def test_a_burst_cannot_pass_the_limit(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_clients_per_ip=5)
    app.start()
    socks = [connect(app.http.port) for _ in range(20)]
    together = threading.Barrier(len(socks))

    def rush(sock: socket.socket) -> int:
        together.wait(5)
        return Peer(sock).ask(upgrade_request()).status

    with ThreadPoolExecutor(len(socks)) as pool:
        assert sorted(pool.map(rush, socks)) == [101] * 5 + [429] * 15


def test_every_way_out_gives_the_place_back(make_app: MakeApp, connect: Connect) -> None:
    app = make_app(max_clients_per_ip=1, max_clients=5)
    app.websocket.authenticate(lambda req: req.args.get("name"))
    app.start()

    def ask(path: str, headers: Any = None) -> int:
        return Peer(connect(app.http.port)).ask(upgrade_request(path, headers)).status

    assert [ask("/") for _ in range(3)] == [401] * 3
    assert ask("/", {"Sec-WebSocket-Key": "x"}) == 400
    for end in (Peer.close, lambda peer: peer.sock.close()):
        sock = connect(app.http.port)
        peer = Peer(sock)
        assert peer.ask(upgrade_request("/?name=ada")).status == 101
        assert ask("/?name=bob") == 429
        end(peer)
        assert eventually(lambda: app.websocket.get_client_count() == 0)
    # The place of an address is given back just after that of the client.
    assert eventually(lambda: not addresses_of(app))


def test_zero_places_make_no_sense() -> None:
    with pytest.raises(ValueError, match="max_clients_per_ip"):
        DaebusWebSocket(max_clients_per_ip=0)
