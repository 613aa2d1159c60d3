import { Daebus } from "/_daebus/client.js";
import { OPTIONS, watch } from "./shared/page.js";

const element = (id) => document.getElementById(id);
let live = false;
let shown = { state: "none" };

// A job that runs already is in the values that a page gets at first, or gets again.
const daebus = new Daebus("/", OPTIONS);
const job = daebus.state("job", { onchange: (values) => (page.update(), showJob(values)) });
const page = watch(daebus, () => [job], (isLive) => {
  live = isLive;
  showJob(job.values);
});

const titles = {
  none: () => "None yet. While one runs, reload this page, or open a second one.",
  running: ({ version }) => `Installing ${version}`,
  done: ({ version }) => `${version} is installed`,
  cancelled: ({ version, installed }) => `${version} was cancelled; the pump still runs ${installed}`,
  failed: ({ error, installed }) => `Failed: ${error}. The pump still runs ${installed}.`,
};

function showJob(values) {
  const { state, versions, installed, done, total, phase, seconds } = values;
  if (!state) return; // the daemon has hardly begun
  if (state === "running" && shown.state !== "running") showNote("");
  shown = values;
  element("installed").textContent = installed;
  element("job").dataset.state = state;
  const title = titles[state](values);
  // Set only when it changes: this line is read aloud.
  if (element("title").textContent !== title) element("title").textContent = title;
  if (!element("version").length) {
    element("version").replaceChildren(...versions.map((version) => new Option(version)));
    element("version").value = versions[1];
  }
  const percent = Math.floor((100 * done) / total);
  const running = state === "running";
  element("work").hidden = state === "none";
  element("bar").value = done / total;
  element("percent").textContent = `${percent} %`;
  element("phase").textContent = running ? phase + left(values) : `after ${time(seconds)}`;
  element("install").disabled = element("version").disabled = running;
  element("cancel").hidden = !running;
  element("updated").hidden = !running; // without a job there is no news to wait for
  document.title = running ? `${percent} % – Firmware` : "Firmware";
}

/** Guess what is left; nobody knows while the daemon is not heard of. */
function left({ done, total, seconds }) {
  if (!live) return " when it was last heard of";
  return done < 5 ? "" : `, about ${time((seconds / done) * (total - done))} left`;
}

function time(seconds) {
  const whole = Math.ceil(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function showNote(text) {
  element("note").dataset.kind = "bad";
  element("note").textContent = text;
}

// ---- what a user may do -----------------------------------------------------------------

/** Ask for something, for as long as it takes; how it goes on is seen in the job itself. */
async function ask(type, data) {
  showNote("");
  try {
    await daebus.request(type, data, { timeout: Infinity });
  } catch (error) {
    if (error.code !== "disconnected") showNote(error.message);
  }
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask("install", { version: element("version").value });
});

element("cancel").addEventListener("click", () => ask("cancel_install"));
