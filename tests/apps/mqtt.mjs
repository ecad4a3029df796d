// MQTT over WebSocket: the broker Aedes, and clients of MQTT.js.
import http from 'node:http';
import { check, load, once, run, within } from './lib.mjs';

async function node() {
  const broker = await load('aedes').Aedes.createBroker();
  const { WebSocketServer, createWebSocketStream } = load('ws');
  const server = http.createServer();
  // A client fails that has not asked for it.
  const sockets = new WebSocketServer({ server, handleProtocols: () => 'mqtt' });
  sockets.on('connection', (socket, request) => broker.handle(createWebSocketStream(socket), request));
  return server;
}

async function clients(url) {
  const mqtt = load('mqtt');
  const connect = async (name) => {
    const client = mqtt.connect(`${url.replace('http', 'ws')}/mqtt`, { clientId: name, reconnectPeriod: 0, keepalive: 1 });
    await once(client, 'connect');
    return client;
  };
  const all = await Promise.all(Array.from({ length: 8 }, (_, n) => connect(`client ${n}`)));
  const heard = all.map(() => []);
  all.forEach((client, n) => client.on('message', (topic, payload) => heard[n].push(`${topic} ${payload.length}`)));
  await Promise.all(all.map((client) => client.subscribeAsync('room/#', { qos: 1 })));
  const sizes = [0, 1, 125, 127, 70000, 200000];
  const pings = within(Promise.all(all.map((client) => new Promise((resolve) => {
    client.on('packetreceive', (packet) => packet.cmd === 'pingresp' && resolve());
  }))), 'keep-alive of each');
  for (const size of sizes) {
    await Promise.all(all.map((client, n) => client.publishAsync(`room/${n}`, Buffer.alloc(size, n), { qos: n % 3 })));
  }
  const complete = () => heard.every((list) => list.length === all.length * sizes.length);
  await within((async () => { while (!complete()) await new Promise((r) => { setTimeout(r, 10); }); })(), 'every message');
  check(heard.every((list) => new Set(list).size === list.length), 'each once');
  await pings;
  await Promise.all(all.map((client) => client.endAsync()));
  return { clients: all.length, messages: heard.flat().length };
}

run(node, clients);
