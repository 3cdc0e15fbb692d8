// Tokens for single channels, on every transport. Time is mocked.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { Client } from "../../../rtpush/static/client/rtpush.js";
import { FakeServer, pass, problem } from "./fake_server.js";

const EXPIRED = 4004;
const TRANSPORTS = ["websocket", "sse", "longpoll", "shortpoll"];

let server;
let client;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  server = new FakeServer();
  server.locked.add("demo:a");
});

afterEach(() => {
  client?.close();
  client = undefined;
  mock.timers.reset();
});

/** Connect a client that is on these transports. */
function connect(transports, options = {}) {
  server.ranked = transports;
  client = new Client(server.base, server.options({ transports, ...options }));
  client.errors = [];
  client.on("error", (error) => client.errors.push(error));
}

/** Follow a channel, and return all that is heard of it. */
function follow(channel, token) {
  const subscription = client.subscribe(channel, { token });
  const seen = { subscription, offsets: [], errors: [], ends: [] };
  subscription.on("message", ({ offset }) => seen.offsets.push(offset));
  subscription.on("error", (error) => seen.errors.push(error));
  subscription.on("unsubscribed", (told) => seen.ends.push(told));
  return seen;
}

/** A function that gives `CHANNEL/1`, `CHANNEL/2`, …; `asked` says how often it was. */
function source(channel = "demo:a") {
  const give = async () => `${channel}/${(give.asked += 1)}`;
  give.asked = 0;
  return give;
}

/** The tokens that the server has got for channels, each once, by the way that they came. */
function shown(path) {
  const of = ([, { tokens, subscribe, refresh }]) => tokens ?? [subscribe?.token ?? refresh?.token].filter(Boolean);
  return [...new Set(server.log.filter(([one]) => one === path).flatMap(of))];
}

const PATHS = { websocket: "frame", sse: "sse", longpoll: "poll", shortpoll: "poll" };

/** The connections on which the server can say something now. */
const live = () => [...server.sockets, ...server.streams, ...server.polls];

for (const name of TRANSPORTS) {
  test(`${name}: a token is shown to follow its channel, and to publish there`, async () => {
    connect([name]);
    const seen = follow("demo:a", "demo:a/x");
    const other = follow("demo:b");
    const published = [client.publish("demo:a", 1), client.publish("demo:b", 1)];
    await pass(3);
    await Promise.all(published);
    assert.deepEqual(await client.publish("demo:a", 2), { epoch: "e1", offset: 2 });
    await pass(3);
    assert.equal(seen.offsets.at(-1), 2);
    assert.deepEqual(shown(PATHS[name]), ["demo:a/x"]);
    if (name !== "websocket") assert.deepEqual(shown("emit"), ["demo:a/x"]);
    assert.deepEqual([seen.errors, other.errors, client.errors], [[], [], []]);
  });

  test(`${name}: when it has ended the channel goes on with another one, and loses nothing`, async () => {
    connect([name]);
    const give = source();
    const seen = follow("demo:a", give);
    const other = follow("demo:b");
    await pass(3);
    server.publish("demo:a", 1);
    server.publish("demo:b", 1);
    await pass(3);
    server.ended.add("demo:a/1");
    for (const one of live()) one.unsubscribe("demo:a", EXPIRED);
    for (let n = 2; n < 5; n += 1) {
      server.publish("demo:a", n);
      server.publish("demo:b", n);
      await pass(3);
    }
    assert.deepEqual([seen.offsets, other.offsets], [upTo(4), upTo(4)]);
    assert.equal(give.asked, 2);
    assert.equal(client.state, "open");
    assert.deepEqual([seen.errors, seen.ends, client.errors], [[], [], []]);
  });

  test(`${name}: one that ends while there is no connection is replaced when it is refused`, async () => {
    connect([name]);
    const give = source();
    const seen = follow("demo:a", give);
    const other = follow("demo:b");
    await pass(3);
    server.ended.add("demo:a/1");
    server.cut();
    server.publish("demo:a", 1);
    server.publish("demo:b", 1);
    const published = client.publish("demo:a", 2);
    await pass(8);
    assert.deepEqual(await published, { epoch: "e1", offset: 2 });
    assert.deepEqual([seen.offsets, other.offsets], [[1, 2], [1]]);
    assert.deepEqual([give.asked, seen.errors, client.state], [2, [], "open"]);
  });

  test(`${name}: one that has ended again and again is asked for by and by`, async () => {
    connect([name]);
    const give = async () => ((give.asked += 1), "demo:a/1");
    give.asked = 0;
    server.ended.add("demo:a/1");
    follow("demo:a", give);
    const other = follow("demo:b");
    await pass(60);
    server.publish("demo:b", 1);
    await pass(3);
    assert.ok(give.asked > 2 && give.asked < 10, give.asked);
    assert.deepEqual(other.offsets, [1]);
  });

  test(`${name}: one that is the only one, and has ended or is none, ends its channel alone`, async () => {
    connect([name], { token: "own" });
    server.ended.add("demo:a/1");
    server.locked.add("demo:c");
    const ended = follow("demo:a", "demo:a/1");
    const nonsense = follow("demo:c", "nonsense");
    const other = follow("demo:b");
    await pass(4);
    server.publish("demo:b", 1);
    await pass(4);
    assert.deepEqual(ended.errors.map(({ code }) => code), [118]);
    assert.deepEqual(nonsense.errors.map(({ code }) => code), [117]);
    assert.deepEqual(other.offsets, [1]);
    assert.equal(client.state, "open");
    await assert.rejects(Promise.all([client.publish("demo:a", 1), pass(2)]), { code: 101 });
  });

  test(`${name}: one that was taken back ends its channel, whatever gives others`, async () => {
    connect([name]);
    const give = source();
    const seen = follow("demo:a", give);
    await pass(2);
    if (!live().length) return;
    for (const one of live()) one.unsubscribe("demo:a", 4502);
    await pass(4);
    assert.deepEqual(seen.ends.map(({ code }) => code), [4502]);
    assert.deepEqual([give.asked, client.state], [1, "open"]);
  });

  test(`${name}: while the application has none its channel waits, with what is published there; others do not`, async () => {
    connect([name]);
    let asked = 0;
    const seen = follow("demo:a", () => {
      asked += 1;
      if (asked === 1) throw new Error("logged out");
      return asked === 2 ? undefined : "demo:a/x";
    });
    const other = follow("demo:b");
    let isPublished = false;
    const published = client.publish("demo:a", 1).then(() => (isPublished = true));
    await pass(0.8);
    await client.publish("demo:b", 1);
    assert.equal(isPublished, false);
    await pass(8);
    await published;
    assert.deepEqual([seen.errors.map(({ name, temporary }) => [name, temporary]), asked], [
      [
        ["no_token", true],
        ["no_token", true],
      ],
      3,
    ]);
    assert.ok(seen.errors[0].message.includes("logged out"));
    assert.ok(other.offsets.length <= 1);
    assert.equal(server.channel("demo:a").offset, 1);
  });
}

function upTo(last) {
  return Array.from({ length: last }, (_, at) => at + 1);
}

test("websocket: another one is shown before its end, on the same connection", async () => {
  connect(["websocket"]);
  const give = source();
  const seen = follow("demo:a", give);
  await pass(1);
  server.sockets[0].push({ token_expiring: { expires_in: 30, channel: "demo:a" } });
  await pass(1);
  server.ended.add("demo:a/1");
  const published = client.publish("demo:a", 1);
  await pass(1);
  await published;
  assert.deepEqual(seen.offsets, [1]);
  assert.deepEqual(shown("frame"), ["demo:a/1", "demo:a/2"]);
  assert.equal(server.count("ws"), 1);
  assert.equal(server.log.filter(([, { subscribe }]) => subscribe).length, 1);
});

test("sse: another one is shown before its end, by a new stream that goes on", async () => {
  connect(["sse"]);
  const seen = follow("demo:a", source());
  await pass(1);
  server.publish("demo:a", 1);
  server.streams[0].event("token_expiring", { expires_in: 30, channel: "demo:a" });
  server.publish("demo:a", 2);
  await pass(1);
  server.ended.add("demo:a/1");
  server.publish("demo:a", 3);
  await pass(1);
  assert.deepEqual(seen.offsets, [1, 2, 3]);
  assert.deepEqual(shown("sse"), ["demo:a/1", "demo:a/2"]);
  assert.equal(server.count("sse"), 2);
});

test("sse: a command is sent again with another one, if its own has ended", async () => {
  connect(["sse"]);
  const give = source();
  follow("demo:a", give);
  await pass(1);
  server.ended.add("demo:a/1");
  const published = [client.publish("demo:a", 1), client.publish("demo:b", 1)];
  await pass(3);
  assert.deepEqual(await Promise.all(published), [
    { epoch: "e1", offset: 1 },
    { epoch: "e1", offset: 1 },
  ]);
  assert.deepEqual([give.asked, shown("emit")], [2, ["demo:a/1", "demo:a/2"]]);
});

test("sse: very many of them do not make URLs of any length", async () => {
  connect(["sse"]);
  const names = upTo(20).map((n) => `demo:${n}`);
  for (const name of names) follow(name, `${name}/${"x".repeat(500)}`);
  await pass(1);
  const published = names.map((name) => client.publish(name, 1));
  await pass(1);
  await Promise.all(published);
  const counts = server.log.filter(([path]) => path === "emit").map(([, { tokens }]) => tokens.length);
  assert.ok(Math.max(...counts) <= 8, counts);
});

test("its channel keeps it on the way down and up again", async () => {
  server.network.ws = "refuse";
  connect(["websocket", "sse"], { climbAfter: 10 });
  const seen = follow("demo:a", source());
  await pass(3);
  assert.equal(client.transport, "sse");
  server.publish("demo:a", 1);
  server.network = {};
  await pass(30);
  assert.equal(client.transport, "websocket");
  server.publish("demo:a", 2);
  await pass(1);
  assert.deepEqual(seen.offsets, [1, 2]);
  assert.deepEqual([shown("sse"), shown("frame")], [["demo:a/1"], ["demo:a/1"]]);
});

test("the client's own token that is none is the end of all, not of a channel", async () => {
  server.network.sse = () => problem(117, "invalid_token", 401);
  server.network.emit = () => problem(117, "invalid_token", 401);
  connect(["sse"], { token: "nonsense" });
  const seen = follow("demo:a", "demo:a/x");
  await pass(5);
  assert.deepEqual([client.state, seen.errors], ["closed", []]);
});

test("the client's own token that has ended is asked for, not the one of a channel", async () => {
  const own = source("own");
  connect(["sse"], { token: own });
  const give = source();
  const seen = follow("demo:a", give);
  server.network.sse = ({ headers }, through) =>
    headers.Authorization === "Bearer own/1" ? problem(118, "token_expired", 401) : through();
  await pass(4);
  server.publish("demo:a", 1);
  await pass(1);
  assert.deepEqual([seen.offsets, own.asked, give.asked], [[1], 2, 1]);
});

test("one that is for another channel than it was given for, and has ended, ends its own channel alone", async () => {
  for (const name of TRANSPORTS) {
    connect([name]);
    server.ended.add("demo:z/1");
    const seen = follow("demo:a", "demo:z/1");
    const other = follow("demo:b");
    const published = client.publish("demo:a", 1).then(
      () => undefined,
      ({ code }) => code,
    );
    await pass(4);
    server.publish("demo:b", 1);
    await pass(4);
    assert.deepEqual([seen.errors.map(({ code }) => code), other.offsets.length, client.state], [[118], 1, "open"]);
    assert.ok([101, 118].includes(await published), name);
    client.close();
  }
});
