/**
 * The page's end of a daebus WebSocket: one that comes back.
 *
 *     import { Daebus } from "/_daebus/client.js";
 *     const daebus = new Daebus("/");
 *     daebus.on("reading", (data) => show(data));
 *     const greeting = await daebus.request("greet", { name: "Ada" });
 *
 * Rules of this file:
 *
 * 1. One socket and one timer at a time. Each attempt has a number, and events of an older one
 *    are ignored: a socket that does not answer is let go without waiting for its onclose.
 * 2. Nothing is queued or repeated unless the caller says so.
 * 3. What a page's own function throws is reported, and hinders nothing.
 */

// Close codes, and HTTP statuses of refusals, after which trying again would change nothing.
const FINAL = new Set([
  1000, 1002, 1003, 1007, 1008, 1009, 1010, 4000, 400, 401, 403, 404, 421, 426,
]);
const STABLE = 5000; // milliseconds after which a connection counts as a good one
const PROBE = 2000; // for an answer, when there is reason for doubt
const HOUR = 3_600_000; // the longest pause that the server can ask for
const TINY = 100; // what is shorter says nothing
const MAX_QUEUE = 100;
const LONGEST = 2 ** 31 - 1; // of setTimeout; what is longer would end at once

const isFinal = (code) => FINAL.has(code) || (code >= 4400 && code < 4500);
const now = () => performance.now();
const isHidden = () => globalThis.document?.visibilityState === "hidden";
const report = (error) => (globalThis.reportError ?? console.error)(error);

function run(callback, ...values) {
  try {
    callback?.(...values);
  } catch (error) {
    report(error);
  }
}

function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

/** Why a request failed: the server's error, or `timeout` or `disconnected`. */
export class DaebusError extends Error {
  constructor(message, code, { sent, data } = {}) {
    super(message);
    this.name = "DaebusError";
    this.code = code;
    this.sent = sent;
    this.data = data;
  }
}

/** A topic: messages that each matter, resumed where they were cut. */
class Topic {
  constructor(name, { last, since = null, persist, onmessage, ongap, onerror }, url, leave) {
    Object.assign(this, { name, onmessage, ongap, onerror, position: since, synced: false });
    this._last = last;
    this._leave = leave;
    this._live = false; // the answer to the subscribe has come
    this._key = persist === "session" ? `daebus ${url} ${name}` : null;
    this._restore();
  }

  close() {
    this._leave(this);
  }

  _restore() {
    try {
      const kept = this._key && JSON.parse(sessionStorage.getItem(this._key));
      if (!kept) return;
      const { position, values } = kept;
      const { epoch, offset } = position ?? {};
      const isWhole = typeof epoch === "string" && Number.isSafeInteger(offset) && offset >= 0;
      if (!isWhole || !this._accepts(values)) throw new Error(`${this._key} is damaged`);
      Object.assign(this, { position: { epoch, offset }, values });
    } catch (error) {
      report(error); // there is no storage, or somebody else has written there
    }
  }

  _accepts() {
    return true;
  }

  _save(values) {
    if (!this._key || !this.position) return;
    run(() => {
      sessionStorage.setItem(this._key, JSON.stringify({ position: this.position, values }));
    });
  }

  _cut() {
    this._live = this.synced = false;
  }

  /** The server does not want it; it is asked again with the next connection. */
  _refused(error) {
    this._cut();
    if (this.onerror) run(this.onerror, error);
    else report(error);
  }

  _answered(answer) {
    const { epoch, offset, replay, recovered, reason } = answer;
    this._live = true;
    // That before the replay, so that a cut in the middle of it loses nothing.
    this._adopt(epoch, offset - replay, offset);
    if (!recovered && reason !== "new") run(this.ongap, answer);
  }

  _adopt(epoch, offset, top) {
    this.position = { epoch, offset };
    this._top = top;
    this.synced = offset >= top;
  }

  _gap(gap) {
    if (!this._live) return;
    const { epoch, offset } = gap;
    this._adopt(epoch, offset, epoch === this.position.epoch ? this._top : offset);
    run(this.ongap, gap);
  }

  _take(message) {
    const { offset, data } = message;
    // Not live: that is of a subscription which the server or an earlier topic has begun.
    if (!this._live || offset <= this.position.offset) return;
    this._adopt(this.position.epoch, offset, this._top);
    run(this.onmessage, data, message);
  }
}

/** A state: keys and their latest values. */
class State extends Topic {
  constructor(name, { onchange, ...options }, url, leave) {
    super(name, options, url, leave);
    this.values ??= {};
    this.onchange = onchange;
  }

  _accepts(values) {
    return values instanceof Object && !Array.isArray(values);
  }

  _save() {
    super._save(this.values);
  }

  _cut() {
    super._cut();
    this._next = null;
  }

  _answered({ epoch, offset, replay, recovered }) {
    this._live = true;
    this._epoch = epoch;
    this._next = null;
    // The position stays the old one until the catch-up is complete.
    if (recovered && !replay) this._complete(offset, []);
  }

  _gap(gap) {
    if (this._live) this._epoch = gap.epoch;
  }

  _take({ offset, data: { snapshot, set = {}, removed = [], synced } }) {
    if (!this._live) return;
    if (snapshot) this._next = {}; // aside until it is whole
    const values = { ...(this._next ?? this.values), ...set };
    for (const key of removed) delete values[key];
    if (this._next && !synced) {
      this._next = values;
      return;
    }
    const keys = this._next
      ? { ...this.values, ...values }
      : { ...set, ...Object.fromEntries(removed.map((key) => [key])) };
    this._next = null;
    this.values = values;
    if (synced || this.synced) this._complete(offset, Object.keys(keys));
    else run(this.onchange, values, Object.keys(keys));
  }

  _complete(offset, keys) {
    this._adopt(this._epoch, offset, offset);
    run(this.onchange, this.values, keys);
  }
}

/** A connection to a daebus app, for as long as the page lives or until `close()`. */
export class Daebus {
  status = "connecting";
  version;
  onstatus;

  #url; // of the WebSocket
  #checks; // of what tells why it failed, one after the other
  #options;
  #socket = null;
  #attempt = 0; // the number of the current one
  #timer;
  #due; // what the timer does
  #abort; // ends the check that runs
  #tries = 0; // since the last good connection
  #token; // undefined: has to be asked for
  #renewed = false; // a new one has been tried
  #opened; // when; undefined while no connection is open
  #heard; // when the last frame came
  #probing = 0; // when it was asked for a sign of life; 0: it was not
  #after = 0; // milliseconds after which the server wants us back; NaN: it told no number
  #ids = 0;
  #requests = new Map();
  #queue = [];
  #listeners = new Map();
  #handlers = new Map();
  #topics = new Map();

  constructor(url = "/", options = {}) {
    const address = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    address.hash = "";
    address.protocol = address.protocol.replace("http", "ws");
    if (!/^wss?:$/.test(address.protocol)) {
      throw new TypeError(`${url} is no address for a WebSocket; write http, https, ws or wss`);
    }
    this.#url = address.href;
    this.#checks = checksFor(address);
    this.#options = {
      protocols: [],
      minDelay: 500,
      maxDelay: 30_000,
      timeout: 10_000,
      heartbeat: 25_000,
      heartbeatTimeout: 10_000,
      ...options,
    };
    this.#listen(true);
    this.#connect();
  }

  /** Connect at once: when it waits, or anew after it was refused or closed. */
  connect() {
    if (["connecting", "open"].includes(this.status)) return;
    if (["refused", "closed"].includes(this.status)) {
      this.#token = undefined;
      this.#renewed = false;
      this.#listen(true);
    }
    this.#tries = 0;
    this.#connect();
  }

  /** End it for good: nothing reconnects, and what waits for an answer is rejected. */
  close() {
    if (this.status !== "closed") this.#stop("closed", { code: 1000, reason: "" }, 1000);
  }

  /** Call a function with the data of each message of a type, `"*"` for all; returns the end. */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** Answer the server's `call()`s of a type with what a function returns; returns the end. */
  handle(type, handler) {
    if (this.#handlers.has(type)) throw new Error(`${type} has a handler already`);
    this.#handlers.set(type, handler);
    return () => this.#handlers.get(type) === handler && this.#handlers.delete(type);
  }

  /** Send a message; false if it is not sent, as nothing is open. */
  send(type, data, { queue = false } = {}) {
    const text = JSON.stringify({ type, data });
    if (this.#post(text)) return true;
    if (!queue || this.#isOver() || this.#queue.length >= MAX_QUEUE) return false;
    this.#queue.push(text);
    return true;
  }

  /** Send a message and return its answer; waits for a connection within its timeout. */
  request(type, data, options) {
    return new Promise((resolve, reject) => this.#ask(type, data, options, resolve, reject));
  }

  /** Subscribe to a topic. */
  topic(name, options = {}) {
    return this.#join(Topic, name, options);
  }

  /** Subscribe to a state. */
  state(name, options = {}) {
    return this.#join(State, name, options);
  }

  // --- one attempt after the other

  async #connect() {
    const {
      token: source,
      protocols,
      timeout,
      WebSocket: Socket = globalThis.WebSocket,
    } = this.#options;
    const attempt = this.#begin();
    const isCurrent = () => attempt === this.#attempt;
    this.#arm(timeout, () => {
      if (this.#socket) this.#cut({ code: 1006, reason: "no answer" });
      else this.#lost({ code: 1006, reason: "token" });
    });
    this.#tell("connecting");
    if (this.#token === undefined) {
      try {
        const token = typeof source === "function" ? await source() : source;
        if (!isCurrent()) return;
        this.#token = token || null;
      } catch (error) {
        if (!isCurrent()) return;
        report(error);
        this.#lost({ code: 1006, reason: "token" });
        return;
      }
    }
    if (!isCurrent()) return; // onstatus has closed it
    const proof = this.#token ? [`daebus.token.${base64url(this.#token)}`] : [];
    let socket;
    try {
      socket = new Socket(this.#url, ["daebus", ...protocols, ...proof]);
    } catch (error) {
      // It will never be allowed, such as ws: from a page of https:.
      this.#stop("refused", { code: 1006, reason: error.name, text: error.message });
      return;
    }
    this.#socket = socket;
    socket.onopen = () => isCurrent() && this.#hail();
    socket.onmessage = ({ data }) => isCurrent() && this.#receive(data);
    socket.onclose = ({ code, reason }) => isCurrent() && this.#cut({ code, reason });
    // Some implementations have no onclose then.
    socket.onerror = () => isCurrent() && this.#cut({ code: 1006, reason: "" });
  }

  /** Let go of what there is, whatever becomes of it, and return the number of what comes. */
  #begin(code, reason) {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    const socket = this.#socket;
    this.#socket = this.#abort = null;
    this.#probing = 0;
    if (code) socket?.close(code, reason);
    else socket?.close();
    return ++this.#attempt;
  }

  #arm(delay, due = this.#due) {
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(due, Math.min(Math.max(0, delay), LONGEST));
  }

  #hail() {
    this.#opened = this.#heard = now();
    this.#after = 0;
    this.#watch();
    this.status = "open";
    for (const topic of this.#topics.values()) this.#subscribe(topic);
    for (const request of this.#requests.values()) if (!request.sent) this.#submit(request);
    for (const text of this.#queue.splice(0)) this.#post(text);
    if (this.#options.reload) this.#post('{"type":"heartbeat"}'); // tells the version
    this.#tell("open");
  }

  #cut(event) {
    if (this.#opened === undefined) this.#askWhy(event);
    else this.#lost(event);
  }

  /** Ask why it failed, which a browser does not tell. */
  async #askWhy(event) {
    const attempt = this.#begin();
    const abort = (this.#abort = new AbortController());
    this.#arm(this.#options.timeout, () => abort.abort());
    let cause = event;
    for (const check of this.#checks) {
      try {
        const answer = await fetch(check, {
          headers: this.#token ? { Authorization: `Bearer ${this.#token}` } : {},
          credentials: "include",
          cache: "no-store",
          referrerPolicy: "origin", // tells the server whose page it is, as a WebSocket does
          signal: abort.signal,
        });
        const { status, headers } = answer;
        const body = status === 204 ? null : await answer.json().catch(() => null);
        const { code = "", error } = body ?? {};
        if (attempt !== this.#attempt) return;
        // It may be another server's place: what the app says is 204, or an error with a code.
        if (status === 200 || (status === 404 && !code)) continue;
        cause = status === 204 ? event : { code: status, reason: code, text: error };
        this.#after = headers.get("Retry-After") * 1000;
        this.#learn(headers.get("Daebus-Version"));
        if (status !== 404) break;
      } catch {
        // The server cannot be reached at all, or does not answer.
        if (abort.signal.aborted) break;
      }
    }
    if (attempt === this.#attempt) this.#lost(cause);
  }

  /** Decide what comes after a connection, or an attempt. */
  #lost(event, code, reason) {
    const { token, shouldRetry, minDelay, maxDelay } = this.#options;
    if (now() - this.#opened >= STABLE) {
      this.#tries = 0;
      this.#renewed = false;
    }
    this.#drop(code, reason);
    if ([401, 4401].includes(event.code) && typeof token === "function" && !this.#renewed) {
      this.#renewed = true;
      this.#token = undefined;
      this.#connect();
      return;
    }
    let again;
    run(() => (again = shouldRetry?.(event)));
    if (this.status === "closed") return;
    if (!(again ?? !isFinal(event.code))) {
      this.#stop("refused", event);
      return;
    }
    const ceiling = Math.min(maxDelay, minDelay * 2 ** Math.min(this.#tries, 30));
    const told = Math.min(this.#after || 0, HOUR);
    this.#after = 0;
    // What the server says can hurry the first attempt only: none is to be stormed by its pages.
    const least = this.#tries++ || told < TINY ? Math.random() * ceiling : 0;
    const retryIn = Math.max(told, least);
    if (isHidden()) {
      this.#tell("paused", event);
      return;
    }
    this.#arm(retryIn, () => (isHidden() ? this.#tell("paused", event) : this.#connect()));
    this.#tell("waiting", { ...event, retryIn });
  }

  /** Note that the connection is gone: requests that were sent will not be answered. */
  #drop(code, reason) {
    this.#begin(code, reason);
    this.#opened = undefined;
    for (const topic of this.#topics.values()) topic._cut();
    for (const request of [...this.#requests.values()]) {
      if (request.sent && (!request.repeat || request.answered)) request.fail();
      request.sent = false;
    }
  }

  #stop(status, event, code) {
    this.#drop(code, "");
    this.#listen(false);
    this.#queue = [];
    this.status = status;
    for (const request of [...this.#requests.values()]) request.fail();
    this.#tell(status, event);
  }

  #isOver() {
    return ["refused", "closed"].includes(this.status);
  }

  #tell(status, event = {}) {
    this.status = status;
    run(this.onstatus, { ...event, status });
  }

  // --- is anybody there?

  /** Ask for a sign of life once the server has been silent, unless nobody looks. */
  #watch() {
    const { heartbeat, heartbeatTimeout } = this.#options;
    clearTimeout(this.#timer);
    if (!heartbeat) return;
    this.#arm(heartbeat - (now() - this.#heard), () => {
      if (isHidden()) return; // timers are throttled then; whoever looks again has it probed
      if (now() - this.#heard < heartbeat) this.#watch();
      else this.#probe(heartbeatTimeout);
    });
  }

  #probe(timeout) {
    this.#probing = now();
    this.#post('{"type":"heartbeat"}');
    this.#arm(timeout, () => {
      if (isHidden()) return;
      // The page has slept, or was busy: an answer may wait behind this timer.
      if (now() - this.#probing > timeout + 1000) this.#probe(PROBE);
      else this.#lost({ code: 4900, reason: "no answer" }, 4900, "no answer");
    });
  }

  #listen(on) {
    const change = on ? "addEventListener" : "removeEventListener";
    for (const type of ["pageshow", "pagehide", "online", "offline"]) {
      globalThis[change]?.(type, this.#notice);
    }
    for (const type of ["visibilitychange", "resume"]) {
      globalThis.document?.[change](type, this.#notice);
    }
  }

  #notice = ({ type, persisted }) => {
    if (type === "pagehide" || isHidden()) {
      for (const topic of this.#topics.values()) topic._save();
    }
    if (type === "pagehide" && persisted) {
      // A browser keeps no page for the way back that has a connection open.
      this.#drop();
      this.#tell("paused", { code: 1001, reason: "pagehide" });
      return;
    }
    if (isHidden() || type === "pagehide" || (type === "pageshow" && !persisted)) return;
    if (this.status === "open") this.#probe(PROBE);
    if (type === "offline") return; // it may be that the server is this machine
    this.#tries = 0;
    if (this.status === "connecting") this.#arm(PROBE);
    else if (this.status !== "open") this.#connect();
  };

  // --- messages

  #post(text) {
    if (this.#opened === undefined || this.#socket.readyState !== 1) return false;
    this.#socket.send(text);
    return true;
  }

  #receive(text) {
    this.#heard = now();
    if (this.#probing) {
      this.#probing = 0;
      this.#watch();
    }
    if (typeof text !== "string") return;
    let message;
    try {
      message = JSON.parse(text);
    } catch (error) {
      report(error);
      return;
    }
    const { type, id, data, offset, topic = data?.topic } = message ?? {};
    if (typeof type !== "string") return;
    const published = offset !== undefined; // on a topic, with a type of the program's own
    if (type === "heartbeat" && !published) this.#learn(data?.version);
    if (["response", "error", "progress"].includes(type) && id != null) {
      this.#requests.get(id)?.take(type, data);
      return;
    }
    const subscribed = this.#topics.get(topic);
    if (published) run(() => subscribed?._take(message));
    else if (type === "goodbye") this.#after = data?.retry_after * 1000;
    else if (type === "gap") run(() => subscribed?._gap(data));
    else if (type === "unsubscribed" && subscribed?._live) {
      subscribed._refused(new DaebusError(`the server has ended ${topic}`, type));
    }
    const listeners = [...(this.#listeners.get(type) ?? [])];
    const all = type === "heartbeat" ? [] : (this.#listeners.get("*") ?? []);
    for (const listener of [...listeners, ...all]) run(listener, data, message);
    // Our own ids are numbers: one that is a string is the server's, which asks.
    if (typeof id === "string" && (this.#handlers.has(type) || !listeners.length)) {
      this.#answer(type, id, data, message);
    } else if (type === "error" && !listeners.length) {
      console.warn(`the server says: ${data?.error}`, data);
    }
  }

  async #answer(type, id, data, message) {
    const socket = this.#socket;
    let text;
    try {
      const handler = this.#handlers.get(type);
      if (!handler) throw new DaebusError(`the page has no handler for ${type}`, "unknown_type");
      text = JSON.stringify({ type: "response", id, data: (await handler(data, message)) ?? null });
    } catch (error) {
      const isMeant = error instanceof DaebusError;
      if (!isMeant) report(error);
      const answer = isMeant
        ? { error: error.message, code: error.code }
        : { error: "the handler failed", code: "handler_error" }; // a bug's text may tell secrets
      text = JSON.stringify({ type: "error", id, data: answer });
    }
    if (socket === this.#socket) this.#post(text); // another connection has not asked
  }

  #ask(type, data, options, resolve, reject) {
    const { timeout = this.#options.timeout, signal, repeat, onProgress, onItem } = options ?? {};
    if (signal?.aborted) return reject(signal.reason);
    const id = ++this.#ids;
    const end = (settle, value) => {
      this.#requests.delete(id);
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      settle(value);
    };
    const fail = (code = "disconnected", text = "the connection has ended") =>
      end(reject, new DaebusError(text, code, { sent: request.tried }));
    const cancel = () => request.sent && this.#post(JSON.stringify({ type: "cancel", id }));
    const abort = () => {
      cancel();
      end(reject, signal.reason);
    };
    const take = (kind, value) => {
      if (kind === "progress") run(onProgress, value);
      else if (kind === "error") {
        end(reject, new DaebusError(value?.error, value?.code, { data: value, sent: true }));
      } else if (request.answered) run(onItem, value);
      else if (onItem) {
        // More may come, and nothing says which is the last.
        clearTimeout(timer);
        request.answered = true;
        resolve(value);
      } else end(resolve, value);
    };
    const request = {
      text: JSON.stringify({ type, id, data }),
      sent: false,
      tried: false,
      repeat,
      fail,
      take,
    };
    let timer;
    if (this.#isOver()) return fail();
    this.#requests.set(id, request);
    signal?.addEventListener("abort", abort);
    if (timeout <= LONGEST) {
      timer = setTimeout(() => {
        cancel();
        fail("timeout", `${type} was not answered within ${timeout / 1000} s`);
      }, timeout);
    }
    this.#submit(request);
  }

  #submit(request) {
    if (this.#post(request.text)) request.sent = request.tried = true;
  }

  #learn(version) {
    if (!version) return;
    const changed = this.version !== undefined && this.version !== version;
    this.version = version;
    if (changed && this.#options.reload) globalThis.location.reload();
  }

  // --- topics

  #join(Kind, name, options) {
    if (this.#topics.has(name)) throw new Error(`${name} is subscribed already; close it first`);
    const topic = new Kind(name, options, this.#url, (left) => this.#leave(left));
    this.#topics.set(name, topic);
    if (this.#opened !== undefined) this.#subscribe(topic);
    return topic;
  }

  #subscribe(topic) {
    const { name, position, _last: last } = topic;
    const isOurs = () => this.#topics.get(name) === topic;
    this.#ask(
      "subscribe",
      { topic: name, last, since: position ?? undefined },
      { timeout: Infinity },
      (answer) => isOurs() && topic._answered(answer),
      (error) => {
        if (!isOurs() || error.code === "disconnected") return;
        if (error.code === "bad_position" && topic.position) {
          topic.position = null; // it is of no use: begin anew
          this.#subscribe(topic);
        } else topic._refused(error);
      },
    );
  }

  #leave(topic) {
    if (this.#topics.get(topic.name) !== topic) return;
    this.#topics.delete(topic.name);
    topic._cut();
    if (this.#opened === undefined) return;
    this.#ask(
      "unsubscribe",
      { topic: topic.name },
      { timeout: Infinity },
      () => {},
      () => {},
    );
  }
}

/**
 * Return where to ask why a WebSocket was refused, the likeliest place first.
 *
 * Behind a proxy that takes away a part of the path, that is below that part: where this file came
 * from, or, if it came from elsewhere, where the WebSocket is. A second place is for a first guess
 * that was wrong.
 */
function checksFor(address) {
  const beside = new URL(".", address);
  beside.protocol = beside.protocol.replace("ws", "http");
  const root = new URL("/", beside);
  const own = /^(https?:.*\/)_daebus\/client\.js/.exec(import.meta.url)?.[1];
  const isBelow = own?.startsWith(root.href) && beside.href.startsWith(own);
  const bases = isBelow ? [own, beside.href] : [beside.href, root.href];
  return [...new Set(bases)].map((base) => {
    const check = new URL("_daebus/check", base);
    const path = address.pathname.slice(new URL(base).pathname.length - 1) + address.search;
    if (path !== "/") check.searchParams.set("path", path);
    return check.href;
  });
}
