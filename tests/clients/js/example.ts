// What a page in TypeScript looks like; it is compiled, and never run.

import { Daebus, DaebusError, type Gap, type State, type Status, type Topic } from "daebus";

interface Plant {
  requests: {
    greet: { data: { name: string }; answer: string };
    count: { answer: number };
  };
  sends: { move: { x: number } };
  messages: { reading: { celsius: number } };
  calls: { confirm: { data: string; answer: boolean } };
  topics: { alarms: { text: string } };
  states: { boiler: { celsius?: number; pump?: boolean } };
}

const plant = new Daebus<Plant>("/", {
  token: async () => (await fetch("/token")).text(),
  heartbeat: 5_000,
  reload: true,
  shouldRetry: ({ code }) => (code === 4409 ? true : undefined),
});

const greeting: Promise<string> = plant.request("greet", { name: "Ada" }, { timeout: 2_000 });
const count: Promise<number> = plant.request("count");
const sent: boolean = plant.send("move", { x: 1 }, { queue: true });
const off: () => void = plant.on("reading", ({ celsius }) => celsius.toFixed(1));
plant.on("*", (data, { type, topic }) => console.log(type, topic, data));
plant.handle("confirm", async (question) => confirm(question));
plant.onstatus = ({ status, code, reason, text, retryIn = 0 }) => {
  const known: Status = status;
  console.log(known, code, reason, text, retryIn / 1000);
};

const alarms: Topic<{ text: string }> = plant.topic("alarms", {
  last: 20,
  persist: "session",
  onmessage: ({ text }, { offset }) => console.log(offset + 1, text),
  ongap: ({ reason, missed }: Gap) => console.log(reason, missed ?? "some"),
});
const boiler: State<Plant["states"]["boiler"]> = plant.state("boiler");
boiler.onchange = ({ celsius }, keys) => console.log(celsius?.toFixed(1), keys.length);

try {
  const abort = new AbortController();
  await plant.request("count", undefined, { signal: abort.signal, repeat: true });
} catch (error) {
  if (error instanceof DaebusError && error.code === "disconnected" && error.sent) throw error;
}

// @ts-expect-error there is no such request
plant.request("gret", { name: "Ada" });
// @ts-expect-error its data is of another shape
plant.request("greet", { nam: "Ada" });
// @ts-expect-error it returns a string
const wrong: Promise<number> = plant.request("greet", { name: "Ada" });
// @ts-expect-error the page cannot set it
plant.status = "open";
// @ts-expect-error an answer is a boolean
plant.handle("confirm", () => "yes");
// @ts-expect-error milliseconds are numbers
new Daebus("/", { timeout: "10s" });

// Without a contract everything goes.
const loose = new Daebus();
loose.on("anything", (data) => data.whatever);
const answer: string = await loose.request("anything", [1, 2]);
loose.handle("ask", (data) => data.length);
loose.state("any").values["thing"]?.length;
console.log(greeting, count, sent, off, alarms.position?.offset, boiler.synced, wrong, answer);
plant.close();
