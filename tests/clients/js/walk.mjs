// A random walk of the client through a world of fakes: whatever happens, in whatever order, what
// it promises holds. Prints one line of JSON.
//
//     node walk.mjs SEED STEPS

import assert from "node:assert/strict";
import { Daebus } from "../../../src/daebus/browser/client.js";
import { World } from "./fakes.mjs";

const [seed, steps] = process.argv.slice(2).map(Number);

/** A generator of numbers from 0 to 1 that a seed repeats (mulberry32). */
function randomFrom(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const random = randomFrom(seed);
const below = (count) => Math.floor(random() * count);
const choose = (values) => values[below(values.length)];

const CODES = [1000, 1001, 1005, 1006, 1008, 1011, 1012, 1013, 3000, 4000, 4401, 4403, 4500, 4900];
const FINAL = [1000, 1008, 4000, 4403];
const CHECKS = [204, 400, 401, 403, 404, 421, 426, 429, 500, 503];
const OVER = ["refused", "closed"];
const PROBE = 2000;

const world = new World();
Math.random = random;
const requests = []; // each with its outcomes, and on which sockets it was sent
const received = []; // offsets of the topic, as the page was told
const counts = {};
let top = 0; // of the topic, on the server
let closed = false;
let asked = 0; // tokens
let wakes = 0; // events after which it may come at once
let daebus;
let topic;
let made = 0; // requests

function begin() {
  closed = false;
  wakes++;
  daebus = new Daebus("/", { token: async () => `t${++asked}`, minDelay: 100 });
  daebus.onstatus = ({ status }) => {
    counts[status] = (counts[status] ?? 0) + 1;
    if (random() < 0.01) finish();
  };
  daebus.on("*", () => random() < 0.002 && finish());
  topic = daebus.topic("log", {
    since: { epoch: "e", offset: top },
    onmessage: (data) => received.push(data),
  });
  received.length = 0;
  received.push(top);
}

function finish() {
  daebus.close();
  closed = true;
  assert.equal(daebus.status, "closed");
}

/** The newest socket, if the client has not let go of it. */
const current = () => (world.socket && world.socket.closedWith === null ? world.socket : null);

function publish() {
  const socket = current();
  if (!socket || socket.readyState !== 1) return;
  // The server sends what is missing up to its top, once it was asked.
  const wish = socket.last("subscribe");
  if (!wish) return;
  if (socket.at === undefined) {
    const { offset } = wish.data.since;
    assert.equal(offset, received.at(-1), "the position is what the page was told");
    socket.at = offset;
    const data = { topic: "log", kind: "history", epoch: "e", offset: top, recovered: true };
    socket.deliver({
      type: "response",
      id: wish.id,
      data: { ...data, reason: null, replay: top - offset, missed: 0 },
    });
  }
  while (socket.at < top && random() < 0.8) {
    socket.at++;
    socket.deliver({ type: "line", topic: "log", offset: socket.at, data: socket.at });
  }
}

function request() {
  const record = {
    outcomes: 0,
    repeat: random() < 0.3,
    type: `r${++made}`,
    deadline: world.time + 500,
  };
  const abort = new AbortController();
  record.abort = abort;
  const settle = (error) => {
    record.outcomes++;
    record.error = error;
  };
  const options = { timeout: 500, repeat: record.repeat, signal: abort.signal };
  daebus.request(record.type, {}, options).then(() => settle(), settle);
  requests.push(record);
}

const ACTIONS = {
  pass: [30, () => world.pass(choose([1, 10, 100, 400, 2000, 6000, 26_000]))],
  sleep: [
    2,
    () => {
      world.sleep(choose([1000, 60_000]));
      return world.pass(0); // the timers are late
    },
  ],
  open: [20, () => current()?.readyState === 0 && current().open()],
  end: [8, () => current() && current().end(choose(CODES), "why")],
  fail: [6, () => current() && current().fail()],
  heartbeat: [10, () => current()?.readyState === 1 && current().deliver({ type: "heartbeat" })],
  junk: [
    2,
    () =>
      current()?.deliver(
        choose(["{", "[]", '{"type":"error","id":1e9}', '{"type":"ask","id":"q"}']),
      ),
  ],
  goodbye: [3, () => current()?.deliver({ type: "goodbye", data: { retry_after: random() * 3 } })],
  publish: [12, () => ((top += below(3)), publish())],
  check: [
    20,
    () => {
      const check = world.checks.at(-1);
      if (check && random() < 0.8) {
        const headers = random() < 0.3 ? { "Retry-After": String(below(4)) } : {};
        check.answer(random() < 0.5 ? 503 : choose(CHECKS), { code: "c" }, headers);
      } else check?.fail();
    },
  ],
  zombie: [
    6,
    () => {
      const old = world.sockets.length > 1 ? world.sockets[below(world.sockets.length - 1)] : null;
      if (old)
        choose([
          () => old.open(),
          () => old.end(choose(CODES)),
          () => old.fail(),
          () => old.deliver({ type: "line", topic: "log", offset: top + 99, data: -1 }),
        ])();
    },
  ],
  show: [5, () => (wakes++, world.show(true))],
  hide: [3, () => world.show(false)],
  online: [2, () => (wakes++, world.happen("online"))],
  offline: [1, () => world.happen("offline")],
  bfcache: [
    1,
    async () => {
      wakes++;
      await world.happen("pagehide", { persisted: true });
      await world.happen("pageshow", { persisted: true });
    },
  ],
  request: [15, request],
  abort: [3, () => requests.length && requests[below(requests.length)].abort.abort()],
  answer: [
    12,
    () => {
      const socket = current();
      const asking = socket?.sent.filter(({ id, type }) => id && /^r\d/.test(type));
      if (asking?.length && socket.readyState === 1) {
        const { id } = choose(asking);
        socket.deliver({
          type: choose(["response", "error", "progress"]),
          id,
          data: { code: "c" },
        });
      }
    },
  ],
  send: [4, () => daebus.send("move", 1, { queue: random() < 0.5 })],
  connect: [
    1,
    () => {
      if (daebus.status !== "closed") {
        wakes++;
        daebus.connect();
      }
    },
  ],
  close: [0.3, finish],
};

const bag = Object.entries(ACTIONS).flatMap(([name, [weight]]) =>
  Array(Math.round(weight * 10)).fill(name),
);

function check(action, before) {
  // One socket at a time: all others were let go.
  const live = world.sockets.filter(
    ({ closedWith, readyState }) => closedWith === null && readyState < 2,
  );
  assert.ok(live.length <= 1, "two sockets at once");
  if (live.length) assert.equal(live[0], world.socket);
  // One timer at a time, besides those of requests.
  const waiting = requests.filter(({ outcomes }) => !outcomes).length;
  assert.ok(world.timers.size <= waiting + 1, `${world.timers.size} timers, ${waiting} requests`);
  // Nothing after the end.
  if (OVER.includes(daebus.status)) {
    assert.equal(live.length, 0, `a socket although ${daebus.status}`);
    assert.equal(world.timers.size, 0);
    assert.equal(waiting, 0);
    assert.equal(world.listening, 0);
  }
  if (closed) assert.equal(daebus.status, "closed");
  assert.equal(
    daebus.status === "open",
    live.length > 0 && live[0].readyState === 1,
    daebus.status,
  );
  if (daebus.status === "waiting") assert.ok(world.timers.size >= 1, "waits for nothing");
  if (daebus.status === "connecting") assert.ok(world.timers.size >= 1, "hangs for ever");
  // No more attempts than there were reasons: a socket for each pause, event or new token.
  const pauses = (counts.waiting ?? 0) + wakes + asked;
  assert.ok(world.sockets.length <= pauses, `${world.sockets.length} attempts, ${pauses} reasons`);
  // Requests end once, and in time; none is sent twice unless it may be.
  for (const one of requests.splice(0)) {
    assert.ok(one.outcomes <= 1);
    if (one.outcomes) {
      const times = world.sockets.flatMap((socket) => socket.all(one.type)).length;
      assert.ok(one.repeat || times <= 1, `${one.type} was sent ${times} times`);
      if (one.error?.code === "disconnected" || one.error?.code === "timeout") {
        assert.equal(one.error.sent, times > 0, `${one.type} ${one.error.code} ${times}`);
      }
    } else {
      assert.ok(world.time <= one.deadline + 60_000, "a request that never ends");
      requests.push(one);
    }
  }
  // The topic: each message once, in order, none left out.
  for (const [index, offset] of received.entries()) {
    if (index) assert.equal(offset, received[index - 1] + 1);
  }
  received.splice(0, received.length - 1);
}

begin();
const trail = [];
let step = 0;
try {
  for (; step < steps; step++) {
    if (OVER.includes(daebus.status) && random() < 0.3) {
      daebus.close();
      await world.settle();
      world.sockets.splice(0);
      world.checks.splice(0);
      Object.assign(counts, { waiting: 0 });
      wakes = asked = 0;
      begin();
    }
    const name = choose(bag);
    trail.push(name);
    if (trail.length > 40) trail.shift();
    await ACTIONS[name][1]();
    await world.settle();
    check(name);
    if (world.sockets.length > 60) {
      // Keep the walk quick: forget those that were let go long ago.
      const gone = world.sockets.splice(0, 40);
      counts.waiting -= gone.length;
    }
  }
  const unexpected = world.reported.filter(
    (error) => !(error instanceof SyntaxError) && !Array.isArray(error),
  );
  assert.deepEqual(unexpected, []);
  console.log(JSON.stringify({ steps, counts, error: null }));
} catch (error) {
  console.log(JSON.stringify({ step, trail, status: daebus.status, error: error.stack }));
}
