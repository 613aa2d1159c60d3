"""The samples do what they promise, seen from outside of their process."""

from __future__ import annotations

import functools
import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.peer import Peer, upgrade_request
from tests.support.waiting import eventually

OpenClient = Callable[..., Any]
Run = Callable[..., Any]
TITLES = {
    "dashboard": "Boiler",
    "chat": "Chat",
    "kiosk": "Tank",
    "longjob": "Firmware",
    "auth": "Valve",
    "cluster": "Cluster",
}
# The processes of the last one take their time.
SAMPLES = [
    pytest.param(name, marks=pytest.mark.slow) if name == "cluster" else name for name in TITLES
]
KINDS = {"": "text/html", "css": "text/css", "js": "text/javascript"}


def fetch(url: str) -> tuple[str, str]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.headers.get_content_type(), answer.read().decode()


def post(
    url: str, data: Any = None, cookie: str = "", header: tuple[str, str] | None = None
) -> tuple[int, Any, str]:
    """Return status, JSON, and the cookie that is set, as ``name=value``."""
    request = urllib.request.Request(url, json.dumps(data).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("Cookie", cookie)
    if header is not None:
        request.add_header(*header)
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        cookie = (answer.headers["Set-Cookie"] or "").partition(";")[0]
        return answer.status, json.load(answer), cookie


def login(sample: Any, name: str = "ada", password: str = "lovelace") -> tuple[Any, str]:
    """Log in at the sample ``auth``; return the answer and the cookie."""
    status, data, cookie = post(sample.url + "login", {"name": name, "password": password})
    assert status == 200
    return data, cookie


def knock(sample: Any, cookie: str) -> int:
    """Ask for a WebSocket; return the status."""
    with socket.create_connection(("127.0.0.1", sample.port), timeout=20) as sock:
        return Peer(sock).ask(upgrade_request(headers={"Cookie": cookie})).status


def files_of(sample: Any) -> dict[str, str]:
    """Fetch what a page is made of, by its path: what it names, and what that names."""
    found: dict[str, str] = {}
    wanted = [""]
    while wanted:
        path = wanted.pop()
        if path in found:
            continue
        kind, text = fetch(sample.url + path)
        found[path] = text
        assert kind == KINDS[path.rpartition(".")[2]]
        if not path.startswith("_daebus/"):
            names = re.findall(r'(?:href|src|from)[ =]"(?:\./|/)?([\w/-]+\.(?:css|js))"', text)
            wanted += [name for name in names if name not in found]
    return found


@pytest.mark.parametrize(
    "name",
    [
        name if name == "dashboard" else pytest.param(name, marks=pytest.mark.slow)
        for name in TITLES
    ],
)
def test_page_and_the_files_it_names_are_served(run_sample: Run, name: str) -> None:
    files = files_of(run_sample(name))
    assert f"<title>{TITLES[name]}</title>" in files[""]
    shared = {"shared/style.css", "shared/page.js", "_daebus/client.js"}
    assert set(files) >= shared | {f"{name}.css", f"{name}.js"}
    for path, text in files.items():
        # The name of SVG's XML namespace, which is never fetched; no other host is.
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text))
        assert addresses <= {"http://www.w3.org"}
        if path != "_daebus/client.js":
            assert "new WebSocket" not in text  # to come back is the client's work


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_sample_cleanly(
    run_sample: Run, open_client: OpenClient, name: str, number: signal.Signals
) -> None:
    sample = run_sample(name)
    cookie = login(sample)[1] if name == "auth" else ""
    open_client(sample, cookie=cookie)  # a client that stays must not keep the process
    sample.process.send_signal(number)
    code, output = sample.finish()
    assert code == 0
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_taken_port_says_so(run_sample: Run, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = run_sample(name, port=str(port), listening=False).finish()
    assert code == 1
    assert f"port {port} on 127.0.0.1 is in use; stop the other program" in output


@pytest.mark.slow
class TestDashboard:
    def test_readings_arrive_and_move(self, run_sample: Run, open_client: OpenClient) -> None:
        client = open_client(run_sample("dashboard"))
        client.send("subscribe", {"topic": "readings"})
        first = client.receive("reading")
        second = client.receive("reading")
        assert second["time"] > first["time"]
        assert second["temperature"] != first["temperature"]
        assert 0 < second["pressure"] < 20
        assert second["set_point"] == 140.0

    def test_late_page_gets_the_past(self, run_sample: Run, open_client: OpenClient) -> None:
        sample = run_sample("dashboard")
        early = open_client(sample)
        early.send("subscribe", {"topic": "readings", "last": 480})
        readings = [early.receive("reading") for _ in range(3)]
        late = open_client(sample)
        late.send("subscribe", {"topic": "readings", "last": 480})
        assert [late.receive("reading") for _ in range(3)] == readings
        late.send("subscribe", {"topic": "boiler"})
        values = late.receive("state", lambda data: data.get("snapshot"))["set"]
        assert (values["set_point"], values["alarm"]) == (140.0, False)
        assert values["time"] >= readings[-1]["time"] > values["started"]

    def test_set_point_talks_back_and_reaches_everyone(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        sample = run_sample("dashboard")
        one, two = open_client(sample), open_client(sample)
        two.send("subscribe", {"topic": "readings"})
        one.send("set_point", {"value": 125})
        assert one.receive("response") == {"set_point": 125.0}
        two.receive("reading", lambda reading: reading["set_point"] == 125.0)

    @pytest.mark.parametrize(
        "data", [{"value": 500}, {"value": 99.9}, {"value": "hot"}, {"value": True}, {}, [], None]
    )
    def test_bad_set_point_is_refused(
        self, run_sample: Run, open_client: OpenClient, data: object
    ) -> None:
        client = open_client(run_sample("dashboard"))
        client.send("subscribe", {"topic": "readings"})
        client.send("set_point", data)
        assert client.receive("error") == {
            "error": "the set-point must be a number from 100 to 180 °C",
            "code": "bad_set_point",
            "message_type": "set_point",
        }
        assert client.receive("reading")["set_point"] == 140.0

    def test_too_hot_raises_one_alarm_that_ends(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        sample = run_sample("dashboard", SPEED="10")
        client = open_client(sample)
        client.send("subscribe", {"topic": "alarms"})
        client.send("set_point", {"value": 178})
        alarm = client.receive("alarm")
        assert alarm["active"] is True
        assert "pressure above 8 bar" in alarm["text"]
        client.send("set_point", {"value": 120})
        assert client.receive("alarm")["active"] is False
        late = open_client(sample)
        late.send("subscribe", {"topic": "alarms", "last": 20})
        assert [late.receive("alarm")["active"] for _ in range(2)] == [True, False]

    def test_clients_are_counted(self, run_sample: Run, open_client: OpenClient) -> None:
        sample = run_sample("dashboard")
        one, two = open_client(sample), open_client(sample)
        one.send("subscribe", {"topic": "boiler"})
        one.receive("state", lambda data: data["set"].get("pages") == 2)
        two.close()
        one.receive("state", lambda data: data["set"].get("pages") == 1)


def enter(client: Any, name: str) -> None:
    client.send("subscribe", {"topic": "talk", "last": 200})
    client.send("subscribe", {"topic": "presence:lobby"})
    client.send("enter", {"username": name})
    client.receive("response", lambda data: data.get("username") == name)


@pytest.mark.slow
class TestChat:
    def test_two_clients_see_each_other(self, run_sample: Run, open_client: OpenClient) -> None:
        sample = run_sample("chat")
        ann, bob = open_client(sample), open_client(sample)
        enter(ann, "Ann")
        enter(bob, "Bob")
        ann.receive("presence", lambda data: data["set"].get("Bob", {}).get("clients") == 1)
        for speaker, other, name in ((ann, bob, "Ann"), (bob, ann, "Bob")):
            speaker.send("chat_message", {"message": f"{name} was here"})
            for client in (speaker, other):
                said = client.receive("chat_message")
                assert (said["username"], said["message"]) == (name, f"{name} was here")
        bob.close()
        ann.receive("presence", lambda data: data["removed"] == ["Bob"])

    def test_who_comes_later_reads_what_was_said(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        sample = run_sample("chat")
        client = open_client(sample)
        enter(client, "Ann")
        client.send("chat_message", {"message": "hello"})
        assert client.receive("response", lambda data: "status" in data) == {"status": "received"}
        late = open_client(sample)
        late.send("subscribe", {"topic": "talk", "last": 200})
        assert late.receive("chat_message")["message"] == "hello"

    def test_nameless_is_anonymous(self, run_sample: Run, open_client: OpenClient) -> None:
        client = open_client(run_sample("chat"))
        client.send("chat_message", {"message": "hello"})
        assert client.receive("error")["code"] == "not_entered"
        client.send("enter", {})
        assert client.receive("response") == {"username": "Anonymous"}

    @pytest.mark.parametrize("data", [{"message": " "}, {}, None, "hello"])
    def test_empty_message_is_refused(
        self, run_sample: Run, open_client: OpenClient, data: object
    ) -> None:
        client = open_client(run_sample("chat"))
        client.send("enter", {"username": "Ann"})
        client.send("chat_message", data)
        assert client.receive("error") == {
            "error": "a chat message needs some text",
            "code": "empty_message",
            "message_type": "chat_message",
        }


def running(job: Any) -> bool:
    return bool(job.get("state") == "running" and job["done"] > 0)


def ended(job: Any) -> bool:
    return job.get("state") in ("done", "failed", "cancelled")


@pytest.mark.slow
class TestLongjob:
    @pytest.fixture
    def watcher(self, open_client: OpenClient) -> Callable[[Any], Any]:
        def watch(sample: Any) -> Any:
            client = open_client(sample)
            client.send("subscribe", {"topic": "job"})
            return client

        return watch

    def test_everybody_sees_the_job_to_its_end(self, run_sample: Run, watcher: OpenClient) -> None:
        sample = run_sample("longjob", STEP="0.001")
        one, two = watcher(sample), watcher(sample)
        for client in (one, two):
            job = client.receive_values("job", lambda job: "versions" in job)
            assert (job["state"], job["versions"]) == ("none", ["2.4.0", "2.4.1", "2.5.0-rc1"])
        one.send("install", {"version": "2.4.1"})
        for client in (one, two):
            job = client.receive_values("job", running)
            assert 0 < job["done"] <= job["total"] == 120
            job = client.receive_values("job", lambda job: job["state"] != "running")
            assert (job["state"], job["done"], job["installed"]) == ("done", 120, "2.4.1")
        one.receive("response", lambda data: data == {"state": "done"})
        assert watcher(sample).receive_values("job") == job

    def test_job_outlives_its_page_and_is_found_again(
        self, run_sample: Run, watcher: OpenClient
    ) -> None:
        sample = run_sample("longjob")
        first = watcher(sample)
        first.send("install", {"version": "2.4.1"})
        done = first.receive_values("job", running)["done"]
        first.close()
        again = watcher(sample)
        job = again.receive_values("job")
        assert running(job)
        assert job["done"] >= done
        again.receive_values("job", lambda later: running(later) and later["done"] > job["done"])

    def test_any_page_may_cancel(self, run_sample: Run, watcher: OpenClient) -> None:
        sample = run_sample("longjob", STEP="0.05")
        one, two = watcher(sample), watcher(sample)
        one.send("install", {"version": "2.4.1"})
        two.receive_values("job", running)
        two.send("cancel_install", {})
        two.receive("response", lambda data: data == {"state": "cancelling"})
        for client in (one, two):
            job = client.receive_values("job", ended)
            assert (job["state"], job["installed"]) == ("cancelled", "2.4.0")
        one.receive("response", lambda data: data == {"state": "cancelled"})
        one.send("install", {"version": "2.4.0"})  # the cancel was for that one alone
        two.receive_values("job", running)

    def test_second_job_is_told_why_not(self, run_sample: Run, watcher: OpenClient) -> None:
        sample = run_sample("longjob", STEP="0.05")
        one, two = watcher(sample), watcher(sample)
        one.send("install", {"version": "2.4.1"})
        one.receive_values("job", running)
        for client in (one, two):
            client.send("install", {"version": "2.5.0-rc1"})
            assert client.receive("error") == {
                "error": "version 2.4.1 is being installed already",
                "code": "job_running",
                "message_type": "install",
            }
        assert two.receive_values("job", running)["version"] == "2.4.1"

    def test_failure_is_shown_and_the_next_job_runs(
        self, run_sample: Run, watcher: OpenClient
    ) -> None:
        client = watcher(run_sample("longjob", STEP="0.001"))
        client.send("install", {"version": "2.5.0-rc1"})
        job = client.receive_values("job", ended)
        assert (job["state"], job["done"], job["installed"]) == ("failed", 100, "2.4.0")
        assert job["error"] == "the checksum of 2.5.0-rc1 is wrong in block 20"
        client.send("install", {"version": "2.4.1"})
        client.receive_values("job", running)
        job = client.receive_values("job", ended)
        assert (job["state"], job["error"]) == ("done", None)

    @pytest.mark.parametrize("data", [{"version": "9"}, {"version": ["2.4.1"]}, {}, [], None])
    def test_unknown_version_is_refused(
        self, run_sample: Run, open_client: OpenClient, data: object
    ) -> None:
        client = open_client(run_sample("longjob"))
        client.send("install", data)
        error = client.receive("error")
        assert error["code"] == "bad_version"
        assert error["error"] == "choose one of 2.4.0, 2.4.1, 2.5.0-rc1"

    def test_nothing_to_cancel(self, run_sample: Run, open_client: OpenClient) -> None:
        client = open_client(run_sample("longjob"))
        client.send("cancel_install", {})
        assert client.receive("error")["code"] == "no_job"

    def test_signal_ends_a_running_job(self, run_sample: Run, watcher: OpenClient) -> None:
        sample = run_sample("longjob", STEP="0.5")  # a minute in all
        client = watcher(sample)
        client.send("install", {"version": "2.4.1"})
        client.receive_values("job", running)
        started = time.monotonic()
        sample.process.send_signal(signal.SIGTERM)
        assert sample.finish() == (0, sample.output[0])
        assert time.monotonic() - started < 5  # run() itself would give up after 10

    def test_job_of_a_killed_daemon_has_failed(self, run_sample: Run, watcher: OpenClient) -> None:
        sample = run_sample("longjob")
        client = watcher(sample)
        client.send("install", {"version": "2.4.1"})
        client.receive_values("job", lambda job: running(job) and job["done"] > 5)
        sample.process.kill()
        sample.finish()
        job = watcher(run_sample("longjob")).receive_values("job", ended)
        assert job["error"] == "the daemon was restarted in the middle of it"
        assert (job["version"], job["installed"]) == ("2.4.1", "2.4.0")


@pytest.mark.slow
class TestKiosk:
    def test_values_and_log_survive_a_restart(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        first = run_sample("kiosk", SPEED="10")
        client = open_client(first)
        client.send("subscribe", {"topic": "tank"})
        client.receive_values("tank", lambda tank: tank.get("device") == "here")
        first.process.send_signal(signal.SIGTERM)
        assert first.finish()[0] == 0
        again = open_client(run_sample("kiosk", SPEED="0.01"))
        again.send("subscribe", {"topic": "tank"})
        tank = again.receive_values("tank", lambda tank: tank["device"] == "silent")
        assert 0 < tank["level"] < 100
        assert tank["time"] < tank["started"]
        again.send("subscribe", {"topic": "log", "last": 100})
        for text in ("started", "stopped", "started; the last values are"):
            again.receive("log", functools.partial(is_line, "INFO", text))

    def test_what_the_device_does_wrong_is_logged(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        client = open_client(run_sample("kiosk", SPEED="100"))
        client.send("subscribe", {"topic": "log", "last": 100})
        found = {"WARNING": "damaged line", "ERROR": "does not answer", "INFO": "is back"}
        for level, text in found.items():
            wanted = functools.partial(is_line, level, text)
            client.receive("log", wanted)


def is_line(level: str, text: str, line: Any) -> bool:
    return line["level"] == level and text in line["message"]


@pytest.mark.slow
class TestAuth:
    def test_only_those_who_logged_in_come_in(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        sample = run_sample("auth")
        data, cookie = login(sample)
        assert data["user"] == {"name": "ada", "role": "operator"}
        assert cookie.partition("=")[2] not in json.dumps(data)  # it is the browser's alone
        for stolen in ("", "session=x.y", cookie[:-1] + ("0" if cookie[-1] != "0" else "1")):
            assert knock(sample, stolen) == 401
        welcome = open_client(sample, cookie=cookie).receive("welcome")
        assert welcome["user"] == data["user"]
        assert 0 < welcome["seconds"] <= 60

    @pytest.mark.parametrize(
        "data",
        [
            {"name": "ada", "password": "babbage"},
            {"name": "eve", "password": "lovelace"},
            {"name": 1, "password": []},
            {"name": "\ud800", "password": "\udfff"},
            {},
            [],
            None,
        ],
    )
    def test_wrong_password_is_refused(self, run_sample: Run, data: object) -> None:
        status, answer, cookie = post(run_sample("auth").url + "login", data)
        assert (status, answer["code"], cookie) == (401, "bad_login", "")

    def test_viewer_may_watch_but_not_move(self, run_sample: Run, open_client: OpenClient) -> None:
        sample = run_sample("auth")
        ada = open_client(sample, cookie=login(sample)[1])
        charles = open_client(sample, cookie=login(sample, "charles", "babbage")[1])
        for client in (ada, charles):
            client.send("subscribe", {"topic": "valve"})
            assert client.receive_values("valve") == {"open": False, "by": ""}
        charles.send("move", {"open": True})
        assert charles.receive("error")["code"] == "forbidden"
        ada.send("move", {"open": True})
        assert ada.receive("response", lambda data: "topic" not in data) == {"open": True}
        assert charles.receive_values("valve", lambda valve: valve["open"])["by"] == "ada"
        ada.send("move", {"open": "wide"})
        assert ada.receive("error")["code"] == "bad_position"
        ada.send("move", {"open": False})
        assert 0 < ada.receive("error")["retry_after"] <= 0.5

    def test_session_ends_unless_it_is_renewed(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        sample = run_sample("auth", SESSION_SECONDS="3")
        (_, cookie), (_, other) = login(sample), login(sample, "charles", "babbage")
        renewed, idle = open_client(sample, cookie=cookie), open_client(sample, cookie=other)
        renewed.receive("welcome")
        status, data, fresh = post(sample.url + "renew", cookie=cookie)
        assert (status, data["user"]["name"]) == (200, "ada")
        assert 2 < renewed.receive("session")["seconds"] <= 3
        # The token that was renewed is worth nothing any more, the new one is.
        assert (knock(sample, cookie), fresh != cookie) == (401, True)
        assert post(sample.url + "renew", cookie=cookie)[1]["code"] == "expired"
        assert knock(sample, fresh) == 101
        assert idle.closing_code() == 4401
        assert renewed.closing_code() == 4401
        assert knock(sample, fresh) == 401

    def test_logout_ends_the_session_everywhere_at_once(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        sample = run_sample("auth")
        (_, cookie), (_, other) = login(sample), login(sample)
        tabs = [open_client(sample, cookie=cookie) for _ in range(2)]
        elsewhere = open_client(sample, cookie=other)
        for tab in (*tabs, elsewhere):
            tab.receive("welcome")
        assert post(sample.url + "logout", cookie=cookie)[:2] == (200, {"user": None})
        assert [tab.closing_code() for tab in tabs] == [4001, 4001]
        assert knock(sample, cookie) == 401
        assert post(sample.url + "renew", cookie=cookie)[0] == 401
        elsewhere.send("move", {"open": True})
        assert elsewhere.receive("response") == {"open": True}

    def test_logout_on_all_devices(self, run_sample: Run, open_client: OpenClient) -> None:
        sample = run_sample("auth")
        cookies = [login(sample)[1], login(sample)[1], login(sample, "charles", "babbage")[1]]
        clients = [open_client(sample, cookie=cookie) for cookie in cookies]
        for client in clients:
            client.receive("welcome")
        assert post(sample.url + "logout", {"everywhere": True}, cookies[0])[0] == 200
        assert [client.closing_code() for client in clients[:2]] == [4001, 4001]
        assert [knock(sample, cookie) for cookie in cookies] == [401, 401, 101]

    def test_login_rotates_and_ends_what_was_before(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        sample = run_sample("auth")
        _, cookie = login(sample)
        client = open_client(sample, cookie=cookie)
        client.receive("welcome")
        data = {"name": "charles", "password": "babbage"}
        status, _, fresh = post(sample.url + "login", data, cookie)
        assert (status, fresh != cookie) == (200, True)
        assert client.closing_code() == 4001
        assert (knock(sample, cookie), knock(sample, fresh)) == (401, 101)

    def test_guesses_are_counted(self, run_sample: Run) -> None:
        sample = run_sample("auth")
        wrong = {"name": "ada", "password": "guess"}
        answers = [post(sample.url + "login", wrong)[:2] for _ in range(11)]
        assert [answer[0] for answer in answers] == [401] * 10 + [429]
        assert answers[-1][1]["code"] == "too_many_logins"
        right = {"name": "ada", "password": "lovelace"}
        assert post(sample.url + "login", right)[0] == 429

    def test_right_logins_are_no_guesses(self, run_sample: Run) -> None:
        sample = run_sample("auth")
        for _ in range(12):
            login(sample)

    @pytest.mark.parametrize("path", ["login", "renew", "logout"])
    def test_pages_of_other_sites_do_nothing(self, run_sample: Run, path: str) -> None:
        sample = run_sample("auth")
        _, cookie = login(sample)
        for header in (("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")):
            data = {"name": "charles", "password": "babbage"}
            status, answer, _ = post(sample.url + path, data, cookie, header)
            assert (status, answer["code"]) == (403, "cross_site_request")
        assert knock(sample, cookie) == 101

    def test_login_takes_json_alone(self, run_sample: Run) -> None:
        data = {"name": "ada", "password": "lovelace"}
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            status, _, cookie = post(
                run_sample("auth").url + "login", data, "", ("Content-Type", kind)
            )
            assert (status, cookie) == (415, "")

    def test_cookie_and_answers_are_hardened(self, run_sample: Run) -> None:
        request = urllib.request.Request(
            run_sample("auth").url + "login",
            b'{"name": "ada", "password": "lovelace"}',
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            parts = {part.strip() for part in answer.headers["Set-Cookie"].split(";")}
            assert {"HttpOnly", "Path=/", "SameSite=Strict"} <= parts
            assert answer.headers["Cache-Control"] == "no-store"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]

    def test_bad_number_of_seconds_is_explained(self, run_sample: Run) -> None:
        code, output = run_sample("auth", listening=False, SESSION_SECONDS="soon").finish()
        assert code == 1
        assert output == "SESSION_SECONDS must be a number from 0 to 86400, not 'soon'\n"


def alive(client: Any, *names: str) -> dict[str, dict[str, Any]]:
    """Wait until each of these processes has told that it lives; return what each said last."""
    found: dict[str, dict[str, Any]] = {}
    while not found.keys() >= set(names):
        told = client.receive("alive")
        found[told["name"]] = told
    return found


@pytest.mark.slow
class TestCluster:
    def test_three_processes_are_one_app(self, run_sample: Run, open_client: OpenClient) -> None:
        sample = run_sample("cluster", RETURN="0.2")
        clients = [open_client(sample) for _ in range(4)]
        for number, client in enumerate(clients):
            client.send("enter", f"otter {number}")
        homes = [client.receive("response", lambda data: "pid" in data) for client in clients]
        before = alive(clients[0], "red", "green", "blue")
        for home in homes:
            assert before[home["name"]]["pid"] == home["pid"]
        clients[0].send("wave", None)
        for client in clients[1:]:
            assert client.receive("waved") == {"from": "otter 0", "name": homes[0]["name"]}
        assert clients[0].receive("response", lambda data: data == 2) == 2

        # One that has nothing to do with the first client dies; another one comes in its place.
        name = next(name for name in before if name != homes[0]["name"])
        clients[0].send("kill", name)
        told = clients[0].receive(
            "alive", lambda told: told["name"] == name and told["pid"] != before[name]["pid"]
        )
        assert f"{name} is process {told['pid']}" in sample.take()

    def test_a_killed_process_leaves_its_clients_to_the_others(
        self, run_sample: Run, open_client: OpenClient
    ) -> None:
        sample = run_sample("cluster", RETURN="60")
        client = open_client(sample)
        client.send("enter", "otter")
        home = client.receive("response", lambda data: "pid" in data)
        client.send("kill", home["name"])
        assert client.closing_code() == 1005  # it said nothing
        assert eventually(lambda: f"{home['name']} has died" in sample.take(), 20)
        others = {"red", "green", "blue"} - {home["name"]}
        again = [open_client(sample) for _ in range(4)]  # none of them comes to a dead one
        for each in again:
            each.send("enter", "otter")
            assert each.receive("response", lambda data: "pid" in data)["name"] in others

    def test_nothing_of_it_is_left(self, run_sample: Run, open_client: OpenClient) -> None:
        sample = run_sample("cluster")
        pids = [told["pid"] for told in alive(open_client(sample), "red", "green", "blue").values()]
        sample.process.kill()  # it cannot say anything to the others
        sample.finish()
        assert eventually(lambda: not any(is_there(pid) for pid in pids), 20)


def is_there(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
