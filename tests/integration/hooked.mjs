// Follows a channel where the application is asked, publishes once, and writes what happens as lines of JSON. Arguments:
// the URL of the client's module, the base URL of the server, the channel, the transport, and a cookie.

const [module, base, channel, transport, cookie] = process.argv.slice(2);
const { Client } = await import(module);

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const client = new Client(base, { transports: [transport], headers: { cookie }, data: { cookie } });
client.on("connected", ({ data }) => say({ connected: data }));
client.on("state", ({ state, reason }) => say({ state, reason }));
client.on("error", ({ code, message }) => say({ error: message, code }));
const subscription = client.subscribe(channel);
subscription.on("subscribed", ({ data }) => say({ subscribed: data }));
subscription.on("message", ({ data }) => say({ message: data }));
client.publish(channel, "darn").catch(({ name }) => say({ unpublished: name }));
