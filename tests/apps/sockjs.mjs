// SockJS: its server, and clients of each transport.
import http from 'node:http';
import fs from 'node:fs';
import { browse } from '../peers/devtools.mjs';
import { check, load, run, within } from './lib.mjs';

function node(name) {
  const sockjs = load('sockjs').createServer({ prefix: '/echo', log: () => {}, jsessionid: true });
  sockjs.on('connection', (conn) => {
    conn.write(`welcome ${name}`);
    conn.on('data', (text) => conn.write(text));
  });
  const script = fs.readFileSync(load.resolve('sockjs-client/dist/sockjs.min.js'));
  const server = http.createServer((request, response) => {
    if (request.url.startsWith('/echo')) return;
    const [type, body] = request.url === '/sockjs.js' ? ['text/javascript', script] : ['text/html', '<script src="/sockjs.js"></script>'];
    response.setHeader('Content-Type', type).end(body);
  });
  sockjs.installHandlers(server);
  return server;
}

const TRANSPORTS = ['websocket', 'xhr-streaming', 'xhr-polling'];
const EACH = 5;

async function client(SockJS, url, transport) {
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

function inChromium(url) {
  return browse(async (open) => {
    const evaluate = await open(`${url}/`);
    await evaluate(`${check}\n${within}\n${client}\ntrue`);
    const ask = (transport) => evaluate(`client(SockJS, location.origin, '${transport}')`);
    // The first of them brings the cookie of a node.
    const nodes = [await ask('xhr-polling')];
    for (const transport of [...TRANSPORTS, 'eventsource', ...TRANSPORTS]) nodes.push(await ask(transport));
    return nodes;
  });
}

async function clients(url, how) {
  const SockJS = load('sockjs-client');
  const all = () => TRANSPORTS.flatMap((transport) => Array.from({ length: EACH }, () => client(SockJS, url, transport)));
  const welcomes = how === 'chromium' ? await inChromium(url) : await Promise.all(all());
  return { clients: welcomes.length, nodes: new Set(welcomes).size };
}

run(node, clients);
