import { Daebus } from "/_daebus/client.js";
import { OPTIONS, clock, make, watch } from "./shared/page.js";

const NAMES = ["red", "green", "blue"];
const ANIMALS = ["otter", "heron", "badger", "lynx", "newt", "wren", "hare", "vole", "finch", "toad"];
const SILENT = 3; // seconds after which a process counts as gone: each tells of itself once a second
const LINES = 50;
const element = (id) => document.getElementById(id);

// A name of this tab's own, which it keeps over a reload and takes along to another process.
const me = (sessionStorage.name ??= `${ANIMALS[Math.floor(Math.random() * ANIMALS.length)]} ${Math.floor(Math.random() * 90) + 10}`);
element("me").textContent = me;

let server = null; // who serves this page
const cards = new Map(NAMES.map((name) => [name, addCard(name)]));

// ---- what comes from the servers ---------------------------------------------------------

const daebus = new Daebus("/", OPTIONS);
daebus.on("alive", showProcess);
daebus.on("waved", (data) => tell(`${data.from} waves, by way of ${data.name}.`));
const page = watch(daebus, () => [], (isLive) => {
  if (isLive) enter();
});

/** Say who we are, on each connection: another process may have taken it. */
async function enter() {
  try {
    const { name, pid } = await daebus.request("enter", me);
    const before = server;
    server = name;
    element("server").textContent = `${name} (process ${pid})`;
    if (before !== null && before !== name) tell(`${before} is gone; ${name} serves this page now.`);
    else if (before !== null) tell(`Connected again, to ${name}.`);
    cards.forEach(showCard);
  } catch {
    // The connection has gone again; the next one says it anew.
  }
}

function showProcess({ name, pid, visitors }) {
  const card = cards.get(name);
  if (!card) return;
  if (card.pid !== null && card.pid !== pid) tell(`${name} is back, as process ${pid}.`);
  Object.assign(card, { pid, visitors, heard: performance.now(), gone: false });
  showCard(card, name);
  page.update();
}

setInterval(() => {
  if (daebus.status !== "open") return; // nothing is heard of those that live, either
  cards.forEach((card, name) => {
    if (card.gone || card.heard === null || performance.now() - card.heard < SILENT * 1000) return;
    card.gone = true;
    card.visitors = [];
    tell(`Nothing is heard of ${name} any more.`);
    showCard(card, name);
  });
}, 250);

// ---- what is shown -----------------------------------------------------------------------

function addCard(name) {
  const state = make("p", "small state", "not heard of yet");
  const visitors = make("ul", "visitors");
  const button = make("button", "quiet", `Kill ${name}`);
  button.type = "button";
  button.addEventListener("click", () => ask("kill", name, () => `${name} was killed`));
  const fieldset = make("fieldset", "online", button);
  fieldset.disabled = true;
  const box = make("li", `card ${name}`, make("h2", "", name), state, visitors, fieldset);
  element("processes").append(box);
  return { box, state, button, list: visitors, pid: null, visitors: [], heard: null, gone: false };
}

function showCard(card, name) {
  const { box, state, button, list, pid, visitors, heard, gone } = card;
  box.classList.toggle("gone", gone);
  button.disabled = gone;
  const count = visitors.length === 1 ? "1 page" : `${visitors.length} pages`;
  if (heard !== null) state.textContent = gone ? `process ${pid} is gone` : `process ${pid}, ${count}`;
  list.replaceChildren(...visitors.map((who) => make("li", who === me && name === server ? "me" : "", who)));
}

function tell(text) {
  element("empty").hidden = true;
  const log = element("log");
  log.prepend(make("li", "", make("span", "when", clock(Date.now() / 1000)), text));
  while (log.childElementCount > LINES) log.lastElementChild.remove();
}

// ---- what is asked -----------------------------------------------------------------------

async function ask(type, data, describe) {
  const note = element("note");
  try {
    note.textContent = describe(await daebus.request(type, data));
    note.dataset.kind = "good";
  } catch (error) {
    note.textContent = error.message;
    note.dataset.kind = "bad";
  }
}

element("wave").addEventListener("click", () => ask("wave", null, (nodes) =>
  `waved, here and on ${nodes === 1 ? "1 other process" : `${nodes} other processes`}`));
