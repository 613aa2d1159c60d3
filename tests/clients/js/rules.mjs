// Each rule of the client by its name, in a world that stands still unless told to move.
// Prints a line of JSON for each test.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Daebus, DaebusError } from "../../../src/daebus/browser/client.js";
import { World, watch } from "./fakes.mjs";

const FILE = new URL("../../../src/daebus/browser/client.js", import.meta.url);

const tests = [];
const test = (name, body) => tests.push([name, body]);

/** A client that is open. */
async function opened(world, options, url = "/") {
  const daebus = new Daebus(url, options);
  const statuses = [];
  daebus.onstatus = (event) => statuses.push(event);
  await world.settle();
  world.socket.open();
  return { daebus, statuses, socket: world.socket };
}

const names = (statuses) => statuses.map(({ status }) => status);

// --- addresses

test("addresses are http, https, ws, wss or relative", (world) => {
  const urls = ["/", "live?room=4#top", "http://h:81/a", "https://h", "ws://h/", "wss://h:444/b"];
  for (const url of urls) new Daebus(url).close();
  assert.deepEqual(
    world.sockets.map(({ url }) => url),
    ["ws://x/", "ws://x/live?room=4", "ws://h:81/a", "wss://h/", "ws://h/", "wss://h:444/b"],
  );
  assert.throws(() => new Daebus("ftp://h/"), /write http, https, ws or wss/);
  assert.throws(() => new Daebus("http://:/"), TypeError);
});

test("the check is asked about the path of the WebSocket", async (world) => {
  world.check = [204];
  new Daebus("wss://h:444/live?room=4").close();
  const daebus = new Daebus("wss://h:444/live?room=4");
  world.socket.fail();
  await world.settle();
  assert.equal(world.checks[0].url, "https://h:444/_daebus/check?path=%2Flive%3Froom%3D4");
  daebus.close();
  new Daebus("http://h/");
  world.socket.fail();
  assert.equal(world.checks[1].url, "http://h/_daebus/check");
});

const nothing = [404, "<html>"];
const unknown = [404, { code: "not_found" }];
for (const [name, answers, expected] of [
  ["behind a proxy the app is asked", [[401, { code: "c" }]], ["refused", 401]],
  ["behind a proxy the app may say 204", [[204]], ["waiting", 1006]],
  ["without one its root is asked next", [unknown, [403, { code: "c" }]], ["refused", 403]],
  ["a page in that place is no answer", [[200, "<html>"], [401, { code: "c" }]], ["refused", 401]],
  ["no such path in either place is final", [unknown, unknown], ["refused", 404]],
  ["nothing of the app in either place is not", [nothing, nothing], ["waiting", 1006]],
  ["a proxy without its app is not", [[502, "<html>"]], ["waiting", 502]],
]) {
  test(`a check below a path: ${name}`, async (world) => {
    const daebus = new Daebus("/app/live?a=1");
    const statuses = [];
    daebus.onstatus = (event) => statuses.push(event);
    world.socket.fail();
    for (const [index, answer] of answers.entries()) {
      assert.equal(daebus.status, "connecting");
      world.checks[index].answer(...answer);
      await world.settle();
    }
    assert.deepEqual(
      world.checks.map(({ url }) => url),
      [
        "http://x/app/_daebus/check?path=%2Flive%3Fa%3D1",
        "http://x/_daebus/check?path=%2Fapp%2Flive%3Fa%3D1",
      ].slice(0, answers.length),
    );
    assert.deepEqual([statuses.at(-1).status, statuses.at(-1).code], expected);
  });
}

test("a proxy's 404 for the check is no refusal", async (world) => {
  world.check = nothing;
  const daebus = new Daebus();
  world.socket.fail();
  await world.settle();
  assert.equal(daebus.status, "waiting");
});

// --- requests

test("a request resolves with the answer to its id", async (world) => {
  const { daebus, socket } = await opened(world);
  const one = watch(daebus.request("greet", { name: "Ada" }));
  const two = watch(daebus.request("count"));
  const [greet, count] = socket.sent;
  assert.deepEqual(greet.data, { name: "Ada" });
  assert.ok(!("data" in count));
  socket.deliver({ type: "response", id: count.id, data: [1] });
  socket.deliver({ type: "response", id: greet.id, data: "hello" });
  await world.settle();
  assert.deepEqual([one.value, two.value], ["hello", [1]]);
});

test("an error of the server rejects with its code, text and data", async (world) => {
  const { daebus, socket } = await opened(world);
  const request = watch(daebus.request("greet"));
  const data = { error: "too fast", code: "rate_limited", retry_after: 3 };
  socket.deliver({ type: "error", id: socket.last().id, data });
  await world.settle();
  assert.ok(request.value instanceof DaebusError);
  const { code, message, data: told } = request.value;
  assert.deepEqual([code, message, told.retry_after], ["rate_limited", "too fast", 3]);
});

test("a request waits for open within its own timeout", async (world) => {
  const daebus = new Daebus();
  const late = watch(daebus.request("a", 1, { timeout: 100 }));
  const request = watch(daebus.request("b", 2, { timeout: 5000 }));
  await world.pass(200);
  assert.deepEqual([late.value.code, late.value.sent], ["timeout", false]);
  world.socket.open();
  assert.deepEqual(
    world.socket.sent.map(({ type }) => type),
    ["b"],
  );
  await world.pass(4900);
  assert.deepEqual([request.value.code, request.value.sent], ["timeout", true]);
  assert.deepEqual(world.socket.last(), { type: "cancel", id: world.socket.sent[0].id });
});

test("a request without a timeout of its own has that of the client", async (world) => {
  const { daebus } = await opened(world, { timeout: 50 });
  const request = watch(daebus.request("a"));
  const patient = watch(daebus.request("a", null, { timeout: Infinity }));
  await world.pass(60);
  assert.equal(request.value.code, "timeout");
  await world.pass(20_000);
  assert.equal(patient.value, "pending");
});

test("a late answer hurts nobody", async (world) => {
  const { daebus, socket } = await opened(world);
  const all = [];
  daebus.on("*", (data, message) => all.push(message));
  const request = watch(daebus.request("a", 1, { timeout: 10 }));
  await world.pass(20);
  socket.answer("late", "a");
  await world.settle();
  assert.equal(request.value.code, "timeout");
  assert.deepEqual([all, world.reported], [[], []]);
});

test("a request that was sent and cut rejects with sent: true and is not repeated", async (world) => {
  const { daebus, socket } = await opened(world);
  const request = watch(daebus.request("pay"));
  socket.end(1006);
  await world.settle();
  assert.ok(request.value instanceof DaebusError);
  assert.deepEqual([request.value.code, request.value.sent], ["disconnected", true]);
  await world.pass(600);
  world.socket.open();
  assert.deepEqual(world.socket.sent, []);
});

test("a request is repeated if the caller says so", async (world) => {
  const { daebus, socket } = await opened(world);
  const request = watch(daebus.request("read", 1, { repeat: true }));
  socket.end(1006);
  await world.pass(600);
  assert.notEqual(world.socket, socket);
  world.socket.open();
  assert.equal(world.socket.sent.length, 1);
  world.socket.answer(21);
  await world.settle();
  assert.equal(request.value, 21);
  world.socket.end(1006);
  await world.pass(1200);
  world.socket.open();
  assert.deepEqual(world.socket.sent, []);
});

test("an AbortSignal sends cancel and rejects with AbortError", async (world) => {
  const { daebus, socket } = await opened(world);
  const abort = new AbortController();
  const request = watch(daebus.request("work", 1, { signal: abort.signal }));
  abort.abort();
  await world.settle();
  assert.equal(request.value.name, "AbortError");
  assert.deepEqual(socket.last(), { type: "cancel", id: socket.sent[0].id });
  const before = watch(daebus.request("work", 1, { signal: abort.signal }));
  await world.settle();
  assert.equal(before.value.name, "AbortError");
  assert.equal(socket.sent.length, 2);
});

test("a request that was not sent is aborted without a word", async (world) => {
  const daebus = new Daebus();
  const abort = new AbortController();
  const request = watch(daebus.request("work", 1, { signal: abort.signal }));
  abort.abort(new Error("mine"));
  world.socket.open();
  await world.settle();
  assert.equal(request.value.message, "mine");
  assert.deepEqual(world.socket.sent, []);
});

test("progress is told and does not end a request", async (world) => {
  const { daebus, socket } = await opened(world);
  const seen = [];
  const request = watch(daebus.request("work", 1, { onProgress: (data) => seen.push(data) }));
  socket.deliver({ type: "progress", id: socket.last().id, data: { percent: 50 } });
  await world.settle();
  assert.deepEqual([seen, request.value], [[{ percent: 50 }], "pending"]);
});

test("further answers of a generator go to onItem until it is aborted", async (world) => {
  const { daebus, socket } = await opened(world);
  const seen = [];
  const abort = new AbortController();
  const onItem = (data) => seen.push(data);
  const request = watch(daebus.request("count", 3, { onItem, signal: abort.signal }));
  for (const item of [1, 2, 3]) socket.answer(item, "count");
  await world.settle();
  assert.deepEqual([request.value, seen], [1, [2, 3]]);
  await world.pass(20_000);
  socket.answer(4, "count");
  assert.deepEqual(seen, [2, 3, 4]);
  abort.abort();
  assert.equal(socket.last().type, "cancel");
  socket.answer(5, "count");
  assert.deepEqual(seen, [2, 3, 4]);
  const plain = watch(daebus.request("count", 3));
  socket.answer(1, "count");
  socket.answer(2, "count");
  await world.settle();
  assert.equal(plain.value, 1);
});

test("data that is no JSON rejects the request and throws from send", async (world) => {
  const { daebus, socket } = await opened(world);
  const request = watch(daebus.request("a", 1n));
  await world.settle();
  assert.ok(request.value instanceof TypeError);
  assert.throws(() => daebus.send("a", 1n), TypeError);
  assert.deepEqual(socket.sent, []);
});

// --- sends

test("send is false when not open and nothing is queued", async (world) => {
  const daebus = new Daebus();
  assert.equal(daebus.send("move", 1), false);
  world.socket.open();
  assert.deepEqual(world.socket.sent, []);
  assert.equal(daebus.send("move", { x: 2 }), true);
  assert.deepEqual(world.socket.sent, [{ type: "move", data: { x: 2 } }]);
  world.socket.readyState = 2; // the browser has begun to close
  assert.equal(daebus.send("move", 3), false);
});

test("a queue keeps a hundred in order and nothing after the end", async (world) => {
  const daebus = new Daebus();
  for (let n = 0; n < 100; n++) assert.equal(daebus.send("move", n, { queue: true }), true);
  assert.equal(daebus.send("move", 100, { queue: true }), false);
  world.socket.open();
  assert.deepEqual(
    world.socket.sent.map(({ data }) => data),
    [...Array(100).keys()],
  );
  world.socket.end(1006);
  await world.pass(600);
  world.socket.open();
  assert.deepEqual(world.socket.sent, []);
  world.socket.end(1006);
  daebus.send("move", 1, { queue: true });
  daebus.close();
  assert.equal(daebus.send("move", 1, { queue: true }), false);
  daebus.connect();
  world.socket.open();
  assert.deepEqual(world.socket.sent, []);
});

// --- messages

test("on gets messages of its type, * all of them, and ends", async (world) => {
  const { daebus, socket } = await opened(world);
  const seen = [];
  const off = daebus.on("reading", (data, message) => seen.push([data, message.type]));
  daebus.on("*", (data, { type }) => seen.push(["*", type]));
  socket.deliver({ type: "reading", data: 1 });
  socket.deliver({ type: "other" });
  off();
  socket.deliver({ type: "reading", data: 2 });
  const star = ["*", "reading"];
  assert.deepEqual(seen, [[1, "reading"], star, ["*", "other"], star]);
});

test("junk and a listener that throws hurt nobody", async (world) => {
  const { daebus, socket } = await opened(world);
  const seen = [];
  daebus.on("reading", () => {
    throw new Error("mine");
  });
  daebus.on("reading", (data) => seen.push(data));
  for (const junk of ["no json {", "[1]", "null", "7", '{"type":7}', '{"type":"gap"}']) {
    socket.deliver(junk);
  }
  socket.deliver({ type: "response", id: 4711, data: 1 });
  socket.onmessage({ data: new ArrayBuffer(2) });
  socket.deliver({ type: "reading", data: 1 });
  assert.deepEqual(seen, [1]);
  assert.equal(daebus.status, "open");
  assert.ok(world.reported.some((error) => error.message === "mine"));
});

test("an error that nobody listens for is said in the console", async (world) => {
  const { daebus, socket } = await opened(world);
  const error = { type: "error", data: { error: "unknown message type 'mvoe'" } };
  socket.deliver(error);
  assert.match(world.reported[0][0], /mvoe/);
  daebus.on("error", () => {});
  socket.deliver(error);
  assert.equal(world.reported.length, 1);
});

test("handle answers call() with its id", async (world) => {
  const { daebus, socket } = await opened(world);
  daebus.handle("confirm", async (data) => ({ sure: data }));
  daebus.handle("nothing", () => {});
  daebus.handle("later", () => {
    throw new DaebusError("not now", "not_now");
  });
  daebus.handle("broken", () => {
    throw new Error("a bug");
  });
  assert.throws(() => daebus.handle("confirm", () => 1), /has a handler already/);
  for (const type of ["confirm", "nothing", "later", "broken", "missing"]) {
    socket.deliver({ type, id: `q-${type}`, data: "?" });
    await world.settle();
  }
  assert.deepEqual(socket.sent.slice(0, 4), [
    { type: "response", id: "q-confirm", data: { sure: "?" } },
    { type: "response", id: "q-nothing", data: null },
    { type: "error", id: "q-later", data: { error: "not now", code: "not_now" } },
    { type: "error", id: "q-broken", data: { error: "the handler failed", code: "handler_error" } },
  ]);
  assert.equal(socket.sent[4].data.code, "unknown_type");
  assert.deepEqual(
    world.reported.map(({ message }) => message),
    ["a bug"],
  );
});

test("an answer is not sent over another connection", async (world) => {
  const { daebus, socket } = await opened(world);
  let finish;
  daebus.handle("confirm", () => new Promise((resolve) => (finish = resolve)));
  socket.deliver({ type: "confirm", id: "q" });
  socket.end(1006);
  await world.pass(600);
  world.socket.open();
  finish(true);
  await world.settle();
  assert.deepEqual([socket.sent, world.socket.sent], [[], []]);
});

// --- reconnecting

for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 3000, 4500, 4900]) {
  test(`close code ${code} is followed by another attempt`, async (world) => {
    const { statuses, socket } = await opened(world);
    socket.end(code, "why");
    assert.deepEqual(statuses.at(-1), { status: "waiting", code, reason: "why", retryIn: 500 });
    await world.pass(499);
    assert.equal(world.sockets.length, 1);
    await world.pass(2);
    assert.equal(world.sockets.length, 2);
    assert.deepEqual(names(statuses), ["open", "waiting", "connecting"]);
  });
}

for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4000, 4400, 4401, 4408, 4409, 4499]) {
  test(`close code ${code} is final`, async (world) => {
    const { daebus, statuses, socket } = await opened(world);
    const request = watch(daebus.request("a"));
    socket.end(code, "why");
    await world.pass(100_000);
    assert.deepEqual(statuses.at(-1), { status: "refused", code, reason: "why" });
    assert.deepEqual([world.sockets.length, world.timers.size, world.listening], [1, 0, 0]);
    assert.equal(request.value.code, "disconnected");
    const later = watch(daebus.request("a"));
    await world.settle();
    assert.deepEqual([later.value.code, later.value.sent], ["disconnected", false]);
  });
}

for (const status of [400, 401, 403, 404, 421, 426]) {
  test(`a check that says ${status} is final`, async (world) => {
    world.check = [status, { error: "no way", code: "no" }];
    const daebus = new Daebus();
    const statuses = [];
    daebus.onstatus = (event) => statuses.push(event);
    world.socket.fail();
    await world.pass(100_000);
    assert.deepEqual(statuses, [{ status: "refused", code: status, reason: "no", text: "no way" }]);
    assert.deepEqual([world.sockets.length, world.checks.length, world.timers.size], [1, 1, 0]);
  });
}

for (const body of ["null", "7", "[]", '"no"', "true", "", '{"code":null}']) {
  test(`a check that says 403 with ${body || "nothing"} is final`, async (world) => {
    world.check = [403, body];
    const daebus = new Daebus();
    let last;
    daebus.onstatus = (event) => (last = event);
    world.socket.fail();
    await world.pass(10_000);
    assert.deepEqual([last.status, last.code, last.reason ?? ""], ["refused", 403, ""]);
  });
}

for (const status of [429, 500, 502, 503]) {
  test(`a check that says ${status} is tried again, after Retry-After`, async (world) => {
    world.check = [status, "<html>", { "Retry-After": "7" }];
    const daebus = new Daebus();
    world.socket.end(1006);
    await world.settle();
    assert.equal(daebus.status, "waiting");
    await world.pass(6990);
    assert.equal(world.sockets.length, 1);
    await world.pass(20);
    assert.equal(world.sockets.length, 2);
  });
}

for (const [name, header] of [
  ["a date", "Wed, 21 Oct 2037 07:28:00 GMT"],
  ["negative", "-5"],
  ["0", "0"],
  ["0.001", "0.001"],
]) {
  test(`a Retry-After that is ${name} does not replace the back-off`, async (world) => {
    world.check = [503, {}, { "Retry-After": header }];
    new Daebus();
    world.socket.end();
    await world.pass(499);
    assert.equal(world.sockets.length, 1);
    await world.pass(2);
    assert.equal(world.sockets.length, 2);
  });
}

test("a check that says 204, or nothing, leads to another attempt", async (world) => {
  const daebus = new Daebus();
  const statuses = [];
  daebus.onstatus = (event) => statuses.push(event);
  world.socket.end(1006);
  assert.equal(daebus.status, "connecting");
  world.checks[0].answer(204);
  await world.settle();
  assert.deepEqual(statuses, [{ status: "waiting", code: 1006, reason: "", retryIn: 500 }]);
  await world.pass(501);
  world.socket.end(1006);
  world.checks[1].fail();
  await world.settle();
  assert.equal(daebus.status, "waiting");
  await world.pass(1001);
  world.socket.end(1006);
  await world.pass(10_001); // the check hangs
  assert.equal(daebus.status, "waiting");
  assert.equal(world.checks[2].options.signal.aborted, true);
});

test("shouldRetry overrides either way", async (world) => {
  const asked = [];
  const shouldRetry = (ending) => {
    asked.push(ending.code);
    return { 4403: true, 1001: false, 1012: undefined }[ending.code];
  };
  const { daebus, socket } = await opened(world, { shouldRetry });
  socket.end(4403);
  assert.equal(daebus.status, "waiting");
  await world.pass(600);
  world.socket.open();
  world.socket.end(1012);
  assert.equal(daebus.status, "waiting");
  await world.pass(1100);
  world.socket.open();
  world.socket.end(1001);
  assert.equal(daebus.status, "refused");
  assert.deepEqual(asked, [4403, 1012, 1001]);
});

test("the delay is random between nothing and the back-off, which grows to maxDelay", async (world) => {
  const { statuses } = await opened(world, { minDelay: 100, maxDelay: 1000 });
  world.check = "fail";
  world.socket.end(1011);
  for (const jitter of [1, 1, 0.5, 1, 1, 0.25]) {
    world.jitter = jitter;
    await world.pass(1001);
    world.socket.end(1006);
    await world.settle();
  }
  const delays = statuses
    .filter(({ status }) => status === "waiting")
    .map(({ retryIn }) => retryIn);
  assert.deepEqual(delays, [100, 200, 400, 400, 1000, 1000, 250]);
});

test("the back-off begins anew after 5 s open only", async (world) => {
  const { statuses } = await opened(world, { minDelay: 100 });
  const delay = () => statuses.findLast(({ status }) => status === "waiting").retryIn;
  for (const [lasts, expected] of [
    [0, 100],
    [4900, 200],
    [4999, 400],
    [5000, 100],
    [10, 200],
  ]) {
    await world.pass(lasts);
    world.socket.end(1011);
    assert.equal(delay(), expected);
    await world.pass(expected + 1);
    world.socket.open();
  }
});

test("retry_after of a goodbye wins over the back-off, once", async (world) => {
  const { daebus, socket, statuses } = await opened(world);
  const request = watch(daebus.request("work"));
  socket.deliver({ type: "goodbye", data: { retry_after: 3.7, reason: "shutdown" } });
  assert.equal(daebus.status, "open");
  socket.answer("done", "work");
  socket.end(1012);
  await world.settle();
  assert.deepEqual([statuses.at(-1).retryIn, request.value], [3700, "done"]);
  await world.pass(3701);
  world.check = "fail";
  world.socket.end(1006);
  await world.settle();
  assert.equal(statuses.at(-1).retryIn, 1000);
});

for (const [told, expected] of [
  ["0", 500],
  ["0.001", 500],
  ["-5", 500],
  ["null", 500],
  ['"soon"', 500],
  ["{}", 500],
  ["99999999999", 3_600_000],
  ["1e999", 3_600_000],
]) {
  test(`a goodbye with retry_after ${told} leads to a pause of ${expected} ms`, async (world) => {
    const { statuses, socket } = await opened(world);
    socket.deliver(`{"type":"goodbye","data":{"retry_after":${told}}}`);
    socket.end(1012);
    assert.equal(statuses.at(-1).retryIn, expected);
  });
}

test("what a goodbye says hurries the first attempt alone", async (world) => {
  const { statuses, socket } = await opened(world, { minDelay: 10_000 });
  for (const [next, expected] of [
    [() => socket, 200],
    [() => world.socket, 20_000],
  ]) {
    if (next() !== socket) next().open();
    next().deliver({ type: "goodbye", data: { retry_after: 0.2 } });
    next().end(1012);
    assert.equal(statuses.at(-1).retryIn, expected);
    await world.pass(expected + 1);
  }
});

test("a server that always says goodbye is asked ever more seldom", async (world) => {
  const { socket } = await opened(world);
  for (let next = socket; world.time < 4000; next = world.socket) {
    next.open();
    next.deliver({ type: "goodbye", data: { retry_after: 0 } });
    next.end(1012);
    await world.pass(250);
    while (world.socket === next && world.time < 4000) await world.pass(250);
  }
  assert.ok(world.sockets.length <= 4, `${world.sockets.length} connections`);
});

test("a server that accepts and hangs is given up by its own timeout", async (world) => {
  const { daebus } = { daebus: new Daebus("/", { timeout: 400 }) };
  const first = world.socket;
  world.check = "fail";
  await world.pass(401);
  assert.equal(daebus.status, "waiting");
  assert.equal(first.readyState, 2); // let go
  await world.pass(501);
  world.socket.open();
  first.open();
  first.deliver({ type: "goodbye", data: { retry_after: 99 } });
  first.end(1000);
  assert.equal(daebus.status, "open");
});

test("a WebSocket without onclose is seen by its onerror", async (world) => {
  const { daebus, socket } = await opened(world);
  socket.fail();
  assert.equal(daebus.status, "waiting");
});

test("a WebSocket that the browser does not allow is refused", async (world) => {
  world.onsocket = () => {
    throw new DOMException("mixed content", "SecurityError");
  };
  const daebus = new Daebus();
  await world.pass(60_000);
  assert.deepEqual([daebus.status, world.sockets.length], ["refused", 1]);
});

test("connect() tries at once, and again after a refusal", async (world) => {
  const { daebus, socket } = await opened(world, { minDelay: 5000 });
  daebus.connect();
  assert.equal(world.sockets.length, 1);
  socket.end(1011);
  daebus.connect();
  assert.deepEqual([world.sockets.length, daebus.status], [2, "connecting"]);
  world.socket.open();
  world.socket.end(4403);
  assert.equal(daebus.status, "refused");
  daebus.connect();
  world.socket.open();
  assert.equal(daebus.status, "open");
  assert.ok(world.listening > 0);
});

// --- the end

for (const phase of ["connecting", "checking", "open", "waiting", "paused", "probing"]) {
  test(`after close() while ${phase} nothing reconnects`, async (world) => {
    const daebus = new Daebus();
    if (phase === "checking") world.socket.end(1006);
    if (["open", "waiting", "paused", "probing"].includes(phase)) world.socket.open();
    if (phase === "paused") await world.show(false);
    if (["waiting", "paused"].includes(phase)) world.socket.end(1011);
    if (phase === "probing") await world.happen("online");
    const request = watch(daebus.request("a"));
    const sockets = world.sockets.length;
    daebus.close();
    daebus.close();
    assert.equal(daebus.status, "closed");
    await world.show(true);
    for (const type of ["online", "offline", "pageshow"])
      await world.happen(type, { persisted: true });
    for (const check of world.checks) check.answer(204);
    for (const socket of world.sockets) socket.end(1006);
    await world.pass(100_000);
    assert.deepEqual([world.sockets.length, world.timers.size, world.listening], [sockets, 0, 0]);
    assert.equal(request.value.code, "disconnected");
    if (phase === "open") assert.deepEqual(world.socket.closedWith, [1000, ""]);
  });
}

test("close() from within any callback is the end", async (world) => {
  for (const place of ["connecting", "open", "waiting", "message", "shouldRetry"]) {
    const shouldRetry = () => void (place === "shouldRetry" && daebus.close());
    const daebus = new Daebus("/", { shouldRetry });
    let sockets;
    daebus.onstatus = ({ status }) => {
      if (status !== place) return;
      daebus.close();
      sockets = world.sockets.length;
    };
    daebus.on("message", () => place === "message" && daebus.close());
    if (place === "connecting") {
      world.check = "fail";
      world.socket.end();
      await world.pass(501);
    } else {
      world.socket.open();
      world.socket.deliver({ type: "message", id: "q" });
      world.socket.end(1011);
    }
    sockets ??= world.sockets.length;
    await world.pass(100_000);
    assert.deepEqual([place, daebus.status], [place, "closed"]);
    assert.deepEqual([world.sockets.length, world.timers.size], [sockets, 0]);
  }
});

// --- tokens

test("a token goes along as a subprotocol and with the check", async (world) => {
  const daebus = new Daebus("/", { token: "täg~?>", protocols: ["mine"] });
  const [first, second, third] = world.socket.protocols;
  assert.deepEqual([first, second], ["daebus", "mine"]);
  const encoded = third.slice("daebus.token.".length);
  assert.equal(Buffer.from(encoded, "base64url").toString(), "täg~?>");
  assert.match(encoded, /^[\w-]+$/);
  world.socket.end(1006);
  assert.equal(world.checks[0].options.headers.Authorization, "Bearer täg~?>");
  daebus.close();
  new Daebus();
  assert.deepEqual(world.socket.protocols, ["daebus"]);
});

test("token() is asked once, and once more after 401", async (world) => {
  const given = ["old", "new", "newer"];
  let asked = 0;
  world.check = [401, { code: "expired" }];
  const daebus = new Daebus("/", { token: async () => given[asked++] });
  await world.settle();
  world.socket.end(1006);
  await world.settle();
  assert.equal(asked, 2);
  assert.match(world.socket.protocols[1], /bmV3$/); // "new", at once
  world.socket.end(1006);
  await world.pass(60_000);
  assert.deepEqual([asked, daebus.status, world.sockets.length], [2, "refused", 2]);
  daebus.connect(); // somebody has logged in
  await world.settle();
  assert.equal(asked, 3);
});

test("token() is asked once after 4401, and again when that has lasted", async (world) => {
  let asked = 0;
  const { daebus } = await opened(world, { token: () => `t${++asked}` });
  await world.pass(5001);
  for (let n = 2; n < 5; n++) {
    world.socket.end(4401);
    await world.settle();
    assert.equal(asked, n);
    world.socket.open();
    await world.pass(5001);
  }
  world.socket.end(4401);
  await world.settle();
  world.socket.open();
  world.socket.end(4401);
  await world.pass(60_000);
  assert.deepEqual([daebus.status, asked], ["refused", 5]);
});

test("a token that is a string has nothing else to try after 401", async (world) => {
  world.check = [401];
  const daebus = new Daebus("/", { token: "t" });
  world.socket.end(1006);
  await world.settle();
  assert.deepEqual([daebus.status, world.sockets.length], ["refused", 1]);
});

test("token() that fails or hangs is an attempt that failed", async (world) => {
  let asked = 0;
  const daebus = new Daebus("/", {
    token() {
      asked++;
      if (asked === 1) throw new Error("no login");
      return asked === 2 ? new Promise(() => {}) : "t";
    },
  });
  await world.settle();
  assert.deepEqual([daebus.status, world.reported[0].message], ["waiting", "no login"]);
  await world.pass(501);
  assert.equal(daebus.status, "connecting");
  await world.pass(10_001);
  assert.deepEqual([daebus.status, world.checks.length], ["waiting", 0]);
  await world.pass(1001);
  world.socket.open();
  assert.equal(daebus.status, "open");
});

// --- heartbeats

test("a silent server is asked, and left alone if it answers", async (world) => {
  const { daebus, socket } = await opened(world, { heartbeat: 5000 });
  await world.pass(4000);
  socket.deliver({ type: "tick" });
  await world.pass(4900);
  assert.equal(socket.all("heartbeat").length, 0);
  for (let n = 1; n < 5; n++) {
    await world.pass(n === 1 ? 101 : 5001);
    assert.equal(socket.all("heartbeat").length, n);
    socket.deliver({ type: "heartbeat" });
  }
  assert.equal(daebus.status, "open");
});

test("any frame is a sign of life", async (world) => {
  const { daebus, socket } = await opened(world, { heartbeat: 5000, heartbeatTimeout: 3000 });
  for (let n = 0; n < 10; n++) {
    await world.pass(7000);
    socket.onmessage({ data: new ArrayBuffer(1) });
  }
  assert.deepEqual([daebus.status, world.sockets.length], ["open", 1]);
});

test("a frozen server is seen within heartbeat and timeout, and let go with 4900", async (world) => {
  const { daebus, socket, statuses } = await opened(world, {
    heartbeat: 5000,
    heartbeatTimeout: 3000,
  });
  const request = watch(daebus.request("a", 1, { timeout: 60_000 }));
  await world.pass(8001);
  assert.deepEqual(statuses.at(-1).code, 4900);
  assert.deepEqual(socket.closedWith, [4900, "no answer"]);
  assert.deepEqual([request.value.code, request.value.sent], ["disconnected", true]);
  await world.pass(501); // without onclose
  world.socket.open();
  socket.deliver({ type: "goodbye", data: { retry_after: 60 } });
  socket.end(1000);
  assert.equal(daebus.status, "open");
});

test("the defaults are 25 s and 10 s", async (world) => {
  const { daebus, socket } = await opened(world);
  await world.pass(24_999);
  assert.equal(socket.sent.length, 0);
  await world.pass(2);
  assert.equal(socket.sent.length, 1);
  await world.pass(9_990);
  assert.equal(daebus.status, "open");
  await world.pass(20);
  assert.equal(daebus.status, "waiting");
});

test("heartbeat: 0 asks nothing", async (world) => {
  const { socket } = await opened(world, { heartbeat: 0 });
  await world.pass(100_000);
  assert.deepEqual([socket.sent.length, world.timers.size], [0, 0]);
});

test("there is no heartbeat in a hidden page, and a probe when it is shown", async (world) => {
  const { daebus, socket } = await opened(world);
  await world.show(false);
  await world.pass(600_000);
  assert.deepEqual([socket.sent.length, daebus.status], [0, "open"]);
  await world.show(true);
  assert.equal(socket.all("heartbeat").length, 1);
  await world.pass(1000);
  socket.deliver({ type: "heartbeat" });
  await world.pass(20_000);
  assert.deepEqual([daebus.status, world.sockets.length], ["open", 1]);
  await world.show(false);
  await world.show(true);
  await world.pass(2001);
  assert.equal(daebus.status, "waiting");
});

for (const [target, type, fields] of [
  ["document", "visibilitychange"],
  ["document", "resume"],
  ["page", "pageshow", { persisted: true }],
  ["page", "online"],
  ["page", "offline"],
]) {
  test(`${type} probes a connection with 2 s`, async (world) => {
    const { daebus, socket } = await opened(world);
    world[target].dispatchEvent(Object.assign(new Event(type), fields));
    assert.equal(socket.last()?.type, "heartbeat");
    await world.pass(2001);
    assert.equal(daebus.status, "waiting");
    assert.equal(socket.closedWith[0], 4900);
  });

  test(`${type} while waiting connects at once, offline apart`, async (world) => {
    const { daebus, socket } = await opened(world, { minDelay: 5000 });
    socket.end(1011);
    world[target].dispatchEvent(Object.assign(new Event(type), fields));
    await world.settle();
    assert.equal(daebus.status, type === "offline" ? "waiting" : "connecting");
    assert.equal(world.sockets.length, type === "offline" ? 1 : 2);
  });
}

test("pageshow of a page that has just loaded means nothing", async (world) => {
  const { socket } = await opened(world);
  await world.happen("pageshow", { persisted: false });
  assert.deepEqual(socket.sent, []);
});

test("an event resets the back-off, and hurries an attempt that hangs", async (world) => {
  const { daebus, socket, statuses } = await opened(world);
  world.check = "fail";
  socket.end(1011);
  for (let n = 0; n < 4; n++) {
    await world.pass(statuses.at(-1).retryIn + 1);
    world.socket.end();
    await world.settle();
  }
  assert.equal(statuses.at(-1).retryIn, 8000);
  await world.happen("online");
  assert.equal(daebus.status, "connecting");
  await world.happen("online");
  await world.pass(2001);
  assert.deepEqual([statuses.at(-1).status, statuses.at(-1).retryIn], ["waiting", 500]);
});

test("hidden and disconnected it waits until it is visible", async (world) => {
  const { daebus, socket, statuses } = await opened(world);
  await world.show(false);
  socket.end(1006);
  assert.deepEqual(statuses.at(-1), { status: "paused", code: 1006, reason: "" });
  await world.pass(600_000);
  await world.happen("online");
  assert.equal(world.sockets.length, 1);
  await world.show(true);
  assert.deepEqual([daebus.status, world.sockets.length], ["connecting", 2]);
});

test("a page that is hidden while it waits pauses when its time has come", async (world) => {
  const { daebus, socket } = await opened(world);
  socket.end(1006);
  await world.show(false);
  await world.pass(501);
  assert.deepEqual([daebus.status, world.sockets.length], ["paused", 1]);
});

test("a page that has slept does not take a late timer for a dead server", async (world) => {
  const { daebus, socket } = await opened(world);
  await world.pass(25_001);
  assert.equal(socket.all("heartbeat").length, 1);
  world.sleep(60_000);
  await world.pass(1);
  assert.deepEqual([socket.all("heartbeat").length, daebus.status], [2, "open"]);
  socket.deliver({ type: "heartbeat" });
  await world.pass(3000);
  assert.equal(daebus.status, "open");
});

test("a page that is put aside for the way back closes, and returns", async (world) => {
  const { daebus, socket, statuses } = await opened(world);
  await world.happen("pagehide", { persisted: false });
  assert.equal(socket.readyState, 1);
  await world.happen("pagehide", { persisted: true });
  assert.deepEqual([socket.readyState, daebus.status, world.timers.size], [2, "paused", 0]);
  await world.happen("pageshow", { persisted: true });
  world.socket.open();
  assert.deepEqual(names(statuses), ["open", "paused", "connecting", "open"]);
});

test("one timer and one socket at a time", async (world) => {
  const { socket } = await opened(world);
  assert.equal(world.timers.size, 1);
  await world.happen("online");
  await world.happen("online");
  assert.equal(world.timers.size, 1);
  socket.end(1011);
  assert.equal(world.timers.size, 1);
  for (let n = 0; n < 5; n++) await world.happen("online");
  assert.deepEqual([world.timers.size, world.sockets.length], [1, 2]);
});

// --- versions

test("reload reloads the page when the version has changed", async (world) => {
  const { daebus, socket } = await opened(world, { reload: true });
  assert.equal(socket.last().type, "heartbeat"); // asks for it
  socket.deliver({ type: "heartbeat", data: { version: "1" } });
  assert.equal(daebus.version, "1");
  socket.end(1012);
  world.check = [503, {}, { "Daebus-Version": "1" }];
  await world.pass(501);
  world.socket.end(1006);
  await world.pass(1001);
  assert.equal(world.reloads, 0);
  world.socket.open();
  world.socket.deliver({ type: "heartbeat", data: { version: "2" } });
  assert.equal(world.reloads, 1);
});

test("reload asks for the version once with each connection", async (world) => {
  const { daebus, socket } = await opened(world, { reload: true });
  for (let current = socket, n = 1; n < 4; current = world.socket, n++) {
    if (n > 1) current.open();
    assert.equal(current.all("heartbeat").length, 1);
    current.deliver({ type: "heartbeat", data: { version: "1" } });
    await world.pass(5001);
    assert.deepEqual([daebus.version, current.all("heartbeat").length], ["1", 1]);
    current.end(1006);
    await world.pass(501);
  }
});

test("without reload the version is told and the page stays", async (world) => {
  const { daebus, socket } = await opened(world);
  assert.deepEqual(socket.sent, []);
  for (const version of ["1", "2"]) socket.deliver({ type: "heartbeat", data: { version } });
  assert.deepEqual([daebus.version, world.reloads], ["2", 0]);
});

// --- topics

const answered = (offset, more) => ({
  topic: "alarms",
  kind: "history",
  epoch: "e1",
  offset,
  recovered: false,
  reason: "new",
  replay: 0,
  missed: null,
  ...more,
});
const resumed = { recovered: true, reason: null, missed: 0 };
const alarm = (offset, data) => ({ type: "alarm", topic: "alarms", offset, data });

/** A topic that notes what comes. */
function listening(daebus, options) {
  const topic = daebus.topic("alarms", options);
  const seen = [];
  const gaps = [];
  topic.onmessage = (data, message) => seen.push([message.offset, data]);
  topic.ongap = (gap) => gaps.push(gap);
  return { topic, seen, gaps };
}

test("a topic brings its messages, and on() too", async (world) => {
  const { daebus, socket } = await opened(world);
  const { topic, seen, gaps } = listening(daebus, { last: 20 });
  const others = [];
  daebus.on("alarm", (data) => others.push(data));
  assert.deepEqual(socket.last().data, { topic: "alarms", last: 20 });
  assert.deepEqual([topic.position, topic.synced], [null, false]);
  socket.answer(answered(7, { replay: 1 }));
  assert.deepEqual([topic.position, topic.synced], [{ epoch: "e1", offset: 6 }, false]);
  socket.deliver(alarm(7, "a"));
  assert.equal(topic.synced, true);
  socket.deliver(alarm(8, "b"));
  socket.deliver(alarm(8, "b again"));
  assert.deepEqual(seen, [
    [7, "a"],
    [8, "b"],
  ]);
  assert.deepEqual(others, ["a", "b", "b again"]);
  assert.deepEqual([topic.position.offset, gaps], [8, []]);
});

test("topics are resumed in one go, each from its position", async (world) => {
  const { daebus, socket } = await opened(world);
  const { topic, seen } = listening(daebus);
  daebus.topic("other", { last: 3 });
  socket.deliver({ type: "response", id: socket.sent[0].id, data: answered(40) });
  socket.deliver(alarm(41, "a"));
  socket.end(1006);
  assert.equal(topic.synced, false);
  await world.pass(501);
  world.socket.open();
  assert.deepEqual(
    world.socket.all("subscribe").map(({ data }) => data),
    [
      { topic: "alarms", since: { epoch: "e1", offset: 41 } },
      { topic: "other", last: 3 },
    ],
  );
  const { id } = world.socket.sent[0];
  world.socket.deliver({ type: "response", id, data: answered(43, { replay: 2, ...resumed }) });
  world.socket.deliver(alarm(42, "b"));
  world.socket.end(1006); // in the middle of the replay
  await world.pass(1001);
  world.socket.open();
  assert.equal(world.socket.sent[0].data.since.offset, 42);
  assert.deepEqual(seen, [
    [41, "a"],
    [42, "b"],
  ]);
});

for (const reason of ["epoch", "expired", "ahead", "limit"]) {
  test(`a topic that could not be resumed tells a gap: ${reason}`, async (world) => {
    const { daebus, socket } = await opened(world);
    const { topic, gaps } = listening(daebus, { since: { epoch: "e0", offset: 5 } });
    const answer = answered(3, { reason, epoch: "e2" });
    socket.answer(answer);
    assert.deepEqual(gaps, [answer]);
    assert.deepEqual(topic.position, { epoch: "e2", offset: 3 });
  });
}

test("the first subscribe is no gap", async (world) => {
  const { daebus, socket } = await opened(world);
  const { gaps } = listening(daebus);
  socket.answer(answered(3));
  assert.deepEqual(gaps, []);
});

test("a gap gives a new position, its epoch as well", async (world) => {
  const { daebus, socket } = await opened(world);
  const { topic, seen, gaps } = listening(daebus);
  socket.answer(answered(3));
  const slow = { topic: "alarms", epoch: "e1", offset: 8, missed: 5, reason: "slow" };
  socket.deliver({ type: "gap", data: slow });
  socket.deliver(alarm(9, "a"));
  socket.deliver({
    type: "gap",
    data: { topic: "alarms", epoch: "e2", offset: 0, missed: null, reason: "epoch" },
  });
  socket.deliver(alarm(1, "b"));
  assert.deepEqual(seen, [
    [9, "a"],
    [1, "b"],
  ]);
  assert.deepEqual(
    gaps.map(({ reason }) => reason),
    ["slow", "epoch"],
  );
  assert.deepEqual([topic.position, topic.synced], [{ epoch: "e2", offset: 1 }, true]);
});

test("what comes before the answer belongs to another subscription", async (world) => {
  const { daebus, socket } = await opened(world);
  const { topic, seen } = listening(daebus);
  socket.deliver({ type: "subscribed", topic: "alarms", data: answered(3) });
  socket.deliver(alarm(4, "not mine"));
  assert.deepEqual([topic.position, seen], [null, []]);
  socket.answer(answered(4));
  socket.deliver(alarm(5, "mine"));
  assert.deepEqual(seen, [[5, "mine"]]);
});

test("a closed topic is unsubscribed and not subscribed to again", async (world) => {
  const { daebus, socket } = await opened(world);
  const { topic, seen } = listening(daebus);
  socket.answer(answered(3));
  assert.throws(() => daebus.topic("alarms"), /subscribed already/);
  topic.close();
  topic.close();
  assert.deepEqual(
    socket.all("unsubscribe").map(({ data }) => data),
    [{ topic: "alarms" }],
  );
  socket.deliver(alarm(4, "late"));
  const again = listening(daebus);
  socket.deliver(alarm(5, "late"));
  socket.answer(answered(5), "subscribe");
  again.topic.close();
  socket.end(1006);
  await world.pass(501);
  world.socket.open();
  assert.deepEqual([seen, again.seen, world.socket.sent], [[], [], []]);
});

test("a refused subscription is told, and tried again with the next connection", async (world) => {
  const { daebus, socket } = await opened(world);
  const refuse = (one) =>
    one.deliver({ type: "error", id: one.last().id, data: { error: "no", code: "forbidden" } });
  const { topic } = listening(daebus);
  refuse(socket);
  assert.equal(world.reported[0].code, "forbidden");
  const told = [];
  topic.onerror = (error) => told.push(error.code);
  socket.end(1006);
  await world.pass(501);
  world.socket.open();
  refuse(world.socket);
  assert.deepEqual([told, world.reported.length], [["forbidden"], 1]);
});

test("what is published may have any type", async (world) => {
  const { daebus, socket } = await opened(world);
  const { topic, seen } = listening(daebus);
  socket.answer(answered(3));
  const types = ["gap", "subscribed", "unsubscribed", "goodbye", "heartbeat", "response", "error"];
  for (const [index, type] of types.entries()) {
    socket.deliver({ ...alarm(4 + index, type), type });
  }
  assert.deepEqual(seen, types.map((type, index) => [4 + index, type]));
  assert.deepEqual([topic.synced, topic.position], [true, { epoch: "e1", offset: 10 }]);
  socket.end(1006);
  await world.pass(501); // no goodbye has said when
  world.socket.open();
  assert.deepEqual(world.socket.last().data.since, { epoch: "e1", offset: 10 });
});

test("a subscription that the server ends is told, and asked for again later", async (world) => {
  const { daebus, socket } = await opened(world);
  const { topic, seen } = listening(daebus);
  const told = [];
  topic.onerror = (error) => told.push(error.code);
  const ended = { type: "unsubscribed", topic: "alarms", data: { topic: "alarms" } };
  socket.deliver(ended); // of one before
  socket.answer(answered(3));
  socket.deliver(ended);
  socket.deliver(alarm(4, "a"));
  assert.deepEqual([told, topic.synced, seen], [["unsubscribed"], false, []]);
  socket.end(1006);
  await world.pass(501);
  world.socket.open();
  assert.deepEqual(world.socket.last().data.since, { epoch: "e1", offset: 3 });
});

test("persist keeps the position over a reload", async (world) => {
  const { daebus, socket } = await opened(world);
  const { topic } = listening(daebus, { persist: "session" });
  socket.answer(answered(3));
  await world.happen("pagehide", { persisted: false });
  assert.equal(world.stored.size, 1);
  topic.close();
  daebus.close();
  const { daebus: next, socket: second } = await opened(world);
  listening(next, { persist: "session" });
  assert.deepEqual(second.last().data.since, { epoch: "e1", offset: 3 });
  for (const key of world.stored.keys()) world.stored.set(key, "junk{");
  next.close();
  const { daebus: third, socket: last } = await opened(world);
  listening(third, { persist: "session" });
  assert.deepEqual(last.last().data, { topic: "alarms" });
});

for (const [kind, kept] of [
  ["topic", { position: { epoch: "x" } }],
  ["topic", { position: { epoch: "x", offset: -1 } }],
  ["topic", { position: { epoch: 7, offset: 1 } }],
  ["topic", { position: "x", _take: 1 }],
  ["topic", 7],
  ["state", { position: { epoch: "x", offset: "1" }, values: {} }],
  ["state", { position: { epoch: "x", offset: 1 } }],
  ["state", { position: { epoch: "x", offset: 1 }, values: [1] }],
  ["state", { position: { epoch: "x", offset: 1 }, values: "a" }],
]) {
  test(`what is kept of a ${kind} is not taken: ${JSON.stringify(kept)}`, async (world) => {
    const { daebus, socket } = await opened(world);
    world.stored.set("daebus ws://x/ alarms", JSON.stringify(kept));
    const topic = daebus[kind]("alarms", { persist: "session" });
    assert.deepEqual(socket.last().data, { topic: "alarms" });
    assert.deepEqual([topic.position, topic.values ?? {}], [null, {}]);
    assert.equal(world.reported.length, 1);
    socket.answer(answered(3));
    assert.equal(world.reported.length, 1);
  });
}

test("a position that the server cannot read is given up, once", async (world) => {
  const { daebus, socket } = await opened(world);
  const told = [];
  const onerror = ({ code }) => told.push(code);
  const { topic } = listening(daebus, { since: { epoch: "x" }, last: 5, onerror });
  const refuse = () =>
    socket.deliver({ type: "error", id: socket.last().id, data: { code: "bad_position" } });
  refuse();
  assert.deepEqual([socket.last().data, told], [{ topic: "alarms", last: 5 }, []]);
  socket.answer(answered(3));
  assert.deepEqual([topic.position, topic.synced], [{ epoch: "e1", offset: 3 }, true]);
  daebus.topic("other", { last: -1, onerror });
  refuse();
  assert.deepEqual([socket.all("subscribe").length, told], [3, ["bad_position"]]);
});

// --- states

const patch = (offset, data) => ({ type: "state", topic: "boiler", offset, data });

test("a state is kept current: set, then removed", async (world) => {
  const { daebus, socket } = await opened(world);
  const changes = [];
  const boiler = daebus.state("boiler", {
    onchange: (values, keys) => changes.push([values, keys]),
  });
  assert.deepEqual([socket.last().data, boiler.values], [{ topic: "boiler" }, {}]);
  socket.answer({ ...answered(88, { replay: 2 }), kind: "state" });
  socket.deliver(
    patch(88, { snapshot: true, set: { celsius: 21.4, pump: true }, removed: [], synced: true }),
  );
  const before = boiler.values;
  socket.deliver(patch(89, { set: { celsius: 21.5 } }));
  socket.deliver(patch(90, { set: { valve: 3 }, removed: ["pump"] }));
  assert.deepEqual(boiler.values, { celsius: 21.5, valve: 3 });
  assert.deepEqual(before, { celsius: 21.4, pump: true }); // a new object each time
  assert.deepEqual(
    changes.map(([, keys]) => keys),
    [["celsius", "pump"], ["celsius"], ["valve", "pump"]],
  );
  assert.deepEqual([boiler.position, boiler.synced], [{ epoch: "e1", offset: 90 }, true]);
});

test("a state keeps its position until a catch-up is complete", async (world) => {
  const { daebus, socket } = await opened(world);
  const boiler = daebus.state("boiler");
  socket.answer({ ...answered(5, { replay: 1 }) });
  socket.deliver(patch(5, { snapshot: true, set: { a: 1, old: 1 }, synced: true }));
  socket.end(1006);
  assert.equal(boiler.synced, false);
  await world.pass(501);
  world.socket.open();
  assert.deepEqual(world.socket.last().data.since, { epoch: "e1", offset: 5 });
  world.socket.answer(answered(9, { replay: 3, ...resumed }));
  world.socket.deliver(patch(7, { set: { a: 2 } }));
  assert.deepEqual([boiler.position.offset, boiler.values.a, boiler.synced], [5, 2, false]);
  world.socket.deliver(patch(9, { set: { b: 2 }, removed: ["old"], synced: true }));
  assert.deepEqual(
    [boiler.position.offset, boiler.values, boiler.synced],
    [9, { a: 2, b: 2 }, true],
  );
});

test("a snapshot is shown whole, and forgotten if it is cut", async (world) => {
  const { daebus, socket } = await opened(world);
  const boiler = daebus.state("boiler");
  socket.answer(answered(5, { replay: 1 }));
  socket.deliver(patch(5, { snapshot: true, set: { old: 1 }, synced: true }));
  socket.end(1006);
  await world.pass(501);
  world.socket.open();
  world.socket.answer(answered(50, { epoch: "e2", replay: 2, reason: "epoch" }));
  world.socket.deliver(patch(20, { snapshot: true, set: { a: 1 } }));
  assert.deepEqual([boiler.values, boiler.synced], [{ old: 1 }, false]);
  world.socket.end(1006);
  await world.pass(1001);
  world.socket.open();
  assert.deepEqual(world.socket.last().data.since, { epoch: "e1", offset: 5 });
  const changed = [];
  boiler.onchange = (values, keys) => changed.push(...keys);
  world.socket.answer(answered(50, { epoch: "e2", replay: 2, reason: "epoch" }));
  world.socket.deliver(patch(20, { snapshot: true, set: { a: 1 } }));
  world.socket.deliver(patch(50, { set: { b: 2 }, synced: true }));
  assert.deepEqual([boiler.values, changed.sort()], [{ a: 1, b: 2 }, ["a", "b", "old"]]);
  assert.deepEqual(boiler.position, { epoch: "e2", offset: 50 });
});

test("a state that has missed nothing is current with the answer", async (world) => {
  const { daebus, socket } = await opened(world);
  const boiler = daebus.state("boiler", { since: { epoch: "e1", offset: 5 } });
  socket.answer(answered(5, resumed));
  assert.equal(boiler.synced, true);
});

test("persist shows the values of before at once", async (world) => {
  const { daebus, socket } = await opened(world);
  daebus.state("boiler", { persist: "session" });
  socket.answer(answered(5, { replay: 1 }));
  socket.deliver(patch(5, { snapshot: true, set: { a: 1 }, synced: true }));
  await world.show(false);
  daebus.close();
  await world.show(true);
  const next = new Daebus();
  const boiler = next.state("boiler", { persist: "session" });
  assert.deepEqual([boiler.values, boiler.synced], [{ a: 1 }, false]);
  world.socket.open();
  assert.deepEqual(world.socket.last().data.since, { epoch: "e1", offset: 5 });
});

test("keys that mean something in JavaScript are only keys", async (world) => {
  const { daebus, socket } = await opened(world);
  const boiler = daebus.state("boiler");
  socket.answer(answered(5, { replay: 1 }));
  socket.deliver(
    '{"type":"state","topic":"boiler","offset":5,"data":{"snapshot":true,"set":{"__proto__":{"a":1}},"synced":true}}',
  );
  assert.equal(boiler.values.a, undefined);
  assert.deepEqual(Object.keys(boiler.values), ["__proto__"]);
});

// --- the declarations

test("the declarations name what a client has", async (world) => {
  const { daebus } = await opened(world);
  const text = readFileSync(new URL("client.d.ts", FILE), "utf8");
  const typed = text.split("export class Daebus<")[1];
  const declared = [...typed.matchAll(/^  (?:readonly )?(\w+)[?(<:]/gm)].map(([, name]) => name);
  const has = [...Object.getOwnPropertyNames(Daebus.prototype), ...Object.keys(daebus)];
  assert.deepEqual([...new Set(declared)].sort(), has.sort());
});

// --- run them

const chosen = process.argv[2];
for (const [name, body] of tests) {
  if (chosen && !name.includes(chosen)) continue;
  let error = null;
  try {
    await body(new World());
  } catch (exception) {
    error = exception.stack;
  }
  process.stdout.write(`${JSON.stringify({ name, error })}\n`);
}
