// The upper half of the page: what each snapshot tells of all nodes together, and of each.

import { Spark, Stack } from "./charts.js";
import { amount, byId, bytes, duration, keyed, make, milliseconds, say } from "./dom.js";

const MOST_SAMPLES = 120;
const TILES = ["connections", "in", "out", "accepts", "errors"];

const cell = (text, className = "") => make("td", { className, textContent: text });
const COLUMNS = ["", "", "number", "number", "number", "number", "number", "number", "number", "number", ""];

function nodeState(node) {
  if (node.leaving) return ["leaving", "warn"];
  if (node.broker.problem) return ["not ready", "bad"];
  return ["ready", "good"];
}

function showNode(row, node) {
  const { rates } = node;
  const [text, state] = nodeState(node);
  const values = [
    node.node,
    text,
    amount(node.connections),
    amount(node.channels),
    amount(rates?.published),
    amount(rates?.delivered),
    rates && node.cpu !== undefined ? `${Math.round(100 * rates.cpu)} %` : "–",
    bytes(node.memory),
    rates ? milliseconds(rates.lag) : "–",
    duration(node.uptime),
    node.version,
  ];
  if (!row.childElementCount) row.append(...COLUMNS.map((name) => cell("", name)));
  [...row.cells].forEach((each, index) => say(each, values[index]));
  row.cells[1].className = "state-text";
  row.cells[1].dataset.state = state;
}

/** Join what the nodes say of each link: it is as well as the node that sees it worst. */
function linksOf(nodes) {
  const links = new Map();
  for (const { broker } of nodes) {
    for (const link of broker.links) {
      const same = links.get(link.name) ?? { name: link.name, up: 0, of: 0, lag: 0, pending: 0 };
      same.of += 1;
      same.up += link.is_up;
      same.lag = Math.max(same.lag, link.lag);
      same.pending += link.pending;
      links.set(link.name, same);
    }
  }
  return [...links.values()];
}

function showLink(item, link) {
  const down = link.up < link.of;
  item.dataset.state = down ? "bad" : "good";
  if (!item.childElementCount) {
    item.append(make("span", { className: "lamp", ariaHidden: "true" }), make("b", { className: "mono" }), make("small"));
  }
  const sight = down ? `down for ${link.of - link.up} of ${link.of} nodes` : `up for ${link.of} ${link.of === 1 ? "node" : "nodes"}`;
  say(item.children[1], link.name);
  say(item.children[2], `${sight} · lag ${milliseconds(link.lag)} · ${link.pending} pending`);
}

function showBroker(nodes) {
  const problems = [...new Set(nodes.map(({ broker }) => broker.problem).filter(Boolean))];
  const engines = [...new Set(nodes.map(({ broker }) => broker.engine))];
  const isRedis = engines.includes("redis");
  say(byId("broker-title"), isRedis ? "Redis" : "Broker");
  const state = byId("broker-state");
  state.dataset.state = problems.length ? "bad" : "good";
  say(state, problems.length ? "trouble" : "healthy");
  const memory = "The memory engine: one node, whose history ends with its process.";
  say(byId("broker-text"), problems.length ? problems.join("; ") : isRedis ? "Carries messages, history and presence." : memory);
  byId("broker-text").classList.toggle("bad", problems.length > 0);
  keyed(byId("links"), linksOf(nodes), ({ name }) => name, () => make("li"), showLink);
}

export class Overview {
  #samples = [];
  #sparks = new Map(TILES.map((name) => [name, new Spark(byId(`spark-${name}`))]));
  #stack = new Stack(byId("chart"), byId("chart-most"), byId("chart-tip"));

  show(now) {
    this.#samples.push(now);
    const oldest = now.time - MOST_SAMPLES;
    this.#samples = this.#samples.filter(({ time }) => time >= oldest);
    for (const name of TILES) {
      say(byId(`${name}-now`), amount(now[name]));
      this.#sparks.get(name).draw(this.#samples, name);
    }
    byId("errors-now").closest(".tile").classList.toggle("bad", now.errors > 0);
    say(byId("errors-what"), now.reasons.slice(0, 2).join(", ").replaceAll("_", " "));
    for (const item of byId("legend").children) say(item.querySelector("dd"), amount(now.transports[item.dataset.transport]));
    this.#stack.draw(this.#samples);
    say(byId("bytes"), bytes(now.bytes));
    say(byId("channels"), amount(now.channels));
    for (const name of ["recovered", "gaps"]) say(byId(name), amount(now.nodes.reduce((sum, node) => sum + node[name], 0)));
    showBroker(now.nodes);
    keyed(byId("nodes"), now.nodes, ({ node }) => node, () => make("tr"), showNode);
    const missing = byId("nodes-missing");
    missing.hidden = !now.missing.length;
    say(missing, now.missing.includes("*") ? "others cannot be asked" : `${now.missing.length} did not answer`);
  }
}
