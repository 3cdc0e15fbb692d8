// The browser client in Node 20 or newer: follow, publish, see who is there.
// Usage: node.mjs [URL]
import { Client } from "../rtpush/static/client/rtpush.js";

const channel = "demo:prices";
const client = new Client(process.argv[2] ?? "http://127.0.0.1:8080/", { info: { program: "node.mjs" } });

client.on("state", ({ state, reason }) => console.error(`[${state}] ${reason}`));
client.on("transport", ({ transport, reason }) => console.error(`[transport ${transport ?? "none"}] ${reason}`));

const prices = client.subscribe(channel);
prices.on("message", ({ epoch, offset, event = "message", data }) => console.log(`${epoch}:${offset}`, event, data));
prices.on("gap", ({ reason }) => console.error(`messages were lost (${reason})`));
prices.on("unsubscribed", ({ reason }) => console.error(`the subscription ended: ${reason}`));
prices.on("error", (error) => console.error(`${channel}: ${error.message}`));

const { offset } = await client.publish(channel, "hello from Node");
console.log("published at offset", offset);
console.log("who is there:", await client.presence(channel));

process.on("SIGINT", () => {
  console.error("cursor:", client.cursor([channel]));
  client.close();
});
