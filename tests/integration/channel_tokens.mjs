// Follows a channel with short tokens for it alone, publishes each number that is asked for, and writes what happens as
// lines of JSON. Arguments: the URL of the client's module, the base URL of the server, the channel, the transport, the
// secret of the tokens, and the seconds for which each is good.

import { createHmac } from "node:crypto";

const [module, base, channel, transport, secret, seconds] = process.argv.slice(2);
const { Client } = await import(module);

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const encode = (object) => Buffer.from(JSON.stringify(object)).toString("base64url");

function token() {
  const now = Date.now() / 1000;
  const claims = { iat: Math.floor(now), exp: now + Number(seconds), channel, actions: ["subscribe", "publish"] };
  const content = `${encode({ alg: "HS256", kid: "hs" })}.${encode(claims)}`;
  say({ asked: true });
  return `${content}.${createHmac("sha256", secret).update(content).digest("base64url")}`;
}

const client = new Client(base, { transports: [transport] });
client.on("state", ({ state, reason }) => say({ state, reason }));
const subscription = client.subscribe(channel, { token });
for (const name of ["gap", "unsubscribed"]) subscription.on(name, (told) => say({ bad: told }));
subscription.on("error", ({ message }) => say({ bad: message }));
subscription.on("subscribed", ({ offset }) => say({ offset }));
subscription.on("message", async ({ data }) => {
  say({ n: data });
  if (typeof data === "number") await client.publish(channel, `echo ${data}`).catch((error) => say({ bad: error.message }));
});
