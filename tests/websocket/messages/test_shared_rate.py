"""Rates of a user or of an address hold however often somebody reconnects."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from simple_websocket import ConnectionClosed

from daebus import Blueprint, Daebus
from daebus.testing import AppClient, RequestError
from daebus.websocket.connection.link import Peer
from daebus.websocket.messages import shared_rate
from daebus.websocket.messages.ratelimit import Rate
from daebus.websocket.messages.shared_rate import SharedRate, owner_of
from tests.support.fixture_types import MakeApp
from tests.support.links import make_link
from tests.support.waiting import eventually


def passes(client: AppClient, message_type: str = "echo") -> bool:
    """Tell whether a message is let through."""
    try:
        client.request(message_type, 1)
    except RequestError as error:
        return bool(error.data["code"] != "rate_limited")
    return True


def limit(app: Daebus, how: str, per: Any) -> None:
    """Allow three an hour, in one of the ways in which one may say so."""
    if how == "all":
        app.websocket.enable_rate_limiting(3, 3600, per=per)
    elif how == "app":
        app.socket("limited", rate="3/h", per=per)(lambda req: req.data)
    else:
        blueprint = Blueprint("part")
        blueprint.socket("limited", rate="3/h", per=per)(lambda req: req.data)
        app.register(blueprint)


KIND = {"all": "echo", "app": "limited", "blueprint": "limited"}


@pytest.mark.parametrize("how", KIND)
@pytest.mark.parametrize("per", ["user", "address"])
def test_who_reconnects_does_not_start_afresh(app: Daebus, how: str, per: str) -> None:
    limit(app, how, per)
    found = []
    for _ in range(5):
        with app.test_client() as client:
            found.append(passes(client, KIND[how]))
    assert found == [True, True, True, False, False]


@pytest.mark.parametrize("how", KIND)
def test_by_default_each_client_has_its_own(app: Daebus, how: str) -> None:
    limit(app, how, "client")
    for _ in range(2):
        with app.test_client() as client:
            assert [passes(client, KIND[how]) for _ in range(4)] == [True, True, True, False]


def test_a_user_has_one_bucket_and_other_users_theirs(app: Daebus) -> None:
    app.websocket.enable_rate_limiting(3, 3600, per="user")
    with app.test_client() as one, app.test_client() as two, app.test_client() as other:
        assert eventually(lambda: app.websocket.get_client_count() == 3)
        ids = app.websocket.get_clients()
        for client_id, user in zip(ids, ("ada", "ada", "bob"), strict=True):
            app.websocket.identify(client_id, user)
        assert [passes(one), passes(two), passes(one), passes(two)] == [True, True, True, False]
        assert passes(other)


def test_strikes_are_each_clients_own(make_app: MakeApp) -> None:
    app = make_app(max_strikes=2)
    app.socket("echo")(lambda req: req.data)
    app.websocket.enable_rate_limiting(1, 3600, per="address")
    with app.test_client() as client:
        assert [passes(client) for _ in range(3)] == [True, False, False]
        with app.test_client() as other:
            assert not passes(other)
            with pytest.raises(ConnectionClosed):  # its third
                passes(client)
            assert not passes(other)


@pytest.mark.parametrize(
    ("per", "user", "identity", "address", "owner"),
    [
        ("user", "ada", "eve", "192.0.2.1", ("user", "ada")),
        ("user", None, "eve", "192.0.2.1", ("user", "eve")),
        ("user", None, 7, "192.0.2.1", ("user", 7)),
        ("user", None, {"name": "eve"}, "192.0.2.1", ("address", "192.0.2.1")),
        ("user", None, True, "192.0.2.1", ("address", "192.0.2.1")),
        ("user", None, None, "192.0.2.1", ("address", "192.0.2.1")),
        ("address", "ada", "eve", "192.0.2.1", ("address", "192.0.2.1")),
        ("address", None, None, "2001:db8::1:2", ("address", "2001:db8::/64")),
        ("address", None, None, "::ffff:192.0.2.1", ("address", "192.0.2.1")),
        ("address", None, None, "", None),
        ("user", "ada", None, "", ("user", "ada")),
    ],
)
def test_whose_tokens_are_spent(
    per: str, user: str | None, identity: Any, address: str, owner: Any
) -> None:
    link = make_link("one")
    link.user, link.identity = user, identity
    link.peer = dataclasses.replace(Peer(), remote_address=address)
    assert owner_of(link, per) == owner


def test_full_buckets_are_let_go_and_others_kept() -> None:
    rate = SharedRate(Rate(2, 10))
    for number in range(100):
        assert rate.take(("address", str(number)), float(number)) == 0
    assert len(rate) <= 11
    assert rate.take(("address", "99"), 99.0) == 0
    assert rate.take(("address", "99"), 99.0) > 0


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_rate, "MAX_BUCKETS", 50)
    rate = SharedRate(Rate(1, 3600))
    for number in range(1000):
        assert rate.take(("address", str(number)), 0.0) == 0
    assert len(rate) == 50
    assert rate.take(("address", "999"), 0.0) > 0


def test_a_mistake_is_told(app: Daebus) -> None:
    with pytest.raises(ValueError, match="write per='client', 'user' or 'address'"):
        app.websocket.enable_rate_limiting(1, 1, per="ip")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="write per='client', 'user' or 'address'"):
        app.socket("x", rate="1/s", per="ip")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="write rate='10/s', per='user'"):
        app.socket("x", per="user")
