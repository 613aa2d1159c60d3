"use strict";

const element = (id) => document.getElementById(id);
let socket = null;
let tries = 0;
let job = { state: "none" };

// ---- connection -------------------------------------------------------------------------

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/`);
  socket.addEventListener("open", () => {
    tries = 0;
    send("watch"); // a job that runs already is shown by the first answer
  });
  socket.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    const handler = handlers[message.type];
    if (handler) handler(message.data);
  });
  socket.addEventListener("close", () => {
    // Each wait is twice the last, and a little random so that many pages do not return at once.
    const seconds = Math.min(10, 0.5 * 2 ** tries++) * (0.75 + Math.random() / 2);
    showConnection("lost", "no connection, trying again");
    setTimeout(connect, seconds * 1000);
  });
}

function send(type, data = {}) {
  socket.send(JSON.stringify({ type, data }));
}

function showConnection(state, text) {
  element("connection").dataset.state = state;
  element("connection").textContent = text;
  document.body.classList.toggle("stale", state !== "open");
  showButtons();
}

// ---- messages ---------------------------------------------------------------------------

const handlers = {
  job: showJob,
  response({ versions }) {
    if (!versions) return; // of the others the job itself tells more
    const chosen = element("version").value || versions[1];
    element("version").replaceChildren(...versions.map((version) => new Option(version)));
    element("version").value = chosen;
    showConnection("open", "live");
  },
  error({ error }) {
    element("note").textContent = error;
    showButtons();
  },
};

const titles = {
  none: () => "None yet. While one runs, reload this page, or open a second one.",
  running: ({ version }) => `Installing ${version}`,
  done: ({ version }) => `${version} is installed`,
  cancelled: ({ version, installed }) => `${version} was cancelled; the pump still runs ${installed}`,
  failed: ({ error, installed }) => `Failed: ${error}. The pump still runs ${installed}.`,
};

function showJob(news) {
  const begins = news.state === "running" && job.state !== "running";
  job = news;
  element("installed").textContent = job.installed;
  element("job").dataset.state = job.state;
  showButtons();
  if (begins) element("note").textContent = "";
  const title = titles[job.state](job);
  // Set only when it changes: this line is read aloud.
  if (element("title").textContent !== title) element("title").textContent = title;
  const percent = Math.floor((100 * job.done) / job.total);
  const running = job.state === "running";
  element("work").hidden = job.state === "none";
  element("bar").value = job.done / job.total;
  element("percent").textContent = `${percent} %`;
  element("phase").textContent = running ? job.phase + left(job) : `after ${time(job.seconds)}`;
  document.title = running ? `${percent} % – Firmware` : "Firmware";
}

function left({ done, total, seconds }) {
  return done < 5 ? "" : `, about ${time((seconds / done) * (total - done))} left`;
}

function time(seconds) {
  const whole = Math.ceil(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

// ---- what a user may do -----------------------------------------------------------------

function showButtons() {
  const open = element("connection").dataset.state === "open";
  const running = job.state === "running";
  element("install").disabled = element("version").disabled = !open || running;
  element("cancel").hidden = !running;
  element("cancel").disabled = !open;
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  element("install").disabled = true; // until the job has begun, or the answer says why not
  send("install", { version: element("version").value });
});

element("cancel").addEventListener("click", () => {
  element("cancel").disabled = true;
  send("cancel_install");
});

connect();
