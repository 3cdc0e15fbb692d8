// The demo page: connects, subscribes to one channel, and shows what happens. The parts are in the modules below.
//
// Query: channel; since=earliest; base (the URL before /negotiate; this page's own simulated network if absent);
// transports (joined by commas), direction, climbAfter, climbMax and openTimeout, as the client takes them; rate (of the
// numbered messages, a second).

import { Client } from "../client/rtpush.js";
import { showEchoTest } from "./echo.js";
import { Feed } from "./feed.js";
import { Ladder, Network, readSwitches } from "./network.js";
import { showPublishing } from "./publish.js";
import { showCurlLines } from "./terminal.js";
import { Timeline } from "./timeline.js";

const MOST_EVENTS = 100;
const MOST_TRANSITIONS = 6;

const byId = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const channel = query.get("channel") || "demo:lobby";
const session = crypto.getRandomValues(new Uint32Array(3)).reduce((text, part) => text + part.toString(36).padStart(7, "0"), "");
const ownNetwork = !query.has("base");
const base = new URL(query.get("base") ?? `net/${session}/`, document.baseURI).href;

const feed = new Feed();
const timeline = new Timeline(byId("timeline"));
const ladder = new Ladder();

function complain(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

/** A `time` element that says when something was: now. */
function stamp() {
  const now = new Date();
  const element = document.createElement("time");
  element.dateTime = now.toISOString();
  element.textContent = now.toTimeString().slice(0, 8);
  return element;
}

/** Add a line to "What happened": a name in the colour of its transport if it is one, what it did, and why. */
function happened(name, text, reason, transport = "") {
  const line = document.createElement("li");
  const what = document.createElement("span");
  what.dataset.transport = transport;
  const strong = document.createElement("b");
  strong.textContent = name;
  what.append(strong, ` ${text}`);
  if (reason) {
    const small = document.createElement("small");
    small.textContent = reason;
    what.append(small);
  }
  line.append(stamp(), what);
  byId("events").prepend(line);
  while (byId("events").childElementCount > MOST_EVENTS) byId("events").lastElementChild.remove();
}

function showState(state, previous, reason) {
  byId("state").textContent = state;
  byId("state").dataset.state = state;
  const transition = document.createElement("li");
  transition.append(stamp(), state);
  byId("transitions").prepend(transition);
  while (byId("transitions").childElementCount > MOST_TRANSITIONS) byId("transitions").lastElementChild.remove();
  if (state === "closed") happened(state, `after ${previous}`, reason);
}

function showTransport(transport) {
  byId("transport").textContent = transport ?? "none";
  byId("transport").closest(".now").dataset.transport = transport ?? "";
  ladder.live(transport);
  timeline.transport(transport);
}

/** The client's options: quick, so that there is something to see, or as this page's query says. */
function clientOptions() {
  const options = {};
  // A network that is made anew for each page is not worth remembering.
  if (ownNetwork) options.storage = { getItem: () => null, setItem: () => {} };
  if (query.has("transports")) options.transports = query.get("transports").split(",");
  if (query.has("direction")) options.direction = query.get("direction");
  options.openTimeout = Number(query.get("openTimeout") ?? 3);
  options.climbAfter = Number(query.get("climbAfter") ?? 3);
  options.climbMax = Number(query.get("climbMax") ?? 6);
  options.backoff = { base: 0.5, max: 8, jitter: 0.5 };
  return options;
}

function start() {
  const options = clientOptions();
  const client = new Client(base, options);
  ladder.usable(options.transports ?? (options.direction === "rare" ? null : ["websocket", "sse", "longpoll"]));
  let tried = "";

  client.on("state", ({ state, previous, reason }) => showState(state, previous, reason));
  client.on("attempt", ({ transport, delay }) => {
    tried = transport;
    ladder.trying(transport);
    happened(transport, delay ? `is tried in ${delay.toFixed(1)} s` : "is tried", "", transport);
  });
  client.on("transport", ({ transport, previous, reason }) => {
    showTransport(transport);
    if (!transport) return happened(previous, "ended", reason, previous);
    const changed = previous && transport !== previous;
    if (changed) feed.changed();
    return happened(transport, changed ? `instead of ${previous}` : "is in use", reason, transport);
  });
  client.on("error", (problem) => {
    if (problem.name !== "no_connection") return complain(problem.message);
    ladder.failed(tried);
    return happened(tried, "does not work", problem.message.replace(`${tried}: `, ""), tried);
  });
  client.on("disconnect", ({ code, reason }) => happened("The server", `ended the connection: ${code} ${reason}`));

  const subscription = client.subscribe(channel, query.has("since") ? { since: query.get("since") } : {});
  subscription.on("subscribed", (position) => {
    complain("");
    feed.tally.begin(position);
  });
  subscription.on("message", (message) => {
    feed.message(message, client.transport);
    timeline.message(client.transport);
  });
  subscription.on("error", (problem) => complain(`${channel}: ${problem.message}`));
  subscription.on("gap", (gap) => {
    feed.gap(gap);
    happened("Gap", `the stream goes on after ${gap.epoch}:${gap.offset}`, gap.reason);
  });

  showPublishing({ client, channel, rate: Number(query.get("rate") ?? 100) });
  // For tests and for the console.
  window.demo = {
    client,
    subscription,
    channel,
    session,
    received: feed.received,
    get stats() {
      return feed.stats;
    },
  };
  client.connect();
}

function startNetwork() {
  const form = byId("network");
  if (!ownNetwork) {
    for (const control of form.elements) control.disabled = true;
    byId("network-hint").textContent = `This page was told to use ${base}: that network is not ours to change.`;
    return;
  }
  const network = new Network(new URL("network", document.baseURI), session);
  let last = Promise.resolve();
  const change = (wanted, undo) => {
    last = last.then(() => network.set(wanted)).catch((problem) => {
      complain(`The network was not changed: ${problem.message}`);
      undo?.();
    });
  };
  form.addEventListener("change", ({ target }) => {
    ladder.switches(readSwitches(form));
    const text = target.closest("label").querySelector("span").textContent;
    happened("You", `switched “${text}” ${target.checked ? "on" : "off"}`);
    change(readSwitches(form), () => {
      target.checked = !target.checked;
      ladder.switches(readSwitches(form));
    });
  });
  byId("cut").addEventListener("click", () => {
    happened("You", "cut the connection");
    change({ cut: true });
  });
}

byId("channel").value = channel;
byId("second-window").href = location.href;
// The rest of the query stays when another channel is opened.
for (const [name, value] of query) {
  if (name === "channel") continue;
  const hidden = Object.assign(document.createElement("input"), { type: "hidden", name, value });
  byId("channel-form").append(hidden);
}
showCurlLines(byId("curl"), new URL("..", document.baseURI), channel);
showEchoTest(new URL("echo", base.replace(/^http/, "ws")));
startNetwork();
try {
  start();
} catch (problem) {
  complain(problem.message); // such as an option in the query that is none
  throw problem;
}
