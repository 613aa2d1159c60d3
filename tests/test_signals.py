"""``app.run()`` and ``app.serve()``: until a signal comes, or somebody stops the app."""

from __future__ import annotations

import logging
import signal
import textwrap
import threading
from collections.abc import Callable

import pytest

from daebus import (
    AddressInUseError,
    Daebus,
    DaebusHttp,
    DaebusWebSocket,
    StateError,
)
from tests.support.child import Child
from tests.support.fixture_types import Connect
from tests.support.logs import records
from tests.support.peer import Peer
from tests.support.waiting import eventually


def said(program: Child) -> str:
    """Return the line on standard error that says where a program listens."""
    return f"child: http://127.0.0.1:{program.told}/  (Ctrl-C ends it)"


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM],
    ids=lambda n: n.name,
)
def test_run_ends_on_a_signal_with_handlers_restored_and_exit_code_0(
    child: Callable[..., Child], connect: Connect, number: signal.Signals
) -> None:
    program = child("""
        def mine(number, frame): ...

        signal.signal(signal.SIGTERM, mine)
        before = [signal.getsignal(n) for n in signal.valid_signals()]
        threading.Thread(target=tell_port).start()
        app.run()
        print(before == [signal.getsignal(n) for n in signal.valid_signals()])
        print(app.running, threading.active_count())
        """)
    peer = Peer.joined(connect(program.port()))
    peer.say("echo", 1)
    assert peer.message()["data"] == 1
    program.send_signal(number)
    assert peer.part() == 1001
    assert program.line() == "True"
    assert program.line() == "False 1"
    assert program.exit_code() == 0
    assert program.stderr() == [said(program)]


def test_a_port_for_websockets_alone_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    app = Daebus("two")
    http = app.attach(DaebusHttp(port=0))
    websocket = app.attach(DaebusWebSocket(port=0))
    with app.serve():
        said = f"http://127.0.0.1:{http.port}/ ws://127.0.0.1:{websocket.port}/"
        assert capsys.readouterr().err == f"two: {said}  (Ctrl-C ends it)\n"


@pytest.mark.slow
def test_sigterm_is_never_missed(child: Callable[..., Child]) -> None:
    """Another thread of the host is busy, so the kernel may hand the signal to that one."""
    rounds = 30
    program = child(f"""
        def burn():
            while True:
                sum(range(1000))

        threading.Thread(target=burn, daemon=True).start()
        for _ in range({rounds}):
            teller = threading.Thread(target=tell_port)
            teller.start()
            app.run()
            teller.join()
        """)
    for _ in range(rounds):
        program.port()
        program.send_signal(signal.SIGTERM)
    assert program.exit_code() == 0


def test_a_second_ctrl_c_leaves_at_once(child: Callable[..., Child], connect: Connect) -> None:
    program = child("""
        @app.socket("hang")
        def hang(req):
            print("hangs", flush=True)
            threading.Event().wait()

        threading.Thread(target=tell_port).start()
        app.run(timeout=300)
        """)
    peer = Peer.joined(connect(program.port()))
    peer.say("hang")
    assert program.line() == "hangs"
    program.send_signal(signal.SIGINT)
    assert peer.close_frame()[0] == 1001  # so the first one has been seen
    program.send_signal(signal.SIGINT)
    assert program.exit_code() == 128 + signal.SIGINT


def test_a_stuck_handler_does_not_keep_the_program_alive(
    child: Callable[..., Child], connect: Connect
) -> None:
    program = child("""
        @app.socket("hang")
        def hang(req):
            print("hangs", flush=True)
            threading.Event().wait()

        app.start()
        tell_port()
        sys.stdin.readline()
        print(app.stop(timeout=0.5), flush=True)
        """)
    peer = Peer.joined(connect(program.port()))
    peer.say("hang")
    assert program.line() == "hangs"
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    assert program.line().startswith("['daebus-ws-")
    assert program.exit_code() == 0


def test_a_program_that_forgets_to_stop_ends_all_the_same(child: Callable[..., Child]) -> None:
    program = child("""
        app.start()
        with app.test_client() as client:
            print(client.request("echo", "the end"))
        """)
    assert program.line() == "the end"
    assert program.exit_code() == 0
    assert program.stderr() == []


def test_run_in_another_thread_leaves_signals_alone(app: Daebus) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    runner = threading.Thread(target=app.run)
    runner.start()
    assert eventually(lambda: app.running)
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before
    app.stop()
    runner.join(5)
    assert not runner.is_alive()


def test_run_whose_start_fails_restores_the_handlers(taken: int) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    app = Daebus("test")
    app.attach(DaebusHttp(port=taken))
    with pytest.raises(SystemExit) as caught:
        app.run()
    assert caught.value.code == (
        f"test: port {taken} on 127.0.0.1 is in use; stop the other program or choose another "
        f"port (port=0 takes a free one)"
    )
    assert isinstance(caught.value.__cause__, AddressInUseError)
    with pytest.raises(SystemExit), app.serve():
        pytest.fail("it does not listen")
    with pytest.raises(AddressInUseError):
        app.start()
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


def test_run_ends_when_somebody_else_stops_the_app(app: Daebus) -> None:
    def stop() -> None:
        eventually(lambda: app.running)
        app.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    app.run()
    stopper.join()
    assert not app.running


# --- a loop of the host's own -------------------------------------------------------

LOOPS = {
    "wait": """
        while not app.wait(0.05):
            pass
        """,
    "long wait": "app.wait(300)",
    "sleep": """
        while True:
            time.sleep(0.1)
        """,
    "running": """
        while app.running:
            time.sleep(0.1)
        """,
    "pump": """
        while app.running:
            app.pump(300)
        """,
    "caught": """
        try:
            while True:
                time.sleep(0.1)
        except (KeyboardInterrupt, SystemExit):
            app.wait(300)
        """,
}


def in_block(loop: str) -> str:
    body = textwrap.indent(textwrap.dedent(loop), "    ")
    return (
        f"import time\nwith app.serve():\n    tell_port()\n{body}\nprint('goes on', app.running)\n"
    )


@pytest.mark.parametrize(
    ("loop", "number"),
    [
        ("wait", signal.SIGTERM),
        ("sleep", signal.SIGINT),
        ("pump", signal.SIGTERM),
        ("caught", signal.SIGINT),
        pytest.param("long wait", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("sleep", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("running", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_loop_in_a_block_ends_well_on_a_signal(
    child: Callable[..., Child], connect: Connect, loop: str, number: signal.Signals
) -> None:
    program = child(in_block(LOOPS[loop]))
    peer = Peer.joined(connect(program.port()))
    program.send_signal(number)
    assert peer.part() == 1001
    assert program.line() == "goes on False"
    assert program.exit_code() == 0
    assert program.stderr() == [said(program)]


def test_a_loop_that_asks_ends_its_round(child: Callable[..., Child]) -> None:
    program = child("""
        with app.serve():
            tell_port()
            while not app.wait(0.01):
                print("begins", flush=True)
                sys.stdin.readline()
                print("ends", flush=True)
        """)
    program.port()
    assert program.line() == "begins"
    program.send_signal(signal.SIGTERM)
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    assert program.line() == "ends"
    assert program.exit_code() == 0


def test_a_second_signal_leaves_a_round_that_does_not_end(child: Callable[..., Child]) -> None:
    program = child("""
        import time
        with app.serve():
            while not app.wait(0.01):
                tell_port()
                while not app._lifecycle.ending.asked:
                    time.sleep(0.01)
                print("goes on", flush=True)
                while True:  # a signal right before a long sleep would be seen behind it
                    time.sleep(0.1)
        """)
    program.port()
    program.send_signal(signal.SIGTERM)
    assert program.line() == "goes on"
    program.send_signal(signal.SIGTERM)
    assert program.exit_code() == 128 + signal.SIGTERM


def test_a_block_of_two_apps_ends_both(child: Callable[..., Child]) -> None:
    program = child("""
        other = Daebus("other")
        other.attach(DaebusHttp(port=0))
        with app.serve(), other.serve():
            tell_port()
            while not app.wait(0.01):
                pass
        print(app.running, other.running)
        """)
    program.port()
    program.send_signal(signal.SIGTERM)
    assert program.line() == "False False"
    assert program.exit_code() == 0


def test_a_child_of_a_block_takes_signals_as_it_did_before(child: Callable[..., Child]) -> None:
    program = child("""
        import time
        with app.serve():
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                os.write(writer, b".")  # Python drops signals that come during the fork
                for _ in range(3000):  # and sees one that comes right before a sleep behind it
                    time.sleep(0.1)
            os.read(reader, 1)
            os.kill(child, signal.SIGTERM)
            print(os.waitpid(child, 0)[1], flush=True)
        """)
    assert program.line() == str(int(signal.SIGTERM))
    assert program.exit_code() == 0


def test_a_block_leaves_everything_as_it_was(app: Daebus) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    for _ in range(2):
        with app.serve():
            assert app.running
            with app.test_client() as client:
                assert client.request("echo", 1) == 1
        assert not app.running
    with pytest.raises(KeyError), app.serve():
        raise KeyError("of the loop")
    with app, app.serve():
        assert app.running
    assert not app.running
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


def test_a_signal_during_the_start_is_not_lost(app: Daebus) -> None:
    @app.background("never", 60)
    def never() -> None: ...

    begin = app._lifecycle.start

    def interrupted(port: int | None, *, notify: bool) -> None:
        begin(port, notify=notify)
        signal.raise_signal(signal.SIGTERM)

    app._lifecycle.start = interrupted  # type: ignore[method-assign]  # a moment nobody can hit
    with pytest.raises(SystemExit) as caught, app.serve():
        pytest.fail("the block was entered")
    assert caught.value.code == 0
    assert not app.running
    app.run()
    assert not app.running


def test_a_block_that_nobody_enters_says_so(app: Daebus) -> None:
    with pytest.warns(RuntimeWarning, match=r"does nothing by itself; write with app\.serve\(\):"):
        app.serve()
    assert not app.running


def test_a_wait_before_the_start_is_no_stop(app: Daebus) -> None:
    for timeout in (None, 0, 60):
        with pytest.raises(StateError, match=r"not started; call app\.start\(\) before app\.wait"):
            app.wait(timeout)
    app.start()
    assert app.wait(0) is False
    app.stop()
    assert app.wait() is True


@pytest.mark.parametrize(
    "number",
    [None, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["end", "SIGINT"],
)
def test_a_program_that_does_not_stop_its_app_says_goodbye(
    child: Callable[..., Child], connect: Connect, number: signal.Signals | None
) -> None:
    program = child("""
        import atexit
        atexit.register(lambda: print(app.running, flush=True))
        app.start()
        tell_port()
        sys.stdin.readline()
        """)
    peer = Peer.joined(connect(program.port()))
    if number is None:
        assert program.process.stdin is not None
        program.process.stdin.write("\n")
        program.process.stdin.flush()
    else:
        program.send_signal(number)
    assert peer.part() == 1001
    assert program.line() == "True"  # what the program does at its end still finds the app
    assert program.exit_code() == (0 if number is None else -number)


# --- what is said -------------------------------------------------------------------


def test_where_it_listens_is_said_in_the_log_if_there_is_one(
    app: Daebus, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> str:
        runner = threading.Thread(target=app.run)
        runner.start()
        assert eventually(lambda: app.running)
        text = f"test: http://127.0.0.1:{app.http.port}/  (app.stop() ends it)"
        app.stop()
        runner.join(5)
        return text

    line = run()
    assert capsys.readouterr().err == line + "\n"
    with records(logging.INFO) as log:
        assert run() in log.texts
    assert capsys.readouterr().err == ""


def test_start_only_logs(app: Daebus, capsys: pytest.CaptureFixture[str]) -> None:
    with app:
        pass
    assert capsys.readouterr() == ("", "")


def test_a_taken_port_ends_a_program_with_one_sentence(
    child: Callable[..., Child], taken: int
) -> None:
    program = child(f"""
        app = Daebus("meter")
        app.attach(DaebusHttp(port={taken}))
        app.run()
        """)
    assert program.exit_code() == 1
    assert program.stderr() == [
        f"meter: port {taken} on 127.0.0.1 is in use; stop the other program or choose another "
        f"port (port=0 takes a free one)"
    ]


def test_in_another_thread_an_address_that_is_taken_is_an_error(taken: int) -> None:
    app = Daebus("meter")
    app.attach(DaebusHttp(port=taken))
    caught: list[BaseException] = []

    def run() -> None:
        try:
            app.run()
        except BaseException as exc:
            caught.append(exc)

    runner = threading.Thread(target=run)
    runner.start()
    runner.join(5)
    assert [type(exc) for exc in caught] == [AddressInUseError]
