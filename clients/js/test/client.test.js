// What the client does with a server that does what a network may make of it. Time is mocked.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { Client } from "../../../rtpush/static/client/rtpush.js";
import { FakeServer, pass, problem, settle } from "./fake_server.js";

let server;
let client;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  server = new FakeServer();
});

afterEach(() => {
  client?.close();
  client = undefined;
  mock.timers.reset();
});

/** A client that follows one channel, with all that it said. */
function follow(options = {}, { channel = "demo:a", ...from } = {}) {
  client = new Client(server.base, server.options(options));
  const seen = {
    states: [],
    transports: [],
    attempts: [],
    errors: [],
    disconnects: [],
    messages: [],
    offsets: [],
    gaps: [],
    subscribed: [],
  };
  client.on("state", ({ state }) => seen.states.push(state));
  client.on("transport", ({ transport }) => transport && seen.transports.push(transport));
  client.on("attempt", (attempt) => seen.attempts.push(attempt));
  client.on("error", (error) => seen.errors.push(error));
  client.on("disconnect", (told) => seen.disconnects.push(told));
  seen.subscription = client.subscribe(channel, from);
  seen.subscription.on("message", (message) => {
    seen.messages.push(message);
    seen.offsets.push(message.offset);
  });
  seen.subscription.on("gap", (gap) => seen.gaps.push(gap));
  seen.subscription.on("subscribed", (told) => seen.subscribed.push(told));
  return seen;
}

function publish(count, channel = "demo:a") {
  for (let n = 0; n < count; n += 1) server.publish(channel, n);
}

function upTo(last) {
  return Array.from({ length: last }, (_, at) => at + 1);
}

const ONLY = Object.fromEntries(
  ["websocket", "sse", "longpoll", "shortpoll"].map((name) => [name, { transports: [name] }]),
);

for (const name of Object.keys(ONLY)) {
  test(`${name}: opens, tells where it begins, delivers in order`, async () => {
    server.ranked = [name];
    publish(2);
    const seen = follow(ONLY[name]);
    assert.equal(client.state, "connecting");
    await pass(1);
    assert.equal(client.state, "open");
    assert.equal(client.transport, name);
    assert.deepEqual(seen.subscribed, [{ channel: "demo:a", epoch: "e1", offset: 2, recovered: true }]);
    publish(3);
    await pass(3);
    publish(1);
    await pass(3);
    assert.deepEqual(seen.offsets, [3, 4, 5, 6]);
    assert.deepEqual(seen.messages[0], { channel: "demo:a", data: 0, event: undefined, epoch: "e1", offset: 3 });
    assert.equal(client.cursor(["demo:a", "demo:b"]), "e1:6,-");
    assert.equal(String(seen.subscription.position), "e1:6");
    assert.deepEqual(seen.errors, []);
  });

  test(`${name}: begins at the earliest message, and at a cursor`, async () => {
    server.ranked = [name];
    publish(5);
    const first = follow(ONLY[name], { since: "earliest" });
    await pass(3);
    assert.deepEqual(first.offsets, [1, 2, 3, 4, 5]);
    client.close();
    const second = follow(ONLY[name], { cursor: "e1:3" });
    await pass(3);
    assert.deepEqual(second.offsets, [4, 5]);
  });

  test(`${name}: a cut loses nothing, not even one right after opening`, async () => {
    server.ranked = [name];
    publish(4);
    const seen = follow(ONLY[name]);
    await pass(0.5);
    server.cut();
    publish(3);
    await pass(4);
    server.cut();
    publish(3);
    await pass(4);
    assert.deepEqual(seen.offsets, [5, 6, 7, 8, 9, 10]);
    assert.equal(client.state, "open");
    assert.deepEqual(seen.gaps, []);
  });

  test(`${name}: a gap is told once, and the stream goes on`, async () => {
    server.ranked = [name];
    server.kept = 2;
    publish(1);
    const seen = follow(ONLY[name], { cursor: "e1:1" });
    await pass(1);
    server.network = { ws: "refuse", sse: "refuse", poll: "refuse" };
    server.cut();
    publish(5);
    await pass(4);
    server.network = {};
    await pass(40);
    assert.deepEqual(seen.gaps, [{ channel: "demo:a", epoch: "e1", offset: 6, reason: "history_lost" }]);
    publish(1);
    await pass(5);
    assert.deepEqual(seen.offsets, [7]);
    assert.equal(seen.gaps.length, 1);
  });

  test(`${name}: a channel that the server refuses is left out, the others go on`, async () => {
    server.ranked = [name];
    server.unknown.add("no:such");
    const seen = follow(ONLY[name]);
    const errors = [];
    client.subscribe("no:such").on("error", (error) => errors.push(error));
    const other = [];
    client.subscribe("demo:b").on("message", ({ offset }) => other.push(offset));
    await pass(2);
    publish(1);
    publish(2, "demo:b");
    await pass(4);
    assert.deepEqual(
      errors.map(({ code, name: kind }) => [code, kind]),
      [[104, "unknown_channel"]],
    );
    assert.deepEqual(seen.offsets, [1]);
    assert.deepEqual(other, [1, 2]);
    const asked = server.log.length;
    await pass(1);
    assert.ok(server.log.length - asked < 10, "it does not ask on and on");
  });

  test(`${name}: nothing is left to follow when the only channel is refused, and the client stays`, async () => {
    server.ranked = [name];
    server.unknown.add("no:such");
    const seen = follow(ONLY[name], { channel: "no:such" });
    const errors = [];
    seen.subscription.on("error", (error) => errors.push(error.code));
    await pass(2);
    assert.deepEqual(errors, [104]);
    assert.equal(client.state, "open");
    client.subscribe("demo:a").on("message", ({ offset }) => seen.offsets.push(offset));
    await pass(1);
    publish(2);
    await pass(4);
    assert.deepEqual(seen.offsets, [1, 2]);
  });

  test(`${name}: subscribing and unsubscribing while it is open`, async () => {
    server.ranked = [name];
    const seen = follow(ONLY[name]);
    await pass(1);
    publish(1);
    await pass(3);
    const requests = server.count("sse") + server.count("frame");
    const late = [];
    for (const channel of ["demo:b", "demo:c", "demo:d"])
      client.subscribe(channel).on("message", (message) => late.push(message.channel));
    await pass(1);
    if (name === "sse") assert.equal(server.count("sse") - requests, 1, "the stream is opened again once");
    if (name === "websocket") assert.equal(server.count("frame") - requests, 3);
    server.publish("demo:c", 1);
    await pass(3);
    server.publish("demo:d", 1);
    publish(1);
    await pass(3);
    assert.deepEqual(late, ["demo:c", "demo:d"]);
    let told;
    seen.subscription.on("unsubscribed", (what) => (told = what));
    seen.subscription.unsubscribe();
    await pass(1);
    publish(1);
    server.publish("demo:b", 1);
    await pass(4);
    assert.deepEqual(seen.offsets, [1, 2]);
    assert.equal(told.channel, "demo:a");
    assert.deepEqual(late, ["demo:c", "demo:d", "demo:b"]);
  });

  test(`${name}: publishes, reads history, asks for presence`, async () => {
    server.ranked = [name];
    const seen = follow(ONLY[name]);
    const early = client.publish("demo:a", { n: 1 }, { event: "number" });
    assert.deepEqual(await Promise.race([early, pass(1).then(() => "late")]), { epoch: "e1", offset: 1 });
    await pass(3);
    assert.deepEqual(seen.offsets.at(-1) ?? 1, 1);
    assert.deepEqual(await client.publish("demo:a", "typing", { history: false }), {});
    const history = await client.history("demo:a");
    assert.deepEqual(history, {
      epoch: "e1",
      offset: 1,
      messages: [{ channel: "demo:a", data: { n: 1 }, event: "number", epoch: "e1", offset: 1 }],
    });
    assert.deepEqual(await client.presence("demo:a"), { connections: [] });
    server.unknown.add("no:such");
    await assert.rejects(client.publish("no:such", 1), { code: 104, name: "unknown_channel", temporary: false });
  });

  test(`${name}: a publish whose answer is cut off is sent again and is there once`, async () => {
    server.ranked = [name];
    follow(ONLY[name]);
    await pass(1);
    server.network = { "emit answer": "cut", "ws reply": "cut" };
    const published = client.publish("demo:a", 1);
    await pass(0.5);
    server.network = {};
    await pass(5);
    assert.deepEqual(await published, { epoch: "e1", offset: 1 });
    assert.equal(server.channel("demo:a").offset, 1);
  });

  test(`${name}: comes back after the server's own disconnect, when the server asked for it`, async () => {
    server.ranked = [name];
    const seen = follow(ONLY[name]);
    await pass(3);
    const told = { code: 1012, reason: "service_restart", reconnect: true, after: 7 };
    if (name === "shortpoll")
      server.network.poll = () => Response.json({ messages: [], cursor: "e1:0", recovered: true, disconnect: told });
    else if (name === "longpoll") server.polls[0].disconnect(told);
    else if (name === "sse") server.streams[0].event("disconnect", told);
    else server.sockets[0].push({ disconnect: told });
    await pass(3);
    server.network = {};
    assert.deepEqual(seen.disconnects, [told]);
    assert.equal(client.state, "connecting");
    assert.equal(seen.attempts.at(-1).delay, 7);
    publish(2);
    await pass(8);
    assert.equal(client.state, "open");
    assert.deepEqual(seen.offsets, [1, 2]);
  });

  test(`${name}: a disconnect that says not to come back is the end`, async () => {
    server.ranked = [name];
    const seen = follow(ONLY[name]);
    await pass(3);
    const told = { code: 4500, reason: "disconnected", reconnect: false };
    if (name === "shortpoll")
      server.network.poll = () => Response.json({ messages: [], cursor: "e1:0", recovered: true, disconnect: told });
    else if (name === "longpoll") server.polls[0].disconnect(told);
    else if (name === "sse") server.streams[0].event("disconnect", told);
    else server.sockets[0].push({ disconnect: told });
    await pass(3);
    assert.equal(client.state, "closed");
    const asked = server.log.length;
    await pass(60);
    assert.equal(server.log.length, asked);
    assert.deepEqual(seen.states, ["connecting", "open", "closing", "closed"]);
    await assert.rejects(client.publish("demo:a", 1), { name: "closed" });
  });
}

test("a message without an offset is delivered as it comes", async () => {
  const seen = follow();
  await pass(1);
  publish(1);
  server.publish("demo:a", "typing", { history: false });
  publish(1);
  await pass(1);
  assert.deepEqual(seen.offsets, [1, undefined, 2]);
});

test("a repetition is dropped, and a hole is filled from the position", async () => {
  const seen = follow(ONLY.websocket);
  await pass(1);
  publish(2);
  await settle();
  server.sockets[0].deliver({ channel: "demo:a", data: 0, epoch: "e1", offset: 2 });
  const { messages } = server.channel("demo:a");
  messages.push({ channel: "demo:a", data: 3, epoch: "e1", offset: 3 });
  server.channel("demo:a").offset = 3;
  publish(1); // offset 4, while 3 was never sent
  await settle();
  assert.deepEqual(seen.offsets, [1, 2]);
  assert.equal(client.state, "connecting");
  await pass(3);
  assert.deepEqual(seen.offsets, [1, 2, 3, 4]);
});

test("an epoch that changed is a gap, after which the position is the new one", async () => {
  const seen = follow(ONLY.sse, { cursor: "e1:0" });
  publish(2);
  await pass(1);
  server.newEpoch("demo:a", "e2");
  server.cut();
  await pass(3);
  publish(1);
  await pass(1);
  assert.deepEqual(
    seen.gaps.map(({ reason }) => reason),
    ["epoch_changed"],
  );
  assert.deepEqual(
    seen.messages.map(({ epoch, offset }) => `${epoch}:${offset}`),
    ["e1:1", "e1:2", "e2:1"],
  );
});

test("steps down when a WebSocket is blocked, at the handshake or behind it, and when an event stream is held back", async () => {
  for (const block of ["refuse", "swallow", "mute"]) {
    server.network = { ws: block, sse: "buffer" };
    const seen = follow();
    await pass(12);
    assert.equal(client.transport, "longpoll", block);
    assert.deepEqual(
      seen.attempts.map(({ transport }) => transport),
      ["websocket", "sse", "longpoll"],
    );
    publish(2);
    await pass(1);
    assert.equal(seen.offsets.length, 2);
    client.close();
    await settle();
  }
});

test("a close code before the WebSocket is open is the fault of what is between, unless it is the server's", async () => {
  server.network = { ws: 1002 };
  follow();
  await pass(1);
  assert.equal(client.transport, "sse");
  client.close();
  server.network = { ws: 4500 };
  follow();
  await pass(1);
  assert.equal(client.state, "closed");
});

test("climbs back: probes while the lower transport delivers, and moves without loss or repetition", async () => {
  server.network = { ws: "swallow", sse: "buffer" };
  const seen = follow({ climbAfter: 20 });
  await pass(11);
  assert.equal(client.transport, "longpoll");
  for (let second = 0; second < 15; second += 1) {
    publish(1);
    await pass(1);
  }
  server.network = { ws: "swallow" };
  for (let second = 0; second < 30 && client.transport !== "sse"; second += 1) {
    publish(1);
    await pass(1);
    assert.equal(client.state, "open");
  }
  assert.equal(client.transport, "sse");
  server.network = {};
  for (let second = 0; second < 60 && client.transport !== "websocket"; second += 1) {
    publish(1);
    await pass(1);
    assert.equal(client.state, "open");
  }
  assert.equal(client.transport, "websocket");
  publish(1);
  await pass(1);
  assert.deepEqual(seen.transports, ["longpoll", "sse", "websocket"]);
  assert.deepEqual(seen.offsets, upTo(server.channel("demo:a").offset));
  assert.deepEqual(seen.states, ["connecting", "open"]);
  assert.equal(server.streams.length + server.polls.length, 0, "what was left is closed");
});

test("climbing grows rarer while it comes to nothing", async () => {
  server.network = { ws: "refuse" };
  const seen = follow({ climbAfter: 10 });
  await pass(1);
  await pass(160);
  const climbs = seen.attempts.filter(({ transport }) => transport === "websocket").length - 1;
  assert.equal(climbs, 4, "after 10, 20, 40 and 80 seconds");
});

test("climbAfter 0 never climbs", async () => {
  server.network = { ws: "refuse" };
  const seen = follow({ climbAfter: 0 });
  await pass(1);
  server.network = {};
  await pass(300);
  assert.equal(client.transport, "sse");
  assert.equal(seen.attempts.length, 2);
});

test("a lesser transport that is cut now and then does not put the climb off", async () => {
  server.network = { ws: "refuse" };
  follow({ climbAfter: 30 });
  await pass(1);
  server.network = {};
  for (let cut = 0; cut < 2; cut += 1) {
    await pass(12);
    server.cut();
  }
  await pass(10);
  assert.equal(client.transport, "websocket");
});

test("a gap while a better transport is tried is told once", async () => {
  server.network = { ws: "swallow", sse: "buffer" };
  const seen = follow({ climbAfter: 20, openTimeout: 6 }, { cursor: "e1:0" });
  await pass(13);
  publish(2);
  await pass(21);
  server.newEpoch("demo:a", "e2");
  server.cut();
  await pass(30);
  server.network = {};
  await pass(200);
  publish(1);
  await pass(1);
  assert.equal(client.transport, "websocket");
  assert.deepEqual(
    seen.gaps.map(({ reason }) => reason),
    ["epoch_changed"],
  );
  assert.deepEqual(
    seen.messages.map(({ epoch, offset }) => `${epoch}:${offset}`),
    ["e1:1", "e1:2", "e2:1"],
  );
});

test("a transport that opens but breaks quickly three times is given up, and soon again after a climb", async () => {
  const seen = follow({ transports: ["websocket", "sse"], climbAfter: 30 });
  const live = async (seconds) => {
    await pass(seconds);
    publish(1);
    server.sockets.forEach((socket) => socket.cut());
    await pass(2);
  };
  await pass(0.5);
  await live(5);
  await live(5);
  assert.equal(client.transport, "websocket");
  await live(5);
  assert.equal(client.transport, "sse");
  for (let second = 0; second < 70 && client.transport !== "websocket"; second += 1) await pass(1);
  assert.equal(client.transport, "websocket");
  await live(5);
  assert.equal(client.transport, "sse");
  assert.deepEqual(seen.offsets, upTo(server.channel("demo:a").offset));
});

test("long lives are no reason to step down, and neither are the server's own disconnects", async () => {
  follow({ transports: ["websocket", "sse"] });
  for (let life = 0; life < 4; life += 1) {
    await pass(12);
    server.cut();
    await pass(2);
    assert.equal(client.transport, "websocket");
  }
  for (let life = 0; life < 4; life += 1) {
    server.sockets[0].push({ disconnect: { code: 4003, reason: "reconnect", reconnect: true, after: 0 } });
    await pass(2);
    assert.equal(client.transport, "websocket");
  }
});

test("a WebSocket that falls silent is closed and tried again", async () => {
  server.heartbeat = 20;
  const seen = follow({ transports: ["websocket", "sse"] });
  await pass(65);
  assert.equal(client.transport, "websocket");
  assert.deepEqual(seen.transports, ["websocket"]);
  assert.ok(server.log.filter(([, command]) => command.ping).length >= 3);
  server.network.ws = "mute";
  await pass(24);
  assert.equal(client.state, "open");
  await pass(2);
  assert.equal(client.state, "connecting");
  server.network = {};
  publish(1);
  await pass(5);
  assert.deepEqual(seen.offsets, [1]);
});

test("an event stream is alive by comments, and is closed and tried again without them", async () => {
  server.heartbeat = 20;
  const seen = follow({ transports: ["sse"] });
  await pass(101);
  assert.deepEqual(seen.transports, ["sse"]);
  server.network.sse = "mute";
  await pass(28);
  assert.equal(client.state, "open");
  await pass(1.5);
  assert.equal(client.state, "connecting");
  await pass(5);
  assert.deepEqual(seen.transports, ["sse", "sse"]);
});

test("a stream that falls silent again and again is given up, though each life was long", async () => {
  server.network = { sse: "mute" };
  follow({ transports: ["sse", "longpoll"] });
  await pass(130);
  assert.equal(client.transport, "longpoll");
});

test("a long poll that is cut after it was held is only made again", async () => {
  const seen = follow(ONLY.longpoll);
  await pass(1);
  for (let cut = 0; cut < 10; cut += 1) {
    await pass(5);
    server.cut();
  }
  publish(2);
  await pass(1);
  assert.deepEqual(seen.states, ["connecting", "open"]);
  assert.deepEqual(seen.offsets, [1, 2]);
  assert.equal(server.count("poll"), 13);
});

test("a proxy that answers long polls with 504 costs nothing either", async () => {
  const seen = follow(ONLY.longpoll);
  await pass(1);
  server.network.poll = () =>
    new Promise((resolve) => setTimeout(() => resolve(new Response("", { status: 504 })), 5000));
  await pass(31);
  delete server.network.poll;
  publish(1);
  await pass(6);
  assert.deepEqual(seen.states, ["connecting", "open"]);
  assert.deepEqual(seen.offsets, [1]);
});

test("a long poll that is answered empty at once is not made again as fast as the network allows", async () => {
  follow(ONLY.longpoll);
  await pass(1);
  server.network.poll = () => Response.json({ messages: [], cursor: "e1:0", recovered: true });
  server.cut();
  await pass(10);
  assert.ok(server.count("poll") < 15, String(server.count("poll")));
});

test("short polls keep their pace, and carry the tag of the last answer", async () => {
  server.ranked = ["shortpoll"];
  follow(ONLY.shortpoll);
  await pass(21);
  const polls = server.log.filter(([path]) => path === "poll");
  assert.equal(polls.length, 11, "one in two seconds");
  assert.ok(polls.every(([, { timeout }]) => timeout === "0"));
  assert.ok(polls.slice(2).every(([, { headers }]) => headers["If-None-Match"] === '"e1:0"'));
});

test("direction rare may use short polls without being told", async () => {
  server.ranked = ["shortpoll", "sse"];
  follow({ direction: "rare" });
  await pass(1);
  assert.equal(client.transport, "shortpoll");
  assert.equal(server.log[0][1].direction, "rare");
});

test("channels that begin at the earliest message and at now, in one request that cannot say both", async () => {
  for (const name of ["sse", "longpoll"]) {
    server = new FakeServer();
    publish(3);
    publish(3, "demo:b");
    const seen = follow({ transports: [name] });
    const early = [];
    client.subscribe("demo:b", { since: "earliest" }).on("message", ({ offset }) => early.push(offset));
    await pass(2);
    publish(1);
    publish(1, "demo:b");
    await pass(2);
    assert.deepEqual(seen.offsets, [4], name);
    assert.deepEqual(early, [1, 2, 3, 4], name);
    client.close();
  }
});

test("what worked is remembered for a while, by base", async () => {
  const stored = new Map();
  const storage = { getItem: (key) => stored.get(key) ?? null, setItem: (key, value) => stored.set(key, value) };
  server.network = { ws: "swallow" };
  follow({ storage });
  await pass(6);
  assert.equal(client.transport, "sse");
  client.close();
  let seen = follow({ storage });
  await pass(1);
  assert.equal(client.transport, "sse");
  assert.deepEqual(seen.attempts, [{ transport: "sse", attempt: 0 }]);
  client.close();
  await pass(1);
  mock.timers.tick(7 * 3600 * 1000);
  seen = follow({ storage });
  await pass(1);
  assert.equal(seen.attempts[0].transport, "websocket");
  assert.deepEqual([...stored.keys()], ["rtpush:http://push.test/app/"]);
});

test("that only one transport was allowed is not remembered for others", async () => {
  const stored = new Map();
  const storage = { getItem: (key) => stored.get(key) ?? null, setItem: (key, value) => stored.set(key, value) };
  follow({ storage, transports: ["longpoll"] });
  await pass(1);
  client.close();
  follow({ storage });
  await pass(1);
  assert.equal(client.transport, "websocket");
});

test("finding the channels at fault may take longer than opening may", async () => {
  server.unknown.add("no:such");
  server.network.sse = async ({ channels }, open) => {
    if (channels.length === 1) await new Promise((resolve) => setTimeout(resolve, 2000));
    return open();
  };
  const seen = follow({ transports: ["sse"] });
  for (const channel of ["demo:b", "demo:c", "no:such"]) client.subscribe(channel);
  await pass(12);
  publish(1);
  await pass(1);
  assert.deepEqual(seen.offsets, [1]);
  assert.deepEqual(seen.errors, []);
});

test("a storage that throws, or holds nonsense, is no obstacle", async () => {
  const throwing = {
    getItem: () => {
      throw new Error("no");
    },
    setItem: () => {
      throw new Error("no");
    },
  };
  const mad = { getItem: () => "{", setItem() {} };
  for (const storage of [throwing, mad, null]) {
    follow({ storage });
    await pass(1);
    assert.equal(client.transport, "websocket");
    client.close();
  }
});

test("without an answer to /negotiate it goes by its own order", async () => {
  for (const what of [
    "refuse",
    "swallow",
    () => new Response("<html>", { status: 200 }),
    () => problem(100, "internal", 500),
  ]) {
    server.network = { negotiate: what };
    const seen = follow();
    await pass(6);
    assert.equal(client.transport, "websocket");
    assert.equal(seen.errors.length, 1);
    client.close();
  }
});

test("without a WebSocket constructor there is no websocket", async () => {
  client = new Client(server.base, { fetch: server.fetch, WebSocket: null, storage: null });
  client.subscribe("demo:a");
  await pass(1);
  assert.equal(client.transport, "sse");
  assert.equal(server.log[0][1].transports, "sse,longpoll");
});

test("nothing in common is the end, and says so", async () => {
  server.ranked = ["shortpoll"];
  const seen = follow({ transports: ["sse"] });
  let reason;
  client.on("state", (change) => (reason = change.reason));
  await pass(1);
  assert.deepEqual(seen.states, ["connecting", "closing", "closed"]);
  assert.match(reason, /no transport in common/);
});

test("an unknown transport is a mistake that is told at once", () => {
  assert.throws(() => new Client(server.base, { transports: ["websokcet"] }), /websokcet/);
});

test("with the server gone the delays grow, and the first transport comes first again", async () => {
  server.network = { negotiate: "refuse", ws: "refuse", sse: "refuse", poll: "refuse" };
  const seen = follow();
  await pass(40);
  const delays = seen.attempts.map(({ delay }) => delay).filter((delay) => delay !== undefined);
  assert.deepEqual(delays, [1, 2, 4, 8, 16, 30]);
  server.network = {};
  await pass(30);
  assert.equal(client.transport, "websocket");
});

test("Retry-After of a busy server is honoured, and is no reason to step down", async () => {
  server.network = { negotiate: () => problem(112, "unavailable", 503, { "Retry-After": "9" }) };
  let seen = follow({ transports: ["sse", "longpoll"] });
  await pass(8);
  assert.deepEqual(seen.attempts, [{ transport: "sse", attempt: 0, delay: 9 }]);
  server.network = { sse: () => problem(112, "unavailable", 503, { "Retry-After": "5" }) };
  await pass(2);
  assert.equal(seen.attempts.at(-1).delay, 5);
  server.network = {};
  await pass(6);
  assert.equal(client.transport, "sse");
});

test("a refusal that no transport can mend is the end", async () => {
  server.network = { sse: () => problem(117, "invalid_token", 401) };
  const seen = follow({ transports: ["sse", "longpoll"] });
  await pass(1);
  assert.equal(client.state, "closed");
  assert.equal(seen.attempts.length, 1);
});

test("publishes wait for a connection, in order, and no more than a bound", async () => {
  server.network = { negotiate: "refuse", ws: "refuse", sse: "refuse", poll: "refuse" };
  follow();
  const published = Array.from({ length: 1000 }, (_, n) => client.publish("demo:a", n));
  await assert.rejects(client.publish("demo:a", "one too many"), { name: "too_many_calls", temporary: true });
  await pass(100);
  server.network = {};
  await pass(40);
  const results = await Promise.all(published);
  assert.deepEqual(
    results.map(({ offset }) => offset),
    upTo(1000),
  );
  assert.deepEqual(
    server.channel("demo:a").messages.map(({ data }) => data),
    [...Array(1000).keys()],
  );
});

test("publishes over /emit go together and in order, and none is sent twice when one batch fails", async () => {
  const seen = follow(ONLY.sse);
  await pass(1);
  server.network.emit = () => problem(112, "unavailable", 503, { "Retry-After": "3" });
  const published = Array.from({ length: 120 }, (_, n) => client.publish("demo:a", n));
  await pass(2);
  server.network = {};
  await pass(4);
  assert.equal((await Promise.all(published)).at(-1).offset, 120);
  assert.deepEqual(
    seen.messages.map(({ data }) => data),
    [...Array(120).keys()],
  );
  assert.equal(server.count("emit"), 4);
});

test("a call without an answer is given up in the end", async () => {
  follow(ONLY.websocket);
  await pass(1);
  server.command = () => ({ id: 0 });
  let error;
  client.publish("demo:a", 1).catch((problem) => (error = problem));
  await pass(70);
  assert.equal(error.name, "timeout");
  assert.equal(error.temporary, true);
});

test("closing rejects what waits, and nothing happens after it", async () => {
  server.network = { ws: "swallow", sse: "swallow" };
  const seen = follow();
  let error;
  client.publish("demo:a", 1).catch((problem) => (error = problem));
  await pass(1);
  client.close();
  await settle();
  assert.equal(error.name, "closed");
  const asked = server.log.length;
  await pass(100);
  assert.equal(server.log.length, asked);
  assert.deepEqual(seen.states, ["connecting", "closing", "closed"]);
  assert.throws(() => client.subscribe("demo:b"), { name: "closed" });
});

test("a mistake in a listener stops neither the other listeners nor the client", async () => {
  const reported = mock.method(console, "error", () => {});
  const seen = follow();
  seen.subscription.on("message", () => {
    throw new Error("a mistake");
  });
  const after = [];
  const stop = seen.subscription.on("message", ({ offset }) => after.push(offset));
  await pass(1);
  publish(2);
  await pass(1);
  stop();
  publish(1);
  await pass(1);
  assert.deepEqual(after, [1, 2]);
  assert.deepEqual(seen.offsets, [1, 2, 3]);
  assert.equal(reported.mock.callCount(), 3);
  reported.mock.restore();
});

test("what the server ends, ends", async () => {
  const seen = follow(ONLY.websocket);
  let told;
  seen.subscription.on("unsubscribed", (what) => (told = what));
  await pass(1);
  server.sockets[0].push({ unsubscribed: { channel: "demo:a", code: 4501, reason: "unsubscribed" } });
  publish(1);
  await pass(1);
  assert.equal(told.code, 4501);
  assert.deepEqual(seen.offsets, []);
});

test("one subscription a channel; a bad cursor and a bad name are told at once", () => {
  const seen = follow();
  assert.equal(client.subscribe("demo:a"), seen.subscription);
  assert.throws(() => client.subscribe("demo:b", { cursor: "nonsense" }), TypeError);
  for (const name of ["", "a b", "a,b", 'a"b', "a\\b", "ä", "a\n", "a".repeat(256)]) {
    assert.throws(() => client.subscribe(name), TypeError, name);
  }
  client.subscribe("!#$%&'()*+-./09:;<=>?@AZ[]^_`az{|}~");
});

test("closing while it waits to try again is the end too", async () => {
  server.network = { negotiate: "refuse", ws: "refuse", sse: "refuse", poll: "refuse" };
  const seen = follow();
  await pass(0.5);
  const { length } = server.log;
  const errors = seen.errors.length;
  client.close();
  await pass(60);
  assert.equal(server.log.length, length);
  assert.equal(seen.errors.length, errors);
});

test("when the network or the page comes back there is no waiting", async () => {
  const page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  try {
    server.network = { negotiate: "refuse", ws: "refuse", sse: "refuse", poll: "refuse" };
    const seen = follow();
    await pass(20);
    server.network = {};
    page.dispatchEvent(new Event("online"));
    await pass(0.5);
    assert.equal(client.transport, "websocket");
    server.network = { ws: "mute" };
    page.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
    await pass(11);
    assert.deepEqual(seen.states, ["connecting", "open", "connecting"], "a dead socket is found by asking");
  } finally {
    delete globalThis.addEventListener;
  }
});

test("a heartbeat shorter than the grace finds a dead connection all the same", async () => {
  follow({ transports: ["websocket"], heartbeat: 4 });
  await pass(9);
  server.network.ws = "mute";
  await pass(12);
  assert.equal(client.state, "open");
  await pass(2.5);
  assert.equal(client.state, "connecting");
});

test("when the network comes back a better transport is tried soon, however rare that had become", async () => {
  const page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  try {
    server.network = { ws: "refuse" };
    follow({ climbAfter: 10 });
    await pass(80);
    server.network = {};
    page.dispatchEvent(new Event("online"));
    await pass(11);
    assert.equal(client.transport, "websocket");
  } finally {
    delete globalThis.addEventListener;
  }
});

test("climbing that succeeded and lasted makes the next one soon again", async () => {
  server.network = { ws: "refuse" };
  const seen = follow({ climbAfter: 10 });
  await pass(35);
  server.network = {};
  await pass(60);
  assert.equal(client.transport, "websocket");
  server.network = { ws: "refuse" };
  server.cut();
  await pass(2);
  assert.equal(client.transport, "sse");
  server.network = {};
  await pass(11);
  assert.equal(client.transport, "websocket");
  assert.deepEqual(seen.transports, ["sse", "websocket", "sse", "websocket"]);
});

test("a temporary refusal of one channel on a WebSocket is asked again, and the others go on", async () => {
  const seen = follow(ONLY.websocket);
  await pass(1);
  const push = server.sockets[0].push;
  server.sockets[0].push = function (object) {
    if (object.subscribe?.channel !== "demo:b") return push.call(this, object);
    return push.call(this, {
      id: object.id,
      error: { code: 112, name: "unavailable", message: "no", temporary: true },
    });
  };
  const errors = [];
  const offsets = [];
  const other = client.subscribe("demo:b");
  other.on("error", ({ code }) => errors.push(code));
  other.on("message", ({ offset }) => offsets.push(offset));
  await pass(1);
  server.sockets[0].push = push;
  publish(1);
  await pass(6);
  publish(1, "demo:b");
  await pass(1);
  assert.deepEqual(errors, [112]);
  assert.deepEqual(seen.offsets, [1]);
  assert.deepEqual(offsets, [1]);
});

/** Make the next event stream open some seconds after it was asked for, from where it was asked for. */
function openLate(seconds) {
  server.network.sse = async (_query, open) => {
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    delete server.network.sse;
    return open();
  };
}

test("what came while a better transport was opening does not come again by it", async () => {
  server.network = { sse: "refuse" };
  const seen = follow({ transports: ["sse", "longpoll"], climbAfter: 10 });
  await pass(8);
  openLate(4);
  await pass(4);
  publish(3);
  await pass(3);
  assert.equal(client.transport, "sse");
  publish(1);
  await pass(1);
  assert.deepEqual(seen.offsets, [1, 2, 3, 4]);
});

test("a gap that is told while a better transport is opening is not told again by it", async () => {
  server.network = { sse: "refuse" };
  const seen = follow({ transports: ["sse", "longpoll"], climbAfter: 10 }, { cursor: "e1:0" });
  await pass(8);
  openLate(4);
  await pass(4);
  server.newEpoch("demo:a", "e2");
  server.cut();
  await pass(2);
  assert.equal(client.transport, "longpoll");
  publish(1);
  await pass(30);
  assert.equal(client.transport, "sse");
  assert.equal(seen.gaps.length, 1);
  assert.deepEqual(seen.offsets, [1]);
});

test("a better transport that began a channel at now begins again where the channel has come to", async () => {
  server.network = { sse: "refuse" };
  follow({ transports: ["sse", "longpoll"], climbAfter: 10 });
  await pass(8);
  openLate(4);
  await pass(3);
  server.network.poll = "swallow";
  client.subscribe("demo:b");
  await pass(0.5);
  delete server.network.poll;
  server.polls.concat([]).forEach((poll) => poll.cut());
  client.subscribe("demo:c");
  await pass(6);
  assert.equal(client.transport, "sse");
  const [, { cursor, channels }] = server.log.filter(([path]) => path === "sse").at(-1);
  assert.deepEqual(channels, ["demo:a", "demo:b", "demo:c"]);
  assert.equal(cursor, "e1:0,e1:0,e1:0");
});

test("URLs keep the base's prefix, and the WebSocket's scheme fits", async () => {
  follow(ONLY.websocket);
  await pass(1);
  assert.deepEqual(server.log.find(([path]) => path === "ws")[1], { url: "ws://push.test/app/ws" });
});

test("what is still coming for a channel does not disturb one who begins it anew", async () => {
  const seen = follow(ONLY.websocket);
  await pass(1);
  publish(2);
  await settle();
  seen.subscription.unsubscribe();
  const again = [];
  client.subscribe("demo:a", { cursor: "e1:0" }).on("message", ({ offset }) => again.push(offset));
  await undefined;
  publish(1);
  await pass(1);
  assert.deepEqual(again, [1, 2, 3]);
  assert.deepEqual(seen.states, ["connecting", "open"]);
});

test("short polls that bring something are followed at once", async () => {
  server.ranked = ["shortpoll"];
  const seen = follow(ONLY.shortpoll);
  await pass(0.5);
  server.network.poll = ({ cursor }) => {
    const offset = Number(cursor.split(":")[1]) + 1;
    const messages = offset <= 4 ? [{ channel: "demo:a", epoch: "e1", offset, data: 0 }] : [];
    return Response.json({ messages, cursor: `e1:${Math.min(offset, 4)}`, recovered: true });
  };
  await pass(2);
  assert.deepEqual(seen.offsets, [1, 2, 3, 4]);
});

test("a transport that was remembered but fails gives way to the better ones, and the terms are asked again", async () => {
  const storage = {
    getItem: () => JSON.stringify({ transport: "longpoll", until: Infinity }).replace("null", "9e15"),
    setItem() {},
  };
  server.network = { poll: "refuse" };
  follow({ storage });
  await pass(3);
  assert.equal(client.transport, "websocket");
  assert.equal(server.count("negotiate"), 2);
});

test("a poll that is never answered is given up", async () => {
  const seen = follow(ONLY.longpoll);
  await pass(1);
  server.network.poll = "swallow";
  server.cut();
  await pass(64);
  assert.equal(client.state, "open");
  await pass(2);
  assert.deepEqual(seen.states, ["connecting", "open", "connecting"]);
});

test("a client without channels publishes over HTTP, and sees when the server is gone", async () => {
  client = new Client(server.base, server.options({ transports: ["sse"] }));
  const first = client.publish("demo:a", 1);
  await pass(1);
  assert.deepEqual(await first, { epoch: "e1", offset: 1 });
  assert.equal(client.state, "open");
  server.network = { emit: "refuse", negotiate: "refuse" };
  const second = client.publish("demo:a", 2);
  await pass(1);
  assert.equal(client.state, "connecting");
  server.network = {};
  await pass(5);
  assert.deepEqual(await second, { epoch: "e1", offset: 2 });
});

test("a publish that was given up is not sent later", async () => {
  follow(ONLY.sse);
  await pass(1);
  server.network.emit = "refuse";
  const given = assert.rejects(client.publish("demo:a", 1), { name: "timeout" });
  await pass(62);
  await given;
  server.network = {};
  await pass(40);
  assert.equal(server.channel("demo:a").offset, 0);
});

/** A client with tokens `t1`, `t2`, …, each asked for when it is needed. */
function withTokens(transport, more = {}) {
  let asked = 0;
  const seen = follow({ transports: [transport], token: async () => `t${(asked += 1)}`, ...more });
  return { seen, asked: () => asked };
}

const shown = () => server.log.map(([, query]) => query.headers?.Authorization ?? query.connect?.token).filter(Boolean);

test("websocket: shows its token, and the next one in time", async () => {
  const { seen } = withTokens("websocket");
  await pass(1);
  assert.deepEqual(shown(), ["t1"]);
  server.sockets[0].push({ token_expiring: { expires_in: 30 } });
  await pass(1);
  const refreshed = server.log.filter(([, { refresh }]) => refresh).map(([, { refresh }]) => refresh.token);
  assert.deepEqual(refreshed, ["t2"]);
  server.sockets[0].push({ token_expiring: { expires_in: 30, channel: "demo:a" } });
  server.publish("demo:a", 1);
  await pass(1);
  assert.deepEqual(seen.offsets, [1]);
  assert.deepEqual(seen.transports, ["websocket"]);
  assert.equal(server.count("ws"), 1);
});

test("sse: goes on with a new token in a new stream, and loses nothing", async () => {
  const { seen } = withTokens("sse");
  await pass(1);
  server.publish("demo:a", 1);
  server.streams[0].event("token_expiring", { expires_in: 30 });
  server.publish("demo:a", 2);
  await pass(1);
  server.publish("demo:a", 3);
  await pass(1);
  assert.deepEqual(seen.offsets, [1, 2, 3]);
  assert.deepEqual([...new Set(shown())].map((text) => text.replace("Bearer ", "")), ["t1", "t2"]);
  assert.deepEqual(seen.transports, ["sse"]);
  assert.equal(server.streams.length, 1);
});

test("longpoll: asks for another token when its own has ended", async () => {
  const { seen, asked } = withTokens("longpoll");
  server.network.poll = ({ headers }, through) =>
    headers.Authorization === "Bearer t1" ? problem(118, "token_expired", 401) : through();
  await pass(4);
  assert.equal(client.state, "open");
  assert.equal(asked(), 2);
  server.publish("demo:a", 1);
  await pass(1);
  assert.deepEqual(seen.offsets, [1]);
});

test("a token that has ended and is the only one is the end; so is one that is no good or taken back", async () => {
  for (const [code, name] of [
    [118, "token_expired"],
    [117, "invalid_token"],
    [119, "token_revoked"],
  ]) {
    server.network.sse = () => problem(code, name, 401);
    follow({ transports: ["sse"], token: "t" });
    await pass(60);
    assert.equal(client.state, "closed", name);
    assert.equal(server.count("sse"), 1, name);
    server.log.length = 0;
  }
});

test("a token that has ended again and again is asked for by and by, not as fast as can be", async () => {
  const { asked } = withTokens("sse");
  server.network.sse = () => problem(118, "token_expired", 401);
  await pass(60);
  assert.equal(client.state, "connecting");
  assert.ok(asked() < 10, asked());
});

test("a command is sent again with another token, if its own has ended", async () => {
  const { asked } = withTokens("sse");
  await pass(1);
  let refused = 0;
  server.network.emit = ({ headers }, through) => {
    if (headers.Authorization !== "Bearer t1") return through();
    refused += 1;
    return problem(118, "token_expired", 401);
  };
  const published = client.publish("demo:a", 1);
  await pass(4);
  assert.deepEqual(await published, { epoch: "e1", offset: 1 });
  assert.deepEqual([refused, asked()], [1, 2]);
});

test("while the application has no token, the client waits and asks again", async () => {
  let asked = 0;
  const token = () => {
    asked += 1;
    if (asked < 3) throw new Error("logged out");
    return "t";
  };
  const seen = follow({ transports: ["websocket"], token });
  await pass(10);
  assert.equal(client.state, "open");
  assert.deepEqual(seen.errors.map(({ message }) => message), ["logged out", "logged out"]);
});
