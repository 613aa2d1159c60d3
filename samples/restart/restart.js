"use strict";

const element = (id) => document.getElementById(id);
const seen = new Set();
let answers = 0;
let refused = 0;
let longest = 0;

async function ask() {
  const began = performance.now();
  try {
    const response = await fetch("who");
    if (!response.ok) throw new Error(response.statusText);
    const { started } = await response.json();
    seen.add(started);
    answers += 1;
    element("started").textContent = new Date(started * 1000).toLocaleTimeString();
  } catch (error) {
    refused += 1;
  }
  longest = Math.max(longest, performance.now() - began);
  element("starts").textContent = seen.size;
  element("answers").textContent = answers;
  element("refused").textContent = refused;
  element("longest").textContent = `${(longest / 1000).toFixed(1)} s`;
  setTimeout(ask, 100);
}

element("restart").addEventListener("click", async () => {
  element("restart").disabled = true;
  const { started } = await (await fetch("restart", { method: "POST" })).json();
  const timer = setInterval(() => {
    if ([...seen].some((other) => other > started)) {
      clearInterval(timer);
      element("restart").disabled = false;
    }
  }, 100);
});

ask();
