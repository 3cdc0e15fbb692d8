// The snapshots, by rtpush's own SSE. EventSource comes back by itself, with the id of the last event; where it gives
// up, because it was answered by an error, this looks at what is wrong and begins again.

import { session } from "./calls.js";

const PATIENCE = 5000;
const RETRY = 2000;

export class Feed {
  #source = null;
  #timer = 0;
  #silence = 0;

  /** `onState("live" | "waiting" | "off")`, `onOut()` when there is no session. */
  constructor({ onSnapshot, onState, onOut }) {
    this.onSnapshot = onSnapshot;
    this.onState = onState;
    this.onOut = onOut;
  }

  start() {
    this.stop();
    this.onState("waiting");
    const source = new EventSource("feed?channel=snapshots&since=earliest");
    this.#source = source;
    source.onmessage = ({ data }) => {
      clearTimeout(this.#silence);
      this.#silence = setTimeout(() => this.onState("waiting"), PATIENCE);
      this.onState("live");
      this.onSnapshot(JSON.parse(data));
    };
    source.onerror = () => {
      // A stream ends each minute and goes on at once: that is no news until it is late.
      if (source.readyState === EventSource.CLOSED) this.#begin(source);
    };
  }

  stop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
    this.#source?.close();
    this.#source = null;
    this.onState("off");
  }

  async #begin(source) {
    this.onState("waiting");
    const after = () => {
      if (this.#source === source) this.#timer = setTimeout(() => this.start(), RETRY * (0.5 + Math.random()));
    };
    try {
      const { open, left } = await session();
      if (open || left !== null) after();
      else this.onOut();
    } catch {
      after();
    }
  }
}
