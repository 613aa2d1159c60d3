"""The page at ``/`` of an app that has no page yet: what a new user opens first."""

from __future__ import annotations

import html
import ipaddress

from werkzeug.wrappers import Response

from .request import Request

__all__ = ["Front"]

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{name}</title>
<h1>{name} runs here</h1>
<p>It is served by daebus, and {websockets}. It has no page yet; this is how one begins:</p>
<pre>@app.route("/")
def index(req):
    return "&lt;h1&gt;{name}&lt;/h1&gt;"</pre>
<p>Or name a folder of files: <code>DaebusHttp(static="folder")</code>.</p>
<p>Its documentation is where daebus was installed from: <code>README.rst</code> first, then
<code>docs/</code>. <code>python -m pydoc daebus</code> shows every class.</p>
<p>{seen}; it goes with the first route.</p>
</html>
"""

# What says that the client is somebody else than the peer, who may well be a proxy that nobody
# has named in ``trusted_proxies``.
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_VIA")


class Front:
    """Says what runs here, to those who are on this machine.

    Attributes:
        name: of the app.
        debug: others may see it too.
        websockets: the app takes them.
    """

    def __init__(self) -> None:
        self.name = "daebus"
        self.debug = False
        self.websockets = False

    def answer(self, request: Request) -> Response | None:
        """Return the page; None if the request is for another one, or the client elsewhere."""
        if request.path != "/" or request.method not in ("GET", "HEAD"):
            return None
        if not self.debug and not _is_here(request):
            return None
        page = _PAGE.format(
            name=html.escape(self.name),
            websockets="takes WebSockets" if self.websockets else "takes no WebSockets",
            seen="Everybody sees this page, as debug=True"
            if self.debug
            else "Only browsers on this machine see this page",
        )
        headers = {"Cache-Control": "no-store"}
        return Response(page, headers=headers, content_type="text/html; charset=utf-8")


def _is_here(request: Request) -> bool:
    if any(name in request.environ for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.remote_addr or "").is_loopback
    except ValueError:  # the peer of a socket file has none
        return False
