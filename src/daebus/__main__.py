"""``python -m daebus emit``: a message to the clients of an app, from a shell or cron."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from .emitter.emitter import Emitter
from .errors import BackplaneError

__all__ = ["PATIENCE", "main"]

# Seconds after which a message that Redis has not taken counts as lost: a job of cron must end.
# With the start of Python on a slow machine it is 15, which is what we promise.
PATIENCE = 12.0

_URL = re.compile(r"(rediss?|unix)://")

_USAGE = (
    "python -m daebus emit [URL] --app APP (--all | --room R | --user U | --topic T) "
    "--type TYPE JSON"
)
_MORE = (
    "Example: python -m daebus emit redis://127.0.0.1:6379/0 --app shop --all --type job "
    "'{\"exit\": 0}'. DAEBUS_REDIS may hold the URL. DAEBUS_SECRET holds the secret of the app, if "
    "it has one; every user of a machine sees command lines."
)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says.

    Args:
        arguments: what stands behind ``python -m daebus``.

    Returns:
        0 once Redis has the message, 1 if that could not be done in time. What cannot be
        understood ends the program with 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m daebus emit",
        usage=_USAGE,
        description="Send a message to the clients of an app whose processes share a Redis.",
        epilog=_MORE,
    )
    parser.add_argument(
        "words", nargs="*", metavar="[URL] JSON", help="the data; - reads the input"
    )
    parser.add_argument("--app", required=True, help="the app's name")
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--all", action="store_true", help="to every client")
    whom.add_argument("--room", help="to the clients in a room")
    whom.add_argument("--user", help="to the clients of a user")
    whom.add_argument("--topic", help="publish to a topic")
    parser.add_argument("--type", required=True, help="the type of the message")
    parser.add_argument("--cluster", action="store_true", help="the server is one of a cluster")
    parser.add_argument("--partitions", type=int, help="as the app's DaebusRedis has them")
    parser.add_argument("--max-frame", type=int, default=1 << 20, help="the same")
    if arguments[:1] != ["emit"]:
        if arguments[:1] in (["-h"], ["--help"]):
            parser.print_help()
            return 0
        parser.error(
            f"there is no command {' '.join(arguments[:1])!r}; write python -m daebus emit"
        )
    options = parser.parse_intermixed_args(arguments[1:])
    # No error repeats the words: a URL may hold a password.
    if len(options.words) > 2:
        parser.error("one URL at most, and one text of JSON; put quotes around what has blanks")
    if not options.words or (len(options.words) == 1 and _URL.match(options.words[0])):
        parser.error("the data is missing; write it as JSON: '{\"exit\": 0}'")
    *urls, text = options.words
    url = urls[0] if urls else os.environ.get("DAEBUS_REDIS")
    if not url:
        parser.error("no URL; write redis://127.0.0.1:6379/0, or set DAEBUS_REDIS")
    if not options.type:
        parser.error("the type is empty; write --type job")
    try:
        data = _read(sys.stdin.read() if text == "-" else text)
    except ValueError as exc:
        parser.error(f"the data is no JSON ({exc}); a mere text has quotes: '\"closed\"'")
    try:
        emitter = Emitter(
            url,
            app=options.app,
            cluster=options.cluster,
            partitions=options.partitions,
            queue_age=PATIENCE,
            queue_bytes=4 * options.max_frame,
            max_frame=options.max_frame,
            secret=os.environ.get("DAEBUS_SECRET") or None,
        )
    except (ValueError, ImportError) as exc:
        parser.error(str(exc))
    try:
        _emit(emitter, options, data)
        emitter.close(PATIENCE)
    except BackplaneError as exc:
        print(f"python -m daebus emit: {exc}", file=sys.stderr)
        return 1
    except ValueError as exc:
        emitter.close()
        parser.error(str(exc))
    return 0


def _read(text: str) -> Any:
    """Return what a text of JSON says.

    Raises:
        ValueError: it is none, or holds bytes that are no text, which Python reads as surrogates.
    """
    text.encode()
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is none")


def _emit(emitter: Emitter, options: argparse.Namespace, data: Any) -> None:
    if options.topic is not None:
        emitter.topic(options.topic).publish(data, options.type)
    elif options.room is not None:
        emitter.broadcast_to_room(options.room, data, options.type)
    elif options.user is not None:
        emitter.send_to_user(options.user, data, options.type)
    else:
        emitter.broadcast_to_all(data, options.type)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
