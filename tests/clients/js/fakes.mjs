// A world for the client: a clock, sockets, a server to ask, a page. Nothing in it moves by itself.

const realImmediate = setImmediate;

export class FakeSocket {
  static world;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols, readyState: 0, sent: [], closedWith: null });
    FakeSocket.world.sockets.push(this);
    FakeSocket.world.onsocket?.(this);
  }

  send(text) {
    if (this.readyState === 0) throw new Error("InvalidStateError");
    if (this.readyState === 1) this.sent.push(JSON.parse(text));
  }

  close(code, reason) {
    if (code !== undefined && code !== 1000 && (code < 3000 || code > 4999)) {
      throw new Error(`InvalidAccessError: ${code}`);
    }
    if (this.readyState < 2) this.readyState = 2; // and no onclose, for a long time
    this.closedWith ??= [code, reason];
  }

  // What the other end does.

  open() {
    this.readyState = 1;
    this.onopen?.({});
  }

  deliver(message) {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  fail() {
    this.readyState = 3;
    this.onerror?.({});
  }

  last(type) {
    return this.sent.findLast((message) => type === undefined || message.type === type);
  }

  all(type) {
    return this.sent.filter((message) => message.type === type);
  }

  answer(data, type) {
    this.deliver({ type: "response", id: this.last(type).id, data });
  }
}

class FakeDocument extends EventTarget {
  visibilityState = "visible";
}

export class World {
  #listened = new Set(); // types of events of the page

  constructor() {
    this.time = 1000;
    this.timers = new Map();
    this.sockets = [];
    this.checks = []; // each has url, options, answer(), fail()
    this.check = null; // answers all of them: [status, body, headers], or "fail"
    this.reported = [];
    this.jitter = 1; // what Math.random gives
    this.stored = new Map();
    this.reloads = 0;
    this.page = new EventTarget();
    this.document = new FakeDocument();
    this.#install();
  }

  #install() {
    let ids = 0;
    FakeSocket.world = this;
    const set = (name, value) =>
      Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    set("setTimeout", (due, delay = 0) => {
      const at = this.time + Math.max(1, delay > 2 ** 31 - 1 ? 1 : delay);
      this.timers.set(++ids, { at, due });
      return ids;
    });
    set("clearTimeout", (id) => this.timers.delete(id));
    set("performance", { now: () => this.time });
    set("fetch", (url, options) => this.#fetch(url, options));
    set("document", this.document);
    set("location", { href: "http://x/page", reload: () => this.reloads++ });
    set("reportError", (error) => this.reported.push(error));
    set("addEventListener", (type, listener) => {
      this.#listened.add(type);
      this.page.addEventListener(type, listener);
    });
    set("removeEventListener", (type, listener) => {
      this.#listened.delete(type);
      this.page.removeEventListener(type, listener);
    });
    set("sessionStorage", {
      getItem: (key) => this.stored.get(key) ?? null,
      setItem: (key, value) => this.stored.set(key, value),
    });
    set("WebSocket", FakeSocket);
    Math.random = () => this.jitter;
    console.warn = (...words) => this.reported.push(words);
  }

  #fetch(url, options) {
    return new Promise((resolve, reject) => {
      const answer = (status, body = {}, headers = {}) =>
        resolve({
          status,
          headers: new Headers(headers),
          json: async () => (typeof body === "string" ? JSON.parse(body) : body),
        });
      const fail = () => reject(new TypeError("fetch failed"));
      options.signal?.addEventListener("abort", () => reject(options.signal.reason));
      this.checks.push({ url, options, answer, fail });
      if (this.check === "fail") fail();
      else if (this.check) answer(...this.check);
    });
  }

  get listening() {
    return this.#listened.size;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  /** Let promises settle. */
  async settle() {
    await new Promise((resolve) => realImmediate(resolve));
  }

  /** Let time pass, timer by timer. */
  async pass(milliseconds) {
    const end = this.time + milliseconds;
    await this.settle();
    for (;;) {
      let next = null;
      for (const [id, timer] of this.timers)
        if (!next || timer.at < next.timer.at) next = { id, timer };
      if (!next || next.timer.at > end) break;
      this.time = Math.max(this.time, next.timer.at);
      this.timers.delete(next.id);
      next.timer.due();
      await this.settle();
    }
    this.time = end;
  }

  /** Let a moment pass in which no timer runs, as in a page that sleeps. */
  sleep(milliseconds) {
    this.time += milliseconds;
  }

  async show(visible = true) {
    this.document.visibilityState = visible ? "visible" : "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
    await this.settle();
  }

  async happen(type, fields = {}) {
    this.page.dispatchEvent(Object.assign(new Event(type), fields));
    await this.settle();
  }
}

/** Return what a promise comes to, as a value; "pending" before. */
export function watch(promise) {
  const outcome = { value: "pending" };
  promise.then(
    (value) => (outcome.value = value),
    (error) => {
      outcome.value = error;
      outcome.times = (outcome.times ?? 0) + 1;
    },
  );
  return outcome;
}
