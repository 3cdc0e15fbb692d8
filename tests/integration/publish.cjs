// Publishes through Redis with node-redis, as docs/redis.rst shows:  node publish.cjs URL CHANNEL COUNT
const { createClient } = require("redis");

async function main(url, channel, count) {
  const client = createClient({ url });
  await client.connect();
  const publish = (data, ...options) =>
    client.sendCommand(["FCALL", "rtpush_publish", "1", channel, JSON.stringify(data), ...options]);

  const positions = await Promise.all(Array.from({ length: count }, (_, index) => publish({ n: index + 1 })));
  const once = await publish("only once", "event", "greeting", "key", "k1");
  const again = await publish("only once", "event", "greeting", "key", "k1");
  console.log(JSON.stringify({ positions, once, again }));
  await client.quit();
}

main(process.argv[2], process.argv[3], Number(process.argv[4]));
