// The parts of the client that need no connection.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import {
  backoffDelay,
  comesBack,
  fromEnvelope,
  judge,
  makeCursor,
  payloadFields,
  Position,
  retryAfter,
  SseParser,
} from "../../../rtpush/static/client/rtpush.js";

const STREAM = [
  'retry: 1423\nevent: open\nid: k3f9:6\ndata: {"a":1}\n\n',
  ": a comment\r\n\r\n",
  "id: k3f9:7\r\nevent: price\r\ndata: first\r\ndata:second\r\ndata:  two spaces\r\n\r\n",
  "data: ünïcödé 🦊 \u2028 here\r\r",
  "event: nothing\n\n",
  "data\n\n",
  "id\ndata: without an id\nfoo: bar\n\n",
].join("");

const EVENTS = [
  { event: "open", data: '{"a":1}', id: "k3f9:6" },
  { event: "price", data: "first\nsecond\n two spaces", id: "k3f9:7" },
  { event: "message", data: "ünïcödé 🦊 \u2028 here", id: "k3f9:7" },
  { event: "message", data: "", id: "k3f9:7" },
  { event: "message", data: "without an id", id: "" },
];

function parse(pieces) {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  return pieces.flatMap((piece) => parser.feed(decoder.decode(piece, { stream: true })));
}

test("the event stream parser reads a stream cut in two at any byte", () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let at = 0; at <= bytes.length; at += 1) {
    assert.deepEqual(parse([bytes.subarray(0, at), bytes.subarray(at)]), EVENTS, `cut at ${at}`);
  }
});

test("the event stream parser reads a stream byte by byte", () => {
  const bytes = new TextEncoder().encode(STREAM);
  assert.deepEqual(parse(Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))), EVENTS);
});

test("an event comes with the line end that completes it, not later", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.feed("data: x\n"), []);
  assert.equal(parser.feed("\n").length, 1);
});

test("the backoff doubles up to its maximum, and adds chance", () => {
  const backoff = { base: 1, max: 30, jitter: 2 };
  const delays = [0, 1, 2, 3, 4, 5, 6, 2000].map((attempt) => backoffDelay(attempt, backoff, 0));
  assert.deepEqual(delays, [1, 2, 4, 8, 16, 30, 30, 30]);
  assert.equal(backoffDelay(1, backoff, 0.5), 3);
});

test("a cursor joins positions, and says - for now", () => {
  assert.equal(makeCursor([new Position("k3f9", 7), undefined, new Position("m2p1", 12)]), "k3f9:7,-,m2p1:12");
  assert.equal(makeCursor([]), "");
});

test("a position is read as it is written, and nothing else is read", () => {
  assert.equal(String(Position.parse("k3f9:7")), "k3f9:7");
  assert.equal(Position.parse("-"), undefined);
  for (const text of ["", "k3f9", "k3f9:", ":7", "k3f9:-1", "k3f9:7,m2p1:1", "k 9:7", "k3f9:9007199254740993"]) {
    assert.throws(() => Position.parse(text), TypeError, text);
  }
});

test("a message is next, seen, or after a hole", () => {
  const at = new Position("e1", 5);
  assert.equal(judge(at, { epoch: "e1", offset: 6 }), "next");
  assert.equal(judge(at, { epoch: "e1", offset: 5 }), "seen");
  assert.equal(judge(at, { epoch: "e1", offset: 1 }), "seen");
  assert.equal(judge(at, { epoch: "e1", offset: 7 }), "hole");
  assert.equal(judge(at, { epoch: "e2", offset: 6 }), "hole");
  assert.equal(judge(at, {}), "next");
  assert.equal(judge(undefined, { epoch: "e1", offset: 9 }), "next");
});

test("close codes say whether to come back", () => {
  for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4499])
    assert.equal(comesBack(code), true, code);
  for (const code of [1002, 1003, 1007, 1008, 1009, 1010, 4500, 4501, 4999]) assert.equal(comesBack(code), false, code);
});

test("payloads: JSON as it is, bytes in base64, and back", () => {
  assert.deepEqual(payloadFields({ a: 1 }), { data: { a: 1 } });
  assert.deepEqual(payloadFields("text"), { data: "text" });
  assert.deepEqual(payloadFields(undefined), { data: null });
  const bytes = Uint8Array.from({ length: 100_000 }, (_, at) => at % 256);
  for (const data of [bytes, bytes.buffer, new DataView(bytes.buffer)]) {
    const { data_b64 } = payloadFields(data);
    assert.deepEqual(fromEnvelope({ channel: "a", data_b64 }).data, bytes);
  }
  const part = new Uint8Array(bytes.buffer, 3, 2);
  assert.deepEqual(fromEnvelope({ channel: "a", ...payloadFields(part) }).data, Uint8Array.of(3, 4));
  assert.deepEqual(fromEnvelope({ channel: "a", data: 0, event: "e", epoch: "k", offset: 1 }), {
    channel: "a",
    data: 0,
    event: "e",
    epoch: "k",
    offset: 1,
  });
});

test("Retry-After is seconds or a date", () => {
  assert.equal(retryAfter("7", 0), 7);
  assert.equal(retryAfter("1.5", 0), 1.5);
  assert.equal(retryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 4000), 6);
  assert.equal(retryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 40_000), 0);
  assert.equal(retryAfter("soon", 0), undefined);
  assert.equal(retryAfter(null, 0), undefined);
});

test("rtpush.d.ts declares what the module exports", async () => {
  const source = new URL("../../../rtpush/static/client/", import.meta.url);
  const declarations = await readFile(new URL("rtpush.d.ts", source), "utf8");
  const declared = [...declarations.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(declared.sort(), Object.keys(await import(new URL("rtpush.js", source))).sort());
});
