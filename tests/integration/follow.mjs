// Follows a channel with the client of the browser, and writes what happens to it as lines of JSON.
// Arguments: the URL of the client's module, the base URL of the server, the channel, the client's options as JSON.

const [module, base, channel, options] = process.argv.slice(2);
const { Client } = await import(module);

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const client = new Client(base, JSON.parse(options));
client.on("transport", ({ transport }) => say({ transport: transport ?? null }));
client.on("state", ({ state, reason }) => state === "closed" && say({ closed: reason }));
const subscription = client.subscribe(channel);
for (const name of ["gap", "unsubscribed"]) subscription.on(name, (told) => say({ [name]: told }));
subscription.on("message", ({ data, epoch, offset }) => say({ n: data.n, position: `${epoch}:${offset}`, by: client.transport }));
