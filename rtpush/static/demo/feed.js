// The list of messages (newest first, the last 200) and the counters above it.

import { Tally } from "./tally.js";

const MOST_ROWS = 200;
const MOST_KEPT = 20_000;
const MOST_TEXT = 300;
const COUNTERS = ["received", "lost", "doubled", "misordered", "gaps", "changes"];

function span(name, text = "") {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

/** Return the milliseconds since the time that a payload carries, or null. */
function latencyOf(data) {
  const time = data?.time;
  if (typeof time !== "number") return null;
  const passed = Date.now() - time;
  // Another clock, or another kind of number.
  return passed > -1000 && passed < 3_600_000 ? Math.max(0, passed) : null;
}

function latencyText(milliseconds) {
  if (milliseconds === null) return "";
  return milliseconds < 1000 ? `${milliseconds} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function dataText(data, latency) {
  if (typeof data === "string") return data;
  if (data instanceof Uint8Array) return `${data.length} bytes`;
  if (latency === null) return JSON.stringify(data);
  const { time: _, ...rest } = data; // shown as the latency
  return JSON.stringify(rest);
}

export class Feed {
  changes = 0;
  /** What came, oldest first: the message with the transport by which it came and what the offsets say of it. */
  received = [];
  tally = new Tally();

  #list = document.getElementById("messages");
  #empty = document.getElementById("empty");
  #waiting = [];
  #frame = 0;

  /** The counters, as the page shows them. */
  get stats() {
    const { received, lost, doubled, misordered, gaps } = this.tally;
    return { received, lost, doubled, misordered, gaps, changes: this.changes };
  }

  message(message, transport) {
    const verdict = this.tally.take(message);
    const entry = { ...message, transport, verdict, latency: latencyOf(message.data) };
    this.received.push(entry);
    if (this.received.length > MOST_KEPT) this.received.splice(0, MOST_KEPT / 2);
    this.#later({ entry });
  }

  gap(gap) {
    this.tally.gap(gap);
    this.#later({ gap });
  }

  changed() {
    this.changes += 1;
    this.#later();
  }

  /** Draw once a frame, however many messages came in it. */
  #later(row) {
    if (row) this.#waiting.push(row);
    // Frames stop while the page is hidden; what would scroll out at once need not wait for the next one.
    if (this.#waiting.length > 2 * MOST_ROWS) this.#waiting.splice(0, MOST_ROWS);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const rows = this.#waiting.splice(0).slice(-MOST_ROWS).reverse();
    if (rows.length) {
      this.#list.prepend(...rows.map((row) => (row.gap ? this.#gapRow(row.gap) : this.#messageRow(row.entry))));
      while (this.#list.childElementCount > MOST_ROWS) this.#list.lastElementChild.remove();
      this.#empty.hidden = true;
    }
    for (const name of COUNTERS) {
      const value = this.stats[name];
      const element = document.getElementById(name);
      element.textContent = value.toLocaleString("en");
      element.parentElement.classList.toggle("bad", value > 0 && element.parentElement.classList.contains("fault"));
    }
  }

  #messageRow({ epoch, offset, event, data, transport, latency, verdict }) {
    const row = document.createElement("li");
    row.className = "message";
    row.classList.toggle("wrong", verdict !== "ok" && verdict !== "unnumbered");
    Object.assign(row.dataset, { transport: transport ?? "", verdict });
    const position = span("position");
    if (offset === undefined) {
      position.textContent = "no history";
    } else {
      row.dataset.position = `${epoch}:${offset}`;
      const number = document.createElement("b");
      number.textContent = offset;
      position.append(`${epoch}:`, number);
    }
    const text = dataText(data, latency);
    const shown = span("data", text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)}…` : text);
    if (text.length < 2000) shown.title = text;
    row.append(position, span("by", transport ?? ""), span("event", event ?? ""), shown, span("latency", latencyText(latency)));
    return row;
  }

  #gapRow({ epoch, offset, reason }) {
    const row = document.createElement("li");
    row.className = "gap";
    row.textContent = `Gap (${reason}): what was missed is no longer kept. The stream goes on after ${epoch}:${offset}.`;
    return row;
  }
}
