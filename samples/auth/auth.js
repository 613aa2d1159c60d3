import { Daebus } from "/_daebus/client.js";
import { OPTIONS, watch } from "./shared/page.js";

const LOGGED_OUT = 4001; // the close code of this program's own
const element = (id) => document.getElementById(id);
let ends = 0; // when the session does, by this page's clock
let live = false;

// ---- connection -------------------------------------------------------------------------

const daebus = new Daebus("/", {
  ...OPTIONS,
  // Who is logged out stays so; what the client itself knows to be final is that, too.
  shouldRetry: ({ code }) => (code === LOGGED_OUT ? false : undefined),
});
const valve = daebus.state("valve", { onchange: showValve });
const page = watch(daebus, () => [valve], (isLive) => {
  live = isLive;
  if (!live) showNote("", "");
  showTime();
});
const show = daebus.onstatus;
daebus.onstatus = (event) => {
  show(event);
  if (event.status === "refused") showLogin(event);
};

daebus.on("welcome", ({ user, seconds }) => {
  ends = Date.now() + seconds * 1000;
  const bold = document.createElement("b");
  bold.textContent = user.name;
  element("who").replaceChildren(bold, `, ${user.role}`);
  element("login").hidden = true;
  element("inside").hidden = false;
  showNote("", "");
});

daebus.on("session", ({ seconds }) => {
  ends = Date.now() + seconds * 1000;
  showTime();
});

/** Tell why there is no connection, which the client has asked the server for. */
function showLogin({ code, text, reason }) {
  const lost = "the server does not know your session any more, as after a restart: log in again";
  const known = {
    401: ends > Date.now() ? lost : "",
    4401: "your session has expired",
    [LOGGED_OUT]: reason,
  };
  if (!(code in known)) return showNote("bad", text || reason);
  ends = 0;
  element("connection").dataset.state = "waiting";
  element("connection").textContent = "not logged in";
  element("inside").hidden = true;
  element("login").hidden = false;
  element("name").focus();
  showNote("", known[code]);
}

// ---- session ----------------------------------------------------------------------------

async function post(path, data = {}) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(data),
    });
    const result = await answer.json();
    if (answer.ok) return result;
    showNote("bad", result.error);
  } catch {
    showNote("bad", "the server does not answer");
  }
  return null;
}

element("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = element("name").value;
  const password = element("password").value;
  element("password").value = "";
  if (await post("/login", { name, password })) daebus.connect();
});

// The open connections of all tabs are told by the server, as "session".
element("renew").addEventListener("click", async () => {
  if (await post("/renew")) showNote("good", "renewed");
});

// The server closes the connections of the session, in every tab.
element("logout").addEventListener("click", () => post("/logout"));
element("everywhere").addEventListener("click", () => post("/logout", { everywhere: true }));

// ---- the valve --------------------------------------------------------------------------

function showValve({ open, by }) {
  element("valve").dataset.open = open;
  element("position").textContent = open ? "open" : "closed";
  element("by").textContent = by && `by ${by}`;
  page.update();
}

for (const id of ["open", "close"]) {
  element(id).addEventListener("click", async () => {
    showNote("", "");
    try {
      await daebus.request("move", { open: id === "open" });
      showNote("good", "moved");
    } catch ({ code, message, data }) {
      const wait = code === "rate_limited" ? `, wait ${Math.ceil(data.retry_after * 10) / 10} s` : "";
      showNote("bad", message + wait);
    }
  });
}

// ---- what is shown ----------------------------------------------------------------------

function showNote(kind, text) {
  element("note").dataset.kind = kind;
  element("note").textContent = text;
}

/** Count down, unless nobody knows whether the session is still there. */
function showTime() {
  const seconds = Math.max(0, Math.round((ends - Date.now()) / 1000));
  element("left").dataset.ends = ends;
  element("left").textContent = live
    ? `The session ends in ${seconds} s.`
    : "How long the session lasts is not known without a connection.";
}

setInterval(showTime, 500);
