// Socket.IO, fed over HTTP: node socketio_peer.cjs NODE_MODULES PORT
"use strict";

const http = require("node:http");
const path = require("node:path");

const { Server } = require(path.join(process.argv[2], "socket.io"));

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    if (request.method === "POST") io.to(request.url.split("/").pop()).emit("m", Buffer.concat(parts).toString());
    response.writeHead(200, { "Content-Type": "application/json", "Content-Length": 2 });
    response.end("{}");
  });
});
server.keepAliveTimeout = 600_000;

const io = new Server(server, {
  transports: ["websocket"],
  perMessageDeflate: false,
  serveClient: false,
  pingInterval: 600_000,
  pingTimeout: 600_000,
});
io.engine.on("connection", (connection) => {
  connection.request = null;
});
io.on("connection", (socket) => {
  socket.join(socket.handshake.auth.channel);
});

server.listen(Number(process.argv[3]), "127.0.0.1", 1024);
