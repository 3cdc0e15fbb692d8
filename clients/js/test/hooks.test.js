// What an application says that is asked about its clients, on every transport. Time is mocked.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { Client } from "../../../rtpush/static/client/rtpush.js";
import { FakeServer, pass } from "./fake_server.js";

const TRANSPORTS = ["websocket", "sse", "longpoll", "shortpoll"];

let server;
let client;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  server = new FakeServer();
  server.ranked = TRANSPORTS;
});

afterEach(() => {
  client?.close();
  client = undefined;
  mock.timers.reset();
});

/** A client, and what it hears. */
function connect(transports, options = {}) {
  const seen = { heard: [], errors: [], disconnects: [], states: [] };
  client = new Client(server.base, server.options({ transports, ...options }));
  client.on("connected", ({ data }) => seen.heard.push(["client", data]));
  client.on("error", (error) => seen.errors.push(error));
  client.on("disconnect", (told) => seen.disconnects.push(told));
  client.on("state", ({ state }) => seen.states.push(state));
  return seen;
}

/** Follow a channel, and add what is heard of it to all that is heard. */
function follow(seen, channel, options = {}) {
  const subscription = client.subscribe(channel, options);
  subscription.on("subscribed", ({ data }) => seen.heard.push([channel, data]));
  subscription.on("message", ({ offset }) => seen.heard.push([channel, offset]));
  subscription.on("error", ({ code, name }) => seen.heard.push([channel, name, code]));
  return subscription;
}

for (const name of TRANSPORTS) {
  test(`${name}: what the application says is heard, before all messages`, async () => {
    server.greeting = { unread: 7 };
    server.channelData = { "demo:a": { members: 3 }, "demo:b": null };
    server.publish("demo:a", 1);
    const seen = connect([name]);
    follow(seen, "demo:a", { since: "earliest" });
    await pass(3);
    const expected = [["client", { unread: 7 }], ["demo:a", { members: 3 }], ["demo:a", 1]];
    assert.deepEqual(seen.heard, expected);
    follow(seen, "demo:c");
    await pass(3);
    assert.ok(seen.heard.some(([what, data]) => what === "demo:c" && data === undefined));
    server.channelData["demo:d"] = 5;
    follow(seen, "demo:d");
    await pass(3);
    assert.ok(seen.heard.some(([what, data]) => what === "demo:d" && data === 5));
  });

  test(`${name}: it is heard again after a cut, but for polls that go on`, async () => {
    server.greeting = 1;
    server.channelData = { "demo:a": 1 };
    const seen = connect([name]);
    follow(seen, "demo:a");
    await pass(3);
    server.greeting = 2;
    server.channelData = { "demo:a": 2 };
    seen.heard.length = 0;
    server.cut();
    if (name === "shortpoll") server.network.poll = () => Response.json({}, { status: 500 });
    await pass(3);
    server.network = {};
    await pass(5);
    const told = name === "shortpoll" ? undefined : 2;
    // A long poll that is cut after it was held is made again, and that is all.
    assert.deepEqual(seen.heard, name === "longpoll" ? [] : [["client", told], ["demo:a", told]]);
  });

  test(`${name}: nothing said is undefined`, async () => {
    const seen = connect([name]);
    follow(seen, "demo:a");
    await pass(3);
    assert.deepEqual(seen.heard, [["client", undefined], ["demo:a", undefined]]);
  });

  for (const code of [102, 1234, 4567]) {
    test(`${name}: who is not let in (${code}) hears why, and does not come back`, async () => {
      server.keptOut = { code, message: "log in first" };
      const seen = connect([name]);
      follow(seen, "demo:a");
      follow(seen, "demo:b");
      const publishing = assert.rejects(client.publish("demo:a", 1));
      await pass(10);
      assert.equal(client.state, "closed");
      assert.match(seen.errors.at(-1).message, /log in first/);
      assert.deepEqual([seen.errors.at(-1).code, seen.errors.at(-1).temporary], [code, false]);
      assert.deepEqual(seen.heard, []);
      const asked = server.log.length;
      await pass(100);
      assert.equal(server.log.length, asked);
      await publishing;
    });
  }

  test(`${name}: without a channel too`, async () => {
    server.keptOut = { code: 102, message: "log in first" };
    connect([name]);
    client.connect();
    await pass(10);
    assert.equal(client.state, "closed");
  });

  test(`${name}: who may come back later does so`, async () => {
    server.keptOut = { code: 4003, message: "not now" };
    const seen = connect([name]);
    follow(seen, "demo:a");
    await pass(10);
    assert.equal(client.state, "connecting");
    assert.equal(seen.errors[0].code, 4003);
    server.keptOut = undefined;
    await pass(30);
    assert.equal(client.state, "open");
    assert.deepEqual(seen.heard, [["client", undefined], ["demo:a", undefined]]);
  });

  test(`${name}: a channel that is denied ends alone, whatever the code`, async () => {
    server.denied = { "demo:a": { code: 102, message: "no" }, "demo:b": { code: 1234, message: "no" } };
    const seen = connect([name]);
    for (const channel of ["demo:a", "demo:b", "demo:c"]) follow(seen, channel);
    await pass(5);
    server.publish("demo:c", 1);
    await pass(5);
    const of = (channel) => seen.heard.filter(([what]) => what === channel);
    assert.deepEqual(of("demo:a"), [["demo:a", "permission_denied", 102]]);
    assert.deepEqual(of("demo:b"), [["demo:b", "permission_denied", 1234]]);
    assert.deepEqual(of("demo:c").at(-1), ["demo:c", 1]);
    assert.equal(client.state, "open");
  });

  test(`${name}: an end by the server says whether to come back`, async () => {
    const seen = connect([name]);
    follow(seen, "demo:a");
    await pass(3);
    const end = (told) => {
      if (name === "shortpoll") {
        const answer = { messages: [], cursor: "e1:0", recovered: true, disconnect: told };
        server.network.poll = () => ((server.network = {}), Response.json(answer));
      } else if (name === "longpoll") server.polls[0].disconnect(told);
      else if (name === "sse") server.streams[0].event("disconnect", told);
      else server.sockets[0].push({ disconnect: told });
    };
    end({ code: 4003, reason: "reconnect", reconnect: true });
    await pass(6);
    assert.equal(client.state, "open");
    server.publish("demo:a", 1);
    await pass(3);
    assert.deepEqual(seen.heard.at(-1), ["demo:a", 1]);
    end({ code: 4503, reason: "permission_denied", reconnect: false });
    await pass(6);
    assert.equal(client.state, "closed");
    assert.deepEqual(seen.disconnects.map(({ code }) => code), [4003, 4503]);
  });
}

test("what the client says goes with connect", async () => {
  connect(["websocket"], { data: { session: 5 }, info: { name: "Ann" } });
  client.connect();
  await pass(1);
  const [[, { connect: said }]] = server.log.filter(([what, command]) => what === "frame" && command.connect);
  assert.deepEqual(said, { info: { name: "Ann" }, data: { session: 5 } });
});

test("a close code alone says whether to come back", async () => {
  for (const [code, state] of [[4503, "closed"], [4003, "open"]]) {
    server.network = { ws: code };
    const seen = connect(["websocket"]);
    follow(seen, "demo:a");
    await pass(1);
    server.network = {};
    await pass(10);
    assert.equal(client.state, state);
  }
});
