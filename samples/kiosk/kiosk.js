import { Daebus } from "/_daebus/client.js";
import { OPTIONS, clock, make, watch } from "./shared/page.js";

const LINES = 100;
const element = (id) => document.getElementById(id);
const log = element("log");

// Nobody stands at a kiosk to press reload: it does so itself when the program is another one.
const daebus = new Daebus("/", { ...OPTIONS, reload: true });
const lines = daebus.topic("log", { last: LINES, onmessage: addLine, ongap: showGap });
const tank = daebus.state("tank", { onchange: showValues });
const page = watch(daebus, () => [lines, tank], showDevice);

function showValues({ level, celsius, time }) {
  if (level !== undefined) {
    element("level").textContent = level.toFixed(1);
    element("celsius").textContent = celsius.toFixed(1);
    element("gauge").value = level;
  }
  // What was kept over a restart is as old as its measurement, however new it is to this page.
  page.update(time === undefined ? 0 : Date.now() / 1000 - time);
  showDevice();
}

/** Tell of a device that says nothing: then the server is there, and its values are old. */
function showDevice() {
  const { device, time } = tank.values;
  const since = time === undefined ? "" : ` since ${clock(time)}`;
  const silent = { silent: `The device has not spoken${since}.`, lost: `The device is lost${since}.` };
  document.querySelector(".values").classList.toggle("stale", device !== "here");
  element("device").dataset.kind = "bad";
  element("device").textContent = silent[device] ?? "";
}

function addLine({ time, level, message }) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const parts = [make("span", "when", clock(time)), make("span", "level", level), make("span", "what", message)];
  append(make("li", level, ...parts), atEnd);
}

function showGap({ reason, missed }) {
  // After a power cut the server sends what it has kept, so the page forgets what it had.
  if (reason === "epoch") log.replaceChildren();
  const text = reason === "epoch"
    ? "The program was restarted without a clean stop; lines may be missing."
    : `${missed ?? "Some"} lines are missing here.`;
  append(make("li", "lost notice", text), true);
}

function append(item, scroll) {
  log.append(item);
  while (log.childElementCount > LINES) log.firstElementChild.remove();
  if (scroll) log.scrollTop = log.scrollHeight;
}
