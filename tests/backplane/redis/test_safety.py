"""What must not be seen, who is let in, and what an app without Redis does not import."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from daebus import BackplaneError, Daebus, DaebusError, DaebusHttp, DaebusRedis, DaebusWebSocket
from daebus.backplane.redis.address import read_url
from daebus.websocket.cluster import node
from tests.support.acl import rules
from tests.support.child import Child
from tests.support.ends import End
from tests.support.redisserver import DEBIAN, VALKEY, RedisServer
from tests.support.tls import authority
from tests.support.waiting import eventually

PASSWORD = "pa:55/w0rd#?"
QUOTED = "pa%3A55%2Fw0rd%23%3F"


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    with RedisServer(VALKEY, password=QUOTED, config={"requirepass": PASSWORD}) as server:
        yield server


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    DEBIAN.require()
    folder = tmp_path_factory.mktemp("tls")
    issued = authority().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key"))
    (folder / "cert").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    authority().cert_pem.write_to_path(str(folder / "ca"))
    files = {name: str(folder / name) for name in ("key", "cert", "ca")}
    with RedisServer(DEBIAN, tls=files) as server:
        yield server


def carries(one: End, other: End) -> bool:
    with one, other:
        one.ready()
        other.ready()
        one.publish([1])
        return other.wait(lambda: other.frames() == [b"1"])


def test_a_password_opens_and_is_never_shown(
    guarded: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert carries(End(guarded.url), End(guarded.url, listens=True))
    end = End(guarded.url)
    shown = repr(end.backplane) + repr(read_url(guarded.url)) + repr(end.backplane.options)
    wrong = End(guarded.url.replace(QUOTED, "wr0ng"), listens=True)
    with wrong:
        assert wrong.wait(lambda: caplog.text.count("is away") + caplog.text.count("was lost") == 2)
    shown += caplog.text + repr(wrong.backplane)

    assert "WRONGPASS" in shown or "invalid username-password" in shown
    assert not any(part in shown for part in (PASSWORD, QUOTED, "wr0ng", "55/w0rd"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:pa/55w0rd@localhost:6379/0", "cannot be read; escape what is special"),
        ("redis://:pa#55w0rd@localhost:6379/0", "cannot be read; escape what is special"),
        ("redis://:66#55w0rd@localhost:6379/0", "holds a #; escape"),
        ("redis://localhost/55w0rd", "ends with the number of a database"),
        ("redis://localhost/-1", "ends with the number of a database"),
        ("redis://localhost:99999/0", "cannot be read"),
        ("redis://localhost:0/0", "has a port from 1 to 65535, not 0"),
        ("http://localhost:6379", "begins with redis://, rediss:// .TLS. or unix://"),
        ("localhost:6379", "begins with redis://"),
        ("unix://", "write 'unix:///run/redis.sock'"),
        ("redis://localhost?55w0rd=1", "has an option that is not known here"),
        ("redis://localhost?ssl_ca_certs=x", "has an option that is not known here"),
        ("rediss://localhost?ssl_cert_reqs=55w0rd", "is one of none, optional, required"),
    ],
)
def test_a_url_that_is_wrong_is_refused_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        DaebusRedis(url)
    assert "55w0rd" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "localhost:6379"),
        ("rediss://u:p@[::1]:7000/3?ssl_check_hostname=no", "[::1]:7000"),
        ("unix:///run/my%20redis.sock?db=2", "/run/my redis.sock"),
    ],
)
def test_a_url_is_shown_as_its_address(url: str, shown: str) -> None:
    assert repr(DaebusRedis(url)) == f"<DaebusRedis {shown} down>"


def test_a_url_is_read_in_all_its_parts() -> None:
    address = read_url("rediss://u%40x:p%2Fw@h:7/3?ssl_ca_certs=f&ssl_check_hostname=no")
    assert (address.host, address.port, address.db, address.tls) == ("h", 7, 3, True)
    assert (address.username, address.password) == ("u@x", "p/w")
    assert address.options == {"ssl_ca_certs": "f", "ssl_check_hostname": False}
    assert read_url("unix:///run/r.sock?db=2").db == 2


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"url": 6379}, TypeError, "url must be a string, not of int"),
        ({"secret": 55}, TypeError, "secret must be a string or .*, not of int"),
        ({"secret": ""}, ValueError, "secret is empty"),
        ({"name": ""}, ValueError, "a name has 1 to 128 characters"),
        ({"node": "a b"}, ValueError, "a node's name is 1 to 32 of"),
        ({"node": "x" * 33}, ValueError, "a node's name is 1 to 32 of"),
        ({"partitions": 0}, ValueError, "partitions must be from 1 to 1024, not 0"),
        ({"queue_bytes": 0}, ValueError, "queue_bytes must be greater than 0"),
        ({"queue_age": 0}, ValueError, "queue_age must be greater than 0"),
        ({"node_timeout": 1.0}, ValueError, "node_timeout must be at least 2 seconds"),
        ({"node_timeout": float("inf")}, ValueError, "node_timeout must be from 2 to 3600"),
        ({"max_frame": 100}, ValueError, "max_frame must be at least 1024 bytes"),
        ({"max_frame": 9 << 20}, ValueError, "max_frame must be at most 8388608 bytes"),
        ({"max_frame": 5 << 20}, ValueError, "max_frame must be at most queue_bytes, 4194304"),
        ({"cluster": True, "url": "redis://h/1"}, ValueError, "database 0 alone, not database 1"),
        ({"cluster": True, "url": "unix:///s"}, ValueError, "not a Unix socket"),
        ({"cluster": "yes"}, TypeError, "cluster must be True or False"),
        ({"urll": "x"}, TypeError, "urll"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        DaebusRedis(**options)


@pytest.mark.parametrize("missing", ["ca", "none"])
def test_tls_is_checked(
    encrypted: RedisServer, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = encrypted.url.partition("?")[0]
    if missing == "none":
        url += "?ssl_cert_reqs=none"
        assert carries(End(url), End(encrypted.url, listens=True))
        return
    with End(url) as end:
        assert end.wait(lambda: "certificate verify failed" in caplog.text)
        assert not end.backplane.up


def test_a_user_with_the_documented_commands_is_enough(guarded: RedisServer) -> None:
    guarded.command("ACL", "SETUSER", *rules("daebus", "test", PASSWORD))
    url = guarded.url.replace("//:", "//daebus:")
    guarded.command("ACL", "LOG", "RESET")
    told: list[object] = []
    one, other = End(url), End(url, listens=True)
    with one, other:
        one.ready()
        other.ready()
        one.publish([1])
        assert other.wait(lambda: other.frames() == [b"1"])
        other.backplane.subscribe(other.names.beats)
        assert other.backplane.subscribed(other.names.beats, 5)
        other.backplane.unsubscribe(other.names.beats)
        one.backplane.claim("a", b"1", 5.0, told.append)
        one.backplane.claim("a", b"1", 5.0, told.append)
        one.backplane.leases(told.append)
        one.backplane.lease("a", b"", 0.0)
        assert one.wait(lambda: len(told) == 3)
        assert guarded.command("ACL", "LOG") == []
        answer = one.command("GET", "secret of somebody else")
        assert "permissions" in str(answer)


def test_an_app_works_with_the_documented_commands(guarded: RedisServer) -> None:
    guarded.command("ACL", "SETUSER", *rules("shop", "acl", PASSWORD))
    guarded.command("ACL", "LOG", "RESET")
    url = guarded.url.replace("//:", "//shop:")
    apps = [make(url), make(url)]
    states, topics = [], []
    for app in apps:
        topics.append(app.websocket.topic("alarms", history=10))
        states.append(app.websocket.state("house"))
        app.start()
    try:
        assert all(app.stats()["backplane"]["up"] for app in apps)
        states[0]["doors"] = 4
        states[0]["roof"] = "open"
        del states[0]["roof"]
        assert eventually(lambda: dict(states[1]) == {"doors": 4})
        topics[1].publish("fire")
        assert eventually(lambda: [each.data for each in topics[0].history()] == ["fire"])
    finally:
        for app in apps:
            app.stop()
    assert guarded.command("ACL", "LOG") == []


def make(url: str) -> Daebus:
    app = Daebus("acl")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    app.attach(DaebusRedis(url))
    return app


def test_what_a_user_may_not_do_is_said_once(
    guarded: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.command("ACL", "SETUSER", *rules("mute", "test", PASSWORD), "resetchannels", "-config")
    with End(guarded.url.replace("//:", "//mute:"), listens=True) as end:
        end.ready()
        end.publish([1, 2])
        assert end.wait(lambda: end.backplane.counters()["lost_out"] == 2)
        assert end.wait(lambda: "refuses a subscription" in caplog.text)
        assert not end.backplane.subscribed(end.channel, 0.0)
    assert caplog.text.count("refuses PUBLISH") == 1


def test_what_requires_a_server_that_refuses_says_why(
    guarded: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "REQUIRED", 0.5)
    app = Daebus("acl")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    app.attach(DaebusRedis(guarded.url.replace(QUOTED, "wr0ng"), required=True))
    with pytest.raises(BackplaneError, match="invalid username-password pair") as caught:
        app.start()
    assert "wr0ng" not in str(caught.value)


def python(code: str) -> subprocess.CompletedProcess[str]:
    source = Path(sys.modules["daebus"].__file__ or "").resolve().parents[1]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_an_app_without_redis_imports_none_of_it() -> None:
    done = python(
        "import sys, daebus\n"
        "app = daebus.Daebus('x')\n"
        "app.attach(daebus.DaebusHttp(port=0)); app.attach(daebus.DaebusWebSocket())\n"
        "app.start(); app.stop()\n"
        "print([name for name in sys.modules if 'redis' in name])\n"
        "daebus.DaebusRedis\n"
        "print('redis' in sys.modules)\n"
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False"], done.stderr


def test_without_the_package_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(redis, "__version__", "7.4.1")
        with pytest.raises(DaebusError, match=r"needs redis 8.0.1 or later, not 7.4.1; type pip"):
            DaebusRedis()
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"needs the package redis; type pip install 'redis>=8"):
        DaebusRedis()


def test_no_logging_is_set_up(child: Callable[..., Child], guarded: RedisServer) -> None:
    """redis-py has a handler of its own for what a server pushes; nothing may bring it in."""
    process = child(
        f"""
        from daebus import DaebusRedis
        app.attach(DaebusRedis({guarded.url!r}))
        app.start()
        print(app.stats()["backplane"]["up"], flush=True)
        app.stop()
        real = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
        print([x for x in real for h in getattr(x, "handlers", ())
               if not isinstance(h, logging.NullHandler)], flush=True)
        """
    )
    assert process.line() == "True"
    assert process.line() == "[]"
    assert process.exit_code() == 0
    assert process.stderr() == []
