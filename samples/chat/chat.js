import { Daebus } from "/_daebus/client.js";
import { OPTIONS, make, watch } from "./shared/page.js";

const element = (id) => document.getElementById(id);
const log = element("log");

// ---- what comes from the server ---------------------------------------------------------

const daebus = new Daebus("/", OPTIONS);
const talk = daebus.topic("talk", { last: 200, onmessage: addMessage, ongap: showLoss });
const people = daebus.state("presence:lobby", { onchange: showPeople });
const page = watch(daebus, () => [talk, people], (isLive) => {
  if (!isLive) showNote("", "");
  else enter(); // with each connection: it is the server that may have forgotten us
});

function showPeople(values) {
  const names = Object.keys(values);
  const count = values["#"] ?? names.length; // of a crowd there is the number alone
  element("users").textContent = count;
  element("users-word").textContent = count === 1 ? "person here" : "people here";
  const some = "#" in values ? "" : names.sort().slice(0, 8).join(", ");
  element("names").textContent = some && `: ${some}${names.length > 8 ? ", …" : ""}`;
  page.update();
}

let lastAuthor = null;

function addMessage({ username, message, time }) {
  const mine = username === ownName();
  const item = make("li", mine ? "mine" : "");
  if (username !== lastAuthor) {
    const at = new Date(time * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const who = make("div", "who", make("b", "", username), ` ${at}`);
    who.style.setProperty("--hue", hue(username));
    item.append(who);
    item.classList.add("first");
  }
  lastAuthor = username;
  item.append(make("div", "text", message));
  append(item, mine);
}

function showLoss({ reason, missed }) {
  const text = reason === "epoch"
    ? "The server was restarted. What stands above is known to this page alone."
    : `${missed ?? "Some"} messages are missing here.`;
  lastAuthor = null;
  append(make("li", "lost notice", text));
}

function append(item, always) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  element("messages").append(item);
  element("empty").hidden = true;
  if (atEnd || always) log.scrollTop = log.scrollHeight;
}

function hue(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 137 + letter.codePointAt(0)) % 360;
  return sum;
}

// ---- what goes to it --------------------------------------------------------------------

// One name for each tab, kept over a reload.
element("username").value =
  sessionStorage.getItem("username") || `Guest ${100 + Math.floor(Math.random() * 900)}`;
sessionStorage.setItem("username", element("username").value);

function ownName() {
  return element("username").value.trim() || "Anonymous";
}

function enter() {
  return daebus.request("enter", { username: ownName() }).catch(showError);
}

element("username").addEventListener("change", () => {
  sessionStorage.setItem("username", ownName());
  if (daebus.status === "open") enter();
});

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = element("message").value.trim();
  if (!message || daebus.status !== "open") return;
  element("message").value = "";
  showNote("", "sending");
  try {
    const { status } = await daebus.request("chat_message", { message });
    showNote("good", status);
  } catch (error) {
    element("message").value ||= message; // to be sent again
    showError(error);
  }
});

function showError(error) {
  const lost = error.code === "disconnected";
  showNote("bad", lost ? "the connection was lost; look whether your message arrived" : error.message);
}

function showNote(kind, text) {
  element("note").dataset.kind = kind;
  element("note").textContent = text;
}

element("message").focus();
