// npm `ws` as the backend of the peers' tests.  Prints one line of JSON with its ports; ends with its standard input.
import { createRequire } from 'node:module';
import net from 'node:net';
import path from 'node:path';
import { pattern } from './interpreter.mjs';

const require = createRequire(path.join(process.env.NODE_DIR || process.cwd(), 'x.js'));
const { WebSocketServer } = require('ws');

const records = new Map(); // id -> promise of the record
const settle = new Map(); // id -> its resolve
const record = (id) => {
  if (!records.has(id)) records.set(id, new Promise((resolve) => settle.set(id, resolve)));
  return records.get(id);
};

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  maxPayload: 1 << 30,
  maxFragments: 0, // Autobahn 9.3 and 9.4 send more than the default allows
  maxBufferedChunks: 0,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered, request) => {
    const pick = args(request).get('pick');
    return pick && offered.has(pick) ? pick : false;
  },
});

function args(request) {
  return new URL(request.url, 'ws://x').searchParams;
}

server.on('connection', (ws, request) => {
  const q = args(request);
  const socket = ws._socket;
  const r = {
    subprotocol: ws.protocol, deflate: 'permessage-deflate' in ws._extensions,
    messages: 0, bytes: 0, pings: 0, pongs: 0, reset: false,
  };
  socket.on('error', (e) => { if (e.code === 'ECONNRESET' || e.code === 'EPIPE') r.reset = true; });
  ws.on('error', () => {});
  ws.on('ping', () => { r.pings += 1; });
  ws.on('close', (code, reason) => {
    record(q.get('id'));
    settle.get(q.get('id'))({ ...r, code, reason: reason.toString(), wire: socket.bytesRead });
  });
  if (q.get('do') === 'greet') {
    for (let i = 1; i <= 20; i += 1) ws.send(Buffer.from(pattern('binary', i * 37, i)));
  }
  ws.on('message', (data, binary) => {
    r.messages += 1;
    r.bytes += data.length;
    obey(ws, q, data, binary, r);
  });
});

function obey(ws, q, data, binary, r) {
  switch (q.get('do')) {
    case 'close': return ws.close(Number(q.get('code')), q.get('reason') || '');
    case 'reset': return ws._socket.resetAndDestroy();
    case 'drop': return ws._socket.end(() => ws.terminate());
    case 'fragments': return inFragments(ws, data, binary);
    case 'pings': return afterPings(ws, data, binary, r);
    default: return ws.send(data, { binary });
  }
}

function inFragments(ws, data, binary) {
  for (let i = 0; i < 4; i += 1) {
    const part = data.subarray(Math.floor((data.length * i) / 4), Math.floor((data.length * (i + 1)) / 4));
    ws.send(part, { binary, fin: i === 3 });
    if (i < 3) ws.ping(`between ${i}`);
  }
}

function afterPings(ws, data, binary, r) {
  let waiting = 5;
  const onPong = (p) => {
    if (!p.toString().startsWith('ping ')) return;
    r.pongs += 1;
    waiting -= 1;
    if (waiting) return;
    ws.off('pong', onPong);
    ws.send(data, { binary });
  };
  ws.on('pong', onPong);
  for (let i = 0; i < 5; i += 1) ws.ping(`ping ${i}`);
}

const control = net.createServer((c) => {
  c.on('error', () => {});
  c.once('data', async (d) => {
    const late = setTimeout(() => c.end('{"error":"the session has not ended"}\n'), 15000);
    const answer = await record(d.toString().trim());
    clearTimeout(late);
    c.end(`${JSON.stringify(answer)}\n`);
  });
});

server.on('listening', () => control.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port, control: control.address().port }));
}));
process.stdin.on('end', () => process.exit(0)).resume();
