"use strict";

const SPAN = 120; // seconds on the chart
const element = (id) => document.getElementById(id);
let readings = [];
let socket = null;
let tries = 0;
let waiting = false; // for the answer to a set-point
let pointer = null; // where the mouse or finger is over the chart, in CSS pixels

// ---- connection -------------------------------------------------------------------------

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/`);
  socket.addEventListener("open", () => {
    tries = 0;
    showConnection("open", "live");
    send("history", {});
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
    if (waiting) showAnswer("bad", "connection lost before an answer came");
    setTimeout(connect, seconds * 1000);
  });
}

function send(type, data) {
  socket.send(JSON.stringify({ type, data }));
}

function showConnection(state, text) {
  element("connection").dataset.state = state;
  element("connection").textContent = text;
  element("apply").disabled = state !== "open";
  document.body.classList.toggle("stale", state !== "open");
  if (state !== "open") element("clients").textContent = "–";
}

// ---- messages ---------------------------------------------------------------------------

const handlers = {
  history({ readings: past, alarms }) {
    readings = past;
    element("alarms").replaceChildren();
    alarms.forEach(addAlarm);
    showReading(readings.at(-1));
  },
  reading(reading) {
    // The history may already hold a reading whose broadcast was still under way.
    if (readings.length && reading.time <= readings.at(-1).time) return;
    readings.push(reading);
    while (readings[0].time < reading.time - SPAN) readings.shift();
    showReading(reading);
  },
  alarm: addAlarm,
  clients({ count }) {
    element("clients").textContent = count;
    element("clients-word").textContent = count === 1 ? "page open" : "pages open";
  },
  response({ set_point }) {
    showAnswer("good", `accepted: ${set_point} °C`);
  },
  error({ error, message_type }) {
    if (message_type === "set_point") showAnswer("bad", error);
  },
};

function showReading(reading) {
  if (!reading) return;
  element("temperature").textContent = reading.temperature.toFixed(1);
  element("pressure").textContent = reading.pressure.toFixed(2);
  element("set-point").textContent = reading.set_point.toFixed(1);
  element("burner").textContent = reading.burning ? "on" : "off";
  requestAnimationFrame(draw);
}

function addAlarm({ time, active, text }) {
  const when = new Date(time * 1000);
  const stamp = document.createElement("time");
  stamp.dateTime = when.toISOString();
  if (element("alarms").firstChild?.firstChild.dateTime === stamp.dateTime) return;
  stamp.textContent = when.toLocaleTimeString();
  const item = document.createElement("li");
  item.className = active ? "active" : "";
  item.append(stamp, text);
  element("alarms").prepend(item);
  element("quiet").hidden = true;
  document.querySelector(".tile.pressure").toggleAttribute("data-alarm", active);
}

// ---- set-point form ---------------------------------------------------------------------

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = element("value").value.trim().replace(",", ".");
  if (socket.readyState !== WebSocket.OPEN) return;
  waiting = true;
  showAnswer("", "asking the boiler");
  // What is not a number goes out as it is: the daemon is the one that judges.
  send("set_point", { value: text === "" || Number.isNaN(Number(text)) ? text : Number(text) });
});

function showAnswer(kind, text) {
  if (kind) waiting = false;
  element("answer").dataset.kind = kind;
  element("answer").textContent = text;
  element("value").setAttribute("aria-invalid", kind === "bad");
}

// ---- chart ------------------------------------------------------------------------------

const canvas = element("chart");

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
      for (const r of readings) pen.lineTo(x(r.time), y(r[field]));
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
    ["set_point", "set-point", [6, 4]],
    ["temperature", "temperature", []],
  ]);
  const yBars = panel(split + 24, height - 28, "bar", 1, [["pressure", "pressure", []]]);

  pen.fillStyle = colour("muted");
  pen.textBaseline = "alphabetic";
  const tick = span <= 30 ? 10 : span <= 60 ? 20 : 30;
  for (let ago = 0; ago <= span; ago += tick) {
    pen.textAlign = ago === 0 ? "right" : x(end - ago) < left + 20 ? "left" : "center";
    pen.fillText(ago ? `−${ago} s` : "now", x(end - ago), height - 6);
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
  for (const [name, y] of [["pressure", yBars], ["temperature", yDegrees]]) {
    pen.fillStyle = colour(name);
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

connect();
