import { Daebus } from "/_daebus/client.js";
import { OPTIONS, clock, watch } from "./shared/page.js";

const element = (id) => document.getElementById(id);
const starts = new Set();
let before = null; // the number of the last tick
let missed = 0;

const daebus = new Daebus("/", OPTIONS);
const ticks = daebus.topic("ticks", { onmessage: showTick, ongap: showGap });
const page = watch(daebus, () => [ticks]);

/** Show a tick; the numbers go on over a restart, so a hole between two of them is a loss. */
function showTick({ started }, { offset }) {
  if (before !== null) missed += offset - before - 1;
  before = offset;
  starts.add(started);
  element("tick").textContent = offset;
  element("started").textContent = clock(started);
  element("starts").textContent = starts.size;
  page.update();
  showMissed();
}

/** After a crash nobody knows what is missing: the daemon counts in another epoch then. */
function showGap(gap) {
  if (gap.missed === null) {
    before = null;
    element("missed").dataset.kind = "bad";
    element("missed").textContent = "the daemon crashed, and some ticks may be missing";
  }
}

function showMissed() {
  if (!missed) return;
  element("missed").dataset.kind = "bad";
  element("missed").textContent = `${missed} ticks missed`;
}

element("restart").addEventListener("click", () => daebus.request("restart").catch(() => {}));
