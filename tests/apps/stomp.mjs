// STOMP 1.2: a small broker on `ws`, and clients of @stomp/stompjs.
import http from 'node:http';
import { check, load, run, within } from './lib.mjs';

const frame = (command, headers, body = '') => {
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`).join('');
  return `${command}\n${lines}content-length:${Buffer.byteLength(body)}\n\n${body}\0`;
};

function node() {
  const { WebSocketServer } = load('ws');
  const { Parser } = load('@stomp/stompjs');
  const server = http.createServer();
  const subscriptions = new Set();
  let messages = 0;
  const handlers = {
    CONNECT: (socket) => {
      socket.send(frame('CONNECTED', { version: '1.2', 'heart-beat': '1000,1000' }));
      const beat = setInterval(() => socket.send('\n'), 1000);
      socket.on('close', () => clearInterval(beat));
    },
    SUBSCRIBE: (socket, { id, destination }) => subscriptions.add({ socket, id, destination }),
    SEND: (_, { destination }, body) => {
      for (const { socket, id, destination: wanted } of subscriptions) {
        if (wanted !== destination) continue;
        messages += 1;
        socket.send(frame('MESSAGE', { subscription: id, 'message-id': messages, destination }, body));
      }
    },
  };
  new WebSocketServer({ server, handleProtocols: (offered) => (offered.has('v12.stomp') ? 'v12.stomp' : false) })
    .on('connection', (socket) => {
      const parser = new Parser(({ command, headers, binaryBody }) => {
        const named = Object.fromEntries(headers);
        handlers[command]?.(socket, named, Buffer.from(binaryBody).toString());
        if (named.receipt) socket.send(frame('RECEIPT', { 'receipt-id': named.receipt }));
      }, () => {});
      socket.on('message', (data) => parser.parseChunk(new Uint8Array(data)));
      socket.on('close', () => subscriptions.forEach((one) => one.socket === socket && subscriptions.delete(one)));
    });
  return server;
}

async function clients(url) {
  const { Client } = load('@stomp/stompjs');
  const { WebSocket } = load('ws');
  let wake = () => {};
  const connect = (n) => within(new Promise((resolve, reject) => {
    const heard = [];
    const client = new Client({
      webSocketFactory: () => new WebSocket(`${url.replace('http', 'ws')}/stomp`, ['v12.stomp', 'v11.stomp']),
      reconnectDelay: 0, heartbeatIncoming: 1000, heartbeatOutgoing: 1000, splitLargeFrames: n % 2 === 1,
      onStompError: (e) => reject(new Error(e.body)), onWebSocketError: (e) => reject(new Error(e.message)),
      onHeartbeatLost: () => reject(new Error('no heart-beat')),
    });
    client.onConnect = () => {
      check(client.webSocket.protocol === 'v12.stomp', 'the subprotocol');
      client.subscribe('/topic/all', (message) => { heard.push(message.body); wake(); });
      client.watchForReceipt('ready', () => resolve({ client, heard }));
      client.publish({ destination: '/none', headers: { receipt: 'ready' } });
    };
    client.activate();
  }), 'a connection');
  const all = await Promise.all(Array.from({ length: 6 }, (_, n) => connect(n)));
  const bodies = ['', 'a', 'é'.repeat(30000), 'x'.repeat(200000)];
  for (const body of bodies) all.forEach(({ client }, n) => client.publish({ destination: '/topic/all', body: `${n} ${body}` }));
  const wanted = bodies.flatMap((body) => all.map((_, n) => `${n} ${body}`)).sort().join('|');
  const complete = () => all.every(({ heard }) => heard.length === all.length * bodies.length);
  await within((async () => { while (!complete()) await new Promise((r) => { wake = r; }); })(), 'every message');
  check(all.every(({ heard }) => [...heard].sort().join('|') === wanted), 'each message once');
  // Longer than a heart-beat may be late.
  await new Promise((r) => { setTimeout(r, 2500); });
  check(all.every(({ client }) => client.connected), 'all are connected');
  await Promise.all(all.map(({ client }) => client.deactivate()));
  return { clients: all.length };
}

run(node, clients);
