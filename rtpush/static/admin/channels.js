// The largest channels, and a look into one: its subscribers, its history, who is in it.

import { call } from "./calls.js";
import { amount, byId, keyed, make, say, whileSeen } from "./dom.js";

const MOST_MESSAGES = 50;
const MOST_TEXT = 2000;
const EVERY = 2;

/** What a message or an info holds, as one line of text. */
function text(value) {
  const all = typeof value === "string" ? value : JSON.stringify(value);
  return all.length > MOST_TEXT ? `${all.slice(0, MOST_TEXT)}…` : all;
}

function dataOf({ data, data_b64: binary }) {
  if (binary === undefined) return text(data);
  return `${Math.floor((binary.replace(/=+$/, "").length * 3) / 4)} bytes: ${text(binary)}`;
}

function buildMessage(message) {
  return make(
    "li",
    {},
    make("span", { className: "mono position", textContent: `${message.epoch}:${message.offset}` }),
    make("span", { className: "event", textContent: message.event ?? "" }),
    make("span", { className: "mono data", textContent: dataOf(message) }),
  );
}

function buildPresent({ connection, transport, info }) {
  const line = make("li", {}, make("span", { className: "mono", textContent: connection }));
  const by = make("span", { className: "by", textContent: transport });
  by.dataset.transport = transport;
  line.append(by);
  if (info !== undefined) line.append(make("span", { className: "mono info", textContent: text(info) }));
  return line;
}

export class Channels {
  #channel = "";

  /** `onChoose(channel)` is told when a channel is looked into. */
  constructor({ onChoose }) {
    this.onChoose = onChoose;
    byId("inspect-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.inspect(byId("inspect-channel").value.trim());
    });
    whileSeen(EVERY, () => this.#channel && !byId("dashboard").hidden, () => this.#look());
  }

  /** Show the largest channels. */
  show({ top }) {
    byId("top-empty").hidden = top.length > 0;
    const build = ({ channel }) => {
      const button = make("button", { type: "button", className: "link mono", textContent: channel });
      button.addEventListener("click", () => {
        this.inspect(channel);
        byId("inspector-title").scrollIntoView({ behavior: "smooth", block: "nearest" });
      });
      return make("tr", {}, make("td", {}, button), make("td", { className: "number" }), make("td", { className: "number" }));
    };
    keyed(byId("top"), top, ({ channel }) => channel, build, (row, each) => {
      say(row.cells[1], amount(each.subscribers));
      say(row.cells[2], amount(each.rate));
    });
  }

  /** Look into a channel from now on. */
  inspect(channel) {
    this.#channel = channel;
    byId("inspect-channel").value = channel;
    byId("inspect-empty").hidden = true;
    byId("history").replaceChildren();
    byId("presence").replaceChildren();
    this.onChoose(channel);
    return this.#look();
  }

  async #look() {
    const channel = this.#channel;
    const [listed, history, presence] = await Promise.allSettled([
      call("channels", { pattern: channel }),
      call("history", { channel, limit: MOST_MESSAGES, reverse: true }),
      call("presence", { channel }),
    ]);
    if (channel !== this.#channel) return; // another one was chosen since
    const problem = [listed, history, presence].find(({ reason }) => reason && reason.name !== "not_available")?.reason;
    say(byId("inspect-problem"), problem?.message ?? "");
    byId("inspected").hidden = Boolean(problem);
    if (problem) return;
    say(byId("inspect-subscribers"), amount(listed.value.channels[channel]?.subscribers ?? 0));
    this.#showHistory(history);
    this.#showPresence(presence);
  }

  #showHistory({ value, reason }) {
    const messages = value?.messages ?? [];
    say(byId("inspect-position"), value ? `${value.epoch}:${value.offset}` : "–");
    say(byId("history-note"), reason ? "This channel keeps no history." : messages.length ? "" : "There is no message.");
    keyed(byId("history"), messages, ({ epoch, offset }) => `${epoch}:${offset}`, buildMessage, () => {});
  }

  #showPresence({ value, reason }) {
    const present = value?.connections ?? [];
    say(byId("presence-note"), reason ? "This channel has no presence." : present.length ? "" : "Nobody is there.");
    keyed(byId("presence"), present, ({ connection }) => connection, buildPresent, () => {});
  }
}
