// The client with Node's own fetch and real sockets: what a mock could get wrong.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";
import { test } from "node:test";
import { Client } from "../../../rtpush/static/client/rtpush.js";

const LAST = 40;
const backoff = { base: 0.01, max: 0.01, jitter: 0 };

/** A server with one channel that holds the messages 1 to LAST, and cuts the connection within the answer. */
async function serve(answer) {
  let count = 0;
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    if (url.pathname === "/app/negotiate") response.writeHead(404).end();
    else answer(url.searchParams, response, (count += 1));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, count: () => count, base: `http://127.0.0.1:${server.address().port}/app` };
}

async function receive({ base, server }, transport) {
  const client = new Client(base, { transports: [transport], backoff, WebSocket: null });
  const numbers = [];
  const subscription = client.subscribe("demo:a/b", { cursor: "e1:0" });
  await new Promise((resolve) => {
    subscription.on("message", ({ data, offset }) => {
      assert.equal(data, `nummer ${offset} 🦊`);
      if (numbers.push(offset) === LAST) resolve();
    });
  });
  client.close();
  server.closeAllConnections();
  server.close();
  return numbers;
}

const envelope = (offset) => ({ channel: "demo:a/b", epoch: "e1", offset, data: `nummer ${offset} 🦊` });
const after = (query) => Number(query.get("cursor").split(":")[1]);
const all = Array.from({ length: LAST }, (_, at) => at + 1);

test("an event stream in small pieces, cut again and again in the middle of an event", async () => {
  const served = await serve(async (query, response, number) => {
    assert.equal(query.get("channel"), "demo:a/b");
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    const opening = { connection: "c1", cursor: query.get("cursor"), recovered: true };
    const events = [`event: open\ndata: ${JSON.stringify(opening)}\n\n`];
    for (let offset = after(query) + 1; offset <= LAST; offset += 1)
      events.push(`data: ${JSON.stringify(envelope(offset))}\n\n`);
    const bytes = Buffer.from(events.join(""));
    const size = 5 + (number % 7);
    for (let at = 0; at < Math.min(bytes.length, 600); at += size) {
      response.write(bytes.subarray(at, at + size));
      await new Promise(setImmediate);
    }
    if (bytes.length > 600) response.destroy();
  });
  assert.deepEqual(await receive(served, "sse"), all);
  assert.ok(served.count() > 5);
});

test("long polls, each second one cut off", async () => {
  const served = await serve((query, response, number) => {
    const first = after(query) + 1;
    const messages = all.filter((offset) => offset >= first && offset < first + 5).map(envelope);
    const cursor = `e1:${Math.min(LAST, first + 4)}`;
    const body = JSON.stringify({ messages, cursor, recovered: true });
    response.writeHead(200, { "Content-Type": "application/json" });
    if (number % 2) response.end(body);
    else response.write(body.slice(0, 50), () => response.destroy());
  });
  assert.deepEqual(await receive(served, "longpoll"), all);
});
