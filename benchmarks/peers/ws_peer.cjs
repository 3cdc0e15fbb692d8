// The package `ws`, fed over HTTP: node ws_peer.cjs NODE_MODULES PORT
"use strict";

const http = require("node:http");
const path = require("node:path");

const { WebSocketServer } = require(path.join(process.argv[2], "ws"));

const channels = new Map();

function publish(channel, payload) {
  for (const subscriber of channels.get(channel) ?? []) subscriber.send(payload, { binary: false });
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    if (request.method === "POST") publish(request.url.split("/").pop(), Buffer.concat(parts));
    response.writeHead(200, { "Content-Type": "application/json", "Content-Length": 2 });
    response.end("{}");
  });
});
server.keepAliveTimeout = 600_000;

const websockets = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false });
websockets.on("connection", (subscriber, request) => {
  const channel = request.url.split("/").pop();
  if (!channels.has(channel)) channels.set(channel, new Set());
  channels.get(channel).add(subscriber);
  subscriber.on("close", () => channels.get(channel).delete(subscriber));
  subscriber.on("error", () => {});
});

server.listen(Number(process.argv[3]), "127.0.0.1", 1024);
