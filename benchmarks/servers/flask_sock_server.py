"""Flask-Sock on Werkzeug's threaded server; a shout is a loop over the open sockets."""

import json
import logging
import sys
import threading

from flask import Flask
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server
from werkzeug.serving import make_server

app = Flask(__name__)
sock = Sock(app)
clients: set[Server] = set()  # guarded by: lock
lock = threading.Lock()


def encode(message_type: str, data: object) -> str:
    return json.dumps({"type": message_type, "data": data})


def shout(data: object) -> None:
    text = encode("broadcast", data)
    with lock:
        everybody = list(clients)
    for client in everybody:
        try:
            client.send(text)
        except (ConnectionClosed, OSError):
            continue  # it has just left


@sock.route("/")
def handler(client: Server) -> None:
    with lock:
        clients.add(client)
    try:
        while True:
            message = json.loads(client.receive())
            if message["type"] == "echo":
                client.send(encode("response", message["data"]))
            elif message["type"] == "shout":
                shout(message["data"])
    finally:
        with lock:
            clients.discard(client)


logging.getLogger("werkzeug").setLevel(logging.ERROR)
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
