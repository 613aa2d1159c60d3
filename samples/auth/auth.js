"use strict";

const element = (id) => document.getElementById(id);
let socket = null;
let tries = 0;
let ends = 0; // when the session does, by this page's clock
let answered = () => {}; // what to do with the answer to the last message

// ---- session ----------------------------------------------------------------------------

async function post(path, data = {}) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(data),
  });
  return [answer.ok, await answer.json()];
}

element("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [ok, data] = await post("/login", {
    name: element("name").value,
    password: element("password").value,
  });
  element("password").value = "";
  if (!ok) return showNote("bad", data.error);
  showNote("", "");
  connect();
});

element("renew").addEventListener("click", async () => {
  const [ok, data] = await post("/renew");
  if (!ok) return showNote("bad", data.error);
  showTime(data.seconds); // the open connections of all tabs are told by the server
  showNote("good", "renewed");
});

// The server closes the connections of the session, in every tab: see onclose.
element("logout").addEventListener("click", () => post("/logout"));
element("everywhere").addEventListener("click", () => post("/logout", { everywhere: true }));

function showLogin(text) {
  showConnection("waiting", "not connected");
  element("inside").hidden = true;
  element("login").hidden = false;
  element("name").focus();
  showNote("", text);
}

// A refused WebSocket does not tell the page why, so it asks for the session first.
async function begin() {
  try {
    const answer = await (await fetch("/session")).json();
    if (answer.user === null) showLogin("");
    else connect();
  } catch {
    retry();
  }
}

// ---- connection -------------------------------------------------------------------------

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/`);
  socket.onmessage = (event) => {
    const { type, data } = JSON.parse(event.data);
    if (type in handlers) handlers[type](data);
  };
  socket.onclose = ({ code }) => {
    if (code === 4401) showLogin("your session has expired");
    else if (code === 4001) showLogin("logged out");
    else retry();
  };
}

function retry() {
  const seconds = Math.min(10, 0.5 * 2 ** tries++) * (0.75 + Math.random() / 2);
  showConnection("lost", "no connection, trying again");
  setTimeout(begin, seconds * 1000);
}

function send(type, data, then = () => {}) {
  answered = then;
  socket.send(JSON.stringify({ type, data }));
}

// ---- messages ---------------------------------------------------------------------------

const handlers = {
  welcome({ user, seconds }) {
    tries = 0;
    showTime(seconds);
    const bold = document.createElement("b");
    bold.textContent = user.name;
    element("who").replaceChildren(bold, `, ${user.role}`);
    element("login").hidden = true;
    element("inside").hidden = false;
    showConnection("open", "live");
  },
  session({ seconds }) {
    showTime(seconds);
  },
  valve({ open, by }) {
    element("valve").dataset.open = open;
    element("position").textContent = open ? "open" : "closed";
    element("by").textContent = by && `by ${by}`;
  },
  response(data) {
    answered(data);
  },
  error({ error, code, retry_after }) {
    const wait = code === "rate_limited" ? `, wait ${Math.ceil(retry_after * 10) / 10} s` : "";
    showNote("bad", error + wait);
  },
};

for (const id of ["open", "close"]) {
  element(id).addEventListener("click", () => {
    showNote("", "");
    send("move", { open: id === "open" }, () => showNote("good", "moved"));
  });
}

// ---- what is shown ----------------------------------------------------------------------

function showConnection(state, text) {
  element("connection").dataset.state = state;
  element("connection").textContent = text;
  for (const id of ["open", "close", "renew", "logout", "everywhere"]) element(id).disabled = state !== "open";
}

function showNote(kind, text) {
  element("note").dataset.kind = kind;
  element("note").textContent = text;
}

function showTime(seconds) {
  ends = Date.now() + seconds * 1000;
}

setInterval(() => {
  const seconds = Math.max(0, Math.round((ends - Date.now()) / 1000));
  element("left").textContent = `The session ends in ${seconds} s.`;
}, 500);

begin();
