"use strict";

const element = (id) => document.getElementById(id);
const log = element("log");
let socket = null;
let tries = 0;

// ---- connection -------------------------------------------------------------------------

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/`);
  socket.addEventListener("open", () => {
    tries = 0;
    showConnection("open", "live");
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

function showConnection(state, text) {
  element("connection").dataset.state = state;
  element("connection").textContent = text;
  element("send").disabled = state !== "open";
  if (state !== "open") element("users").textContent = "–";
}

// ---- messages ---------------------------------------------------------------------------

const handlers = {
  chat_message: addMessage,
  broadcast({ user_count }) {
    element("users").textContent = user_count;
    element("users-word").textContent = user_count === 1 ? "person here" : "people here";
  },
  response({ status }) {
    showNote("good", status);
  },
  error({ error }) {
    showNote("bad", error);
  },
};

let lastAuthor = null;

function addMessage({ username, message }) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const mine = username === (element("username").value.trim() || "Anonymous");
  const item = document.createElement("li");
  item.classList.toggle("mine", mine);
  if (username !== lastAuthor) {
    const name = document.createElement("b");
    name.textContent = username;
    const who = document.createElement("div");
    who.className = "who";
    who.style.setProperty("--hue", hue(username));
    const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    who.append(name, ` ${time}`);
    item.append(who);
    item.classList.add("first");
  }
  lastAuthor = username;
  const text = document.createElement("div");
  text.className = "text";
  text.textContent = message; // never innerHTML: a message is somebody else's text
  item.append(text);
  element("messages").append(item);
  element("empty").hidden = true;
  if (atEnd || mine) log.scrollTop = log.scrollHeight;
}

function hue(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 137 + letter.codePointAt(0)) % 360;
  return sum;
}

function showNote(kind, text) {
  element("note").dataset.kind = kind;
  element("note").textContent = text;
}

// ---- form -------------------------------------------------------------------------------

// One name for each tab, kept over a reload.
element("username").value =
  sessionStorage.getItem("username") || `Guest ${100 + Math.floor(Math.random() * 900)}`;
element("username").addEventListener("change", () => {
  sessionStorage.setItem("username", element("username").value.trim());
});
element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = element("message").value.trim();
  if (!message || socket.readyState !== WebSocket.OPEN) return;
  const data = { username: element("username").value.trim(), message };
  socket.send(JSON.stringify({ type: "chat_message", data }));
  element("message").value = "";
  showNote("", "sending");
});

connect();
element("message").focus();
