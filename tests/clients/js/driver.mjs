// A client that does what it is told on standard input, and tells what happens: see
// ``tests/clients/test_js_conformance.py``.
//
//     node driver.mjs [FOLDER WITH ws]

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { Daebus, DaebusError } from "../../../src/daebus/browser/client.js";

const folder = process.argv[2];
const WebSocket = folder ? createRequire(`${folder}/`)("ws") : globalThis.WebSocket;
console.error = console.warn = () => {}; // what a page's console would show
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const note = (kind, fields) => tell({ event: { kind, ...fields } });
const aborts = new Map();
const topics = new Map();
let daebus;
let asked = 0;

const methods = {
  connect({ url, tokens, timeout, heartbeat, heartbeat_timeout, min_delay, jitter, reset_after }) {
    if (jitter !== null) Math.random = () => jitter;
    if (reset_after !== 5) {
      const real = performance.now.bind(performance);
      globalThis.performance.now = () => (real() * 5) / reset_after;
    }
    daebus = new Daebus(url, {
      WebSocket,
      token: tokens && (() => tokens[asked++]),
      timeout: timeout * 1000,
      heartbeat: heartbeat * 1000,
      heartbeatTimeout: heartbeat_timeout * 1000,
      minDelay: min_delay * 1000,
    });
    note("status", { status: daebus.status });
    daebus.onstatus = (event) => note("status", event);
  },

  request({ number, type, data, timeout, repeat }) {
    const abort = new AbortController();
    aborts.set(number, abort);
    const onProgress = (progress) => note("progress", { data: progress });
    const options = { timeout: timeout * 1000, repeat, signal: abort.signal, onProgress };
    daebus.request(type, data ?? undefined, options).then(
      (answer) => note(`outcome ${number}`, { outcome: { data: answer } }),
      (error) => {
        const { code, sent } = error;
        const outcome =
          error instanceof DaebusError ? { error: code, sent } : { error: "cancelled" };
        note(`outcome ${number}`, { outcome });
      },
    );
  },

  cancel: ({ number }) => aborts.get(number).abort(),
  send: ({ type, data }) => daebus.send(type, data ?? undefined),
  on: ({ type }) => void daebus.on(type, (data) => note("message", { type, data })),

  handle({ type, answer, error }) {
    daebus.handle(type, () => {
      if (error) throw new DaebusError("not like this", error);
      return answer;
    });
  },

  topic({ name, last, since }) {
    const topic = daebus.topic(name, { last: last ?? undefined, since });
    topics.set(name, topic);
    topic.onmessage = (data, { type, offset }) =>
      note("publication", { topic: name, type, data, offset });
    topic.ongap = ({ reason, missed }) => note("gap", { topic: name, reason, missed });
  },

  state: ({ name }) => void topics.set(name, daebus.state(name)),
  leave_topic: ({ name }) => topics.get(name).close(),
  position: ({ name }) => topics.get(name).position,
  values: ({ name }) => topics.get(name).values,
  tokens_asked: () => asked,
  close: () => daebus.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { method, ...options } = JSON.parse(line);
  try {
    tell({ result: methods[method](options) ?? null });
  } catch (error) {
    tell({ failed: error.stack });
  }
}
process.exit();
