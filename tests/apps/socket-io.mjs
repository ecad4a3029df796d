// Socket.IO: a node of two that share a Redis server, and clients of each kind of transport.
import http from 'node:http';
import { browse } from '../peers/devtools.mjs';
import { check, load, once, run, within } from './lib.mjs';

/// `ids`: of sessions, the proxy's or its own.
async function node(name, redis, ids) {
  const { Server } = load('socket.io');
  const { createAdapter } = load('@socket.io/redis-adapter');
  const publisher = load('redis').createClient({ url: redis });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  const page = '<!doctype html><title>chat</title><script src="/socket.io/socket.io.js"></script>';
  const server = http.createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(page));
  const io = new Server(server, {
    adapter: createAdapter(publisher, subscriber),
    cors: { origin: 'https://elsewhere.example', credentials: true, methods: ['GET', 'POST'], allowedHeaders: ['x-app'] },
    pingInterval: 2500,
  });
  if (ids === 'of requests') io.engine.generateId = (request) => request.headers['x-request-id'];
  io.on('connection', (socket) => {
    socket.on('echo', (data, answer) => answer(data));
    socket.on('shout', (text) => io.emit('heard', text));
    socket.on('everyone', async (answer) => answer((await io.fetchSockets()).length));
    socket.emit('welcome', name, socket.conn.transport.name);
  });
  return server;
}

const KINDS = { upgrade: ['polling', 'websocket'], polling: ['polling'], websocket: ['websocket'] };
const EACH = 6;

/// One client, on connections of its own. A failure is not mended by a new connection.
async function join(url, kind, options) {
  const socket = load('socket.io-client').io(url, {
    transports: KINDS[kind], forceNew: true, reconnection: false, withCredentials: true, ...options,
  });
  const client = { kind, socket, heard: new Map(), pings: 0 };
  socket.on('heard', (text) => client.heard.set(text, (client.heard.get(text) || 0) + 1));
  socket.io.on('ping', () => { client.pings += 1; });
  socket.on('disconnect', (reason, details) => {
    if (reason !== 'io client disconnect') {
      console.error(`wrong: ${kind} disconnected: ${reason} ${details?.description?.message ?? details}`);
      process.exit(1);
    }
  });
  client.node = await once(socket, 'welcome', 'connect_error');
  if (kind === 'upgrade') {
    const { engine } = socket.io;
    if (engine.transport.name !== 'websocket') await once(engine, 'upgrade');
  }
  return client;
}

async function until(what, condition) {
  for (let n = 0; !condition(); n += 1) {
    check(n < 2000, what);
    await new Promise((r) => { setTimeout(r, 10); });
  }
}

/// Runs in a page: one client, and what it sends and gets back.
async function talk(transports, size) {
  const socket = window.io({ transports, forceNew: true, reconnection: false });
  const failed = new Promise((_, reject) => {
    socket.on('connect_error', reject);
    socket.on('disconnect', (reason) => reason !== 'io client disconnect' && reject(new Error(reason)));
  });
  const upgraded = new Promise((resolve) => { socket.io.engine.on('upgrade', resolve); });
  const work = async () => {
    const node = await new Promise((resolve) => { socket.on('welcome', resolve); });
    if (transports.length === 2) await upgraded;
    const sent = { text: 'é'.repeat(size), bytes: new Uint8Array(size).fill(7) };
    const back = await socket.emitWithAck('echo', sent);
    if (back.text !== sent.text || new Uint8Array(back.bytes).join() !== sent.bytes.join()) throw new Error('the echo differs');
    await new Promise((resolve) => { socket.io.on('ping', resolve); });
    socket.disconnect();
    return node;
  };
  return Promise.race([work(), failed]);
}

/// All clients of a browser have one cookie, and so one node.
function inChromium(url) {
  return browse(async (open) => {
    const evaluate = await open(`${url}/`);
    const ask = (transports) => within(evaluate(`(${talk})(${JSON.stringify(transports)}, 70000)`), `${transports}`);
    const all = Object.values(KINDS).flatMap((transports) => [transports, transports]);
    const nodes = [await ask(KINDS.polling), ...await Promise.all(all.map(ask))];
    return { clients: nodes.length, nodes: new Set(nodes).size };
  });
}

async function leave(all) {
  const sockets = all.map((one) => one.socket.io.engine.transport.ws).filter(Boolean);
  all.forEach((one) => one.socket.disconnect());
  await until('all have closed', () => sockets.every((ws) => ws.readyState === ws.CLOSED));
}

/// Those of examples/socket-io: what one says, all hear.
async function inExample(url) {
  const all = await Promise.all(Object.values(KINDS).flatMap((transports) => Array.from({ length: EACH }, async () => {
    const socket = load('socket.io-client').io(url, { transports, forceNew: true, reconnection: false, withCredentials: true });
    const heard = new Set();
    socket.on('message', (text) => heard.add(text));
    await once(socket, 'connect', 'connect_error');
    if (transports.length === 2 && socket.io.engine.transport.name !== 'websocket') await once(socket.io.engine, 'upgrade');
    return { socket, heard };
  })));
  all.forEach(({ socket }) => socket.send(`by ${socket.id}`));
  await until('each hears each', () => all.every(({ heard }) => heard.size === all.length));
  await leave(all);
  return { clients: all.length };
}

/// `cookie`: clients keep it. `keyed`: each names a key of its own. `plain`: neither.
async function clients(url, how) {
  if (how === 'chromium') return inChromium(url);
  if (how === 'example') return inExample(url);
  const query = () => (how === 'keyed' ? { key: Math.random().toString(36) } : {});
  const options = () => ({ withCredentials: how === 'cookie', query: query() });
  const joined = Object.keys(KINDS).flatMap((kind) => Array.from({ length: EACH }, () => join(url, kind, options())));
  const all = await Promise.all(joined);
  for (const name of ['a', 'b']) check(all.some((one) => one.node === name), `no client of node ${name}`);
  for (const [kind, transports] of Object.entries(KINDS)) {
    const last = transports.at(-1);
    check(all.every((one) => one.kind !== kind || one.socket.io.engine.transport.name === last), `${kind} is on ${last}`);
  }
  // Texts and bytes of each size, in both directions.
  for (const size of [0, 1, 125, 126, 70000, 400000]) {
    await Promise.all(all.map(async ({ kind, socket }) => {
      const sent = { text: 'é'.repeat(size / 2), bytes: Buffer.alloc(size, size & 255) };
      const back = await within(socket.emitWithAck('echo', sent), `echo of ${size} by ${kind}`);
      check(back.text === sent.text && Buffer.from(back.bytes).equals(sent.bytes), `echo of ${size} by ${kind}`);
    }));
  }
  check(await within(all[0].socket.emitWithAck('everyone'), 'everyone') === all.length, 'the nodes know each other');
  // What one says, all hear, once, on both nodes.
  for (const { socket, kind, node: of } of all) socket.emit('shout', `${kind} of ${of} ${socket.id}`);
  await until('each hears each', () => all.every((one) => one.heard.size === all.length));
  check(all.every((one) => [...one.heard.values()].every((times) => times === 1)), 'once each');
  // A poll waits for the next ping.
  await until('two pings of each', () => all.every((one) => one.pings >= 2));
  await leave(all);
  return { clients: all.length };
}

run(node, clients);
