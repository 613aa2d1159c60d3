"""A valve behind a login: who may see it, who may move it, and for how long.

Two users to try: ``ada`` (password ``lovelace``), who may move the valve, and ``charles``
(``babbage``), who may only watch. A session lasts ``SESSION_SECONDS``, one minute if that
is not set, unless the page renews it.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from _common import Sample, port_from_environment
from werkzeug.wrappers import Response

from daebus import (
    ClientError,
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
COOKIE = "session"
# Made anew with each start: a session ends with the program. To keep them over a restart,
# read the secret from a file that only this program may read.
SECRET = secrets.token_bytes(32)


@dataclass(frozen=True)
class Identity:
    """Who a client is; ``expires_at`` is what daebus ends the connection by."""

    name: str
    role: str
    expires_at: float


# ---- passwords and signatures ----------------------------------------------------------


def hash_password(password: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 100_000)


def make_user(password: str, role: str) -> tuple[bytes, bytes, str]:
    salt = secrets.token_bytes(16)
    return salt, hash_password(password, salt), role


# A real program reads salts and hashes from a file, and knows no password.
USERS = {"ada": make_user("lovelace", "operator"), "charles": make_user("babbage", "viewer")}
NOBODY = make_user(secrets.token_hex(), "")


def check_password(name: object, password: object) -> Identity | None:
    if not isinstance(name, str) or not isinstance(password, str):
        return None
    # An unknown name takes as long as a known one, so that the time tells nothing.
    salt, wanted, role = USERS.get(name, NOBODY)
    if not hmac.compare_digest(hash_password(password, salt), wanted) or name not in USERS:
        return None
    return Identity(name, role, time.time() + SECONDS)


def sign(identity: Identity) -> str:
    """Return the identity as text that only this program can make.

    Its letters are fit for a cookie and for a WebSocket subprotocol.
    """
    body = base64.urlsafe_b64encode(json.dumps(asdict(identity)).encode()).rstrip(b"=")
    return f"{body.decode()}.{hmac.new(SECRET, body, 'sha256').hexdigest()}"


def verify(text: object) -> Identity | None:
    """Return the identity that was signed; None if it was not, or has expired."""
    if not isinstance(text, str) or not text.isascii():
        return None
    body, _, signature = text.partition(".")
    # The signature first: what nobody signed is not looked into.
    wanted = hmac.new(SECRET, body.encode(), "sha256").hexdigest()
    if not hmac.compare_digest(signature, wanted):
        return None
    identity = Identity(**json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))
    return identity if identity.expires_at > time.time() else None


# ---- the app ---------------------------------------------------------------------------


app = Sample("auth")
http = app.attach(DaebusHttp(port=port_from_environment(), static=Path(__file__).parent / "auth"))
websocket = app.attach(
    DaebusWebSocket(subprotocols=["daebus"], max_clients_per_ip=50, max_lifetime=3600)
)
websocket.enable_rate_limiting(max_messages=60, window_seconds=60)
valve = {"open": False, "by": ""}


def with_cookie(identity: Identity) -> Response:
    """Answer with the session, as a cookie for the page and as a token for other programs."""
    token = sign(identity)
    response = Response(
        json.dumps(
            {**asdict(identity), "seconds": identity.expires_at - time.time(), "token": token}
        ),
        mimetype="application/json",
    )
    # No script can read it, and no other site's page can have it sent. Behind TLS it is
    # secure=True as well.
    response.set_cookie(COOKIE, token, max_age=int(SECONDS) + 1, httponly=True, samesite="Strict")
    return response


@app.route("/login", methods=["POST"])
def login(req: Request) -> object:
    form = req.payload if isinstance(req.payload, dict) else {}
    identity = check_password(form.get("name"), form.get("password"))
    if identity is None:
        return {"error": "name or password is wrong", "code": "bad_login"}, 401
    return with_cookie(identity)


@app.route("/session")
def session(req: Request) -> object:
    identity = verify(req.cookies.get(COOKIE))
    if identity is None:
        return {"user": None}
    return {"user": asdict(identity), "seconds": identity.expires_at - time.time()}


@app.route("/renew", methods=["POST"])
def renew_session(req: Request) -> object:
    identity = verify(req.cookies.get(COOKIE))
    if identity is None:
        return {"error": "the session has expired", "code": "expired"}, 401
    return with_cookie(Identity(identity.name, identity.role, time.time() + SECONDS))


@app.route("/logout", methods=["POST"])
def logout(req: Request) -> object:
    response = Response(json.dumps({"user": None}), mimetype="application/json")
    response.delete_cookie(COOKIE, httponly=True, samesite="Strict")
    return response


# ---- WebSockets ------------------------------------------------------------------------


@websocket.authenticate
def authenticate(req: UpgradeRequest) -> Identity | None:
    """The page has the cookie; a program or a page of another origin sends a token."""
    for name in req.subprotocols:
        if name.startswith("token."):
            return verify(name.removeprefix("token."))
    return verify(req.cookies.get(COOKIE))


def is_operator(req: WebSocketRequest) -> bool:
    return bool(req.identity.role == "operator")


@websocket.on_connect
def welcome(client_id: str) -> None:
    identity = websocket.get_identity(client_id)
    websocket.send({"name": identity.name, "role": identity.role, **remaining(identity)}, "welcome")
    websocket.send(valve, "valve")


def remaining(identity: Identity) -> dict[str, float]:
    return {"seconds": identity.expires_at - time.time()}


@app.socket("move", allow=is_operator, rate="2/s")
def move(req: WebSocketRequest) -> dict[str, object]:
    wanted = req.data.get("open") if isinstance(req.data, dict) else None
    if not isinstance(wanted, bool):
        raise ClientError("say open: true or false", code="bad_position")
    valve.update(open=wanted, by=req.identity.name)
    websocket.broadcast_to_all(valve, message_type="valve")
    return {"open": wanted}


@app.socket("renew")
def renew(req: WebSocketRequest) -> dict[str, float]:
    """Take a newer token; the connection goes on without a gap."""
    identity = verify(req.data.get("token") if isinstance(req.data, dict) else None)
    if identity is None or identity.name != req.identity.name:
        raise ClientError("that token is not good for this connection", code="bad_token")
    if not websocket.renew(req.client_id, identity):
        raise ClientError("too late", code="expired")
    return remaining(identity)


if __name__ == "__main__":
    app.run()
