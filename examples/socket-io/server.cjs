// A node: what one client says, the clients of all nodes hear.
//   npm install socket.io @socket.io/redis-adapter redis
//   PORT=3000 REDIS_URL=redis://10.0.0.60 node server.cjs
const { createServer } = require('node:http');
const { createAdapter } = require('@socket.io/redis-adapter');
const { createClient } = require('redis');
const { Server } = require('socket.io');

async function main() {
  const publisher = createClient({ url: process.env.REDIS_URL });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) client.on('error', (e) => console.error(`redis: ${e.message}`));
  await Promise.all([publisher.connect(), subscriber.connect()]);

  const server = createServer((request, response) => {
    const isReady = publisher.isReady && subscriber.isReady;
    response.statusCode = request.url !== '/healthz' ? 404 : isReady ? 200 : 503;
    response.end();
  });
  const io = new Server(server, { adapter: createAdapter(publisher, subscriber) });
  io.on('connection', (socket) => {
    socket.on('message', (text) => io.emit('message', text));
  });
  server.listen(Number(process.env.PORT ?? 3000), process.env.HOST, () => console.log(`port ${server.address().port}`));
}

main();
