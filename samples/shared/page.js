/** What the pages of all samples do: say whether what they show is true right now. */

const SAMPLES = [
  ["dashboard", 8080, "a boiler: last values, a curve without holes, alarms"],
  ["chat", 8081, "what was said, and who is there"],
  ["kiosk", 8082, "last values and a log that survive a restart"],
  ["longjob", 8083, "a firmware update that outlives its page"],
  ["auth", 8084, "a valve behind a login"],
  ["cluster", 8085, "three processes on one port"],
];
const OLD = 10; // seconds without news after which that is said in another colour

/**
 * Options for `new Daebus("/", OPTIONS)`. A server that is silent for 5 s is asked for a sign of
 * life, and has 3 s to give one: so a frozen one is told within 10 s.
 */
export const OPTIONS = { heartbeat: 5000, heartbeatTimeout: 3000, maxDelay: 5000 };

/**
 * Show in #connection whether the page is live, in #updated how old the last news is.
 *
 * Live is a page whose connection is open and whose topics are complete: between the two it
 * would show what was true before the cut. Meanwhile the body is of class "stale", and what
 * stands in a fieldset of class "online" cannot be used.
 *
 * @param daebus the connection; its onstatus is taken.
 * @param topics states and topics of the page; a state comes last.
 * @param onlive is called with true or false whenever that changes.
 * @returns with `update(seconds)`, to be called whenever one of the topics has news; with how old
 *   it is, where that is not new.
 */
export function watch(daebus, topics, onlive = () => {}) {
  const connection = document.getElementById("connection");
  const updated = document.getElementById("updated");
  let live = null;
  let seen = false; // it was live before
  let last = null; // when news came, by this page's clock
  let ending = {};

  function show() {
    const now = daebus.status === "open" && topics().every((topic) => topic.synced);
    seen ||= now;
    const [state, text] = describe(now);
    if (connection.textContent !== text) connection.textContent = text; // it is read aloud
    connection.dataset.state = state;
    if (now === live) return;
    live = now;
    document.body.classList.toggle("stale", !live);
    for (const part of document.querySelectorAll("fieldset.online")) part.disabled = !live;
    onlive(live);
  }

  function describe(now) {
    if (now) return ["live", "live"];
    if (daebus.status === "refused") return ["lost", `refused: ${ending.text || ending.reason}`];
    if (daebus.status === "closed") return ["lost", "not connected"];
    if (daebus.status === "paused") return ["lost", "paused"];
    if (ending.reason === "no answer") return ["lost", "the server does not answer, trying again"];
    if (seen || ending.code) return ["lost", "no connection, trying again"];
    return ["waiting", "connecting"];
  }

  function showAge() {
    if (!updated || last === null) return;
    const seconds = Math.max(0, Math.round((performance.now() - last) / 1000));
    updated.textContent = `last update ${age(seconds)} ago`;
    updated.toggleAttribute("data-old", seconds >= OLD);
  }

  daebus.onstatus = (event) => {
    if (event.code) ending = event;
    if (event.status === "open") ending = {};
    show();
  };
  setInterval(showAge, 500);
  show();
  return {
    update(seconds = 0) {
      last = performance.now() - Math.max(0, seconds) * 1000;
      show();
      showAge();
    },
  };
}

/** Write seconds as a person would. */
export function age(seconds) {
  const whole = Math.round(seconds);
  if (whole < 120) return `${whole} s`;
  return whole < 7200 ? `${Math.round(whole / 60)} min` : `${Math.round(whole / 3600)} h`;
}

/** Make an element with text, never with HTML: what is shown is somebody else's. */
export function make(tag, className, ...content) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...content);
  return element;
}

/** Write the time of day of a Unix time. */
export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString();
}

/** Lead from one sample to the others; each has a port of its own. */
function showOthers() {
  const own = document.body.dataset.sample;
  const items = SAMPLES.filter(([name]) => name !== own).map(([name, port, text]) => {
    const link = make("a", "", name);
    link.href = `${location.protocol}//${location.hostname}:${port}/`;
    return make("li", "", link, `: ${text}. `, make("code", "", `make run-sample SAMPLE=${name}`));
  });
  const details = make("details", "", make("summary", "", "Other samples, once they run"));
  details.append(make("ul", "", ...items));
  document.body.append(make("footer", "", details));
}

showOthers();
