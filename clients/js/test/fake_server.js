// An rtpush server without sockets: what the client is given as `fetch` and `WebSocket`. It speaks docs/protocol.rst as
// far as the client needs it, and does to a transport what the network may do to it.

import { mock } from "node:test";
import { makeCursor, Position } from "../../../rtpush/static/client/rtpush.js";

/** Let everything that waits for no timer happen. */
export async function settle() {
  for (let turn = 0; turn < 8; turn += 1) await new Promise(setImmediate);
}

/** Let time pass, in steps short enough for what each of them sets off. Needs mock timers. */
export async function pass(seconds) {
  await settle();
  for (let left = Math.round(seconds * 10); left > 0; left -= 1) {
    mock.timers.tick(100);
    await settle();
  }
}

const json = (body, more = {}) => Response.json(body, more);

export function problem(code, name, status, headers = {}) {
  const temporary = [429, 503, 500].includes(status);
  return json({ error: { code, name, message: `${name} it is`, temporary } }, { status, headers });
}

export class FakeServer {
  base = "http://push.test/app/";
  heartbeat = 30;
  poll = { timeout: 25, max_age: 2 };
  /** What the network does to a path: "refuse" (no connection), "swallow" (no answer), "mute" (silent after opening),
   * or a function that makes the answer, of the query and of a function that does what would have been done. */
  network = {};
  ranked = ["websocket", "sse", "longpoll"];
  /** Channels that do not exist. */
  unknown = new Set();
  /** Channels that need a token of their own: `CHANNEL/NUMBER`; and tokens that have ended. */
  locked = new Set();
  ended = new Set();
  /** What the application says: to a client; about channels; why it lets nobody in; why nobody may follow a channel. */
  greeting;
  channelData = {};
  keptOut;
  denied = {};
  kept = 1000;
  /** All requests, as [path, query]; WebSocket frames as ["frame", command]. */
  log = [];
  sockets = [];
  streams = [];
  polls = [];
  #channels = new Map();
  #keys = new Map();
  #connections = 0;

  constructor() {
    this.fetch = (url, init) => this.#fetch(new URL(url), init);
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        super(server, new URL(url), protocols);
      }
    };
  }

  options(more = {}) {
    return { fetch: this.fetch, WebSocket: this.WebSocket, random: () => 0, ...more };
  }

  channel(name) {
    if (!this.#channels.has(name)) this.#channels.set(name, { epoch: "e1", offset: 0, messages: [] });
    return this.#channels.get(name);
  }

  /** The channel's history begins again. */
  newEpoch(name, epoch) {
    this.#channels.set(name, { epoch, offset: 0, messages: [] });
  }

  publish(name, data, { event, history = true, key } = {}) {
    if (key && this.#keys.has(key)) return this.#keys.get(key);
    const channel = this.channel(name);
    const envelope = { channel: name, event, data };
    if (history) {
      channel.offset += 1;
      Object.assign(envelope, { offset: channel.offset, epoch: channel.epoch });
      channel.messages.push(envelope);
      channel.messages.splice(0, channel.messages.length - this.kept);
    }
    for (const one of [...this.sockets, ...this.streams, ...this.polls]) one.deliver(envelope);
    const result = history ? { epoch: channel.epoch, offset: channel.offset } : {};
    if (key) this.#keys.set(key, result);
    return result;
  }

  count(path) {
    return this.log.filter(([one]) => one === path).length;
  }

  /** Cut all connections, as a network does. */
  cut() {
    for (const one of [...this.sockets, ...this.streams, ...this.polls]) one.cut();
  }

  connection() {
    this.#connections += 1;
    return `c${this.#connections}`;
  }

  /** Where a subscription begins, what it gets at once, and the gap if there is one. */
  begin(name, text, since) {
    const { epoch, offset, messages } = this.channel(name);
    const from = text && Position.parse(text);
    const oldest = offset - messages.length;
    if (!from)
      return {
        at: new Position(epoch, since === "earliest" ? oldest : offset),
        messages: since === "earliest" ? messages : [],
      };
    let reason;
    if (from.epoch !== epoch) reason = "epoch_changed";
    else if (from.offset > offset) reason = "position_ahead";
    else if (from.offset < oldest) reason = "history_lost";
    if (reason) return { at: new Position(epoch, offset), messages: [], gap: { channel: name, epoch, offset, reason } };
    return { at: from, messages: messages.filter((message) => message.offset > from.offset) };
  }

  /** What is wrong with the client, with these channels, or with the tokens for them. */
  refusal(channels, tokens) {
    const denied = this.keptOut ?? channels.map((name) => this.denied[name]).find(Boolean);
    if (denied) return { name: "permission_denied", status: 403, ...denied };
    for (const token of tokens) {
      const [channel, number] = token.split("/");
      if (number === undefined) return { code: 117, name: "invalid_token", message: "that is none", status: 401 };
      if (this.ended.has(token)) return { code: 118, name: "token_expired", message: "over", status: 401, channel };
    }
    const lacks = channels.some((one) => this.locked.has(one) && !tokens.some((token) => token.startsWith(`${one}/`)));
    return lacks ? { code: 101, name: "unauthorized", message: "a token is needed", status: 401 } : undefined;
  }

  command({ id, ...command }, tokens) {
    const [[kind, fields]] = Object.entries(command);
    const reply = {};
    if (kind === "publish" && this.refusal([fields.channel], tokens)) {
      reply.error = this.refusal([fields.channel], tokens);
    } else if (kind === "publish" && this.unknown.has(fields.channel)) {
      reply.error = { code: 104, name: "unknown_channel", message: "there is none", temporary: false };
    } else if (kind === "publish") {
      reply.publish = this.publish(fields.channel, fields.data, {
        event: fields.event,
        history: fields.history,
        key: fields.idempotency_key,
      });
    } else if (kind === "history") {
      const { epoch, offset, messages } = this.channel(fields.channel);
      reply.history = { messages, epoch, offset };
    } else {
      reply[kind] = kind === "presence" ? { connections: [] } : {};
    }
    return { id, ...reply };
  }

  #fetch(url, init = {}, through = false) {
    const { headers = {}, body, signal } = init;
    const path = url.pathname.replace("/app/", "");
    const query = Object.fromEntries(url.searchParams);
    query.channels = url.searchParams.getAll("channel");
    query.tokens = url.searchParams.getAll("channel_token");
    query.headers = headers;
    this.log.push([path, query]);
    return new Promise((resolve, reject) => {
      const abort = () => reject(signal.reason);
      if (signal?.aborted) return abort();
      signal?.addEventListener("abort", abort);
      const what = through ? undefined : this.network[path];
      if (what === "swallow") return undefined;
      if (what === "refuse") return reject(new TypeError("fetch failed"));
      if (typeof what === "function") return resolve(what(query, () => this.#fetch(url, init, true)));
      if (path === "negotiate") return resolve(json(this.#terms(query)));
      const refusal = this.refusal(query.channels, query.tokens);
      if (refusal) return resolve(json({ error: { temporary: false, ...refusal } }, { status: refusal.status }));
      if (path === "emit") return this.#emit(JSON.parse(body), query.tokens, resolve, reject);
      const wrong = query.channels.find((name) => this.unknown.has(name));
      if (wrong) return resolve(problem(104, "unknown_channel", 404));
      if (path === "sse") return resolve(new FakeStream(this, query, signal).response);
      if (path === "poll") return new FakePoll(this, query, signal, resolve, reject);
      return resolve(problem(114, "not_found", 404));
    });
  }

  #terms({ transports }) {
    const urls = { websocket: "/ws", sse: "/sse", longpoll: "/poll", shortpoll: "/poll" };
    const offered = this.ranked.filter((name) => transports.split(",").includes(name));
    return {
      transports: offered.map((transport) => ({ transport, url: urls[transport], reason: "" })),
      emit: "/emit",
      heartbeat: this.heartbeat,
      heartbeat_grace: 10,
      backoff: { base: 1, max: 30, jitter: 1 },
      poll: this.poll,
    };
  }

  #emit(commands, tokens, resolve, reject) {
    const replies = commands.map((command) => this.command(command, tokens));
    // The request comes through, the answer does not.
    if (this.network["emit answer"] === "cut") reject(new TypeError("fetch failed"));
    else resolve(json(replies));
  }
}

class FakeSocket {
  readyState = 0;
  #server;
  #joined = new Map(); // channel -> the token for it

  constructor(server, url, protocols) {
    this.#server = server;
    this.protocols = protocols;
    server.log.push(["ws", { url: url.href }]);
    setImmediate(() => {
      if (server.network.ws === "swallow" || this.readyState !== 0) return;
      if (server.network.ws === "refuse") return this.#close(1006, "");
      if (typeof server.network.ws === "number") return this.#close(server.network.ws, "told so");
      this.readyState = 1;
      server.sockets.push(this);
      this.onopen({});
    });
  }

  send(text) {
    for (const command of [JSON.parse(text)].flat()) {
      this.#server.log.push(["frame", command]);
      if (this.#server.network.ws !== "mute") setImmediate(() => this.#take(command));
    }
  }

  close() {
    setImmediate(() => this.#close(1005, ""));
  }

  cut() {
    this.#close(1006, "");
  }

  deliver(envelope) {
    if (this.#joined.has(envelope.channel)) this.push({ message: envelope });
  }

  push(object) {
    if (this.readyState === 1 && this.#server.network.ws !== "mute") this.onmessage({ data: JSON.stringify(object) });
  }

  #take({ id, ...command }) {
    if (this.readyState !== 1) return;
    const { connect, subscribe, unsubscribe, refresh } = command;
    const { heartbeat, greeting, keptOut } = this.#server;
    if (connect && keptOut) this.#keepOut(id, keptOut);
    else if (connect) this.push({ id, connect: { connection: this.#server.connection(), heartbeat, data: greeting } });
    else if (subscribe) this.#subscribe(id, subscribe);
    else if (unsubscribe) this.#joined.delete(unsubscribe.channel);
    else {
      const channel = refresh?.token.split("/")[0];
      if (this.#joined.has(channel)) this.#joined.set(channel, refresh.token);
      const reply = this.#server.command({ id, ...command }, [...this.#joined.values()].filter(Boolean));
      if (command.publish && this.#server.network["ws reply"] === "cut") this.cut();
      this.push(reply);
    }
  }

  #keepOut(id, error) {
    const code = error.code >= 4000 ? error.code : 4503;
    this.push({ id, error: { name: "permission_denied", temporary: false, ...error } });
    this.push({ disconnect: { code, reason: error.message, reconnect: code < 4500 } });
    this.#close(code, error.message);
  }

  /** End a subscription. */
  unsubscribe(channel, code) {
    this.#joined.delete(channel);
    this.push({ unsubscribed: { channel, code, reason: "told so" } });
  }

  #subscribe(id, { channel, cursor, since, token }) {
    const refusal = this.#server.refusal([channel], token ? [token] : []);
    if (refusal) return this.push({ id, error: { temporary: false, ...refusal } });
    if (this.#server.unknown.has(channel)) {
      return this.push({ id, error: { code: 104, name: "unknown_channel", message: "none", temporary: false } });
    }
    const { at, messages, gap } = this.#server.begin(channel, cursor, since);
    this.#joined.set(channel, token);
    const data = this.#server.channelData[channel];
    this.push({ id, subscribe: { channel, epoch: at.epoch, offset: at.offset, recovered: !gap, data } });
    if (gap) this.push({ gap });
    for (const message of messages) this.push({ message });
    return undefined;
  }

  #close(code, reason) {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.#server.sockets = this.#server.sockets.filter((one) => one !== this);
    this.onclose({ code, reason });
  }
}

class FakeStream {
  #server;
  #controller;
  #channels;
  #heartbeat;

  constructor(server, { channels, cursor, since }, signal) {
    this.#server = server;
    this.#channels = channels;
    const start = (controller) => (this.#controller = controller);
    const body = new ReadableStream({ start, cancel: () => this.cut() });
    this.response = new Response(body, { headers: { "content-type": "text/event-stream" } });
    signal.addEventListener("abort", () => this.cut(signal.reason));
    if (server.network.sse === "buffer") return;
    const texts = cursor?.split(",") ?? [];
    const begun = channels.map((name, at) => server.begin(name, texts[at], since));
    server.streams.push(this);
    const opening = {
      connection: server.connection(),
      cursor: makeCursor(begun.map(({ at }) => at)),
      recovered: begun.every(({ gap }) => !gap),
      data: server.greeting,
      channel_data: server.channelData,
    };
    this.event("open", opening);
    for (const { messages, gap } of begun) {
      if (gap) this.event("gap", gap);
      for (const message of messages) this.deliver(message);
    }
    this.#beat();
  }

  #beat() {
    this.#heartbeat = setTimeout(() => {
      if (this.#server.network.sse !== "mute") this.write(":\n\n");
      this.#beat();
    }, this.#server.heartbeat * 1000);
  }

  event(name, data) {
    this.write(`${name === "message" ? "" : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`);
  }

  write(text) {
    this.#controller.enqueue(new TextEncoder().encode(text));
  }

  /** End a subscription, and the stream if it was the last one. */
  unsubscribe(channel, code) {
    this.#channels = this.#channels.filter((one) => one !== channel);
    const data = (told) => JSON.stringify({ code, reason: "told so", ...told });
    const farewell = this.#channels.length ? "" : `event: disconnect\ndata: ${data({ reconnect: code < 4500 })}\n\n`;
    this.write(`event: unsubscribed\ndata: ${data({ channel })}\n\n${farewell}`);
    if (!farewell) return;
    this.#server.streams = this.#server.streams.filter((one) => one !== this);
    clearTimeout(this.#heartbeat);
    this.#controller.close();
  }

  deliver(envelope) {
    if (this.#server.network.sse !== "mute" && this.#channels.includes(envelope.channel))
      this.event("message", envelope);
  }

  cut(reason = new TypeError("terminated")) {
    clearTimeout(this.#heartbeat);
    this.#server.streams = this.#server.streams.filter((one) => one !== this);
    try {
      this.#controller.error(reason);
    } catch {
      // It has ended already.
    }
  }
}

class FakePoll {
  #server;
  #reject;
  #resolve;
  #positions;
  #timer;
  #said = {};

  constructor(server, { channels, cursor, since, timeout, headers }, signal, resolve, reject) {
    this.#server = server;
    this.#reject = reject;
    this.#resolve = resolve;
    const texts = cursor?.split(",") ?? [];
    const begun = channels.map((name, at) => server.begin(name, texts[at], since));
    this.#positions = new Map(channels.map((name, at) => [name, begun[at].at]));
    const { greeting: data, channelData: channel_data } = server;
    if (!texts.length || texts.includes("-")) this.#said = { data, channel_data };
    signal.addEventListener("abort", () => this.#forget());
    const gaps = begun.map(({ gap }) => gap).filter(Boolean);
    const messages = begun.flatMap((one) => one.messages);
    if (gaps.length || messages.length || timeout === "0") this.#answer(messages, gaps, headers["If-None-Match"]);
    else this.#timer = setTimeout(() => this.#answer([], []), Number(timeout) * 900);
    if (!this.#timer) return;
    server.polls.push(this);
  }

  deliver(envelope) {
    if (this.#positions.has(envelope.channel)) this.#answer([envelope], []);
  }

  cut() {
    this.#forget();
    this.#reject(new TypeError("terminated"));
  }

  disconnect(told) {
    this.#answer([], [], undefined, { disconnect: told });
  }

  /** End a subscription. */
  unsubscribe(channel, code) {
    this.#answer([], [], undefined, { unsubscribed: { channel, code, reason: "told so" } });
  }

  #answer(messages, gaps, known, more = {}) {
    this.#forget();
    for (const { channel, epoch, offset } of messages)
      if (offset) this.#positions.set(channel, new Position(epoch, offset));
    const cursor = makeCursor([...this.#positions.values()]);
    const headers = { etag: `"${cursor}"` };
    if (known === headers.etag) return this.#resolve(new Response(null, { status: 304, headers }));
    const wrong = gaps.length ? { recovered: false, gaps } : {};
    return this.#resolve(json({ messages, cursor, recovered: true, ...wrong, ...this.#said, ...more }, { headers }));
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#server.polls = this.#server.polls.filter((one) => one !== this);
  }
}
