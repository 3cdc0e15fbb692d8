// The list of connections, and the end of one.

import { call } from "./calls.js";
import { amount, byId, duration, keyed, make, say, whileSeen } from "./dom.js";

const PAGE = 50;
const EVERY = 3;
const MOST_CHANNELS = 3;

function channelsText(channels) {
  const more = channels.length - MOST_CHANNELS;
  return channels.slice(0, MOST_CHANNELS).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

export class Connections {
  #limit = PAGE;
  #isOpen = false;

  constructor() {
    const again = () => {
      this.#limit = PAGE;
      this.#list();
    };
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("filter-channel").addEventListener("change", again);
    byId("filter-transport").addEventListener("change", again);
    byId("more").addEventListener("click", () => {
      this.#limit += PAGE;
      this.#list();
    });
    whileSeen(EVERY, () => this.#isOpen, () => this.#list());
  }

  start() {
    this.#isOpen = true;
    this.#list();
  }

  stop() {
    this.#isOpen = false;
  }

  async #list() {
    const channel = byId("filter-channel").value.trim();
    const transport = byId("filter-transport").value;
    const query = { limit: this.#limit, ...(channel && { channel }), ...(transport && { transport }) };
    let listed = { connections: [], total: 0 };
    try {
      listed = await call("connections", query);
      say(byId("connections-problem"), "");
    } catch (problem) {
      say(byId("connections-problem"), problem.message);
    }
    const { connections, total } = listed;
    byId("connections-empty").hidden = total > 0;
    say(byId("connections-count"), total ? `${amount(connections.length)} of ${amount(total)}` : "");
    byId("more").hidden = connections.length >= total;
    keyed(byId("connections"), connections, ({ connection }) => connection, (each) => this.#row(each), (row, each) => {
      say(row.cells[4], channelsText(each.channels));
      row.cells[4].title = each.channels.join("\n");
      say(row.cells[5], duration(each.since));
      say(row.cells[6], amount(each.queued));
    });
  }

  #row({ connection, transport, node, peer }) {
    const by = make("td", { className: "by", textContent: transport });
    by.dataset.transport = transport;
    const button = make("button", { type: "button", className: "danger small", textContent: "Disconnect" });
    button.setAttribute("aria-label", `Disconnect ${connection}`);
    const row = make(
      "tr",
      {},
      make("td", { className: "mono", textContent: connection }),
      by,
      make("td", { textContent: node }),
      make("td", { className: "mono", textContent: peer }),
      make("td", { className: "mono channels" }),
      make("td", { className: "number" }),
      make("td", { className: "number" }),
      make("td", { className: "number" }, button),
    );
    button.addEventListener("click", () => this.#disconnect(connection, button));
    return row;
  }

  async #disconnect(connection, button) {
    button.disabled = true;
    try {
      await call("disconnect", { connection, reconnect: byId("may-return").checked });
    } catch (problem) {
      say(byId("connections-problem"), problem.message);
    }
    button.disabled = false;
    await this.#list();
  }
}
