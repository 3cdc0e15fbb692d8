/**
 * The rtpush client for browsers and Node 20 or newer: one ES module, no dependencies.
 *
 * A Client opens the best transport that works: WebSocket, server-sent events, long polling or short polling. It keeps
 * the position of each subscription, so that every message arrives once and in order, whatever happens below. On a
 * lesser transport it tries the better ones from time to time, and moves up when one is open.
 *
 * From the top: pure functions, helpers, transports, Subscription, Client. All times are seconds. What applications use
 * is described in rtpush.d.ts.
 */

const SHORT_LIFE = 10; // a transport that was open for less, and was not ended by the server's own word, is unsteady:
const MOST_SHORT_LIVES = 3; // after so many in a row the next one is tried
const LONGEST_CLIMB = 3600; // between two tries of a better transport, unless the application says otherwise
const MEMORY = 6 * 3600; // for how long it is remembered which transport worked
const MOST_CALLS = 1000; // publishes and questions that wait for an answer
const CALL_TIMEOUT = 60; // from the first sending; below the 300 for which a server knows an idempotency key
const HELD = 1; // a poll that failed after it was held for so long was cut on the way: it can be made again at once
const CHANNEL_NAME = /^[!#-+\--[\]-~]{1,255}$/; // printable ASCII without space, comma, double quote and backslash
const BATCH = 50; // commands in one WebSocket frame or request to /emit,
const BATCH_CHARACTERS = 65536; // and how much text;
const URL_CHARACTERS = 4096; // of tokens for channels in its URL
const REFUSED_FOR = 5; // before a channel that was refused for the time being is asked for again

const CHANNEL_ERRORS = new Set([101, 102, 104, 105, 106]); // unauthorized, permission_denied, unknown_channel, bad_…
// unauthorized, origin_not_allowed, invalid_token, token_revoked: the same on every transport
const FINAL_ERRORS = new Set([101, 115, 117, 119]);
const DENIED_NAME = "permission_denied"; // its code may be one that the application has chosen
const INVALID_ERROR = 117;
const UNAUTHORIZED_ERROR = 101;
const EXPIRED_ERROR = 118;
const EXPIRED = 4004;
const FINAL_CLOSES = new Set([1002, 1003, 1007, 1008, 1009, 1010]); // RFC 6455, section 7.4.1
const NO_HEARTBEAT = 4001;

const DEFAULT_TERMS = {
  urls: { websocket: "/ws", sse: "/sse", longpoll: "/poll", shortpoll: "/poll" },
  emit: "/emit",
  heartbeat: 30,
  heartbeat_grace: 10,
  backoff: { base: 1, max: 30, jitter: 1 },
  poll: { timeout: 25, max_age: 5 },
};

// -- Pure functions ---------------------------------------------------------------------------------------------------

/** The seconds before an attempt, counted from 0: `min(base · 2^attempt, max) + random(0, jitter)`. */
export function backoffDelay(attempt, { base, max, jitter }, chance) {
  return Math.min(base * 2 ** attempt, max) + chance * jitter;
}

/** Whether a client that was closed with this code comes back. */
export function comesBack(code) {
  return code >= 4000 ? code < 4500 : !FINAL_CLOSES.has(code);
}

/** Whether an error, as the reply to `connect` or to a ping, says that this client is not let in, and not to come back. */
function keepsOut({ code, name }) {
  return FINAL_ERRORS.has(code) || (name === DENIED_NAME && !(code >= 4000 && comesBack(code)));
}

/** The place of a message in its channel; as text it is what a cursor says. */
export class Position {
  constructor(epoch, offset) {
    this.epoch = epoch;
    this.offset = offset;
  }

  /** Read `epoch:offset`; undefined for `-` (from now). Throws a TypeError for anything else. */
  static parse(text) {
    if (text === "-") return undefined;
    const [, epoch, offset] = /^([A-Za-z0-9_]{1,32}):(\d{1,16})$/.exec(text) ?? [];
    if (!Number.isSafeInteger(Number(offset))) throw new TypeError(`not a position: ${text}; expected epoch:offset`);
    return new Position(epoch, Number(offset));
  }

  toString() {
    return `${this.epoch}:${this.offset}`;
  }
}

/** The cursor of several positions, in the order of their channels; undefined is "from now". */
export function makeCursor(positions) {
  return positions.map((position) => position?.toString() ?? "-").join(",");
}

/** How a message stands to the position that was reached: "next", "seen", or "hole" (what is between is missing). */
export function judge(position, { epoch, offset }) {
  if (offset === undefined || position === undefined) return "next";
  if (epoch !== position.epoch) return "hole";
  if (offset <= position.offset) return "seen";
  return offset === position.offset + 1 ? "next" : "hole";
}

/** Reads a text/event-stream (WHATWG HTML, section 9.2.6), cut into pieces anywhere. */
export class SseParser {
  #rest = "";
  #data = [];
  #event = "";
  #id = "";

  /** Take a piece of the stream; returns the events that it completes: `{ event, data, id }`. */
  feed(piece) {
    const text = this.#rest + piece;
    const end = text.endsWith("\r") ? text.length - 1 : text.length; // a CR at the end may be half of a CRLF
    const lines = text.slice(0, end).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + text.slice(end);
    const events = [];
    for (const line of lines) this.#take(line, events);
    return events;
  }

  #take(line, events) {
    const [, field, value] = /^([^:]*):? ?(.*)$/su.exec(line);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    if (line !== "") return;
    if (this.#data.length) events.push({ event: this.#event || "message", data: this.#data.join("\n"), id: this.#id });
    this.#data = [];
    this.#event = "";
  }
}

function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

/** The fields that carry a payload. */
export function payloadFields(data) {
  if (data instanceof ArrayBuffer) return { data_b64: toBase64(new Uint8Array(data)) };
  if (!ArrayBuffer.isView(data)) return { data: data ?? null };
  return { data_b64: toBase64(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) };
}

/** What a listener gets for an envelope: a binary payload becomes a Uint8Array. */
export function fromEnvelope({ channel, data, data_b64, event, epoch, offset }) {
  const bytes = data_b64 === undefined ? undefined : Uint8Array.from(atob(data_b64), (one) => one.charCodeAt(0));
  return { channel, data: bytes ?? data, event, epoch, offset };
}

/** The seconds that a Retry-After header asks for (RFC 9110, section 10.2.3); undefined if it does not say. */
export function retryAfter(header, now) {
  if (!header) return undefined;
  const seconds = /^\d+(\.\d+)?$/.test(header) ? Number(header) : (Date.parse(header) - now) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}

// -- Helpers ----------------------------------------------------------------------------------------------------------

/**
 * What went wrong. From the server: a row of the protocol's error table (`code`, `name`, `temporary`), with the HTTP
 * `status`, and `after`, the seconds to wait, where there are such. From this client: a `name` without a code.
 */
export class RtpushError extends Error {
  constructor(name, message, more = {}) {
    super(message);
    Object.assign(this, { temporary: false }, more, { name });
  }

  static told({ name, message, ...more }) {
    return new RtpushError(name, message, more);
  }

  static async ofResponse(response) {
    const { status } = response;
    const busy = status === 429 || status === 503;
    const after = busy ? retryAfter(response.headers.get("retry-after"), Date.now()) : undefined;
    const plain = { name: "http", message: `the server answered ${status}`, temporary: busy || status >= 500 };
    const answer = await response.json().catch(() => undefined);
    return RtpushError.told({ ...plain, ...answer?.error, status, after });
  }
}

/** In Node, a timer in the background does not keep the process alive. */
function later(seconds, action, { background = false } = {}) {
  const timer = setTimeout(action, Math.min(seconds * 1000, 2 ** 31 - 1));
  if (background) timer.unref?.();
  return timer;
}

/** Do something with a signal that aborts with its parent, or after some seconds. */
async function within(seconds, parent, action) {
  const controller = new AbortController();
  const abort = () => controller.abort(parent.reason);
  const slow = new RtpushError("timeout", `no answer within ${seconds} s`, { temporary: true });
  const timer = later(seconds, () => controller.abort(slow));
  parent.addEventListener("abort", abort);
  if (parent.aborted) abort();
  try {
    return await action(controller.signal);
  } finally {
    clearTimeout(timer);
    parent.removeEventListener("abort", abort);
  }
}

/** Resolve after some seconds, or as soon as the signal aborts. */
function pause(seconds, signal) {
  const aborted = (end) => new Promise((resolve) => (end.aborted ? resolve() : end.addEventListener("abort", resolve)));
  return within(seconds, signal, aborted);
}

/** Return what an action does, or nothing where it is not allowed. */
function quietly(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}

class Emitter {
  #listeners = new Map();

  /** Call a listener on each event of this name; returns a function that stops it. */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  emit(name, event) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        // A mistake in a listener does not stop the client; the platform reports it as it reports uncaught errors.
        (globalThis.reportError ?? console.error)(error);
      }
    }
  }
}

/** What is shown, by a client or for one channel: given once, or asked of the application when another is needed. */
class Token {
  now; // the one to show; undefined: there is none, or it has ended
  #source;
  #asking;

  constructor(given) {
    if (typeof given === "function") this.#source = given;
    else this.now = given;
  }

  /** Whether another one can be had. */
  get renews() {
    return this.#source !== undefined;
  }

  get isGiven() {
    return this.renews || this.now !== undefined;
  }

  /** Whether one must be had first. */
  get isMissing() {
    return this.renews && this.now === undefined;
  }

  /** It has ended. */
  forget() {
    if (this.renews) this.now = undefined;
  }

  /** Have the application give another one; who asks meanwhile gets the same. */
  async renew() {
    const ask = async () => this.#source();
    this.now = await (this.#asking ??= ask().finally(() => (this.#asking = undefined)));
  }
}

// -- Transports -------------------------------------------------------------------------------------------------------

/**
 * One connection: it is started, tells when it is open, carries, ends, and is not used again.
 *
 * Subclasses have `start()`; `sync()`: the client's subscriptions changed; `send(calls)`: of `{ id, text, done }`, with
 * the command as text; `poke()`: the network changed, find out whether this still works; `release()`: let go of all.
 *
 * `env` is what the client lends it. It calls these of `events`:
 * - `open({ connection, data })`: the server's first event came through; only then the next two may come
 * - `push(subscription, push)`: `{ message | subscribed | gap | join | leave | unsubscribed: {…} }`
 * - `reply(reply)`: to a call
 * - `refused(subscription, error)`: the server does not give this channel, or its token has ended
 * - `emit(name, event)`: what is for the application as it is (`disconnect`, `error`)
 * - `tokenEnds({ channel })`: another token is needed soon; when it is there `tokenChanged()` of the transport is called,
 *   or if it is for a channel `sync()`
 * - `closed({ reason, code?, reconnect, after?, own?, silent?, expired? })`: the end, once; `code` that of the error if it
 *   was by one, `own` if it was the server's own wish, `silent` if nothing was heard for too long, `expired` if the token
 *   has ended
 */
class Transport {
  isOpen = false;
  hasEnded = false;
  openedAt = 0;
  #openTimer;

  constructor(env, events) {
    this.env = env;
    this.events = events;
  }

  /** From now on, the first event must come through within the time for it. */
  expectOpen() {
    clearTimeout(this.#openTimer);
    const { openTimeout } = this.env;
    this.#openTimer = later(openTimeout, () => this.end({ reason: `nothing came through within ${openTimeout} s` }));
  }

  opened({ connection, data }) {
    clearTimeout(this.#openTimer);
    if (!this.isOpen) this.openedAt = Date.now();
    this.isOpen = true;
    this.events.open({ connection, data });
  }

  push(subscription, push) {
    if (!this.hasEnded) this.events.push(subscription, push);
  }

  disconnected(told) {
    this.events.emit("disconnect", told);
    const { code, reason, reconnect = comesBack(code), after } = told;
    this.end({ reason, reconnect, after, own: code !== NO_HEARTBEAT, expired: code === EXPIRED });
  }

  /** What an error of the server means for this connection. */
  endBy({ message: reason, code }, more = {}) {
    const expired = code === EXPIRED_ERROR;
    this.end({ reason, code, reconnect: !FINAL_ERRORS.has(code), ...more, ...(expired && { own: true, expired }) });
  }

  end(end) {
    if (this.hasEnded) return;
    this.hasEnded = true;
    clearTimeout(this.#openTimer);
    this.release();
    this.events.closed({ reconnect: true, ...end });
  }
}

class WebSocketTransport extends Transport {
  name = "websocket";
  #socket;
  #connectId = this.env.nextId();
  #refreshId;
  #joined = new Map(); // channel -> { subscription, shown: its token, live: the server has said yes }
  #asked = new Map(); // id of a subscribe command -> the same
  #held = []; // calls that wait until the token of their channel is taken
  #timers = {};

  start() {
    this.expectOpen();
    const { data, info, token, url } = this.env;
    const socket = (this.#socket = new this.env.WebSocket(url("websocket"), ["rtpush.v1"]));
    socket.onopen = () => this.#write([{ id: this.#connectId, connect: { info, data, token: token() } }]);
    socket.onmessage = (frame) => this.#receive(frame.data);
    socket.onerror = () => {}; // a close follows
    socket.onclose = ({ code, reason }) => {
      // Before it is open, a code says more of what is between than of the server.
      const reconnect = comesBack(code) || (!this.isOpen && code < 4000);
      const own = code === 1012 || code === 1013 || (code >= 4000 && code !== NO_HEARTBEAT);
      this.end({ reason: reason || `the WebSocket was closed (${code})`, reconnect, own, expired: code === EXPIRED });
    };
  }

  tokenChanged() {
    if (!this.isOpen) return;
    this.#refreshId = this.env.nextId();
    this.#write([{ id: this.#refreshId, refresh: { token: this.env.token() } }]);
  }

  sync() {
    if (!this.isOpen) return;
    const wanted = new Set(this.env.subscriptions());
    const commands = [];
    for (const [channel, joined] of this.#joined) {
      const { subscription, shown } = joined;
      const token = subscription.token.now;
      if (!wanted.delete(subscription)) {
        this.#joined.delete(channel);
        commands.push({ unsubscribe: { channel } });
      } else if (token !== shown) {
        joined.shown = token;
        // If it is refused, the one before ends: then another one is asked for.
        commands.push({ id: this.env.nextId(), refresh: { token } });
      }
    }
    for (const subscription of wanted) {
      const { channel, position, since } = subscription;
      const token = subscription.token.now;
      const id = this.env.nextId();
      const joined = { subscription, shown: token, live: false };
      this.#joined.set(channel, joined);
      this.#asked.set(id, joined);
      const from = position ? { cursor: String(position) } : { since };
      commands.push({ id, subscribe: { channel, token, ...from } });
    }
    this.#write(commands);
    this.send([]);
  }

  /** What is done in a channel with a token of its own waits until that is taken, which is by following it. */
  send(calls) {
    const waits = ({ channel }) => this.env.tokenFor(channel)?.isGiven && !this.#joined.get(channel)?.live;
    const all = [...this.#held, ...calls].filter(({ done }) => !done);
    this.#held = all.filter(waits);
    for (const call of all) if (!waits(call)) this.#socket.send(call.text);
  }

  poke() {
    if (this.isOpen) this.#ping();
  }

  release() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#socket?.close();
  }

  #write(commands) {
    for (let at = 0; at < commands.length; at += BATCH) {
      this.#socket.send(JSON.stringify(commands.slice(at, at + BATCH)));
    }
  }

  #receive(text) {
    clearTimeout(this.#timers.grace);
    this.#timers.grace = undefined;
    try {
      for (const object of [JSON.parse(text)].flat()) if (!this.hasEnded) this.#take(object);
    } catch (error) {
      this.events.emit("error", new RtpushError("bad_frame", `a frame could not be read: ${error.message}`));
    }
  }

  #take(object) {
    if (object.id !== undefined) this.#takeReply(object);
    else if (object.disconnect) this.disconnected(object.disconnect);
    else if (object.token_expiring) this.events.tokenEnds(object.token_expiring);
    else if (object.error) this.events.emit("error", RtpushError.told(object.error));
    else this.#takePush(object);
  }

  #takeReply(reply) {
    const { id, error } = reply;
    const joined = this.#asked.get(id);
    this.#asked.delete(id);
    if (id === this.#connectId) {
      if (error) return this.endBy(error, { reconnect: !keepsOut(error) });
      this.#beat();
      this.opened(reply.connect);
    } else if (id === this.#refreshId) {
      if (error) this.endBy(error); // a new connection can have the new token
    } else if (!joined) {
      this.events.reply(reply);
    } else if (this.#joined.get(joined.subscription.channel) === joined) {
      joined.live = !error;
      if (!error) {
        this.push(joined.subscription, { subscribed: reply.subscribe });
        return this.send([]);
      }
      this.#joined.delete(joined.subscription.channel);
      this.events.refused(joined.subscription, RtpushError.told(error));
    }
  }

  #takePush(push) {
    const { channel } = Object.values(push)[0];
    const joined = this.#joined.get(channel);
    if (!joined?.live) return;
    if (push.unsubscribed) this.#joined.delete(channel);
    this.push(joined.subscription, push);
  }

  #beat() {
    clearTimeout(this.#timers.heartbeat);
    this.#timers.heartbeat = later(this.env.heartbeat, () => this.#ping(), { background: true });
  }

  /**
   * Browsers do not show ping frames, so the client asks, and something must be heard within the grace after that: a
   * timer that fires late (a hidden page, a machine that slept) kills no healthy connection.
   */
  #ping() {
    this.#beat();
    this.#write([{ id: this.env.nextId(), ping: {} }]);
    const dead = () => this.end({ reason: "no heartbeat", silent: true });
    this.#timers.grace ??= later(this.env.heartbeat_grace, dead, { background: true });
  }
}

/**
 * What server-sent events and polls share: the URL names the subscriptions, calls go to /emit.
 *
 * Subclasses have `follow(subscriptions, signal)`: follow them until the signal aborts; throw when that cannot be.
 */
class HttpTransport extends Transport {
  #followed = []; // { subscription, shown: its token, placed: whether the request that follows it says from where }
  #following = new AbortController();
  #life = new AbortController();
  #calls = [];
  #sending = false;

  start() {
    this.#follow();
  }

  sync() {
    const wanted = this.#wanted();
    // A request that begins at "now" may have begun after what another transport has brought since.
    const same = (one, at) => {
      const { subscription, shown, placed } = this.#followed[at] ?? {};
      return one === subscription && one.token.now === shown && (placed || !one.position);
    };
    const isSame = wanted.length === this.#followed.length && wanted.every(same);
    if (!isSame) this.#follow();
    this.send([]); // some may have waited for a token
  }

  poke() {
    if (this.isOpen) this.#follow();
  }

  /** A new request has it, and goes on from where this one is. */
  tokenChanged() {
    this.poke();
  }

  release() {
    this.#life.abort();
    this.#following.abort();
  }

  send(calls) {
    this.#calls.push(...calls);
    if (this.#calls.length && !this.#sending) this.#sendCalls();
  }

  /** The URL that follows these subscriptions from where they are. */
  address(subscriptions, more = {}) {
    const url = new URL(this.env.url(this.name));
    const { searchParams } = url;
    for (const { channel, token } of subscriptions) {
      searchParams.append("channel", channel);
      if (token.now) searchParams.append("channel_token", token.now);
    }
    const positions = subscriptions.map(({ position }) => position);
    if (positions.some(Boolean)) searchParams.set("cursor", makeCursor(positions));
    else if (subscriptions[0].since) searchParams.set("since", subscriptions[0].since);
    if (this.env.info !== undefined) searchParams.set("info", JSON.stringify(this.env.info));
    for (const [name, value] of Object.entries(more)) searchParams.set(name, value);
    return url.href;
  }

  async request(url, { headers, ...more }) {
    const token = this.env.token();
    const all = { ...this.env.headers, ...(token && { Authorization: `Bearer ${token}` }), ...headers };
    const response = await this.env.fetch(url, { cache: "no-store", headers: all, ...more });
    if (response.ok || response.status === 304) return response;
    throw await RtpushError.ofResponse(response);
  }

  /** Push `subscribed` to the subscriptions of a request that begins at this cursor. */
  subscribed(subscriptions, { cursor, recovered, channel_data }) {
    const positions = cursor.split(",").map(Position.parse);
    for (const [at, subscription] of subscriptions.entries()) {
      const { channel } = subscription;
      const data = channel_data?.[channel];
      const told = { channel, ...positions[at], recovered, ...(data !== undefined && { data }) };
      this.push(subscription, { subscribed: told });
    }
    for (const begun of this.#followed) begun.placed = true;
    this.sync();
  }

  /** What to follow now. `since` is of a whole request: what begins there goes first, until it has a position. */
  #wanted() {
    const all = this.env.subscriptions();
    const fresh = all.filter(({ position, since }) => since && !position);
    return fresh.length ? fresh : all;
  }

  #follow() {
    this.#following.abort();
    if (this.hasEnded) return;
    this.#following = new AbortController();
    const { signal } = this.#following;
    const subscriptions = this.#wanted();
    const placed = ({ position }) => position !== undefined;
    this.#followed = subscriptions.map((one) => ({ subscription: one, shown: one.token.now, placed: placed(one) }));
    this.expectOpen();
    const following = subscriptions.length ? this.follow(subscriptions, signal) : this.#idle(signal);
    following.catch((error) => signal.aborted || this.#failed(error, subscriptions, signal));
  }

  /** Without a channel there is nothing to follow; that the server answers must do. */
  async #idle(signal) {
    await this.#ping(signal);
    if (!signal.aborted) this.opened({});
  }

  #ping(signal) {
    return this.#emit([{ text: JSON.stringify({ id: this.env.nextId(), ping: {} }) }], signal);
  }

  async #failed(error, subscriptions, signal) {
    const { after, silent } = error;
    const refused = await this.#atFault(error, subscriptions, signal);
    if (signal.aborted) return;
    for (const [subscription, why] of refused ?? []) this.events.refused(subscription, why);
    if (refused?.length) return; // the client leaves them out
    this.endBy(error, { after, own: after !== undefined, silent, ...(!refused && { reconnect: !keepsOut(error) }) });
  }

  /**
   * Find which channels of a refused request are at fault, with the error of each; none if it is not for them, nothing
   * at all if the client itself is not let in. Where the error does not name one: by asking for one at a time.
   */
  async #atFault(error, subscriptions, signal) {
    const named = subscriptions.filter(({ channel }) => channel === error.channel);
    if (named.length) return [[named[0], error]];
    // A token that names another channel than the one that it was given for is not found by its name.
    const isOfChannel = ({ code, channel }) => code === INVALID_ERROR || channel !== undefined;
    const isToken = isOfChannel(error) && subscriptions.some(({ token }) => token.now);
    const mayBeOwn = isToken || error.code === UNAUTHORIZED_ERROR || error.name === DENIED_NAME;
    if (!mayBeOwn && !CHANNEL_ERRORS.has(error.code)) return [];
    if (mayBeOwn && !(await this.#isWelcome(signal))) return undefined;
    if (subscriptions.length === 1) return [[subscriptions[0], error]];
    const refused = [];
    for (const subscription of subscriptions) {
      this.expectOpen(); // that takes its time
      try {
        await within(this.env.openTimeout, signal, async (limit) => {
          const response = await this.request(this.address([subscription], { timeout: 0 }), { signal: limit });
          await response.body?.cancel();
        });
      } catch (why) {
        if (isOfChannel(why) || CHANNEL_ERRORS.has(why.code) || why.name === DENIED_NAME) refused.push([subscription, why]);
      }
    }
    return refused;
  }

  /** Ask whether the client itself is let in: by its own token, or by the application. */
  async #isWelcome(signal) {
    this.expectOpen();
    const answered = this.#ping(signal).then(() => true);
    return answered.catch(({ code, name }) => !FINAL_ERRORS.has(code) && name !== DENIED_NAME);
  }

  async #sendCalls() {
    this.#sending = true;
    await undefined; // what is called in the same turn goes together
    let failures = 0;
    for (let batch = this.#nextBatch(); batch.length && !this.hasEnded; batch = this.#nextBatch()) {
      const shown = this.#tokensFor(batch);
      try {
        const replies = await this.#emit(batch, this.#life.signal);
        for (const reply of replies) this.events.reply(reply);
        failures = 0;
      } catch (error) {
        if (this.hasEnded) return;
        const named = this.env.subscriptions().find(({ channel }) => channel === error.channel);
        if (named) this.events.refused(named, error);
        if (error.channel !== undefined && `${this.#tokensFor(batch)}` !== `${shown}`) {
          error.after = 0; // without this token, or with another one, it may be done
        } else if (error.code === EXPIRED_ERROR && this.env.renews) {
          this.events.tokenEnds({});
          error.after = 1;
        } else if (error.status && !error.temporary) {
          for (const { id } of batch) this.events.reply({ id, error });
          continue;
        }
        // Nothing says whether they came through; their idempotency keys make it safe to send them again.
        this.#calls.unshift(...batch);
        if (!this.#followed.length) return this.end({ reason: error.message, after: error.after });
        const delay = error.after ?? backoffDelay(failures++, this.env.backoff, this.env.random());
        await pause(delay, this.#life.signal);
      }
    }
    this.#sending = false;
  }

  /** Take the calls that go next, in their order; without those that wait for the token of their channel. */
  #nextBatch() {
    this.#calls = this.#calls.filter(({ done }) => !done);
    const batch = new Set();
    const tokens = new Set();
    let characters = 0;
    let shown = 0;
    for (const call of this.#calls) {
      const { now, isMissing } = this.env.tokenFor(call.channel) ?? {};
      if (isMissing) continue;
      characters += call.text.length;
      shown += !now || tokens.has(now) ? 0 : now.length;
      const isTooMuch = characters > BATCH_CHARACTERS || shown > URL_CHARACTERS;
      if (batch.size === BATCH || (batch.size && isTooMuch)) break;
      batch.add(call);
      tokens.add(now);
    }
    this.#calls = this.#calls.filter((call) => !batch.has(call));
    return [...batch];
  }

  /** The tokens of the channels of these calls. */
  #tokensFor(calls) {
    return [...new Set(calls.map(({ channel }) => this.env.tokenFor(channel)?.now))].filter(Boolean);
  }

  #emit(calls, signal) {
    const headers = { "Content-Type": "application/json" };
    const url = new URL(this.env.url("emit"));
    for (const token of this.#tokensFor(calls)) url.searchParams.append("channel_token", token);
    return within(CALL_TIMEOUT / 2, signal, async (limit) => {
      const body = `[${calls.map(({ text }) => text).join(",")}]`;
      return (await this.request(url.href, { method: "POST", body, headers, signal: limit })).json();
    });
  }
}

class SseTransport extends HttpTransport {
  name = "sse";
  #heardAt = 0;
  #silence;
  #endedBy; // the code of the last channel of this stream that was ended

  release() {
    clearTimeout(this.#silence);
    super.release();
  }

  async follow(subscriptions, signal) {
    const headers = { Accept: "text/event-stream" };
    const response = await this.request(this.address(subscriptions, { envelope: 1 }), { headers, signal });
    const parser = new SseParser();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (signal.aborted) return;
      if (done) throw new RtpushError("cut", "the event stream ended");
      this.#heardAt = Date.now();
      for (const event of parser.feed(decoder.decode(value, { stream: true }))) {
        this.#take(event, subscriptions);
        if (signal.aborted) return;
      }
    }
  }

  #take({ event, data }, subscriptions) {
    const told = JSON.parse(data);
    if (event === "open") {
      this.#endedBy = undefined;
      this.#watch();
      this.opened(told);
      this.subscribed(subscriptions, told);
    } else if (event === "token_expiring") {
      this.events.tokenEnds(told);
    } else if (event === "disconnect") {
      // One that only says that this stream has no channel left is for the stream; `unsubscribed` was told before.
      if (told.code !== this.#endedBy) this.disconnected(told);
    } else {
      if (event === "unsubscribed") this.#endedBy = told.code;
      const subscription = subscriptions.find(({ channel }) => channel === told.channel);
      if (subscription) this.push(subscription, { [event]: told });
    }
  }

  /** End when nothing, not even a comment, was heard for as long as the server promised. */
  #watch() {
    clearTimeout(this.#silence);
    const left = this.env.silence - (Date.now() - this.#heardAt) / 1000;
    if (left <= 0) this.end({ reason: "no heartbeat", silent: true });
    else this.#silence = later(left, () => this.#watch(), { background: true });
  }
}

/** Polls; subclasses say how long the server may hold one (`timeout`) and how long to rest after its answer. */
class PollTransport extends HttpTransport {
  #etag = {};

  tokenChanged() {} // the next poll has it

  async follow(subscriptions, signal) {
    for (let first = true; !signal.aborted; first = false) {
      const began = Date.now();
      const held = () => (Date.now() - began) / 1000 >= HELD;
      try {
        const { answer, etag } = await this.#poll(subscriptions, first ? 0 : this.timeout, signal);
        if (signal.aborted) return;
        if (first) this.opened(answer ?? {});
        if (answer) this.#take(answer, subscriptions, first, signal);
        // Only what was taken to its end is known: what was dropped must come again.
        if (etag && !signal.aborted) this.#etag = etag;
        const rest = this.rest(answer, first || held());
        if (rest) await pause(rest, signal);
      } catch (error) {
        const cut = (error.status ?? 500) >= 500 && error.after === undefined && !error.silent;
        if (first || signal.aborted || !cut || !held()) throw error;
      }
    }
  }

  async #poll(subscriptions, timeout, signal) {
    const url = this.address(subscriptions, { timeout });
    const headers = this.#etag.url === url ? { "If-None-Match": this.#etag.value } : {};
    try {
      return await within(timeout + this.env.silence, signal, async (limit) => {
        const response = await this.request(url, { headers, signal: limit });
        if (response.status === 304) return {};
        const value = response.headers.get("etag");
        return { answer: await response.json(), etag: value && { url, value } };
      });
    } catch (error) {
      if (error.name === "timeout") error.silent = true;
      throw error;
    }
  }

  #take({ messages, cursor, gaps = [], unsubscribed, disconnect, channel_data }, subscriptions, first, signal) {
    const recovered = gaps.length === 0;
    const began = { cursor: this.#beginning(subscriptions, messages, cursor), recovered, channel_data };
    if (first) this.subscribed(subscriptions, began);
    const pushes = [...gaps.map((gap) => ({ gap })), ...messages.map((message) => ({ message }))];
    if (unsubscribed) pushes.push({ unsubscribed });
    for (const push of pushes) {
      const { channel } = Object.values(push)[0];
      const subscription = subscriptions.find((one) => one.channel === channel);
      if (subscription && !signal.aborted) this.push(subscription, push);
    }
    if (disconnect && !signal.aborted) this.disconnected(disconnect);
  }

  /** The cursor where an answer begins: it names only the one where it ends. */
  #beginning(subscriptions, messages, cursor) {
    const ends = cursor.split(",").map(Position.parse);
    const begin = ({ channel, position }, at) => {
      const first = messages.find((message) => message.channel === channel && message.offset !== undefined);
      return position ?? (first ? new Position(first.epoch, first.offset - 1) : ends[at]);
    };
    return makeCursor(subscriptions.map(begin));
  }
}

class LongPollTransport extends PollTransport {
  name = "longpoll";

  get timeout() {
    return this.env.poll.timeout;
  }

  /** None, but after an empty answer that was not held as it was asked to be: not as fast as the network allows. */
  rest(answer, asAsked) {
    return asAsked || answer?.messages.length ? 0 : 1;
  }
}

class ShortPollTransport extends PollTransport {
  name = "shortpoll";
  timeout = 0;

  /** None after an answer that brought something: it may have been a part, or of one channel only. */
  rest(answer) {
    return answer?.messages.length ? 0 : Math.max(1, this.env.poll.max_age);
  }
}

const TRANSPORTS = {
  websocket: WebSocketTransport,
  sse: SseTransport,
  longpoll: LongPollTransport,
  shortpoll: ShortPollTransport,
};
const ORDER = Object.keys(TRANSPORTS);

// -- What an application uses -----------------------------------------------------------------------------------------

/**
 * One channel that is followed. Events: `message`, `gap`, `subscribed`, `unsubscribed`, `join`, `leave`, `error` (one
 * that is not `temporary` ends the subscription).
 */
export class Subscription extends Emitter {
  /** The position of the last message, or where delivery begins; undefined until the server has told it. */
  position;
  isRenewing = false; // its token
  failures = 0; // to get a good one, in a row
  #forget;

  constructor(channel, { position, since, token }, forget) {
    super();
    this.channel = channel;
    this.position = position;
    this.since = since;
    this.token = new Token(token);
    this.#forget = forget;
  }

  unsubscribe() {
    if (this.#forget(this)) this.emit("unsubscribed", { channel: this.channel, reason: "by the client" });
  }
}

/** A client of one rtpush server. Events: `state`, `transport`, `attempt`, `connected`, `error`, `disconnect`. */
export class Client extends Emitter {
  #options;
  #base;
  #terms; // what /negotiate said
  #state = "closed";
  #begun = false;
  #over = false;
  #life = new AbortController();
  #retryNow = () => {};

  #subscriptions = new Map(); // channel -> Subscription
  #syncing = false;
  #calls = new Map(); // id -> call
  #lastId = 0;
  #key = crypto.getRandomValues(new Uint32Array(3)).join("-");

  #transports = new Set(); // those that have not ended
  #current; // the one that carries
  #carried; // the name of the last that carried
  #connection;
  #token;
  #preferred; // the name of the one to try first
  #why = "the first that works"; // the reason for the next change
  #attempts = 0;
  #shortLives = {}; // name -> how many in a row
  #climbs = 0; // how many came to nothing
  #climbAt; // when to try a better transport, in milliseconds
  #climbTimer;

  constructor(baseUrl, options = {}) {
    super();
    const {
      direction = "duplex",
      transports = direction === "rare" ? ORDER : ORDER.slice(0, -1),
      openTimeout = 5,
      climbAfter = 60,
      climbMax = LONGEST_CLIMB,
      random = Math.random,
      WebSocket = globalThis.WebSocket,
      fetch = globalThis.fetch,
      // Even to look at it may throw (in a sandboxed frame); Node's is not meant for this.
      storage = quietly(() => globalThis.document && globalThis.localStorage),
    } = options;
    const unknown = transports.find((name) => !ORDER.includes(name));
    if (unknown) throw new TypeError(`no such transport: ${unknown}; expected ${ORDER.join(", ")}`);
    this.#options = { ...options, direction, transports, openTimeout, climbAfter, climbMax, random, WebSocket, storage };
    this.#token = new Token(options.token);
    this.#options.fetch = (...request) => fetch(...request); // a browser's must not be called as a method of another
    const base = new URL(baseUrl, globalThis.location?.href);
    this.#base = new URL(base.pathname.replace(/\/*$/, "/"), base);
  }

  get state() {
    return this.#state;
  }

  get transport() {
    return this.#current?.name;
  }

  get connection() {
    return this.#connection;
  }

  cursor(channels) {
    return makeCursor(channels.map((channel) => this.#subscriptions.get(channel)?.position));
  }

  connect() {
    if (this.#begun || this.#over) return;
    this.#begun = true;
    this.#preferred = this.#options.transports.find((name) => name === this.#recall());
    this.#listenToPage();
    this.#setState("connecting", "connect");
    this.#dial(0);
  }

  subscribe(channel, { cursor = "-", since, token } = {}) {
    this.#mustLive();
    if (!CHANNEL_NAME.test(channel)) throw new TypeError(`not the name of a channel: ${channel}`);
    const known = this.#subscriptions.get(channel);
    if (known) return known;
    const begin = { position: Position.parse(String(cursor)), since, token };
    const subscription = new Subscription(channel, begin, (one) => this.#forget(one));
    this.#subscriptions.set(channel, subscription);
    if (subscription.token.isMissing) this.#renewTokenFor(subscription);
    this.#changed();
    this.connect();
    return subscription;
  }

  async publish(channel, data, { event, idempotencyKey, history } = {}) {
    const idempotency_key = idempotencyKey ?? `${this.#key}-${++this.#lastId}`;
    return this.#call("publish", { channel, ...payloadFields(data), event, idempotency_key, history });
  }

  async history(channel, { since, limit, reverse } = {}) {
    const from = since === undefined ? undefined : String(since);
    const { messages, ...newest } = await this.#call("history", { channel, since: from, limit, reverse });
    return { messages: messages.map(fromEnvelope), ...newest };
  }

  async presence(channel) {
    return this.#call("presence", { channel });
  }

  close() {
    this.#finish("close");
  }

  // Connecting

  /** Wait, then try the transports, until one is open. Runs only while there is no current one. */
  async #dial(delay) {
    for (let wait = delay; wait !== undefined; wait = this.#over ? undefined : await this.#tryTransports()) {
      if (!wait) continue;
      const next = this.#preferred ?? (this.#terms?.order ?? this.#options.transports)[0];
      this.emit("attempt", { transport: next, attempt: this.#attempts, delay: wait });
      const waiting = new AbortController();
      this.#retryNow = () => waiting.abort();
      await pause(wait, waiting.signal);
    }
  }

  /** Try each transport once, from the preferred one down. Returns the seconds to wait; undefined if that is all. */
  async #tryTransports() {
    try {
      if (this.#token.isMissing) await this.#token.renew();
    } catch (error) {
      if (!this.#over) this.emit("error", error);
      return this.#over ? undefined : this.#nextDelay();
    }
    const refused = await this.#negotiate();
    if (this.#over) return undefined;
    if (refused) return refused.after ?? this.#finish(refused.message);
    const { order } = this.#terms;
    if (!order.length) return this.#finish("the server and this client have no transport in common");
    for (const name of order.slice(Math.max(0, order.indexOf(this.#preferred)))) {
      this.emit("attempt", { transport: name, attempt: this.#attempts });
      const end = await this.#launch(name);
      if (!end || this.#over) return undefined;
      this.#why = `${name}: ${end.reason}`;
      this.emit("error", new RtpushError("no_connection", this.#why, { temporary: end.reconnect, code: end.code }));
      if (!this.#mayComeBack(end)) return this.#finish(end.reason);
      if (end.expired) return this.#nextDelay();
      if (end.after !== undefined) return end.after;
    }
    this.#preferred = undefined;
    this.#terms = undefined;
    return this.#nextDelay();
  }

  /** The client's own token ends soon: have the transport that carries go on with another one. */
  async #renewToken() {
    if (!this.#token.renews) return;
    try {
      await this.#token.renew();
      this.#current?.tokenChanged();
    } catch (error) {
      if (!this.#over) this.emit("error", error); // when it has ended, it is asked for again
    }
  }

  /** Have the application give another token for a channel. While there is none, ask again and again. */
  async #renewTokenFor(subscription) {
    const { channel, token } = subscription;
    const isFollowed = () => !this.#over && this.#subscriptions.get(channel) === subscription;
    if (!token.renews || subscription.isRenewing) return;
    subscription.isRenewing = true;
    do {
      if (subscription.failures) await pause(this.#delayAfter(subscription.failures - 1), this.#life.signal);
      if (!isFollowed()) break;
      try {
        await token.renew();
        if (token.isMissing) throw new TypeError("the application gave none");
      } catch (error) {
        subscription.failures += 1;
        const told = new RtpushError("no_token", `${channel}: no token: ${error.message}`, { temporary: true });
        if (isFollowed()) subscription.emit("error", told);
      }
    } while (token.isMissing);
    subscription.isRenewing = false;
    this.#changed();
  }

  /** Whether there is a point in coming back; where a token has ended, only with another one. */
  #mayComeBack({ reconnect, expired }) {
    if (expired) this.#token.forget();
    return reconnect && !(expired && !this.#token.renews);
  }

  /** Ask the server for its terms; without an answer the defaults do. Returns an error that forbids to go on now. */
  async #negotiate() {
    if (this.#terms && !this.#terms.guessed) return undefined;
    const { transports, direction, headers, fetch, WebSocket, openTimeout } = this.#options;
    const usable = transports.filter((name) => name !== "websocket" || WebSocket);
    const url = new URL("negotiate", this.#base);
    url.search = new URLSearchParams({ direction, transports: usable.join(",") });
    try {
      const answer = await within(openTimeout, this.#life.signal, async (signal) => {
        const response = await fetch(url.href, { headers, signal, cache: "no-store" });
        if (!response.ok) throw await RtpushError.ofResponse(response);
        return response.json();
      });
      const offers = answer.transports.filter(({ transport }) => usable.includes(transport));
      const urls = Object.fromEntries(offers.map((offer) => [offer.transport, offer.url]));
      this.#terms = { ...DEFAULT_TERMS, ...answer, urls, order: Object.keys(urls) };
      return undefined;
    } catch (error) {
      this.#terms = { ...DEFAULT_TERMS, order: usable, guessed: true };
      if (!this.#over) this.emit("error", error);
      return FINAL_ERRORS.has(error.code) || error.after !== undefined ? error : undefined;
    }
  }

  /** Start a transport. Resolves to nothing when it is open and carries, or to its end if that came before. */
  #launch(name) {
    return new Promise((resolve) => {
      const transport = new TRANSPORTS[name](this.#lend(), {
        open: ({ connection, data }) => {
          this.#connection = connection;
          if (transport !== this.#current) this.#adopt(transport);
          this.emit("connected", { transport: name, connection, data });
          resolve(undefined);
        },
        push: (subscription, push) => this.#take(subscription, push),
        reply: (reply) => this.#settle(reply),
        refused: (subscription, error) => this.#refused(subscription, error),
        emit: (kind, event) => this.emit(kind, event),
        tokenEnds: ({ channel }) => {
          const subscription = this.#subscriptions.get(channel);
          if (channel === undefined) this.#renewToken();
          else if (subscription) this.#renewTokenFor(subscription);
        },
        closed: (end) => {
          this.#transports.delete(transport);
          if (transport === this.#current) this.#lost(transport, end);
          resolve(end);
        },
      });
      this.#transports.add(transport);
      try {
        transport.start();
      } catch (error) {
        transport.end({ reason: error.message });
      }
    });
  }

  /** What a transport may use of the client. */
  #lend() {
    const terms = this.#terms;
    const { heartbeat = terms.heartbeat, backoff = terms.backoff } = this.#options;
    return {
      ...terms,
      ...this.#options,
      heartbeat,
      backoff,
      // The server speaks as often as it said; a shorter heartbeat of ours does not change that.
      silence: (terms.guessed ? heartbeat : Math.max(heartbeat, terms.heartbeat)) + terms.heartbeat_grace,
      nextId: () => ++this.#lastId,
      token: () => this.#token.now,
      tokenFor: (channel) => this.#subscriptions.get(channel)?.token,
      renews: this.#token.renews,
      // Those that wait for a token are left out until it is there.
      subscriptions: () => [...this.#subscriptions.values()].filter(({ token }) => !token.isMissing),
      url: (name) => {
        const url = new URL((terms.urls[name] ?? terms[name]).replace(/^\//, "./"), this.#base);
        if (name === "websocket") url.protocol = url.protocol.replace("http", "ws");
        return url.href;
      },
    };
  }

  /** From now on this transport carries. It goes on from where the last one was: nothing is lost or doubled. */
  #adopt(transport) {
    const [replaced, previous] = [this.#current, this.#carried];
    this.#current = transport;
    this.#carried = this.#preferred = transport.name;
    this.#attempts = 0;
    this.#remember(this.#better.length ? transport.name : undefined); // the best need not be remembered
    replaced?.end({ reason: "replaced by a better transport" });
    this.emit("transport", { transport: transport.name, previous, reason: this.#why });
    this.#setState("open", transport.name);
    transport.sync();
    this.#sendCalls([...this.#calls.values()]);
    this.#planClimb();
  }

  #lost(transport, end) {
    const { name } = transport;
    this.#current = undefined;
    this.#connection = undefined;
    clearTimeout(this.#climbTimer);
    this.#endProbe();
    this.emit("transport", { transport: undefined, previous: name, reason: end.reason });
    if (this.#over) return undefined;
    if (!this.#mayComeBack(end)) return this.#finish(end.reason);
    this.#why = `${name}: ${end.reason}`;
    const { order } = this.#terms;
    const next = order[order.indexOf(name) + 1];
    if (this.#isUnsteady(transport, end) && next) {
      this.#preferred = next;
      this.#climbFailed();
    } else if (!this.#shortLives[name] && name === order[0]) {
      this.#climbs = 0;
    }
    this.#setState("connecting", end.reason);
    // While it was good, a token has let the transport open: with another one there is no reason to wait.
    this.#dial(end.expired ? 0 : (end.after ?? this.#nextDelay()));
    return undefined;
  }

  /** Count the lives of a transport that were cut short. Once it had too many in a row, one more is enough. */
  #isUnsteady({ name, openedAt }, { own, silent }) {
    if (own) return false;
    const short = silent || Date.now() - openedAt < SHORT_LIFE * 1000;
    const lives = short ? (this.#shortLives[name] ?? 0) + 1 : 0;
    this.#shortLives[name] = Math.min(lives, MOST_SHORT_LIVES - 1);
    return lives === MOST_SHORT_LIVES;
  }

  #nextDelay() {
    return this.#delayAfter(this.#attempts++);
  }

  #delayAfter(attempts) {
    const backoff = this.#options.backoff ?? this.#terms?.backoff ?? DEFAULT_TERMS.backoff;
    return backoffDelay(attempts, backoff, this.#options.random());
  }

  // Climbing

  get #better() {
    const { order } = this.#terms;
    return order.slice(0, Math.max(0, order.indexOf(this.#current?.name)));
  }

  #planClimb() {
    clearTimeout(this.#climbTimer);
    const { climbAfter, climbMax } = this.#options;
    if (!this.#better.length) this.#climbAt = undefined;
    if (!this.#better.length || !climbAfter) return;
    // Kept when this transport is lost and comes back: one that is cut now and then must not put it off for ever.
    this.#climbAt ??= Date.now() + Math.min(climbAfter * 2 ** this.#climbs, climbMax) * 1000;
    this.#climbTimer = later((this.#climbAt - Date.now()) / 1000, () => this.#climb(), { background: true });
  }

  /** Try the better transports, best first, while the current one goes on carrying. */
  async #climb() {
    const current = this.#current;
    for (const name of this.#better) {
      this.emit("attempt", { transport: name, attempt: this.#climbs });
      this.#why = `better than ${current.name}`;
      const end = await this.#launch(name);
      if (!end || this.#current !== current) return;
    }
    this.#climbFailed();
    this.#planClimb();
  }

  #climbFailed() {
    this.#climbs += 1;
    this.#climbAt = undefined;
  }

  /** End a transport that is being tried while the current one carries. */
  #endProbe() {
    const unused = [...this.#transports].filter((transport) => transport !== this.#current);
    for (const transport of unused) transport.end({ reason: "not needed any more" });
  }

  // What comes

  #take(subscription, push) {
    if (this.#subscriptions.get(subscription.channel) !== subscription) return;
    const [[kind, told]] = Object.entries(push);
    if (kind === "message") return this.#takeMessage(subscription, told);
    if (kind === "subscribed") {
      subscription.failures = 0;
      // A position that is known stays: the server goes on from it, or tells a gap.
      subscription.position ??= new Position(told.epoch, told.offset);
      Object.assign(told, subscription.position);
    } else if (kind === "gap") {
      subscription.position = new Position(told.epoch, told.offset);
      this.#endProbe(); // it began before the gap and would tell it again
    } else if (kind === "unsubscribed" && told.code === EXPIRED && subscription.token.renews) {
      return this.#expired(subscription);
    } else if (kind === "unsubscribed") {
      this.#forget(subscription);
    }
    subscription.emit(kind, told);
  }

  /** The server does not give a channel: for good, for a while, or until there is another token. */
  #refused(subscription, error) {
    if (error.code === EXPIRED_ERROR && subscription.token.renews) {
      subscription.failures += 1;
      return this.#expired(subscription);
    }
    if (!error.temporary) this.#forget(subscription);
    else later(REFUSED_FOR * (1 + this.#options.random()), () => this.#changed(), { background: true });
    subscription.emit("error", error);
  }

  /** The token of a channel has ended: go on with another one, from where this one was. */
  #expired(subscription) {
    subscription.token.forget();
    this.#changed();
    this.#renewTokenFor(subscription);
  }

  #takeMessage(subscription, envelope) {
    const { channel, epoch, offset } = envelope;
    const verdict = judge(subscription.position, envelope);
    if (verdict === "hole") {
      // No server should do this. Coming back from our position brings what is missing, or a gap that is told.
      this.#current.end({ reason: `${channel}: ${epoch}:${offset} came after ${subscription.position}` });
    } else if (verdict === "next") {
      if (offset !== undefined) subscription.position = new Position(epoch, offset);
      subscription.emit("message", fromEnvelope(envelope));
    }
  }

  #forget(subscription) {
    if (this.#subscriptions.get(subscription.channel) !== subscription) return false;
    this.#subscriptions.delete(subscription.channel);
    this.#changed();
    return true;
  }

  /** Tell the transports of changed subscriptions: once for all changes of one turn. */
  #changed() {
    if (this.#syncing) return;
    this.#syncing = true;
    queueMicrotask(() => {
      this.#syncing = false;
      for (const transport of this.#transports) transport.sync();
    });
  }

  // Calls

  #call(kind, fields) {
    this.#mustLive();
    if (this.#calls.size >= MOST_CALLS) {
      throw new RtpushError("too_many_calls", `${MOST_CALLS} calls wait for an answer`, { temporary: true });
    }
    const id = ++this.#lastId;
    const text = JSON.stringify({ id, [kind]: fields });
    return new Promise((resolve, reject) => {
      const { channel } = fields;
      const call = { id, text, kind, channel, resolve, reject, done: false, timer: undefined };
      this.#calls.set(id, call);
      if (this.#current) this.#sendCalls([call]);
      this.connect();
    });
  }

  #sendCalls(calls) {
    const what = `no answer within ${CALL_TIMEOUT} s: it may have been carried out`;
    const slow = ({ id }) => this.#settle({ id, error: new RtpushError("timeout", what, { temporary: true }) });
    for (const call of calls) call.timer ??= later(CALL_TIMEOUT, () => slow(call));
    this.#current.send(calls);
  }

  #settle(reply) {
    const call = this.#calls.get(reply.id);
    if (!call) return;
    this.#calls.delete(reply.id);
    clearTimeout(call.timer);
    call.done = true;
    if (!reply.error) call.resolve(reply[call.kind]);
    else call.reject(reply.error instanceof Error ? reply.error : RtpushError.told(reply.error));
  }

  // The rest

  get #memory() {
    return `rtpush:${this.#base}`;
  }

  #recall() {
    const { transport, until } = quietly(() => JSON.parse(this.#options.storage.getItem(this.#memory))) ?? {};
    return Date.now() < until ? transport : undefined;
  }

  #remember(transport) {
    const text = JSON.stringify({ transport, until: Date.now() + MEMORY * 1000 });
    quietly(() => this.#options.storage.setItem(this.#memory, text));
  }

  /** When the network comes back, or a page out of the browser's cache, there is no point in waiting. */
  #listenToPage() {
    const { signal } = this.#life;
    const retry = () => {
      this.#retryNow();
      this.#current?.poke();
      this.#climbs = 0;
      this.#climbAt = undefined;
      if (this.#current) this.#planClimb();
    };
    globalThis.addEventListener?.("online", retry, { signal });
    globalThis.addEventListener?.("pageshow", ({ persisted }) => persisted && retry(), { signal });
  }

  #mustLive() {
    if (this.#over) throw new RtpushError("closed", "this client is closed");
  }

  #finish(reason) {
    if (this.#over) return;
    this.#over = true;
    this.#setState("closing", reason);
    this.#life.abort();
    this.#retryNow();
    clearTimeout(this.#climbTimer);
    for (const transport of this.#transports) transport.end({ reason });
    for (const id of this.#calls.keys()) this.#settle({ id, error: new RtpushError("closed", reason) });
    this.#setState("closed", reason);
  }

  #setState(state, reason) {
    const previous = this.#state;
    if (state === previous) return;
    this.#state = state;
    this.emit("state", { state, previous, reason });
  }
}
