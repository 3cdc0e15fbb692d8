// The last minute as bars: how many messages came in each half second, and by which transport.

const WINDOW = 60_000;
const BIN = 500;

export class Timeline {
  #canvas;
  #bins = new Map(); // bin number → { transport, count }
  #spans = []; // { from, transport }: which transport was live since when
  #styles;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#styles = getComputedStyle(document.documentElement);
    setInterval(() => document.hidden || this.#draw(), 250);
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  message(transport) {
    const number = Math.floor(Date.now() / BIN);
    const bin = this.#bins.get(number) ?? { transport, count: 0 };
    bin.transport = transport;
    bin.count += 1;
    this.#bins.set(number, bin);
  }

  transport(transport) {
    this.#spans.push({ from: Date.now(), transport });
  }

  #colour(name) {
    return this.#styles.getPropertyValue(`--${name}`).trim();
  }

  #forget(oldest) {
    for (const number of this.#bins.keys()) {
      if ((number + 1) * BIN >= oldest) break;
      this.#bins.delete(number);
    }
    while (this.#spans.length > 1 && this.#spans[1].from < oldest) this.#spans.shift();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    if (this.#canvas.width !== Math.round(width * scale) || this.#canvas.height !== Math.round(height * scale)) {
      this.#canvas.width = Math.round(width * scale);
      this.#canvas.height = Math.round(height * scale);
    }
    const now = Date.now();
    const oldest = now - WINDOW;
    this.#forget(oldest);
    const pen = this.#canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const x = (time) => ((time - oldest) / WINDOW) * width;
    const band = 6;
    const floor = height - band - 3;
    const wide = (BIN / WINDOW) * width;
    const apart = wide < 5 ? 0.5 : 1;

    this.#scale(pen, width, height, x, now);
    // A bar is as high as its count on a root scale, so that one message is seen next to fifty.
    const most = Math.max(16, ...[...this.#bins.values()].map((bin) => bin.count));
    for (const [number, { transport, count }] of this.#bins) {
      const left = x(number * BIN);
      const tall = Math.max(3, Math.sqrt(count / most) * (floor - 20));
      pen.fillStyle = this.#colour(transport);
      pen.beginPath();
      pen.roundRect(left + apart, floor - tall, wide - 2 * apart, tall, [2, 2, 0, 0]);
      pen.fill();
    }
    this.#spans.forEach(({ from, transport }, index) => {
      const begin = Math.max(0, x(from));
      const end = index + 1 < this.#spans.length ? x(this.#spans[index + 1].from) : width;
      pen.fillStyle = this.#colour(transport ?? "line");
      pen.fillRect(begin, height - band, Math.max(0, end - begin), band);
    });
  }

  /** A line each ten seconds (twenty where there is less room), with how long ago that was. */
  #scale(pen, width, height, x, now) {
    const step = width < 600 ? 20 : 10;
    pen.font = `11px ${this.#colour("sans")}`;
    for (let ago = step; ago < 60; ago += step) {
      const left = Math.round(x(now - ago * 1000));
      pen.fillStyle = this.#colour("line");
      pen.fillRect(left, 0, 1, height);
      pen.fillStyle = this.#colour("soft");
      pen.fillText(`${ago} s ago`, left + 6, 15);
    }
    pen.textAlign = "right";
    pen.fillText("now", width - 8, 15);
    pen.textAlign = "left";
  }
}
