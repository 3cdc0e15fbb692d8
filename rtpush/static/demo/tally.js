// What the offsets of a channel tell: what is missing, what came twice, what came late. No DOM, no network.

export class Tally {
  received = 0;
  lost = 0;
  doubled = 0;
  misordered = 0;
  gaps = 0;

  #epoch = null;
  #top = 0;
  #holes = []; // [first, last] of the offsets that were passed over, in order

  /** Delivery begins after this position. One that only repeats where we are changes nothing. */
  begin({ epoch, offset }) {
    if (this.#epoch !== null) return;
    this.#epoch = epoch;
    this.#top = offset;
  }

  /** The server told that it cannot bring what is missing: the stream goes on after this position. */
  gap({ epoch, offset }) {
    this.gaps += 1;
    this.#epoch = epoch;
    this.#top = offset;
    this.#holes = [];
  }

  /** Count a message. Returns "ok", "doubled", "late", "hole" (some before it are missing) or "unnumbered". */
  take({ epoch, offset }) {
    this.received += 1;
    if (offset === undefined || epoch === undefined) return "unnumbered";
    if (this.#epoch !== epoch) {
      // A new history that no gap announced: what was between is unknown, so it counts as out of order.
      const first = this.#epoch === null;
      this.#epoch = epoch;
      this.#top = offset;
      this.#holes = [];
      if (first) return "ok";
      this.misordered += 1;
      return "late";
    }
    if (offset > this.#top) {
      const missing = offset - this.#top - 1;
      if (missing > 0) this.#holes.push([this.#top + 1, offset - 1]);
      this.lost += missing;
      this.#top = offset;
      return missing > 0 ? "hole" : "ok";
    }
    if (this.#fill(offset)) {
      this.lost -= 1;
      this.misordered += 1;
      return "late";
    }
    this.doubled += 1;
    return "doubled";
  }

  /** Take an offset out of the holes; false if it is in none. */
  #fill(offset) {
    const at = this.#holes.findIndex(([first, last]) => first <= offset && offset <= last);
    if (at < 0) return false;
    const [first, last] = this.#holes[at];
    const rest = [[first, offset - 1], [offset + 1, last]].filter(([from, to]) => from <= to);
    this.#holes.splice(at, 1, ...rest);
    return true;
  }
}
