// The ws package of Node.js; a shout is a loop over the open sockets.
"use strict";
const { WebSocketServer, WebSocket } = require("ws");

const encode = (type, data) => JSON.stringify({ type, data });
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]) });

server.on("connection", (client) => {
  client.on("error", () => {});
  client.on("message", (text) => {
    const message = JSON.parse(text);
    if (message.type === "echo") {
      client.send(encode("response", message.data));
    } else if (message.type === "shout") {
      const out = encode("broadcast", message.data);
      for (const other of server.clients) {
        if (other.readyState === WebSocket.OPEN) other.send(out);
      }
    }
  });
});
