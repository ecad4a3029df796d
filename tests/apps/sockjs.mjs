// SockJS: its server, and clients of each transport.
import http from 'node:http';
import { check, load, run, within } from './lib.mjs';

function node(name) {
  const sockjs = load('sockjs').createServer({ prefix: '/echo', log: () => {}, jsessionid: true });
  sockjs.on('connection', (conn) => {
    conn.write(`welcome ${name}`);
    conn.on('data', (text) => conn.write(text));
  });
  const server = http.createServer((_, response) => { response.statusCode = 404; response.end(); });
  sockjs.installHandlers(server);
  return server;
}

const TRANSPORTS = ['websocket', 'xhr-streaming', 'xhr-polling'];
const EACH = 5;

async function client(url, transport) {
  const SockJS = load('sockjs-client');
  const conn = new SockJS(`${url}/echo`, null, { transports: [transport] });
  const said = [];
  let wake = () => {};
  conn.onmessage = (e) => { said.push(e.data); wake(); };
  const closed = new Promise((resolve) => { conn.onclose = (e) => { resolve(e); wake(); }; });
  const next = async (what) => {
    if (!said.length && conn.readyState < 2) await within(new Promise((r) => { wake = r; }), `${what} by ${transport}`);
    check(said.length, `${what} by ${transport}: closed`);
    return said.shift();
  };
  const welcome = await next('welcome');
  check(conn.transport === transport, `${transport}, not ${conn.transport}`);
  for (const size of [1, 200, 70000, 300000]) {
    const text = 'é😀'.repeat(size / 6 + 1);
    conn.send(text);
    check(await next(`echo of ${size}`) === text, `echo of ${size} by ${transport}`);
  }
  for (let n = 0; n < 100; n += 1) conn.send(`message ${n}`);
  for (let n = 0; n < 100; n += 1) check(await next(`message ${n}`) === `message ${n}`, `order by ${transport}`);
  conn.close(1000, 'done');
  check((await within(closed, 'the close')).wasClean, `a clean close by ${transport}`);
  return welcome;
}

async function clients(url, only) {
  const all = TRANSPORTS.filter((name) => !only || name === only)
    .flatMap((transport) => Array.from({ length: EACH }, () => client(url, transport)));
  const nodes = (await Promise.all(all)).map((welcome) => welcome.split(' ')[1]);
  return { clients: nodes.length, nodes: [...new Set(nodes)].sort() };
}

run(node, clients);
