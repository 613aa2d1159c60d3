"""One app, served by daebus or, as ``app.wsgi``, by a peer: ``http_site.py PORT SERVER``.

gunicorn imports ``application``.
"""

import logging
import signal
import sys
from typing import Any

from daebus import Daebus, DaebusHttp

WORKERS = 8
ROOM = 4000  # connections; all of them have room for the slow clients

port = int(sys.argv[1]) if __name__ == "__main__" else 0
app = Daebus("bench")
# The slow clients stay as long as a measure takes.
app.attach(DaebusHttp(port=port, workers=WORKERS, max_connections=ROOM, head_timeout=120.0))


@app.route("/data/<int:size>")
def data(req: Any, size: int) -> Any:
    return {"data": "x" * size}


application = app.wsgi


def with_werkzeug() -> None:
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    make_server("127.0.0.1", port, application, threaded=True).serve_forever()


def with_waitress() -> None:
    from waitress import serve

    logging.getLogger("waitress").setLevel(logging.ERROR)
    serve(
        application,
        host="127.0.0.1",
        port=port,
        threads=WORKERS,
        connection_limit=ROOM,
        channel_timeout=120,
        backlog=1024,
        asyncore_use_poll=True,  # select() ends at 1,024 descriptors
    )


def with_cheroot() -> None:
    from cheroot.wsgi import Server

    server = Server(
        ("127.0.0.1", port), application, numthreads=WORKERS, request_queue_size=1024, timeout=120
    )
    server.safe_start()


if __name__ == "__main__":
    if sys.argv[2] == "daebus":
        app.run()
    else:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        {"werkzeug": with_werkzeug, "waitress": with_waitress, "cheroot": with_cheroot}[
            sys.argv[2]
        ]()
