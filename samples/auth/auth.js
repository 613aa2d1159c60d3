"use strict";

const element = (id) => document.getElementById(id);
let socket = null;
let token = null; // only when the box at the login is ticked; else the cookie does it
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
  token = element("by-token").checked ? data.token : null;
  showNote("", "");
  connect();
});

element("renew").addEventListener("click", async () => {
  const [ok, data] = await post("/renew");
  if (!ok) return showNote("bad", data.error);
  if (token !== null) token = data.token;
  // The cookie is new already; the connection that is open learns of it by this message.
  send("renew", { token: data.token }, ({ seconds }) => {
    ends = Date.now() + seconds * 1000;
    showNote("good", "renewed");
  });
});

element("logout").addEventListener("click", async () => {
  await post("/logout");
  token = null;
  socket.onclose = null;
  socket.close(1000, "logged out");
  showLogin("logged out");
});

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
    if (answer.user === null && token === null) showLogin("");
    else connect();
  } catch {
    retry();
  }
}

// ---- connection -------------------------------------------------------------------------

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const protocols = token === null ? ["daebus"] : ["daebus", `token.${token}`];
  socket = new WebSocket(`${scheme}://${location.host}/`, protocols);
  socket.onmessage = (event) => {
    const { type, data } = JSON.parse(event.data);
    if (type in handlers) handlers[type](data);
  };
  socket.onclose = ({ code }) => {
    if (code === 4401) {
      token = null;
      showLogin("your session has expired");
    } else {
      retry();
    }
  };
}

function retry() {
  const seconds = Math.min(10, 0.5 * 2 ** tries++) * (0.75 + Math.random() / 2);
  showConnection("lost", "no connection, trying again");
  if (tries > 3) token = null; // perhaps it is the token that is refused
  setTimeout(begin, seconds * 1000);
}

function send(type, data, then = () => {}) {
  answered = then;
  socket.send(JSON.stringify({ type, data }));
}

// ---- messages ---------------------------------------------------------------------------

const handlers = {
  welcome({ name, role, seconds }) {
    tries = 0;
    ends = Date.now() + seconds * 1000;
    const bold = document.createElement("b");
    bold.textContent = name;
    element("who").replaceChildren(bold, `, ${role}, by ${token === null ? "cookie" : "token"}`);
    element("login").hidden = true;
    element("inside").hidden = false;
    showConnection("open", "live");
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
  for (const id of ["open", "close", "renew", "logout"]) element(id).disabled = state !== "open";
}

function showNote(kind, text) {
  element("note").dataset.kind = kind;
  element("note").textContent = text;
}

setInterval(() => {
  const seconds = Math.max(0, Math.round((ends - Date.now()) / 1000));
  element("left").textContent = `The session ends in ${seconds} s.`;
}, 500);

begin();
