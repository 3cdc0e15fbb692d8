// The switches of this page's own network, and the ladder that shows what they do to the transports.

/** For how long a transport is shown as tried: the client does not tell when a try beside a working one fails. */
const TRYING = 2000;

const HURT = { block: "blocked", mute: "silent", buffer: "buffered" };

/** Asks the server to change what it does to this page. */
export class Network {
  #url;
  #session;

  constructor(url, session) {
    this.#url = url;
    this.#session = session;
  }

  /** Send switches, or `{ cut: true }`; throws with the server's reason. */
  async set(change) {
    const answer = await fetch(this.#url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ session: this.#session, ...change }),
    });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      throw new Error(problem.error?.message ?? `the server answered ${answer.status}`);
    }
  }
}

/** The switches as the server wants them: `{ block: […], mute: […], buffer: […] }`. */
export function readSwitches(form) {
  const fields = new FormData(form);
  return Object.fromEntries(Object.keys(HURT).map((name) => [name, fields.getAll(name)]));
}

/** The ladder: the live transport is lit, those that the network hurts or that failed are crossed out. */
export class Ladder {
  #rungs = [...document.querySelectorAll("#ladder .rung")];
  #switches = {};
  #live = null;
  #trying = null;
  #failed = new Set();
  #usable = null;
  #timer = 0;

  /** The transports that the client was told to use; null for all. */
  usable(names) {
    this.#usable = names;
    this.#draw();
  }

  switches(switches) {
    this.#switches = switches;
    this.#draw();
  }

  live(transport) {
    this.#live = transport;
    this.#trying = null;
    this.#failed.delete(transport);
    this.#draw();
  }

  trying(transport) {
    this.#trying = transport;
    this.#draw();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#trying = null;
      this.#draw();
    }, TRYING);
  }

  failed(transport) {
    this.#trying = null;
    this.#failed.add(transport);
    this.#draw();
  }

  #draw() {
    for (const rung of this.#rungs) {
      const { transport } = rung.dataset;
      const hurt = Object.keys(HURT).find((name) => this.#switches[name]?.includes(transport));
      let status = "idle";
      let text = "";
      if (transport === this.#live) [status, text] = ["live", "in use"];
      else if (hurt) [status, text] = ["blocked", HURT[hurt]];
      else if (transport === this.#trying) [status, text] = ["trying", "trying"];
      else if (this.#failed.has(transport)) [status, text] = ["blocked", "failed"];
      else if (this.#usable && !this.#usable.includes(transport)) status = "unused";
      rung.dataset.status = status;
      rung.querySelector(".status").textContent = text;
      if (status === "live") rung.setAttribute("aria-current", "true");
      else rung.removeAttribute("aria-current");
    }
  }
}
