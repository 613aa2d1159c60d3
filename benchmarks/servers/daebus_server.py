"""daebus: two handlers of one line each.

``--orjson`` lets it find orjson, ``--affinity CPU`` keeps its connection threads on one core.
"""

import argparse
import sys
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--orjson", action="store_true")
parser.add_argument("--affinity", type=int)
options = parser.parse_args()
if not options.orjson:
    # The environment of the benchmarks has orjson; None makes its import fail as if it had not.
    sys.modules["orjson"] = None  # type: ignore[assignment]

from daebus import Daebus, DaebusHttp, DaebusWebSocket  # noqa: E402

extra: dict[str, Any] = {}
if options.affinity is not None:
    extra["affinity"] = {options.affinity}

app = Daebus("bench")
app.attach(DaebusHttp(port=options.port))
app.attach(DaebusWebSocket(max_clients=20_000, **extra))


@app.socket("echo")
def echo(req: Any) -> Any:
    return req.data


@app.socket("shout")
def shout(req: Any) -> None:
    app.websocket.broadcast_to_all(req.data)


app.run()
