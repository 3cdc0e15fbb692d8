// Snapshots become figures: what is now, and how much of it happens in a second. No DOM, no network.

export const TRANSPORTS = ["websocket", "sse", "longpoll", "shortpoll"];

const COUNTERS = ["published", "delivered", "delivered_bytes", "accepted", "cpu"];

const total = (values) => Object.values(values).reduce((sum, value) => sum + value, 0);

/** What happened in a second of a node's time between two of its tellings; null if they do not fit together. */
function nodeRates(now, before) {
  const passed = before ? now.uptime - before.uptime : 0;
  if (!(passed > 0) || now.pid !== before.pid) return null;
  const rates = Object.fromEntries(COUNTERS.map((name) => [name, Math.max(0, now[name] - before[name]) / passed]));
  rates.errors = Math.max(0, total(now.errors) - total(before.errors)) / passed;
  const looks = now.lag.count - before.lag.count;
  rates.lag = looks > 0 ? (now.lag.sum - before.lag.sum) / looks : 0;
  return rates;
}

/** The messages a second of a channel, by its offsets; null where they do not tell. */
function channelRate(now, before, passed) {
  if (!before || before.epoch !== now.epoch || now.offset < before.offset || !(passed > 0)) return null;
  return (now.offset - before.offset) / passed;
}

export class Rates {
  #before = null;

  /** Take the next snapshot; return it with the rates since the one before, or null if it was there already. */
  take(snapshot) {
    const before = this.#before;
    if (before && snapshot.time <= before.time) return null;
    this.#before = snapshot;
    const known = new Map((before?.nodes ?? []).map((node) => [node.node, node]));
    const nodes = snapshot.nodes.map((node) => ({ ...node, rates: nodeRates(node, known.get(node.node)) }));
    nodes.sort((a, b) => a.node.localeCompare(b.node, "en", { numeric: true }));
    const passed = before ? snapshot.time - before.time : 0;
    const channels = new Map((before?.top ?? []).map((channel) => [channel.channel, channel]));
    const sum = (name) => nodes.reduce((all, node) => all + (node.rates?.[name] ?? 0), 0);
    const rated = nodes.some((node) => node.rates);
    return {
      time: snapshot.time,
      missing: snapshot.missing ?? [],
      nodes,
      channels: snapshot.channels,
      top: snapshot.top.map((each) => ({ ...each, rate: channelRate(each, channels.get(each.channel), passed) })),
      connections: nodes.reduce((all, node) => all + node.connections, 0),
      transports: Object.fromEntries(
        TRANSPORTS.map((name) => [name, nodes.reduce((all, node) => all + (node.transports[name]?.connections ?? 0), 0)]),
      ),
      in: rated ? sum("published") : null,
      out: rated ? sum("delivered") : null,
      bytes: rated ? sum("delivered_bytes") : null,
      accepts: rated ? sum("accepted") : null,
      errors: rated ? sum("errors") : null,
      reasons: this.#reasons(nodes, known),
    };
  }

  /** The reasons of the errors since the snapshot before, the most frequent first. */
  #reasons(nodes, known) {
    const counts = {};
    for (const node of nodes) {
      if (!node.rates) continue;
      for (const [name, count] of Object.entries(node.errors)) {
        const more = count - (known.get(node.node).errors[name] ?? 0);
        if (more > 0) counts[name] = (counts[name] ?? 0) + more;
      }
    }
    return Object.entries(counts).sort((a, b) => b[1] - a[1]).map(([name]) => name);
  }
}
