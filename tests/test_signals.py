"""``app.run()``: until a signal comes, or somebody stops the app."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from daebus import (
    AddressInUseError,
    Daebus,
    DaebusHttp,
)
from tests.support.child import Child
from tests.support.fixture_types import Connect
from tests.support.peer import Peer
from tests.support.waiting import eventually


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
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
    assert program.stderr() == []


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
    with pytest.raises(AddressInUseError):
        app.run()
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
