import { Daebus } from "/_daebus/client.js";
import { OPTIONS, clock, make, watch } from "./shared/page.js";

const SPAN = 120; // seconds on the chart
const HOLE = 2; // seconds between two readings that are not one line
const element = (id) => document.getElementById(id);
let readings = [];
let live = false;
let pointer = null; // where the mouse or finger is over the chart, in CSS pixels

// ---- what comes from the daemon ---------------------------------------------------------

const daebus = new Daebus("/", OPTIONS);

// After a cut, these two go on where they were; a page that is new gets what is kept.
const curve = daebus.topic("readings", { last: 480, onmessage: addReading });
const alarms = daebus.topic("alarms", { last: 20, onmessage: addAlarm, ongap: showLoss });
const boiler = daebus.state("boiler", { onchange: showValues });
const page = watch(daebus, () => [curve, alarms, boiler], (isLive) => {
  live = isLive;
  requestAnimationFrame(draw);
});

function addReading(reading) {
  readings.push(reading);
  while (readings[0].time < reading.time - SPAN) readings.shift();
  requestAnimationFrame(draw);
}

function showValues({ temperature, pressure, set_point, burning, alarm, pages, started }) {
  element("temperature").textContent = temperature.toFixed(1);
  element("pressure").textContent = pressure.toFixed(2);
  element("set-point").textContent = set_point.toFixed(1);
  element("burner").textContent = burning ? "on" : "off";
  element("pressure-tile").toggleAttribute("data-alarm", alarm);
  element("pages").textContent = pages;
  element("pages-word").textContent = pages === 1 ? "page open" : "pages open";
  const none = element("alarms").childElementCount ? "" : "None so far. ";
  element("since").textContent = `${none}Alarms since ${clock(started)}, when the daemon started.`;
  page.update();
}

function addAlarm({ time, active, text }) {
  element("alarms").prepend(make("li", active ? "active" : "", make("time", "", clock(time)), text));
}

function showLoss({ reason, missed }) {
  const lost = missed === null ? "alarms from before are lost" : `${missed} alarms were missed`;
  const text = reason === "epoch" ? `The daemon was restarted; ${lost}.` : `${lost}.`;
  if (reason === "epoch") element("alarms").replaceChildren();
  element("alarms").prepend(make("li", "lost", make("time", "", clock(Date.now() / 1000)), text));
}

// ---- set-point form ---------------------------------------------------------------------

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = element("value").value.trim().replace(",", ".");
  // What is not a number goes out as it is: the daemon is the one that judges.
  const value = text === "" || Number.isNaN(Number(text)) ? text : Number(text);
  showAnswer("", "asking the boiler");
  try {
    const { set_point } = await daebus.request("set_point", { value });
    showAnswer("good", `accepted: ${set_point} °C`);
  } catch (error) {
    showAnswer("bad", error.code === "disconnected" ? "no answer: the connection was lost" : error.message);
  }
});

function showAnswer(kind, text) {
  element("answer").dataset.kind = kind;
  element("answer").textContent = text;
  element("value").setAttribute("aria-invalid", kind === "bad");
}

// ---- chart ------------------------------------------------------------------------------

const canvas = element("chart");

/** Tell whether nothing is known of the time before a reading. */
function startsLine(i) {
  return i === 0 || readings[i].time - readings[i - 1].time > HOLE;
}

/** Widen the range of some values to steps a person would choose. */
function scale(values, least, lines) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  const missing = Math.max(0, least - (high - low)) / 2;
  low -= missing;
  high += missing;
  const rough = (high - low) / lines;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  return { low: Math.floor(low / step) * step, high: Math.ceil(high / step) * step, step };
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  canvas.dataset.readings = readings.length;
  canvas.dataset.lines = readings.filter((_, i) => startsLine(i)).length;
  if (!readings.length) return;
  pen.font = "12px system-ui, sans-serif";

  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const left = 40;
  const right = width - 8;
  const end = readings.at(-1).time;
  // A young daemon's few readings fill the chart, too.
  const span = Math.min(SPAN, Math.max(20, end - readings[0].time));
  const x = (time) => right - ((end - time) / span) * (right - left);

  /** Draw the lines of one unit on axes of their own; return how to place a value. */
  function panel(top, bottom, unit, least, lines) {
    const values = readings.flatMap((r) => lines.map(([field]) => r[field]));
    const { low, high, step } = scale(values, least, Math.max(2, Math.floor((bottom - top) / 55)));
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillStyle = colour("muted");
    pen.strokeStyle = colour("line");
    pen.lineWidth = 1;
    pen.fillText(unit, left - 8, top - 16);
    for (let value = low; value <= high + step / 2; value += step) {
      pen.beginPath();
      pen.moveTo(left, Math.round(y(value)) + 0.5);
      pen.lineTo(right, Math.round(y(value)) + 0.5);
      pen.stroke();
      pen.fillText(value.toFixed(step < 1 ? 1 : 0), left - 8, y(value));
    }
    pen.save();
    pen.beginPath();
    pen.rect(left, top - 2, right - left, bottom - top + 4);
    pen.clip();
    for (const [field, name, dash] of lines) {
      pen.beginPath();
      readings.forEach((r, i) => {
        if (startsLine(i)) pen.moveTo(x(r.time), y(r[field]));
        else pen.lineTo(x(r.time), y(r[field]));
      });
      pen.strokeStyle = colour(name);
      pen.lineWidth = dash.length ? 1.5 : 2;
      pen.lineJoin = "round";
      pen.setLineDash(dash);
      pen.stroke();
    }
    pen.restore();
    return y;
  }

  const split = 24 + (height - 24) * 0.62;
  const yDegrees = panel(24, split - 16, "°C", 20, [
    ["set_point", "goal", [6, 4]],
    ["temperature", "warm", []],
  ]);
  const yBars = panel(split + 24, height - 28, "bar", 1, [["pressure", "cold", []]]);

  pen.fillStyle = colour("muted");
  pen.textBaseline = "alphabetic";
  const tick = span <= 30 ? 10 : span <= 60 ? 20 : 30;
  for (let ago = 0; ago <= span; ago += tick) {
    pen.textAlign = ago === 0 ? "right" : x(end - ago) < left + 20 ? "left" : "center";
    const label = ago ? `−${ago} s` : live ? "now" : clock(end);
    pen.fillText(label, x(end - ago), height - 6);
  }

  const tip = element("tip");
  tip.hidden = pointer === null;
  if (pointer === null) return;
  const near = readings.reduce((best, r) =>
    Math.abs(x(r.time) - pointer) < Math.abs(x(best.time) - pointer) ? r : best);
  pen.strokeStyle = colour("muted");
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x(near.time), 24);
  pen.lineTo(x(near.time), height - 28);
  pen.stroke();
  for (const [name, hue, y] of [["pressure", "cold", yBars], ["temperature", "warm", yDegrees]]) {
    pen.fillStyle = colour(hue);
    pen.beginPath();
    pen.arc(x(near.time), y(near[name]), 4, 0, 2 * Math.PI);
    pen.fill();
  }
  tip.textContent = `${new Date(near.time * 1000).toLocaleTimeString()}\n` +
    `${near.temperature.toFixed(1)} °C (set ${near.set_point.toFixed(1)})\n` +
    `${near.pressure.toFixed(2)} bar`;
  const side = x(near.time) > width / 2 ? -12 - tip.offsetWidth : 12;
  tip.style.left = `${x(near.time) + side}px`;
}

for (const type of ["pointermove", "pointerdown"]) {
  canvas.addEventListener(type, (event) => {
    pointer = event.offsetX;
    requestAnimationFrame(draw);
  });
}
canvas.addEventListener("pointerleave", () => {
  pointer = null;
  requestAnimationFrame(draw);
});
new ResizeObserver(draw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
