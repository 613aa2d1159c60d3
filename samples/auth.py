"""A valve behind a login: who may see it, who may move it, and for how long.

Two users to try: ``ada`` (password ``lovelace``), who may move the valve, and ``charles``
(``babbage``), who may only watch. A session lasts ``SESSION_SECONDS``, one minute if that
is not set, unless the page renews it, and ``LONGEST`` seconds in all.

What it is meant to withstand, and how:

* *A page of another site* that posts to it, logs the user in as somebody else, or opens a
  WebSocket: daebus refuses these by ``Sec-Fetch-Site`` and ``Origin``, and names that are not
  this server's by ``Host``; the cookie is ``SameSite=Strict``, and only JSON is taken.
* *A script in the page* that was not meant to be there: the session's token is in an HttpOnly
  cookie and in no answer, so that no script can carry it away; the policy in ``harden`` keeps
  scripts of others out. What runs in the page can still act while the page is open.
* *A token that was seen* in a log, a backup or memory: it is random, changes with each login and
  renewal, and the table of sessions holds its hash alone. An old one is worth nothing at once.
* *A user who logs out*, or is sent away: sessions live in this process, so one that is gone is
  gone everywhere. Its WebSockets are closed, also one that was just being let in, and no message
  of theirs moves the valve any more.
* *Guesses*: passwords are hashed with scrypt, unknown names take as long as known ones, and wrong
  guesses are counted by address and by name before anything is hashed. So somebody can keep a
  user from logging in for some minutes; that is the price of the count by name.
* *Floods*: the tables are bounded, two passwords are hashed at once, and messages have rates.

What it leaves to others: eavesdroppers are kept out by TLS, which the daemon must have as soon as
it is reached from other machines (``certfile``, or a proxy that is named in ``trusted_proxies``).
Sessions end with the process; several processes would need a common table. There is no second
factor, no change of passwords, and no defence against who controls the user's browser or this
machine.
"""

import hashlib
import hmac
import json
import os
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from werkzeug.wrappers import Response

from daebus import (
    ClientError,
    Daebus,
    DaebusHttp,
    DaebusWebSocket,
    Request,
    UpgradeRequest,
    WebSocketRequest,
)


def seconds_from_environment(default: float = 60.0) -> float:
    text = os.environ.get("SESSION_SECONDS") or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        sys.exit(f"SESSION_SECONDS must be a number from 0 to 86400, not {text!r}")
    return seconds


SECONDS = seconds_from_environment()
LONGEST = 12 * 3600.0  # seconds of a session, however often it is renewed
LOGGED_OUT = 4001  # close code of this program's own


# ---- passwords -------------------------------------------------------------------------


def hash_password(password: str, salt: bytes) -> bytes:
    # 32 MiB and a tenth of a second for each guess. A real program keeps these numbers beside the
    # hash, so that they can grow.
    secret = password.encode(errors="surrogatepass")  # JSON may hold halves of characters
    return hashlib.scrypt(secret, salt=salt, n=2**15, r=8, p=1, maxmem=2**26, dklen=32)


def make_user(password: str, role: str) -> tuple[bytes, bytes, str]:
    salt = secrets.token_bytes(16)
    return salt, hash_password(password, salt), role


# A real program reads salts and hashes from a file, and knows no password.
USERS = {"ada": make_user("lovelace", "operator"), "charles": make_user("babbage", "viewer")}
NOBODY = make_user(secrets.token_hex(), "")
HASHING = threading.BoundedSemaphore(2)


def check_password(name: str, password: str) -> str | None:
    """Return the user's role; None if name or password is wrong."""
    # An unknown name takes as long as a known one, so that the time tells nothing.
    salt, wanted, role = USERS.get(name, NOBODY)
    with HASHING:
        found = hash_password(password, salt)
    return role if hmac.compare_digest(found, wanted) and name in USERS else None


class Guesses:
    """Counts attempts in a window of time; who has had too many must wait.

    Keys share a number of places, so that inventing them costs no memory; where they land is
    different with each start of Python.
    """

    def __init__(self, most: int, seconds: float, places: int = 4096) -> None:
        self._most = most
        self._seconds = seconds
        self._places: list[deque[float]] = [deque(maxlen=most) for _ in range(places)]
        self._lock = threading.Lock()

    def begin(self, key: str) -> float:
        """Count an attempt; return the seconds to wait if there were too many, else 0."""
        now = time.monotonic()
        with self._lock:
            times = self._places[hash(key) % len(self._places)]
            while times and times[0] <= now - self._seconds:
                times.popleft()
            if len(times) == self._most:
                return times[0] + self._seconds - now
            times.append(now)
            return 0.0

    def forgive(self, key: str) -> None:
        """Take back the last attempt, which was right."""
        with self._lock:
            times = self._places[hash(key) % len(self._places)]
            if times:
                times.pop()


by_address, by_name = Guesses(10, 300.0), Guesses(50, 300.0)


def network_of(address: str) -> str:
    """Return the address, or the /64 of IPv6, since a client has all of that."""
    if ":" not in address:
        return address
    return str(ip_network((ip_address(address), 64), strict=False))


# ---- sessions --------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """Who a client is; ``expires_at`` is what daebus ends the connection by.

    ``number`` tells sessions apart and opens nothing.
    """

    number: str
    name: str
    role: str
    expires_at: float
    ends_at: float


class Sessions:
    """The sessions by the hash of their token: who reads this table cannot use it."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._by_hash: dict[bytes, Session] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, role: str) -> tuple[str, Session, list[Session]] | None:
        """Return a token, its session, and older ones that had to go; None if it is full."""
        now = time.time()
        number = secrets.token_hex(8)
        session = Session(number, name, role, now + SECONDS, now + LONGEST)
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._by_hash = {k: s for k, s in self._by_hash.items() if s.expires_at > now}
            own = [key for key, other in self._by_hash.items() if other.name == name]
            old = [self._by_hash.pop(key) for key in own[: len(own) + 1 - self._most_of_one]]
            if len(self._by_hash) >= self._most:
                return None
            self._by_hash[_digest(token)] = session
        return token, session, old

    def find(self, token: str | None) -> Session | None:
        """Return the session of a token, unless it has ended."""
        with self._lock:
            session = self._by_hash.get(_digest(token or ""))
        return session if session is not None and session.expires_at > time.time() else None

    def is_live(self, number: str) -> bool:
        now = time.time()
        with self._lock:
            return any(s.number == number and s.expires_at > now for s in self._by_hash.values())

    def renew(self, token: str | None) -> tuple[str, Session] | None:
        """Put a new token in the place of one, which is worth nothing from now on."""
        fresh, now = secrets.token_urlsafe(32), time.time()
        with self._lock:
            session = self._by_hash.pop(_digest(token or ""), None)
            if session is None or session.expires_at <= now:
                return None
            session = replace(session, expires_at=min(now + SECONDS, session.ends_at))
            self._by_hash[_digest(fresh)] = session
        return fresh, session

    def end(self, is_meant: Callable[[Session], bool]) -> list[Session]:
        """Forget sessions, and return them."""
        with self._lock:
            ended = {k: s for k, s in self._by_hash.items() if is_meant(s)}
            for key in ended:
                del self._by_hash[key]
        return list(ended.values())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


# ---- the app ---------------------------------------------------------------------------


app = Daebus("auth")
port, page = int(os.environ.get("PORT") or 8084), Path(__file__).parent / "auth"
app.attach(DaebusHttp(port=port, static=page, max_body=4096))
websocket = app.attach(DaebusWebSocket(max_clients_per_ip=50, max_lifetime=3600))
websocket.enable_rate_limiting(max_messages=60, window_seconds=60)
sessions = Sessions(most=1000, most_of_one=5)
valve = websocket.state("valve")
valve.update(open=False, by="")


@app.after_request
def harden(req: Request, response: Response) -> None:
    response.headers["Content-Security-Policy"] = (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if response.mimetype == "application/json":
        response.headers["Cache-Control"] = "no-store"


def cookie_of(req: Request) -> str:
    """Return the cookie's name; behind TLS no other host or path of the site can set it."""
    return "__Host-session" if req.is_secure else "session"


def told(session: Session) -> dict[str, object]:
    """Return what the page may know of a session; the token is not part of it."""
    left = session.expires_at - time.time()
    return {"user": {"name": session.name, "role": session.role}, "seconds": left}


def with_cookie(req: Request, token: str, session: Session) -> Response:
    response = Response(json.dumps(told(session)), mimetype="application/json")
    # No script can read it, and no page of another site can have it sent.
    response.set_cookie(
        cookie_of(req),
        token,
        max_age=int(session.expires_at - time.time()) + 1,
        httponly=True,
        samesite="Strict",
        secure=req.is_secure,
    )
    return response


def close_clients(ended: list[Session], reason: str) -> None:
    """Close the WebSockets of sessions that have ended."""
    for session in ended:
        for client_id in clients_of(session.number):
            websocket.disconnect_client(client_id, LOGGED_OUT, reason)


def clients_of(number: str) -> list[str]:
    def is_meant(client_id: str, _: object) -> bool:
        session = websocket.get_identity(client_id)
        return session is not None and session.number == number

    return websocket.get_clients_by_filter(is_meant)


@app.route("/login", methods=["POST"])
def login(req: Request) -> object:
    if not req.is_json:  # what a form of another site cannot send without asking first
        return {"error": "send JSON", "code": "not_json"}, 415
    form = req.payload if isinstance(req.payload, dict) else {}
    name, password = form.get("name"), form.get("password")
    if not isinstance(name, str) or not isinstance(password, str):
        return {"error": "name or password is wrong", "code": "bad_login"}, 401
    address = network_of(req.remote_addr or "")
    wait = by_address.begin(address) or by_name.begin(name)
    if wait:
        refusal = {"error": "too many attempts, wait some minutes", "code": "too_many_logins"}
        return refusal, 429, {"Retry-After": str(int(wait) + 1)}
    role = check_password(name, password)
    if role is None:
        return {"error": "name or password is wrong", "code": "bad_login"}, 401
    by_address.forgive(address)
    by_name.forgive(name)
    # Whoever planted or saw the cookie that the browser had before is not let in with it.
    before = sessions.find(req.cookies.get(cookie_of(req)))
    if before is not None:
        close_clients(sessions.end(lambda other: other == before), "logged in anew")
    begun = sessions.begin(name, role)
    if begun is None:
        return {"error": "too many are logged in", "code": "full"}, 503
    token, session, old = begun
    close_clients(old, "logged in elsewhere")
    return with_cookie(req, token, session)


@app.route("/session")
def show_session(req: Request) -> object:
    session = sessions.find(req.cookies.get(cookie_of(req)))
    return {"user": None} if session is None else told(session)


@app.route("/renew", methods=["POST"])
def renew_session(req: Request) -> object:
    renewed = sessions.renew(req.cookies.get(cookie_of(req)))
    if renewed is None:
        return {"error": "the session has expired", "code": "expired"}, 401
    token, session = renewed
    # The connections that are open learn of it here, and go on without a gap.
    for client_id in clients_of(session.number):
        websocket.renew(client_id, session)
        websocket.send_to_client(client_id, told(session), "session")
    return with_cookie(req, token, session)


@app.route("/logout", methods=["POST"])
def logout(req: Request) -> object:
    """End this session, or all of its user; WebSockets of theirs end at once."""
    session = sessions.find(req.cookies.get(cookie_of(req)))
    everywhere = req.is_json and isinstance(req.payload, dict) and req.payload.get("everywhere")
    if session is not None:
        ended = sessions.end(
            lambda other: (
                other.name == session.name if everywhere is True else other.number == session.number
            )
        )
        close_clients(ended, "logged out")
    response = Response(json.dumps({"user": None}), mimetype="application/json")
    response.delete_cookie(cookie_of(req), httponly=True, samesite="Strict", secure=req.is_secure)
    return response


# ---- WebSockets ------------------------------------------------------------------------


@websocket.authenticate
def authenticate(req: UpgradeRequest) -> Session | None:
    """Let in who has a session; pages and programs alike send the cookie of their login."""
    return sessions.find(req.cookies.get(cookie_of(req)))


def is_operator(req: WebSocketRequest) -> bool:
    # The session is looked up for each message: what was on its way at a logout does nothing.
    return req.identity.role == "operator" and sessions.is_live(req.identity.number)


@websocket.on_connect
def welcome(client_id: str) -> None:
    session = websocket.get_identity(client_id)
    if session is None:
        return
    if not sessions.is_live(session.number):  # it has ended while the client was let in
        websocket.disconnect_client(client_id, LOGGED_OUT, "logged out")
        return
    websocket.send(told(session), "welcome")


@app.socket("move", allow=is_operator, rate="2/s")
def move(req: WebSocketRequest) -> dict[str, object]:
    wanted = req.data.get("open") if isinstance(req.data, dict) else None
    if not isinstance(wanted, bool):
        raise ClientError("say open: true or false", code="bad_position")
    valve.update(open=wanted, by=req.identity.name)
    return {"open": wanted}


if __name__ == "__main__":
    app.run()
