// Charts of the last two minutes, as SVG: its colours are those of the style sheet, so they change with it.

import { amount } from "./dom.js";
import { TRANSPORTS } from "./rates.js";

const SPAN = 120;
const WIDTH = 600;
const NAMES = { websocket: "WebSocket", sse: "SSE", longpoll: "Long poll", shortpoll: "Short poll" };

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Where a time is: the newest is at the right edge. */
const across = (time, newest) => WIDTH * (1 - (newest - time) / SPAN);

/** A round number that is somewhat more than a value: what the top of a chart stands for. */
function ceiling(value) {
  if (value < 4) return 4;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 7.5, 10, 15].map((step) => step * size).find((step) => step >= 1.05 * value);
}

const line = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** One figure as a line, over the area below it. */
export class Spark {
  #area = svg("path", { class: "area" });
  #line = svg("path", { class: "line", "vector-effect": "non-scaling-stroke" });

  constructor(element) {
    for (const [name, value] of [["viewBox", `0 0 ${WIDTH} 40`], ["preserveAspectRatio", "none"]]) element.setAttribute(name, value);
    element.append(this.#area, this.#line);
  }

  draw(samples, name) {
    const known = samples.filter((sample) => sample[name] !== null);
    if (!known.length) return;
    const newest = known.at(-1).time;
    const most = Math.max(...known.map((sample) => sample[name]), 1e-9);
    const points = known.map((sample) => [across(sample.time, newest), 38 - 35 * (sample[name] / most)]);
    this.#line.setAttribute("d", line(points));
    this.#area.setAttribute("d", `${line(points)}L${WIDTH} 40L${points[0][0].toFixed(1)} 40Z`);
  }
}

/** The connections of each transport, on top of each other. */
export class Stack {
  static HEIGHT = 200;

  #element;
  #most;
  #tip;
  #layers = new Map();
  #mark = svg("path", { class: "mark", "vector-effect": "non-scaling-stroke" });
  #samples = [];

  constructor(element, most, tip) {
    this.#element = element;
    this.#most = most;
    this.#tip = tip;
    element.setAttribute("viewBox", `0 0 ${WIDTH} ${Stack.HEIGHT}`);
    element.setAttribute("preserveAspectRatio", "none");
    for (const part of [0.25, 0.5, 0.75]) {
      element.append(svg("path", { class: "grid", d: `M0 ${Stack.HEIGHT * part}H${WIDTH}`, "vector-effect": "non-scaling-stroke" }));
    }
    for (const name of TRANSPORTS) {
      const area = svg("path", { class: "area", "data-transport": name });
      const edge = svg("path", { class: "line", "data-transport": name, "vector-effect": "non-scaling-stroke" });
      this.#layers.set(name, { area, edge });
      element.append(area, edge);
    }
    element.append(this.#mark);
    element.addEventListener("pointermove", (event) => this.#point(event));
    element.addEventListener("pointerleave", () => this.#leave());
  }

  draw(samples) {
    this.#samples = samples;
    const newest = samples.at(-1).time;
    const top = ceiling(Math.max(...samples.map((sample) => TRANSPORTS.reduce((sum, name) => sum + sample.transports[name], 0))));
    const height = (value) => Stack.HEIGHT * (1 - value / top);
    this.#most.textContent = amount(top);
    const below = samples.map(() => 0);
    for (const [name, { area, edge }] of this.#layers) {
      const floor = samples.map((sample, index) => [across(sample.time, newest), height(below[index])]);
      samples.forEach((sample, index) => (below[index] += sample.transports[name]));
      const roof = samples.map((sample, index) => [across(sample.time, newest), height(below[index])]);
      area.setAttribute("d", `${line(roof)}${line(floor.reverse()).replace("M", "L")}Z`);
      // A transport that nobody uses has no edge of its own.
      edge.setAttribute("d", samples.some((sample) => sample.transports[name]) ? line(roof) : "");
    }
    const now = samples.at(-1).transports;
    const parts = TRANSPORTS.map((name) => `${NAMES[name]} ${now[name]}`);
    this.#element.setAttribute("aria-label", `Connections by transport. Now: ${parts.join(", ")}`);
  }

  #point({ clientX }) {
    if (!this.#samples.length) return;
    const box = this.#element.getBoundingClientRect();
    const newest = this.#samples.at(-1).time;
    const time = newest - SPAN * (1 - (clientX - box.left) / box.width);
    const near = this.#samples.reduce((a, b) => (Math.abs(b.time - time) < Math.abs(a.time - time) ? b : a));
    const x = across(near.time, newest);
    this.#mark.setAttribute("d", `M${x} 0V${Stack.HEIGHT}`);
    const ago = Math.round(newest - near.time);
    const parts = TRANSPORTS.filter((name) => near.transports[name]).map((name) => `${NAMES[name]} ${amount(near.transports[name])}`);
    this.#tip.textContent = [ago ? `${ago} s ago` : "now", ...(parts.length ? parts : ["nobody"])].join(" · ");
    this.#tip.classList.toggle("left", x > WIDTH / 2);
    this.#tip.hidden = false;
  }

  #leave() {
    this.#tip.hidden = true;
    this.#mark.setAttribute("d", "");
  }
}
